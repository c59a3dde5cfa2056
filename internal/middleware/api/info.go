package api

import (
	"context"
	"encoding/hex"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// infoService reports what the Base is and how it is doing.
type infoService struct{ *Server }

func (s infoService) GetInfo(ctx context.Context, _ *basev1.GetInfoRequest) (*basev1.GetInfoResponse, error) {
	info, err := readSysinfo(s.StateDir)
	if err != nil {
		return nil, s.apiError(err)
	}
	response := &basev1.GetInfoResponse{
		Name:                 s.Registry.Name(),
		SoftwareVersion:      version.Software,
		ProtocolVersion:      noiseconn.ProtocolVersion,
		MachineUptimeSeconds: info.uptimeSeconds,
		DaemonUptimeSeconds:  uint64(time.Since(s.started) / time.Second),
		LoadAverage:          info.load[:],
		MemoryTotalBytes:     info.memoryTotal,
		MemoryAvailableBytes: info.memoryAvailable,
		DiskTotalBytes:       info.diskTotal,
		DiskAvailableBytes:   info.diskAvailable,
		Caller:               s.Registry.Describe(sessionOf(ctx)),
	}
	public := s.Registry.PublicKey()
	response.PublicKey = hex.EncodeToString(public[:])
	s.addMachine(ctx, response)
	return response, nil
}

// addMachine adds what other processes report; above all the name, which is the posture's.
// Without them the rest is still useful.
func (s infoService) addMachine(ctx context.Context, response *basev1.GetInfoResponse) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	machine, err := s.Machine.Machine(ctx)
	if err != nil {
		s.Logger.Warn("ask about the machine", "error", err)
	}
	response.Name = s.lastName.or(machine.GetNodeName(), response.GetName())
	response.Addresses, response.TimeZone = machine.GetAddresses(), machine.GetTimeZone()
	if machine != nil {
		response.TemperatureCelsius = machine.TemperatureCelsius
		response.DiskTroubles = machine.GetDiskTroubles()
	}
	response.Time = timestamppb.Now()
}

// lastName is the name that the helper last reported.
type lastName struct {
	mu   sync.Mutex
	name string
}

// or stores and returns told; if that is empty, it returns the last one told, or else other.
func (n *lastName) or(told, other string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if told != "" {
		n.name = told
	}
	if n.name != "" {
		return n.name
	}
	return other
}

package api

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

const (
	// SampleInterval is how often the machine is measured, and MaxSamples how many samples are
	// kept: one hour.
	SampleInterval = 30 * time.Second
	MaxSamples     = 120
)

// measurements are kept in memory: they are useless after a restart.
type measurements struct {
	mu      sync.Mutex
	samples []*basev1.Sample
}

func (m *measurements) add(sample *basev1.Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, sample)
	if extra := len(m.samples) - MaxSamples; extra > 0 {
		m.samples = slices.Delete(m.samples, 0, extra)
	}
}

func (m *measurements) all() []*basev1.Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.samples)
}

// KeepMeasuring measures the machine at each interval, until ctx ends.
func (s *Server) KeepMeasuring(ctx context.Context) {
	ticker := time.NewTicker(SampleInterval)
	defer ticker.Stop()
	for {
		s.measure(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// measure leaves out a sample that cannot be taken: a gap is not a zero.
func (s *Server) measure(ctx context.Context) {
	info, err := readSysinfo(s.StateDir)
	if err != nil {
		s.Logger.Warn("measure the machine", "error", err)
		return
	}
	sample := &basev1.Sample{
		Time: timestamppb.Now(), Load: info.load[0],
		MemoryAvailableBytes: info.memoryAvailable, MemoryTotalBytes: info.memoryTotal,
		DiskAvailableBytes: info.diskAvailable, DiskTotalBytes: info.diskTotal,
	}
	asking, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	if machine, err := s.Machine.Machine(asking); err == nil {
		sample.TemperatureCelsius = machine.TemperatureCelsius
	}
	s.measured.add(sample)
}

// machineService manages the machine below the Base.
type machineService struct{ *Server }

func (s machineService) GetHistory(context.Context, *basev1.GetHistoryRequest) (*basev1.GetHistoryResponse, error) {
	return &basev1.GetHistoryResponse{Samples: s.measured.all(), IntervalSeconds: uint32(SampleInterval / time.Second)}, nil
}

func (s machineService) ListTimeZones(ctx context.Context, _ *basev1.ListTimeZonesRequest) (*basev1.ListTimeZonesResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListTimeZones{ListTimeZones: &systemv1.ListTimeZones{}}},
		nil)
	if err != nil {
		return nil, err
	}
	return &basev1.ListTimeZonesResponse{Names: reply.GetTimeZones().GetNames(), Current: reply.GetTimeZones().GetCurrent()}, nil
}

func (s machineService) SetTimeZone(ctx context.Context, request *basev1.SetTimeZoneRequest) (*basev1.SetTimeZoneResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_SetTimeZone{
		SetTimeZone: &systemv1.SetTimeZone{Name: request.GetName()}}}, nil); err != nil {
		return nil, err
	}
	s.audit.Info("the time zone was set", "zone", request.GetName(), "by", sessionOf(ctx).ID())
	return &basev1.SetTimeZoneResponse{}, nil
}

func (s machineService) Reboot(ctx context.Context, _ *basev1.RebootRequest) (*basev1.RebootResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{
		Verb: &systemv1.SystemRequest_Reboot{Reboot: &systemv1.Reboot{}}, AppId: sessionOf(ctx).ID()}, nil); err != nil {
		return nil, err
	}
	s.audit.Warn("the machine restarts", "by", sessionOf(ctx).ID())
	return &basev1.RebootResponse{}, nil
}

func (s machineService) PowerOff(ctx context.Context, _ *basev1.PowerOffRequest) (*basev1.PowerOffResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{
		Verb: &systemv1.SystemRequest_PowerOff{PowerOff: &systemv1.PowerOff{}}, AppId: sessionOf(ctx).ID()}, nil); err != nil {
		return nil, err
	}
	s.audit.Warn("the machine is switched off", "by", sessionOf(ctx).ID())
	return &basev1.PowerOffResponse{}, nil
}

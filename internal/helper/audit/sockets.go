package audit

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// socket is one that waits for whoever comes.
type socket struct {
	protocol string // "tcp", "udp", …
	// addr is invalid for the wildcard of both families, which ss prints as *.
	addr netip.Addr
	port uint16
	// unit is the systemd unit that opened it; empty if the kernel did not tell.
	unit string
}

func (s socket) String() string {
	address := "*:" + strconv.Itoa(int(s.port))
	if s.addr.IsValid() {
		address = netip.AddrPortFrom(s.addr, s.port).String()
	}
	if s.unit == "" {
		return s.protocol + " " + address
	}
	return fmt.Sprintf("%s %s of %s", s.protocol, address, s.unit)
}

// listening lists what waits in all protocols that have ports. -O keeps each on
// one line; the control group is the only way to the owner that needs no right over
// other processes.
var listening = []string{ss, "-H", "-n", "-O", "-l", "-t", "-u", "-S", "-d", "--cgroup"}

// parseSockets reads the output of listening:
//
//	tcp LISTEN 0 511 [::]:8845 [::]:* cgroup:/system.slice/bitbox-base-nginx.service
func parseSockets(output string) ([]socket, error) {
	var sockets []socket
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		s, err := parseSocket(fields)
		if err != nil {
			return nil, fmt.Errorf("read the output of ss from the line %q: %w", strings.TrimSpace(line), err)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func parseSocket(fields []string) (socket, error) {
	if len(fields) < 6 {
		return socket{}, fmt.Errorf("%d fields instead of at least 6", len(fields))
	}
	s := socket{protocol: fields[0]}
	local := fields[4]
	colon := strings.LastIndexByte(local, ':')
	if colon < 0 {
		return socket{}, fmt.Errorf("the local address %q has no port", local)
	}
	port, err := strconv.ParseUint(local[colon+1:], 10, 16)
	if err != nil {
		return socket{}, err
	}
	s.port = uint16(port)
	host, _, _ := strings.Cut(local[:colon], "%") // 0.0.0.0%eth0, [fe80::1]%eth0
	if host = strings.Trim(host, "[]"); host != "*" {
		if s.addr, err = netip.ParseAddr(host); err != nil {
			return socket{}, err
		}
	}
	for _, field := range fields[6:] {
		if group, ok := strings.CutPrefix(field, "cgroup:"); ok {
			s.unit = unitOf(group)
		}
	}
	return s, nil
}

// unitOf returns the service in the path of a control group, or else its last part.
func unitOf(group string) string {
	parts := strings.Split(strings.Trim(group, "/"), "/")
	for _, part := range slices.Backward(parts) {
		if strings.HasSuffix(part, ".service") {
			return part
		}
	}
	return parts[len(parts)-1]
}

// permission is a socket that may be there.
type permission struct {
	protocol string
	port     uint16   // 0: any
	units    []string // those that may have it
}

// alwaysPermitted are the sockets of every Base beside its servers'. The packet
// filter lets nobody begin anything with those of port 0: they carry questions
// of ours, and no source can be told in advance.
var alwaysPermitted = []permission{
	{"udp", 68, networkUnits}, // DHCP
	{"udp", 546, networkUnits},
	{"udp", 0, []string{"systemd-resolved.service", "systemd-timesyncd.service"}},
}

var networkUnits = []string{"systemd-networkd.service", "networking.service", "NetworkManager.service", "dhclient.service"}

// servers are the sockets that what is in force asks for.
func servers(e posture.Effective) []permission {
	list := entries(e)
	if e.SSH != nil {
		list = append(list, permission{"tcp", sshaccess.Port, []string{generation.SSHUnit}})
	}
	return append(list, permission{"udp", mdnsPort, []string{generation.MDNSUnit}})
}

// entries are those of NGINX. They have to be there, or no App gets in; that the
// other servers run is asked of systemd (units.go, ssh.go).
func entries(e posture.Effective) []permission {
	var list []permission
	for _, endpoint := range e.Endpoints {
		if !endpoint.Shared {
			list = append(list, permission{"tcp", endpoint.Port, []string{generation.ProxyUnit}})
		}
	}
	return list
}

// mdnsPort is RFC 6762's.
const mdnsPort = 5353

func (p permission) covers(s socket) bool {
	return p.protocol == s.protocol && (p.port == 0 || p.port == s.port) && (s.unit == "" || slices.Contains(p.units, s.unit))
}

// checkSockets compares what listens with what is in force. What listens on
// loopback alone is left out: nobody reaches it from the network, and services
// behind the entry live there.
func checkSockets(ctx context.Context, system System, want Expectation) ([]difference, error) {
	output, err := ask(ctx, system, listening...)
	if err != nil {
		return nil, err
	}
	sockets, err := parseSockets(output)
	if err != nil {
		return nil, err
	}
	return compareSockets(sockets, want.Posture), nil
}

func compareSockets(sockets []socket, e posture.Effective) []difference {
	permitted := append(servers(e), alwaysPermitted...)
	var unexpected []string
	for _, s := range sockets {
		if s.addr.IsLoopback() {
			continue
		}
		if !slices.ContainsFunc(permitted, func(p permission) bool { return p.covers(s) }) {
			unexpected = append(unexpected, s.String())
		}
	}
	var silent []string
	for _, p := range entries(e) {
		for _, wildcard := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if !slices.ContainsFunc(sockets, func(s socket) bool { return p.covers(s) && s.addr == wildcard }) {
				silent = append(silent, fmt.Sprintf("NGINX does not listen on tcp %s", netip.AddrPortFrom(wildcard, p.port)))
			}
		}
	}
	var differences []difference
	if unexpected != nil {
		differences = append(differences, difference{id: idListener, found: unexpected})
	}
	if silent != nil {
		differences = append(differences, difference{id: idEntrySilent, found: silent})
	}
	return differences
}

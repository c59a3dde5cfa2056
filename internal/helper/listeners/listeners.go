// Package listeners asks the kernel for all listening sockets, and compares their units and
// users with those that may listen. This includes loopback, because a process that takes a
// port there receives the traffic of the service.
//
// The kernel tells the user of each socket. It tells the unit through control groups, if they
// are of version 2; otherwise the user alone is compared.
package listeners

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Command lists all waiting sockets of protocols with ports, and unix sockets without a file. -O
// keeps each on one line, -e adds the user; the control group is the only way to find the unit
// without rights over other processes.
var Command = []string{"/usr/bin/ss", "-H", "-n", "-O", "-l", "-t", "-u", "-S", "-d", "-x", "-e", "--cgroup"}

// Socket is one socket that waits for connections or packets.
type Socket struct {
	Protocol string // "tcp", "udp", …; "unix" for one without a file
	// Name is that of a unix socket without a file, beginning with @.
	Name string
	// Addr is invalid for the wildcard of both families, which ss prints as *.
	Addr netip.Addr
	Port uint16
	// UID is the user who made it.
	UID int
	// Unit is the systemd unit that made it; empty if the kernel did not tell.
	Unit string
}

// Loopback tells whether it can be reached only from this machine.
func (s Socket) Loopback() bool { return s.Addr.IsLoopback() || s.Protocol == "unix" }

func (s Socket) String() string {
	text := s.Protocol + " " + s.Name
	if s.Name == "" {
		text += "*:" + strconv.Itoa(int(s.Port))
	}
	if s.Addr.IsValid() {
		text = s.Protocol + " " + netip.AddrPortFrom(s.Addr, s.Port).String()
	}
	if s.Unit != "" {
		text += " of " + s.Unit
	}
	return fmt.Sprintf("%s, user %d", text, s.UID)
}

// Parse reads the output of Command:
//
//	tcp LISTEN 0 511 [::]:8845 [::]:* uid:33 ino:7 sk:1 cgroup:/system.slice/bitbox-base-nginx.service
//	u_str LISTEN 0 5 @name 1234 * 0 <->
//
// Unix sockets with a file are left out: their modes are checked elsewhere.
func Parse(output string) ([]Socket, error) {
	var sockets []Socket
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		s, skip, err := parse(fields)
		if err != nil {
			return nil, reason.Errorf("read the output of ss from the line %q: %w", strings.TrimSpace(line), err)
		}
		if !skip {
			sockets = append(sockets, s)
		}
	}
	return sockets, nil
}

func parse(fields []string) (s Socket, skip bool, err error) {
	if len(fields) < 6 {
		return s, false, reason.Errorf("%d fields instead of at least 6", len(fields))
	}
	local := fields[4]
	if strings.HasPrefix(fields[0], "u_") {
		return Socket{Protocol: "unix", Name: local}, !strings.HasPrefix(local, "@") || fields[1] != "LISTEN", nil
	}
	s = Socket{Protocol: fields[0]}
	colon := strings.LastIndexByte(local, ':')
	if colon < 0 {
		return s, false, reason.Errorf("the local address %q has no port", local)
	}
	port, err := strconv.ParseUint(local[colon+1:], 10, 16)
	if err != nil {
		return s, false, err
	}
	s.Port = uint16(port)
	host, _, _ := strings.Cut(local[:colon], "%") // 0.0.0.0%eth0, [fe80::1]%eth0
	if host = strings.Trim(host, "[]"); host != "*" {
		if s.Addr, err = netip.ParseAddr(host); err != nil {
			return s, false, err
		}
	}
	for _, field := range fields[6:] {
		key, value, _ := strings.Cut(field, ":")
		switch key {
		case "uid": // absent for root
			if s.UID, err = strconv.Atoi(value); err != nil {
				return s, false, err
			}
		case "cgroup":
			s.Unit = unitOf(value)
		}
	}
	return s, false, nil
}

// unitOf returns the service in the path of a control group, or else its last part. A group that
// ss cannot find, as on a kernel without version 2, is "unreachable:" and a number.
func unitOf(group string) string {
	if strings.HasPrefix(group, "unreachable:") {
		return ""
	}
	parts := strings.Split(strings.Trim(group, "/"), "/")
	for _, part := range slices.Backward(parts) {
		if strings.HasSuffix(part, ".service") {
			return part
		}
	}
	return parts[len(parts)-1]
}

// Owner is a unit that may listen, and the user of its sockets.
type Owner struct {
	Unit string
	UID  int
}

// Permission lets owners listen.
type Permission struct {
	Protocol string
	Port     uint16 // 0: any
	// Loopback: on loopback alone.
	Loopback bool
	Owners   []Owner
}

// Covers tells whether p permits s. units tells whether the kernel reports units at all.
func (p Permission) Covers(s Socket, units bool) bool {
	if p.Protocol != s.Protocol || p.Port != 0 && p.Port != s.Port || p.Loopback && !s.Loopback() {
		return false
	}
	return slices.ContainsFunc(p.Owners, func(o Owner) bool { return o.UID == s.UID && (o.Unit == s.Unit || !units) })
}

// TellUnits tells whether the kernel reported the unit of any of the sockets.
func TellUnits(sockets []Socket) bool {
	return slices.ContainsFunc(sockets, func(s Socket) bool { return s.Unit != "" })
}

// Unexpected returns the sockets that no permission covers.
func Unexpected(sockets []Socket, permitted []Permission) []Socket {
	units := TellUnits(sockets)
	return slices.DeleteFunc(slices.Clone(sockets), func(s Socket) bool {
		return slices.ContainsFunc(permitted, func(p Permission) bool { return p.Covers(s, units) })
	})
}

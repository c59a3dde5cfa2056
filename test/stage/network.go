//go:build linux

package stage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

// The network that a Base and its attackers share. Nothing else is on it.
//
//	10.88.0.2   fd88::2        the Base
//	10.88.N.66  fd88:0:0:N::66 attacker N: another IPv4 address, another IPv6 /64
var (
	baseV4 = netip.MustParseAddr("10.88.0.2")
	baseV6 = netip.MustParseAddr("fd88::2")
)

// Prefixes that hold all of them, so that nobody needs a route.
const (
	v4Bits = "/16"
	v6Bits = "/48"
)

// dialTimeout is how long an attacker waits for a connection that a packet
// filter may swallow. It has time for a second try. The kernel answers a
// connection, however busy the servers are.
const dialTimeout = 1500 * time.Millisecond

func namespacePath(name string) string { return filepath.Join("/run/netns", name) }

// ip runs ip(8).
func ip(argv ...string) error {
	out, err := exec.Command("ip", argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// buildNetwork makes the Base's namespace, and one with the bridge.
func (r *run) buildNetwork() error {
	if err := r.buildLAN(r.base(), r.lan()); err != nil {
		return err
	}
	if err := r.setNetwork(); err != nil {
		return err
	}
	return r.join(r.base(), "base", baseV4, baseV6)
}

// setNetwork does in the Base's namespace what systemd-sysctl does on a machine of its own:
// /proc/sys is read-only in a container. All other settings are the host's.
func (r *run) setNetwork() (err error) {
	entered := inNamespace(r.base(), func() {
		for line := range strings.Lines(packaging.Sysctl) {
			name, value, found := strings.Cut(strings.TrimSpace(line), " = ")
			if !found || !strings.HasPrefix(name, "net.ipv") {
				continue
			}
			writeErr := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
			if writeErr != nil && !errors.Is(writeErr, os.ErrNotExist) { // a kernel without IPv6
				err = errors.Join(err, writeErr)
			}
		}
	})
	return errors.Join(entered, err)
}

// buildLAN makes namespaces, one of which has the bridge.
func (r *run) buildLAN(namespaces ...string) error {
	for _, namespace := range namespaces {
		if err := ip("netns", "add", namespace); err != nil {
			return err
		}
		if err := ip("-n", namespace, "link", "set", "lo", "up"); err != nil {
			return err
		}
	}
	// No snooping: nobody answers multicast queries before anybody asked.
	return ip("-n", r.lan(), "link", "add", "lan", "up", "type", "bridge", "mcast_snooping", "0")
}

// join connects a namespace to the bridge and gives it addresses.
func (r *run) join(namespace, port string, v4, v6 netip.Addr) error {
	for _, command := range [][]string{
		{"-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", r.lan()},
		{"-n", r.lan(), "link", "set", port, "master", "lan", "up"},
		{"-n", namespace, "link", "set", "eth0", "up"},
		{"-n", namespace, "addr", "add", v4.String() + v4Bits, "dev", "eth0"},
		// Without duplicate address detection it can be used at once.
		{"-n", namespace, "addr", "add", v6.String() + v6Bits, "dev", "eth0", "nodad"},
	} {
		if err := ip(command...); err != nil {
			return err
		}
	}
	return nil
}

// The host's place on the Base's network, for `make appliance`. The prefix holds
// both and no more, so that the host keeps all of its other ways.
var (
	hostV4      = netip.MustParseAddr("10.88.0.1")
	hostNetwork = netip.MustParsePrefix("10.88.0.0/30")
)

// JoinHost gives the host an interface on the Base's network, until the stage ends.
// Nothing else of the host changes.
func (s *Stage) JoinHost(name string) error {
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("look at this machine's addresses: %w", err)
	}
	for _, address := range interfaces {
		if own, err := netip.ParsePrefix(address.String()); err == nil && own.Masked().Overlaps(hostNetwork) {
			return fmt.Errorf("this machine uses %s already, which the Base in the container needs; take that address away first", own)
		}
	}
	const port = "host"
	if err := ip("link", "add", name, "type", "veth", "peer", "name", port, "netns", s.run.lan()); err != nil {
		return err
	}
	s.t.Cleanup(func() { _ = ip("link", "delete", name) }) // it may have gone with its peer
	for _, command := range [][]string{
		{"-n", s.run.lan(), "link", "set", port, "master", "lan", "up"},
		{"link", "set", name, "up"},
		{"addr", "add", hostV4.String() + "/30", "dev", name},
	} {
		if err := ip(command...); err != nil {
			return err
		}
	}
	return nil
}

// Attacker is another machine on the Base's network.
type Attacker struct {
	V4, V6    netip.Addr
	namespace string
}

// Attacker returns the attacker number n, 1 to 254. Each has addresses of its own.
func (s *Stage) Attacker(n int) *Attacker {
	s.t.Helper()
	if a := s.attackers[n]; a != nil {
		return a
	}
	if n < 1 || n > 254 {
		s.t.Fatalf("there is no attacker %d; 1 to 254 can be had", n)
	}
	a := &Attacker{
		V4:        netip.AddrFrom4([4]byte{10, 88, byte(n), 66}),
		V6:        netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x88, 7: byte(n), 15: 0x66}),
		namespace: s.run.attacker(n),
	}
	err := ip("netns", "add", a.namespace)
	if err == nil {
		err = ip("-n", a.namespace, "link", "set", "lo", "up")
	}
	if err == nil {
		err = s.run.join(a.namespace, fmt.Sprintf("attacker%d", n), a.V4, a.V6)
	}
	if err != nil {
		s.t.Fatalf("make attacker %d: %v", n, err)
	}
	s.attackers[n] = a
	return a
}

// Dial connects from the attacker's machine.
func (a *Attacker) Dial(network string, to netip.AddrPort) (net.Conn, error) {
	return a.DialAs(network, netip.AddrPort{}, to)
}

// DialAs connects from an address of the attacker's machine. An invalid one
// leaves the choice to the kernel.
func (a *Attacker) DialAs(network string, from, to netip.AddrPort) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	if from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	inside := inNamespace(a.namespace, func() { conn, err = dialer.Dial(network, to.String()) })
	if inside != nil {
		return nil, inside
	}
	return conn, err
}

// Interface is the one that joins the attacker's machine with the Base.
func (a *Attacker) Interface() (link *net.Interface, err error) {
	inside := inNamespace(a.namespace, func() { link, err = net.InterfaceByName("eth0") })
	if inside != nil {
		return nil, inside
	}
	return link, err
}

// Global is an IPv6 address that is valid all over the world, as far as a network that
// nobody is connected to goes. Addresses with the same network share a /64.
func Global(network, host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 7: network, 15: host})
}

// AddAddress gives the attacker's machine one more address, which needs no route to
// the Base.
func (a *Attacker) AddAddress(address netip.Addr) error { return addAddress(a.namespace, address) }

// AddAddress gives the Base one more address.
func (s *Stage) AddAddress(address netip.Addr) error { return addAddress(s.run.base(), address) }

func addAddress(namespace string, address netip.Addr) error {
	if address.Is4() {
		return ip("-n", namespace, "addr", "add", address.String()+v4Bits, "dev", "eth0")
	}
	return ip("-n", namespace, "addr", "add", address.String()+"/32", "dev", "eth0", "nodad")
}

// Listen listens on the attacker's machine.
func (a *Attacker) Listen(network, address string) (listener net.Listener, err error) {
	inside := inNamespace(a.namespace, func() { listener, err = net.Listen(network, address) })
	if inside != nil {
		return nil, inside
	}
	return listener, err
}

// ListenPacket opens a UDP socket on the attacker's machine.
func (a *Attacker) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	inside := inNamespace(a.namespace, func() { conn, err = net.ListenPacket(network, address) })
	if inside != nil {
		return nil, inside
	}
	return conn, err
}

// Command returns a command that will run one of the host's programs on the attacker's
// machine.
func (a *Attacker) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", a.namespace}, argv...)...)
}

// Exec runs one of the host's programs on the attacker's machine.
func (a *Attacker) Exec(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*Patience)
	defer cancel()
	out, err := a.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %q on the attacker's machine: %w", argv, err)
	}
	return string(out), err
}

// Listen listens in the Base's network, in this process: for what stands in for
// a service that the stage does not have.
func (s *Stage) Listen(network, address string) (listener net.Listener, err error) {
	inside := inNamespace(s.run.base(), func() { listener, err = net.Listen(network, address) })
	if inside != nil {
		return nil, inside
	}
	return listener, err
}

// ListenPacket opens a UDP socket in the Base.
func (s *Stage) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	inside := inNamespace(s.run.base(), func() { conn, err = net.ListenPacket(network, address) })
	if inside != nil {
		return nil, inside
	}
	return conn, err
}

// inNamespace runs f on a thread in a network namespace. Sockets that f makes
// belong to it for good. f must make them itself, not in a goroutine of its own.
func inNamespace(name string, f func()) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		inside, err := enterNamespace(namespacePath(name))
		if err == nil {
			f()
			// If the way back fails the thread stays locked, and ends with this
			// goroutine: nobody else finds itself in that namespace.
			err = inside.leave()
		}
		if err == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// inside is a thread's stay in another network namespace.
type inside struct{ home *os.File }

func enterNamespace(path string) (inside, error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return inside{}, err
	}
	there, err := os.Open(path)
	if err != nil {
		return inside{}, errors.Join(err, home.Close())
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return inside{}, errors.Join(fmt.Errorf("enter the network namespace %s: %w", path, err), home.Close())
	}
	return inside{home}, nil
}

func (i inside) leave() error {
	defer i.home.Close()
	if err := unix.Setns(int(i.home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("return to the own network namespace: %w", err)
	}
	return nil
}

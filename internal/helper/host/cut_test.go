package host

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// pairAt makes a connection to an ephemeral port on an address of this machine.
func pairAt(t *testing.T, address string) (port uint16, server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("this machine has no %s: %v", address, err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return uint16(listener.Addr().(*net.TCPAddr).Port), server, client
}

func TestConnectionsAtAPortAreCutAndNoOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root, to end connections")
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		port, server, client := pairAt(t, address)
		_, other, far := pairAt(t, address)
		if left, err := cut(port, nil); err != nil || left != 0 {
			t.Fatalf("%d are left, %v", left, err)
		}
		for _, conn := range []net.Conn{server, client} {
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection is still there: %v", address, err)
			} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNABORTED) {
				t.Errorf("%s: %v", address, err)
			}
		}
		if _, err := other.Write([]byte{7}); err != nil {
			t.Errorf("%s: another connection was ended: %v", address, err)
		}
		if err := far.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := far.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("%s: another connection was ended: %v", address, err)
		}
	}
}

// A port that is limited to some networks ends the connections from all others, and from nobody else.
func TestAConnectionFromANetworkThatMayStayIsNotCut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this test needs root, to end connections")
	}
	alive := func(conn net.Conn) bool {
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := conn.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	for address, home := range map[string][]string{ // the first network is another one
		"127.0.0.1:0": {"10.0.0.0/8", "127.0.0.0/8"}, "[::1]:0": {"fd00::/64", "::1/128"}, "[::ffff:127.0.0.1]:0": {"::/8", "127.0.0.1/32"},
	} {
		port, server, _ := pairAt(t, address)
		if _, err := cut(port, posture.Networks{netip.MustParsePrefix(home[1])}); err != nil || !alive(server) {
			t.Errorf("%s: a connection from %s was ended, %v", address, home[1], err)
		}
		if left, err := cut(port, posture.Networks{netip.MustParsePrefix(home[0])}); err != nil || left != 0 || alive(server) {
			t.Errorf("%s: a connection from elsewhere than %s lives on, %d, %v", address, home[0], left, err)
		}
	}
}

func TestTheKernelTellsWhoIsConnectedAndWhoListens(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"} {
		port, _, client := pairAt(t, address)
		all, err := Host{}.Connections(port)
		if err != nil {
			t.Fatal(err)
		}
		want := client.LocalAddr().(*net.TCPAddr).AddrPort()
		want = netip.AddrPortFrom(want.Addr().Unmap(), want.Port())
		if len(all) != 1 || all[0].Peer != want || all[0].Cookie == 0 {
			t.Errorf("%s: %+v, not %s", address, all, want)
		}
		at := netip.AddrPortFrom(client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), port)
		if listens, err := (Host{}).Listens(generation.Upstream{Address: at}); err != nil || !listens {
			t.Errorf("%s: nobody listens, %v", at, err)
		}
		if listens, err := (Host{}).Listens(generation.Upstream{Address: want}); err != nil || listens {
			t.Errorf("%s: a client listens, %v", want, err)
		}
		elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), port)
		if listens, err := (Host{}).Listens(generation.Upstream{Address: elsewhere}); err != nil || listens {
			t.Errorf("%s: somebody listens at another address, %v", address, err)
		}
	}
}

func TestASocketThatTakesConnectionsIsFoundInTheKernelsList(t *testing.T) {
	const list = "Num       RefCount Protocol Flags    Type St Inode Path\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 100 /run/there\n" +
		"0000000000000000: 00000003 00000000 00000000 0001 03 101 /run/connected\n" +
		"0000000000000000: 00000003 00000000 00000000 0001 03 102\n"
	for path, want := range map[string]bool{"/run/there": true, "/run/connected": false, "/run": false, "": false} {
		if got := listensAt(list, path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

// Programs that any caller can start have their own places.
func TestProgramsOfOthersLeavePlacesForClosing(t *testing.T) {
	all := New(MaxPrograms)
	for range MaxPrograms {
		if _, err := all.place(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := all.Reserved().run(t.Context(), "/usr/bin/env"); err != nil {
		t.Errorf("%q, %v", out, err)
	}
	// Broken variant: the same places for all.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := all.run(ctx, "/usr/bin/env"); err == nil {
		t.Error("more programs run than allowed")
	}
}

// The attack: a Middleware that was taken over has systemd and programs busy while something is being
// closed. All of that begins afterwards.
func TestNothingElseBeginsWhileTheBaseIsClosed(t *testing.T) {
	var begun atomic.Int64
	all := New(MaxPrograms)
	all.exec = func(context.Context, ...string) (string, error) {
		begun.Add(1)
		return "", nil
	}
	reserved := all.Reserved()
	end := reserved.Closing()
	asks := map[string]func(context.Context) error{
		"a program":             func(ctx context.Context) error { return all.do(ctx, "/usr/bin/env") },
		"systemctl":             func(ctx context.Context) error { _, err := all.Systemctl(ctx, "daemon-reload"); return err },
		"a job of systemd's":    func(ctx context.Context) error { return all.unit(ctx, "start", "x.service") },
		"the journal":           func(ctx context.Context) error { return all.Journal(ctx, nil) },
		"a program of an audit": all.AwaitClosing,
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for what, ask := range asks {
		if err := ask(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	waiting := make(chan error, 1)
	go func() { waiting <- asks["a program"](t.Context()) }()
	if begun.Load() != 0 {
		t.Error("a program has begun")
	}
	if err := reserved.do(t.Context(), "/usr/bin/env"); err != nil || begun.Load() != 1 {
		t.Errorf("a program of the closing: %v", err)
	}
	end()
	if err := <-waiting; err != nil || begun.Load() != 2 {
		t.Errorf("afterwards: %v", err)
	}
}

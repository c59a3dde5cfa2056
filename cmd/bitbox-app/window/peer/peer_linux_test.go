package peer

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/otheruser"
)

// accepted is the server's end of a connection that dial makes to an address on loopback.
func accepted(t *testing.T, network, address string, dial func(t *testing.T, network, address string) net.Conn) net.Conn {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	dial(t, network, listener.Addr().String())
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dial(t *testing.T, network, address string) net.Conn {
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dialMapped connects from a socket for IPv6, by a mapped address.
func dialMapped(t *testing.T, _, address string) net.Conn {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(address)
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = file.Close() })
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func whoseTCP(conn net.Conn) Whose {
	return OfConn(conn.(*net.TCPConn))
}

func TestTheKernelSaysWhoseAConnectionIs(t *testing.T) {
	const loopback = "127.0.0.1:0"
	if got := whoseTCP(accepted(t, "tcp4", loopback, dial)); got != Own {
		t.Errorf("an own connection is %d", got)
	}
	t.Run("mapped", func(t *testing.T) {
		if got := whoseTCP(accepted(t, "tcp4", loopback, dialMapped)); got != Own {
			t.Errorf("an own connection from a socket for IPv6 is %d", got)
		}
	})
	t.Run("other user", func(t *testing.T) {
		if got := whoseTCP(accepted(t, "tcp4", loopback, otheruser.Dial)); got != Other {
			t.Errorf("the connection of another user is %d", got)
		}
	})
	t.Run("unix", func(t *testing.T) {
		conn := accepted(t, "unix", filepath.Join(t.TempDir(), "socket"), dial)
		if got := OfSocket(conn.(*net.UnixConn)); got != Own {
			t.Errorf("an own connection is %d", got)
		}
	})
}

func TestAConnectionThatIsGoneIsNobodys(t *testing.T) {
	conn := accepted(t, "tcp4", "127.0.0.1:0", dial)
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	for _, other := range []netip.AddrPort{
		netip.AddrPortFrom(client.Addr(), client.Port()-1), netip.MustParseAddrPort("[::1]:1"), netip.MustParseAddrPort("127.0.0.2:1"),
	} {
		if got := Of(other, conn.LocalAddr().(*net.TCPAddr).AddrPort()); got != Other {
			t.Errorf("%s is %d", other, got)
		}
	}
}

// Another user sends a request, ends the connection hard before it is looked at, and waits until a
// browser connects from the same port: the kernel's table then has the browser's connection there.
func TestAConnectionThatHasEndedIsNotTakenForItsSuccessor(t *testing.T) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	to := listener.Addr().String()
	for range 100 { // somebody else may have the port by now
		var from net.Addr
		otheruser.Do(t, func() {
			conn, err := net.Dial("tcp4", to)
			if err != nil {
				t.Error(err)
				return
			}
			from = conn.LocalAddr()
			_, _ = io.WriteString(conn, "theirs")
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		})
		successor, err := (&net.Dialer{LocalAddr: from}).Dial("tcp4", to)
		ended, failed := listener.AcceptTCP()
		if failed != nil {
			t.Fatal(failed)
		}
		defer func() { _ = ended.Close() }()
		if err != nil {
			continue
		}
		defer func() { _ = successor.Close() }()
		if got := OfConn(ended); got != Other {
			t.Errorf("it is %d", got)
		}
		got := make([]byte, 6)
		_, err = io.ReadFull(ended, got)
		if table := Of(addrPort(ended.RemoteAddr()), addrPort(ended.LocalAddr())); table != Own || string(got) != "theirs" {
			t.Errorf("the test shows nothing: the table alone says %d, and what was sent is %q (%v)", table, got, err)
		}
		return
	}
	t.Fatal("the port was never free again")
}

// A line of another connection, of a listener, or of one in another state is not the answer.
func TestALineOfTheTableIsComparedWhole(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	client, server := netip.MustParseAddrPort("127.0.0.1:43210"), netip.MustParseAddrPort("127.0.0.1:8080")
	for _, c := range []struct {
		line  string
		found bool
		uid   uint32
	}{
		{"   0: 0100007F:A8CA 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1", true, 1000},
		{"   0: 0000000000000000FFFF00000100007F:A8CA 0000000000000000FFFF00000100007F:1F90 01 0:0 00:0 0  1001        0 4242 1", true, 1001},
		{"   0: 0100007F:1F90 0100007F:A8CA 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1", false, 0}, // our own end
		{"   0: 0200007F:A8CA 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1", false, 0},
		{"   0: 0100007F:A8CA 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 3", false, 0}, // TIME_WAIT shows root
		{"   0: 0100007F:A8CA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1", false, 0},
		{"   0: 0100007F:A8CA", false, 0},
	} {
		uid, found, err := findProc(strings.NewReader(head+c.line+"\n"), client, server)
		if err != nil || found != c.found || uid != c.uid {
			t.Errorf("%s: %d %t %v", c.line, uid, found, err)
		}
	}
	bad := "   0: 0100007F:A8CA 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  root        0 4242 1"
	if _, _, err := findProc(strings.NewReader(bad), client, server); err == nil {
		t.Error("a user that is no number is taken")
	}
}

func TestUsersWhoLookAlikeAreNotTakenForOne(t *testing.T) {
	for _, c := range []struct {
		user      int
		namespace string
		want      bool
	}{
		{1000, "         0          0 4294967295\n", false}, {overflow, "         0          0 4294967295\n", false},
		{overflow, "         0     100000      65536\n", true}, {1000, "         0     100000      65536\n", false},
	} {
		if got := ambiguous(c.user, c.namespace); got != c.want {
			t.Errorf("user %d of %q: %t", c.user, c.namespace, got)
		}
	}
}

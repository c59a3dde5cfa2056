//go:build linux

package stage_test

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// withElectrum opens the Electrum API in e, on the entry's port or on its own.
func withElectrum(e posture.Effective, shared bool) posture.Effective {
	endpoint := posture.Endpoint{Kind: posture.KindElectrum, Port: posture.Extras[0].Port, Remaining: time.Hour}
	if shared {
		endpoint.Port, endpoint.Shared = posture.EntryPort, true
	}
	e.Endpoints = append(append([]posture.Endpoint(nil), e.Endpoints...), endpoint)
	return e
}

// nonsense is no handshake frame, and no other protocol that an owner's software speaks.
const nonsense = "\x01\x00\x00"

// send connects, sends text and leaves the connection open until the test ends.
func send(t *testing.T, a *stage.Attacker, to netip.AddrPort, text string) net.Conn {
	t.Helper()
	conn, err := a.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// heard waits until the Middleware has refused nonsense from an address.
func heard(t *testing.T, s *stage.Stage, from netip.Addr) {
	t.Helper()
	heardAs(t, s, from, admission.MalformedFrame)
}

// heardAs waits until the Middleware has refused an address for a reason.
func heardAs(t *testing.T, s *stage.Stage, from netip.Addr, reason admission.Reason) {
	t.Helper()
	line := fmt.Sprintf("addr=%s reason=%s", from, reason)
	s.Until("the Middleware logs "+line, func() error {
		if journal := s.Journal(generation.MiddlewareUnit); !strings.Contains(journal, line) {
			return fmt.Errorf("it has not:\n%s", journal)
		}
		return nil
	})
}

func TestTheMiddlewareSeesTheTrueAddressOfAClient(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	a := s.Attacker(1)
	send(t, a, netip.AddrPortFrom(s.V4, posture.EntryPort), nonsense)
	heard(t, s, a.V4)
	// A client that sends a PROXY header of its own, to appear as another, only adds to what the
	// Middleware refuses.
	b := s.Attacker(2)
	send(t, b, netip.AddrPortFrom(s.V6, posture.EntryPort), "PROXY TCP4 10.88.9.9 10.88.0.2 1 8845\r\n"+nonsense)
	heardAs(t, s, b.V6, admission.OtherProtocol)
	if journal := s.Journal(generation.MiddlewareUnit); strings.Contains(journal, "10.88.9.9") {
		t.Errorf("a forged address was believed:\n%s", journal)
	}
}

// A restart of the Middleware makes a client wait and loses none.
func TestAClientWaitsForTheMiddleware(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	a := s.Attacker(1)
	s.MustExec("systemctl", "stop", generation.MiddlewareUnit)
	begun := time.Now()
	send(t, a, netip.AddrPortFrom(s.V4, posture.EntryPort), nonsense)
	heard(t, s, a.V4)
	t.Logf("heard %v after the Middleware was stopped", time.Since(begun).Round(time.Millisecond))
}

// electrumServer stands in for electrs, behind NGINX on loopback. It answers
// each line with the same line.
func electrumServer(t *testing.T, s *stage.Stage) {
	t.Helper()
	listener, err := s.Listen("tcp", "127.0.0.1:50001")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if _, err := fmt.Fprintln(conn, lines.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// wallet is a TLS connection that pins a certificate, as Electrum does.
func wallet(a *stage.Attacker, to netip.AddrPort, pin [sha256.Size]byte) (*tls.Conn, error) {
	raw, err := a.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		InsecureSkipVerify: true, // instead, the pin
		VerifyConnection: func(state tls.ConnectionState) error {
			if got := sha256.Sum256(state.PeerCertificates[0].Raw); got != pin {
				return fmt.Errorf("another certificate: %x", got)
			}
			return nil
		},
	})
	if err := conn.SetDeadline(time.Now().Add(stage.Patience)); err != nil {
		return nil, err
	}
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	return conn, nil
}

func echoes(conn net.Conn) error {
	if _, err := fmt.Fprintln(conn, "server.ping"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "server.ping\n" {
		return fmt.Errorf("answer %q, %v", line, err)
	}
	return nil
}

func TestAnExtraAPIIsThereWhileItIsOpen(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.ProxyUnit)
	electrumServer(t, s)
	pin, err := proxy.EnsureCertificate(rand.Reader, s.Path(generation.CertificateDirectory), string(posture.KindElectrum))
	if err != nil {
		t.Fatal(err)
	}
	a := s.Attacker(1)
	shared := netip.AddrPortFrom(s.V4, posture.EntryPort)
	own := netip.AddrPortFrom(s.V6, posture.Extras[0].Port)

	put := func(number uint64, e posture.Effective) {
		t.Helper()
		if err := s.Apply(number, e); err != nil {
			t.Fatal(err)
		}
		s.MustExec("systemctl", "reload", generation.FirewallUnit, generation.ProxyUnit)
	}
	works := func(to netip.AddrPort) {
		t.Helper()
		stage.Until(t, fmt.Sprintf("the API answers at %s", to), func() error {
			conn, err := wallet(a, to, pin)
			if err != nil {
				return err
			}
			defer conn.Close()
			return echoes(conn)
		})
	}
	gone := func(to netip.AddrPort) {
		t.Helper()
		stage.Until(t, fmt.Sprintf("the API is gone from %s", to), func() error {
			raw, err := a.Dial("tcp", to)
			if err != nil {
				return nil
			}
			defer raw.Close()
			conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			if conn.Handshake() == nil {
				return fmt.Errorf("it still speaks TLS")
			}
			return nil
		})
	}

	gone(shared)
	put(2, withElectrum(stage.Factory(), true))
	works(shared)
	refused(t, a, own)
	// The channel goes on beside it.
	send(t, a, shared, "\x01\x00\x00")
	heard(t, s, a.V4)

	put(3, withElectrum(stage.Factory(), false))
	works(own)
	gone(shared)

	put(4, stage.Factory())
	gone(shared)
	refused(t, a, own)
}

// On a kernel without IPv6 a socket of it cannot be had, and NGINX ends if it is told to
// listen there. The sandbox takes IPv6 away from it as such a kernel does.
func TestNginxStartsOnAKernelWithoutIPv6(t *testing.T) {
	t.Parallel()
	s := stage.Install(t, stage.Config{})
	dropIn := s.Path("/etc/systemd/system/" + generation.ProxyUnit + ".d")
	err := os.MkdirAll(dropIn, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dropIn, "noipv6.conf"),
			[]byte("[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_UNIX\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	// With the configuration for other kernels it does not start.
	s.Until("NGINX says that it cannot listen on IPv6", func() error {
		if journal := s.Journal(generation.ProxyUnit); !strings.Contains(journal,
			"socket() [::]:8845 failed (97: Address family not supported by protocol)") {
			return errors.New("it does not")
		}
		return nil
	})
	refused(t, s.Attacker(1), netip.AddrPortFrom(s.V4, posture.EntryPort))

	files, err := generation.RenderFor(stage.Factory(), generation.Machine{NoIPv6: true, Electrum: stage.Electrum})
	if err != nil {
		t.Fatal(err)
	}
	store := generation.NewStore(s.Path(generation.StateDirectory))
	if err := errors.Join(store.Write(2, files), store.Switch(2)); err != nil {
		t.Fatal(err)
	}
	s.Until("NGINX serves IPv4", func() error { return reaches(s.Attacker(1), netip.AddrPortFrom(s.V4, posture.EntryPort)) })
}

// NGINX faces strangers. Taken over, it could still reach nothing but what it is
// there for.
func TestNginxCanBeginNoConnectionOfItsOwn(t *testing.T) {
	t.Parallel()
	effective := withElectrum(stage.Factory(), true)
	s := stage.Install(t, stage.Config{Effective: &effective})
	if _, err := proxy.EnsureCertificate(rand.Reader, s.Path(generation.CertificateDirectory), string(posture.KindElectrum)); err != nil {
		t.Fatal(err)
	}
	s.Start()
	electrumServer(t, s)
	other, err := s.Listen("tcp", "127.0.0.1:8332") // a Bitcoin node's RPC
	if err != nil {
		t.Fatal(err)
	}
	serve(t, other, "secret\n")
	a := s.Attacker(1)
	outside := filepath.Join("/dev/tcp", a.V4.String(), "443")

	connect := func(user, where string) error {
		_, err := s.Exec("setpriv", "--reuid="+user, "--regid=nogroup", "--clear-groups", "timeout", "2", "bash", "-c", "exec 3<>"+where)
		return err
	}
	listener, err := a.Listen("tcp", ":443")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener, "hello\n")
	if err := connect("www-data", "/dev/tcp/127.0.0.1/50001"); err != nil {
		t.Errorf("NGINX's user cannot reach the extra API: %v", err)
	}
	for _, where := range []string{"/dev/tcp/127.0.0.1/8332", outside} {
		if connect("www-data", where) == nil {
			t.Errorf("NGINX's user reaches %s", where)
		}
	}
	// Each of them answers the users who may reach it.
	if err := connect("daemon", "/dev/tcp/127.0.0.1/8332"); err != nil {
		t.Errorf("nobody can reach the service on loopback: %v", err)
	}
	if err := connect("_apt", outside); err != nil {
		t.Errorf("Debian's updates cannot go out: %v", err)
	}
	for _, user := range []string{"root", "daemon", "bitbox-base", "avahi"} {
		if connect(user, outside) == nil {
			t.Errorf("%s reaches the outside", user)
		}
	}
}

// crowd is 200 strangers with eight connections each, on which they say nothing.
// They go home with the test.
func crowd(t *testing.T, s *stage.Stage) {
	t.Helper()
	const strangers, each = 200, 8
	a := s.Attacker(1)
	for n := range strangers {
		address := netip.AddrFrom4([4]byte{10, 88, 100, byte(n + 1)})
		if err := a.AddAddress(address); err != nil {
			t.Fatal(err)
		}
		for range each {
			conn, err := a.DialAs("tcp", netip.AddrPortFrom(address, 0), netip.AddrPortFrom(s.V4, posture.EntryPort))
			if err != nil {
				t.Fatalf("stranger %d: %v", n, err)
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
}

func TestSilentStrangersLockNobodyOut(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	crowd(t, s)
	owner := s.Attacker(2)
	send(t, owner, netip.AddrPortFrom(s.V4, posture.EntryPort), nonsense)
	heard(t, s, owner.V4)
}

// The crowd must be able to lock somebody out: NGINX's own limit is too low.
func TestTheCrowdIsLargeEnough(t *testing.T) {
	t.Parallel()
	s := stage.Install(t, stage.Config{})
	replaceIn(t, rules(s, generation.ProxyConfig), "worker_connections 8192", "worker_connections 1024")
	replaceIn(t, rules(s, generation.ProxyConfig), "worker_processes auto", "worker_processes 1")
	s.Start()
	s.WaitActive(generation.ProxyUnit)
	crowd(t, s)
	s.Until("NGINX turns clients away", func() error {
		if journal := s.Journal(generation.ProxyUnit); !strings.Contains(journal, "worker_connections are not enough") {
			return errors.New("it has room for all")
		}
		return nil
	})
}

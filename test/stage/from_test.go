//go:build linux

package stage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/app/walletcheck"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// An owner opens the API for the home. A stranger in another network attacks it by both families;
// then one of the two walls is taken away, and the other has to hold alone.
func TestAnotherNetworkThanTheOwnersGetsNothing(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.ProxyUnit)
	electrumServer(t, s)
	pin, err := proxy.EnsureCertificate(rand.Reader, s.Path(generation.CertificateDirectory), string(posture.KindElectrum))
	if err != nil {
		t.Fatal(err)
	}
	home, stranger := s.Attacker(1), s.Attacker(2)
	port := posture.Extras[0].Port
	v4, v6 := netip.AddrPortFrom(s.V4, port), netip.AddrPortFrom(s.V6, port)
	served := func(a *stage.Attacker, to netip.AddrPort) error {
		conn, err := wallet(a, to, pin)
		if err != nil {
			return err
		}
		defer conn.Close()
		return echoes(conn)
	}
	put := func(number uint64, from ...netip.Prefix) {
		t.Helper()
		e := withElectrum(stage.Factory(), false)
		e.Endpoints[len(e.Endpoints)-1].From = from
		if err := s.Apply(number, e); err != nil {
			t.Fatal(err)
		}
		s.MustExec("systemctl", "reload", generation.FirewallUnit, generation.ProxyUnit)
	}
	homeV4, homeV6 := netip.PrefixFrom(home.V4, 24).Masked(), netip.PrefixFrom(home.V6, 64).Masked()

	// Without networks the stranger is served: the attack works.
	put(2)
	for _, to := range []netip.AddrPort{v4, v6} {
		stage.Until(t, fmt.Sprintf("everybody is served at %s", to), func() error { return errors.Join(served(home, to), served(stranger, to)) })
	}

	put(3, homeV4, homeV6)
	for _, to := range []netip.AddrPort{v4, v6} {
		stage.Until(t, fmt.Sprintf("the home is served at %s", to), func() error { return served(home, to) })
		refused(t, stranger, to)
	}
	// A wallet's check finds the server and its certificate; what stands behind is no Electrum server.
	dial := func(_ context.Context, network, address string) (net.Conn, error) {
		return home.Dial(network, netip.MustParseAddrPort(address))
	}
	if _, err := walletcheck.Check(t.Context(), dial, v4.String(), digestOf(t, s)); !errors.Is(err, walletcheck.ErrNotReady) {
		t.Errorf("the check of a wallet: %v", err)
	}
	other := digestOf(t, s)
	other[0] ^= 1
	if _, err := walletcheck.Check(t.Context(), dial, v4.String(), other); !errors.Is(err, walletcheck.ErrOtherCertificate) {
		t.Errorf("the check of a wallet with another fingerprint: %v", err)
	}

	// A network of IPv4 alone closes the port to IPv6.
	put(4, homeV4)
	stage.Until(t, "the home is served by IPv4", func() error { return served(home, v4) })
	refused(t, home, v6)
	refused(t, stranger, v4)

	// Broken variant: the packet filter lets everybody in. NGINX holds alone.
	for _, program := range []string{"iptables", "ip6tables"} {
		s.MustExec(program, "-I", "INPUT", "-p", "tcp", "--dport", fmt.Sprint(port), "-j", "ACCEPT")
	}
	stage.Until(t, "the stranger reaches NGINX", func() error {
		conn, err := stranger.Dial("tcp", v4)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	for _, to := range []netip.AddrPort{v4, v6} {
		if served(stranger, to) == nil {
			t.Errorf("NGINX serves a stranger at %s", to)
		}
	}
	if err := served(home, v4); err != nil {
		t.Errorf("NGINX does not serve the home: %v", err)
	}
}

func digestOf(t *testing.T, s *stage.Stage) [32]byte {
	t.Helper()
	digest, err := proxy.CertificateDigest(s.Path(generation.CertificateDirectory), string(posture.KindElectrum))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

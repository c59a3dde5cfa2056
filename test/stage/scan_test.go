//go:build linux

package stage_test

import (
	"net/netip"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

func TestExactlyOnePortAnswers(t *testing.T) {
	stage.NeedRoot(t, "nmap")
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive("bitbox-base-nginx.service")
	t.Run("scans", func(t *testing.T) {
		for n, target := range map[int]netip.Addr{1: s.V4, 2: s.V6} {
			a := s.Attacker(n)
			t.Run(target.String(), func(t *testing.T) {
				t.Parallel()
				a.OnlyAnswers(t, target, "tcp 8845 open")
			})
		}
	})
	a := s.Attacker(1)
	// The scans must be able to find something: let in what should be out.
	listener, err := s.Listen("tcp", ":9999")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener, "hello")
	s.MustExec("iptables", "-I", "INPUT", "-p", "tcp", "--sport", "9001", "-j", "ACCEPT")
	if found := a.Scan(t, s.V4, "-sS", "-g", "9001", "-p", "9998,9999"); len(found) != 2 {
		t.Errorf("a filter that trusts a source port: %q were found", found)
	}
	s.MustExec("iptables", "-I", "INPUT", "-p", "tcp", "-j", "ACCEPT")
	if found := a.Scan(t, s.V4, "-sA", "-p", "9998,9999"); len(found) != 2 {
		t.Errorf("a filter that lets stray packets in: %q were found", found)
	}
	s.MustExec("iptables", "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")
	if found := a.Scan(t, s.V4, "-sU", "-p", "9998"); len(found) != 1 {
		t.Errorf("a filter that lets UDP in: %q were found", found)
	}
}

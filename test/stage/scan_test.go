//go:build linux

package stage_test

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
	"github.com/google/go-cmp/cmp"
)

// scan runs nmap on the attacker's machine and returns the ports whose state is
// not "filtered": each of them answered in some way.
func scan(t *testing.T, a *stage.Attacker, target netip.Addr, arguments ...string) []string {
	t.Helper()
	argv := []string{"nmap", "-n", "-Pn", "-T5", "--max-retries", "1", "-oX", "-"}
	if target.Is6() {
		argv = append(argv, "-6")
	}
	out, err := a.Exec(append(append(argv, arguments...), target.String())...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report struct {
		Hosts []struct {
			Ports []struct {
				Protocol string `xml:"protocol,attr"`
				ID       int    `xml:"portid,attr"`
				State    struct {
					State string `xml:"state,attr"`
				} `xml:"state"`
			} `xml:"ports>port"`
			Others []struct {
				State string `xml:"state,attr"`
				Count int    `xml:"count,attr"`
			} `xml:"ports>extraports"`
		} `xml:"host"`
	}
	if err := xml.Unmarshal([]byte(out), &report); err != nil || len(report.Hosts) != 1 {
		t.Fatalf("read nmap's report: %v\n%s", err, out)
	}
	var answered []string
	for _, other := range report.Hosts[0].Others {
		if !strings.Contains(other.State, "filtered") || other.State == "unfiltered" {
			answered = append(answered, fmt.Sprintf("%d ports %s", other.Count, other.State))
		}
	}
	for _, port := range report.Hosts[0].Ports {
		if !strings.Contains(port.State.State, "filtered") || port.State.State == "unfiltered" {
			answered = append(answered, fmt.Sprintf("%s %d %s", port.Protocol, port.ID, port.State.State))
		}
	}
	return answered
}

// sourcePorts are those that filters have been seen to trust: DNS, DHCP, NTP,
// HTTPS, and the one of tor, which our predecessor let through.
var sourcePorts = []string{"53", "67", "123", "443", "9001"}

// listeners are the ports on which something listens, or could.
const listeners = "22,5353,8845,8846,50001,50002"

// wellKnown are more than the 1,000 ports most used, and all listeners.
const wellKnown = "1-10000,[10001-65535],50001,50002"

// The listener behind the port is the stand-in for the Middleware; for NGINX and
// the packet filter, which this test is about, that makes no difference.
func TestExactlyOnePortAnswers(t *testing.T) {
	stage.NeedRoot(t, "nmap")
	s := stage.Boot(t, stage.Config{})
	s.WaitActive("bitbox-base-nginx.service")
	t.Run("scans", func(t *testing.T) {
		for n, target := range map[int]netip.Addr{1: s.V4, 2: s.V6} {
			a := s.Attacker(n)
			t.Run(target.String(), func(t *testing.T) {
				t.Parallel()
				scanAll(t, a, target)
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
	if found := scan(t, a, s.V4, "-sS", "-g", "9001", "-p", "9998,9999"); len(found) != 2 {
		t.Errorf("a filter that trusts a source port: %q were found", found)
	}
	s.MustExec("iptables", "-I", "INPUT", "-p", "tcp", "-j", "ACCEPT")
	if found := scan(t, a, s.V4, "-sA", "-p", "9998,9999"); len(found) != 2 {
		t.Errorf("a filter that lets stray packets in: %q were found", found)
	}
	s.MustExec("iptables", "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")
	if found := scan(t, a, s.V4, "-sU", "-p", "9998"); len(found) != 1 {
		t.Errorf("a filter that lets UDP in: %q were found", found)
	}
}

func scanAll(t *testing.T, a *stage.Attacker, target netip.Addr) {
	one := []string{"tcp 8845 open"}
	if d := cmp.Diff(one, scan(t, a, target, "-sS", "-p-", "--min-rate", "20000")); d != "" {
		t.Errorf("all TCP ports:\n%s", d)
	}
	for _, source := range sourcePorts {
		if d := cmp.Diff(one, scan(t, a, target, "-sS", "-g", source, "-p", wellKnown, "--min-rate", "20000")); d != "" {
			t.Errorf("TCP ports from source port %s:\n%s", source, d)
		}
	}
	// A filter that lets stray packets through betrays ports by what comes back.
	// Of an open port these scans hear nothing at best.
	for _, kind := range []string{"-sF", "-sN", "-sX", "-sA"} {
		if answered := scan(t, a, target, kind, "--min-rate", "5000", "-p", listeners+",1-1024"); answered != nil {
			t.Errorf("scan %s: answers from %q", kind, answered)
		}
	}
	if answered := scan(t, a, target, "-sU", "--min-rate", "2000", "--top-ports", "200"); answered != nil {
		t.Errorf("UDP ports: answers from %q", answered)
	}
}

//go:build linux

package stage

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Scan runs nmap on the attacker's machine and returns the ports whose state is
// not "filtered": each of them answered in some way.
func (a *Attacker) Scan(t *testing.T, target netip.Addr, arguments ...string) []string {
	t.Helper()
	argv := []string{"nmap", "-n", "-Pn", "-T4", "--max-retries", "1", "-oX", "-"}
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

// OnlyAnswers scans target in all ways that are known here, and fails the test if
// anything answers but these ports ("tcp 8845 open").
func (a *Attacker) OnlyAnswers(t *testing.T, target netip.Addr, ports ...string) {
	t.Helper()
	if found := a.Scan(t, target, "-sS", "-p-", "--min-rate", "20000"); !slices.Equal(found, ports) {
		t.Errorf("of all TCP ports these answer: %q", found)
	}
	for _, source := range sourcePorts {
		if found := a.Scan(t, target, "-sS", "-g", source, "-p", wellKnown, "--min-rate", "20000"); !slices.Equal(found, ports) {
			t.Errorf("from source port %s these TCP ports answer: %q", source, found)
		}
	}
	// A filter that lets stray packets through betrays ports by what comes back.
	// Of an open port these scans hear nothing at best.
	for _, kind := range []string{"-sF", "-sN", "-sX", "-sA"} {
		if answered := a.Scan(t, target, kind, "--min-rate", "5000", "-p", listeners+",1-1024"); answered != nil {
			t.Errorf("scan %s: answers from %q", kind, answered)
		}
	}
	if answered := a.Scan(t, target, "-sU", "--min-rate", "2000", "--top-ports", "200"); answered != nil {
		t.Errorf("UDP ports: answers from %q", answered)
	}
}

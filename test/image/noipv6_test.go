//go:build linux && image

package image_test

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// A whole Base on a kernel without IPv6: it is found, pairs, answers, and its audit finds what it finds elsewhere.
func TestTheImageWithoutIPv6(t *testing.T) {
	image := made(t, "without-ipv6", build.Options{Change: probe, KernelArguments: []string{"ipv6.disable=1"}})
	m := newMachine(t, filepath.Join(image, build.DiskFile), amd64.variables)
	a := m.Attacker(1)
	m.switchOn()
	m.reboots() // its boot loader has given the firmware the builder's keys
	m.answers(a)
	m.reach()
	if out, code, err := m.ask(asked, "cat /proc/net/if_inet6 /proc/net/tcp6"); err != nil || code == 0 {
		t.Fatalf("this kernel has IPv6, so this test shows nothing: %s (%v)", out, err)
	}
	m.started()
	m.settled()
	m.wholeInside()
	for _, unit := range []string{"nginx", "avahi", "fail2ban", "firewall", "middleware", "system"} {
		if out := m.inside("systemctl is-active bitbox-base-" + unit + ".service || true"); out != "active" {
			t.Errorf("%s is %s", unit, out)
		}
	}
	if out := m.inside("ss --tcp --listening --numeric --no-header"); !strings.Contains(out, "0.0.0.0:8845") {
		t.Errorf("the entry is not on IPv4; there listen:\n%s", out)
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		if out := m.inside(program + " -S"); !strings.Contains(out, "-P INPUT DROP") || !strings.Contains(out, "-P FORWARD DROP") {
			t.Errorf("%s lets in:\n%s", program, out)
		}
	}
	base := m.discover(a)
	for _, address := range base.Addresses {
		if !strings.HasPrefix(address, m.V4.String()) {
			t.Errorf("it announces %v", base.Addresses)
		}
	}
	app, err := client.New(client.Options{Dir: filepath.Join(m.directory, "paired"), Name: "laptop", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	m.pair(app, a.Way(t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address)
	m.works(app, "after the pairing")
	out, _, err := m.ask(asked, "bitbox-base audit")
	if err != nil || regexp.MustCompile(`(?i)ipv6|ip6`).MatchString(out) {
		t.Errorf("the audit finds (%v):\n%s", err, out)
	}
	t.Logf("the audit says:\n%s", out)
}

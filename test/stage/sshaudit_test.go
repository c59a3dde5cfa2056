//go:build linux

package stage_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// accepted are what ssh-audit says against sshd and we keep nevertheless, each with the reason.
var accepted = map[string]string{}

// sshAudit runs Debian's ssh-audit against a sshd and returns its failures and warnings.
func sshAudit(t *testing.T, g *stage.Guest, to netip.AddrPort) []string {
	t.Helper()
	// It ends with 2 for warnings and with 3 for failures; the list tells which.
	out, err := g.Exec("ssh-audit", "--json", "--port="+fmt.Sprint(to.Port()), to.Addr().String())
	type algorithms []struct {
		Algorithm string `json:"algorithm"`
		Notes     struct {
			Fail []string `json:"fail"`
			Warn []string `json:"warn"`
		} `json:"notes"`
	}
	var report struct {
		Banner struct {
			Software string `json:"software"`
		} `json:"banner"`
		Kex  algorithms `json:"kex"`
		Key  algorithms `json:"key"`
		Enc  algorithms `json:"enc"`
		Mac  algorithms `json:"mac"`
		CVEs []any      `json:"cves"`
	}
	if json.Unmarshal([]byte(out), &report) != nil || len(report.Kex) == 0 || len(report.Key) == 0 || len(report.Enc) == 0 {
		t.Fatalf("ssh-audit says nothing about %s: %v\n%s", to, err, out)
	}
	var found []string
	for _, a := range slices.Concat(report.Kex, report.Key, report.Enc, report.Mac) {
		for _, note := range a.Notes.Fail {
			found = append(found, fmt.Sprintf("failure: %s: %s", a.Algorithm, note))
		}
		for _, note := range a.Notes.Warn {
			found = append(found, fmt.Sprintf("warning: %s: %s", a.Algorithm, note))
		}
	}
	for _, cve := range report.CVEs {
		found = append(found, fmt.Sprintf("failure: %v", cve))
	}
	return found
}

// Debian's own ssh-audit looks at the sshd that an owner leases, and at Debian's as it comes,
// about which it has something to say.
func TestSSHAuditFindsNothingAgainstTheLeasedSSH(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	_, key := newKey(t)
	lease(t, s, 2, withSSH(stage.Factory(), key))
	g := s.Guest(s.Attacker(1), "ssh-audit")
	for _, line := range sshAudit(t, g, netip.AddrPortFrom(s.V4, sshaccess.Port)) {
		if accepted[line] == "" {
			t.Error(line)
		}
	}
	debian := stage.Boot(t, stage.Config{Bare: true})
	found := sshAudit(t, debian.Guest(debian.Attacker(1), "ssh-audit"), netip.AddrPortFrom(debian.V4, sshaccess.Port))
	t.Logf("against Debian's sshd ssh-audit says %d things", len(found))
	if len(found) == 0 {
		t.Error("ssh-audit finds nothing against Debian's sshd either, so this test shows nothing")
	}
}

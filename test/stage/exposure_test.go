//go:build linux

package stage_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// limits are the highest exposure that Debian's systemd-analyze may see; 10 is no sandbox at
// all. sshd has to become the user who logs in: there is no low figure for it.
var limits = map[string]float64{
	"bitbox-base-middleware.service":         0.2,
	"bitbox-base-nginx.service":              1.1,
	"bitbox-base-node.service":               1.1,
	"bitbox-base-bitcoin.service":            1.1,
	"bitbox-base-bitcoin-core.service":       1.1,
	"bitbox-base-electrum.service":           1.1,
	"bitbox-base-system.service":             1.8,
	"bitbox-base-fail2ban.service":           1.4,
	"bitbox-base-avahi.service":              1.1,
	"bitbox-base-console.service":            0.6,
	"bitbox-base-firewall.service":           1.6,
	"bitbox-base-preflight-fail2ban.service": 0.2,
	"bitbox-base-preflight-firewall.service": 0.9,
	"bitbox-base-preflight-nginx.service":    0.5,
	"bitbox-base-preflight-sshd.service":     0.8,
	"bitbox-base-prepare.service":            0.5,
	"bitbox-base-reset.service":              1.4,
	"bitbox-base-ports.service":              0.9,
	"bitbox-base-limits.service":             1.1,
	"bitbox-base-disks.service":              1.6,
	"bitbox-base-chain-disk.service":         1.6,
	"bitbox-base-discard.service":            1.1,
	"bitbox-base-provision.service":          1.4,
	"bitbox-base-legacy-rules@.service":      1.7,
	"bitbox-base-repair@.service":            2.8,
	"bitbox-base-ssh.service":                3.3,
	"bitbox-base-upgrade.service":            3.5,
	"bitbox-base-slots.service":              2.2,
	"bitbox-base-healthy.service":            2.3,
	"bitbox-base-upgrade-boot.service":       2.5,
}

// unitDirectory is where the package puts units.
const unitDirectory = "/usr/lib/systemd/system"

var overall = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// exposure asks the Base's own systemd-analyze about a unit's file. The building machine's may be
// older, and know less.
func exposure(t *testing.T, s *stage.Stage, file string) float64 {
	t.Helper()
	out := s.MustExec("systemd-analyze", "security", "--offline=true", "--no-pager", file)
	match := overall.FindStringSubmatch(out)
	if match == nil {
		t.Fatalf("systemd-analyze says nothing about %s:\n%s", file, out)
	}
	level, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return level
}

func TestEachServiceIsSandboxed(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	services, err := filepath.Glob("../../packaging/root" + unitDirectory + "/*.service")
	if err != nil || len(services) == 0 {
		t.Fatalf("no services: %v", err)
	}
	table := &strings.Builder{}
	for _, file := range services {
		name := filepath.Base(file)
		limit, listed := limits[name]
		if !listed {
			t.Errorf("%s has no limit in the table of this test", name)
			continue
		}
		level := exposure(t, s, filepath.Join(unitDirectory, name))
		fmt.Fprintf(table, "%-42s %4.1f  (at most %.1f)\n", name, level, limit)
		if level > limit {
			t.Errorf("%s is exposed to %.1f; at most %.1f is allowed. `systemd-analyze security --offline=true %s` tells why, on a Base",
				name, level, limit, name)
		}
	}
	fmt.Printf("exposure of our units, 10 is without a sandbox:\n%s", table)

	// The gate must be able to close: a unit that lost its sandbox is above every limit.
	bare := &strings.Builder{}
	for line := range strings.Lines(s.MustExec("cat", unitDirectory+"/bitbox-base-middleware.service")) {
		if strings.HasPrefix(line, "[") || strings.HasPrefix(line, "ExecStart=") {
			bare.WriteString(line)
		}
	}
	const lost = "/run/bitbox-base-bare.service"
	if _, err := s.ExecInput(bare.String(), "tee", lost); err != nil {
		t.Fatal(err)
	}
	if level := exposure(t, s, lost); level < 5 {
		t.Errorf("a unit without a sandbox is exposed to %.1f only", level)
	}
}

//go:build linux

package stage_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// filterDrift compares both live packet filters with what e leads to.
func filterDrift(t *testing.T, s *stage.Stage, e posture.Effective) []firewall.Difference {
	t.Helper()
	files, err := generation.RenderFor(e, generation.Machine{Electrum: stage.Electrum})
	if err != nil {
		t.Fatal(err)
	}
	uid := func(name string) (int, error) {
		out, err := s.Exec("id", "--user", name)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(out))
	}
	var drift []firewall.Difference
	for file, command := range map[string]string{generation.IPv4Rules: "iptables-save", generation.IPv6Rules: "ip6tables-save"} {
		d, err := firewall.Diff(files[file], printed(t, s, command), uid)
		if err != nil {
			t.Fatal(err)
		}
		drift = append(drift, d...)
	}
	return drift
}

// printed is what a program prints, without its warnings: iptables-save has one once the older
// iptables was used, which may come in the middle of a line.
func printed(t *testing.T, s *stage.Stage, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stage.Patience)
	defer cancel()
	command, err := s.Command(ctx, argv...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return string(out)
}

// everything is as open as a posture can be.
func everything(t *testing.T) posture.Effective {
	_, key := newKey(t)
	e := withSSH(withElectrum(stage.Factory(), false), key)
	e.Egress = posture.Services
	return e
}

// The rendered rules are what the live filter prints, for the most closed and
// the most open Base; so the audit can compare lines.
func TestTheLiveFilterIsTheRenderedOne(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]posture.Effective{"closed": stage.Factory(), "open": everything(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage.Boot(t, stage.Config{Effective: &e, Prepare: func(t *testing.T, root string) {
				users := "u bitcoin -\nu lightning -\nu debian-tor -\n"
				if err := os.WriteFile(filepath.Join(root, "usr/lib/sysusers.d/services.conf"), []byte(users), 0o644); err != nil {
					t.Fatal(err)
				}
			}})
			s.WaitActive(generation.FirewallUnit)
			if drift := filterDrift(t, s, e); drift != nil {
				t.Errorf("the live filter differs from what was rendered: %v", drift)
			}
		})
	}
}

func TestDriftOfThePacketFilterIsFound(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.FirewallUnit)
	rulesets := func(t *testing.T) []string {
		foreign, err := firewall.ForeignTables([]byte(s.MustExec("nft", "-j", "list", "ruleset")))
		if err != nil {
			t.Fatal(err)
		}
		foreign = append(foreign, firewall.ForeignLegacy(printed(t, s, "iptables-legacy-save"))...)
		return append(foreign, firewall.ForeignLegacy(printed(t, s, "ip6tables-legacy-save"))...)
	}
	if drift, foreign := filterDrift(t, s, stage.Factory()), rulesets(t); drift != nil || foreign != nil {
		t.Fatalf("before anything drifted: %v, %q", drift, foreign)
	}
	for name, c := range map[string]struct {
		do, undo []string
		foreign  bool // not visible in iptables-save
	}{
		"a port opened by hand": {
			do:   []string{"iptables", "-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"},
			undo: []string{"systemctl", "reload", generation.FirewallUnit},
		},
		"a policy changed": {
			do:   []string{"ip6tables", "-P", "INPUT", "ACCEPT"},
			undo: []string{"systemctl", "reload", generation.FirewallUnit},
		},
		"everything flushed": {
			do:   []string{"ip6tables", "-F"},
			undo: []string{"systemctl", "reload", generation.FirewallUnit},
		},
		"a redirect by nft": {
			do:      []string{"nft", "add table ip rogue; add chain ip rogue pre { type nat hook prerouting priority -100; }; add rule ip rogue pre tcp dport 8845 redirect to :22"},
			undo:    []string{"nft", "delete table ip rogue"},
			foreign: true,
		},
		"a hook in our own table": {
			do:      []string{"nft", "add chain ip filter early { type filter hook prerouting priority -300; }; add rule ip filter early tcp dport 22 notrack"},
			undo:    []string{"nft", "flush chain ip filter early; delete chain ip filter early"},
			foreign: true,
		},
		"an exception before the bans": {
			do:      []string{"nft", "add table inet f2b-table; add chain inet f2b-table f2b-chain { type filter hook input priority -1; }; add rule inet f2b-table f2b-chain ip saddr 10.88.1.66 accept"},
			undo:    []string{"nft", "delete table inet f2b-table"},
			foreign: true,
		},
		"the older iptables": {
			do:      []string{"iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "8845", "-j", "DROP"},
			undo:    []string{"iptables-legacy", "-F"},
			foreign: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.MustExec(c.do...)
			if foreign := rulesets(t); c.foreign && foreign == nil {
				t.Error("not found")
			} else {
				t.Logf("found: %q", foreign)
			}
			if !c.foreign {
				drift := filterDrift(t, s, stage.Factory())
				if drift == nil {
					t.Error("not found")
				}
				t.Logf("found: %v", drift[:min(3, len(drift))])
			}
			s.MustExec(c.undo...)
			if drift, foreign := filterDrift(t, s, stage.Factory()), rulesets(t); drift != nil || foreign != nil {
				t.Errorf("after it was undone: %v, %q", drift, foreign)
			}
		})
	}
}

//go:build linux

package stage_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// rules returns the path of a file of the generation in force.
func rules(s *stage.Stage, file string) string {
	return filepath.Join(s.Path(generation.StateDirectory), "current", file)
}

func replaceIn(t *testing.T, path, old, replacement string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), old) {
		t.Fatalf("%s does not contain %q", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), old, replacement, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sockets lists what listens in the Base to more than the machine itself.
func sockets(s *stage.Stage) string {
	b := &strings.Builder{}
	for line := range strings.Lines(s.MustExec("ss", "--no-header", "--tcp", "--udp", "--listening", "--numeric")) {
		if address := strings.Fields(line)[4]; !strings.HasPrefix(address, "127.") && !strings.HasPrefix(address, "[::1]") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestABrokenPacketFilterLeavesTheBaseClosed(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, s *stage.Stage){
		"a rule for IPv4 that does not exist": func(t *testing.T, s *stage.Stage) {
			replaceIn(t, rules(s, generation.IPv4Rules), "-j ACCEPT", "-j NOWHERE")
		},
		"a rule for IPv6 that does not exist": func(t *testing.T, s *stage.Stage) {
			replaceIn(t, rules(s, generation.IPv6Rules), "-j ACCEPT", "-j NOWHERE")
		},
		"a user that does not exist": func(t *testing.T, s *stage.Stage) {
			replaceIn(t, rules(s, generation.IPv4Rules), "--uid-owner _apt", "--uid-owner nobody-here")
		},
		"no generation at all": func(t *testing.T, s *stage.Stage) {
			if err := os.Remove(filepath.Dir(rules(s, "x"))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage.Install(t, stage.Config{})
			damage(t, s)
			s.Start()
			s.WaitState(generation.FirewallUnit, "failed")
			// Not even by hand, with a lease at hand.
			s.MustExec("touch", generation.SSHLease)
			for _, unit := range append([]string{generation.SSHUnit}, listening...) {
				if out, err := s.Exec("systemctl", "start", unit); err == nil {
					t.Errorf("%s could be started: %s", unit, out)
				}
				if state := s.State(unit); state != "inactive" {
					t.Errorf("%s is %s", unit, state)
				}
			}
			if open := sockets(s); open != "" {
				t.Errorf("something listens:\n%s", open)
			}
			for _, save := range []string{"iptables-save", "ip6tables-save"} {
				if out := s.MustExec(save); !strings.Contains(out, ":INPUT DROP") || !strings.Contains(out, ":OUTPUT DROP") {
					t.Errorf("%s does not drop everything:\n%s", save, out)
				}
			}
			for _, to := range entry(s) {
				refused(t, s.Attacker(1), to)
			}
		})
	}
}

// The test above must be able to fail: a unit that does not require the packet
// filter comes up without one.
func TestAUnitThatDoesNotRequireThePacketFilterIsAnOpenDoor(t *testing.T) {
	t.Parallel()
	s := stage.Install(t, stage.Config{Prepare: func(t *testing.T, root string) {
		unit := filepath.Join(root, "usr/lib/systemd/system", generation.ProxyUnit)
		replaceIn(t, unit, "Requires="+generation.FirewallUnit+"\n", "")
	}})
	replaceIn(t, rules(s, generation.IPv4Rules), "-j ACCEPT", "-j NOWHERE")
	s.Start()
	s.WaitActive(generation.ProxyUnit)
	if !strings.Contains(sockets(s), ":8845") {
		t.Error("nothing listens: the test for what fails closed would not notice")
	}
}

func TestAReloadThatFailsKeepsTheRules(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	before := s.MustExec("iptables-save", "--table", "filter")
	replaceIn(t, rules(s, generation.IPv4Rules), "-j ACCEPT", "-j NOWHERE")
	if out, err := s.Exec("systemctl", "reload", generation.FirewallUnit); err == nil {
		t.Errorf("the reload of broken rules succeeded: %s", out)
	}
	if after := s.MustExec("iptables-save", "--table", "filter"); counted(after) != counted(before) {
		t.Errorf("the rules changed:\n%s", after)
	}
	for _, unit := range listening {
		if state := s.State(unit); state != "active" {
			t.Errorf("%s is %s", unit, state)
		}
	}
}

// counted drops what counts packets and tells the time.
func counted(save string) string {
	b := &strings.Builder{}
	for line := range strings.Lines(save) {
		if line, _, _ = strings.Cut(line, " ["); !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// The programs that will read the next generation examine it first, without effect on
// those that run.
func TestAFaultyCandidateIsFoundBeforeItIsInForce(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	files, err := generation.Render(stage.Factory())
	if err != nil {
		t.Fatal(err)
	}
	withoutCertificate, err := generation.RenderFor(withElectrum(stage.Factory(), true), generation.Machine{Electrum: stage.Electrum})
	if err != nil {
		t.Fatal(err)
	}
	store := generation.NewStore(s.Path(generation.StateDirectory))
	candidate := func(t *testing.T, broken string, change func(string) string) {
		t.Helper()
		changed := generation.Files{}
		for name, content := range files {
			changed[name] = content
			if name == broken {
				changed[name] = change(content)
			}
		}
		if err := store.Write(2, changed); err != nil {
			t.Fatal(err)
		}
	}
	candidate(t, "", nil)
	for _, unit := range generation.PreflightUnits {
		if out, err := s.Exec("systemctl", "start", unit); err != nil {
			t.Errorf("a sound candidate: %v\n%s\n%s", err, out, s.Journal(unit))
		}
	}
	for name, c := range map[string]struct {
		unit, file string
		change     func(string) string
	}{
		"a jump to nowhere": {generation.PreflightUnits[0], generation.IPv4Rules, func(text string) string {
			return strings.Replace(text, "COMMIT", "-A INPUT -j NOWHERE\nCOMMIT", 1)
		}},
		"a rule of the other family": {generation.PreflightUnits[0], generation.IPv6Rules, func(text string) string {
			return strings.Replace(text, "COMMIT", "-A INPUT -s 10.0.0.1/32 -j ACCEPT\nCOMMIT", 1)
		}},
		"a directive that is none": {generation.PreflightUnits[1], generation.ProxyConfig,
			func(text string) string { return text + "listen_to_all on;\n" }},
		"a missing certificate": {generation.PreflightUnits[1], generation.ProxyConfig, func(string) string {
			return withoutCertificate[generation.ProxyConfig]
		}},
		"a filter that is none": {generation.PreflightUnits[2], generation.BansDirectory + "/jail.conf", func(text string) string {
			return strings.Replace(text, "filter = bitbox-base-sshd", "filter = nothing", 1)
		}},
		"a keyword that is none": {generation.PreflightUnits[3], generation.SSHConfig,
			func(text string) string { return text + "PermitEverything yes\n" }},
	} {
		t.Run(name, func(t *testing.T) {
			candidate(t, c.file, c.change)
			if _, err := s.Exec("systemctl", "start", c.unit); err == nil {
				t.Errorf("%s found nothing wrong", c.unit)
			}
		})
	}
	for _, unit := range append([]string{generation.FirewallUnit}, listening...) {
		if state := s.State(unit); state != "active" {
			t.Errorf("%s is %s after the pre-flights", unit, state)
		}
	}
	for _, to := range entry(s) {
		if err := reaches(s.Attacker(1), to); err != nil {
			t.Errorf("the entry after the pre-flights: %v", err)
		}
	}
}

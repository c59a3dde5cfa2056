//go:build linux

package stage_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
	"github.com/google/go-cmp/cmp"
)

// bans asks fail2ban, once it answers.
func bans(t *testing.T, s *stage.Stage, jail string) []bruteforce.Ban {
	t.Helper()
	var bans []bruteforce.Ban
	s.Until("fail2ban lists the bans of "+jail, func() error {
		out, err := s.Exec(append([]string{"fail2ban-client"}, bruteforce.BansArguments(jail)...)...)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		bans, err = bruteforce.ParseBans(jail, strings.Lines(out))
		return err
	})
	return bans
}

func banned(t *testing.T, s *stage.Stage, jail string, addr netip.Addr) bool {
	t.Helper()
	for _, ban := range bans(t, s, jail) {
		if ban.Addr == addr {
			return true
		}
	}
	return false
}

func waitBanned(t *testing.T, s *stage.Stage, jail string, addr netip.Addr) {
	t.Helper()
	s.Until(fmt.Sprintf("%s is banned", addr), func() error {
		if banned(t, s, jail, addr) {
			return nil
		}
		status, err := s.Exec("fail2ban-client", "status", jail)
		return fmt.Errorf("it is not: %s %v", status, err)
	})
}

// ready waits until fail2ban reads its logs.
func ready(t *testing.T, s *stage.Stage) {
	t.Helper()
	for _, jail := range bruteforce.Jails {
		bans(t, s, jail)
	}
}

func TestGarbageBansItsSenderAndNobodyElse(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	ready(t, s)
	tries := int(posture.Factory().Bans.MaxTries)
	attack := func(from *stage.Attacker, to netip.AddrPort, n int) {
		for range n {
			conn, err := from.Dial("tcp", to)
			if err != nil {
				return // banned by now
			}
			_, _ = conn.Write([]byte(nonsense))
			_ = conn.Close()
		}
	}
	v4, v6, bystander, clumsy := s.Attacker(1), s.Attacker(2), s.Attacker(3), s.Attacker(4)
	inV4, inV6 := netip.AddrPortFrom(s.V4, posture.EntryPort), netip.AddrPortFrom(s.V6, posture.EntryPort)

	begun := time.Now()
	attack(v4, inV4, tries)
	waitBanned(t, s, bruteforce.JailHandshake, v4.V4)
	t.Logf("banned %v after the first try", time.Since(begun).Round(10*time.Millisecond))
	attack(v6, inV6, tries)
	waitBanned(t, s, bruteforce.JailHandshake, v6.V6)
	attack(clumsy, inV4, tries-1)
	heard(t, s, clumsy.V4)
	s.Until("each refusal was counted", func() error {
		out, err := s.Exec(append([]string{"fail2ban-client"}, bruteforce.StatusArguments(bruteforce.JailHandshake)...)...)
		if err != nil {
			return err
		}
		counts, err := bruteforce.ParseCounts(out)
		if err == nil && counts.TotalFailed < 3*tries-1 {
			err = fmt.Errorf("%+v", counts)
		}
		return err
	})
	if banned(t, s, bruteforce.JailHandshake, clumsy.V4) {
		t.Errorf("banned after %d tries; %d are allowed", tries-1, tries)
	}

	others := func(when string) {
		t.Helper()
		for _, to := range entry(s) {
			if err := reaches(bystander, to); err != nil {
				t.Errorf("%s: a bystander is banned, too: %v", when, err)
			}
		}
	}
	stillBanned := func(when string) {
		t.Helper()
		for a, to := range map[*stage.Attacker]netip.AddrPort{v4: inV4, v6: inV6} {
			// fail2ban lists a ban a moment before it is in effect.
			s.Until(when+", a banned address does not get in", func() error {
				if reaches(a, to) == nil {
					return fmt.Errorf("%s reaches %s", a.V4, to)
				}
				return nil
			})
		}
		waitBanned(t, s, bruteforce.JailHandshake, v4.V4)
		waitBanned(t, s, bruteforce.JailHandshake, v6.V6)
		others(when)
	}
	stillBanned("at first")
	s.MustExec("systemctl", "reload", generation.FirewallUnit)
	stillBanned("after a reload of the packet filter")
	s.MustExec("systemctl", "restart", generation.BansUnit)
	ready(t, s)
	stillBanned("after a restart of fail2ban")
	s.MustExec("systemctl", "kill", "--signal=SIGKILL", generation.BansUnit)
	s.Until("fail2ban was started again", func() error { _, err := s.Exec("fail2ban-client", "ping"); return err })
	ready(t, s)
	stillBanned("after a kill of fail2ban")
	if foreign, err := firewall.ForeignTables([]byte(s.MustExec("nft", "-j", "list", "ruleset"))); err != nil || foreign != nil {
		t.Errorf("fail2ban's own table is taken for a foreign one: %q, %v", foreign, err)
	}

	s.MustExec(append([]string{"fail2ban-client"}, bruteforce.LiftArguments(v4.V4)...)...)
	if banned(t, s, bruteforce.JailHandshake, v4.V4) {
		t.Error("the ban was lifted and is still listed")
	}
	if err := reaches(v4, inV4); err != nil {
		t.Errorf("the ban was lifted: %v", err)
	}
	s.Reboot()
	s.WaitActive(generation.ProxyUnit)
	ready(t, s)
	s.Until("after a reboot, a banned address does not get in", func() error {
		if reaches(v6, inV6) == nil {
			return fmt.Errorf("%s gets in", v6.V6)
		}
		return nil
	})
	if banned(t, s, bruteforce.JailHandshake, v4.V4) {
		t.Error("a lifted ban came back with the reboot")
	}
	others("after a reboot")
}

// sendAs sends nonsense from an address of the attacker's machine.
func sendAs(a *stage.Attacker, from netip.Addr, to netip.AddrPort) error {
	conn, err := a.DialAs("tcp", netip.AddrPortFrom(from, 0), to)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(nonsense))
	return errors.Join(err, conn.Close())
}

// The attack: a host has a whole /64, and tries with another address each time. And:
// a neighbour does his worst so that the owner's own /64 is banned.
func TestABanHitsAWholeNetworkBeyondTheLinkAndNoneAtHome(t *testing.T) {
	t.Parallel()
	const home, far, other = 1, 2, 3
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	ready(t, s)
	base, a := stage.Global(home, 2), s.Attacker(1)
	to := netip.AddrPortFrom(base, posture.EntryPort)
	if err := s.AddAddress(base); err != nil {
		t.Fatal(err)
	}
	for _, network := range []byte{home, far, other} {
		for host := range byte(10) {
			if err := a.AddAddress(stage.Global(network, 0x50+host)); err != nil {
				t.Fatal(err)
			}
		}
	}
	reachesFrom := func(a *stage.Attacker, from netip.Addr, to netip.AddrPort) error {
		conn, err := a.DialAs("tcp", netip.AddrPortFrom(from, 0), to)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	for n := range posture.Factory().Bans.MaxTries {
		_ = sendAs(a, stage.Global(far, 0x50+byte(n)), to) // banned by now is as good
	}
	waitBanned(t, s, bruteforce.JailHandshake, stage.Global(far, 0))
	s.Until("another address of the banned network does not get in", func() error {
		if reachesFrom(a, stage.Global(far, 0x59), to) == nil {
			return errors.New("it does")
		}
		return nil
	})
	if err := reachesFrom(a, stage.Global(other, 0x50), to); err != nil {
		t.Errorf("another network is banned, too: %v", err)
	}

	// At home: from a global address to a local one of the Base, so that they have no
	// prefix in common, and from the address that stands for the whole /64.
	neighbour, owner := stage.Global(home, 0x50), stage.Global(home, 0x51)
	if err := a.AddAddress(stage.Global(home, 0)); err != nil {
		t.Fatal(err)
	}
	s.Until("the neighbour is banned", func() error {
		_ = sendAs(a, stage.Global(home, 0), to)
		_ = sendAs(a, neighbour, netip.AddrPortFrom(s.V6, posture.EntryPort))
		if !banned(t, s, bruteforce.JailHandshake, neighbour) {
			return errors.New("not yet")
		}
		return nil
	})
	if banned(t, s, bruteforce.JailHandshake, stage.Global(home, 0)) {
		t.Error("the owner's home is banned as a whole")
	}
	if err := reachesFrom(a, owner, to); err != nil {
		t.Errorf("a neighbour has the owner banned: %v", err)
	}

	// Root's own bans, of a network or for ever, hide nothing else.
	jail := bruteforce.JailHandshake
	s.MustExec("fail2ban-client", "set", jail, "banip", "10.99.0.0/24")
	s.MustExec("fail2ban-client", "set", jail, "bantime", "-1")
	s.MustExec("fail2ban-client", "set", jail, "banip", "10.98.0.1")
	s.Until("the bans of root are listed beside the others", func() error {
		subjects := map[string]bool{}
		for _, ban := range bans(t, s, jail) {
			subjects[ban.Subject()] = ban.Until.IsZero()
		}
		for _, subject := range []string{"10.99.0.0/24", "10.98.0.1", neighbour.String(), "2001:db8:0:2::/64"} {
			if _, listed := subjects[subject]; !listed {
				return fmt.Errorf("%s is not among %v", subject, subjects)
			}
		}
		if !subjects["10.98.0.1"] {
			return errors.New("10.98.0.1 is banned for ever, and has an end")
		}
		return nil
	})

	// Without the rule for networks the attacker goes on with the next address.
	chain := s.MustExec("nft", "-a", "list", "chain", "inet", firewall.BanTable, "f2b-chain")
	rule := regexp.MustCompile(`ffff:ffff:ffff:ffff:: .*# handle (\d+)`).FindStringSubmatch(chain)
	if rule == nil {
		t.Fatalf("there is no rule for networks in:\n%s", chain)
	}
	s.MustExec("nft", "delete", "rule", "inet", firewall.BanTable, "f2b-chain", "handle", rule[1])
	if err := reachesFrom(a, stage.Global(far, 0x59), to); err != nil {
		t.Errorf("without the rule for networks the attacker is banned all the same (%v); this attack proves nothing", err)
	}
}

// An owner shortens the ban time: the newest ban then ends first, and fail2ban lists it first.
func TestTheNewestBanIsListedLast(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	ready(t, s)
	jail := bruteforce.JailSSH
	ban := func(addr string, seconds int) time.Time {
		t.Helper()
		s.MustExec("fail2ban-client", "set", jail, "bantime", fmt.Sprint(seconds))
		s.MustExec("fail2ban-client", "set", jail, "banip", addr)
		waitBanned(t, s, jail, netip.MustParseAddr(addr))
		for _, ban := range bans(t, s, jail) {
			if ban.Addr.String() == addr {
				return ban.Since
			}
		}
		t.Fatalf("%s is no longer banned", addr)
		return time.Time{}
	}
	older := ban("10.99.0.1", 3600)
	// From here on the former time is that ban's own, as after a change of the posture.
	s.MustExec("systemctl", "restart", generation.BansUnit)
	ready(t, s)
	waitBanned(t, s, jail, netip.MustParseAddr("10.99.0.1"))
	newest := "10.99.0.2"
	s.Until("a ban is made in a later second", func() error {
		if !ban(newest, 60).After(older) {
			s.MustExec("fail2ban-client", "unban", newest)
			return errors.New("not yet")
		}
		return nil
	})
	if list := bans(t, s, jail); len(list) != 2 || list[1].Addr.String() != newest {
		t.Errorf("the newest is not the last: %v", list)
	}
	if out := s.MustExec(append([]string{"fail2ban-client"}, bruteforce.BansArguments(jail)...)...); !strings.HasPrefix(out, newest) {
		t.Errorf("fail2ban itself lists the newest last; this test proves nothing:\n%s", out)
	}
}

// Tor's connections come from loopback: a ban there would ban everybody behind
// it.
func TestLoopbackIsNeverBanned(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	ready(t, s)
	for range 2 * posture.Factory().Bans.MaxTries {
		if out, err := s.ExecInput(nonsense, "bash", "-c", "cat >/dev/tcp/127.0.0.1/8845"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	heard(t, s, netip.MustParseAddr("127.0.0.1"))
	// A stranger's ban that comes later tells that the others were read.
	a := s.Attacker(1)
	for range posture.Factory().Bans.MaxTries {
		send(t, a, netip.AddrPortFrom(s.V4, posture.EntryPort), nonsense)
	}
	waitBanned(t, s, bruteforce.JailHandshake, a.V4)
	if found := bans(t, s, bruteforce.JailHandshake); len(found) != 1 {
		t.Errorf("banned: %v", found)
	}
}

// matched gives lines to fail2ban's own matcher, in the Base, and returns the
// addresses that it would count.
func matched(t *testing.T, s *stage.Stage, filter string, lines []string) []string {
	t.Helper()
	config := generation.Current(generation.BansDirectory)
	// As from the journal: without a date in the line.
	if err := os.WriteFile(s.Path("/var/lib/lines.log"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := s.MustExec("fail2ban-regex", "--config", config, "--no-check-all", "--datepattern", "{NONE}", "--out", "ip", "/var/lib/lines.log",
		filter)
	return strings.Fields(out)
}

// logged returns what the journal holds after a handler wrote a refusal that counts
// against an address, or none.
func logged(handler func(*bytes.Buffer) slog.Handler, against string, extra ...any) string {
	b := &bytes.Buffer{}
	attributes := []any{"addr", "203.0.113.9", "reason", "wrong_mac1"}
	if against != "" {
		attributes = append([]any{"against", against}, attributes...)
	}
	slog.New(handler(b)).Info("handshake refused", append(attributes, extra...)...)
	return "bitbox-base bitbox-base[42]: " + strings.TrimSpace(b.String())
}

func text(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }

func TestOnlyWhatCountsIsCounted(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	// fail2ban counts a line with the Middleware's mark, against the address of the mark.
	counting := []string{logged(text, "203.0.113.8"), logged(text, "203.0.113.8", "suppressed", 3)}
	harmless := []string{logged(text, ""), logged(text, "", "error", "x against=203.0.113.8 addr=203.0.113.8 reason=wrong_mac1")}
	if got := matched(t, s, bruteforce.JailHandshake, counting); len(got) != len(counting) || got[0] != "203.0.113.8" {
		t.Errorf("of the lines that count, these were counted: %q\n%s", got, strings.Join(counting, "\n"))
	}
	for _, address := range []string{"2001:db8::9", "2001:db8:1:2::"} {
		if got := matched(t, s, bruteforce.JailHandshake, []string{logged(text, address)}); cmp.Diff([]string{address}, got) != "" {
			t.Errorf("of IPv6: %q, want %s", got, address)
		}
	}
	if got := matched(t, s, bruteforce.JailHandshake, harmless); len(got) != 0 {
		t.Errorf("of the lines that do not count, these were counted: %q", got)
	}
	// A stranger can get a name into the log, in any place and in any number of
	// lines.
	forged := "handshake refused against=198.51.100.1 addr=198.51.100.1 reason=malformed_frame"
	var attacks []string
	for _, name := range []string{forged, `" ` + forged, "x\n" + counting[0], "x\" level=INFO msg=\"" + forged} {
		b := &bytes.Buffer{}
		logger := slog.New(text(b))
		logger.Info("paired", "app", name)
		logger.Info(name)
		for line := range strings.Lines(b.String()) {
			attacks = append(attacks, "bitbox-base bitbox-base[42]: "+strings.TrimSpace(line))
		}
	}
	attacks = append(attacks,
		"bitbox-base sshd[42]: "+forged,
		"bitbox-base bitbox-base[42]: Invalid user "+forged+" from 10.0.0.1",
		"bitbox-base bitbox-base[42]: "+strings.Replace(forged, "198.51.100.1", "unknown", 1),
		"bitbox-base bitbox-base[42]: "+strings.Replace(forged, " against=198.51.100.1", "", 1),
	)
	if got := matched(t, s, bruteforce.JailHandshake, attacks); len(got) != 0 {
		t.Errorf("forged lines were counted: %q\n%s", got, strings.Join(attacks, "\n"))
	}
	if got := matched(t, s, bruteforce.JailHandshake, []string{"bitbox-base bitbox-base[42]: " + forged}); len(got) != 1 {
		t.Errorf("the line that the attacks try to forge is not counted: %q", got)
	}

	// The lines that sshd 9.2 writes.
	ssh := func(text string) string { return "bitbox-base sshd[42]: " + text }
	for name, c := range map[string]struct {
		line  string
		count bool
	}{
		"a wrong key":              {"Connection closed by authenticating user base 203.0.113.9 port 40052 [preauth]", true},
		"a wrong key, polite":      {"Disconnected from authenticating user base 203.0.113.9 port 40052 [preauth]", true},
		"too many keys":            {"error: maximum authentication attempts exceeded for base from 203.0.113.9 port 40052 ssh2 [preauth]", true},
		"an unknown user":          {"Invalid user admin from 203.0.113.9 port 40052", true},
		"root":                     {"User root from 203.0.113.9 not allowed because not listed in AllowUsers", true},
		"the port was looked at":   {"Connection closed by 203.0.113.9 port 40052", false},
		"no yes to the host key":   {"Connection closed by 203.0.113.9 port 40052 [preauth]", false},
		"one of several keys":      {"Failed publickey for base from 203.0.113.9 port 40052 ssh2: ED25519 SHA256:x", false},
		"a login":                  {"Accepted publickey for base from 203.0.113.9 port 40052 ssh2: ED25519 SHA256:x", false},
		"a logout":                 {"Disconnected from user base 203.0.113.9 port 40052", false},
		"a user who names another": {"Invalid user x from 198.51.100.1 port 1 from 203.0.113.9 port 40052", true},
		"a user who forges an end": {"Connection closed by invalid user authenticating user base 198.51.100.1 port 1 [preauth] 203.0.113.9 port 40052 [preauth]", false},
	} {
		got := matched(t, s, "bitbox-base-sshd", []string{ssh(c.line)})
		if c.count != (len(got) == 1) || c.count && got[0] != "203.0.113.9" {
			t.Errorf("%s: counted %q, want %v", name, got, c.count)
		}
	}
}

//go:build linux

package e2e_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// tryLogin tries to log in by SSH.
func (b *base) tryLogin(from *stage.Attacker, user string, method ssh.AuthMethod) error {
	raw, err := from.Dial("tcp", b.sshd())
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	conn, _, _, err := ssh.NewClientConn(raw, b.sshd().String(), &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{method}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// garbage sends what is no handshake.
func (b *base) garbage(from *stage.Attacker) error {
	conn, err := from.Dial("tcp", b.entry())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("\x01\x00\x00"))
	return err
}

// reaches tells whether a machine gets a connection.
func reaches(from *stage.Attacker, to netip.AddrPort) error {
	conn, err := from.Dial("tcp", to)
	if err != nil {
		return err
	}
	return conn.Close()
}

// mustReach fails the test if a machine gets no connection: what is closed or banned stays so for
// longer than the test waits.
func (b *base) mustReach(who string, from *stage.Attacker, to netip.AddrPort) {
	b.t.Helper()
	b.Until(fmt.Sprintf("%s reaches %s", who, to), func() error { return reaches(from, to) })
}

// banned lists the addresses that the owner's App shows.
func (b *base) banned(a *app) ([]string, error) {
	bans, err := a.Bans(b.t.Context())
	var all []string
	for _, ban := range bans.GetBans() {
		all = append(all, fmt.Sprintf("%s %s", ban.GetJail(), ban.GetAddress()))
	}
	slices.Sort(all)
	return all, err
}

func TestBruteForceBansTheAttackerAndDisturbsNobodyElse(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	owner := b.app(b.Attacker(2), "phone", "owner")
	identity, key := newKey(t)
	b.apply(owner, "add a key", client.AddSSHKeys(key.Line, "laptop"))
	b.apply(owner, "enable SSH", client.EnableSSH(time.Hour))
	login := b.login(identity) // of somebody who sits beside the attackers
	stream := b.watch(owner)

	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	attacks := map[*stage.Attacker]struct {
		what, jail string
		to         netip.AddrPort // a ban is for the port that was attacked
		try        func(*stage.Attacker) error
	}{
		b.Attacker(11): {"a wrong key", bruteforce.JailSSH, b.sshd(),
			func(a *stage.Attacker) error { return b.tryLogin(a, sshaccess.User, ssh.PublicKeys(signer)) }},
		b.Attacker(12): {"passwords", bruteforce.JailSSH, b.sshd(),
			func(a *stage.Attacker) error { return b.tryLogin(a, "root", ssh.Password("toor")) }},
		b.Attacker(13): {"garbage", bruteforce.JailHandshake, b.entry(), b.garbage},
	}
	want := map[*stage.Attacker]string{}
	for attacker, attack := range attacks {
		// Without tries there is no ban: what follows is about the tries.
		b.mustReach("who has done nothing yet", attacker, attack.to)
		want[attacker] = attack.jail + " " + attacker.V4.String()
		begun := time.Now()
		b.Until("who tries "+attack.what+" is banned", func() error {
			for range posture.Factory().Bans.MaxTries {
				if err := attack.try(attacker); err == nil && attack.jail == bruteforce.JailSSH {
					t.Errorf("%s let somebody in", attack.what)
				}
			}
			if all, err := b.banned(owner); err != nil || !slices.Contains(all, want[attacker]) {
				return fmt.Errorf("the App shows the bans %q, %w", all, err)
			}
			if reaches(attacker, attack.to) == nil {
				return errors.New("it reaches the Base")
			}
			return nil
		})
		t.Logf("who tries %s is banned %v after the first try", attack.what, time.Since(begun).Round(10*time.Millisecond))
	}
	bystander := b.Attacker(14)
	check := func(when string) {
		t.Helper()
		b.Until(when+" all are banned", func() error {
			if all, err := b.banned(owner); err != nil || !slices.Equal(all, slices.Sorted(maps.Values(want))) {
				return fmt.Errorf("the App shows the bans %q, %w", all, err)
			}
			for attacker := range want {
				if reaches(attacker, attacks[attacker].to) == nil {
					return fmt.Errorf("%s reaches the Base", attacker.V4)
				}
			}
			return nil
		})
		for _, to := range []netip.AddrPort{b.entry(), b.sshd()} {
			b.mustReach(when+" a bystander", bystander, to)
		}
		b.goesOn("the App's stream of events", stream)
		b.goesOn("the login", login)
	}
	check("at first")
	b.MustExec("systemctl", "reload", generation.FirewallUnit)
	check("after a reload of the packet filter")
	b.MustExec("systemctl", "restart", generation.BansUnit)
	check("after a restart of fail2ban")
	b.apply(owner, "expose an API", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
	check("after a change")

	lift := b.Attacker(11)
	if lifted, err := owner.LiftBan(t.Context(), lift.V4.String()); err != nil || !lifted {
		t.Fatalf("lift a ban: %v, %s", lifted, client.Explain(err))
	}
	delete(want, lift)
	b.mustReach("whose ban was lifted", lift, b.sshd())
	check("after one ban was lifted")
	if lifted, err := owner.LiftBan(t.Context(), netip.MustParseAddr("10.88.99.99").String()); err != nil || lifted {
		t.Errorf("somebody who is not banned: %v, %v", lifted, err)
	}
}

//go:build linux

package e2e_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

func expose(ownPort bool) func(*posture.Posture, uint64) {
	return func(p *posture.Posture, next uint64) {
		p.Extras = []posture.ExtraEndpoint{{Kind: posture.KindElectrum, OwnPort: ownPort,
			Lease: posture.Lease{Length: time.Hour, GrantedIn: next}}}
	}
}

// steady is a client of the entry that must notice nothing.
func (b *base) steady() net.Conn {
	b.t.Helper()
	conn, err := b.Attacker(1).Dial("tcp", netip.AddrPortFrom(b.V4, posture.EntryPort))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestAnOwnerOpensAndAnybodyClosesALiveBase(t *testing.T) {
	t.Parallel()
	b := boot(t)
	b.electrum()
	own := netip.AddrPortFrom(b.V4, posture.Extras[0].Port)
	entry := netip.AddrPortFrom(b.V4, posture.EntryPort)
	sshd := netip.AddrPortFrom(b.V4, sshaccess.Port)
	b.closed(own)
	b.closed(sshd)

	t.Run("a port of its own", func(t *testing.T) {
		b.t = t
		b.mustSubmit(expose(true))
		conn := b.mustWallet(own)
		steady := b.steady()
		b.cutOff(map[string]chan struct{}{"the wallet's connection": ends(conn)}, func() { b.restrict(endLease(posture.KindElectrum)) })
		b.lives("a client of the entry", steady)
		b.closed(own)
	})

	t.Run("beside the entry", func(t *testing.T) {
		b.t = t
		b.mustSubmit(expose(false))
		conn := b.mustWallet(entry)
		steady := b.steady()
		// With an extra API NGINX waits for the first five bytes before it knows whose it is. It ends
		// a client that keeps them back for five seconds, which a change may take.
		if _, err := steady.Write([]byte{1, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		// From the answer on it is closed.
		ended := ends(conn)
		b.mustSubmit(func(p *posture.Posture, _ uint64) { p.Extras = nil })
		select {
		case <-ended:
		case <-time.After(cutTime):
			t.Error("the wallet's connection lives on")
		}
		b.lives("a client of the entry", steady)
		if conn, err := b.wallet(entry); err == nil {
			_ = conn.Close()
			t.Error("the API answers though it was closed")
		}
	})

	t.Run("SSH", func(t *testing.T) {
		b.t = t
		identity, key := newKey(t)
		b.mustSubmit(func(p *posture.Posture, next uint64) {
			p.SSHKeys = []sshkey.Key{key}
			p.SSH = &posture.Lease{Length: 5 * time.Minute, GrantedIn: next}
		})
		ended := b.login(identity)
		other, otherKey := newKey(t)
		b.cutOff(map[string]chan struct{}{"the session of a key that was taken away": ended}, func() {
			b.mustSubmit(func(p *posture.Posture, _ uint64) { p.SSHKeys = []sshkey.Key{otherKey} })
		})
		ended = b.login(other)
		steady := b.steady()
		b.cutOff(map[string]chan struct{}{"the SSH session": ended}, func() { b.restrict(endLease(posture.KindSSH)) })
		b.lives("a client of the entry", steady)
		b.closed(sshd)
		if state := b.State(generation.SSHUnit); state != "inactive" {
			t.Errorf("sshd is %s", state)
		}
	})

	t.Run("what does not validate changes nothing", func(t *testing.T) {
		b.t = t
		before := b.MustExec("iptables-save")
		// There is no Tor here, so no user for the rule.
		err := b.submit(false, func(p *posture.Posture, next uint64) {
			expose(true)(p, next)
			p.Egress = []posture.Service{posture.ServiceTor}
		})
		if !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotApplied}) || !strings.Contains(err.Error(), "preflight-firewall") {
			t.Errorf("submit = %v; want the pre-flight of the packet filter to refuse", err)
		}
		b.closed(own)
		if after := b.MustExec("iptables-save"); ruleLines(after) != ruleLines(before) {
			t.Errorf("the packet filter was\n%s\nand is\n%s", before, after)
		}
		b.mustSubmit(expose(true))
		b.mustWallet(own)
	})

	t.Run("lockdown", func(t *testing.T) {
		b.t = t
		conn := b.mustWallet(own)
		b.cutOff(map[string]chan struct{}{"the wallet's connection": ends(conn)}, func() {
			b.restrict(&systemv1.Restrict{What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}})
		})
		b.closed(own)
		out := b.MustExec("bitbox-base", "local", "unlock")
		if !strings.Contains(out, "done") || b.look().Effective().Lockdown {
			t.Errorf("root cannot lift the lockdown: %s", out)
		}
		b.closed(own) // what it has closed stays closed, unless root asks for it
		b.mustSubmit(expose(true))
		b.mustWallet(own)
		b.restrict(&systemv1.Restrict{What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}})
		b.closed(own)
		b.MustExec("bitbox-base", "local", "unlock", "--reopen")
		b.mustWallet(own)
	})
}

// ruleLines are the rules without counters and comments.
func ruleLines(save string) string {
	var lines []string
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "-A") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func newKey(t *testing.T) (identity string, key sshkey.Key) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	identity = filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	wire, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = sshkey.Parse(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(wire)))); err != nil {
		t.Fatal(err)
	}
	return identity, key
}

// login opens an SSH session that stays; ended is closed when it ends.
func (b *base) login(identity string) (ended chan struct{}) {
	b.t.Helper()
	client := []string{"ssh", "-F", "none", "-i", identity, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes", sshaccess.User + "@" + b.V4.String()}
	b.Until("somebody logs in", func() error {
		out, err := b.Attacker(1).Exec(append(client, "true")...)
		if err != nil {
			return errors.Join(err, errors.New(out))
		}
		return nil
	})
	ended = make(chan struct{})
	attacker := b.Attacker(1)
	go func() {
		defer close(ended)
		_, _ = attacker.Exec(append(client, "sleep 3600")...) // it is ended
	}()
	b.Until("the session runs", func() error {
		_, err := b.Exec("pgrep", "-u", sshaccess.User, "sleep")
		return err
	})
	return ended
}

func TestATryIsUndoneAfterAMinuteOnALiveBase(t *testing.T) {
	t.Parallel()
	b := boot(t)
	b.electrum()
	own := netip.AddrPortFrom(b.V4, posture.Extras[0].Port)
	begun := time.Now()
	if err := b.submit(true, expose(true)); err != nil {
		t.Fatal(err)
	}
	conn := b.mustWallet(own)
	_ = conn.SetReadDeadline(time.Now().Add(posture.TryTime + stage.Patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the wallet's connection was not ended: %v", err)
	}
	// From before the try on, so not sooner than its time.
	lasted := time.Since(begun)
	if t.Logf("the try lasted %v", lasted.Round(time.Millisecond)); lasted < posture.TryTime {
		t.Errorf("the try lasted %v", lasted)
	}
	b.closed(own)
	if pending, _, _ := b.look().Pending(); pending {
		t.Error("the helper says that it is still tried")
	}
}

func TestATryDoesNotOutliveAPowerCutOfALiveBase(t *testing.T) {
	t.Parallel()
	b := boot(t)
	own := netip.AddrPortFrom(b.V4, posture.Extras[0].Port)
	if err := b.submit(true, expose(true)); err != nil {
		t.Fatal(err)
	}
	if rules := b.MustExec("iptables-save"); !strings.Contains(rules, "50002") {
		t.Fatal("the try is not in force")
	}
	b.Kill()
	b.Start()
	b.WaitActive(generation.ProxyUnit)
	b.closed(own)
	if rules := b.MustExec("iptables-save"); strings.Contains(rules, "50002") {
		t.Error("the packet filter still has the port open")
	}
	if out := b.Journal(generation.FirewallUnit, "bitbox-base-prepare.service"); strings.Contains(out, "Failed") {
		t.Errorf("the boot was not clean:\n%s", out)
	}
	b.WaitActive(helperUnit)
	if effective := b.look().Effective(); len(effective.Endpoints) != 1 {
		t.Errorf("in force is %+v", effective)
	}
}

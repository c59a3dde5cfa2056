//go:build linux

package stage_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
	"golang.org/x/crypto/ssh"
)

// newKey makes a key as an owner would have one.
func newKey(t *testing.T) (ssh.Signer, sshkey.Key) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sshkey.Parse(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

// withSSH leases SSH to a key in e.
func withSSH(e posture.Effective, keys ...sshkey.Key) posture.Effective {
	e.SSH = &posture.SSH{Keys: keys, Remaining: time.Hour}
	return e
}

// lease does what the system helper does when a lease begins.
func lease(t *testing.T, s *stage.Stage, number uint64, e posture.Effective) {
	t.Helper()
	if err := s.Apply(number, e); err != nil {
		t.Fatal(err)
	}
	s.MustExec("systemctl", "reload", generation.FirewallUnit)
	s.MustExec("touch", generation.SSHLease)
	s.MustExec("systemctl", "start", generation.SSHUnit)
}

// login connects as a user. The host key is whatever it is.
func login(a *stage.Attacker, to netip.AddrPort, user string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	raw, err := a.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(stage.Patience)); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn, channels, requests, err := ssh.NewClientConn(raw, to.String(), &ssh.ClientConfig{
		User: user, Auth: methods, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return ssh.NewClient(conn, channels, requests), nil
}

func TestSSHIsOffUntilItIsLeasedToAKey(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	a := s.Attacker(1)
	to := netip.AddrPortFrom(s.V4, sshaccess.Port)
	off := func(when string) {
		t.Helper()
		if state := s.State(generation.SSHUnit); state != "inactive" {
			t.Errorf("%s: %s is %s", when, generation.SSHUnit, state)
		}
		if strings.Contains(sockets(s), ":22 ") {
			t.Errorf("%s: something listens on port 22:\n%s", when, sockets(s))
		}
		refused(t, a, to)
	}
	off("after boot")
	for _, unit := range []string{"ssh.service", "ssh.socket", "sshd.service", "sshd-unix-local.socket", "sshd-vsock.socket"} {
		if out, err := s.Exec("systemctl", "start", unit); err == nil {
			t.Errorf("Debian's %s could be started: %s", unit, out)
		}
	}
	_, key := newKey(t)
	if err := s.Apply(2, withSSH(stage.Factory(), key)); err != nil {
		t.Fatal(err)
	}
	s.MustExec("systemctl", "start", generation.SSHUnit) // a condition that does not hold is no error
	off("with a key, without a lease")
	if err := s.Apply(3, stage.Factory()); err != nil {
		t.Fatal(err)
	}
	s.MustExec("touch", generation.SSHLease)
	_, _ = s.Exec("systemctl", "start", generation.SSHUnit) // refused, in whatever way
	off("with a lease, without a key")
}

func TestOnlyALeasedKeyLogsInAndTheEndOfTheLeaseCutsIt(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	owner, key := newKey(t)
	stranger, _ := newKey(t)
	lease(t, s, 2, withSSH(stage.Factory(), key))
	a := s.Attacker(1)
	to := netip.AddrPortFrom(s.V6, sshaccess.Port)

	effective := s.MustExec("sshd", "-T", "-f", generation.Current(generation.SSHConfig), "-C", "user=base,host=client,addr=10.88.1.66")
	mismatches, err := sshaccess.Verify(effective, generation.SSHConfigFor())
	if err != nil || mismatches != nil {
		t.Errorf("sshd does not do what it was told: %v, %v", mismatches, err)
	}

	client, err := login(a, to, sshaccess.User, ssh.PublicKeys(owner))
	if err != nil {
		t.Fatalf("the owner: %v", err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.CombinedOutput("id -un; id -G | wc -w; touch mine && echo wrote"); err != nil || string(out) != "base\n1\nwrote\n" {
		t.Errorf("the owner's session: %q, %v", out, err)
	}
	if confined, err := client.NewSession(); err != nil {
		t.Error(err)
	} else if out, err := confined.CombinedOutput("unshare --user true || mknod x c 1 1 || touch /dev/x"); err == nil {
		t.Errorf("the owner's session makes a namespace or a device: %s", out)
	}
	if _, err := client.Dial("tcp", "127.0.0.1:8846"); err == nil {
		t.Error("the session is a tunnel into the Base")
	}
	if _, err := client.Listen("tcp", "0.0.0.0:2222"); err == nil {
		t.Error("the session opens a port")
	}
	if sftp, err := client.NewSession(); err != nil {
		t.Error(err)
	} else if sftp.RequestSubsystem("sftp") == nil {
		t.Error("files can be transferred")
	}

	password := ssh.Password("base")
	questions := ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
		return make([]string, len(questions)), nil
	})
	elsewhere := 1
	for name, c := range map[string]struct {
		user   string
		method ssh.AuthMethod
	}{
		"another key":  {sshaccess.User, ssh.PublicKeys(stranger)},
		"a password":   {sshaccess.User, password},
		"questions":    {sshaccess.User, questions},
		"root":         {"root", ssh.PublicKeys(owner)},
		"another user": {"bitbox-base", ssh.PublicKeys(owner)},
		"no such user": {"admin", ssh.PublicKeys(owner)},
		"nothing":      {sshaccess.User, ssh.PublicKeys()},
	} {
		// Each from elsewhere, since these tries count: a ban would leave the next without an answer for so long that
		// sshd ends the owner's idle connection.
		elsewhere++
		if client, err := login(s.Attacker(elsewhere), netip.AddrPortFrom(s.V4, sshaccess.Port), c.user, c.method); err == nil {
			t.Errorf("%s logs in", name)
			_ = client.Close()
		}
	}

	// A session with a process that ignores what it can, cut within two seconds.
	held, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Start("trap '' HUP TERM; setsid sleep 600 & while :; do sleep 1; done"); err != nil {
		t.Fatal(err)
	}
	s.Until("the session's process runs", func() error { _, err := s.Exec("pgrep", "-u", sshaccess.User, "sleep"); return err })
	begun := time.Now()
	s.MustExec("rm", generation.SSHLease)
	s.MustExec("systemctl", "stop", "--no-block", generation.SSHUnit)
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }()
	select {
	case <-ended:
		t.Logf("the session was cut %v after the end of the lease", time.Since(begun).Round(time.Millisecond))
	case <-time.After(stage.Patience):
		t.Error("the session goes on after the end of the lease")
	}
	s.Until("nothing of the session is left", func() error {
		if out, err := s.Exec("pgrep", "-l", "-u", sshaccess.User); err == nil {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	s.WaitState(generation.SSHUnit, "inactive")

	// A reboot ends a lease whatever else is left.
	lease(t, s, 3, withSSH(stage.Factory(), key))
	s.WaitActive(generation.SSHUnit)
	s.Reboot()
	s.MustExec("systemctl", "start", generation.SSHUnit)
	if state := s.State(generation.SSHUnit); state != "inactive" {
		t.Errorf("after a reboot %s is %s", generation.SSHUnit, state)
	}
}

func TestWrongKeysBanTheirSenderAndNobodyElse(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	owner, key := newKey(t)
	lease(t, s, 2, withSSH(stage.Factory(), key))
	ready(t, s)
	a, b := s.Attacker(1), s.Attacker(2)
	to := netip.AddrPortFrom(s.V4, sshaccess.Port)

	// An owner who tries several keys before the right one, several times, and
	// checks whether the port is there, is none of those.
	for range 2 * posture.Factory().Bans.MaxTries {
		wrong, _ := newKey(t)
		client, err := login(b, to, sshaccess.User, ssh.PublicKeys(wrong, owner))
		if err != nil {
			t.Fatalf("the owner, with two keys: %v", err)
		}
		_ = client.Close()
	}
	begun := time.Now()
	stranger, _ := newKey(t)
	for range posture.Factory().Bans.MaxTries {
		if _, err := login(a, to, sshaccess.User, ssh.PublicKeys(stranger)); err == nil {
			t.Fatal("a wrong key logs in")
		}
	}
	waitBanned(t, s, bruteforce.JailSSH, a.V4)
	t.Logf("banned %v after the first try", time.Since(begun).Round(10*time.Millisecond))
	s.Until("the banned address is cut off", func() error {
		if reaches(a, to) == nil {
			return errors.New("it connects")
		}
		return nil
	})
	if banned(t, s, bruteforce.JailSSH, b.V4) {
		t.Error("the owner is banned")
	}
	if client, err := login(b, to, sshaccess.User, ssh.PublicKeys(owner)); err != nil {
		t.Errorf("the owner: %v", err)
	} else {
		_ = client.Close()
	}
	if found := bans(t, s, bruteforce.JailHandshake); found != nil {
		t.Errorf("the other jail bans %v", found)
	}
}

// The attack: somebody who may log in writes lines to the log, as sshd does about wrong keys, and
// has the owner's computer banned. Sessions run in the unit of sshd.
func TestAUserOfSSHHasNobodyBanned(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	user, key := newKey(t)
	lease(t, s, 2, withSSH(stage.Factory(), key))
	ready(t, s)
	a := s.Attacker(1)
	to := netip.AddrPortFrom(s.V4, sshaccess.Port)
	client, err := login(a, to, sshaccess.User, ssh.PublicKeys(user))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	tries := int(posture.Factory().Bans.MaxTries)
	forge := func(victim string) {
		t.Helper()
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		line := fmt.Sprintf("logger -t 'sshd[%%d]' 'Connection closed by authenticating user base %s port 40052 [preauth]'\n", victim)
		var commands strings.Builder
		for n := range 2 * tries {
			fmt.Fprintf(&commands, line, 4000+n)
		}
		if out, err := session.CombinedOutput(commands.String()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	forge("10.99.0.1")
	// A ban that comes later tells that the forged lines were read.
	stranger, _ := newKey(t)
	for range tries {
		if _, err := login(s.Attacker(2), to, sshaccess.User, ssh.PublicKeys(stranger)); err == nil {
			t.Fatal("a wrong key logs in")
		}
	}
	waitBanned(t, s, bruteforce.JailSSH, s.Attacker(2).V4)
	if banned(t, s, bruteforce.JailSSH, netip.MustParseAddr("10.99.0.1")) {
		t.Error("a user of SSH has somebody else banned")
	}
	// If fail2ban reads all lines of the unit, the attack works.
	s.MustExec("fail2ban-client", "set", bruteforce.JailSSH, "addjournalmatch", "_SYSTEMD_UNIT="+generation.SSHUnit)
	s.Until("the forged lines count", func() error {
		forge("10.99.0.2")
		if !banned(t, s, bruteforce.JailSSH, netip.MustParseAddr("10.99.0.2")) {
			return errors.New("they do not; this attack proves nothing")
		}
		return nil
	})
}

// Some flaws of a server are used by trying until it crashes in the right way. sshd refuses
// an address that has crashed it, and no other.
func TestAnAddressThatCrashesSSHDCannotTryAgain(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	owner, key := newKey(t)
	lease(t, s, 2, withSSH(stage.Factory(), key))
	a, b := s.Attacker(1), s.Attacker(2)
	to := netip.AddrPortFrom(s.V4, sshaccess.Port)
	// greets tells whether sshd says who it is, before anybody has logged in.
	greets := func() error {
		conn, err := a.Dial("tcp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(stage.Patience)); err != nil {
			return err
		}
		greeting := make([]byte, len("SSH-2.0-"))
		_, err = io.ReadFull(conn, greeting)
		if err == nil && string(greeting) != "SSH-2.0-" {
			err = fmt.Errorf("it says %q", greeting)
		}
		return err
	}
	crash := func() {
		conn, err := a.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The process that serves it crashes.
		s.Until("sshd serves it", func() error {
			_, err := s.Exec("pkill", "-SEGV", "--full", "sshd-session: [[]accepted[]]")
			return err
		})
	}
	if err := greets(); err != nil {
		t.Fatalf("before anything has crashed: %v", err)
	}
	crash()
	s.Until("it is refused", func() error {
		if greets() == nil {
			return errors.New("it is served")
		}
		return nil
	})
	client, err := login(b, to, sshaccess.User, ssh.PublicKeys(owner))
	if err != nil {
		t.Errorf("the owner, from elsewhere: %v", err)
	} else {
		_ = client.Close()
	}

	// Without penalties it may try again.
	config := generation.Current(generation.SSHConfig)
	s.MustExec("sed", "-i", "s/^PerSourcePenalties .*/PerSourcePenalties no/", strings.TrimSpace(s.MustExec("readlink", "-f", config)))
	s.MustExec("systemctl", "restart", generation.SSHUnit)
	crash()
	for range 10 {
		if err := greets(); err != nil {
			t.Errorf("without penalties it is refused too, so this test shows nothing: %v", err)
		}
	}
}

// The Base's key file belongs to root, and a user of SSH cannot extend it.
func TestAUserOfSSHCannotLetOthersIn(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	owner, key := newKey(t)
	friend, friendKey := newKey(t)
	lease(t, s, 2, withSSH(stage.Factory(), key))
	a := s.Attacker(1)
	to := netip.AddrPortFrom(s.V4, sshaccess.Port)
	client, err := login(a, to, sshaccess.User, ssh.PublicKeys(owner))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	session.Stdin = bytes.NewReader([]byte(friendKey.Line + "\n"))
	script := "mkdir -p .ssh && cat >.ssh/authorized_keys && cp .ssh/authorized_keys .ssh/authorized_keys2 && chmod -R go-w . && cat .ssh/authorized_keys >>" + generation.Current(generation.AuthorizedKeys)
	if out, err := session.CombinedOutput(script); err == nil {
		t.Errorf("the key file can be written: %s", out)
	}
	if client, err := login(a, to, sshaccess.User, ssh.PublicKeys(friend)); err == nil {
		t.Error("a key in a home lets somebody in")
		_ = client.Close()
	}
	// It is there, and would do with sshd's own defaults.
	if _, err := os.Stat(s.Path("/home/base/.ssh/authorized_keys")); err != nil {
		t.Error(err)
	}
}

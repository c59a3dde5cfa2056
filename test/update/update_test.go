//go:build linux

package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The changes that a test makes to a version.
var (
	// slow: installing it lasts until somebody ends it.
	slow = scripted("postinst", "[ \"$1\" != configure ] || sleep 3600")
	// crashing: its Middleware starts and ends, again and again.
	crashing = edited("usr/lib/systemd/system/bitbox-base-middleware.service",
		"ExecStart=/usr/bin/bitbox-base middleware\n", "ExecStart=/usr/bin/bitbox-base middleware --no-such-flag\n")
)

// edited replaces something in a file.
func edited(name, what, by string) change {
	return func(root string) {
		text, err := os.ReadFile(root + "/" + name)
		if err != nil || !bytes.Contains(text, []byte(what)) {
			panic(name + " has no " + what)
		}
		write(root, name, strings.Replace(string(text), what, by, 1), 0o644)
	}
}

func TestAnOwnersAppUpdatesABaseAndABadVersionGoesBack(t *testing.T) {
	t.Parallel()
	b := boot(t)
	t.Run("what is not signed, or not newer, is refused", func(t *testing.T) {
		b.t = t
		b.refuses()
	})
	t.Run("a new version is installed", func(t *testing.T) {
		b.t = t
		b.updates()
	})
	t.Run("a version whose Middleware ends again and again goes back by itself", func(t *testing.T) {
		b.t = t
		b.goesBack(crashing)
	})
	t.Run("a power cut in the middle of the installation is undone at boot", func(t *testing.T) {
		b.t = t
		b.undoesAtBoot()
	})
	t.Run("afterwards the entry is still all that answers", func(t *testing.T) {
		b.t = t
		b.onlyTheEntry()
	})
}

// refuses brings what a Base must not take.
func (b *base) refuses() {
	b.t.Helper()
	other, err := release.GenerateSigningSeed()
	if err != nil {
		b.t.Fatal(err)
	}
	good := b.version(b.seed, "1.99.0")
	for name, file := range map[string][]byte{
		"signed by somebody else": b.version(other, "1.99.0"),
		"the same version":        b.version(b.seed, b.current),
		"an older version":        b.version(b.seed, "1.0.0~rc1"),
		"a flipped signature":     flipped(good, release.HeaderSize-4),
	} {
		if err := b.bring(file); !errors.Is(err, client.ErrRelease) {
			b.t.Errorf("%s: %v", name, err)
		}
	}
	b.is(b.current)
}

// updates brings a good version.
func (b *base) updates() {
	b.t.Helper()
	pinned := b.opensWallets()
	before := b.MustExec("iptables-save")
	version, file := b.next()
	if err := b.bring(file); err != nil {
		b.t.Fatalf("%v\n%s", client.Explain(err), b.Journal(update.Unit))
	}
	b.is(version)
	if after := b.MustExec("iptables-save"); rules(after) != rules(before) {
		b.t.Errorf("the packet filter was\n%s\nand is\n%s", before, after)
	}
	if shown := b.shown(); shown != pinned {
		b.t.Errorf("wallets have pinned the certificate %x, and are shown %x", pinned, shown)
	}
	b.closesWallets()
	if err := b.bring(file); !errors.Is(err, client.ErrRelease) {
		b.t.Errorf("once more: %v", err)
	}
	if out, _ := b.Exec("bitbox-base", "audit", "--json"); strings.Contains(out, "unit-changed") || strings.Contains(out, "unit-stopped") {
		b.t.Errorf("the audit finds units that differ: %s", out) // its exit code tells of other findings, too
	}
}

// opensWallets has the owner open the API of wallets, and returns the certificate that wallets pin.
func (b *base) opensWallets() (pinned [sha256.Size]byte) {
	b.t.Helper()
	b.owner(func(ctx context.Context, session *client.Session) error {
		view, err := session.Apply(ctx, client.Change{Approve: yes,
			Edit: client.Expose(string(posture.KindElectrum), client.Opening{UntilClosed: true})})
		if err == nil {
			pinned = view.Identities().Certificates[posture.KindElectrum]
		}
		return err
	})
	if shown := b.shown(); shown != pinned {
		b.t.Errorf("the Base has signed the certificate %x, and shows %x", pinned, shown)
	}
	return pinned
}

func (b *base) closesWallets() {
	b.t.Helper()
	b.owner(func(ctx context.Context, session *client.Session) error {
		_, err := session.EndLease(ctx, string(posture.KindElectrum), yes)
		return err
	})
}

// shown is the certificate that a wallet is shown, as SHA-256.
func (b *base) shown() (digest [sha256.Size]byte) {
	b.t.Helper()
	b.Until("a wallet is shown a certificate", func() error {
		conn, err := b.Attacker(2).Dial("tcp", netip.AddrPortFrom(b.V4, posture.Extras[0].Port))
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(b.t.Context(), stage.Patience)
		defer cancel()
		wallet := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the caller compares the certificate
		if err := wallet.HandshakeContext(ctx); err != nil {
			return err
		}
		digest = sha256.Sum256(wallet.ConnectionState().PeerCertificates[0].Raw)
		return nil
	})
	return digest
}

// owner does something over a new connection of the owner's App.
func (b *base) owner(do func(context.Context, *client.Session) error) {
	b.t.Helper()
	session, err := b.app.Open("")
	if err != nil {
		b.t.Fatal(client.Explain(err))
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), stage.Patience)
	defer cancel()
	if err := do(ctx, session); err != nil {
		b.t.Fatal(client.Explain(err))
	}
}

func yes([]client.PostureChange) (bool, error) { return true, nil }

// goesBack brings a version that is bad.
func (b *base) goesBack(bad change) {
	b.t.Helper()
	_, file := b.next(bad)
	if err := b.bring(file); !errors.Is(err, client.ErrUpdateUndone) {
		b.t.Errorf("%v\n%s", client.Explain(err), b.Journal(update.Unit))
	}
	b.is(b.current)
	if _, phase, reason := b.status(); phase != "PHASE_UNDONE" || reason == "" {
		b.t.Errorf("the App is told %s, %q", phase, reason)
	}
}

// undoesAtBoot cuts the power while dpkg works.
func (b *base) undoesAtBoot() {
	b.t.Helper()
	version, file := b.next(slow)
	b.begin(file)
	b.installs()
	b.Kill()
	if file, _ := os.ReadFile(b.Path("/usr/lib/bitbox-base/version-of-the-test")); string(file) != version {
		b.t.Errorf("the files were those of %q when the power was cut; this attack proves nothing", file)
	}
	b.Start()
	b.is(b.current)
	if _, phase, _ := b.status(); phase != "PHASE_UNDONE" {
		b.t.Errorf("the App is told %s", phase)
	}
}

func (b *base) onlyTheEntry() {
	b.t.Helper()
	stage.NeedRoot(b.t, "nmap")
	if found := b.Attacker(1).Scan(b.t, b.V4, "-sS", "-p", "22,80,443,8800-8900,50000-50010"); strings.Join(found, ",") != "tcp 8845 open" {
		b.t.Errorf("these ports answer: %q", found)
	}
	if state := b.State("bitbox-base-firewall.service"); state != "active" {
		b.t.Errorf("the packet filter is %s", state)
	}
}

// installs waits until a script of the new package runs.
func (b *base) installs() {
	b.t.Helper()
	b.reaches(update.Installing)
	b.Until("the package's script runs", func() error {
		_, err := b.Exec("pgrep", "-f", "^sleep 3600$")
		return err
	})
}

// rules are those of a packet filter, without counters and comments.
func rules(save string) string {
	var lines []string
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "-A") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

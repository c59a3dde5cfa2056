//go:build linux

package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// installTime bounds one update, on a machine that has much else to do.
const installTime = 6 * time.Minute

// base is a Debian that our package has made a Base of, with an owner's App.
type base struct {
	*stage.Stage
	t    *testing.T
	seed release.SigningSeed
	deb  string // the first version
	app  *client.App
	// current is the version that is installed, and newest the number of the last that was made.
	current string
	newest  int
}

// firstVersion is what every other one is newer than.
const firstVersion = "1.0.0"

func boot(t *testing.T) *base {
	t.Helper()
	stage.NeedRoot(t, "dpkg-deb")
	b := &base{t: t, current: firstVersion}
	made, err := first()
	if err != nil {
		t.Fatal(err)
	}
	b.seed, b.deb = made.seed, made.deb
	b.Stage = stage.Boot(t, stage.Config{Bare: true, Prepare: func(t *testing.T, root string) {
		b.separateVar(root)
		b.host("cp", b.deb, filepath.Join(root, "var/first.deb"))
	}})
	b.MustExec("dpkg", "--install", "/var/first.deb")
	b.MustExec("bitbox-base", "setup", "--yes")
	// A node, so that all programs of the package run that an update replaces.
	b.MustExec("sh", "-c", "printf 'program btcd\nnetwork regtest\ncache 16\n' >"+settings.File)
	b.MustExec("systemctl", "restart", generation.ChainUnit, generation.WatcherUnit, generation.WalletUnit)
	b.pair()
	return b
}

// made is the first version: a package, and the key of the releases that it takes.
type made struct {
	seed release.SigningSeed
	deb  string
}

// directory has what the tests share.
var directory string

// first makes the first version, once.
var first = sync.OnceValues(func() (made, error) {
	seed, err := release.GenerateSigningSeed()
	if err != nil {
		return made{}, err
	}
	if directory, err = os.MkdirTemp("", "packages"); err != nil {
		return made{}, err
	}
	command := exec.Command("../../scripts/package", firstVersion, runtime.GOARCH, directory)
	command.Env = append(os.Environ(), "COMPRESSION=none", "RELEASE_KEY="+hex.EncodeToString(release.PublicKey(seed)))
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return made{}, fmt.Errorf("make the package: %w", err)
	}
	return made{seed, strings.TrimSpace(string(out))}, nil
})

// Until waits in the name of the present subtest.
func (b *base) Until(what string, condition func() error) {
	b.t.Helper()
	stage.Until(b.t, what, condition)
}

// separateVar puts /var on a file system of its own, as in the image.
func (b *base) separateVar(root string) {
	b.t.Helper()
	is, keep := filepath.Join(root, "var"), filepath.Join(b.t.TempDir(), "var")
	b.host("cp", "-a", is, keep)
	if err := unix.Mount("var", is, "tmpfs", 0, "mode=0755"); err != nil {
		b.t.Fatal(err)
	}
	b.host("cp", "-a", keep+"/.", is)
}

// host runs a command on the host.
func (b *base) host(argv ...string) {
	b.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		b.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// change is what differs in a version: it edits the tree of the package.
type change func(root string)

func write(root, name, text string, mode os.FileMode) {
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), mode); err != nil {
		panic(err)
	}
}

// scripted puts lines at the beginning of a script of the package.
func scripted(script, lines string) change {
	return func(root string) {
		text, err := os.ReadFile(filepath.Join(root, "DEBIAN", script))
		if err != nil {
			panic(err)
		}
		_, rest, _ := strings.Cut(string(text), "\n")
		write(root, "DEBIAN/"+script, "#!/bin/sh\n"+lines+"\n"+rest, 0o755)
	}
}

// next makes a newer version, signed.
func (b *base) next(changes ...change) (version string, file []byte) {
	b.newest++
	version = fmt.Sprintf("1.%d.0", b.newest)
	return version, b.version(b.seed, version, changes...)
}

// version makes another version of the package, as a release that is signed by seed.
func (b *base) version(seed release.SigningSeed, version string, changes ...change) []byte {
	b.t.Helper()
	root, deb := filepath.Join(b.t.TempDir(), "package"), filepath.Join(b.t.TempDir(), "package.deb")
	b.host("dpkg-deb", "--raw-extract", b.deb, root)
	control, err := os.ReadFile(filepath.Join(root, "DEBIAN/control"))
	if err != nil {
		b.t.Fatal(err)
	}
	write(root, "DEBIAN/control", strings.Replace(string(control), "Version: "+firstVersion+"\n", "Version: "+version+"\n", 1), 0o644)
	write(root, "usr/lib/bitbox-base/version-of-the-test", version, 0o644)
	for _, change := range changes {
		change(root)
	}
	b.host("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", root, deb)
	content, err := os.ReadFile(deb)
	if err != nil {
		b.t.Fatal(err)
	}
	header, err := release.Sign(release.Header{
		Version: version, Architecture: runtime.GOARCH, Size: uint64(len(content)), Hash: sha256.Sum256(content)}, seed)
	if err != nil {
		b.t.Fatal(err)
	}
	return append(header, content...)
}

// bring has the owner's App install a release, and waits for the end.
func (b *base) bring(file []byte) error {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), installTime)
	defer cancel()
	return b.bringUntil(ctx, file, nil)
}

func (b *base) bringUntil(ctx context.Context, file []byte, progress func(client.UpdateProgress)) error {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "file.release")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		b.t.Fatal(err)
	}
	r, err := client.OpenRelease(path)
	if err != nil {
		return err
	}
	defer r.Close()
	session, err := b.app.Open("")
	if err != nil {
		return err
	}
	defer session.Close()
	begun := time.Now()
	err = session.Install(ctx, r, progress)
	b.t.Logf("version %s: %v after %v", r.Version, err, time.Since(begun).Round(time.Millisecond))
	return err
}

// begin has the App bring a release, and does not wait for the end.
func (b *base) begin(file []byte) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	err := b.bringUntil(ctx, file, func(p client.UpdateProgress) {
		if p.Update != nil {
			cancel()
		}
	})
	if !errors.Is(err, client.ErrUpdateUnknown) {
		b.t.Fatalf("begin an update: %v", client.Explain(err))
	}
}

// status is what an App is told, once it is.
func (b *base) status() (installed string, phase, reason string) {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			b.t.Logf("the journal of the update: %+v", b.journal())
		}
	}()
	stage.Until(b.t, "the Base tells its App of updates", func() error {
		session, err := b.app.Open("")
		if err != nil {
			return err
		}
		defer session.Close()
		ctx, cancel := context.WithTimeout(b.t.Context(), stage.Patience)
		defer cancel()
		status, err := session.UpdateStatus(ctx)
		installed, phase, reason = status.GetInstalledVersion(), status.GetUpdate().GetPhase().String(), status.GetUpdate().GetReason()
		return err
	})
	return installed, phase, reason
}

// journal is what is on disk.
func (b *base) journal() update.Journal {
	b.t.Helper()
	j, err := update.NewStore(b.Path(update.Directory)).Journal()
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

// reaches waits until the update has come to a phase.
func (b *base) reaches(phases ...update.Phase) {
	b.t.Helper()
	deadline := time.Now().Add(installTime)
	for !containsPhase(phases, b.journal().Phase) {
		if time.Now().After(deadline) {
			b.t.Fatalf("the update does not come to %q: %+v\n%s", phases, b.journal(), b.Journal(update.Unit))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func containsPhase(phases []update.Phase, phase update.Phase) bool {
	for _, p := range phases {
		if p == phase {
			return true
		}
	}
	return false
}

// is fails the test unless the Base has a version, whole, and is well.
func (b *base) is(version string) {
	b.t.Helper()
	b.current = version
	installed, phase, reason := b.status()
	if installed != version {
		b.t.Errorf("version %s is installed, not %s (%s, %q)", installed, version, phase, reason)
	}
	want := version
	if version == firstVersion {
		want = "" // it has no such file
	}
	file, _ := os.ReadFile(b.Path("/usr/lib/bitbox-base/version-of-the-test"))
	if string(file) != want {
		b.t.Errorf("the files are those of version %q, not %q", file, want)
	}
	if out, err := b.Exec("dpkg", "--verify", "bitbox-base"); err != nil || strings.TrimSpace(out) != "" {
		b.t.Errorf("files of the package differ: %v\n%s", err, out)
	}
	if out := b.MustExec("dpkg", "--audit"); out != "" {
		b.t.Errorf("dpkg is not content: %s", out)
	}
	b.Until("all units are well", func() error {
		if out := b.MustExec("systemctl", "list-units", "--failed", "--plain", "--no-legend", "bitbox-base-*"); out != "" {
			return errors.New(out)
		}
		return nil
	})
	b.Until("nothing runs from a file of another version", b.isCurrent)
	entries, err := os.ReadDir(b.Path(update.Directory))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, entry := range entries {
		switch entry.Name() {
		case "journal.json", "lock", "previous.deb":
		default:
			b.t.Errorf("left in the directory of updates: %s", entry.Name())
		}
	}
}

// isCurrent lists the processes that run from a file that was replaced: their version is not the
// one that is installed, and they keep a root file system from becoming read-only.
func (b *base) isCurrent() error {
	// The program is told apart from its data: a log or a database may be unlinked and in use.
	if out, _ := b.Exec("sh", "-c", "grep -HE '^[^ ]+ r?.xp .* [(]deleted[)]$' /proc/[0-9]*/maps"); out != "" {
		return fmt.Errorf("%s\n%s", out, b.MustExec("ps", "-e", "-o", "pid,args"))
	}
	return nil
}

// pair pairs an App with the Base; somebody at the Base types what is to be typed.
func (b *base) pair() {
	b.t.Helper()
	way := b.Attacker(2).Way(b.t, netip.AddrPortFrom(b.V4, posture.EntryPort))
	b.app, _ = b.Pair(b.t, way, "phone", "owner")
}

// flipped is a file with one bit changed.
func flipped(file []byte, at int) []byte {
	changed := bytes.Clone(file)
	changed[at] ^= 1
	return changed
}

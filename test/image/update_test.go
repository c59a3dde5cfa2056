//go:build linux && image

package image_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// updateTime bounds an update: an upload, three starts of the machine and the deadlines of the trial.
const updateTime = 90 * time.Minute

// releaseKey is the file of the key that signs the releases of these tests; the images know its public half.
func releaseKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(images.directory, "release.key")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.WriteFile(path, []byte(hex.EncodeToString(bytes.Repeat([]byte{1}, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// releasePublicKey is the public half of the key that released signs with, in hexadecimal.
func releasePublicKey(t *testing.T) string {
	t.Helper()
	seed, err := release.ParseSigningSeed(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(release.PublicKey(seed))
}

// version builds an image of a version, and returns its directory. change may be nil.
func version(t *testing.T, number string, change func(root string) error) string {
	t.Helper()
	command := exec.Command("./scripts/package", number, "amd64", images.directory)
	command.Dir = "../.."
	command.Env = append(os.Environ(), "RELEASE_KEY="+releasePublicKey(t))
	out, err := command.Output()
	if err != nil {
		t.Fatalf("make the package of version %s: %v", number, err)
	}
	return made(t, "version-"+number, build.Options{Package: strings.TrimSpace(string(out)), Change: func(root string) error {
		if change == nil {
			return probe(root)
		}
		return errors.Join(probe(root), change(root))
	}})
}

// released signs the image in a directory.
func released(t *testing.T, directory string) *client.Release {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.release")
	command := exec.Command("go", "run", "./packaging/release", "sign-image", releaseKey(t), directory, file)
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("sign the image: %v: %s", err, out)
	}
	r, err := client.OpenRelease(file)
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// claimed starts the image of a directory on a machine, which an App claims. It returns the App's way to it.
func claimed(t *testing.T, directory string) (*machine, *client.App, string) {
	t.Helper()
	m := newMachine(t, filepath.Join(directory, build.DiskFile), firmware(t))
	app, way := m.claimFor()
	m.switchOn()
	m.worksAt(app, way, "that has claimed it")
	return m, app, way
}

// claimFor puts a provisioning file on the disk, and returns the App that the Base will belong to, and its way to it.
func (m *machine) claimFor() (*client.App, string) {
	m.t.Helper()
	app, err := client.New(client.Options{Dir: m.t.TempDir(), Name: "owner", NoDiscovery: true})
	if err != nil {
		m.t.Fatal(err)
	}
	given, err := app.Provision(m.t.TempDir(), client.ProvisionOptions{Name: "cellar", NoDisplay: true, Pair: true})
	if err != nil {
		m.t.Fatal(client.Explain(err))
	}
	m.host("mcopy", "-i", m.esp(), given.File, "::/"+bootdisk.ProvisionFile)
	return app, m.Attacker(1).Way(m.t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address
}

// askAgain is the pause after which a Base is asked again that has just started: no App restarts it for some minutes.
const askAgain = 5 * time.Second

// patiently does something as soon as the Base lets an App restart it.
func patiently(do func(context.Context, *client.Session) error) func(context.Context, *client.Session) error {
	return func(ctx context.Context, session *client.Session) error {
		for {
			err := do(ctx, session)
			if !errors.Is(err, client.ErrConflict) || !strings.Contains(err.Error(), "started a moment ago") {
				return err
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(askAgain):
			}
		}
	}
}

// through does something with the Base, and starts the machine again each time it ends.
func (m *machine) through(app *client.App, way string, do func(context.Context, *client.Session) error) error {
	m.t.Helper()
	session, err := app.Open("", way)
	if err != nil {
		m.t.Fatal(client.Explain(err))
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), updateTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- patiently(do)(ctx, session) }()
	for {
		select {
		case err := <-done:
			return err
		case <-m.ended:
			m.cutPower()
			m.switchOn()
		}
	}
}

// runs fails unless the Base reports a version.
func (m *machine) runs(app *client.App, way, number string) {
	m.t.Helper()
	if err := m.through(app, way, func(ctx context.Context, session *client.Session) error {
		view, err := session.Posture(ctx)
		if err != nil {
			return err
		}
		if image := view.Identities().Image; image == nil || image.Version != number || image.SecureBoot != "on" {
			m.t.Errorf("it runs %+v, not version %s with Secure Boot", image, number)
		}
		return nil
	}); err != nil {
		m.t.Error(client.Explain(err))
	}
}

func TestAnImageIsUpdatedAndGoesBackByItselfAndByOrder(t *testing.T) {
	m, app, way := claimed(t, version(t, "1.0.0", nil))
	begun := time.Now()
	if err := m.through(app, way, func(ctx context.Context, s *client.Session) error {
		return s.Install(ctx, released(t, version(t, "2.0.0", nil)), nil)
	}); err != nil {
		t.Fatal(client.Explain(err))
	}
	t.Logf("FIGURE an update of the image, in software: %.0f s", time.Since(begun).Seconds())
	m.runs(app, way, "2.0.0")

	// A version in which NGINX does not start.
	sick := released(t, version(t, "3.0.0", func(root string) error {
		return os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system/bitbox-base-nginx.service"))
	}))
	if err := m.through(app, way, func(ctx context.Context, s *client.Session) error { return s.Install(ctx, sick, nil) }); !errors.Is(err,
		client.ErrUpdateUndone) {
		t.Errorf("a version that is not well: %v", err)
	}
	m.runs(app, way, "2.0.0")
}

// The power goes while slot B is being written; the update goes on. Then an owner's App orders to go back. At last slot A is damaged,
// and slot B takes its place.
func TestAPowerCutInTheMiddleOfAnUpdateGoingBackAndADamagedSlot(t *testing.T) {
	m, app, way := claimed(t, version(t, "1.0.0", nil))
	r, cut := released(t, version(t, "2.0.0", nil)), false
	if err := m.through(app, way, func(ctx context.Context, s *client.Session) error {
		return s.Install(ctx, r, func(p client.UpdateProgress) {
			if p.Update.GetStep() == "write the other slot" && !cut {
				cut = true
				_ = m.command.Process.Kill() // gone is as good
			}
		})
	}); err != nil || !cut {
		t.Fatalf("cut %v: %v", cut, client.Explain(err))
	}
	m.runs(app, way, "2.0.0")
	begun := time.Now()
	if err := m.through(app, way, func(ctx context.Context, s *client.Session) error { return s.GoBack(ctx, nil) }); err != nil {
		t.Fatal(client.Explain(err))
	}
	t.Logf("FIGURE going back by order, in software: %.0f s", time.Since(begun).Seconds())
	m.runs(app, way, "1.0.0")

	m.cutPower()
	m.flipBit(bootdisk.RootA)
	begun = time.Now()
	m.switchOn()
	starts := m.comesBack(app, way)
	t.Logf("FIGURE from a damaged slot to the other one, in software: %.0f s and %d starts", time.Since(begun).Seconds(), starts+1)
	if starts != bootdisk.Tries {
		t.Errorf("the damaged version was given up after %d starts", starts)
	}
	m.runs(app, way, "2.0.0")
}

// comesBack starts the machine again each time it ends, until an App has an answer. It returns how often it was started.
func (m *machine) comesBack(app *client.App, way string) (starts int) {
	m.t.Helper()
	var err error
	for deadline := time.Now().Add(updateTime); time.Now().Before(deadline); {
		if err = call(app, way); err == nil {
			return starts
		}
		select {
		case <-m.ended:
			m.cutPower()
			m.switchOn()
			starts++
		case <-time.After(time.Second):
		}
	}
	m.t.Fatalf("the App has no answer after %d starts: %v", starts, err)
	return 0
}

func TestAnImageTakesNoReleaseThatIsNotForIt(t *testing.T) {
	directory := version(t, "1.0.0", nil)
	m, app, way := claimed(t, directory)
	good := released(t, directory)
	if err := m.through(app, way, func(ctx context.Context, s *client.Session) error { return s.Install(ctx, good, nil) }); !errors.Is(err,
		client.ErrRelease) {
		t.Errorf("the version that runs: %v", err)
	}
	m.runs(app, way, "1.0.0")
}

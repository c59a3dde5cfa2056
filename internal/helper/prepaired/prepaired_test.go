//go:build linux

package prepaired

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/system"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	keys "github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"github.com/BitBoxSwiss/bitbox-base/internal/state/killtest"
)

// The test binary runs itself as the board that is killed.
const rootVariable = "BITBOX_BASE_PREPAIRED_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(rootVariable); root != "" {
		c := config(root)
		if err := Install(c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func config(root string) Config {
	return Config{Root: root, Factory: posture.Factory(), Clock: boottime.Clock, BootID: "the first", Logger: slog.New(slog.DiscardHandler)}
}

// image makes the directory of all state as an image has it.
func image(t *testing.T) (root string, half *keys.Half) {
	t.Helper()
	half, _, err := keys.New(nil, "laptop", "Cellar")
	if err != nil {
		t.Fatal(err)
	}
	root = temporary(t)
	place(t, root, half)
	return root, half
}

// temporary is a directory in memory, where there is one: hundreds of syncs follow.
func temporary(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("/dev/shm", "prepaired")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

func place(t *testing.T, root string, half *keys.Half) {
	t.Helper()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(root, Directory), 0o700),
		os.MkdirAll(filepath.Join(root, systemPart), 0o755),
		os.WriteFile(filepath.Join(root, Directory, File), half.Marshal(), 0o600),
	); err != nil {
		t.Fatal(err)
	}
}

// base is what a board has become.
type base struct {
	public   noiseconn.PublicKey
	stateKey ed25519.PublicKey
	owners   int
}

// look opens the two states as the services do. It makes what is not there, as
// they would, so it is for boards that are through.
func look(root string) (b base, err error) {
	h, err := system.Open(system.Config{Config: ledger.Config{
		Directory: filepath.Join(root, systemPart), Factory: posture.Factory(), Clock: boottime.Clock, BootID: "the first",
	}})
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	b.stateKey, b.owners = h.StateKey(), len(h.Effective().Apps)
	db, err := state.Open(filepath.Join(root, middlewarePart, middlewareFile),
		state.Options{Kind: registry.StateKind, Schema: registry.StateSchema, Create: true})
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	r, err := registry.Open(registry.Config{DB: db, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return b, err
	}
	b.public = r.PublicKey()
	return b, r.Connect(context.Background(), helperclient.Client{Port: h.Port(caller.Middleware)}.Authority())
}

func wantPrePaired(t *testing.T, root string, half *keys.Half, when string) base {
	t.Helper()
	b, err := look(root)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	public, err := noiseconn.PublicOf(half.Static)
	if err != nil {
		t.Fatal(err)
	}
	if b.public != public || b.owners != 1 {
		t.Fatalf("%s it is the Base %v with %d owners, not %v with one", when, b.public, b.owners, public)
	}
	if _, err := os.Lstat(filepath.Join(root, Directory)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s the image's keys are still there: %v", when, err)
	}
	return b
}

func TestABoardIsPrePairedOnce(t *testing.T) {
	root, half := image(t)
	if err := Install(config(root)); err != nil {
		t.Fatal(err)
	}
	first := wantPrePaired(t, root, half, "after its first boot")
	if err := Install(config(root)); err != nil {
		t.Fatal(err)
	}
	if again := wantPrePaired(t, root, half, "after another boot"); !bytes.Equal(again.stateKey, first.stateKey) {
		t.Error("another boot has changed it")
	}
}

// No secret of the image is anywhere on the disk afterwards but what became the
// Base's own; the key with which a board is vouched for is gone.
func TestTheCertifyingKeyIsForgotten(t *testing.T) {
	root, half := image(t)
	if err := Install(config(root)); err != nil {
		t.Fatal(err)
	}
	contains := func(secret []byte) (found []string) {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if bytes.Contains(content, secret) {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := contains(half.Certifying.Expose()); len(found) > 0 {
		t.Errorf("the certifying key is in %v", found)
	}
	if len(contains(half.Static.Expose())) == 0 {
		t.Error("this test would not find a key") // the identity is there
	}
}

// The attack: somebody gives a Base that has an owner another image's keys.
func TestABaseThatHasAnIdentityIsNeverPrePairedAgain(t *testing.T) {
	attack := func(c Config) (base, *keys.Half, error) {
		root, half := image(t)
		c.Root = root
		if err := Install(config(root)); err != nil {
			t.Fatal(err)
		}
		before := wantPrePaired(t, root, half, "at first")
		other, _, err := keys.New(nil, "attacker", "Cellar")
		if err != nil {
			t.Fatal(err)
		}
		place(t, root, other)
		refused := Install(c)
		after, err := look(root)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(after.stateKey, before.stateKey) || after.public != before.public {
			return after, half, errors.New("it is another Base")
		}
		if refused == nil {
			wantPrePaired(t, root, half, "after the attack")
		}
		return after, half, nil
	}
	if _, _, err := attack(config("")); err != nil {
		t.Error(err)
	}
	weak := config("")
	weak.skipIdentity = true
	if _, _, err := attack(weak); err == nil {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}

func TestAFileThatCannotBeUsedLeavesTheBoardAsItWas(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"damaged":        func(p string) error { return os.WriteFile(p, make([]byte, keys.FileSize), 0o600) },
		"cut off":        func(p string) error { return os.Truncate(p, 100) },
		"open to others": func(p string) error { return os.Chmod(p, 0o640) },
		"a link":         func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) },
	} {
		root, _ := image(t)
		path := filepath.Join(root, Directory, File)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		err := Install(config(root))
		if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: the file is gone: %v", what, err)
		}
		for _, made := range []string{filepath.Join(systemPart, ledger.StateFile), middlewarePart} {
			if _, err := os.Lstat(filepath.Join(root, made)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s was made: %v", what, made, err)
			}
		}
	}
}

// A power cut at any write leaves a board that is whole at its next boot, with one
// identity, and not a word of the image.
func TestABoardKilledAtAnyWriteIsCompleteAfterTheNextBoot(t *testing.T) {
	var root string
	var half *keys.Half
	total := killtest.AtEachWrite(t, func(int) *exec.Cmd {
		root, half = image(t)
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), rootVariable+"="+root, "GOMAXPROCS=1")
		return command
	}, func(n int) {
		// What lies in its place is what it will be: the key in it must not change.
		var drawn ed25519.PublicKey
		if _, err := os.Lstat(filepath.Join(root, systemPart, ledger.StateFile)); err == nil {
			drawn = stateKeyOf(t, root)
		}
		if err := Install(config(root)); err != nil {
			t.Fatalf("killed at write %d: %v", n, err)
		}
		b := wantPrePaired(t, root, half, fmt.Sprintf("killed at write %d", n))
		if drawn != nil && !bytes.Equal(drawn, b.stateKey) {
			t.Errorf("killed at write %d: it has become another board", n)
		}
	})
	if total < 30 {
		t.Errorf("it was killed %d times; that cannot be all", total)
	}
}

// The kill test can fail: a board that made its states where they belong, one after
// the other, would lose its owner to a cut in between.
func TestABoardThatIsMadeInPlaceCouldLoseItsOwner(t *testing.T) {
	cut := func(inPlace bool) error {
		root, half := image(t)
		c := config(root)
		c.inPlace, c.between = inPlace, func() error { return errors.New("the power went") }
		if Install(c) == nil {
			t.Fatal("nothing was cut")
		}
		if err := Install(config(root)); err != nil {
			return err
		}
		b, err := look(root)
		public, _ := noiseconn.PublicOf(half.Static)
		if err == nil && (b.public != public || b.owners != 1) {
			err = fmt.Errorf("it has become %+v", b)
		}
		return err
	}
	if err := cut(false); err != nil {
		t.Error(err)
	}
	if err := cut(true); err == nil {
		t.Error("the broken variant is whole, so the test shows nothing")
	}
}

// stateKeyOf reads K_state of a board's helper from a copy of its state.
func stateKeyOf(t *testing.T, root string) ed25519.PublicKey {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, systemPart, ledger.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	copied := temporary(t)
	if err := os.WriteFile(filepath.Join(copied, ledger.StateFile), content, 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := system.Open(system.Config{Config: ledger.Config{
		Directory: copied, Factory: posture.Factory(), Clock: boottime.Clock, BootID: "x",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	return h.StateKey()
}

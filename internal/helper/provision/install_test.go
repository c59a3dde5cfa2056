package provision

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
)

func claim(t *testing.T) *provisioning.Claim {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	static, err := noiseconn.GenerateStatic(nil)
	if err != nil {
		t.Fatal(err)
	}
	app, err := noiseconn.PublicOf(static)
	if err != nil {
		t.Fatal(err)
	}
	s, err := noiseconn.GenerateClaimSecret(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &provisioning.Claim{App: app, SigningKey: [32]byte(public), Secret: s, Until: time.Unix(2_000_000_000, 0).UTC()}
}

// board is a Base at its first boots. Its EFI partition is a directory.
type board struct {
	t          *testing.T
	esp, state string
	log        bytes.Buffer
	writes     int // how often the partition was mounted for writing
}

func newBoard(t *testing.T, content []byte) *board {
	b := &board{t: t, esp: t.TempDir(), state: filepath.Join(t.TempDir(), "system")}
	if content != nil {
		b.put(content)
	}
	return b
}

func (b *board) With(writable bool, do func(string) error) error {
	if writable {
		b.writes++
	}
	return do(b.esp)
}

func (b *board) file() string { return filepath.Join(b.esp, bootdisk.ProvisionFile) }

func (b *board) put(content []byte) {
	b.t.Helper()
	if err := os.WriteFile(b.file(), content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// boot runs Install; reached is called at each step, and may be nil.
func (b *board) boot(reached func(step string) error) error {
	if reached != nil {
		defer failpoint.Set(reached)()
	}
	return Install(Config{ESP: b, State: b.state, Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
}

func (b *board) mustBoot() {
	b.t.Helper()
	if err := b.boot(nil); err != nil {
		b.t.Fatal(err)
	}
}

// given is what the Base makes of it, as bytes.
func (b *board) given() []byte {
	b.t.Helper()
	f, err := Read(b.state, "/nonexistent")
	if err != nil {
		b.t.Fatal(err)
	}
	return marshal(b.t, f)
}

func marshal(t *testing.T, f provisioning.File) []byte {
	t.Helper()
	content, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func (b *board) there() bool { _, err := os.Lstat(b.file()); return err == nil }

func TestTheFirstBootTakesTheFileAndRemovesIt(t *testing.T) {
	content := marshal(t, full(t))
	b := newBoard(t, content)
	b.mustBoot()
	if !bytes.Equal(b.given(), content) || b.there() {
		t.Errorf("it took %q, and the file is there: %v", b.given(), b.there())
	}
	if info, err := os.Stat(filepath.Join(b.state, givenFile)); err != nil || info.Mode() != 0o600 {
		t.Errorf("what it has kept: %v, %v", info, err)
	}
	if err := ForgetClaim(b.state); err != nil {
		t.Fatal(err)
	}
	if kept := b.given(); bytes.Contains(kept, []byte("claim")) || !bytes.Contains(kept, []byte("\nname Cellar\n")) {
		t.Errorf("without the claim it has %q", kept)
	}
	if err := ForgetClaim(b.state); err != nil {
		t.Error(err)
	}
	b.mustBoot()
	if b.writes != 1 {
		t.Errorf("the partition was mounted for writing %d times", b.writes)
	}
}

func TestABaseWithoutAFileIsAsItComes(t *testing.T) {
	b := newBoard(t, nil)
	b.mustBoot()
	if want := marshal(t, provisioning.File{}); !bytes.Equal(b.given(), want) {
		t.Errorf("it was given %q", b.given())
	}
	if err := ForgetClaim(b.state); err != nil {
		t.Error(err)
	}
}

// The attack: somebody writes a file to the partition of a Base that has an owner, and waits for a
// restart.
func TestAFileThatComesTooLateChangesNothing(t *testing.T) {
	for name, first := range map[string][]byte{"after a file": marshal(t, full(t)), "after none": nil} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t, first)
			b.mustBoot()
			before := b.given()
			late := full(t)
			late.Name = "Mallory"
			b.put(marshal(t, late))
			b.mustBoot()
			if !bytes.Equal(b.given(), before) || !b.there() {
				t.Errorf("it was given %q, and the file is there: %v", b.given(), b.there())
			}
			if _, err := os.Lstat(filepath.Join(b.state, LateFile)); err != nil || !strings.Contains(b.log.String(), "too late") {
				t.Errorf("nobody hears of it: %v, %s", err, &b.log)
			}
			if err := os.Remove(b.file()); err != nil {
				t.Fatal(err)
			}
			b.mustBoot()
			if _, err := os.Lstat(filepath.Join(b.state, LateFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the note stays: %v", err)
			}
			// The broken variant forgets that it has had its first boot.
			b.put(marshal(t, late))
			for _, file := range []string{givenFile, doneFile} {
				if err := os.Remove(filepath.Join(b.state, file)); err != nil {
					t.Fatal(err)
				}
			}
			b.mustBoot()
			if bytes.Equal(b.given(), before) {
				t.Error("the broken variant withstands the attack, so this test shows nothing")
			}
		})
	}
}

var errCut = errors.New("the power went")

// The power is cut at each step, and at each step of the boot after, and then stays on.
func TestAPowerCutLeavesTheBaseProvisionedAsWrittenOrNotYet(t *testing.T) {
	for name, content := range map[string][]byte{"with a file": marshal(t, full(t)), "without": nil} {
		t.Run(name, func(t *testing.T) {
			var steps []string
			b := newBoard(t, content)
			if err := b.boot(func(step string) error { steps = append(steps, step); return nil }); err != nil {
				t.Fatal(err)
			}
			want := b.given()
			for cut := range steps {
				for again := range steps {
					b := newBoard(t, content)
					for _, at := range []int{cut, again} {
						n := 0
						err := b.boot(func(string) error {
							if n++; n == at+1 {
								return errCut
							}
							return nil
						})
						if err != nil && !errors.Is(err, errCut) {
							t.Fatalf("cut at %q, then %q: %v", steps[cut], steps[again], err)
						}
						if _, err := os.Lstat(filepath.Join(b.state, givenFile)); err == nil && !bytes.Equal(b.given(), want) {
							t.Errorf("cut at %q, then %q: it was given %q", steps[cut], steps[again], b.given())
						}
					}
					b.mustBoot()
					if !bytes.Equal(b.given(), want) || b.there() {
						t.Errorf("cut at %q, then %q: it was given %q, and the file is there: %v", steps[cut], steps[again], b.given(), b.there())
					}
					b.put([]byte("late"))
					b.mustBoot()
				}
			}
			if wantSteps := 4; len(steps) < wantSteps {
				t.Errorf("only the steps %q can be cut", steps)
			}
		})
	}
}

// The whole file is overwritten, up to a bound.
func TestTheFileIsOverwrittenInItsWholeLength(t *testing.T) {
	for _, c := range []struct{ length, left int }{{1, 0}, {3 * provisioning.MaxSize, 0}, {maxErase + 5, 5}} {
		b := newBoard(t, bytes.Repeat([]byte("x"), c.length))
		held, err := os.Open(b.file())
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		config := Config{ESP: b, State: b.state, Logger: slog.New(slog.DiscardHandler)}
		if err := config.erase(b.esp); err != nil {
			t.Fatal(err)
		}
		// An open file keeps its content after it was removed.
		content, err := io.ReadAll(held)
		if left := bytes.Count(content, []byte("x")); err != nil || len(content) != c.length || left != c.left {
			t.Errorf("of %d bytes %d are left in %d: %v", c.length, left, len(content), err)
		}
	}
}

// A cut while the file is overwritten leaves anything in it.
func TestAFileThatWasHalfOverwrittenIsRemoved(t *testing.T) {
	content := marshal(t, full(t))
	b := newBoard(t, content)
	if err := b.boot(func(step string) error {
		if step == "remove" {
			return errCut
		}
		return nil
	}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	if left, err := os.ReadFile(b.file()); err != nil || bytes.ContainsFunc(left, func(r rune) bool { return r != 0 }) {
		t.Fatalf("after it was overwritten it holds %q, %v", left, err)
	}
	b.put(slices.Concat(make([]byte, 100), content[100:]))
	b.mustBoot()
	if !bytes.Equal(b.given(), content) || b.there() {
		t.Error("the next boot did not go on")
	}
}

func TestABadFileLeavesTheBaseClosedAndUnchanged(t *testing.T) {
	content := marshal(t, full(t))
	private, err := sshaccess.GenerateHostKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		put   func(b *board) error
		words string
	}{
		"damaged":       {func(b *board) error { b.put(bytes.Replace(content, []byte("Cellar"), []byte("Celler"), 1)); return nil }, "damaged"},
		"cut short":     {func(b *board) error { b.put(content[:len(content)/2]); return nil }, "damaged"},
		"empty":         {func(b *board) error { b.put([]byte{}); return nil }, "bitbox-app provision"},
		"too large":     {func(b *board) error { b.put(make([]byte, provisioning.MaxSize+1)); return nil }, "larger"},
		"a private key": {func(b *board) error { b.put(slices.Concat(content, private)); return nil }, "PRIVATE SSH key"},
		"a later version": {func(b *board) error {
			b.put(bytes.Replace(content, []byte("provisioning 1\n"), []byte("provisioning 2\n"), 1))
			return nil
		}, "another version"},
		"a directory": {func(b *board) error { return os.Mkdir(b.file(), 0o700) }, "no regular file"},
		"a link":      {func(b *board) error { return os.Symlink("/etc/hostname", b.file()) }, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoard(t, nil)
			if err := c.put(b); err != nil {
				t.Fatal(err)
			}
			err := b.boot(nil)
			if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.words) {
				t.Errorf("it says %v", err)
			}
			if err != nil && bytes.Contains([]byte(err.Error()), private[40:60]) {
				t.Error("it shows a part of the private key")
			}
			if _, err := os.Lstat(b.state); !errors.Is(err, fs.ErrNotExist) || b.writes > 0 {
				t.Errorf("something was changed: %v", err)
			}
			// A good file in its place is taken.
			if err := os.RemoveAll(b.file()); err != nil {
				t.Fatal(err)
			}
			b.put(content)
			b.mustBoot()
			if !bytes.Equal(b.given(), content) {
				t.Errorf("then it was given %q", b.given())
			}
		})
	}
}

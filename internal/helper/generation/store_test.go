package generation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

var errCut = errors.New("power cut")

// cutAt makes the n-th step of the store fail, and counts them.
func cutAt(s *Store, n int) *int {
	steps := 0
	s.fail = func(string) error {
		steps++
		if steps == n {
			return errCut
		}
		return nil
	}
	return &steps
}

func mustVerify(t *testing.T, s *Store, files Files) {
	t.Helper()
	if drift, err := s.Verify(files); err != nil || drift != nil {
		t.Fatalf("the generation in force is not as written: %v, %v", drift, err)
	}
}

func apply(s *Store, number uint64, files Files) error {
	if err := s.Write(number, files); err != nil {
		return err
	}
	return s.Switch(number)
}

// Whichever step is the last, either the whole old configuration or the whole new one is in
// force, and the next try succeeds.
func TestPowerCutAtAnyStepLeavesOneWholeGeneration(t *testing.T) {
	older, newer := render(t, closed()), render(t, open(t))
	for n := 1; ; n++ {
		directory := t.TempDir()
		if err := apply(NewStore(directory), 1, older); err != nil {
			t.Fatal(err)
		}
		cut := NewStore(directory)
		steps := cutAt(cut, n)
		err := apply(cut, 2, newer)

		after := NewStore(directory)
		number, currentErr := after.Current()
		if currentErr != nil {
			t.Fatalf("cut at step %d: %v", n, currentErr)
		}
		mustVerify(t, after, map[uint64]Files{1: older, 2: newer}[number])
		if err == nil {
			if number != 2 || *steps < 20 {
				t.Fatalf("done after %d steps, generation %d is in force", *steps, number)
			}
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("cut at step %d: %v", n, err)
		}
		if number == 2 { // Only the last sync was missing.
			continue
		}
		if err := apply(after, 2, newer); err != nil {
			t.Fatalf("after a cut at step %d: %v", n, err)
		}
		mustVerify(t, after, newer)
		if err := after.Prune(1); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(filepath.Join(directory, generationsDir))
		if err != nil || len(entries) != 2 {
			t.Fatalf("after a cut at step %d: %v is left, %v", n, entries, err)
		}
	}
}

// The test above must be able to fail: a store that replaces files one by one under a link that
// already points there leaves a mixture.
func TestMixtureIsFound(t *testing.T) {
	older, newer := render(t, closed()), render(t, open(t))
	directory := t.TempDir()
	s := NewStore(directory)
	if err := apply(s, 1, older); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory, currentLink, IPv4Rules)
	if err := os.WriteFile(path, []byte(newer[IPv4Rules]), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, files := range []Files{older, newer} {
		if drift, err := s.Verify(files); err != nil || drift == nil {
			t.Errorf("a mixture was taken for a whole generation (%v)", err)
		}
	}
}

func TestTheGenerationInForceIsNotWrittenAgain(t *testing.T) {
	s := NewStore(t.TempDir())
	files := render(t, closed())
	if _, err := s.Current(); !errors.Is(err, ErrNone) {
		t.Errorf("Current = %v, want ErrNone", err)
	}
	if err := s.Switch(1); err == nil {
		t.Error("a generation that was never written was put in force")
	}
	if err := s.Prune(); !errors.Is(err, ErrNone) {
		t.Errorf("Prune without a generation in force = %v, want ErrNone", err)
	}
	if err := apply(s, 1, files); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(1, files); err == nil {
		t.Error("the generation in force was written again")
	}
	if err := s.Write(2, Files{"../outside": "x"}); err == nil {
		t.Error("a file outside the generation was written")
	}
	mustVerify(t, s, files)
}

func TestAChangedGenerationIsFound(t *testing.T) {
	files := render(t, closed())
	for name, change := range map[string]func(dir string) error{
		"a key slipped in": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, AuthorizedKeys), []byte(keyLine), 0o644)
		},
		"a jail slipped in": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, BansDirectory, "jail.local"), []byte("[sshd]\nenabled = false\n"), 0o644)
		},
		"a file removed":     func(dir string) error { return os.Remove(filepath.Join(dir, SSHConfig)) },
		"a writable file":    func(dir string) error { return os.Chmod(filepath.Join(dir, ProxyConfig), 0o666) },
		"a writable folder":  func(dir string) error { return os.Chmod(filepath.Join(dir, BansDirectory), 0o777) },
		"a link for a file":  func(dir string) error { return relink(filepath.Join(dir, ProxyConfig)) },
		"a longer file":      func(dir string) error { return grow(filepath.Join(dir, ProxyConfig)) },
		"a stranger's file":  func(dir string) error { return chownIfRoot(filepath.Join(dir, ProxyConfig)) },
		"an empty directory": func(dir string) error { return os.RemoveAll(filepath.Join(dir, BansDirectory)) },
	} {
		directory := t.TempDir()
		s := NewStore(directory)
		if err := apply(s, 1, files); err != nil {
			t.Fatal(err)
		}
		mustVerify(t, s, files)
		if err := change(filepath.Join(directory, currentLink)); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", name, err))
		}
		if drift, err := s.Verify(files); err != nil || len(drift) == 0 {
			t.Errorf("%s: not found (%v)", name, err)
		}
	}
}

func relink(path string) error {
	other := path + ".other"
	if err := os.Rename(path, other); err != nil {
		return err
	}
	return os.Symlink(other, path)
}

func grow(path string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteString("# more\n")
	return err
}

// chownIfRoot gives the file to another user; without root it can only make it writable.
func chownIfRoot(path string) error {
	if os.Geteuid() != 0 {
		return os.Chmod(path, 0o666)
	}
	return os.Chown(path, 12345, 12345)
}

func TestACurrentLinkToElsewhereIsRefused(t *testing.T) {
	for _, target := range []string{"/etc", "generations/../../etc", "generations/01", "elsewhere/1", "generations/x"} {
		directory := t.TempDir()
		if err := os.Symlink(target, filepath.Join(directory, currentLink)); err != nil {
			t.Fatal(err)
		}
		if number, err := NewStore(directory).Current(); err == nil {
			t.Errorf("a link to %s is generation %d", target, number)
		}
	}
}

// Servers that are not root can read a generation, whatever the umask of the process that wrote
// the first one: that of our units excludes everybody else.
func TestServersCanReadAGenerationUnderAnyUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	directory := t.TempDir()
	if err := apply(NewStore(directory), 1, render(t, closed())); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(filepath.Join(directory, generationsDir), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		want := fileMode
		if entry.IsDir() {
			want = directoryMode
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, not %v", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

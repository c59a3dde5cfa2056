package generation

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Modes of the written files. Servers that are not root read them, and they hold no secret; only
// their owner, root, may write.
const (
	directoryMode fs.FileMode = 0o755
	fileMode      fs.FileMode = 0o644
)

// maxFileSize bounds how much of one file is read back, in bytes.
const maxFileSize = 1 << 20

// ErrNone says that no generation is in force.
var ErrNone = reason.New("no generation is in force")

// Store keeps generations in a directory. Its methods must not be called concurrently. A crash
// during one of them leaves the generation in force intact, and the next call cleans up.
type Store struct {
	directory string
	// fail, in tests, is called before each step that writes to the disk, with its name; an error
	// ends the work there like a power cut.
	fail func(step string) error
}

// NewStore returns the store in directory (StateDirectory on the appliance),
// which must exist.
func NewStore(directory string) *Store {
	return &Store{directory: directory, fail: func(string) error { return nil }}
}

// Write stores files on disk as generation number, and makes it the candidate. The generation in
// force does not change, and cannot be written again; any other of that number is replaced.
func (s *Store) Write(number uint64, files Files) error {
	if err := s.write(number, files); err != nil {
		return reason.Errorf("write generation %d of the configuration: %w", number, err)
	}
	return nil
}

func (s *Store) write(number uint64, files Files) error {
	if current, err := s.Current(); err == nil && current == number {
		return reason.New("it is in force and cannot be changed; choose a new number")
	} else if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	generations := filepath.Join(s.directory, generationsDir)
	if err := s.makeDirectory(generations); err != nil {
		return err
	}
	final := filepath.Join(generations, directoryName(number))
	unfinished := final + ".new"
	if err := s.remove(unfinished, final); err != nil {
		return err
	}
	directories := []string{unfinished}
	if err := s.makeDirectory(unfinished); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !filepath.IsLocal(name) {
			return reason.Errorf("%q is not a path inside the generation", name)
		}
		path := filepath.Join(unfinished, name)
		if parent := filepath.Dir(path); !slices.Contains(directories, parent) {
			if err := s.makeDirectory(parent); err != nil {
				return err
			}
			directories = append(directories, parent)
		}
		if err := s.fail("write " + name); err != nil {
			return err
		}
		if err := atomicfile.WriteFileAtomic(path, []byte(files[name]), fileMode); err != nil {
			return err
		}
	}
	for _, directory := range directories {
		if err := atomicfile.SyncDir(directory); err != nil {
			return err
		}
	}
	if err := s.fail("name the directory"); err != nil {
		return err
	}
	if err := os.Rename(unfinished, final); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(generations); err != nil {
		return err
	}
	return s.link(candidateLink, number)
}

func (s *Store) makeDirectory(path string) error {
	if err := s.fail("make " + filepath.Base(path)); err != nil {
		return err
	}
	if err := os.MkdirAll(path, directoryMode); err != nil {
		return err
	}
	// The process's umask may have removed permissions.
	return os.Chmod(path, directoryMode)
}

func (s *Store) remove(paths ...string) error {
	for _, path := range paths {
		if err := s.fail("remove " + filepath.Base(path)); err != nil {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// Switch puts the generation number in force, by one rename. It must have been written before.
// Servers read it at their next start or reload.
func (s *Store) Switch(number uint64) error {
	directory := filepath.Join(s.directory, generationsDir, directoryName(number))
	if info, err := os.Lstat(directory); err != nil || !info.IsDir() {
		return reason.Errorf("put generation %d of the configuration in force: it is not there (%s)", number, directory)
	}
	if err := s.link(currentLink, number); err != nil {
		return reason.Errorf("put generation %d of the configuration in force: %w", number, err)
	}
	return nil
}

// link makes the link called name point at a generation, atomically and durably.
func (s *Store) link(name string, number uint64) error {
	path := filepath.Join(s.directory, name)
	temporary := path + ".new"
	if err := s.remove(temporary); err != nil {
		return err
	}
	if err := s.fail("prepare " + name); err != nil {
		return err
	}
	// Relative, so that it works wherever the directory is mounted.
	if err := os.Symlink(filepath.Join(generationsDir, directoryName(number)), temporary); err != nil {
		return err
	}
	if err := s.fail("switch " + name); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	if err := s.fail("sync " + name); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.directory)
}

// Current returns the number of the generation in force; the error wraps
// ErrNone if there is none yet.
func (s *Store) Current() (uint64, error) {
	path := filepath.Join(s.directory, currentLink)
	target, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, reason.Errorf("read %s: %w", path, ErrNone)
	}
	if err != nil {
		return 0, reason.Errorf("find the configuration in force: %w", err)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(target, generationsDir+"/"), 10, 64)
	if err != nil || target != filepath.Join(generationsDir, directoryName(number)) {
		return 0, reason.Errorf("find the configuration in force: %s leads to %q, which is not a generation", path, target)
	}
	return number, nil
}

// Prune removes every generation except those in keep and the one in force, and the leftovers of
// a crash.
func (s *Store) Prune(keep ...uint64) error {
	current, err := s.Current()
	if err != nil {
		return err // As long as it is unknown, nothing may be removed.
	}
	generations := filepath.Join(s.directory, generationsDir)
	entries, err := os.ReadDir(generations)
	if err != nil {
		return reason.Errorf("list the generations: %w", err)
	}
	for _, entry := range entries {
		number, err := strconv.ParseUint(entry.Name(), 10, 64)
		if err == nil && entry.Name() == directoryName(number) && (number == current || slices.Contains(keep, number)) {
			continue
		}
		if err := s.remove(filepath.Join(generations, entry.Name())); err != nil {
			return reason.Errorf("remove the old generation %s: %w", entry.Name(), err)
		}
	}
	return nil
}

// Drift is a file of a generation that differs from what was rendered.
type Drift struct {
	// File is its path in the generation's directory.
	File string
	// What describes the difference, for a person to read.
	What string
}

// Verify compares the generation in force with its expected content, and returns the differences.
// An extra file counts, too: fail2ban would read it.
func (s *Store) Verify(files Files) ([]Drift, error) {
	number, err := s.Current()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(s.directory, generationsDir, directoryName(number))
	var drift []Drift
	seen := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if what := writable(info); what != "" {
			drift = append(drift, Drift{name, what})
		}
		if entry.IsDir() {
			return nil
		}
		seen[filepath.ToSlash(name)] = true
		want, known := files[filepath.ToSlash(name)]
		if !known {
			drift = append(drift, Drift{name, "is not part of the configuration"})
			return nil
		}
		if !info.Mode().IsRegular() {
			drift = append(drift, Drift{name, "is not a regular file"})
			return nil
		}
		same, err := holds(path, want)
		if err == nil && !same {
			drift = append(drift, Drift{name, "was changed"})
		}
		return err
	})
	if err != nil {
		return nil, reason.Errorf("compare generation %d with what it should be: %w", number, err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !seen[name] {
			drift = append(drift, Drift{name, "is missing"})
		}
	}
	return drift, nil
}

func holds(path, want string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize))
	return string(content) == want, err
}

// writable tells who else could change a file; empty if nobody can.
func writable(info fs.FileInfo) string {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Sprintf("belongs to user %d", stat.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Sprintf("can be written by others (mode %04o)", info.Mode().Perm())
	}
	return ""
}

package changelog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

func openFile(t testing.TB, path string) *File {
	t.Helper()
	f, _, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// fileOf is a log on a disk with entries of these details.
func fileOf(t testing.TB, details ...string) (path string, f *File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "changes.log")
	f = openFile(t, path)
	for _, detail := range details {
		if err := f.Append(draft(Service, detail)); err != nil {
			t.Fatal(err)
		}
	}
	return path, f
}

// details are those of a log on a disk.
func details(t testing.TB, f *File) []string {
	t.Helper()
	var all []string
	f.Newest(func(e *systemv1.ChangeEntry) bool {
		all = append(all, e.GetDetail())
		return true
	})
	slices.Reverse(all)
	return all
}

func TestRecordedEntriesSurviveARestart(t *testing.T) {
	path, f := fileOf(t, "one", "two")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = openFile(t, path)
	if err := f.Append(draft(Service, "three")); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	f = openFile(t, path)
	if got := details(t, f); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Of an entry that was being written, a power cut leaves the beginning, or as many zeros.
func TestAnEntryTornByAPowerCutIsCutOffAndReported(t *testing.T) {
	path, f := fileOf(t, "one")
	whole := f.size
	if err := f.Append(draft(Service, "two")); err != nil {
		t.Fatal(err)
	}
	b := must(os.ReadFile(path))
	for length := whole + 1; length < int64(len(b)); length++ {
		for _, tail := range [][]byte{b[whole:length], append(slices.Clone(b[whole:length]), make([]byte, int64(len(b))-length)...),
			make([]byte, length-whole)} {
			if bytes.Equal(tail, b[whole:]) {
				continue // its hash ended with zeros
			}
			if err := os.WriteFile(path, slices.Concat(b[:whole], tail), 0o600); err != nil {
				t.Fatal(err)
			}
			again, cut, err := Open(path, &Floor{1, f.log.entries[0].Hash})
			if err != nil {
				// A part of the hash is there: that it was never answered cannot be told.
				if int64(len(tail)) == int64(len(b))-whole && !bytes.Equal(tail[len(tail)-len(Hash{}):], make([]byte, len(Hash{}))) {
					wantErr(t, "torn", err, ErrDamaged)
					continue
				}
				t.Fatalf("cut at %d of %d with a tail of %d: %v", length, len(b), len(tail), err)
			}
			if got := details(t, again); !cut || !slices.Equal(got, []string{"one"}) {
				t.Fatalf("cut at %d: %v, %q", length, cut, got)
			}
			if err := again.Append(draft(CutByPower, "")); err != nil {
				t.Fatal(err)
			}
			_ = again.Close()
		}
	}
}

func TestADamagedLogIsRefusedAndLeftAsItIs(t *testing.T) {
	path, f := fileOf(t, "one", "two", "three")
	floor := f.Floor()
	_ = f.Close()
	whole := must(os.ReadFile(path))
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if f, _, err := Open(path, &floor); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
			if err == nil {
				_ = f.Close()
			}
			return
		}
		if now := must(os.ReadFile(path)); !bytes.Equal(now, b) {
			t.Errorf("%s: it was changed", what)
		}
	}
	for bit := range len(whole) * 8 {
		b := slices.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		refused(fmt.Sprintf("bit %d", bit), b)
	}
	for n := headerSize; n < len(whole); n++ {
		if b := whole[:n]; n != int(f.size) {
			// It may be cut where an entry ends, or in the middle of the last: what the helper
			// remembers beside it tells.
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if f, _, err := Open(path, &floor); err == nil {
				_ = f.Close()
				t.Errorf("%d bytes of %d are taken for the whole", n, len(whole))
			}
		}
	}
	refused("empty", nil)
	refused("something after it", append(slices.Clone(whole), "something else, and longer than eight"...))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, floor := range []*Floor{&floor, {}} {
		_, _, err := Open(path, floor)
		wantErr(t, "gone", err, ErrDamaged)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a log that is gone was replaced by an empty one")
	}
}

// Without what the helper remembers beside the file, an older copy of it passes for the log.
func TestAnOlderCopyOfTheFileIsRefused(t *testing.T) {
	path, f := fileOf(t, "one")
	older := must(os.ReadFile(path))
	if err := f.Append(draft(Service, "two")); err != nil {
		t.Fatal(err)
	}
	floor := f.Floor()
	_ = f.Close()
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(path, &floor)
	wantErr(t, "older", err, ErrDamaged)
	openFile(t, path) // the broken variant takes it
}

func TestUnrecordedEntriesAreCountedAndReported(t *testing.T) {
	path, f := fileOf(t, "one")
	full := &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
	f.fail = func(string) error { return full }
	for range 3 {
		wantErr(t, "append", f.Append(draft(Service, "lost")), full)
	}
	f.fail = func(string) error { return nil }
	if err := f.Append(draft(Service, "two")); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	f = openFile(t, path)
	if got := details(t, f); !slices.Equal(got, []string{"one", "3", "two"}) {
		t.Errorf("%q", got)
	}
	f.Newest(func(e *systemv1.ChangeEntry) bool {
		if e.GetWhat() == NotRecorded && e.GetFailure() != "the disk is full" {
			t.Errorf("the log says of what is missing: %q", e.GetFailure())
		}
		return true
	})
}

func TestAFileThatIsFullForgetsTheOldestInOneStep(t *testing.T) {
	path, f := fileOf(t, "the first")
	b := must(os.ReadFile(path))
	for f.log.Len() < MaxEntries { // quicker than ten thousand syncs
		s, err := f.log.Next(draft(Service, "x"))
		if err == nil {
			err = f.log.Add(s.Bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, frame(s)...)
	}
	_ = f.Close()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f = openFile(t, path)
	failing := true
	f.fail = func(step string) error {
		if failing && step == "forget" {
			return errors.New("no room for a second file")
		}
		return nil
	}
	appended := func() {
		t.Helper()
		if err := f.Append(draft(Service, "x")); err != nil {
			t.Fatal(err)
		}
	}
	appended()
	if f.log.Len() != MaxEntries+1 {
		t.Errorf("%d entries", f.log.Len())
	}
	failing = false
	appended()
	appended()
	floor := f.Floor()
	_ = f.Close()
	f, _, err := Open(path, &floor)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, head := f.Stretch(0, 1)
	if f.log.Len() != Kept+2 || head.GetFirstNumber() != MaxEntries+1-Kept+1 || head.GetLastNumber() != MaxEntries+3 {
		t.Errorf("%d entries, %v", f.log.Len(), head)
	}
}

// An entry costs one write and one sync, however many there are.
func BenchmarkAppend(b *testing.B) {
	for _, entries := range []int{0, 9000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			path, f := fileOf(b)
			content := must(os.ReadFile(path))
			for range entries {
				s, err := f.log.Next(draft(Service, "x"))
				if err == nil {
					err = f.log.Add(s.Bytes)
				}
				if err != nil {
					b.Fatal(err)
				}
				content = append(content, frame(s)...)
			}
			_ = f.Close()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				b.Fatal(err)
			}
			f = openFile(b, path)
			for b.Loop() {
				if err := f.Append(draft(Service, "x")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzTheFileOfTheLog(f *testing.F) {
	l := logOf(f, "one", "two")
	whole := header(0, Hash{})
	for _, s := range l.entries {
		whole = append(whole, frame(s)...)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-7])
	f.Add(append(bytes.Clone(whole), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		log, size, err := parseFile(b)
		if err != nil {
			return
		}
		again, all, err := parseFile(b[:size])
		if err != nil || all != size || again.Len() != log.Len() {
			t.Errorf("what was read of %x is not read again: %d of %d bytes, %v", b, all, size, err)
		}
	})
}

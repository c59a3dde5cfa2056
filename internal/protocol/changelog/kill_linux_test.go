package changelog

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/state/killtest"
)

// The test binary runs itself as the program that is killed.
const roleVariable = "BITBOX_CHANGELOG_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "" {
		os.Exit(m.Run())
	}
	if err := writer(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const writes = 4

// writer begins a log and records changes, and says so after each. In the middle the log
// forgets its oldest.
func writer(path string) error {
	f, _, err := Open(path, nil)
	if err != nil {
		return err
	}
	for n := 1; n <= writes; n++ {
		if n == writes {
			f.mu.Lock()
			err := f.forget()
			f.mu.Unlock()
			if err != nil {
				return err
			}
		}
		if err := f.Append(draft(Service, fmt.Sprint(n))); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return f.Close()
}

func TestKillAtEveryWriteLosesNoEntryThatWasAnswered(t *testing.T) {
	path := ""
	command := func(int) *exec.Cmd {
		dir := t.TempDir()
		path = filepath.Join(dir, "changes.log")
		output, err := os.Create(filepath.Join(dir, "output"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = output.Close() })
		c := exec.Command(os.Args[0], path)
		c.Env = append(os.Environ(), roleVariable+"=writer", "GOMAXPROCS=1")
		c.Stdout, c.Stderr = output, os.Stderr
		return c
	}
	seen := map[int]bool{}
	kills := killtest.AtEachWrite(t, command, func(n int) {
		said := bytes.Count(must(os.ReadFile(filepath.Join(filepath.Dir(path), "output"))), []byte("\n"))
		f, _, err := Open(path, nil)
		if err != nil {
			t.Fatalf("killed at write %d, having answered %d: %v", n, said, err)
		}
		defer f.Close()
		got := details(t, f)
		if len(got) != said && len(got) != said+1 {
			t.Fatalf("killed at write %d, having answered %d: the log has %q", n, said, got)
		}
		for i, detail := range got {
			if detail != fmt.Sprint(i+1) {
				t.Fatalf("killed at write %d: the log has %q", n, got)
			}
		}
		seen[len(got)] = true
		if err := f.Append(draft(Service, "after")); err != nil {
			t.Fatal(err)
		}
	})
	if len(seen) != writes+1 || kills < 2*writes {
		t.Errorf("%d kills have left logs of %v entries; that proves nothing", kills, seen)
	}
}

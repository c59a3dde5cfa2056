package factoryreset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/state/killtest"
)

// The test binary is also the process that is killed.
const (
	roleVariable = "BITBOX_BASE_RESET_TEST_ROLE"
	rootVariable = "BITBOX_BASE_RESET_TEST_ROOT"
)

func TestMain(m *testing.M) {
	root := os.Getenv(rootVariable)
	var err error
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "order":
		err = Order(planIn(root).Directory, ordered)
	case "finish":
		err = Finish(planIn(root))
	case "discard":
		_, err = Discard(context.Background(), planIn(root))
	case "os.RemoveAll": // deliberately broken
		err = os.RemoveAll(planIn(root).Folders[0])
	case "used up", "used up, unprepared":
		err = usedUp(root, os.Getenv(roleVariable) == "used up")
	case "finish, marker first": // deliberately broken
		p := planIn(root)
		if err = os.Rename(filepath.Join(p.Directory, Marker), filepath.Join(p.Directory, record)); err == nil {
			err = finish(p)
		}
		if errors.Is(err, fs.ErrNotExist) { // its own last rename
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var ordered = Record{OrderedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), By: "console"}

func planIn(root string) Plan {
	return Plan{
		Directory: filepath.Join(root, "system"),
		Keys:      []string{filepath.Join(root, "middleware", "middleware.db"), filepath.Join(root, "ssh", "none")},
		Folders:   []string{filepath.Join(root, "middleware"), filepath.Join(root, "ssh"), filepath.Join(root, "never-made")},
		Homes:     []string{filepath.Join(root, "home")},
		Files:     []string{filepath.Join(root, "log", "wtmp"), filepath.Join(root, "log", "none")},
	}
}

// old are the files of a used Base.
var old = []string{
	"system/system.db", "system/system.db.lock", "system/generations/7/nginx.conf", "system/current", ".keep",
	"middleware/middleware.db", "middleware/middleware.db.lock", "ssh/host_ed25519", "home/.bash_history", "home/deep/er/file",
	"log/wtmp", "log/keep",
}

// keeps are files that are not secret, and not in the plan.
var keeps = []string{".keep", "log/keep"}

func used(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range old {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("secret"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// files lists the files, without those of this package and what was put aside.
func files(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(root, path)
		if strings.HasPrefix(name, asidePrefix) {
			return fs.SkipDir
		}
		own := slices.Contains([]string{"system/" + Marker, "system/" + record, "system/" + ready}, name)
		if err == nil && !entry.IsDir() && !own && !strings.HasSuffix(name, ".new") {
			list = append(list, name)
		}
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// aside lists what was put aside and is still there.
func aside(t *testing.T, root string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, asidePrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func TestAResetRemovesTheOwnersDataAndKeepsTheFolders(t *testing.T) {
	root := used(t)
	p := planIn(root)
	if err := os.Chmod(p.Folders[1], 0o700|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := Finish(p); err != nil || !same(files(t, root), old) {
		t.Fatalf("without an order it left %v, %v", files(t, root), err)
	}
	if err := errors.Join(Prepare(p.Directory), Order(p.Directory, ordered)); err != nil {
		t.Fatal(err)
	}
	if r, ok := Ordered(p.Directory); !ok || r != ordered {
		t.Errorf("ordered is %+v, %v", r, ok)
	}
	for range 2 { // again changes nothing
		if err := Finish(p); err != nil {
			t.Fatal(err)
		}
		if got := files(t, root); !same(got, keeps) {
			t.Errorf("it left %v", got)
		}
		if r, ok := Last(p.Directory); !ok || r != ordered {
			t.Errorf("the record is %+v, %v", r, ok)
		}
		if _, ok := Ordered(p.Directory); ok {
			t.Error("it is not over")
		}
		if lying := aside(t, root); lying != nil {
			t.Errorf("%v still lies aside", lying)
		}
	}
	if info, err := os.Stat(p.Folders[1]); err != nil || info.Mode().Perm() != 0o700 || info.Mode()&fs.ModeSetgid == 0 {
		t.Errorf("a folder is now %v, %v", info, err)
	}
}

// A compromised daemon owns its folder, and may put links into it.
func TestAResetFollowsNoLinks(t *testing.T) {
	root := used(t)
	p := planIn(root)
	err := errors.Join(
		os.Symlink(filepath.Join(root, "log"), filepath.Join(p.Folders[0], "link")),
		os.Symlink(filepath.Join(root, "log", "keep"), filepath.Join(p.Folders[0], "file")),
		Order(p.Directory, ordered), Finish(p))
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, root); !same(got, keeps) {
		t.Errorf("it left %v", got)
	}
}

func TestADamagedMarkerIsAnOrder(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "garbage": "\x00\xff{", "huge": strings.Repeat("x", 1<<16)} {
		root := used(t)
		p := planIn(root)
		if err := os.WriteFile(filepath.Join(p.Directory, Marker), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Finish(p); err != nil || !same(files(t, root), keeps) {
			t.Errorf("%s: it left %v, %v", name, files(t, root), err)
		}
	}
}

// role is a process that does its part on its own root.
func role(role, root string) *exec.Cmd {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), roleVariable+"="+role, rootVariable+"="+root)
	command.Stderr = os.Stderr
	return command
}

func TestAPowerCutDuringTheOrderLeavesTheOldBaseOrTheOrder(t *testing.T) {
	var root string
	before, after := 0, 0
	killtest.AtEachWrite(t, func(int) *exec.Cmd {
		root = used(t)
		if err := Prepare(planIn(root).Directory); err != nil {
			t.Fatal(err)
		}
		return role("order", root)
	}, func(n int) {
		if got := files(t, root); !same(got, old) {
			t.Fatalf("killed at write %d, there is %v", n, got)
		}
		if _, ok := Ordered(planIn(root).Directory); ok {
			after++
		} else {
			before++
		}
	})
	if before == 0 || after == 0 {
		t.Errorf("%d kills left no order and %d left one: the test has missed the step", before, after)
	}
}

// half tells whether a Base would start from the present files while something of the old one is
// still there.
func half(t *testing.T, root string) bool {
	t.Helper()
	_, pending := Ordered(planIn(root).Directory)
	return !pending && !same(files(t, root), keeps)
}

func TestAPowerCutInTheMiddleIsFinishedAtTheNextBoot(t *testing.T) {
	var root string
	kills := killtest.AtEachWrite(t, func(int) *exec.Cmd {
		root = used(t)
		if err := Order(planIn(root).Directory, ordered); err != nil {
			t.Fatal(err)
		}
		return role("finish", root)
	}, func(n int) {
		if half(t, root) {
			t.Fatalf("killed at write %d, a Base would start from %v", n, files(t, root))
		}
		err := Finish(planIn(root))
		_, discardErr := Discard(context.Background(), planIn(root))
		if err := errors.Join(err, discardErr); err != nil || half(t, root) || aside(t, root) != nil {
			t.Fatalf("after a kill at write %d, the next boot left %v and %v, %v", n, files(t, root), aside(t, root), err)
		}
	})
	if kills < len(old)-len(keeps) {
		t.Errorf("it was killed %d times only", kills)
	}
}

// The attack above can succeed: it detects a reset that removes its marker first.
func TestAPowerCutDetectsAResetThatRemovesItsMarkerTooEarly(t *testing.T) {
	var root string
	found := 0
	killtest.AtEachWrite(t, func(int) *exec.Cmd {
		root = used(t)
		if err := Order(planIn(root).Directory, ordered); err != nil {
			t.Fatal(err)
		}
		return role("finish, marker first", root)
	}, func(int) {
		if half(t, root) {
			found++
		}
	})
	if found == 0 {
		t.Error("the broken reset was not found out")
	}
}

// The chain is weeks of work, and nobody's secret: it goes only if the order says so.
func TestAResetKeepsTheChainUnlessItIsOrderedToGo(t *testing.T) {
	for _, erase := range []bool{false, true} {
		root := used(t)
		p := planIn(root)
		p.Chain = filepath.Join(root, "chain")
		block := filepath.Join(p.Chain, "blk00000.dat")
		if err := errors.Join(os.Mkdir(p.Chain, 0o700), os.WriteFile(block, []byte("block"), 0o600)); err != nil {
			t.Fatal(err)
		}
		erased := 0
		p.EraseChainDisk = func() error {
			erased++
			return nil
		}
		if err := errors.Join(Prepare(p.Directory), Order(p.Directory, Record{By: "console", EraseChain: erase}), Finish(p)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(block); errors.Is(err, fs.ErrNotExist) != erase {
			t.Errorf("ordered %v: the block: %v", erase, err)
		}
		if (erased > 0) != erase {
			t.Errorf("ordered %v: the disk is erased %d times", erase, erased)
		}
		rest := slices.DeleteFunc(files(t, root), func(name string) bool { return strings.HasPrefix(name, "chain/") })
		if !same(rest, keeps) {
			t.Errorf("it left %v", rest)
		}
	}
}

package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

func TestLooseFilesAreFound(t *testing.T) {
	add := func(path string, mode fs.FileMode) func(*testing.T, *fake) {
		return func(_ *testing.T, f *fake) { f.stat[path] = File{Mode: mode} }
	}
	find(t, map[string]attack{
		"a file":              {add("/etc/x", 0o666), []string{idWorldWritable}},
		"a directory":         {add("/usr/local/x", fs.ModeDir|0o777), []string{idWorldWritable}},
		"a sticky directory":  {add("/var/lib/x", fs.ModeDir|fs.ModeSticky|0o777), []string{}},
		"a link":              {add("/etc/x", fs.ModeSymlink|0o777), []string{}},
		"set user ID":         {add("/usr/local/bin/x", fs.ModeSetuid|0o755), []string{idSetuid}},
		"set group ID":        {add("/home/base/x", fs.ModeSetgid|0o755), []string{idSetuid}},
		"a group's directory": {add("/var/lib/x", fs.ModeDir|fs.ModeSetgid|0o775), []string{}},
	})
}

// A file that cannot be closed keeps no other one open. Each file is closed within its own root.
func TestEachLooseFileIsClosedInItsRoot(t *testing.T) {
	f := base(t)
	paths := map[string]string{
		"/etc/--reference=x": "/etc", "/var/lib/x": "/var/lib", middlewareState + "/x": middlewareState, "/var/library/x": "",
	}
	var want []string
	for path, root := range paths {
		f.stat[path] = File{Mode: 0o666}
		if root != "" {
			want = append(want, "close "+path+" in "+root)
		}
	}
	f.closes = errors.New("no")
	if err := Repair(context.Background(), f, idWorldWritable); !errors.Is(err, f.closes) {
		t.Errorf("it says %v", err)
	}
	slices.Sort(f.ran)
	if slices.Sort(want); !slices.Equal(f.ran, want) {
		t.Errorf("ran %q, not %q", f.ran, want)
	}
}

// The attack: while loose files are closed, their owner puts a link into the place of the file, or
// of its folder. A file elsewhere that everybody has to write to would be closed. The broken variant
// goes by the path, as chmod does.
func TestClosingAFileReachesNothingElsewhere(t *testing.T) {
	byPath := func(_, path string) error { return os.Chmod(path, 0o664) }
	for name, swap := range map[string]func(folder, outside string) error{
		"the folder": func(folder, outside string) error {
			return errors.Join(os.RemoveAll(folder), os.Symlink(outside, folder))
		},
		"the file": func(folder, outside string) error {
			path := filepath.Join(folder, "x")
			return errors.Join(os.Remove(path), os.Symlink(filepath.Join(outside, "x"), path))
		},
		"nothing": func(string, string) error { return nil },
	} {
		for variant, closeFile := range map[string]func(root, path string) error{"": Host{}.CloseFile, "broken": byPath} {
			root, outside := t.TempDir(), t.TempDir()
			folder := filepath.Join(root, "folder")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, directory := range []string{folder, outside} {
				path := filepath.Join(directory, "x")
				if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666)); err != nil {
					t.Fatal(err)
				}
			}
			err := errors.Join(swap(folder, outside), closeFile(root, filepath.Join(folder, "x")))
			info, statErr := os.Stat(filepath.Join(outside, "x"))
			if err = errors.Join(err, statErr); err != nil {
				t.Fatal(err)
			}
			reached, want := info.Mode().Perm() != 0o666, variant == "broken" && name != "nothing"
			if reached != want {
				t.Errorf("with a link for %s the %s repair reaches a file elsewhere: %v", name, variant, reached)
			}
			if info, err = os.Stat(filepath.Join(folder, "x")); name == "nothing" && (err != nil || info.Mode().Perm() != 0o664) {
				t.Errorf("the file itself is %v (%v)", info.Mode(), err)
			}
		}
	}
}

// The attack: a flood of folders whose paths are as long as the kernel takes. All that are still to be
// read would be in memory with their whole paths: 700 MiB, which is all that the helper may have.
func TestAFloodOfLongPathsNeedsLittleMemory(t *testing.T) {
	const folders, long = 3000, 14 * 250
	root := t.TempDir()
	deep := root
	for range long / 250 {
		deep = filepath.Join(deep, strings.Repeat("x", 249))
	}
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	inside, err := os.OpenRoot(deep)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	for n := range folders {
		if err := inside.Mkdir(strconv.Itoa(n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, visits, needs := memory(), 0, uint64(0)
	if leftOut := (Host{}).Walk(t.Context(), []string{root}, func(string, File) {
		if visits++; visits == folders { // the others are still to be read
			needs = memory() - min(before, memory())
		}
	}); leftOut != nil || visits < folders {
		t.Fatalf("%d were visited; left out %q", visits, leftOut)
	}
	if needs > folders*long/4 {
		t.Errorf("%d folders with paths of %d bytes need %d KiB", folders, long, needs>>10)
	}
}

func TestTheHostIsWalkedWithoutFollowingLinks(t *testing.T) {
	root := t.TempDir()
	outside := t.TempDir()
	for path, mode := range map[string]fs.FileMode{filepath.Join(root, "a"): 0o666, filepath.Join(outside, "b"): 0o666} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	var loose []string
	leftOut := Host{}.Walk(context.Background(), []string{root, filepath.Join(root, "absent")}, func(path string, f File) {
		if isLoose(f) {
			loose = append(loose, path)
		}
	})
	if leftOut != nil || !slices.Equal(loose, []string{filepath.Join(root, "a")}) {
		t.Errorf("found %v, left out %q", loose, leftOut)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if leftOut := (Host{}).Walk(ctx, []string{root}, func(string, File) {}); len(leftOut) != 1 {
		t.Errorf("a walk that has no time left out %q", leftOut)
	}
}

// An intruder fills a folder. The walk reports it, and still sees all the rest.
func TestAFloodOfFilesHidesNothingElsewhere(t *testing.T) {
	root := t.TempDir()
	t.Cleanup(func() { _ = exec.Command("rm", "-r", root).Run() }) // os.RemoveAll does not get through this
	crowded, deep, other := filepath.Join(root, "crowded"), filepath.Join(root, "deep"), filepath.Join(root, "other")
	for _, folder := range []string{crowded, deep, other} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for n := range maxInDirectory + 1 {
		if err := os.WriteFile(filepath.Join(crowded, strconv.Itoa(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The names are so long that a path to the inner ones cannot be written.
	name := strings.Repeat("x", 250)
	at, err := os.OpenRoot(deep)
	for range 60 {
		if err == nil {
			err = at.Mkdir(name, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		inner, openErr := at.OpenRoot(name)
		_ = at.Close()
		at, err = inner, openErr
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = at.Close()
	// It must not delay the walk of what does not count.
	if err := filepath.WalkDir(deep, func(_ string, _ fs.DirEntry, err error) error { return err }); err == nil {
		t.Error("filepath.WalkDir gets through, so this shows nothing")
	}
	loose := filepath.Join(other, "loose")
	if err := errors.Join(os.WriteFile(loose, nil, 0o600), os.Chmod(loose, 0o666)); err != nil {
		t.Fatal(err)
	}
	var found []string
	visits := 0
	leftOut := Host{}.Walk(context.Background(), []string{root, crowded, deep}, func(path string, f File) {
		if visits++; isLoose(f) {
			found = append(found, path)
		}
	})
	if !slices.Equal(found, []string{loose}) {
		t.Errorf("found %q", found)
	}
	if len(leftOut) != 2 || !strings.HasPrefix(leftOut[0], crowded+": there are more than") || !strings.HasPrefix(leftOut[1], deep+": ") {
		t.Errorf("left out %.300q", leftOut)
	}
	if visits < maxInDirectory || visits > maxInDirectory+maxDepth+10 {
		t.Errorf("visited %d", visits)
	}
}

// The attack: the owner of a folder replaces what the walk has listed before it gets there. The
// walk must go on, keep what it has found, and not be led elsewhere.
func TestAFolderThatIsReplacedWhileItIsWalkedHidesNothing(t *testing.T) {
	outside := t.TempDir()
	for _, hidden := range []string{"loose", "inner/loose", "beside/loose", "other/loose"} { // none of the walk's roots
		path := filepath.Join(outside, hidden)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	for name, replace := range map[string]func(path string) error{
		"by nothing":        func(string) error { return nil },
		"by a file":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"by a link":         func(path string) error { return os.Symlink(outside, path) },
		"by a link in void": func(path string) error { return os.Symlink(filepath.Join(outside, "absent"), path) },
		"by a loop":         func(path string) error { return os.Symlink(path, path) },
	} {
		for _, depth := range []string{"listed", "listed/inner"} {
			t.Run(name+" of "+depth, func(t *testing.T) {
				own, other := t.TempDir(), t.TempDir()
				swapped := filepath.Join(own, "listed")
				var loose []string
				for _, directory := range []string{own, other} {
					path := filepath.Join(directory, "loose")
					loose = append(loose, path)
					if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666)); err != nil {
						t.Fatal(err)
					}
				}
				for _, more := range []string{"inner/most", "beside", "other"} {
					if err := os.MkdirAll(filepath.Join(swapped, more), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				var found []string
				replaced := false
				leftOut := Host{}.Walk(t.Context(), []string{own, other}, func(path string, f File) {
					if isLoose(f) {
						found = append(found, path)
					}
					if path == filepath.Join(own, depth) && !replaced {
						replaced = true
						if err := errors.Join(os.RemoveAll(swapped), replace(swapped)); err != nil {
							t.Error(err)
						}
					}
				})
				if slices.Sort(found); !replaced || leftOut != nil || !slices.Equal(found, loose) {
					t.Errorf("replaced: %v; found %q, not %q; left out %q", replaced, found, loose, leftOut)
				}
			})
		}
	}
}

// A folder that the walk may not read, or an entry of one, costs a line and no other finding.
func TestAFolderThatCannotBeReadHidesNothingElsewhere(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	closed, listed, loose := filepath.Join(first, "closed"), filepath.Join(first, "listed"), filepath.Join(second, "loose")
	if err := errors.Join(os.Mkdir(closed, 0o700), os.MkdirAll(filepath.Join(listed, "inner"), 0o700), os.WriteFile(loose, nil, 0o600),
		os.Chmod(loose, 0o666), os.Chmod(closed, 0), os.Chmod(listed, 0o444), os.Chmod(filepath.Dir(first), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(listed, 0o700) })
	var found []string
	var leftOut []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: this thread ends with its goroutine
		if err := syscall.Setfsuid(65534); err != nil && os.Getuid() == 0 {
			t.Error(err)
		}
		leftOut = Host{}.Walk(t.Context(), []string{first, second}, func(path string, f File) {
			if isLoose(f) {
				found = append(found, path)
			}
		})
	}()
	<-done
	slices.Sort(leftOut)
	want := []string{closed + " cannot be read", listed + " cannot be read"}
	if !slices.Equal(found, []string{loose}) || !slices.Equal(leftOut, want) {
		t.Errorf("found %q; left out %q, not %q", found, leftOut, want)
	}
}

// A daemon without privilege has a root of its own for its state, after all others: whatever it
// puts there uses up the limits of no other.
func TestEachDaemonsStateIsWalkedForItself(t *testing.T) {
	const directory = "root/usr/lib/systemd/system"
	files, err := packaging.Units.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/home"}
	for _, file := range files {
		unit, err := packaging.Units.ReadFile(directory + "/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(unit), "\nUser=root\n") {
			continue
		}
		for line := range strings.Lines(string(unit)) {
			if names, is := strings.CutPrefix(line, "StateDirectory="); is {
				for _, name := range strings.Fields(names) {
					want = append(want, "/var/lib/"+name)
				}
			}
		}
	}
	if len(want) < 4 {
		t.Fatalf("the units have only %q", want)
	}
	own := slices.Clone(systemRoots[max(0, len(systemRoots)-len(want)):])
	slices.Sort(want)
	if slices.Sort(own); !slices.Equal(own, want) {
		t.Errorf("the last roots are %q, not %q", own, want)
	}
}

func TestLeftOutFilesAreAFinding(t *testing.T) {
	find(t, map[string]attack{
		"too many": {func(_ *testing.T, f *fake) {
			f.leftOut = []string{middlewareState + ": there are more than 50000 files in it"}
		}, []string{idLeftOut}},
		"and a loose": {func(_ *testing.T, f *fake) {
			f.leftOut, f.stat["/etc/loose"] = []string{"/home: the time ran out"}, File{Mode: 0o666}
		}, []string{idLeftOut, idWorldWritable}},
	})
}

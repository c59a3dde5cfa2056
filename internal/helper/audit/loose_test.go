package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
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

// Somebody else chose this path.
func TestClosingAFileTakesNoOptionFromItsName(t *testing.T) {
	f := base(t)
	f.stat["/etc/--reference=x"] = File{Mode: 0o666}
	f.obeys = func(string) bool { return true }
	if err := Repair(context.Background(), f, idWorldWritable); err != nil {
		t.Fatal(err)
	}
	if want := []string{chmod + " -- o-w /etc/--reference=x"}; !slices.Equal(f.ran, want) {
		t.Errorf("ran %q", f.ran)
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
	leftOut, err := Host{}.Walk(context.Background(), []string{root, filepath.Join(root, "absent")}, func(path string, f File) {
		if isLoose(f) {
			loose = append(loose, path)
		}
	})
	if err != nil || leftOut != nil || !slices.Equal(loose, []string{filepath.Join(root, "a")}) {
		t.Errorf("found %v, %v", loose, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if leftOut, err := (Host{}).Walk(ctx, []string{root}, func(string, File) {}); err != nil || len(leftOut) != 1 {
		t.Errorf("a walk that has no time left out %q, %v", leftOut, err)
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
	leftOut, err := Host{}.Walk(context.Background(), []string{root, crowded, deep}, func(path string, f File) {
		if visits++; isLoose(f) {
			found = append(found, path)
		}
	})
	if err != nil || !slices.Equal(found, []string{loose}) {
		t.Errorf("found %q, %v", found, err)
	}
	if len(leftOut) != 2 || !strings.HasPrefix(leftOut[0], crowded+": there are more than") || !strings.HasPrefix(leftOut[1], deep+": ") {
		t.Errorf("left out %.300q", leftOut)
	}
	if visits < maxInDirectory || visits > maxInDirectory+maxDepth+10 {
		t.Errorf("visited %d", visits)
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

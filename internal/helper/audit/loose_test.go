package audit

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// A path is what somebody else has named.
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
	err := Host{}.Walk(context.Background(), []string{root, filepath.Join(root, "absent")}, func(path string, f File) {
		if isLoose(f) {
			loose = append(loose, path)
		}
	})
	if err != nil || !slices.Equal(loose, []string{filepath.Join(root, "a")}) {
		t.Errorf("found %v, %v", loose, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := (Host{}).Walk(ctx, []string{root}, func(string, File) {}); err == nil {
		t.Error("a walk went on after its end")
	}
}

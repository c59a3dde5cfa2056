package rootfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

func TestOnlyAFileOfRootIsRead(t *testing.T) {
	directory := t.TempDir()
	path := func(name string) string { return filepath.Join(directory, name) }
	write := func(name string, mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path(name), []byte("text"), 0o600), os.Chmod(path(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("good", 0o644)
	write("group", 0o664)
	write("others", 0o646)
	if err := errors.Join(os.Symlink("good", path("link")), os.Mkdir(path("folder"), 0o755), syscall.Mkfifo(path("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if text, err := rootfile.Read(path("good"), 4); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	for name, want := range map[string]string{
		"group": "users other than root", "others": "users other than root", "link": "it is a link",
		"folder": "not a regular file", "pipe": "not a regular file",
	} {
		if text, err := rootfile.Read(path(name), 4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if text, err := rootfile.Read(path("good"), 3); err == nil || !strings.Contains(err.Error(), "larger than 3 bytes") {
		t.Errorf("too long: %q, %v", text, err)
	}
	if _, err := rootfile.Read(path("none"), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if os.Geteuid() != 0 {
		return // only root can give a file away
	}
	if err := os.Chown(path("good"), 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := rootfile.Read(path("good"), 4); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("another's: %v", err)
	}
}

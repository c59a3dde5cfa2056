package browser

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// desktop is a folder of programs that alone are found, and a screen. A program notes in the
// returned file that it was started, with its arguments.
func desktop(t *testing.T, programs map[string]string) (started string) {
	t.Helper()
	dir := t.TempDir()
	started = filepath.Join(dir, "started")
	for name, text := range programs {
		script := "#!/bin/sh\necho " + name + " \"$@\" >>" + started + "\n" + text + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv("DISPLAY", ":99")
	return started
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

const address = "http://127.0.0.1:45678/enter#ticket"

func TestAChromiumWithAProfileOfItsOwnIsPreferred(t *testing.T) {
	started := desktop(t, map[string]string{"google-chrome": "", "xdg-open": ""})
	profile := filepath.Join(t.TempDir(), "browser")
	if err := Open(address, profile); err != nil {
		t.Fatal(err)
	}
	got := lines(t, started)
	if len(got) != 1 || !strings.HasPrefix(got[0], "google-chrome --app="+address+" --user-data-dir="+profile+" ") ||
		!strings.Contains(got[0], " --disable-extensions ") {
		t.Errorf("it started %q", got)
	}
	if info, err := os.Stat(profile); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the profile is %v %v", info, err)
	}
}

func TestASnapOrAFlatpakOrABrokenChromiumIsPassedOver(t *testing.T) {
	for name, programs := range map[string]map[string]string{
		"snap":    {"chromium": "exec /snap/bin/chromium", "xdg-open": ""},
		"flatpak": {"chromium": "exec flatpak run org.chromium.Chromium", "xdg-open": ""},
		"broken":  {"chromium": "exit 1", "xdg-open": ""},
	} {
		t.Run(name, func(t *testing.T) {
			started := desktop(t, programs)
			if err := Open(address, filepath.Join(t.TempDir(), "browser")); err != nil {
				t.Fatal(err)
			}
			if got := lines(t, started); !slices.Contains(got, "xdg-open "+address) {
				t.Errorf("it started %q", got)
			}
		})
	}
	t.Run("link", func(t *testing.T) {
		started := desktop(t, map[string]string{"xdg-open": ""})
		snap := filepath.Join(t.TempDir(), "snap")
		if err := os.WriteFile(snap, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(snap, filepath.Join(filepath.Dir(started), "chromium")); err != nil {
			t.Fatal(err)
		}
		if err := Open(address, filepath.Join(t.TempDir(), "browser")); err != nil {
			t.Fatal(err)
		}
		if got := lines(t, started); !slices.Equal(got, []string{"xdg-open " + address}) {
			t.Errorf("it started %q", got)
		}
	})
}

func TestWithoutABrowserOrAScreenItSaysSo(t *testing.T) {
	t.Run("no browser", func(t *testing.T) {
		desktop(t, nil)
		if err := Open(address, t.TempDir()); !errors.Is(err, ErrNone) {
			t.Errorf("it is %v", err)
		}
	})
	t.Run("no screen", func(t *testing.T) {
		started := desktop(t, map[string]string{"chromium": "", "xdg-open": ""})
		t.Setenv("DISPLAY", "")
		t.Setenv("WAYLAND_DISPLAY", "")
		if err := Open(address, t.TempDir()); !errors.Is(err, ErrNone) {
			t.Errorf("it is %v", err)
		}
		if got := lines(t, started); got[0] != "" {
			t.Errorf("it started %q", got)
		}
	})
}

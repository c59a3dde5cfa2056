//go:build unix

package bitcoincore

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// install puts a made program into a place.
func install(t *testing.T, place, version string) {
	t.Helper()
	folder := version + "-00000000"
	record, err := json.Marshal(Record{Version: version, Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(place, folder), 0o755), os.WriteFile(RecordFile(place), record, 0o644),
		os.WriteFile(filepath.Join(place, folder, "bitcoind"), []byte(version), 0o755)); err != nil {
		t.Fatal(err)
	}
}

func TestTheNewestReleaseOfTheTwoPlacesRuns(t *testing.T) {
	built, owned := t.TempDir(), t.TempDir()
	if _, _, err := Find(owned, built); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
	for _, step := range []struct{ place, version, want string }{
		{built, "30.2", "30.2"}, {owned, "30.10", "30.10"}, {built, "31.0", "31.0"}, {owned, "29.3", "31.0"}, {owned, "31.0", "31.0"},
	} {
		install(t, step.place, step.version)
		path, r, err := Find(owned, built)
		if err != nil || r.Version != step.want {
			t.Errorf("%+v: %+v, %v", step, r, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != step.want {
			t.Errorf("%+v: %s has %q, %v", step, path, b, err)
		}
	}
	if path, _, _ := Find(owned, built); filepath.Dir(filepath.Dir(path)) != owned {
		t.Errorf("of two that are equal, %s runs", path)
	}
}

func TestAProgramThatOthersMayWriteToIsNotRun(t *testing.T) {
	for name, spoil := range map[string]func(place, program string) error{
		"a program that all may write to": func(_, program string) error { return os.Chmod(program, 0o757) },
		"a folder that all may write to":  func(_, program string) error { return os.Chmod(filepath.Dir(program), 0o777) },
		"a program that is a link": func(_, program string) error {
			return errors.Join(os.Rename(program, program+".x"), os.Symlink(program+".x", program))
		},
		"a folder that is a link": func(_, program string) error {
			folder := filepath.Dir(program)
			return errors.Join(os.Rename(folder, folder+"x"), os.Symlink(folder+"x", folder))
		},
		"a record that all may write to": func(place, _ string) error { return os.Chmod(RecordFile(place), 0o666) },
		"a record that leads elsewhere": func(place, _ string) error {
			return os.WriteFile(RecordFile(place), []byte(`{"version":"31.0","folder":"../31.0-00000000"}`), 0o644)
		},
	} {
		place := t.TempDir()
		install(t, place, "31.0")
		if err := spoil(place, filepath.Join(place, "31.0-00000000", "bitcoind")); err != nil {
			t.Fatal(err)
		}
		if path, _, err := Find(place); err == nil {
			t.Errorf("%s: %s runs", name, path)
		}
		// The builder's is there for that.
		built := t.TempDir()
		install(t, built, "30.0")
		if _, r, err := Find(place, built); err != nil || r.Version != "30.0" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if os.Geteuid() == 0 {
		place := t.TempDir()
		install(t, place, "31.0")
		if err := os.Chown(filepath.Join(place, "31.0-00000000", "bitcoind"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if path, _, err := Find(place); err == nil {
			t.Errorf("a program of another user: %s runs", path)
		}
	}
}

func TestAVersionIsUnmaintainedTwoYearsAfterItsReleaseAtTheLatest(t *testing.T) {
	for major, released := range majors {
		if TooOld(major, released.Add(longest)) || !Unmaintained(major, released.Add(longest+time.Second)) {
			t.Errorf("%d", major)
		}
	}
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	for major, want := range map[int]bool{0: true, 28: true, 29: true, 30: false, 31: false, 32: false, 99: false} {
		if Unmaintained(major, now) != want {
			t.Errorf("%d", major)
		}
	}
	for major := range majors {
		if major < oldest || major > newest || len(majors) != newest-oldest+1 {
			t.Errorf("%d is not within the bounds", major)
		}
	}
}

func TestSHA256SUMSIsReadStrictly(t *testing.T) {
	sum, name := strings.Repeat("a1", 32), "bitcoin-31.0-x86_64-linux-gnu.tar.gz"
	good := sum + "  " + name + "\n"
	if got, err := Sum([]byte(strings.Repeat("b2", 32)+"  x\n"+good), name); err != nil || got != sum {
		t.Errorf("%s, %v", got, err)
	}
	for text, want := range map[string]string{
		"": "is damaged", good[:len(good)-1]: "is damaged", good + good: "is damaged", good + "\n": "is damaged",
		strings.ToUpper(sum) + "  " + name + "\n": "is damaged", sum + " *" + name + "\n": "is damaged",
		strings.Repeat(good, MaxSums/len(good)+1): "is damaged", sum + "  other\n": "does not list",
	} {
		if got, err := Sum([]byte(text), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %s, %v", text, got, err)
		}
	}
}

func FuzzNameOfAnArchive(f *testing.F) {
	f.Add("bitcoin-31.0-x86_64-linux-gnu.tar.gz")
	f.Fuzz(func(t *testing.T, name string) {
		a, err := ParseArchive(name)
		if err == nil && (a.Version.Check() != nil || a.Name != filepath.Base(name) || targets[a.Architecture] == "") {
			t.Errorf("%q: %+v", name, a)
		}
	})
}

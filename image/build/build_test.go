package build

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sentence fails the test unless err is one sentence with all of the words in it.
func sentence(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("it was not refused")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one sentence: %v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
}

func TestWhatCannotBeBuiltIsRefusedInOneSentence(t *testing.T) {
	deb := write(t, "bitbox-base.deb", nil)
	good := Options{Architecture: "amd64", Package: deb, Provision: deb}
	if err := good.Check(); err != nil {
		t.Fatalf("what can be built: %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(o *Options)
		words []string
	}{
		"no provisioning file": {func(o *Options) { o.Provision = deb + "x" }, []string{"bitbox-app provision", deb}},
		"a strange machine":    {func(o *Options) { o.Architecture = "m68k" }, []string{"m68k", "arm64"}},
		"no package":           {func(o *Options) { o.Package = deb + "x" }, []string{"make package"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			c.spoil(&o)
			sentence(t, o.Check(), c.words...)
		})
	}
}

func TestAMachineThatCannotBuildSaysWhatIsMissing(t *testing.T) {
	sentence(t, checkRoot(1000), "root")
	sentence(t, checkRoom(t.TempDir(), 1<<62), "MiB", "room")
	if err := checkRoom(t.TempDir(), 1); err != nil {
		t.Errorf("one byte of room: %v", err)
	}
	binfmt := t.TempDir()
	other := "arm64"
	if checkForeign("arm64", binfmt) == nil {
		other = "amd64"
	}
	sentence(t, checkForeign(other, binfmt), "qemu-user-static", other)
	for content, can := range map[string]bool{"enabled\ninterpreter /usr/libexec/qemu\n": true, "disabled\n": false} {
		if err := os.WriteFile(filepath.Join(binfmt, "qemu-"+machine[other]), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkForeign(other, binfmt); (err == nil) != can {
			t.Errorf("with an interpreter that is %q: %v", content, err)
		}
	}
	if os.Geteuid() == 0 {
		t.Setenv("PATH", t.TempDir())
		o := Options{Architecture: "amd64", Out: filepath.Join(t.TempDir(), "out"), Cache: t.TempDir()}
		sentence(t, o.CheckMachine(), tools[0].name, "setup-image")
	}
}

func TestAnImageIsThereWholeOrNotAtAll(t *testing.T) {
	for name, c := range map[string]struct {
		keys string
		mode fs.FileMode
	}{"for everybody": {"", 0o644}, "with a provisioning file": {"file", 0o600}} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			o := Options{Out: filepath.Join(directory, "image"), Provision: c.keys}
			cut := errors.New("power cut")
			err := o.writeAtomically(func(path string) error {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("while it is written: %v, %v", info.Mode(), err)
				}
				return errors.Join(os.WriteFile(path, []byte("half"), 0o600), cut)
			})
			if entries, _ := os.ReadDir(directory); !errors.Is(err, cut) || len(entries) != 0 {
				t.Errorf("a cut left %v, %v", entries, err)
			}
			if err := o.writeAtomically(func(path string) error { return os.WriteFile(path, []byte("whole"), 0o600) }); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(o.Out)
			info, statErr := os.Stat(o.Out)
			if errors.Join(err, statErr) != nil || string(content) != "whole" || info.Mode().Perm() != c.mode {
				t.Errorf("it holds %q with mode %v: %v, %v", content, info.Mode(), err, statErr)
			}
		})
	}
}

func TestEachImageHasNamesOfItsOwn(t *testing.T) {
	one, err := newDisk(nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := newDisk(nil)
	if err != nil {
		t.Fatal(err)
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for _, d := range []disk{one, two} {
		for _, id := range []string{d.id, d.efi.id, d.root.id, d.data.id, d.rootSystem, d.dataSystem} {
			if seen[id] || !uuid.MatchString(id) {
				t.Errorf("the name %s is no UUID, or twice there", id)
			}
			seen[id] = true
		}
	}
	if _, err := newDisk(bytes.NewReader(make([]byte, 20))); err == nil {
		t.Error("names were made of randomness that ended")
	}
}

func TestTheRootIsReadOnlyAndTheLoaderAsksNobody(t *testing.T) {
	d, err := newDisk(nil)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(d.fstab()) {
		if fields := strings.Fields(line); fields[1] == "/" && (fields[3] != "ro,noatime" || fields[0] != "PARTUUID="+d.root.id) {
			t.Errorf("the root: %s", line)
		}
	}
	grub := d.grub()
	if strings.Count(grub, " ro ") != 2 || strings.Count(grub, "root=PARTUUID="+d.root.id) != 2 || !strings.Contains(grub, d.rootSystem) {
		t.Errorf("the loader does not start the root read-only:\n%s", grub)
	}
	if strings.Contains(grub, "menuentry") || !strings.Contains(grub, "superusers=") {
		t.Errorf("the loader lets somebody choose:\n%s", grub)
	}
	if end := d.data.start + d.data.size; d.root.start != d.efi.start+d.efi.size || d.data.start != d.root.start+d.root.size ||
		d.size() <= end {
		t.Errorf("partitions overlap: %+v", d)
	}
}

func TestAnImageGetsItsUpdatesFromDebianAlone(t *testing.T) {
	got, err := sources(`# a comment
deb http://debian.example/debian trixie main contrib
deb http://debian.example/debian-security trixie-security main non-free

#deb-src http://debian.example/debian trixie main
deb-src http://debian.example/debian trixie main
`)
	const want = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://debian.example/debian trixie main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://debian.example/debian-security trixie-security main
`
	if err != nil || got != want {
		t.Errorf("the image asks, %v:\n%s", err, got)
	}
	for _, list := range []string{"", "deb http://debian.example/debian trixie main\n"} {
		if _, err := sources(list); err == nil {
			t.Errorf("%q was taken, without security updates", list)
		}
	}
}

package build

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

func TestImpossibleOptionsAreRefusedInOneSentence(t *testing.T) {
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
		"Microsoft alone":      {func(o *Options) { o.Microsoft = true }, []string{"make secure-boot-keys"}},
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
	installed := func(program string) (string, error) { return program, nil }
	if checkForeign("arm64", binfmt, installed) == nil {
		other = "amd64"
	}
	sentence(t, checkForeign(other, binfmt, installed), "qemu-user-static", other)
	for content, can := range map[string]bool{"enabled\ninterpreter /usr/libexec/qemu\n": true, "disabled\n": false} {
		if err := os.WriteFile(filepath.Join(binfmt, "qemu-"+architectures[other].machine), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkForeign(other, binfmt, installed); (err == nil) != can {
			t.Errorf("with an interpreter that is %q: %v", content, err)
		}
		if can {
			sentence(t, checkForeign(other, binfmt, func(string) (string, error) { return "", os.ErrNotExist }), "arch-test")
		}
	}
	if os.Geteuid() == 0 {
		t.Setenv("PATH", t.TempDir())
		o := Options{Architecture: "amd64", Out: filepath.Join(t.TempDir(), "out"), Cache: t.TempDir()}
		sentence(t, o.CheckMachine(), programs[0].name, "setup-image")
	}
}

func TestAnImageIsReplacedWholeOrNotAtAll(t *testing.T) {
	directory := t.TempDir()
	o := Options{Out: filepath.Join(directory, "image-amd64")}
	for _, content := range []string{"first", "second"} {
		made := t.TempDir()
		if err := os.WriteFile(filepath.Join(made, DiskFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := o.replace(t.Context(), made); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(o.Out, DiskFile))
		if err != nil || string(got) != content {
			t.Errorf("it holds %q: %v", got, err)
		}
	}
	if err := o.replace(t.Context(), filepath.Join(directory, "missing")); err == nil {
		t.Error("what is not there was put in its place")
	}
	if got, err := os.ReadFile(filepath.Join(o.Out, DiskFile)); err != nil || string(got) != "second" {
		t.Errorf("after a failure it holds %q: %v", got, err)
	}
	if entries, err := os.ReadDir(directory); err != nil || len(entries) != 1 {
		t.Errorf("there is left %v: %v", entries, err)
	}
}

func TestTheCommandLineLeavesNothingOpen(t *testing.T) {
	fields := strings.Fields(kernelArguments)
	for _, argument := range []string{"ro", "lockdown=integrity", "systemd.import_credentials=no", "systemd.getty_auto=no",
		"systemd.gpt_auto=no", "gpt", "panic=10"} {
		if !slices.Contains(fields, argument) {
			t.Errorf("%s is missing", argument)
		}
	}
}

func TestTheArchiveIsWhatTheKernelReads(t *testing.T) {
	tree := t.TempDir()
	if err := os.MkdirAll(filepath.Join(tree, "modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"init": "program", "modules/modules.dep": "odd", "cmdline": ""} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var one, two bytes.Buffer
	if err := errors.Join(writeArchive(&one, tree), writeArchive(&two, tree)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) || one.Len()%4 != 0 {
		t.Error("the archive differs from time to time, or is not filled up")
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not here")
	}
	list := exec.Command("cpio", "--list", "--verbose", "--numeric-uid-gid")
	list.Stdin = &one
	out, err := list.CombinedOutput()
	for _, line := range []string{`-rwxr-xr-x +1 0 +0 +7 .* init\n`, `-rw-r--r-- +1 0 +0 +3 .* modules/modules.dep\n`, `crw------- .* 5, +1 .* dev/console\n`,
		`lrwxrwxrwx .* sbin/modprobe -> /init\n`} {
		if !regexp.MustCompile(line).Match(out) {
			t.Errorf("%s is not in it: %v\n%s", line, err, out)
		}
	}
}

func TestModulesComeWithWhatTheyNeed(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "modules")
	for name, content := range map[string]string{
		"kernel/fs/erofs/erofs.ko.xz": "e", "kernel/lib/lz4/lz4.ko.xz": "l", "kernel/drivers/net/network.ko.xz": "n",
		"kernel/drivers/scsi/sd_mod.ko.xz":    "s",
		"kernel/drivers/scsi/sd_modern.ko.xz": "o",
		"modules.dep": "kernel/fs/erofs/erofs.ko.xz: kernel/lib/lz4/lz4.ko.xz\nkernel/lib/lz4/lz4.ko.xz:\n" +
			"kernel/drivers/net/network.ko.xz:\nkernel/drivers/scsi/sd_mod.ko.xz:\nkernel/drivers/scsi/sd_modern.ko.xz:\n",
		"modules.alias": "# odd\nalias fs-erofs erofs\nalias pci:v1* network\n",
	} {
		if err := put(from, name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := chooseModules(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"modules.dep": "sd_mod.ko:\nerofs.ko: lz4.ko\nlz4.ko:\n", "modules.alias": "alias fs-erofs erofs\n", "erofs.ko.xz": "e", "lz4.ko.xz": "l",
		"network.ko.xz": "", "sd_modern.ko.xz": "",
	} {
		if got, _ := os.ReadFile(filepath.Join(to, name)); string(got) != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
}

func TestTheFoldersOfVarStayAndItsFilesGo(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"var/lib/dpkg/status", "var/lib/nginx/body/rest", "var/log/apt/history.log"} {
		if err := put(root, name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/run", filepath.Join(root, "var/run")); err != nil {
		t.Fatal(err)
	}
	if err := splitVar(root); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, folder := range []string{"var", factory} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if !entry.IsDir() || folder == "var" {
				left = append(left, strings.TrimPrefix(path, root+"/"))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"var", factory + "/lib/dpkg", factory + "/run"}; !slices.Equal(left, want) {
		t.Errorf("there is left %q, not %q", left, want)
	}
	if content, err := os.ReadFile(filepath.Join(root, packageDatabase, "status")); err != nil || string(content) != "x" {
		t.Errorf("dpkg's database holds %q: %v", content, err)
	}
}

// A firmware refuses a file with such a list, and the machine would start without Secure Boot.
func TestASignedListWithoutACertificateIsNotBuiltIn(t *testing.T) {
	number := func(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
	list := func(certificate int) []byte {
		return slices.Concat(make([]byte, 16), number(28+16+certificate), number(0), number(16+certificate), make([]byte, 16+certificate))
	}
	signature := slices.Concat(make([]byte, 16), number(24), make([]byte, 20))
	for name, c := range map[string]struct {
		content []byte
		refused string
	}{
		"two certificates":          {slices.Concat(signature, list(700), list(1500)), ""},
		"the last one is not there": {slices.Concat(signature, list(700), list(0)), "of no bytes"},
		"no list":                   {signature, "cut short"},
		"half a list":               {slices.Concat(signature, list(700)[:400]), "cut short"},
		"half a header":             {slices.Concat(signature, list(700), list(700)[:20]), "cut short"},
		"a list of size 0":          {slices.Concat(signature, make([]byte, 60)), "cut short"},
		"nothing":                   {nil, "cut short"},
	} {
		err := checkEnrol(write(t, "db.auth", c.content))
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

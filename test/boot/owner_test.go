//go:build linux

package boot_test

import (
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The package of the owner's program, for the owner's own computer.
func TestTheAppsPackageBringsAnIconThatOpensTheWindowAndStartsNothing(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "dpkg-deb", "desktop-file-validate")
	file := makePackage(t, "bitbox-app", "../..", oldVersion, t.TempDir(), sourceDate, quickly)
	root := filepath.Join(t.TempDir(), "root")
	host(t, "dpkg-deb", "--extract", file, root)

	const entry = "usr/share/applications/bitbox-app.desktop"
	host(t, "desktop-file-validate", filepath.Join(root, entry))
	text, err := os.ReadFile(filepath.Join(root, entry))
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.desktop")
	if err := os.WriteFile(broken, []byte(strings.Replace(string(text), "Terminal=false", "Terminal=perhaps", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if exec.Command("desktop-file-validate", broken).Run() == nil {
		t.Error("desktop-file-validate takes a broken entry; this test proves nothing")
	}
	value := func(key string) string {
		found := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(string(text))
		if found == nil {
			t.Fatalf("%s has no %s", entry, key)
		}
		return found[1]
	}
	// Each icon is as large as its folder says.
	pictures, err := filepath.Glob(filepath.Join(root, "usr/share/icons/hicolor/*x*/apps", value("Icon")+".png"))
	if err != nil || len(pictures) == 0 {
		t.Errorf("there are no icons (%v)", err)
	}
	for _, path := range pictures {
		picture, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		config, err := png.DecodeConfig(picture)
		_ = picture.Close()
		if size := strconv.Itoa(config.Width); err != nil || filepath.Base(filepath.Dir(filepath.Dir(path))) != size+"x"+size {
			t.Errorf("%s has a side of %s pixels, %v", path, size, err)
		}
	}

	s := debian(t, nil, file)
	listened, wereActive, before := listens(s), active(s), etc(s)
	if out, err := install(t, s, file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	same(t, "after the installation what listens", listens(s), listened)
	same(t, "after the installation what is active", active(s), wereActive)
	if found := changes(before, etc(s)); len(found) > 0 {
		t.Errorf("the installation has changed %q", found)
	}
	// An ordinary user can start the icon's program, and root cannot.
	command := strings.Fields(value("Exec"))
	if out := s.MustExec(append([]string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"},
		append(command, "--help")...)...); !strings.Contains(out, "bitbox-app window") {
		t.Errorf("%q --help says %s", command, out)
	}
	if out, err := s.Exec(append([]string{"env", "BITBOX_APP_DIR=/tmp/app"}, command...)...); err == nil || !strings.Contains(out, "root") {
		t.Errorf("as root, %q says %s, %v", command, out, err)
	}
	if out := s.MustExec("bitbox-app", "version"); !strings.Contains(out, oldVersion) {
		t.Errorf("its version is %s", out)
	}
	mustLong(t, s, "dpkg", "--purge", "bitbox-app")
	left := s.MustExec("find", "/usr", "/etc", "/var", "-path", "/var/packages", "-prune", "-o", "-name", "*bitbox-app*", "-print")
	if left != "" {
		t.Errorf("the purge leaves %s", left)
	}
}

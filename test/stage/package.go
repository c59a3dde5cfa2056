//go:build linux

package stage

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
)

// MakePackage makes our Debian package of this source in a directory, and returns its
// path.
func MakePackage(version, directory string) (string, error) {
	command := exec.Command(filepath.Join(repository, "scripts", "package"), version, runtime.GOARCH, directory)
	command.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("make the package: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// installPackage makes a Base of a Debian, by our package and what `bitbox-base setup`
// does below a root.
func installPackage(root, file string) error {
	const inside = "bitbox-base.deb"
	if err := copyFile(file, filepath.Join(root, inside)); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(root, inside))
	for _, argv := range [][]string{
		{"unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--root=" + root, "--mount-proc", "--", "dpkg", "--install", "/" +
			inside},
		// There are no updates here, and nobody at a screen.
		{"systemctl", "--root=" + root, "mask", "--quiet", "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service"},
	} {
		command := exec.Command(argv[0], argv[1:]...)
		command.Env = environment
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, tail(string(out), 2000))
		}
	}
	plan, err := setup.Plan(root, setup.Options{}, nil)
	if err == nil {
		err = plan.Apply(root)
	}
	if err != nil {
		return fmt.Errorf("activate the Base: %w", err)
	}
	return os.WriteFile(filepath.Join(root, "etc", "hostname"), []byte("bitbox-base\n"), 0o644)
}

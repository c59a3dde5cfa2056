package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
)

// Configure makes an appliance of a root with Debian's packages in it: our package,
// activated as `bitbox-base setup` does it, and what an image has beside.
func Configure(ctx context.Context, root string, o Options) error {
	if err := copyFile(o.Package, filepath.Join(root, "bitbox-base.deb")); err != nil {
		return err
	}
	if err := runInside(ctx, root, "dpkg", "--install", "/bitbox-base.deb"); err != nil {
		return fmt.Errorf("install the package: %w", err)
	}
	if err := os.Remove(filepath.Join(root, "bitbox-base.deb")); err != nil {
		return err
	}
	plan, err := setup.Plan(root, setup.Options{}, nil)
	if err == nil {
		err = plan.Apply(root)
	}
	if err != nil {
		return fmt.Errorf("activate the Base: %w", err)
	}
	if err := runInside(ctx, root, "usermod", "--lock", "root"); err != nil {
		return err
	}
	if err := copyOverlay(root); err != nil {
		return err
	}
	for path, content := range map[string]string{
		"etc/hostname": DefaultHostname + "\n",
		"etc/hosts":    hosts(DefaultHostname),
		"etc/fstab":    fstab,
		// Updates come as whole versions (docs/updates.md); nothing asks Debian's archives.
		"etc/apt/sources.list": "",
		// A board's own is mounted over it, see image/initrd.
		"etc/machine-id": "",
	} {
		if err := put(root, path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for path, target := range links {
		if err := relink(root, path, target); err != nil {
			return err
		}
	}
	for _, pattern := range leftovers {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("clean the root up: %w", err)
			}
		}
	}
	return nil
}

// DefaultHostname is the name of a machine that was given none.
const DefaultHostname = "bitbox-base"

// links are what an image has beside the package's.
var links = map[string]string{
	// The network is ours to configure here.
	"etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
	"etc/systemd/system/sockets.target.wants/systemd-networkd.socket":     "/lib/systemd/system/systemd-networkd.socket",
	"etc/resolv.conf":         "../run/systemd/resolve/stub-resolv.conf",
	"var/lib/dbus/machine-id": "/etc/machine-id",
	// They would ask at a first boot, or look after what is not there.
	"etc/systemd/system/systemd-firstboot.service": "/dev/null",
	"etc/systemd/system/e2scrub_reap.service":      "/dev/null",
	"etc/systemd/system/e2scrub_all.timer":         "/dev/null",
	// Updates come as whole versions (docs/updates.md), and the initrd has made the partitions.
	"etc/systemd/system/apt-daily.timer":             "/dev/null",
	"etc/systemd/system/apt-daily-upgrade.timer":     "/dev/null",
	"etc/systemd/system/dpkg-db-backup.timer":        "/dev/null",
	"etc/systemd/system/systemd-repart.service":      "/dev/null",
	"etc/systemd/system/unattended-upgrades.service": "/dev/null",
	// It offers SSH to the host of a virtual machine, and fails where there is none.
	"etc/systemd/system-generators/systemd-ssh-generator": "/dev/null",
}

// leftovers are what the making leaves: settings and caches of the building machine,
// and keys, of which each board makes its own.
var leftovers = []string{
	"etc/apt/apt.conf.d/99mmdebstrap",
	"etc/apt/sources.list.d/0000*",
	"etc/ssh/ssh_host_*",
	"root/.*_history",
	"var/cache/apt/*.bin",
	"var/cache/apt/archives/*.deb",
	"var/cache/debconf/*-old",
	"var/lib/apt/lists/*",
	"var/lib/bitbox-base/ssh/*",
	"var/lib/systemd/random-seed",
	"var/log/*.log",
	"var/log/apt/*",
}

func relink(root, path, target string) error {
	full := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link /%s: %w", path, err)
	}
	if err := os.Symlink(target, full); err != nil {
		return fmt.Errorf("link /%s: %w", path, err)
	}
	return nil
}

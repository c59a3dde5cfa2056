package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// programs are those of the building machine that building calls, each with Debian's package of it.
var programs = []struct{ name, debian string }{
	{"apt-config", "apt"},
	{"cp", "coreutils"},
	{"dpkg-deb", "dpkg"},
	{"mmdebstrap", "mmdebstrap"},
	{"systemd-nspawn", "systemd-container"},
	{"unshare", "util-linux"},
}

// Room that building needs, with some to spare.
const (
	cacheRoom = 3 << 30 // Debian's part, while it is made again, and a copy
	imageRoom = 2 << 30 // the image is sparse
)

// Ready is Check and CheckMachine.
func (o Options) Ready() error {
	if err := o.Check(); err != nil {
		return err
	}
	return o.CheckMachine()
}

// CheckMachine refuses where building cannot succeed, before anything begins.
func (o Options) CheckMachine() error {
	if err := checkRoot(os.Geteuid()); err != nil {
		return err
	}
	for _, tool := range programs {
		if _, err := exec.LookPath(tool.name); err != nil {
			return fmt.Errorf("the program %s is missing; ./scripts/setup-image installs it (Debian's package %s)", tool.name, tool.debian)
		}
	}
	if err := checkForeign(o.Architecture, "/proc/sys/fs/binfmt_misc", exec.LookPath); err != nil {
		return err
	}
	if err := checkRoom(o.Cache, cacheRoom); err != nil {
		return err
	}
	return checkRoom(filepath.Dir(o.Out), imageRoom)
}

func checkRoot(user int) error {
	if user != 0 {
		return errors.New("building an image needs root, for its files belong to root and other users; run it again as root")
	}
	return nil
}

// checkForeign says what is missing to run programs of an architecture here.
func checkForeign(architecture, binfmt string, find func(program string) (string, error)) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if unix.ByteSliceToString(name.Machine[:]) == architectures[architecture].machine {
		return nil
	}
	state, err := os.ReadFile(filepath.Join(binfmt, "qemu-"+architectures[architecture].machine))
	if err != nil || !strings.HasPrefix(string(state), "enabled") {
		return fmt.Errorf("this machine cannot run programs of %s: install qemu-user-static and let systemd-binfmt.service register it (%s has no qemu-%s)",
			architecture, binfmt, architectures[architecture].machine)
	}
	// mmdebstrap asks it whether that works.
	if _, err := find("arch-test"); err != nil {
		return errors.New("the program arch-test is missing; ./scripts/setup-image arm64 installs it")
	}
	return nil
}

// checkRoom says so if a directory's disk has too little room.
func checkRoom(directory string, needed uint64) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("make the directory %s: %w", directory, err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(directory, &disk); err != nil {
		return fmt.Errorf("ask how much room %s has: %w", directory, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < needed {
		return fmt.Errorf("the disk of %s has room for %d MiB, and building needs %d MiB there; make room, or name another directory", directory,
			free>>20, needed>>20)
	}
	return nil
}

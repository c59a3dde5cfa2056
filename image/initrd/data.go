//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

const (
	// definitions say which partitions the first boot makes.
	definitions = "/usr/lib/bitbox-base/repart.d"
	// factory is what /var holds on a new Base: folders of packages.
	factory = "/usr/share/factory/var"
	data    = "/var"
	// machineID is kept on the data partition: the root is the same for all boards.
	machineID = "/var/lib/machine-id"

	// making is how long the first boot may take to make the data partition: large disks are slow.
	making = 15 * time.Minute
	// checking is how long the check of the data partition may take.
	checking = 30 * time.Minute
)

// openData mounts the data partition at /var. If the disk has none, it makes it.
func openData(d *disk) error {
	found, err := d.data()
	if err != nil {
		return err
	}
	if !found {
		if err := makeData(d); err != nil {
			return fmt.Errorf("make the data partition: %w", err)
		}
	}
	device, err := d.device(bootdisk.Data)
	if err != nil {
		return err
	}
	// 1: it has repaired what is safe to repair (e2fsck(8)).
	if code, out, err := run(checking, "/usr/sbin/e2fsck", "-p", device); err != nil || code > 1 {
		return fmt.Errorf("check the file system of %s: %w", device, failed("e2fsck", code, out, err))
	}
	if err := unix.Mount(device, data, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, "usrquota"); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	if err := fill(factory, data); err != nil {
		return fmt.Errorf("make the folders of /var: %w", err)
	}
	id, err := keepMachineID(machineID)
	if err != nil {
		return fmt.Errorf("keep the machine id: %w", err)
	}
	if err := os.WriteFile("/run/machine-id", []byte(id+"\n"), 0o444); err != nil {
		return err
	}
	return unix.Mount("/run/machine-id", "/etc/machine-id", "", unix.MS_BIND, "")
}

// data tells whether the disk has a data partition, in its place.
func (d disk) data() (found bool, err error) {
	for _, p := range d.partitions {
		if ours := p.Type.String() == bootdisk.DataType && p.Name == bootdisk.DataName; ours != (p.Number == bootdisk.Data) {
			return false, fmt.Errorf("partition %d of %s is %q of type %s, which is not as the image lays a disk out", p.Number, d.name, p.Name,
				p.Type)
		} else if ours {
			found = true
		}
	}
	return found, nil
}

// makeData makes the partitions that the image leaves out. systemd-repart writes the file system first and the partition
// table last: after a power cut there is no data partition, and the next boot begins again.
func makeData(d *disk) error {
	code, out, err := run(making, "/usr/bin/systemd-repart", "--dry-run=no", "--empty=refuse", "--seed=random", "--no-pager", "--no-legend",
		"--definitions="+definitions, "/dev/"+d.name)
	if err != nil || code != 0 {
		return failed("systemd-repart", code, out, err)
	}
	made, err := readDisk(d.name)
	if err != nil {
		return err
	}
	*d = made
	if found, err := d.data(); err != nil || !found {
		return errors.Join(errors.New("it is not there afterwards"), err)
	}
	return nil
}

// run runs a program of the root, and returns the end of what it printed.
func run(limit time.Duration, argv ...string) (code int, out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8", "TMPDIR=/run",
		// Quotas count what each user stores (bitbox-base-limits.service).
		"SYSTEMD_REPART_MKFS_OPTIONS_EXT4=-O quota -E quotatype=usrquota -m 1"}
	text, err := command.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return command.ProcessState.ExitCode(), strings.Join(lines[max(0, len(lines)-5):], "; "), err
}

// failed says how a program has failed: with an exit code, or, if err is not nil, without one.
func failed(program string, code int, out string, err error) error {
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, out)
	}
	return fmt.Errorf("%s ended with %d: %s", program, code, out)
}

// fill makes what is missing of a tree of folders and links. A version that is started for the first time may need more
// than the previous version.
func fill(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if _, err := os.Lstat(target); name != "." && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		switch {
		case name == ".":
		case entry.Type() == fs.ModeSymlink:
			leads, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(leads, target)
		case entry.IsDir():
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a folder nor a link", path)
		}
		if err := os.Lchown(target, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
		return unix.Chmod(target, stat.Mode&0o7777)
	})
}

var machineIDs = regexp.MustCompile(`^[0-9a-f]{32}\n$`)

// keepMachineID returns the id in a file, and draws it if there is none.
func keepMachineID(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err == nil && machineIDs.Match(content) {
		return strings.TrimSpace(string(content)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	drawn, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return "", err
	}
	id := strings.ReplaceAll(strings.TrimSpace(string(drawn)), "-", "")
	return id, atomicfile.WriteFileAtomic(path, []byte(id+"\n"), 0o444)
}

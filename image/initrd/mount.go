//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// variables is where the firmware's variables are.
const variables = "/sys/firmware/efi/efivars"

// newRoot is where the verified root is mounted until it is the root.
const newRoot = "/newroot"

// kernelMounts are what every program needs; they move to the root of the image.
var kernelMounts = []struct {
	path, kind, options string
	flags               uintptr
}{
	{"/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NOEXEC},
	{"/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/run", "tmpfs", "mode=0755,size=20%", unix.MS_NOSUID | unix.MS_NODEV},
}

func mountKernel() error {
	for _, m := range kernelMounts {
		if err := os.MkdirAll(m.path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.path, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	return nil
}

// mountVariables mounts the firmware's variables.
func mountVariables() error {
	if err := unix.Mount("efivarfs", variables, "efivarfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount the firmware's variables (the image starts by UEFI only): %w", err)
	}
	return nil
}

// enterRoot makes newRoot the root of the machine, and frees the memory of the initrd.
func enterRoot() error {
	// systemd mounts the variables as it needs them.
	if err := unix.Unmount(variables, 0); err != nil {
		return fmt.Errorf("unmount the firmware's variables: %w", err)
	}
	for _, m := range kernelMounts {
		if err := unix.Mount(m.path, newRoot+m.path, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m.path, err)
		}
	}
	if err := removeHere("/"); err != nil {
		return fmt.Errorf("free the memory of the initrd: %w", err)
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make the root of the image the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// removeHere removes all files below a directory that are on its own file system.
func removeHere(directory string) error {
	var here unix.Stat_t
	if err := unix.Stat(directory, &here); err != nil {
		return err
	}
	return filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		switch {
		case stat.Dev != here.Dev:
			return filepath.SkipDir
		case !entry.IsDir():
			return os.Remove(path)
		}
		return nil
	})
}

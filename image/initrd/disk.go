//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/gpt"
)

// startedFromVariable is set by systemd's boot loader: the PARTUUID of the ESP that it was started from.
const startedFromVariable = "LoaderDevicePartUUID-" + loaderVendor

// startedFrom returns the PARTUUID of the ESP that the firmware has started from, in lower case.
func startedFrom(v firmware) (string, error) {
	text := v.loaderText(startedFromVariable)
	if len(text) != 1 {
		return "", errors.New("ask the firmware which disk it has started from: it does not say")
	}
	return strings.ToLower(text[0]), nil
}

// disk is a disk with its partitions.
type disk struct {
	name       string // as the kernel calls it, such as sda
	partitions []gpt.Partition
}

// findDisk waits for the disk with the ESP that the firmware has started from.
//
// All disks with the same image have the same PARTUUIDs. If two of them are there, nobody can say which of them holds
// the data of this Base, so neither is taken.
func findDisk(m *modules, esp string) (found disk, err error) {
	err = m.each(diskPatience, func() (bool, error) {
		disks, err := filepath.Glob("/sys/block/*")
		if err != nil {
			return false, err
		}
		found = disk{}
		for _, path := range disks {
			d, err := readDisk(filepath.Base(path))
			if err != nil || !d.has(bootdisk.ESPType, esp) {
				continue // not one of ours, or not yet
			}
			if found.name != "" {
				return true, fmt.Errorf("find the disk: %s and %s have the same image; remove one of them", found.name, d.name)
			}
			found = d
		}
		if found.name == "" {
			return false, fmt.Errorf("find the disk: no disk has the EFI partition %s from which the firmware has started", esp)
		}
		return true, nil
	})
	return found, err
}

// readDisk reads the partition table of a disk.
func readDisk(name string) (disk, error) {
	size, err := os.ReadFile(filepath.Join("/sys/block", name, "size"))
	if err != nil {
		return disk{}, err
	}
	sectors, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 10, 54) // of 512 bytes, whatever the disk's are
	if err != nil {
		return disk{}, err
	}
	f, err := os.Open(filepath.Join("/dev", name))
	if err != nil {
		return disk{}, err
	}
	defer f.Close()
	table, err := gpt.Read(f, sectors*512)
	if err != nil {
		return disk{}, err
	}
	return disk{name, table.Partitions()}, nil
}

func (d disk) has(kind, uuid string) bool {
	for _, p := range d.partitions {
		if p.Type.String() == kind && p.ID.String() == uuid {
			return true
		}
	}
	return false
}

// device is the path of a partition.
func (d disk) device(number int) (string, error) {
	files, err := filepath.Glob(filepath.Join("/sys/block", d.name, "*", "partition"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(content)) == strconv.Itoa(number) {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", fmt.Errorf("the kernel has no partition %d of %s", number, d.name)
}

// publish tells the running system where the partitions are.
func (d disk) publish(directory, slot string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for number, link := range map[int]string{
		bootdisk.ESP: bootdisk.ESPLink, bootdisk.RootA: bootdisk.RootALink, bootdisk.VerityA: bootdisk.VerityALink,
		bootdisk.RootB: bootdisk.RootBLink, bootdisk.VerityB: bootdisk.VerityBLink, bootdisk.Data: bootdisk.DataLink,
	} {
		device, err := d.device(number)
		if err != nil {
			return err
		}
		if err := os.Symlink(device, filepath.Join(directory, link)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(directory, bootdisk.SlotFile), []byte(slot+"\n"), 0o644)
}

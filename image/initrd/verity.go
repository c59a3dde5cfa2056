//go:build linux

package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

// verity is what the begin of a hash tree says. Nobody has verified it: if a byte of it is wrong, no block of the root
// agrees with the root hash.
type verity struct {
	blocks uint64
	salt   []byte
}

// parseVerity reads the superblock of a hash tree, as veritysetup writes it:
//
//	 0 "verity\0\0"   8 version   12 type   16 UUID   32 algorithm   64 size of data blocks
//	68 size of hash blocks   72 number of data blocks   80 length of the salt   88 salt
func parseVerity(b []byte) (verity, error) {
	le := binary.LittleEndian
	if len(b) < 512 || string(b[:8]) != "verity\x00\x00" {
		return verity{}, errors.New("there is no hash tree")
	}
	algorithm, salt := [32]byte{}, int(le.Uint16(b[80:]))
	copy(algorithm[:], "sha256")
	if le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1 || [32]byte(b[32:64]) != algorithm || salt > 256 ||
		le.Uint32(b[64:]) != bootdisk.BlockSize || le.Uint32(b[68:]) != bootdisk.BlockSize {
		return verity{}, errors.New("the hash tree is of another kind")
	}
	blocks := le.Uint64(b[72:])
	if blocks == 0 || blocks > bootdisk.RootSize/bootdisk.BlockSize {
		return verity{}, fmt.Errorf("the hash tree is for %d blocks", blocks)
	}
	return verity{blocks, b[88:][:salt]}, nil
}

// panics has a read of a block that does not agree with the root hash end the machine: with an error instead, programs would
// go on with half of their files. The screen shows the kernel's reason until the machine restarts.
const panics = " 1 panic_on_corruption"

// table is the parameters of the kernel's target (Documentation/admin-guide/device-mapper/verity.rst).
func (v verity) table(root, tree uint64, hash string) string {
	salt := "-"
	if len(v.salt) > 0 {
		salt = hex.EncodeToString(v.salt)
	}
	device := func(d uint64) string { return fmt.Sprintf("%d:%d", unix.Major(d), unix.Minor(d)) }
	return fmt.Sprintf("1 %s %s %d %d %d 1 sha256 %s %s", device(root), device(tree), bootdisk.BlockSize,
		bootdisk.BlockSize, v.blocks, hash, salt)
}

// openRoot mounts the root with a hash, from the disk that the machine was started from, and returns its slot.
func openRoot(d disk, hash string) (slot string, err error) {
	rootID, treeID, err := bootdisk.PartUUIDs(hash)
	if err != nil {
		return "", err
	}
	for _, s := range []struct {
		name       string
		root, tree int
	}{{"a", bootdisk.RootA, bootdisk.VerityA}, {"b", bootdisk.RootB, bootdisk.VerityB}} {
		for _, p := range d.partitions {
			if p.Number == s.root && p.ID.String() == rootID {
				return s.name, d.mountRoot(s.root, s.tree, hash)
			}
		}
	}
	return "", fmt.Errorf("open the root: neither slot of %s holds the root %s (its hash tree would be %s)", d.name, rootID, treeID)
}

func (d disk) mountRoot(root, tree int, hash string) error {
	devices := map[int]uint64{}
	paths := map[int]string{}
	for _, number := range []int{root, tree} {
		path, err := d.device(number)
		if err != nil {
			return fmt.Errorf("open the root: %w", err)
		}
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			return fmt.Errorf("open the root: %s: %w", path, err)
		}
		paths[number], devices[number] = path, stat.Rdev
	}
	begin := make([]byte, 512)
	f, err := os.Open(paths[tree])
	if err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	_, err = io.ReadFull(f, begin)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("open the root: read %s: %w", paths[tree], err)
	}
	v, err := parseVerity(begin)
	if err != nil {
		return fmt.Errorf("open the root: %s: %w", paths[tree], err)
	}
	sectors, table := v.blocks*bootdisk.BlockSize/512, v.table(devices[root], devices[tree], hash)
	if err := readWhole(sectors, table); err != nil {
		return fmt.Errorf("open the root: %s is damaged: %w", paths[root], err)
	}
	device, err := mapDevice("root", sectors, "verity", table+panics)
	if err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, newRoot, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	return nil
}

// readWhole reads a root once, through a device that answers damage with an error. So damage that lasts is known for what it
// is: a panic would look like a power cut, and nobody could count it. It takes some seconds.
func readWhole(sectors uint64, table string) (err error) {
	const name = "check"
	device, err := mapDevice(name, sectors, "verity", table)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmapDevice(name)) }()
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := make([]byte, 1<<20)
	for read := int64(0); ; {
		n, err := f.Read(buffer)
		read += int64(n)
		if errors.Is(err, io.EOF) && read == int64(sectors)*512 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d MiB: %w", read>>20, err)
		}
	}
}

package chaindisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The superblock of ext4, as far as it is read: magic (2, little-endian) at 56, UUID (16) at 104, and
// label (16, ends with zeros) at 120 (Linux, Documentation/filesystems/ext4/super.rst).
const (
	superblockAt   = 1024 // from the beginning of the device, in bytes
	superblockSize = 136
	ext4Magic      = 0xef53
)

// superblock reads which ext4 file system is on a device, if one is; any other content is an empty
// signature. It stands in for blkid where that would read each disk as root: blkid knows a hundred
// formats, and a disk that somebody has plugged in may attack each of them.
func superblock(n *node) (signature, error) {
	var block [superblockSize]byte
	// A disk that hangs holds up the read alone.
	read := make(chan error, 1)
	go func() {
		file, err := os.Open(n.path())
		if err == nil {
			_, err = file.ReadAt(block[:], superblockAt)
			err = errors.Join(err, file.Close())
		}
		read <- err
	}()
	select {
	case err := <-read:
		if errors.Is(err, io.EOF) { // it is smaller than that
			return signature{}, nil
		}
		if err != nil {
			return signature{}, err
		}
	case <-time.After(lookTime):
		return signature{}, reason.New("it does not answer")
	}
	return parseSuperblock(block[:]), nil
}

func parseSuperblock(block []byte) signature {
	if binary.LittleEndian.Uint16(block[56:]) != ext4Magic {
		return signature{}
	}
	uuid := block[104:120]
	label, _, _ := bytes.Cut(block[120:136], []byte{0})
	return signature{kind: "ext4", label: short(string(label)),
		uuid: fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])}
}

// cleared is how much of both ends of a disk is overwritten to erase it, in bytes. Partition tables,
// file systems, volumes and RAIDs are recognised by what is there.
const cleared = 4 << 20

// clearEnds erases a disk, and has the kernel forget its partitions.
func clearEnds(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(cleared, size))
	for _, at := range []int64{size - int64(len(zeros)), 0} {
		if _, err := file.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	// EINVAL: a device of this kind has no partitions.
	if err := unix.IoctlSetInt(int(file.Fd()), unix.BLKRRPART, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return reason.Errorf("read its partitions again: %w", err)
	}
	return nil
}

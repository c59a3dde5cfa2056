//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's device mapper is configured by ioctl on /dev/mapper/control (include/uapi/linux/dm-ioctl.h). A request is
// one buffer:
//
//	  0 version, 3 x 4 bytes   12 size of the buffer   16 offset of what follows   20 number of targets   28 flags
//	 40 device number   48 name, 128 bytes   176 UUID, 129 bytes   305 to 312 filling
//	312 target: first sector   320 sectors   328 status   332 offset of the next   336 kind, 16 bytes   352 parameters
const (
	dmHeader     = 312
	dmTarget     = 40
	dmMagic      = 0xfd
	dmCreate     = 3
	dmRemove     = 4
	dmSuspend    = 6 // without the flag: resume
	dmLoad       = 9
	dmReadOnly   = 1 << 0
	dmMaxRequest = 4096
)

// mapDevice makes a read-only device of one target, and returns its path. Without udev nobody else makes one.
func mapDevice(name string, sectors uint64, kind, parameters string) (string, error) {
	device, err := mapping(name, sectors, kind, parameters, dmCreate, dmLoad, dmSuspend)
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(device)), err
}

// unmapDevice removes a device that nobody uses.
func unmapDevice(name string) error {
	_, err := mapping(name, 0, "", "", dmRemove)
	return err
}

// mapping has the device mapper do something with a device, step by step, and returns the device's number.
func mapping(name string, sectors uint64, kind, parameters string, commands ...uintptr) (device uint64, err error) {
	// The kernel makes this device from the misc driver's number as soon as the module is there.
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer control.Close()
	for _, command := range commands {
		b := make([]byte, dmMaxRequest)
		le := binary.LittleEndian
		le.PutUint32(b[0:], 4) // version 4.0.0
		le.PutUint32(b[12:], uint32(len(b)))
		le.PutUint32(b[16:], dmHeader)
		copy(b[48:48+127], name)
		if command == dmLoad {
			if dmHeader+dmTarget+len(parameters) >= len(b) || len(kind) > 15 {
				return 0, fmt.Errorf("map a device: its parameters are too long")
			}
			le.PutUint32(b[20:], 1)
			le.PutUint32(b[28:], dmReadOnly)
			le.PutUint64(b[dmHeader+8:], sectors)
			copy(b[dmHeader+24:], kind)
			copy(b[dmHeader+dmTarget:], parameters)
		}
		// _IOWR(0xfd, command, struct dm_ioctl)
		request := uintptr(3)<<30 | dmHeader<<16 | dmMagic<<8 | command
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
			return 0, fmt.Errorf("map the device %s, step %d: %w", name, command, errno)
		}
		device = le.Uint64(b[40:])
	}
	return device, nil
}

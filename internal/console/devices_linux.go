package console

import (
	"context"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// inputDevices is where the kernel shows buttons and keyboards.
	inputDevices = "/dev/input/event*"
	// scanEvery is how often to look for new ones.
	scanEvery = 5 * time.Second
	// maxDevices bounds how many are read.
	maxDevices = 16
)

// Requests of linux/input.h: _IOC(direction, 'E', number, size).
const (
	ioRead     = 2 << 30
	ioWrite    = 1 << 30
	evIOC      = 'E' << 8
	eviocGBit  = ioRead | evIOC | (0x20 + evKey) | (codeMax+1)/8<<16
	eviocGrab  = ioWrite | evIOC | 0x90 | 4<<16
	eviocClock = ioWrite | evIOC | 0xa0 | 4<<16
)

// device is a device that is read.
type device struct {
	path    string
	file    *os.File
	kind    deviceKind
	grabbed bool
}

// Buttons reads the buttons of this machine until ctx ends; for Screen.Buttons. It ignores a
// device that it cannot open, or that another process holds.
func Buttons(ctx context.Context, asking <-chan bool, pressed func(keyKind)) {
	devices := map[string]*device{}
	gone, events := make(chan *device), make(chan inputEvent)
	defer func() {
		for _, d := range devices {
			_ = d.file.Close()
		}
	}()
	state := &buttons{}
	asked := false
	scan, hold := time.NewTicker(scanEvery), time.NewTicker(tickEvery)
	defer scan.Stop()
	defer hold.Stop()
	find := func() {
		paths, _ := filepath.Glob(inputDevices)
		for _, path := range paths {
			if devices[path] != nil || len(devices) >= maxDevices {
				continue
			}
			if d := openDevice(path); d != nil {
				devices[path] = d
				d.take(asked)
				go d.read(ctx, events, gone)
			}
		}
	}
	find()
	for {
		select {
		case <-ctx.Done():
			return
		case <-scan.C:
			find()
		case d := <-gone:
			_ = d.file.Close()
			delete(devices, d.path)
			*state = buttons{} // which buttons are down there is no longer known
		case asked = <-asking:
			for _, d := range devices {
				d.take(asked)
			}
		case e := <-events:
			if kind := state.event(e); kind != 0 {
				pressed(kind)
			}
		case <-hold.C:
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
				continue
			}
			if kind := state.hold(time.Duration(now.Nano())); kind != 0 {
				pressed(kind)
			}
		}
	}
}

// openDevice returns nil for a device without buttons.
func openDevice(path string) *device {
	// The runtime waits for input, so closing the file ends a read.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	d := &device{path: path, file: os.NewFile(uintptr(fd), path)}
	var keys [(codeMax + 1) / 8]byte
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), eviocGBit, uintptr(unsafe.Pointer(&keys[0])))
	if errno == 0 {
		d.kind = classify(keys[:])
	}
	if d.kind == deviceOther || unix.IoctlSetPointerInt(fd, eviocClock, unix.CLOCK_MONOTONIC) != nil {
		_ = d.file.Close()
		return nil
	}
	return d
}

// take grabs the device, or releases it: a key that answers the console must not also switch the
// machine off, or be typed into the terminal.
func (d *device) take(asked bool) {
	want := d.kind == deviceButtons || asked
	if want == d.grabbed {
		return
	}
	raw, err := d.file.SyscallConn()
	if err != nil {
		return
	}
	value := uintptr(0)
	if want {
		value = 1
	}
	_ = raw.Control(func(fd uintptr) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, eviocGrab, value); errno == 0 {
			d.grabbed = want
		}
	})
}

// read passes events on until the device is gone.
func (d *device) read(ctx context.Context, events chan<- inputEvent, gone chan<- *device) {
	b := make([]byte, 64*inputEventSize) // the kernel gives whole events
	for {
		n, err := d.file.Read(b)
		for _, e := range parseInputEvents(b[:n]) {
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			select {
			case gone <- d:
			case <-ctx.Done():
			}
			return
		}
	}
}

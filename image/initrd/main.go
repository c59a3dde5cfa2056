//go:build linux

// Command initrd starts the image: it is the only program of the initrd, as process 1. It finds the disk that the
// firmware has started from, opens the root that the signed command line names by its hash, makes or opens the data
// partition, and hands over to systemd. docs/image.md describes what it does when something fails.
//
// It has no shell, reads no configuration, and takes nothing from the command line but the root hash. Whatever fails, it
// never goes on: there is no state between "everything is as it should be" and "nothing runs".
//
// The kernel calls the same program as /sbin/modprobe when it needs a module itself.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

// Deadlines and pauses.
const (
	// diskPatience is how long the disk may take to appear: a USB disk takes a few seconds.
	diskPatience = 90 * time.Second
	// reading is how long somebody has to read why the machine restarts.
	reading = 10 * time.Second
)

// dataError is a failure of the data partition, with a root that is good. Every other failure is one of the root.
type dataError struct{ error }

func (e dataError) Unwrap() error { return e.error }

func main() {
	if filepath.Base(os.Args[0]) == "modprobe" {
		if err := modprobe(os.Args[1:]); err != nil {
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "initrd: it runs as the first process of the image only")
		os.Exit(1)
	}
	stop(start())
}

// stop is what happens when the machine cannot be started.
//
// A root that fails may be a bad update: the machine restarts, which uses up one of the update's tries, until the boot
// loader takes the previous version. A version that was kept has as many tries (giveWay). Where no version is left the machine
// stops. Data that fails is no fault of the version, and is there after a new start as well:
// the machine stays as it is, with nothing running, until somebody has read why.
func stop(err error) {
	var data dataError
	if errors.Is(err, errStop) {
		say("The Base cannot start: %v. Nothing runs. Switch it off and on to try again, or write the image again.", err)
		wait()
	}
	if !errors.As(err, &data) {
		say("The Base cannot start: %v. It restarts in %v.", err, reading)
		time.Sleep(reading)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	say("The Base cannot use its data: %v. Nothing runs, and nothing was changed. See docs/image.md.", err)
	wait()
}

// wait leaves the machine as it is.
func wait() {
	for {
		time.Sleep(time.Hour)
	}
}

// say writes to the screen, to a serial line for boards without one, and to the kernel's log.
func say(format string, arguments ...any) {
	text := fmt.Sprintf("\n"+format+"\n", arguments...)
	// The last one is for the journal, if it comes so far.
	for _, name := range []string{"console", "ttyS0", "ttyAMA0", "kmsg"} {
		if tty, err := os.OpenFile("/dev/"+name, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0); err == nil {
			_, _ = tty.WriteString(text) // there is nobody else to tell
			_ = tty.Close()
		}
	}
}

// ownCommandLine is the command line that this initrd was made for.
const ownCommandLine = "/cmdline"

// rootHash returns the root hash that the command line names. With Secure Boot the command line is signed. Without it the
// firmware, a virtual machine or a file beside the kernel can add to it, which would be an argument for systemd as well:
// the machine starts with exactly the command line that the image was made with, or not at all.
func rootHash(given, own string) (string, error) {
	got, err := os.ReadFile(given)
	if err != nil {
		return "", fmt.Errorf("read the kernel's command line: %w", err)
	}
	want, err := os.ReadFile(own)
	if err != nil {
		return "", fmt.Errorf("read the image's command line: %w", err)
	}
	if !slices.Equal(strings.Fields(string(got)), strings.Fields(string(want))) {
		return "", fmt.Errorf("the kernel's command line is not the one that the image was made with")
	}
	return bootdisk.RootHash(string(want))
}

// start returns only if it fails.
func start() error {
	if err := mountKernel(); err != nil {
		return err
	}
	hash, err := rootHash("/proc/cmdline", ownCommandLine)
	if err != nil {
		return err
	}
	modules, err := readModules(moduleDirectory)
	if err != nil {
		return err
	}
	if err := modules.loadFirst(); err != nil {
		return err
	}
	if err := mountVariables(); err != nil {
		return err
	}
	esp, err := startedFrom(firmware(variables))
	if err != nil {
		return err
	}
	d, err := findDisk(modules, esp)
	if err != nil {
		return err
	}
	slot, err := openRoot(d, hash)
	if err != nil {
		return firmware(variables).giveWay(err)
	}
	firmware(variables).forgive()
	if err := enterRoot(); err != nil {
		return err
	}
	// From here on the programs of the verified root can be used.
	if err := openData(&d); err != nil {
		return dataError{err}
	}
	if err := d.publish(bootdisk.Directory, slot); err != nil {
		return err
	}
	err = unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"TERM=linux"})
	return fmt.Errorf("start systemd: %w", err)
}

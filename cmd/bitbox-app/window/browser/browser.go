// Package browser opens an address in a browser of this computer. It prefers a Chromium with a
// profile of its own: no extension is in it, and no other page was ever open there.
package browser

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ErrNone: no browser could be started.
var ErrNone = errors.New("no browser could be started here")

// settling is how long a browser that was started is watched for failing.
const settling = 2 * time.Second

// chromiumArgs are the arguments of a Chromium for an address, and a folder for its profile.
func chromiumArgs(address, profile string) []string {
	return append([]string{
		"--app=" + address,
		"--user-data-dir=" + profile,
		"--no-first-run", "--no-default-browser-check",
		"--disable-extensions",                              // one that reads all pages could press a button
		"--disable-sync", "--disable-background-networking", // this profile visits the App alone
		"--no-proxy-server",
	}, systemArgs...)
}

// Open opens an address: in a Chromium with its own profile in a folder, which is made if needed,
// or else in the default browser. It returns ErrNone if there is neither.
func Open(address, profile string) error {
	if !screen() {
		return ErrNone
	}
	if chromium, ok := findChromium(); ok {
		if err := os.MkdirAll(profile, 0o700); err != nil {
			return fmt.Errorf("make the folder of the browser's profile: %w", err)
		}
		// Some refuse a folder that is given relative to another one.
		if absolute, err := filepath.Abs(profile); err == nil {
			profile = absolute
		}
		if start(chromium, chromiumArgs(address, profile)...) == nil {
			return nil
		}
	}
	if openDefault(address) != nil {
		return ErrNone
	}
	return nil
}

// start starts a program that outlives this one. It returns an error if the program fails at once.
func start(name string, args ...string) error {
	command := exec.Command(name, args...)
	command.SysProcAttr = apart // Ctrl-C in our terminal is not for the browser
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err := <-ended:
		return err // nil: it has handed the address to a browser that already ran
	case <-time.After(settling):
		return nil
	}
}

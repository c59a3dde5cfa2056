package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestTheProgressOfTheServerForWalletsIsReadAsItWasTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), progressName)
	if told := readProgress(path); told != nil {
		t.Errorf("before anything was told: %v", told)
	}
	for _, p := range []electrum.Progress{{Ready: true, Height: 7, Target: 7}, {Height: 1, Target: 900_000, Rebuilt: true,
		Reason: strings.Repeat("\x01", 200)}} { // the longest in JSON
		tellProgress(path, p, slog.New(slog.DiscardHandler))
		got := readProgress(path)
		want := &basev1.WalletServer{Ready: p.Ready, Height: p.Height, Target: p.Target, Rebuilt: p.Rebuilt, Reason: got.GetReason()}
		if !proto.Equal(got, want) {
			t.Errorf("%v, not %v", got, want)
		}
		nodetest.CheckMessage(t, got)
	}
}

// The attack: a server for wallets that was taken over leaves something else in the place of its
// progress. The watcher does not wait for it, does not follow it, and shows no control character.
func TestAServerForWalletsThatWasTakenOverCannotHoldUpTheWatcher(t *testing.T) {
	directory := t.TempDir()
	path, good := filepath.Join(directory, progressName), filepath.Join(directory, "good")
	const ready = `{"ready":true,"height":5,"target":5}`
	if err := os.WriteFile(good, []byte(ready), 0o600); err != nil {
		t.Fatal(err)
	}
	text := func(s string) func() error { return func() error { return os.WriteFile(path, []byte(s), 0o600) } }
	for name, attack := range map[string]func() error{
		"a link":           func() error { return os.Symlink(good, path) },
		"an endless link":  func() error { return os.Symlink("/dev/zero", path) },
		"a pipe":           func() error { return syscall.Mkfifo(path, 0o600) },
		"a folder":         func() error { return os.Mkdir(path, 0o700) },
		"a huge file":      func() error { return errors.Join(text(ready)(), os.Truncate(path, 1<<40)) },
		"a long text":      text(ready + strings.Repeat(" ", maxProgress)),
		"another type":     text(`{"ready":"yes"}`),
		"a height of none": text(`{"height":-1}`),
		"half":             text(ready[:10]),
		"nothing":          text(""),
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := attack(); err != nil {
			t.Fatal(err)
		}
		if told := readProgress(path); told != nil {
			t.Errorf("%s: %v", name, told)
		}
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := text(`{"reason":"\u001b[2J\u202e` + strings.Repeat("x", 1000) + `"}`)(); err != nil {
		t.Fatal(err)
	}
	told := readProgress(path)
	if told == nil {
		t.Fatal("a reason that is too long is nothing")
	}
	nodetest.CheckMessage(t, told)
	// Without an attack it is read: the attacks prove something.
	if told := readProgress(good); !told.GetReady() {
		t.Errorf("%v", told)
	}
}

// A kill leaves the progress behind. The lock is gone with the process.
func TestAServerForWalletsThatWasKilledIsNotReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), runningName)
	if isRunning(path) {
		t.Error("nobody has run")
	}
	stopped, err := holdRunning(path)
	if err != nil || !isRunning(path) {
		t.Fatalf("it runs: %v", err)
	}
	if _, err := holdRunning(path); err == nil {
		t.Error("two run at the same time")
	}
	stopped()
	if isRunning(path) {
		t.Error("it has ended")
	}
	if stopped, err = holdRunning(path); err != nil {
		t.Fatalf("started again: %v", err)
	}
	stopped()
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
)

const (
	// runningName is a file beside the socket that the server for wallets has locked while it runs. A
	// kill leaves the file with the progress behind, and no lock.
	runningName = "running"
	// progressName is the file beside the socket for wallets that tells how far their server is.
	progressName = "progress.json"
	// maxProgress is its largest size in bytes: a reason has 200, and JSON makes 6 of some.
	maxProgress = 2048
)

// tellProgress writes the progress into a file that everybody may read.
func tellProgress(path string, p electrum.Progress, logger *slog.Logger) {
	text, err := json.Marshal(p)
	if err == nil {
		err = replace(path, string(text), 0o644)
	}
	if err != nil {
		logger.Warn("the progress of the server for wallets cannot be told", "error", err)
	}
}

// holdRunning locks the file at path until close.
func holdRunning(path string) (close func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("tell that the server for wallets runs: %w", err)
	}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return nil, errors.Join(errors.New("another server for wallets runs"), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// isRunning tells whether somebody holds it.
func isRunning(path string) bool {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	held := &unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, held) == nil && held.Type != unix.F_UNLCK
}

// readProgress reads what tellProgress has written; nil: nothing that can be used. The server may
// have been taken over by a wallet, so the file may be a link, a pipe, endless or anything else.
func readProgress(path string) *basev1.WalletServer {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(file, maxProgress+1))
	var p electrum.Progress
	if err != nil || len(text) > maxProgress || json.Unmarshal(text, &p) != nil {
		return nil
	}
	return &basev1.WalletServer{Ready: p.Ready, Height: p.Height, Target: p.Target, Rebuilt: p.Rebuilt, Reason: node.Text(p.Reason)}
}

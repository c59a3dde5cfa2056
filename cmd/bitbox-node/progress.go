package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"syscall"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
)

const (
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

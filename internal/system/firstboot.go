package system

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/posture"
)

// FirstBootFile, in the helper's directory, is what the builder of an image has asked
// for at its first boot: a lease of SSH.
const FirstBootFile = "first-boot"

const firstBootPrefix = "ssh-lease "

// maxFirstBoot bounds the file, in bytes.
const maxFirstBoot = 64

// FirstBoot is the file's content for a lease of this length.
func FirstBoot(lease time.Duration) []byte {
	return fmt.Appendf(nil, "%s%d\n", firstBootPrefix, int64(lease/time.Second))
}

// grantAtFirstBoot grants what the image's builder has asked for, once: the file is
// gone, on disk, before anything is granted, so that neither a power cut nor a reset
// grants it again.
func (h *Helper) grantAtFirstBoot() error {
	path := filepath.Join(h.config.Directory, FirstBootFile)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var content []byte
	if err == nil && info.Mode().IsRegular() && info.Size() <= maxFirstBoot {
		content, err = os.ReadFile(path)
	}
	err = errors.Join(err, os.Remove(path), atomicfile.SyncDir(h.config.Directory))
	if err != nil {
		return fmt.Errorf("take what the image asks for at its first boot: %w", err)
	}
	digits, found := strings.CutPrefix(strings.TrimSuffix(string(content), "\n"), firstBootPrefix)
	seconds, err := strconv.ParseUint(digits, 10, 32)
	if !found || err != nil {
		return fmt.Errorf("take what the image asks for at its first boot: %q is not understood, so nothing is granted", content)
	}
	lease := time.Duration(seconds) * time.Second
	h.mu.Lock()
	defer h.mu.Unlock()
	err = h.updateLocked(func() (posture.Output, error) {
		return h.ledger.Grant(lease, "the builder of the image asked for it", h.config.Clock())
	})
	if err != nil {
		return fmt.Errorf("lease SSH from the first boot on: %w", err)
	}
	h.log.Warn("SSH is on from the first boot, as the builder of the image has asked", "audit", true, "for", lease)
	return nil
}

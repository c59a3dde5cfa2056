//go:build unix

package atomicfile

import (
	"errors"
	"os"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// SyncDir makes creations, renames and removals in a directory survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return reason.Errorf("sync the directory %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

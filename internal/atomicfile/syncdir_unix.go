//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"os"
)

// SyncDir makes sure that what was created, renamed or removed in a directory
// stays so after a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the directory %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

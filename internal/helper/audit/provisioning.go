package audit

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
)

// checkProvisioning tells of a provisioning file that came too late. The unit that looks for it at
// each boot has left a note: the helper itself mounts nothing.
func checkProvisioning(_ context.Context, system System, _ Expectation) ([]difference, error) {
	_, err := system.Lstat(filepath.Join(generation.StateDirectory, provision.LateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []difference{{id: idProvisioning, found: []string{"it lay there at the last boot"}}}, nil
}

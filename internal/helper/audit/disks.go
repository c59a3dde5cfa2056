package audit

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
)

// checkDisks tells of disks that say that they are failing. The unit that asks them has left a list:
// the helper itself opens no disk.
func checkDisks(_ context.Context, system System, _ Expectation) ([]difference, error) {
	text, err := system.ReadFile(filepath.Join(chaindisk.RunDirectory, chaindisk.ListFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nobody has looked yet
	}
	if err != nil {
		return nil, err
	}
	disks, err := chaindisk.ParseList(text)
	if err != nil {
		return nil, err
	}
	if found := chaindisk.Failing(disks); found != nil {
		return []difference{{id: idDisk, found: found}}, nil
	}
	return nil, nil
}

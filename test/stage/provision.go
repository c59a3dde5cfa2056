package stage

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// espDirectory stands for the EFI partition, which a container has not: a directory under the
// partition's link. It lies where the unit may write, so that its sandbox stays as it is.
const espDirectory = generation.StateDirectory + "/efi-partition"

// Provision puts a provisioning file where a Base in this root finds it at its first boot.
func Provision(root string, content []byte) error {
	var errs []error
	put := func(path, text string) {
		path = filepath.Join(root, path)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600))
	}
	put(filepath.Join(espDirectory, bootdisk.ProvisionFile), string(content))
	put("etc/tmpfiles.d/efi-partition.conf",
		"d "+bootdisk.Directory+" 0755\nL "+filepath.Join(bootdisk.Directory, bootdisk.ESPLink)+" - - - - "+espDirectory+"\n")
	return errors.Join(errs...)
}

// ProvisionFile is where Provision has put the file, inside the root.
func ProvisionFile() string { return filepath.Join(espDirectory, bootdisk.ProvisionFile) }

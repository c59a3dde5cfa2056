package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// loaderFiles are the boot loader's on the EFI partition, and where Debian's packages
// have them. The first is what a machine starts that knows nothing of this disk.
var loaderFiles = map[string]string{
	"EFI/BOOT/BOOTX64.EFI": "usr/lib/shim/shimx64.efi.signed",
	"EFI/BOOT/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}

// loaderConfig is where the signed GRUB looks for its configuration.
const loaderConfig = "EFI/debian/grub.cfg"

// write makes a disk of a root. Everything is written into a plain file: no loop
// device is needed, and nothing is mounted.
func (d disk) write(ctx context.Context, root, path string) error {
	efi, err := d.takeLoader(ctx, root)
	if err != nil {
		return err
	}
	// What is below /var goes onto the data partition.
	data := root + "-data"
	if err := os.Rename(filepath.Join(root, "var"), data); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(root, "var"), 0o755); err != nil {
		return err
	}
	if err := os.Truncate(path, d.size()); err != nil {
		return fmt.Errorf("make a file of %d MiB: %w", d.size()>>20, err)
	}
	if err := runInput(ctx, strings.NewReader(d.table()), "sfdisk", "--quiet", "--no-tell-kernel", "--no-reread", path); err != nil {
		return err
	}
	if err := writeEFI(ctx, efi, path, d.efi); err != nil {
		return err
	}
	if err := writeExt4(ctx, root, path, d.root, d.rootSystem, "bitbox-root", false); err != nil {
		return err
	}
	return writeExt4(ctx, data, path, d.data, d.dataSystem, "bitbox-data", true)
}

// takeLoader takes the boot loader out of a root, and returns the directory that is to
// become the EFI partition.
func (d disk) takeLoader(ctx context.Context, root string) (string, error) {
	efi, unpacked, packages := root+"-efi", root+"-loader", filepath.Join(root, loaderDirectory)
	debs, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := run(ctx, "dpkg-deb", "--extract", deb, unpacked); err != nil {
			return "", err
		}
	}
	for to, from := range loaderFiles {
		content, err := os.ReadFile(filepath.Join(unpacked, from))
		if err != nil {
			return "", fmt.Errorf("take the boot loader from Debian's packages: %w", err)
		}
		if err := put(efi, to, content, 0o644); err != nil {
			return "", err
		}
	}
	if err := put(efi, loaderConfig, []byte(d.grub()), 0o644); err != nil {
		return "", err
	}
	return efi, errors.Join(os.RemoveAll(packages), os.RemoveAll(unpacked))
}

// writeEFI makes the EFI partition.
func writeEFI(ctx context.Context, directory, path string, p partition) error {
	at := path + "@@" + strconv.FormatInt(p.start, 10)
	if err := run(ctx, "mformat", "-i", at, "-F", "-c", "1", "-h", "255", "-s", "63", "-T", strconv.FormatInt(p.size/sectorSize, 10), "-v",
		"BITBOX-EFI", "::"); err != nil {
		return err
	}
	return run(ctx, "mcopy", "-i", at, "-s", "-Q", filepath.Join(directory, "EFI"), "::/")
}

// writeExt4 makes a partition with the files of a directory. One with quotas counts what each
// user stores; the limits are set at boot (bitbox-base-limits.service).
func writeExt4(ctx context.Context, directory, path string, p partition, id, label string, quotas bool) error {
	// What GRUB cannot read is left out.
	features, options := "^metadata_csum_seed,^orphan_file", ""
	if quotas {
		features, options = features+",quota", "quotatype=usrquota,"
	}
	return run(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-m", "1",
		"-U", id, "-L", label, "-d", directory,
		"-E", options+"nodiscard,lazy_itable_init=0,root_owner=0:0,offset="+strconv.FormatInt(p.start, 10),
		path, strconv.FormatInt(p.size/1024, 10)+"k")
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

// kernelArguments are those beside the root hash.
//
// A panic ends in a new start after ten seconds. No login prompt anywhere, no partition mounted that fstab does not name,
// and nothing taken from what the firmware or a virtual machine hands over as credentials. If the first copy of the
// partition table is damaged, the second one counts. The rest makes faults of the kernel harder to use: root cannot change
// the kernel that runs, memory is wiped when it is given out, caches of different kinds are kept apart, stacks move about,
// and an old way into the kernel at a fixed address is closed.
const kernelArguments = "ro quiet loglevel=3 panic=10 gpt systemd.getty_auto=no systemd.gpt_auto=no systemd.import_credentials=no " +
	"lockdown=integrity init_on_alloc=1 slab_nomerge page_alloc.shuffle=1 randomize_kstack_offset=on vsyscall=none debugfs=off"

// makeEntry makes what the firmware starts: a unified kernel image (UKI) of the kernel, the initrd and the command line,
// first the same bytes for everybody, then signed.
func (b *builder) makeEntry(ctx context.Context) error {
	a := architectures[b.Architecture]
	unsigned, entry := filepath.Join(b.out, UnsignedFile), filepath.Join(b.out, EntryFile)
	if _, err := b.tool(ctx, "ukify", "build", "--linux="+b.inTools(b.downloads)+"/boot/vmlinuz-"+b.info.Kernel,
		"--initrd=/mnt/initrd.cpio.zst",
		"--cmdline="+b.commandLine(), "--os-release=@"+b.inTools(b.root)+"/usr/lib/os-release",
		"--uname="+b.info.Kernel, "--efi-arch="+a.efi, "--stub="+b.inTools(b.downloads)+"/usr/lib/systemd/boot/efi/linux"+a.efi+".efi.stub",
		"--output="+b.inTools(unsigned)); err != nil {
		return err
	}
	if err := b.sign(ctx, unsigned, entry); err != nil {
		return err
	}
	info, err := os.Stat(entry)
	if err != nil {
		return err
	}
	b.info.EntrySize = info.Size()
	return nil
}

// commandLine is the kernel's.
func (b *builder) commandLine() string {
	own := []string{kernelArguments, bootdisk.RootHashArgument + b.info.RootHash}
	return strings.Join(slices.Concat(own, b.KernelArguments), " ")
}

// sign signs a program for the firmware; without keys it is copied.
func (b *builder) sign(ctx context.Context, from, to string) error {
	if b.Keys == "" {
		return copyFile(from, to)
	}
	keys := filepath.Join(b.work, "keys")
	defer os.RemoveAll(keys)
	for _, file := range []string{secureboot.DB + secureboot.KeySuffix, secureboot.DB + secureboot.CertificateSuffix} {
		if err := copyFile(filepath.Join(b.Keys, file), filepath.Join(keys, file)); err != nil {
			return fmt.Errorf("sign with the builder's Secure Boot keys: %w", err)
		}
	}
	_, err := b.tool(ctx, "sbsign", "--key=/mnt/keys/"+secureboot.DB+secureboot.KeySuffix,
		"--cert=/mnt/keys/"+secureboot.DB+secureboot.CertificateSuffix,
		"--output="+b.inTools(to), b.inTools(from))
	return err
}

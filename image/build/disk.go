package build

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

const (
	mebibyte   = 1 << 20
	sectorSize = 512

	espStart    = mebibyte
	rootStart   = espStart + bootdisk.ESPSize
	verityStart = rootStart + bootdisk.RootSize
	// diskSize leaves room for the second copy of the partition table.
	diskSize = verityStart + bootdisk.VeritySize + mebibyte
)

// loaderConfig is the boot loader's. It starts the newest version that is well; somebody who holds a key down may choose
// another one, but cannot change a command line. Where the firmware has no keys, it gets ours.
const loaderConfig = `timeout 0
editor no
auto-entries no
auto-firmware no
secure-boot-enroll force
`

// enrolDirectory is where the boot loader finds keys for a firmware without any.
const enrolDirectory = "loader/keys/auto"

// microsoftCertificates are those of the CAs for programs of others than Microsoft: the firmware of cards, and boot loaders.
// python3-virt-firmware has them. Debian 13 has none of Microsoft's newest CA, which signs the firmware of cards only.
var microsoftCertificates = []string{"MicrosoftCorporationUEFICA2011.pem", "MicrosoftUEFICA2023.pem"}

const (
	microsoftDirectory = "/usr/lib/python3/dist-packages/virt/firmware/certs/"
	microsoftOwner     = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
	microsoftInfix     = "-microsoft"
)

// writeDisk writes the disk: EFI partition, root and hash tree of slot A. The first boot makes the other partitions. The
// file is sparse, no loop device is needed, and nothing is mounted.
func (b *builder) writeDisk(ctx context.Context) error {
	root, verity, err := bootdisk.PartUUIDs(b.info.RootHash)
	if err != nil {
		return err
	}
	path := filepath.Join(b.out, DiskFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, diskSize); err != nil {
		return fmt.Errorf("make a file of %d MiB: %w", diskSize>>20, err)
	}
	id := sha256.Sum256([]byte("bitbox-base disk\n" + b.info.RootHash))
	table := fmt.Sprintf("label: gpt\nlabel-id: %s\nunit: sectors\n", uuid(id[:16]))
	for _, p := range []struct {
		start, size      int64
		kind, uuid, name string
	}{
		{espStart, bootdisk.ESPSize, bootdisk.ESPType, uuid(id[16:]), bootdisk.ESPName},
		{rootStart, bootdisk.RootSize, bootdisk.RootTypes[b.Architecture], root, bootdisk.RootName},
		{verityStart, bootdisk.VeritySize, bootdisk.VerityTypes[b.Architecture], verity, bootdisk.VerityName},
	} {
		table += fmt.Sprintf("start=%d, size=%d, type=%s, uuid=%s, name=%q\n", p.start/sectorSize, p.size/sectorSize, p.kind, p.uuid, p.name)
	}
	if _, err := b.toolInput(ctx, strings.NewReader(table), "sfdisk", "--quiet", "--no-tell-kernel", "--no-reread",
		b.inTools(path)); err != nil {
		return err
	}
	for _, part := range []struct {
		file  string
		start int64
	}{{RootFile, rootStart}, {VerityFile, verityStart}} {
		if err := run(ctx, "dd", "if="+filepath.Join(b.out, part.file), "of="+path, "bs=1M", "seek="+strconv.FormatInt(part.start/mebibyte, 10),
			"conv=notrunc,sparse", "status=none"); err != nil {
			return err
		}
	}
	if err := b.writeESP(ctx, path, id[:4]); err != nil {
		return err
	}
	if b.Provision != "" {
		return nil // it may hold a secret
	}
	return os.Chmod(path, 0o644)
}

// writeESP fills the EFI partition.
func (b *builder) writeESP(ctx context.Context, disk string, id []byte) error {
	a, tree := architectures[b.Architecture], filepath.Join(b.work, "esp")
	loader := filepath.Join(b.downloads, "usr/lib/systemd/boot/efi/systemd-boot"+a.efi+".efi")
	name, err := bootdisk.EntryName(b.info.Version, 0)
	if err != nil {
		return err
	}
	for _, folder := range []string{"EFI/BOOT", bootdisk.EntryDirectory, "loader"} {
		if err := os.MkdirAll(filepath.Join(tree, folder), 0o755); err != nil {
			return err
		}
	}
	if err := b.sign(ctx, loader, filepath.Join(tree, "EFI/BOOT", a.fallback)); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(b.out, EntryFile), filepath.Join(tree, bootdisk.EntryDirectory, name)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "loader/loader.conf"), []byte(loaderConfig), 0o644); err != nil {
		return err
	}
	if b.Keys != "" {
		if err := b.enrol(ctx, filepath.Join(tree, enrolDirectory)); err != nil {
			return fmt.Errorf("have machines take the builder's Secure Boot keys: %w", err)
		}
	}
	if b.Provision != "" {
		if err := copyFile(b.Provision, filepath.Join(tree, bootdisk.ProvisionFile)); err != nil {
			return err
		}
	}
	// Whenever it is built, it has the time of the archive.
	if err := run(ctx, "find", tree, "-exec", "touch", "--no-dereference", "--date=@"+b.seconds(), "{}", "+"); err != nil {
		return err
	}
	at := b.inTools(disk) + "@@" + strconv.Itoa(espStart)
	if _, err := b.tool(ctx, "mformat", "-i", at, "-F", "-c", "8", "-h", "255", "-s", "63", "-T", strconv.Itoa(bootdisk.ESPSize/sectorSize),
		"-N", fmt.Sprintf("%x", id), "-v", "BITBOX-EFI", "::"); err != nil {
		return err
	}
	entries, err := os.ReadDir(tree)
	if err != nil {
		return err
	}
	argv := []string{"mcopy", "-i", at, "-s", "-m", "-Q"}
	for _, entry := range entries {
		argv = append(argv, b.inTools(filepath.Join(tree, entry.Name())))
	}
	_, err = b.tool(ctx, append(argv, "::/")...)
	return err
}

// enrol writes the signed lists with the builder's keys. They are kept beside the keys: the private halves of PK and KEK
// are needed once only.
func (b *builder) enrol(ctx context.Context, to string) error {
	keys := filepath.Join(b.work, "keys")
	defer os.RemoveAll(keys)
	if err := run(ctx, "cp", "--archive", b.Keys, keys); err != nil {
		return err
	}
	owner, err := os.ReadFile(filepath.Join(keys, secureboot.OwnerFile))
	if err != nil {
		return err
	}
	signer := secureboot.PK
	for _, name := range secureboot.Names {
		list := name
		if b.Microsoft && name == secureboot.DB {
			list += microsoftInfix
		}
		file := list + secureboot.EnrolSuffix
		if _, err := os.Stat(filepath.Join(b.Keys, file)); errors.Is(err, os.ErrNotExist) {
			if err := b.makeList(ctx, strings.TrimSpace(string(owner)), name, signer, list); err != nil {
				return err
			}
			if err := checkEnrol(filepath.Join(keys, file)); err != nil {
				return err
			}
			if err := copyFile(filepath.Join(keys, file), filepath.Join(b.Keys, file)); err != nil {
				return err
			}
		} else if err := checkEnrol(filepath.Join(b.Keys, file)); err != nil {
			return fmt.Errorf("%w: remove it, and build again with the private keys of PK and KEK", err)
		}
		if err := copyFile(filepath.Join(keys, file), filepath.Join(to, name+secureboot.EnrolSuffix)); err != nil {
			return err
		}
		signer = name
	}
	return nil
}

// checkEnrol looks for a certificate in each list of a signed file (UEFI 2.10, sections 8.2.2 and 32.4.1). From a certificate that is
// not there, cert-to-efi-sig-list makes a list with one of no bytes; a firmware then refuses the whole file, and the machine starts
// without Secure Boot.
func checkEnrol(path string) error {
	const (
		timeSize   = 16 // before the signature, which begins with its own size
		headerSize = 28 // of a list: its kind, its size, and that of each certificate with its owner
		ownerSize  = 16
	)
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	number := func(b []byte) uint64 { return uint64(binary.LittleEndian.Uint32(b)) }
	if len(content) < timeSize+4 || uint64(len(content)) <= timeSize+number(content[timeSize:]) {
		return fmt.Errorf("the signed list %s is cut short", path)
	}
	for rest := content[timeSize+number(content[timeSize:]):]; len(rest) > 0; rest = rest[number(rest[16:]):] {
		if len(rest) < headerSize || number(rest[16:]) < headerSize || number(rest[16:]) > uint64(len(rest)) {
			return fmt.Errorf("the signed list %s is cut short", path)
		}
		if number(rest[24:]) <= ownerSize {
			return fmt.Errorf("the signed list %s has a certificate of no bytes", path)
		}
	}
	return nil
}

// makeList makes the signed list of a variable.
func (b *builder) makeList(ctx context.Context, owner, name, signer, list string) error {
	if _, err := b.tool(ctx, "cert-to-efi-sig-list", "-g", owner, "/mnt/keys/"+name+secureboot.CertificateSuffix,
		"/mnt/keys/"+list+".esl"); err != nil {
		return err
	}
	if list != name {
		all, err := os.ReadFile(filepath.Join(b.work, "keys", list+".esl"))
		if err != nil {
			return err
		}
		for _, certificate := range microsoftCertificates {
			if _, err := b.tool(ctx, "cert-to-efi-sig-list", "-g", microsoftOwner, microsoftDirectory+certificate,
				"/mnt/keys/more.esl"); err != nil {
				return err
			}
			more, err := os.ReadFile(filepath.Join(b.work, "keys/more.esl"))
			if err != nil {
				return err
			}
			all = append(all, more...)
		}
		if err := os.WriteFile(filepath.Join(b.work, "keys", list+".esl"), all, 0o600); err != nil {
			return err
		}
	}
	if _, err := b.tool(ctx, "sign-efi-sig-list", "-g", owner, "-t", b.time.Format("2006-01-02 15:04:05"), "-k",
		"/mnt/keys/"+signer+secureboot.KeySuffix, "-c", "/mnt/keys/"+signer+secureboot.CertificateSuffix, name, "/mnt/keys/"+list+".esl",
		"/mnt/keys/"+list+secureboot.EnrolSuffix); err != nil {
		return fmt.Errorf("sign the list %s (the first image needs the private keys of PK and KEK as well): %w", name, err)
	}
	return nil
}

package build

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

const (
	// factory is what /var holds on a new Base; the initrd makes what is missing of it.
	factory = "usr/share/factory/var"
	// packageDatabase is dpkg's: a part of the version, not of the data.
	packageDatabase = "usr/share/dpkg-database"
)

// seal makes the root file system and its hash tree.
func (b *builder) seal(ctx context.Context) error {
	if b.Change != nil {
		if err := b.Change(b.root); err != nil {
			return err
		}
	}
	if err := splitVar(b.root); err != nil {
		return fmt.Errorf("take /var out of the root: %w", err)
	}
	if err := b.nameVersion(); err != nil {
		return err
	}
	// These depend on the version and the day of the archive only.
	id := sha256.Sum256([]byte("bitbox-base root\n" + b.info.Architecture + "\n" + b.info.Version + "\n" + b.info.Archive))
	file, tree := filepath.Join(b.out, RootFile), filepath.Join(b.out, VerityFile)
	if _, err := b.tool(ctx, "mkfs.erofs", "--quiet", "-zlz4hc,9", "-C65536", "-T"+b.seconds(),
		"-U"+uuid(id[:16]), b.inTools(file), b.inTools(b.root)); err != nil {
		return err
	}
	out, err := b.tool(ctx, "veritysetup", "format", "--hash=sha256", fmt.Sprintf("--data-block-size=%d", bootdisk.BlockSize),
		fmt.Sprintf("--hash-block-size=%d", bootdisk.BlockSize), fmt.Sprintf("--salt=%x", id), "--uuid="+uuid(id[16:]),
		b.inTools(file), b.inTools(tree))
	if err != nil {
		return err
	}
	hash := regexp.MustCompile(`(?m)^Root hash:\s+([0-9a-f]{64})$`).FindStringSubmatch(strings.ReplaceAll(out, "\r", ""))
	if hash == nil {
		return fmt.Errorf("seal the root: veritysetup names no root hash: %s", out)
	}
	b.info.RootHash = hash[1]
	for path, field := range map[string]struct {
		size *int64
		most int64
	}{file: {&b.info.RootSize, bootdisk.RootSize}, tree: {&b.info.VeritySize, bootdisk.VeritySize}} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if *field.size = info.Size(); *field.size > field.most {
			return fmt.Errorf("seal the root: %s has %d bytes, and a slot has room for %d", filepath.Base(path), *field.size, field.most)
		}
	}
	return nil
}

// splitVar leaves the folders of /var for the data partition, and drops its files: what a Base needs of them is part of the
// version, and would go stale where updates do not reach it.
func splitVar(root string) error {
	from, to := filepath.Join(root, "var"), filepath.Join(root, factory)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(from, "lib/dpkg"), filepath.Join(root, packageDatabase)); err != nil {
		return err
	}
	if err := os.Symlink("/"+packageDatabase, filepath.Join(from, "lib/dpkg")); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := os.Mkdir(from, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Type() == fs.ModeSymlink {
			return err
		}
		return os.Remove(path)
	})
}

// nameVersion says in os-release which version of the image this is. The boot loader orders versions by it.
func (b *builder) nameVersion() error {
	const path = "usr/lib/os-release"
	release, err := os.ReadFile(filepath.Join(b.root, path))
	if err != nil {
		return err
	}
	return put(b.root, path, fmt.Appendf(release, "IMAGE_ID=%s\nIMAGE_VERSION=%q\nBITBOX_BASE_ARCHIVE=%q\n", bootdisk.ImageID, b.info.Version,
		b.info.Archive), 0o644)
}

// uuid makes a UUID of 16 bytes: version 8, of RFC 9562.
func uuid(b []byte) string {
	u := [16]byte(b)
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

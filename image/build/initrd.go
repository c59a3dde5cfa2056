package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// initrdModules are the modules of the kernel in the initrd: those that read the root, and the drivers of every bus that
// a machine's disk may be on. A folder stands for all modules in it. Their dependencies come with them.
var initrdModules = []string{
	"kernel/arch/x86/crypto/crc32c-intel",
	"kernel/crypto/crc32c_generic",
	"kernel/drivers/ata/",
	"kernel/drivers/block/loop",
	"kernel/drivers/block/virtio_blk",
	"kernel/drivers/hv/hv_vmbus",
	"kernel/drivers/md/dm-verity",
	"kernel/drivers/mmc/",
	"kernel/drivers/nvme/host/",
	"kernel/drivers/pci/controller/",
	"kernel/drivers/phy/",
	"kernel/drivers/scsi/hv_storvsc",
	"kernel/drivers/scsi/sd_mod",
	"kernel/drivers/scsi/virtio_scsi",
	"kernel/drivers/usb/host/",
	"kernel/drivers/usb/storage/",
	"kernel/drivers/virtio/",
	"kernel/fs/efivarfs/",
	"kernel/fs/erofs/",
}

// MakeInit compiles the program of the initrd into a directory, and returns its path. The person who builds calls it: root
// may have no Go, and another home.
func MakeInit(ctx context.Context, architecture, directory string) (string, error) {
	program := filepath.Join(directory, "init")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", program,
		"github.com/BitBoxSwiss/bitbox-base/image/initrd")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=",
		"GOFLAGS=")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program of the initrd: %w: %s", err, out)
	}
	return program, nil
}

// makeInitrd packs the program of image/initrd, and modules. It is a cpio archive of the kind "newc".
func (b *builder) makeInitrd(ctx context.Context) error {
	tree := filepath.Join(b.work, "initrd")
	if err := chooseModules(filepath.Join(b.root, "usr/lib/modules", b.info.Kernel), filepath.Join(tree, "modules")); err != nil {
		return fmt.Errorf("choose the modules of the initrd: %w", err)
	}
	// They are packed together, which is better than each by itself.
	packed, err := filepath.Glob(filepath.Join(tree, "modules/*.ko.xz"))
	if err != nil {
		return err
	}
	argv := []string{"xz", "--decompress"}
	for _, path := range packed {
		argv = append(argv, b.inTools(path))
	}
	if _, err := b.tool(ctx, argv...); err != nil {
		return err
	}
	// The initrd starts with this command line only.
	if err := os.WriteFile(filepath.Join(tree, "cmdline"), []byte(b.commandLine()+"\n"), 0o644); err != nil {
		return err
	}
	program := filepath.Join(tree, "init")
	if err := errors.Join(copyFile(b.Init, program), os.Chmod(program, 0o755)); err != nil {
		return fmt.Errorf("take the program of the initrd: %w", err)
	}
	archive, err := os.Create(filepath.Join(b.work, "initrd.cpio"))
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := writeArchive(archive, tree); err != nil {
		return fmt.Errorf("pack the initrd: %w", err)
	}
	_, err = b.tool(ctx, "zstd", "--quiet", "-19", "--single-thread", b.inTools(archive.Name()))
	return err
}

// chooseModules copies the modules of the initrd, and depmod's lists of them, into one folder.
func chooseModules(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	dependencies, err := os.ReadFile(filepath.Join(from, "modules.dep"))
	if err != nil {
		return err
	}
	needs := map[string][]string{} // paths, by path
	for line := range strings.Lines(string(dependencies)) {
		path, needed, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[path] = strings.Fields(needed)
	}
	chosen := map[string]bool{}
	for path, needed := range needs {
		if slices.ContainsFunc(initrdModules, func(prefix string) bool {
			return strings.HasPrefix(path, prefix) && (strings.HasSuffix(prefix, "/") || strings.HasPrefix(path[len(prefix):], ".ko"))
		}) {
			chosen[path] = true
			for _, path := range needed {
				chosen[path] = true
			}
		}
	}
	names := map[string]bool{}
	var list strings.Builder
	for path := range chosen {
		name := filepath.Base(path)
		if names[moduleName(name)] {
			return fmt.Errorf("there are two modules %s", name)
		}
		names[moduleName(name)] = true
		if err := copyFile(filepath.Join(from, path), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	unpacked := func(path string) string { return strings.TrimSuffix(filepath.Base(path), ".xz") }
	for path := range sorted(chosen) {
		fmt.Fprintf(&list, "%s:", unpacked(path))
		for _, need := range needs[path] {
			fmt.Fprintf(&list, " %s", unpacked(need))
		}
		list.WriteByte('\n')
	}
	if err := os.WriteFile(filepath.Join(to, "modules.dep"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	aliases, err := os.ReadFile(filepath.Join(from, "modules.alias"))
	if err != nil {
		return err
	}
	list.Reset()
	for line := range strings.Lines(string(aliases)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "alias" && names[fields[2]] {
			list.WriteString(line)
		}
	}
	return os.WriteFile(filepath.Join(to, "modules.alias"), []byte(list.String()), 0o644)
}

// moduleName is what a module is called that lies in a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(file, ".")
	return strings.ReplaceAll(name, "-", "_")
}

// sorted yields the keys of a set in order.
func sorted(set map[string]bool) func(func(string) bool) {
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return func(yield func(string) bool) {
		for _, key := range keys {
			if !yield(key) {
				return
			}
		}
	}
}

// Kinds of files in an archive.
const (
	kindFolder   = 0o040000
	kindFile     = 0o100000
	kindLink     = 0o120000
	kindTerminal = 0o020000
)

// writeArchive writes the initrd: /init, which is also /sbin/modprobe, and /modules. Everything is root's and has no time.
func writeArchive(w io.Writer, tree string) error {
	a := archive{w: w}
	for _, folder := range []string{"dev", "newroot", "proc", "run", "sbin", "sys"} {
		a.add(folder, kindFolder|0o755, nil)
	}
	// The kernel opens it for the first process.
	a.add("dev/console", kindTerminal|0o600, nil)
	a.add("sbin/modprobe", kindLink|0o777, []byte("/init"))
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		name := strings.TrimPrefix(path, tree+"/")
		if entry.IsDir() {
			a.add(name, kindFolder|0o755, nil)
			return a.err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := uint32(kindFile | 0o644)
		if name == "init" {
			mode = kindFile | 0o755
		}
		a.add(name, mode, content)
		return a.err
	})
	if err != nil {
		return err
	}
	a.add("TRAILER!!!", 0, nil)
	return a.err
}

// archive writes a cpio archive.
type archive struct {
	w     io.Writer
	files uint32
	err   error
}

// add adds a file: a header of fields with eight hexadecimal digits, the name, the content; each filled up to four bytes
// (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
func (a *archive) add(name string, mode uint32, content []byte) {
	if a.err != nil {
		return
	}
	a.files++
	links, major, minor := uint32(1), uint32(0), uint32(0)
	switch mode &^ 0o7777 {
	case kindFolder:
		links = 2
	case kindTerminal:
		major, minor = 5, 1
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, field := range []uint32{a.files, mode, 0, 0, links, 0, uint32(len(content)), 0, 0, major, minor, uint32(len(name) + 1), 0} {
		fmt.Fprintf(&b, "%08x", field)
	}
	fill := func() { b.Write(make([]byte, (4-b.Len()%4)%4)) }
	b.WriteString(name + "\x00")
	fill()
	b.Write(content)
	fill()
	_, a.err = a.w.Write(b.Bytes())
}

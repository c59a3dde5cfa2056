package build

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// overlay is what an image has beside its packages, laid out as below /.
//
//go:embed all:root
var overlay embed.FS

// builder makes one image. Its folders lie below work, which the tools see as /mnt.
type builder struct {
	Options
	tools     string // the root with the tools
	work      string
	root      string    // becomes the root file system
	out       string    // becomes Options.Out
	downloads string    // packages taken apart: the kernel, the boot loader
	time      time.Time // of everything that the image holds
	info      *Info
}

// tool runs a tool in its own root, without a network, with /mnt and nothing else of the building machine.
func (b *builder) tool(ctx context.Context, argv ...string) (string, error) {
	return b.toolInput(ctx, nil, argv...)
}

func (b *builder) toolInput(ctx context.Context, input io.Reader, argv ...string) (string, error) {
	return output(ctx, input, append([]string{"systemd-nspawn", "--quiet", "--directory=" + b.tools, "--read-only", "--register=no",
		"--keep-unit", "--private-network", "--pipe", "--as-pid2", "--bind=" + b.work + ":/mnt", "--tmpfs=/tmp",
		"--setenv=SOURCE_DATE_EPOCH=" + b.seconds(),
		"--setenv=LC_ALL=C.UTF-8", "--setenv=TZ=UTC", "--chdir=/mnt", "--"}, argv...)...)
}

// RunTool runs a tool of those that make images, with a directory as /mnt, and returns what it printed. Tests make with it
// what an attacker would make.
func RunTool(ctx context.Context, o Options, directory string, argv ...string) (string, error) {
	root, err := tools(ctx, o)
	if err != nil {
		return "", err
	}
	defer root.Close()
	b := &builder{tools: root.path, work: directory}
	return b.tool(ctx, argv...)
}

// seconds is the time of everything, since 1970.
func (b *builder) seconds() string { return fmt.Sprint(b.time.Unix()) }

// inTools is how the tools call a path below work.
func (b *builder) inTools(path string) string { return "/mnt" + strings.TrimPrefix(path, b.work) }

// takeDownloads takes the packages apart that are not installed.
func (b *builder) takeDownloads(ctx context.Context) error {
	b.downloads = filepath.Join(b.work, "downloads")
	debs, err := filepath.Glob(filepath.Join(b.root, downloads, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := run(ctx, "dpkg-deb", "--extract", deb, b.downloads); err != nil {
			return err
		}
	}
	modules, err := filepath.Glob(filepath.Join(b.downloads, "usr/lib/modules/*"))
	if err != nil || len(modules) != 1 {
		return errors.Join(fmt.Errorf("take the kernel apart: its package has %d folders of modules", len(modules)), err)
	}
	b.info.Kernel = filepath.Base(modules[0])
	if err := os.MkdirAll(filepath.Join(b.root, "usr/lib/modules"), 0o755); err != nil {
		return err
	}
	if err := os.Rename(modules[0], filepath.Join(b.root, "usr/lib/modules", b.info.Kernel)); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(b.root, downloads)); err != nil {
		return err
	}
	return runInside(ctx, b.root, "depmod", b.info.Kernel)
}

// copyOverlay lays our files over a root.
func copyOverlay(root string) error {
	return fs.WalkDir(overlay, "root", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := overlay.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(content, []byte("#!")) {
			mode = 0o755
		}
		return put(root, strings.TrimPrefix(path, "root/"), content, mode)
	})
}

// put writes a file below root, and the directories above it.
func put(root, name string, content []byte, mode fs.FileMode) error {
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the directory of /%s: %w", name, err)
	}
	// Not through a link that a package has put there.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write /%s: %w", name, err)
	}
	if err := os.WriteFile(path, content, mode); err != nil {
		return fmt.Errorf("write /%s: %w", name, err)
	}
	return os.Chmod(path, mode) // whatever the umask is
}

// copyFile copies a file.
func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// removeRoot removes a directory with a root in it. It refuses if something is
// mounted there: the machine's own /proc or /dev, say.
func removeRoot(path string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], path+"/") {
			return fmt.Errorf("remove %s: something is mounted on %s; unmount it", path, fields[4])
		}
	}
	return os.RemoveAll(path)
}

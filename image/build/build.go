package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/debianroot"
)

// overlay is what an image has beside its packages, laid out as below /.
//
//go:embed all:root
var overlay embed.FS

// bootPackages are what a machine needs that a container does not: a kernel, drivers,
// what checks file systems. zstd packs what the kernel starts from.
var bootPackages = []string{"e2fsprogs", "initramfs-tools", "kmod", "procps", "udev", "zstd"}

// kernels are Debian's, for all machines of an architecture.
var kernels = map[string]string{"amd64": "linux-image-amd64", "arm64": "linux-image-arm64"}

// loaders are Debian's packages of the boot loader, which are not installed but
// taken apart; with a signature that machines with Secure Boot accept.
var loaders = map[string][]string{"amd64": {"shim-signed", "grub-efi-amd64-signed"}}

// loaderDirectory is where a Debian root keeps them until an image is made of it.
const loaderDirectory = "boot/loader"

// freshness is how old Debian's part may be. Security updates come by themselves
// later, but a new Base should not begin with old faults.
const freshness = 24 * time.Hour

func (o Options) progress(format string, arguments ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, arguments...))
	}
}

// Build makes the image, and returns its size and what of it is in use on the disk.
func Build(ctx context.Context, o Options) (size, used int64, err error) {
	if err := o.Ready(); err != nil {
		return 0, 0, err
	}
	debian, err := debian(ctx, o)
	if err != nil {
		return 0, 0, err
	}
	defer debian.Close()
	work, err := os.MkdirTemp(o.Cache, "work-")
	if err != nil {
		return 0, 0, fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, removeRoot(work)) }()
	// What lies in it may be secret.
	if err := os.Chmod(work, 0o700); err != nil {
		return 0, 0, err
	}
	root := filepath.Join(work, "root")
	o.progress("copying Debian")
	if err := run(ctx, "cp", "--archive", "--reflink=auto", debian.path, root); err != nil {
		return 0, 0, err
	}
	o.progress("installing the Base")
	d, err := newDisk(nil)
	if err != nil {
		return 0, 0, err
	}
	if err := Configure(ctx, root, o); err != nil {
		return 0, 0, err
	}
	if err := put(root, "etc/fstab", []byte(d.fstab()), 0o644); err != nil {
		return 0, 0, err
	}
	o.progress("writing %s", o.Out)
	err = o.writeAtomically(func(path string) error {
		if o.Architecture == "amd64" {
			return d.write(ctx, root, path)
		}
		return archive(ctx, root, path)
	})
	if err != nil {
		return 0, 0, err
	}
	var stat unix.Stat_t
	if err := unix.Stat(o.Out, &stat); err != nil {
		return 0, 0, fmt.Errorf("look at %s: %w", o.Out, err)
	}
	return stat.Size, stat.Blocks * 512, nil
}

// writeAtomically has a file written beside Out, which takes its place when it is on
// disk.
func (o Options) writeAtomically(write func(path string) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(o.Out), "."+filepath.Base(o.Out)+".") // mode 0600
	if err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	defer file.Close()
	if err := write(file.Name()); err != nil {
		return err
	}
	if o.Provision == "" {
		if err := file.Chmod(0o644); err != nil {
			return err
		}
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("write the image to the disk: %w", err)
	}
	if err := os.Rename(file.Name(), o.Out); err != nil {
		return fmt.Errorf("put the image in its place: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(o.Out))
}

// archive writes the whole root as a tar archive.
func archive(ctx context.Context, root, path string) error {
	return run(ctx, "tar", "--create", "--file="+path, "--directory="+root, "--numeric-owner", "--xattrs", "--sort=name", ".")
}

// debianPart is a root with Debian's packages, locked while it is read.
type debianPart struct {
	path string
	lock *os.File
}

func (d debianPart) Close() error { return d.lock.Close() }

// debian returns Debian's part of the image, made anew if the one in the cache is
// old. It must be closed.
func debian(ctx context.Context, o Options) (debianPart, error) {
	packages, err := packagesOf(ctx, o)
	if err != nil {
		return debianPart{}, err
	}
	content, err := overlayHash()
	if err != nil {
		return debianPart{}, err
	}
	key := sha256.Sum256([]byte(strings.Join(packages, "\n") + "\n" + debianroot.Suite + "\n" + content))
	path := filepath.Join(o.Cache, o.Architecture+"-"+hex.EncodeToString(key[:8]))
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return debianPart{}, fmt.Errorf("lock %s: %w", path, err)
	}
	part := debianPart{path, lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return debianPart{}, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
	}
	// What killed runs have left goes first.
	abandoned, _ := filepath.Glob(filepath.Join(o.Cache, "work-*")) // its only error is a bad pattern
	for _, directory := range abandoned {
		if info, err := os.Stat(directory); err == nil && time.Since(info.ModTime()) > freshness {
			_ = removeRoot(directory) // a try; it is in nobody's way
		}
	}
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < freshness {
		return part, nil
	}
	o.progress("making a root of Debian, once a day; this takes some minutes")
	err = errors.Join(removeRoot(path), removeRoot(path+".new"))
	if err == nil {
		err = makeDebian(ctx, o, packages, path+".new")
	}
	if err == nil {
		// Its age is that of its making, not of the files in it.
		now := time.Now()
		err = errors.Join(os.Chtimes(path+".new", now, now), os.Rename(path+".new", path))
	}
	if err != nil {
		return debianPart{}, errors.Join(err, lock.Close())
	}
	return part, nil
}

// packagesOf lists what to install: what our package depends on, and what boots.
func packagesOf(ctx context.Context, o Options) ([]string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-deb", "--field", o.Package, "Package", "Architecture", "Depends").Output()
	if err != nil {
		return nil, fmt.Errorf("read the package %s: %w; `make package` makes it anew", o.Package, err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	if fields["Package"] != "bitbox-base" || fields["Architecture"] != o.Architecture {
		return nil, fmt.Errorf("the package %s is %s for %s, not bitbox-base for %s", o.Package, fields["Package"], fields["Architecture"],
			o.Architecture)
	}
	packages := append(slices.Clone(bootPackages), kernels[o.Architecture])
	for depends := range strings.SplitSeq(fields["Depends"], ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(depends), " ")
		packages = append(packages, name)
	}
	slices.Sort(packages)
	return slices.Compact(packages), nil
}

// overlayHash changes with every file of the overlay.
func overlayHash() (string, error) {
	hash := sha256.New()
	err := fs.WalkDir(overlay, "root", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := overlay.ReadFile(path)
		fmt.Fprintf(hash, "%s\n%x\n", path, sha256.Sum256(content))
		return err
	})
	return hex.EncodeToString(hash.Sum(nil)), err
}

// makeDebian makes a root with Debian's packages.
func makeDebian(ctx context.Context, o Options, packages []string, path string) error {
	// What the kernel starts from is made while Debian's packages are installed, and
	// some of our files are part of it. The others come later: apt, say, must not look
	// for a read-only root yet.
	early, err := os.MkdirTemp(o.Cache, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(early)
	if err := copyOverlay(early, "etc/initramfs-tools/", "usr/share/initramfs-tools/"); err != nil {
		return err
	}
	arguments := []string{"--essential-hook=sync-in " + early + " /"}
	if names := loaders[o.Architecture]; names != nil {
		arguments = append(arguments,
			"--customize-hook=mkdir \"$1/"+loaderDirectory+"\"",
			// By the building machine's apt with the root's sources: a name server is known there.
			"--customize-hook=cd \"$1/"+loaderDirectory+"\" && APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get download --quiet --option=APT::Sandbox::User=root "+strings.Join(names, " "))
	}
	return debianroot.Make(ctx, debianroot.Config{Directory: path, Packages: packages, Architecture: o.Architecture, Arguments: arguments})
}

// copyOverlay lays our files over a root; those with one of these prefixes, if there
// are any.
func copyOverlay(root string, only ...string) error {
	return fs.WalkDir(overlay, "root", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, "root/")
		if len(only) > 0 && !slices.ContainsFunc(only, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			return nil
		}
		content, err := overlay.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(content, []byte("#!")) {
			mode = 0o755
		}
		return put(root, name, content, mode)
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

// environment is what programs see: nothing of the building machine's.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "TZ=UTC", "DEBIAN_FRONTEND=noninteractive"}

// runInside runs a program of a root, in a view of its own with /proc and without a
// network: nothing stays mounted, whatever happens.
func runInside(ctx context.Context, root string, argv ...string) error {
	return run(ctx, append([]string{"unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--root=" + root, "--mount-proc", "--"},
		argv...)...)
}

// run runs a program; an error has the end of what it printed.
func run(ctx context.Context, argv ...string) error { return runInput(ctx, nil, argv...) }

func runInput(ctx context.Context, input io.Reader, argv ...string) error {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env, command.Stdin = environment, input
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	return nil
}

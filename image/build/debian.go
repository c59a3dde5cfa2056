package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/debianroot"
)

// bootPackages are what a machine needs that a container does not: drivers, what makes and checks file systems.
var bootPackages = []string{"e2fsprogs", "kmod", "procps", "systemd-repart", "udev"}

// toolPackages are what makes an image. They run in a root of their own, so that it does not matter which Debian the
// building machine has.
var toolPackages = []string{"cryptsetup-bin", "dosfstools", "e2fsprogs", "efitools", "erofs-utils", "fdisk", "kmod", "mtools",
	"python3-virt-firmware", "sbsigntool", "systemd-boot-efi", "systemd-ukify", "xz-utils", "zstd"}

// downloads is where a root keeps packages that are not installed but taken apart: the kernel, which would bring a maker
// of initrds, and systemd's boot loader.
const downloads = "bitbox-base-downloads"

// epoch is the time of all that Debian's packages make while they are installed: the release of Debian 13.
const epoch = "1754697600"

// freshness is how old Debian's part may be: a new Base should not begin with old faults.
const freshness = 24 * time.Hour

// debianPart is a root with Debian's packages, locked while it is read.
type debianPart struct {
	path string
	lock *os.File
}

func (d debianPart) Close() error { return d.lock.Close() }

// debian returns Debian's part of the image. It must be closed.
func debian(ctx context.Context, o Options) (debianPart, error) {
	packages, err := packagesOf(ctx, o)
	if err != nil {
		return debianPart{}, err
	}
	kernel := architectures[o.Architecture].kernel
	return cached(ctx, o, debianroot.Config{Packages: packages, Architecture: o.Architecture, Arguments: []string{
		// By the building machine's apt with the root's sources: a name server is known there. The kernel's package is named
		// by the one that depends on it.
		`--customize-hook=mkdir "$1/` + downloads + `" && cd "$1/` + downloads + `" && grep -h '^Date: ' ../var/lib/apt/lists/*Release >dates && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && ` +
			`apt-get download --quiet --option=APT::Sandbox::User=root systemd-boot-efi $(apt-cache depends --important ` + kernel +
			` | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')`,
	}})
}

// tools returns the root in which the tools run. It must be closed.
func tools(ctx context.Context, o Options) (debianPart, error) {
	return cached(ctx, o, debianroot.Config{Packages: toolPackages, Architecture: runtime.GOARCH})
}

// cached returns a root of Debian, and makes a new one if the one in the cache is old.
func cached(ctx context.Context, o Options, c debianroot.Config) (debianPart, error) {
	key := sha256.Sum256([]byte(strings.Join(slices.Concat([]string{debianroot.Suite, epoch}, c.Packages, c.Arguments), "\n")))
	path := filepath.Join(o.Cache, c.Architecture+"-"+hex.EncodeToString(key[:8]))
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return debianPart{}, fmt.Errorf("lock %s: %w", path, err)
	}
	part := debianPart{path, lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return debianPart{}, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
	}
	// First it removes the leftovers of killed runs.
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
	c.Directory = path + ".new"
	// Packages' dates of users and passwords are this one.
	c.Environment = []string{"SOURCE_DATE_EPOCH=" + epoch}
	err = errors.Join(removeRoot(path), removeRoot(c.Directory))
	if err == nil {
		err = debianroot.Make(ctx, c)
	}
	if err == nil {
		// Its age is that of its making, not of the files in it.
		now := time.Now()
		err = errors.Join(os.Chtimes(c.Directory, now, now), os.Rename(c.Directory, path))
	}
	if err != nil {
		return debianPart{}, errors.Join(err, lock.Close())
	}
	return part, nil
}

// packagesOf lists what to install: what our package depends on, and what boots.
func packagesOf(ctx context.Context, o Options) ([]string, error) {
	fields, err := packageFields(ctx, o)
	if err != nil {
		return nil, err
	}
	packages := slices.Clone(bootPackages)
	for depends := range strings.SplitSeq(fields["Depends"], ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(depends), " ")
		packages = append(packages, name)
	}
	slices.Sort(packages)
	return slices.Compact(packages), nil
}

// packageFields reads what our package says of itself.
func packageFields(ctx context.Context, o Options) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-deb", "--field", o.Package, "Package", "Version", "Architecture", "Depends").Output()
	if err != nil {
		return nil, fmt.Errorf("read the package %s: %w; `make package` makes it again", o.Package, err)
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
	return fields, nil
}

// archiveTime returns when the archive was last changed that a root was made from: the latest date of its lists.
func archiveTime(root string) (time.Time, error) {
	dates, err := os.ReadFile(filepath.Join(root, downloads, "dates"))
	if err != nil {
		return time.Time{}, fmt.Errorf("find the day of Debian's archive: %w", err)
	}
	var latest time.Time
	for line := range strings.Lines(string(dates)) {
		at, err := time.Parse(time.RFC1123, strings.TrimSpace(strings.TrimPrefix(line, "Date: ")))
		if err != nil {
			return time.Time{}, fmt.Errorf("find the day of Debian's archive: %w", err)
		}
		if at.After(latest) {
			latest = at
		}
	}
	if latest.IsZero() {
		return time.Time{}, errors.New("find the day of Debian's archive: its lists have no date")
	}
	return latest.UTC(), nil
}

//go:build linux

// Package debian does the work of an update on a Debian machine: it queries dpkg, has it
// install packages, restarts the Base's units, and checks whether the Base is healthy.
//
// Programs are started by absolute paths with lists of arguments. Each argument is a constant
// of this module, a path of the Store, or a version that was checked by package release.
package debian

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bounded"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	dpkg      = "/usr/bin/dpkg"
	dpkgQuery = "/usr/bin/dpkg-query"
	dpkgDeb   = "/usr/bin/dpkg-deb"
	systemctl = "/usr/bin/systemctl"

	// frontendLock is held while several packages are installed, by apt or by us.
	frontendLock = "/var/lib/dpkg/lock-frontend"

	// askTime bounds a question, workTime what writes much on a slow card, and
	// occupyTime waiting for Debian's own updates.
	askTime    = 30 * time.Second
	workTime   = 10 * time.Minute
	occupyTime = 30 * time.Minute
	// remountTime bounds making the root file system read-only again.
	remountTime = 20 * time.Second
	// again is the pause between two attempts.
	again = 500 * time.Millisecond
	// dialTime bounds a connection to the entry.
	dialTime = 3 * time.Second

	// hopelessRestarts is how often systemd has started a service again when it is given up.
	hopelessRestarts = 6

	// maxOutput bounds what is kept of a program's output, in bytes.
	maxOutput = 1 << 20
)

// Environment variables of what is started.
var environment = []string{
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/",
	// Nobody is there to answer.
	"DEBIAN_FRONTEND=noninteractive",
	// The lock is ours already (Occupy).
	"DPKG_FRONTEND_LOCKED=true",
	// We decide which units restart and when; the package's scripts do not. At boot their
	// systemctl would wait for units that wait for this one.
	"SYSTEMD_OFFLINE=1", setup.FilesOnly + "=1",
}

// Machine is the machine that this process runs on. It implements update.Host.
type Machine struct {
	// Run runs a program; nil: for real.
	Run func(ctx context.Context, argv ...string) (string, error)
}

func (m Machine) run(ctx context.Context, limit time.Duration, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if m.Run != nil {
		return m.Run(ctx, argv...)
	}
	return execute(ctx, environment, argv...)
}

// systemd is run for those programs that speak to it.
func (m Machine) systemd(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	if m.Run != nil {
		return m.Run(ctx, argv...)
	}
	return execute(ctx, environment[:4], argv...)
}

func execute(ctx context.Context, environment []string, argv ...string) (string, error) {
	command := programs.Command(ctx, argv...)
	command.Env = environment
	command.WaitDelay = time.Second // for a grandchild that keeps the pipes open
	stdout, stderr := &bounded.Buffer{Most: maxOutput}, &bounded.Buffer{Most: maxOutput}
	command.Stdout, command.Stderr = stdout, stderr
	if err := command.Run(); err != nil {
		return "", &programs.Failure{Argv: argv, Err: errors.Join(err, ctx.Err()), Said: stderr.LastWords()}
	}
	return stdout.String(), nil
}

// Architecture implements update.Machine, as do the next four.
func (m Machine) Architecture(ctx context.Context) (string, error) {
	out, err := m.run(ctx, askTime, dpkg, "--print-architecture")
	return strings.TrimSpace(out), err
}

// Installed fails if the package is not installed.
func (m Machine) Installed(ctx context.Context) (string, error) {
	out, err := m.run(ctx, askTime, dpkgQuery, "--show", "--showformat=${Version}", update.PackageName)
	if err == nil && out == "" {
		err = reason.New("dpkg knows no installed version of " + update.PackageName)
	}
	return out, err
}

// IsImage is false: package image looks after those that are.
func (m Machine) IsImage() bool { return false }

// Describe reads the control file of a package. dpkg-deb unpacks it to its standard output:
// to write it somewhere takes rights that the system helper does not have.
func (m Machine) Describe(ctx context.Context, path string) (update.Package, error) {
	archive, err := m.run(ctx, askTime, dpkgDeb, "--ctrl-tarfile", path)
	if err != nil {
		return update.Package{}, err
	}
	control, err := controlFile(archive)
	if err != nil {
		return update.Package{}, reason.Errorf("read what %s says of itself: %w", filepath.Base(path), err)
	}
	field := func(name string) string {
		for line := range strings.Lines(control) {
			if value, ok := strings.CutPrefix(line, name+":"); ok {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	return update.Package{Name: field("Package"), Version: field("Version"), Architecture: field("Architecture")}, nil
}

// controlFile finds it in a tar archive.
func controlFile(archive string) (string, error) {
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		header, err := r.Next()
		if err != nil {
			return "", reason.Errorf("find the file control: %w", err)
		}
		if strings.TrimPrefix(header.Name, "./") == "control" {
			content, err := io.ReadAll(io.LimitReader(r, maxOutput))
			return string(content), err
		}
	}
}

// Start does not wait.
func (m Machine) Start(ctx context.Context) error { return m.StartUnit(ctx, update.Unit) }

// StartUnit does not wait. unit is a constant of package update.
func (m Machine) StartUnit(ctx context.Context, unit string) error {
	_, err := m.systemd(ctx, systemctl, "start", "--no-block", unit)
	return err
}

// Reboot restarts the machine, and does not wait.
func (m Machine) Reboot(ctx context.Context) error {
	_, err := m.systemd(ctx, systemctl, "--no-block", "--job-mode=replace-irreversibly", "start", "reboot.target")
	return err
}

// Occupy takes the lock that apt takes, too.
func (m Machine) Occupy(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, occupyTime)
	defer cancel()
	file, err := os.OpenFile(frontendLock, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return nil, reason.Errorf("keep other programs from installing: %w", err)
	}
	for {
		err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil, reason.Errorf("wait until no other program installs packages: %w", errors.Join(err, ctx.Err(), file.Close()))
		}
	}
}

// ReadOnly asks the kernel.
func (m Machine) ReadOnly() (bool, error) {
	var s unix.Statfs_t
	if err := unix.Statfs("/", &s); err != nil {
		return false, reason.Errorf("look at the root file system: %w", err)
	}
	return s.Flags&unix.ST_RDONLY != 0, nil
}

// Remount remounts the root file system. The unit has a mount namespace of its own: the
// other services go on seeing it read-only. It is done without mount(8), which would look
// for the disk in /dev, where this unit sees none.
func (m Machine) Remount(ctx context.Context, writable bool) error {
	ctx, cancel := context.WithTimeout(ctx, remountTime)
	defer cancel()
	for {
		flags, err := rootFlags()
		if err != nil {
			return err
		}
		if !writable {
			flags |= unix.MS_RDONLY
		}
		err = unix.Mount("", "/", "", unix.MS_REMOUNT|flags, "")
		if err == nil {
			return nil
		}
		err = reason.Errorf("remount the root file system (writable: %v): %w", writable, err)
		if writable || !errors.Is(err, unix.EBUSY) {
			return err
		}
		// Something may still run from a file that was replaced.
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return err
		}
	}
}

// rootFlags are those that a remount must not lose, but for that of being read-only. Those of
// statfs(2) have other numbers than those of mount(2).
func rootFlags() (uintptr, error) {
	var s unix.Statfs_t
	if err := unix.Statfs("/", &s); err != nil {
		return 0, reason.Errorf("look at the root file system: %w", err)
	}
	var flags uintptr
	for is, keep := range map[int64]uintptr{
		unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC,
		unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
		unix.ST_SYNCHRONOUS: unix.MS_SYNCHRONOUS,
	} {
		if int64(s.Flags)&is != 0 {
			flags |= keep
		}
	}
	return flags, nil
}

// Install gives dpkg a package. Settings of the machine's own stay.
func (m Machine) Install(ctx context.Context, path string) error {
	_, err := m.run(ctx, workTime, dpkg, "--force-confdef", "--force-confold", "--install", path)
	return err
}

// Pack makes a package of what is installed, as it is installed, so that there always is
// one to go back to, however the Base came to its version.
func (m Machine) Pack(ctx context.Context, path string) (err error) {
	work := path + ".work"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := m.control(ctx, filepath.Join(work, "DEBIAN")); err != nil {
		return reason.Errorf("pack the previous version: %w", err)
	}
	list, err := m.run(ctx, askTime, dpkgQuery, "--listfiles", update.PackageName)
	if err != nil {
		return err
	}
	for name := range strings.Lines(list) {
		// A line that is no path is a remark of dpkg's about diversions.
		if name = strings.TrimRight(name, "\n"); !filepath.IsAbs(name) || name == "/." {
			continue
		}
		if err := copyFile(filepath.Join(work, name), name); err != nil {
			return reason.Errorf("pack the previous version: %w", err)
		}
	}
	// Packed quickly rather than well; the name becomes valid when it is whole and on disk.
	unfinished := path + ".new"
	if _, err := m.run(ctx, workTime, dpkgDeb, "--root-owner-group", "-Zgzip", "-z1", "--build", work, unfinished); err != nil {
		return err
	}
	return errors.Join(syncPath(unfinished), os.Rename(unfinished, path), syncPath(filepath.Dir(path)))
}

// control writes the control file and the scripts of what is installed.
func (m Machine) control(ctx context.Context, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	status, err := m.run(ctx, askTime, dpkgQuery, "--status", update.PackageName)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "control"), []byte(controlOf(status)), 0o644); err != nil {
		return err
	}
	names, err := m.run(ctx, askTime, dpkgQuery, "--control-list", update.PackageName)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(names) {
		content, err := m.run(ctx, askTime, dpkgQuery, "--control-show", update.PackageName, name)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), []byte(content), mode); err != nil {
			return err
		}
	}
	return nil
}

// controlOf leaves out of dpkg's status what only an installed package has.
func controlOf(status string) string {
	var control strings.Builder
	dropped := false
	for line := range strings.Lines(strings.TrimSpace(status) + "\n") {
		if !strings.HasPrefix(line, " ") { // else it continues the field before
			name, _, _ := strings.Cut(line, ":")
			dropped = name == "Status" || name == "Conffiles" || name == "Config-Version"
		}
		if !dropped {
			control.WriteString(line)
		}
	}
	return control.String()
}

// copyFile copies a directory, a link or a file; what is not there is left out.
func copyFile(to, from string) (err error) {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		return os.Chmod(to, info.Mode().Perm())
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case !info.Mode().IsRegular():
		return reason.Errorf("%s is no file, no directory and no link", from)
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Chmod(info.Mode().Perm()), target.Close(), os.Chtimes(to, info.ModTime(), info.ModTime()))
}

func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// Units that are restarted. Sockets go with their services, in one transaction.
const (
	systemUnit       = "bitbox-base-system.service"
	systemSocket     = "bitbox-base-system.socket"
	middlewareSocket = "bitbox-base-middleware.socket"
	consoleUnit      = "bitbox-base-console.service"
	discardUnit      = "bitbox-base-discard.service"
)

// Reread makes systemd reload its units.
func (m Machine) Reread(ctx context.Context) error {
	_, err := m.systemd(ctx, systemctl, "daemon-reload")
	return err
}

// restarts are what systemctl is told after an installation. No process may go on with a program
// of the previous version: a hole in it would stay open, and the root file system writable.
var restarts = [][]string{
	{"reset-failed", "bitbox-base-*"},
	{"reload-or-restart", generation.FirewallUnit},
	{"restart", systemSocket, systemUnit, middlewareSocket, generation.MiddlewareUnit},
	{"try-restart", consoleUnit, generation.PortsUnit},
	{"try-restart", generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit},
	{"--no-block", "try-restart", setup.SlowUnit},
	{"try-restart", generation.WatcherUnit, generation.WalletUnit, discardUnit},
}

// commands are restarts, and the start of linked units: also of what only this version has.
func commands(linked []string) [][]string {
	return append(slices.Clone(restarts), setup.Starts(linked)...)
}

// Restart restarts the services that the package brings and those that its units describe. It
// loads the packet filter again in one step, which is never open or closed in between.
func (m Machine) Restart(ctx context.Context) error {
	if err := m.Reread(ctx); err != nil {
		return err
	}
	linked, err := linkedUnits()
	if err != nil {
		return err
	}
	for _, argv := range commands(linked) {
		if _, err := m.systemd(ctx, append([]string{systemctl}, argv...)...); err != nil {
			return err
		}
	}
	return nil
}

// linkedUnits are the Base's units that setup starts at boot, but for those that this
// process is.
func linkedUnits() ([]string, error) {
	var units []string
	for _, target := range []string{"sockets.target.wants", "sysinit.target.wants", "multi-user.target.wants"} {
		links, err := filepath.Glob(filepath.Join("/etc/systemd/system", target, "bitbox-base-*"))
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			if unit := filepath.Base(link); !strings.HasPrefix(unit, "bitbox-base-upgrade") {
				units = append(units, unit)
			}
		}
	}
	if len(units) == 0 {
		return nil, reason.New("no unit of the Base is linked in /etc/systemd/system; is this machine set up as a Base?")
	}
	return units, nil
}

// needed are the units without which no owner reaches the Base.
var needed = []string{generation.FirewallUnit, generation.ProxyUnit, systemUnit, generation.MiddlewareUnit}

// Look asks systemd for the units, the entry for a connection, and the system helper
// for the rest.
func (m Machine) Look(ctx context.Context) (update.Condition, error) {
	var c update.Condition
	for _, unit := range needed {
		out, err := m.systemd(ctx, systemctl, "show", "--property=ActiveState,MainPID,NRestarts", unit)
		if err != nil {
			return c, err
		}
		c.Processes += out
		if state := property(out, "ActiveState"); state != "active" {
			c.Down = append(c.Down, unit+" is "+state)
		}
		if restarts, err := strconv.Atoi(property(out, "NRestarts")); err == nil && restarts >= hopelessRestarts {
			c.Down = append(c.Down, fmt.Sprintf("%s has ended %d times", unit, restarts))
			c.Hopeless = true
		}
	}
	entry := fmt.Sprintf("127.0.0.1:%d", posture.EntryPort)
	if conn, err := net.DialTimeout("tcp", entry, dialTime); err != nil {
		c.Down = append(c.Down, "nothing answers at the entry")
	} else {
		_ = conn.Close()
	}
	health, err := m.Health(ctx)
	if err != nil {
		c.Down = append(c.Down, "the system helper does not answer: "+reason.Of(err))
		return c, nil
	}
	if !health.GetMiddleware() {
		c.Down = append(c.Down, "the Middleware has not spoken to the system helper")
	}
	if health.GetApplying() {
		c.Down = append(c.Down, "the posture is not in force yet")
	}
	if health.GetNotApplied() != "" {
		c.Odd = append(c.Odd, health.GetNotApplied())
	}
	c.Odd = append(c.Odd, health.GetUnits()...)
	return c, nil
}

// Health asks the system helper how it is.
func (m Machine) Health(ctx context.Context) (*systemv1.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	helper := helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)}
	reply, err := helper.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetHealth{GetHealth: &systemv1.GetHealth{}}}, nil)
	if err == nil && reply.GetHealth() == nil {
		err = reason.New("it gave no answer that is known here")
	}
	return reply.GetHealth(), err
}

func property(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

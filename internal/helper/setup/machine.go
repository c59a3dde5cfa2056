package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

// MachineRecord is what was changed on a running machine besides its files.
type MachineRecord struct {
	// Stopped are units of Debian that were running.
	Stopped []string `json:"stopped,omitempty"`
	// Filters are the packet filters, by the program that loads them, in the format of its -save.
	Filters map[string]string `json:"filters,omitempty"`
	// Kernel has settings, by their names in sysctl(8).
	Kernel map[string]string `json:"kernel,omitempty"`
	// Locked are users whose password was removed.
	Locked []string `json:"locked,omitempty"`
}

// Limits of one program, and of the wait for all servers.
const (
	programTime = 2 * time.Minute
	verifyTime  = 30 * time.Second
	lookAgain   = 200 * time.Millisecond
)

// lockFile prevents two setups from changing the machine at the same time.
const lockFile = "/run/bitbox-base-setup.lock"

// filterPrograms load the packet filters; with "-save" in place of "-restore" they print them.
var filterPrograms = []string{"/usr/sbin/iptables-restore", "/usr/sbin/ip6tables-restore"}

// openFilter is the filter of a kernel without any rules.
const openFilter = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"

// mustRun are the units that a Base needs. The console is not among them: there may be no screen.
var mustRun = []string{
	generation.FirewallUnit, "bitbox-base-system.socket", "bitbox-base-system.service", "bitbox-base-middleware.socket",
	generation.PortsUnit, generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit,
}

// ProgramUnits run a program that an upgrade of ours or of Debian's may replace, so they restart
// after one. SSH's is not among them: an upgrade over SSH would end with it.
var ProgramUnits = []string{
	"bitbox-base-system.service", generation.MiddlewareUnit, "bitbox-base-console.service", generation.PortsUnit, generation.ProxyUnit,
	generation.MDNSUnit, generation.WatcherUnit, generation.WalletUnit, generation.ChainUnit, "bitbox-base-discard.service",
}

// SlowUnit is the one of them that may take minutes to stop: Bitcoin Core writes its state, and a node
// that was taken over stops as late as it can. Nobody waits for its restart.
const SlowUnit = generation.ChainUnit

// Starts are the arguments with which systemctl starts units. Nobody waits for SlowUnit here either: a
// start joins a restart that is under way, and ends with it.
func Starts(units []string) [][]string {
	others := slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return unit == SlowUnit })
	starts := [][]string{append([]string{"start"}, others...)}
	if len(others) < len(units) {
		starts = append(starts, []string{"--no-block", "start", SlowUnit})
	}
	return starts
}

// Machine is the running machine.
type Machine struct {
	// Out receives the progress.
	Out io.Writer
	// KeepSSH says that the user is logged in by SSH: the setup counts as failed unless the
	// Base's own SSH runs at the end.
	KeepSSH bool
}

// run runs a program of the machine and returns its output.
func run(ctx context.Context, input string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	command.Stdin = strings.NewReader(input)
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return string(out), reason.Errorf("%s: %w: %s", strings.Join(argv, " "), err,
			strings.ReplaceAll(strings.TrimSpace(complaint.String()), "\n", "; "))
	}
	return string(out), nil
}

const systemctl = "/usr/bin/systemctl"

// Lock prevents another setup at the same time; the file is held until the process ends.
func Lock() (*os.File, error) {
	file, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, reason.Errorf("set up: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(reason.New("another setup is running on this machine; wait for it to end"), file.Close())
	}
	return file, nil
}

// Plan is the package's plan, with its effects besides files.
func (m Machine) Plan(ctx context.Context, o Options) (*Record, error) {
	record, err := Plan("/", o, nil)
	if err != nil {
		return nil, err
	}
	if record.Machine.Stopped, err = running(ctx, masked(record)); err != nil {
		return nil, err
	}
	record.Machine.Filters = map[string]string{}
	for _, program := range filterPrograms {
		save := strings.Replace(program, "-restore", "-save", 1)
		if record.Machine.Filters[program], err = run(ctx, "", save, "-t", "filter"); err != nil {
			return nil, reason.Errorf("keep the packet filter: %w; the kernel lacks netfilter, or you are not allowed to use it", err)
		}
	}
	if hasPassword("/", "root") {
		record.Machine.Locked = []string{"root"}
	}
	record.Machine.Kernel = kernelSettings(record.Machine.Kernel)
	return record, nil
}

// masked lists the units of Debian that the plan masks.
func masked(r *Record) []string {
	var units []string
	for _, c := range r.Changes {
		if c.After == (State{Kind: kindLink, Content: os.DevNull}) {
			units = append(units, filepath.Base(c.Path))
		}
	}
	return units
}

// started lists our units that start at boot.
func started(r *Record) []string {
	var units []string
	for _, c := range r.Changes {
		if c.After.Kind == kindLink && strings.HasSuffix(filepath.Dir(c.Path), ".wants") {
			units = append(units, filepath.Base(c.Path))
		}
	}
	return units
}

// running returns the active ones of units.
func running(ctx context.Context, units []string) ([]string, error) {
	var active []string
	for _, unit := range units {
		out, err := run(ctx, "", systemctl, "show", "--property=ActiveState", "--value", unit)
		if err != nil {
			return nil, reason.Errorf("ask systemd for %s: %w", unit, err)
		}
		if strings.TrimSpace(out) == "active" {
			active = append(active, unit)
		}
	}
	return active, nil
}

// hasPassword tells whether a user can log in with a password, or without any (shadow(5)).
func hasPassword(root, user string) bool {
	text, err := os.ReadFile(filepath.Join(root, "/etc/shadow"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if len(fields) > 1 && fields[0] == user {
			return !strings.HasPrefix(fields[1], "!") && !strings.HasPrefix(fields[1], "*")
		}
	}
	return false
}

// kernelSettings adds the present values of the settings that the package changes to known, which
// an earlier setup has kept.
func kernelSettings(known map[string]string) map[string]string {
	settings := maps.Clone(known)
	if settings == nil {
		settings = map[string]string{}
	}
	for line := range strings.Lines(packaging.Sysctl) {
		name, _, found := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !found || strings.HasPrefix(name, "#") {
			continue
		}
		if _, kept := settings[name]; kept {
			continue
		}
		// A kernel without the setting has nothing to keep.
		if value, err := os.ReadFile(settingFile(name)); err == nil {
			settings[name] = strings.TrimSpace(string(value))
		}
	}
	return settings
}

func settingFile(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// Describe describes in plain words what a plan does.
func (m Machine) Describe(r *Record) error {
	b := &strings.Builder{}
	line := func(format string, a ...any) { fmt.Fprintf(b, "  * "+format+"\n", a...) }
	fmt.Fprintln(b, "This machine becomes a Base:")
	line("the packet filter is replaced: only TCP port %d and mDNS come in, and little goes out", posture.EntryPort)
	line("SSH is off until an owner's App switches it on")
	if len(r.Machine.Stopped) > 0 {
		line("stopped: %s", strings.Join(r.Machine.Stopped, ", "))
	}
	line("masked, because units of the Base replace them: %s", strings.Join(masked(r), ", "))
	line("the first screen shows the Base, and no login prompt")
	if len(r.Machine.Locked) > 0 {
		line("root's password is locked; --undo unlocks it")
	}
	if r.Options.NoUSBInput {
		line("USB keyboards and mice are switched off")
	}
	if r.Options.NoDisplay {
		line("no display: an owner's App lets other Apps in")
	}
	line("Debian's security updates install themselves, and may restart the machine at night")
	fmt.Fprintln(b, "Changed, and kept in "+RecordFile+" for `bitbox-base setup --undo`:")
	for _, c := range r.Changes {
		switch {
		case c.After.Kind == kindLink:
			line("%s -> %s", c.Path, c.After.Content)
		case c.After.Kind == kindMode:
			line("%s gets mode %04o", c.Path, c.After.Mode)
		default:
			line("%s", c.Path)
		}
	}
	_, err := io.WriteString(m.Out, b.String())
	return err
}

func (m Machine) say(format string, a ...any) { fmt.Fprintf(m.Out, format+"\n", a...) }

// SetUp changes the files of an image. If that fails, it restores them.
func SetUp(ctx context.Context, root string, r *Record) error {
	if hasPassword(root, "root") {
		if _, err := run(ctx, "", "/usr/sbin/usermod", "--root", root, "--lock", "root"); err != nil {
			return err
		}
		r.Machine.Locked = []string{"root"}
	}
	err := r.Apply(root)
	if err == nil {
		return nil
	}
	_, undo := r.Undo(root)
	return errors.Join(err, undo, Forget(root))
}

// SetUp makes the machine a Base. If that fails, it restores everything.
func (m Machine) SetUp(ctx context.Context, r *Record) error {
	err := m.change(ctx, r)
	if err == nil {
		return nil
	}
	// A user who interrupted it also wants it undone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*programTime)
	defer cancel()
	if undo := m.Undo(ctx); undo != nil && !errors.Is(undo, ErrNotSetUp) {
		return reason.Errorf("%w; and restoring everything failed: %w", err, undo)
	}
	return reason.Errorf("%w; everything was restored", err)
}

func (m Machine) change(ctx context.Context, r *Record) error {
	if err := r.Apply("/"); err != nil {
		return err
	}
	if _, err := run(ctx, "", systemctl, "daemon-reload"); err != nil {
		return err
	}
	if len(r.Machine.Stopped) > 0 {
		m.say("stopping Debian's servers")
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	m.say("starting the Base")
	if _, err := run(ctx, "", append([]string{systemctl, "start"}, started(r)...)...); err != nil {
		return reason.Errorf("start the Base: %w", err)
	}
	must := mustRun
	if m.KeepSSH {
		must = append(slices.Clone(must), generation.SSHUnit)
	}
	return Verify(ctx, must)
}

// settle does everything besides files, before any of our services starts.
func (r *Record) settle(ctx context.Context) error {
	if len(r.Machine.Stopped) > 0 {
		if _, err := run(ctx, "", append([]string{systemctl, "stop"}, r.Machine.Stopped...)...); err != nil {
			return err
		}
	}
	for _, user := range r.Machine.Locked {
		if _, err := run(ctx, "", "/usr/sbin/usermod", "--lock", user); err != nil {
			return err
		}
	}
	return others(ctx, r)
}

// resolver is the unit of Debian's resolver.
const resolver = "systemd-resolved.service"

// forgetStarts makes systemd forget how often these units were started. systemd refuses the sixth
// start within ten seconds (systemd.unit(5), StartLimitBurst=), and a setup that is undone and
// repeated gets there: the units would stay stopped.
func forgetStarts(ctx context.Context, units ...string) {
	for _, unit := range units {
		_, _ = run(ctx, "", systemctl, "reset-failed", unit) // it fails for a unit that is not there
	}
}

// others makes the affected programs read their settings again.
func others(ctx context.Context, r *Record) error {
	// Where the kernel's settings cannot be changed, in a container, the unit's condition says
	// so.
	if _, err := run(ctx, "", systemctl, "restart", "systemd-sysctl.service"); err != nil {
		return reason.Errorf("set the kernel: %w", err)
	}
	forgetStarts(ctx, resolver)
	if _, err := run(ctx, "", systemctl, "try-restart", resolver); err != nil {
		return err
	}
	const udevadm = "/usr/bin/udevadm"
	if _, err := os.Stat(udevadm); err != nil || !r.Options.NoUSBInput {
		return nil
	}
	if _, err := run(ctx, "", udevadm, "control", "--reload"); err != nil {
		return reason.Errorf("switch USB keyboards off: %w", err)
	}
	if _, err := run(ctx, "", udevadm, "trigger", "--subsystem-match=usb", "--action=add"); err != nil {
		return reason.Errorf("switch USB keyboards off: %w", err)
	}
	return nil
}

// Verify waits until the machine is a Base: the units are running, both packet filters drop by
// default, and the entry answers.
func Verify(ctx context.Context, units []string) error {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	var err error
	for {
		found := verifyOnce(ctx, units)
		if found == nil {
			return nil
		}
		if err == nil || ctx.Err() == nil { // the result of a check that the deadline cut off is ignored
			err = found
		}
		select {
		case <-ctx.Done():
			return reason.Errorf("the Base is not running: %w; `journalctl --boot --unit='bitbox-base-*'` may show why", err)
		case <-time.After(lookAgain):
		}
	}
}

func verifyOnce(ctx context.Context, units []string) error {
	active, err := running(ctx, units)
	if err != nil {
		return err
	}
	for _, unit := range units {
		if !slices.Contains(active, unit) {
			return reason.Errorf("%s is not active", unit)
		}
	}
	for _, program := range filterPrograms {
		rules, err := run(ctx, "", strings.Replace(program, "-restore", "-save", 1), "-t", "filter")
		if err != nil {
			return err
		}
		for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
			if !strings.Contains(rules, "\n:"+chain+" DROP ") {
				return reason.Errorf("the packet filter of %s accepts packets that match no rule (%s)", filepath.Base(program), chain)
			}
		}
	}
	// A unit is active for a moment even if its program cannot listen; and another program on the
	// port would answer.
	main, err := run(ctx, "", systemctl, "show", "--property=MainPID", "--value", generation.ProxyUnit)
	if err != nil {
		return err
	}
	entry := strconv.Itoa(posture.EntryPort)
	sockets, err := run(ctx, "", "/usr/bin/ss", "-Hltnp", "sport = :"+entry)
	if err != nil {
		return err
	}
	if !strings.Contains(sockets, ",pid="+strings.TrimSpace(main)+",") {
		return reason.Errorf("NGINX does not listen on port %s; the listener is %q", entry, strings.TrimSpace(sockets))
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", entry))
	if err != nil {
		return reason.Errorf("the entry does not answer: %w", err)
	}
	return conn.Close()
}

// stopTries is how often the units are told to stop. The second time ends what the first has left.
const stopTries = 10

// stop stops all units of the Base.
func stop(ctx context.Context) error {
	// The helper first: while it applies a posture it has systemd reload units, and each such job
	// would cancel the one that stops the same unit.
	for _, unit := range []string{"bitbox-base-system.socket", "bitbox-base-system.service"} {
		if _, err := run(ctx, "", systemctl, "stop", unit); err != nil {
			return err
		}
	}
	// systemd takes one unit after the other. One that has failed and is started again in between
	// starts what it needs, whether that was stopped a moment ago or is being stopped.
	var left string
	var refused error
	for range stopTries {
		_, refused = run(ctx, "", systemctl, "stop", "bitbox-base-*")
		units, err := run(ctx, "", systemctl, "list-units", "--plain", "--no-legend",
			"--state=active,activating,reloading,deactivating", "bitbox-base-*")
		if err != nil {
			return err
		}
		jobs, err := run(ctx, "", systemctl, "list-jobs", "--plain", "--no-legend", "bitbox-base-*")
		if err != nil {
			return err
		}
		if left = strings.TrimSpace(units + jobs); left == "" {
			return nil
		}
	}
	return reason.Errorf("these still run after %d attempts: %s (%v)", stopTries, strings.ReplaceAll(left, "\n", "; "), refused)
}

// Undo restores the machine as it was. It can be repeated.
func (m Machine) Undo(ctx context.Context) error {
	r, err := ReadRecord("/")
	if err != nil {
		return err
	}
	if err := stop(ctx); err != nil {
		return reason.Errorf("stop the Base: %w", err)
	}
	// Failed units would be listed for as long as the machine runs.
	if _, err := run(ctx, "", systemctl, "reset-failed", "bitbox-base-*"); err != nil {
		m.say("%v", err)
	}
	left, err := r.Undo("/")
	if err != nil {
		return err
	}
	for _, path := range left {
		m.say("left unchanged, because somebody has edited it: %s", path)
	}
	if _, err := run(ctx, "", systemctl, "daemon-reload"); err != nil {
		return err
	}
	for _, program := range filterPrograms {
		rules := r.Machine.Filters[program]
		if rules == "" {
			rules = openFilter // nothing was loaded, or an image was set up
		}
		if _, err := run(ctx, rules, program, "-w", "5"); err != nil {
			return reason.Errorf("restore the packet filter: %w", err)
		}
	}
	for name, value := range r.Machine.Kernel {
		// Some settings cannot be changed back before a reboot; the next boot does it.
		_ = os.WriteFile(settingFile(name), []byte(value), 0o644)
	}
	for _, user := range r.Machine.Locked {
		if _, err := run(ctx, "", "/usr/sbin/usermod", "--unlock", user); err != nil {
			m.say("%s has no password to unlock", user)
		}
	}
	if err := others(ctx, &Record{}); err != nil {
		m.say("%v", err)
	}
	forgetStarts(ctx, r.Machine.Stopped...)
	for _, unit := range r.Machine.Stopped {
		if _, err := run(ctx, "", systemctl, "start", unit); err != nil {
			m.say("%s was running before and does not start: %v", unit, err)
		}
	}
	return Forget("/")
}

// FilesOnly is set in the environment by the installer of a release (internal/helper/update),
// which itself decides what to restart and when, and whether the Base is healthy afterwards. At
// boot systemctl would also wait for units that wait for that installation.
const FilesOnly = "BITBOX_BASE_FILES_ONLY"

// Renew brings a Base in line with the package after an upgrade, of ours or of a server, and
// restarts services whose program was replaced.
func (m Machine) Renew(ctx context.Context) error {
	earlier, err := ReadRecord("/")
	if err != nil {
		return err
	}
	record, err := Renew("/")
	if err != nil || !Booted() || os.Getenv(FilesOnly) != "" {
		return err
	}
	record.Machine.Kernel = kernelSettings(record.Machine.Kernel)
	if err := record.Write("/"); err != nil {
		return err
	}
	restart, err := changedUnits(ctx)
	if err != nil {
		return err
	}
	if _, err := run(ctx, "", systemctl, "daemon-reload"); err != nil {
		return err
	}
	var gone []string
	for _, unit := range started(earlier) {
		if !slices.Contains(started(record), unit) {
			gone = append(gone, unit)
		}
	}
	if len(gone) > 0 {
		if _, err := run(ctx, "", append([]string{systemctl, "stop"}, gone...)...); err != nil {
			return err
		}
	}
	// This completes a setup that was interrupted.
	if err := record.settle(ctx); err != nil {
		return err
	}
	if i := slices.Index(restart, SlowUnit); i >= 0 {
		restart = slices.Delete(restart, i, i+1)
		if _, err := run(ctx, "", systemctl, "--no-block", "try-restart", SlowUnit); err != nil {
			return err
		}
	}
	// The program of fail2ban is Python; it does not show that its modules are new.
	if _, err := run(ctx, "", append([]string{systemctl, "try-restart", generation.BansUnit}, restart...)...); err != nil {
		return err
	}
	for _, argv := range Starts(started(record)) {
		if _, err := run(ctx, "", append([]string{systemctl}, argv...)...); err != nil {
			return err
		}
	}
	return Verify(ctx, mustRun)
}

// changedUnits lists the units whose file has changed since systemd read it, or that run a
// program or a library that was replaced.
func changedUnits(ctx context.Context) ([]string, error) {
	var units []string
	for _, unit := range ProgramUnits {
		out, err := run(ctx, "", systemctl, "show", "--property=NeedDaemonReload,MainPID", unit)
		if err != nil {
			return nil, err
		}
		_, pid, _ := strings.Cut(out, "MainPID=")
		pid, _, _ = strings.Cut(pid, "\n")
		if strings.Contains(out, "NeedDaemonReload=yes") || isStale(pid) {
			units = append(units, unit)
		}
	}
	return units, nil
}

// isStale tells whether a process runs code from a removed file.
func isStale(pid string) bool {
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		return false // it is not running
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) > 5 && strings.Contains(fields[1], "x") && strings.HasSuffix(strings.TrimSpace(line), " (deleted)") {
			return true
		}
	}
	return false
}

// Booted tells whether this machine was booted with systemd (sd_booted(3)).
func Booted() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

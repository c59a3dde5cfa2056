//go:build linux

// Package stage boots a Base for tests: Debian's real servers under a real systemd, with our
// units and our configuration, in a container with its own network and attackers beside it.
//
//	s := stage.Boot(t, stage.Config{})
//	a := s.Attacker(1)
//	conn, err := a.Dial("tcp", netip.AddrPortFrom(s.V4, 8845))
//
// # How it works
//
// mmdebstrap makes a Debian 13 root once; it is kept in /var/cache/bitbox-base-stage (or in
// BITBOX_BASE_STAGE_CACHE). Two layers lie on it: the files that our package installs, and the
// files that one test writes. The layer of a test is in memory and is gone afterwards.
// systemd-nspawn boots the root within a second or two, in a network namespace that a bridge
// connects with the attackers' namespaces. Nothing of the host is changed: no address, no rule,
// and no file outside of the cache and /run/bitbox-base-stage.
//
// # What it leaves behind
//
// Nothing. Processes, mounts and namespaces end with the test, even if it panics. The next run
// removes the leftovers of a killed one; it recognises them by a lock that nobody holds.
//
// It needs root, and the packages in scripts/setup-tests.
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Patience is how long the stage waits for what should take a second or so. It
// is far more, for machines that have much else to do.
const Patience = 3 * time.Minute

// T is what a stage needs of a test, *testing.T. `make appliance` is another one.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Config says what differs from the package as it is installed.
type Config struct {
	// Effective is what the first generation of the configuration is rendered
	// from; nil is the factory's. The real system helper replaces it by what its
	// ledger says.
	Effective *posture.Effective
	// Real installs the Base's own binary. Otherwise a stand-in takes its place
	// (test/stage/standin), so that a test can put in force what no owner signed.
	Real bool
	// OwnElectrum leaves the Base's own Electrum server behind the extra API. Otherwise it is one at
	// Electrum, as a builder names it, which the test provides.
	OwnElectrum bool
	// Bare is a Debian that has what our package depends on, without the package:
	// Debian's servers start as they come.
	Bare bool
	// Package is the path of our Debian package. With it the Base is what that makes of
	// a Debian, and boots for its first time: nothing else is put in its place.
	Package string
	// ReadOnly boots from a root that nobody can write to, with /var on a data
	// partition of its own and /tmp in memory, as an image does.
	ReadOnly bool
	// Prepare, if not nil, changes the root before it boots; root is its path
	// on the host.
	Prepare func(t *testing.T, root string)
	// Build, if not nil, does that where there is no test.
	Build func(root string) error
}

// Electrum is where the Electrum server of a test listens.
var Electrum = netip.MustParseAddrPort("127.0.0.1:50001")

// Stage is a booted Base.
type Stage struct {
	// V4 and V6 are its addresses on the network that it shares with the attackers.
	V4, V6 netip.Addr

	t         T
	run       *run
	attackers map[int]*Attacker
	guests    int
	nspawn    *exec.Cmd
	exited    <-chan struct{}
	console   *bytes.Buffer
	leader    int
	readOnly  bool
}

// NeedRoot skips a test without root, and says so; in CI it fails instead. tools
// are programs that the test calls itself.
func NeedRoot(t T, tools ...string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, tool := range append([]string{"ip", "mmdebstrap", "nsenter", "systemd-nspawn"}, tools...) {
		if _, err := exec.LookPath(tool); err != nil {
			missing = strings.TrimPrefix(missing+", "+tool, ", ")
		}
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatalf("this test needs %s, and CI must run it", missing)
	default:
		t.Skipf("SKIPPED, not passed: this test runs against the real servers and needs %s (as root, scripts/setup-tests installs what is missing)", missing)
	}
}

var counter atomic.Int32

// Boot returns a Base that has booted. It ends with the test.
func Boot(t T, config Config) *Stage {
	t.Helper()
	s := Install(t, config)
	s.Start()
	return s
}

// Install returns a Base that has not booted yet: its root is there, to be
// changed, see Path, and its network.
func Install(t T, config Config) *Stage {
	t.Helper()
	NeedRoot(t)
	makeLayers := productLayers
	if config.Bare || config.Package != "" {
		makeLayers = debianLayers
	}
	layers, err := makeLayers()
	if err != nil {
		t.Fatalf("make the root of the stage: %v", err)
	}
	if config.Real {
		real, err := realLayer()
		if err != nil {
			t.Fatalf("install the Base's binary: %v", err)
		}
		layers = append([]string{real}, layers...)
	}
	r, err := newRun(fmt.Sprintf("%d-%d", os.Getpid(), counter.Add(1)))
	if err != nil {
		t.Fatalf("prepare the stage: %v", err)
	}
	s := &Stage{t: t, run: r, V4: baseV4, V6: baseV6, attackers: map[int]*Attacker{}, readOnly: config.ReadOnly}
	t.Cleanup(func() {
		if t.Failed() && s.leader != 0 {
			t.Logf("the journal of the stage:\n%s", s.Journal())
		}
		s.Kill()
		if err := r.clear(); err != nil {
			t.Errorf("clear the stage up: %v", err)
		}
	})
	if err := r.mountRoot(layers); err != nil {
		t.Fatalf("mount the root of the stage: %v", err)
	}
	if err := r.buildNetwork(); err != nil {
		t.Fatalf("make the network of the stage: %v", err)
	}
	e := config.Effective
	if e == nil {
		factory := Factory()
		e = &factory
	}
	switch {
	case config.Package != "":
		if err := installPackage(r.root(), config.Package); err != nil {
			t.Fatalf("install the package: %v", err)
		}
	case !config.Bare:
		if !config.OwnElectrum {
			if err := nameElectrum(r.root()); err != nil {
				t.Fatalf("name the Electrum server of a test: %v", err)
			}
		}
		if err := s.Apply(1, *e); err != nil {
			t.Fatal(err)
		}
	}
	if config.Prepare != nil {
		config.Prepare(t.(*testing.T), r.root())
	}
	if config.Build != nil {
		if err := config.Build(r.root()); err != nil {
			t.Fatalf("change the root of the stage: %v", err)
		}
	}
	if config.ReadOnly {
		if out, err := exec.Command("cp", "--archive", filepath.Join(r.root(), "var"), r.data()).CombinedOutput(); err != nil {
			t.Fatalf("make a data partition: %v: %s", err, out)
		}
	}
	return s
}

// nameElectrum does what a builder does.
func nameElectrum(root string) error {
	path := filepath.Join(root, generation.ElectrumFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(Electrum.String()+"\n"), 0o644)
}

// Factory is what is in force on a Base as it comes: the entry, and nothing else.
func Factory() posture.Effective {
	factory := posture.Factory()
	return posture.Effective{
		NodeName:  factory.NodeName,
		Endpoints: []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort}},
		Bans:      factory.Bans,
	}
}

// Apply renders e, writes it as a generation and puts it in force on disk. The
// servers read it when they are told to.
func (s *Stage) Apply(number uint64, e posture.Effective) error {
	files, err := generation.RenderFor(e, generation.Machine{Electrum: Electrum})
	if err != nil {
		return err
	}
	store := generation.NewStore(s.Path(generation.StateDirectory))
	if err := store.Write(number, files); err != nil {
		return err
	}
	return store.Switch(number)
}

// Path returns the host's path of a file of the Base. It must not pass through
// absolute links inside, nor through what the Base itself mounts (/run, /tmp).
func (s *Stage) Path(path string) string { return filepath.Join(s.run.root(), path) }

// Start boots the Base and returns when it has started all that it starts.
func (s *Stage) Start() {
	s.t.Helper()
	if s.leader != 0 {
		s.t.Fatal("the stage runs already")
	}
	if err := s.start(); err != nil {
		s.t.Fatalf("boot the stage: %v\n%s", err, s.console)
	}
	s.booted()
}

// StartAndCut boots it, and cuts the power as soon as cut returns true.
func (s *Stage) StartAndCut(cut func() bool) {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("boot the stage: %v\n%s", err, s.console)
	}
	for deadline := time.Now().Add(Patience); !cut(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("the moment to cut the power did not come within %v", Patience)
		}
	}
	s.Kill()
}

// rebootCode is how systemd-nspawn(1) with --keep-unit asks its caller to start it again. Switched off, it ends with 0.
const rebootCode = 133

// Stopped tells, within a time, whether the Base's machine has stopped by itself, and if
// so, whether it wants to be started again (AwaitReboot).
func (s *Stage) Stopped(within time.Duration) (stopped, reboots bool) {
	select {
	case <-s.exited:
		return true, s.nspawn.ProcessState.ExitCode() == rebootCode
	case <-time.After(within):
		return false, false
	}
}

// AwaitReboot returns when the Base has rebooted by itself.
func (s *Stage) AwaitReboot() {
	s.t.Helper()
	switch stopped, reboots := s.Stopped(Patience); {
	case !stopped:
		s.t.Fatalf("the Base did not reboot within %v", Patience)
	case !reboots:
		s.t.Fatalf("the Base did not reboot: systemd-nspawn ended with %d", s.nspawn.ProcessState.ExitCode())
	}
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("boot the stage again: %v\n%s", err, s.console)
	}
	s.booted()
}

// Leader is the process number of the Base's systemd, for nsenter(1).
func (s *Stage) Leader() string { return strconv.Itoa(s.leader) }

// booted waits until everything has started that is started.
func (s *Stage) booted() {
	s.t.Helper()
	// is-system-running fails for a system with failed units, which is for the
	// test to judge.
	s.Until("the system has booted", func() error {
		out, _ := s.Exec("systemctl", "is-system-running")
		switch state := strings.TrimSpace(out); state {
		case "running", "degraded":
			return nil
		default:
			return fmt.Errorf("it is %q", state)
		}
	})
}

func (s *Stage) start() error {
	s.console = &bytes.Buffer{}
	// The processes of systemd-nspawn do not end with it by themselves. They end with the
	// first process of their process namespace, which is systemd-nspawn here.
	argv := []string{"--fork", "--pid", "--mount-proc", "--kill-child=SIGKILL", "--",
		"systemd-nspawn", "--quiet", "--boot",
		"--directory=" + s.run.root(), "--machine=" + s.run.name,
		"--keep-unit", "--register=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--network-namespace-path=" + namespacePath(s.run.base()),
		"--capability=CAP_NET_ADMIN,CAP_NET_RAW", "--console=pipe"}
	if s.readOnly {
		argv = append(argv, "--read-only", "--bind="+s.run.data()+":/var", "--tmpfs=/tmp:mode=1777,nosuid,nodev")
	}
	s.nspawn = exec.Command("unshare", append(argv, "systemd.show_status=no", "systemd.log_target=journal")...)
	s.nspawn.Env = environment
	s.nspawn.Stdout, s.nspawn.Stderr = s.console, s.console
	// A Ctrl-C at the terminal is for the test, which then clears up.
	s.nspawn.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if s.exited, err = s.run.startInCgroup(s.nspawn); err != nil {
		return err
	}
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-s.exited:
			return errors.New("systemd-nspawn ended")
		default:
		}
		for _, nspawn := range children(s.nspawn.Process.Pid) {
			if leader, err := containerInit(nspawn); err == nil {
				s.leader = leader
				return nil
			}
		}
	}
	return fmt.Errorf("no systemd was seen within %v", Patience)
}

// children lists the processes that a process with one thread has begun; none if it
// is gone.
func children(process int) []int {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", process))
	var all []int
	for field := range strings.FieldsSeq(string(list)) {
		if child, err := strconv.Atoi(field); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// containerInit returns the process that is number 1 in the container which the
// nspawn process has begun.
func containerInit(nspawn int) (int, error) {
	for _, child := range children(nspawn) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		if err != nil {
			continue
		}
		executable, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		if err != nil || !strings.HasSuffix(executable, "/systemd/systemd") {
			continue // not yet what it will become
		}
		for line := range strings.Lines(string(status)) {
			if name, numbers, _ := strings.Cut(line, ":"); name == "NSpid" && strings.HasSuffix(strings.TrimSpace(numbers), "\t1") {
				return child, nil
			}
		}
	}
	return 0, errors.New("not there yet")
}

// Stop shuts the Base down in an orderly way. It can be started again, and has
// kept what it had on disk.
func (s *Stage) Stop() {
	s.t.Helper()
	if s.leader == 0 {
		return
	}
	// SIGRTMIN+4 asks systemd to power off.
	if err := syscall.Kill(s.leader, syscall.Signal(34+4)); err != nil {
		s.t.Fatalf("ask the stage to shut down: %v", err)
	}
	select {
	case <-s.exited:
	case <-time.After(Patience):
		s.t.Errorf("the stage did not shut down within %v", Patience)
	}
	s.Kill()
}

// Reboot stops and starts it.
func (s *Stage) Reboot() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Kill is a power cut: whatever runs ends at once.
func (s *Stage) Kill() {
	if s.nspawn == nil || s.nspawn.Process == nil {
		return
	}
	// The first process of the namespace around all of them: with it the kernel ends the
	// rest at once, and it is not gone before they are. Not the Base's systemd: who talks to
	// it would see that it has gone, and could still write that down.
	first := children(s.nspawn.Process.Pid)
	for _, process := range first {
		_ = syscall.Kill(process, syscall.SIGKILL) // gone is as good
	}
	if len(first) == 0 {
		_ = s.nspawn.Process.Kill()
	}
	<-s.exited
	s.nspawn, s.leader = nil, 0
}

// environment is what commands see: nothing of the host's.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "TERM=dumb", "TZ=UTC"}

// Command returns a command that will run in the Base, as root. The caller starts it and gives it
// a terminal, or other input.
func (s *Stage) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	if s.leader == 0 {
		return nil, errors.New("the stage does not run")
	}
	enter := append([]string{"--target=" + strconv.Itoa(s.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}, argv...)
	command := exec.CommandContext(ctx, "nsenter", enter...)
	command.Env = environment
	return command, nil
}

// Exec runs a command in the Base, as root, and returns what it printed.
func (s *Stage) Exec(argv ...string) (string, error) {
	return s.ExecInput("", argv...)
}

// ExecInput is Exec with something to read on standard input.
func (s *Stage) ExecInput(input string, argv ...string) (string, error) {
	return s.exec(context.Background(), 0, input, argv)
}

// ExecContext is ExecInput for somebody who waits no longer than ctx. The command leaves nothing behind
// that prints.
func (s *Stage) ExecContext(ctx context.Context, input string, argv ...string) (string, error) {
	return s.exec(ctx, time.Second, input, argv) // nsenter is ended, and not its child
}

func (s *Stage) exec(ctx context.Context, waitDelay time.Duration, input string, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	command, err := s.Command(ctx, argv...)
	if err != nil {
		return "", err
	}
	command.Stdin, command.WaitDelay = strings.NewReader(input), waitDelay
	out, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %q in the Base: %w", argv, err)
	}
	return string(out), err
}

// MustExec is Exec for what cannot fail.
func (s *Stage) MustExec(argv ...string) string {
	s.t.Helper()
	out, err := s.Exec(argv...)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Until waits until condition returns nil.
func (s *Stage) Until(what string, condition func() error) {
	s.t.Helper()
	Until(s.t, what, condition)
}

// Until waits until condition returns nil, and fails the test with the last
// error if it never does.
func Until(t T, what string, condition func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); {
		begun := time.Now()
		if err = condition(); err == nil {
			return
		}
		// What takes long to ask is asked less often: it would keep a processor busy, which what
		// is waited for needs.
		time.Sleep(min(max(50*time.Millisecond, time.Since(begun)), time.Second))
	}
	t.Fatalf("waited %v until %s: %v", Patience, what, err)
}

// State returns the state of a unit: "active", "failed", ….
func (s *Stage) State(unit string) string {
	out, _ := s.Exec("systemctl", "is-active", unit) // fails for all but "active"
	return strings.TrimSpace(out)
}

// WaitActive waits until a unit is active.
func (s *Stage) WaitActive(unit string) {
	s.t.Helper()
	s.WaitState(unit, "active")
}

// WaitState waits until a unit is in a state.
func (s *Stage) WaitState(unit, state string) {
	s.t.Helper()
	s.Until(unit+" is "+state, func() error {
		if is := s.State(unit); is != state {
			return fmt.Errorf("it is %s:\n%s", is, s.Journal(unit))
		}
		return nil
	})
}

// Journal returns the journal of this boot; of some units only, if any are named. It has what was
// logged before the call.
func (s *Stage) Journal(units ...string) string {
	out, err := s.journal("--boot", "--output=short-monotonic", units...)
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return out
}

// Printed returns the lines that a unit has printed before the call, and nothing beside them.
func (s *Stage) Printed(unit string) string {
	s.t.Helper()
	out, err := s.journal("--boot", "--output=cat", unit)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// journal asks journalctl. When a unit has ended, its last lines may still be on their way into the journal.
func (s *Stage) journal(boot, output string, units ...string) (string, error) {
	_, unsynced := s.Exec("journalctl", "--sync")
	argv := []string{"journalctl", "--no-pager", boot, output}
	for _, unit := range units {
		argv = append(argv, "--unit="+unit)
	}
	out, err := s.Exec(argv...)
	return out, errors.Join(err, unsynced)
}

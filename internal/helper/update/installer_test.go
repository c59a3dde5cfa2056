package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestAStagedReleaseIsInstalled(t *testing.T) {
	f := newFixture(t)
	f.stage()
	f.run()
	f.is("2")
	if j := f.journal(); j.Phase != Done || j.Reason != "" || j.Ended.IsZero() {
		t.Errorf("%v", j)
	}
	if names := f.names(); names != "journal.json previous.deb" {
		t.Errorf("in the directory: %s", names)
	}
	// Once more does nothing, and a next one can begin.
	f.run()
	if err := bring(f.receiver, releaseOf(theSeed, "3", "amd64", packageOf("3", "amd64", 0)), 700); err != nil {
		t.Errorf("the next release: %v", err)
	}
	f.run()
	f.is("3")
	// A release that was genuine once is not installed again.
	if err := bring(f.receiver, goodRelease(), 700); !errors.Is(err, ErrNotForThis) {
		t.Errorf("the previous release, replayed: %v", err)
	}
}

func TestAVersionThatIsNotWellGoesBackByItself(t *testing.T) {
	f := newFixture(t)
	f.machine.broken = "2"
	f.stage()
	f.run()
	f.is("1")
	if j := f.journal(); j.Phase != Undone || !strings.Contains(j.Reason, "the Middleware is failed") {
		t.Errorf("%v", j)
	}
	// A fault from before the update does not count; a new one does.
	f = newFixture(t)
	f.stage()
	i := f.installer()
	i.Host = odd{f.machine}
	if err := i.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.is("1")
}

type odd struct{ *machine }

func (o odd) Look(ctx context.Context) (Condition, error) {
	c, err := o.machine.Look(ctx)
	if o.get("installed") == "2" {
		c.Odd = append(c.Odd, "a unit was changed")
	}
	return c, err
}

// A service that dies and is started again and again is never caught dead.
func TestAVersionThatIsStartedAgainAndAgainGoesBack(t *testing.T) {
	f := newFixture(t)
	f.stage()
	i := f.installer()
	i.Host = &restless{machine: f.machine}
	if err := i.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.is("1")
	if j := f.journal(); !strings.Contains(j.Reason, "again and again") {
		t.Errorf("%v", j)
	}
}

type restless struct {
	*machine
	looks int
}

func (r *restless) Look(ctx context.Context) (Condition, error) {
	c, err := r.machine.Look(ctx)
	if r.looks++; r.get("installed") == "2" {
		c.Processes = fmt.Sprint(r.looks)
	}
	return c, err
}

func TestAPackageThatDoesNotInstallGoesBack(t *testing.T) {
	f := newFixture(t)
	f.machine.failing = "2"
	f.stage()
	f.run()
	f.is("1")
	// Owners read the reason, in the log of changes as well.
	if j := f.journal(); j.Phase != Undone || j.Reason != "it could not be installed: dpkg: the program ended with status 1" {
		t.Errorf("%v", j)
	}
}

func TestIfNothingCanBeInstalledThatIsSaid(t *testing.T) {
	f := newFixture(t)
	f.machine.failing = "2"
	f.stage()
	i := f.installer()
	i.Host = lost{f.machine}
	if err := i.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j := f.journal(); j.Phase != Failed || !strings.Contains(j.Reason, "the previous version could not be installed") {
		t.Errorf("%v", j)
	}
}

type lost struct{ *machine }

func (l lost) Install(ctx context.Context, path string) error {
	if strings.HasSuffix(path, previousFile) {
		return errors.New("it is gone")
	}
	return l.machine.Install(ctx, path)
}

// A verified package is verified again: only root can write into the directory in between,
// but a disk may be bad.
func TestAPackageThatChangedAfterStagingIsNotInstalled(t *testing.T) {
	for name, change := range map[string]func(f *fixture){
		"the package": func(f *fixture) { f.write(packageFile, packageOf("2", "amd64", 1999)) },
		"a bit of it": func(f *fixture) { f.write(packageFile, append(packageOf("2", "amd64", 1999), '!')) },
		"its end":     func(f *fixture) { f.write(packageFile, packageOf("2", "amd64", 2001)) },
		"the header":  func(f *fixture) { f.write(headerFile, goodRelease()[:100]) },
		"the header's author": func(f *fixture) {
			f.write(headerFile, releaseOf(seedOf(2), "2", "amd64", packageOf("2", "amd64", 2000))[:194])
		},
		"what is installed": func(f *fixture) {
			f.machine.set("installed", "2")
			f.machine.set("files", "2")
			f.machine.set("runs", "2")
		},
	} {
		f := newFixture(t)
		f.stage()
		change(f)
		before := f.machine.get("installed")
		f.run()
		f.is(before)
		if j := f.journal(); j.Phase != Undone || !strings.HasPrefix(j.Reason, "nothing was changed: ") {
			t.Errorf("%s was changed: %v", name, j)
		}
		if names := f.names(); names != "journal.json" {
			t.Errorf("%s was changed: left is %s", name, names)
		}
	}
}

func (f *fixture) write(name string, b []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.store.path(name), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func TestTwoInstallersDoNotMeet(t *testing.T) {
	f := newFixture(t)
	f.stage()
	t.Cleanup(failpoint.Set(func(string) error {
		if err := f.installer().Run(t.Context()); !errors.Is(err, ErrRunning) {
			t.Errorf("a second one: %v", err)
		}
		return nil
	}))
	f.run()
	f.is("2")
}

func TestAnInstallationThatIsStoppedCanGoOn(t *testing.T) {
	f := newFixture(t)
	f.stage()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(failpoint.Set(func(step string) error {
		if step == "install" {
			stop() // the machine is shut down: dpkg ends its work first
		}
		return nil
	}))
	if err := f.installer().Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	if j := f.journal(); j.Phase != Checking || f.machine.get("files") != "2" {
		t.Errorf("%v, the files are %s", j, f.machine.get("files"))
	}
	f.boot()
	f.run()
	f.is("2")
}

// boot is what a boot does before anything of the Base starts.
func (f *fixture) boot() {
	f.t.Helper()
	if err := f.installer().Boot(f.t.Context()); err != nil {
		f.t.Fatalf("boot: %v", err)
	}
	f.machine.set("runs", f.machine.get("files")) // systemd starts it
}

func TestAVersionThatRestartsTheMachineAgainAndAgainGoesBack(t *testing.T) {
	for _, phase := range []Phase{Checking, Staged} {
		f := newFixture(t)
		f.stage()
		ctx, stop := context.WithCancel(t.Context())
		clear := failpoint.Set(func(step string) error {
			if phase == Staged && step == "verify" || phase == Checking && step == "look whether the Base is well" {
				stop()
			}
			return ctx.Err()
		})
		_ = f.installer().Run(ctx)
		clear()
		if j := f.journal(); j.Phase != phase {
			t.Fatalf("%v", j)
		}
		for range maxBoots + 1 {
			f.boot()
		}
		f.run()
		f.is("1")
		if j := f.journal(); j.Phase != Undone || !strings.Contains(j.Reason, "again and again") || f.names() == "" {
			t.Errorf("%v; there is: %s", j, f.names())
		}
	}
}

// killVariable names the step at which the process that has it is killed, and
// dirVariable where it works.
const (
	killVariable    = "BITBOX_BASE_UPDATE_TEST_KILL"
	dirVariable     = "BITBOX_BASE_UPDATE_TEST_DIR"
	brokenVariable  = "BITBOX_BASE_UPDATE_TEST_BROKEN"
	machineVariable = "BITBOX_BASE_UPDATE_TEST_MACHINE"
	bootVariable    = "BITBOX_BASE_UPDATE_TEST_BOOT"
)

func kill() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} }

// TestMain is also the process that is killed.
func TestMain(m *testing.M) {
	if os.Getenv(dirVariable) == "" {
		os.Exit(leaktest.Run(m))
	}
	f := &fixture{store: NewStore(os.Getenv(dirVariable)),
		machine: &machine{directory: os.Getenv(machineVariable), broken: os.Getenv(brokenVariable)}}
	i := f.installer()
	seen, target := 0, os.Getenv(killVariable)
	failpoint.Set(func(step string) error {
		fmt.Println(step)
		if seen++; target == fmt.Sprint(seen) {
			kill()
		}
		return nil
	})
	do := i.Run
	if os.Getenv(bootVariable) != "" {
		do = i.Boot
	}
	if err := do(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process runs an Installer in a process that is killed at a step; it returns the
// steps that it came to, and whether it was killed.
func (f *fixture) process(killAt string, boot bool) (steps []string, killed bool) {
	f.t.Helper()
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), dirVariable+"="+f.store.directory, machineVariable+"="+f.machine.directory,
		brokenVariable+"="+f.machine.broken, killVariable+"="+killAt)
	if boot {
		command.Env = append(command.Env, bootVariable+"=1")
	}
	command.Stderr = os.Stderr
	out, err := command.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != -1) {
		f.t.Fatalf("the process: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err != nil
}

// Whatever the step at which the installation is killed: started again at once, or after a
// power cut, the Base ends whole, with one version or the other.
func TestAKillAtAnyStepLeavesTheOldVersionOrTheNewOneWhole(t *testing.T) {
	for name, broken := range map[string]string{"a good version": "", "a bad version": "2"} {
		for _, cut := range []string{"started again", "power cut", "power cut, and another one at boot"} {
			t.Run(name+", "+cut, func(t *testing.T) {
				t.Parallel()
				points := []string{"unpack 2", "configure 2", "unpack 1", "configure 1"}
				for n := range 12 {
					points = append(points, fmt.Sprint(n+1))
				}
				kills := 0
				ends := map[Phase]int{}
				for _, point := range points {
					f := newFixture(t)
					f.machine.broken = broken
					f.stage()
					steps, killed := f.process(point, false)
					if !killed {
						continue // it did not come to that step
					}
					kills++
					if cut != "started again" {
						f.machine.set("root", "read-only") // as it is mounted
						if cut != "power cut" {
							f.process("1", true)
							f.machine.set("root", "read-only")
						}
						f.boot()
						if f.machine.get("files") != f.machine.get("installed") {
							t.Errorf("killed at %s (%q): after the boot the Base is %q", point, steps, f.machine.get("files"))
						}
					}
					f.machine.broken = broken
					f.run()
					j := f.journal()
					want := map[Phase]string{Done: "2", Undone: "1"}[j.Phase]
					if want == "" || broken != "" && j.Phase == Done {
						t.Errorf("killed at %s (%q): %v", point, steps, j)
					}
					f.is(want)
					ends[j.Phase]++
					if names := f.names(); strings.Contains(names, "next.") || strings.Contains(names, "upgrader") {
						t.Errorf("killed at %s: left is %s", point, names)
					}
				}
				t.Logf("%d kills; they ended in %v", kills, ends)
				// Cut off twice it is given up, whatever it was.
				if kills < 8 || broken == "" && (ends[Done] == 0) != (cut == "power cut, and another one at boot") || ends[Undone] == 0 {
					t.Errorf("only %d kills, ending in %v; this attack proves nothing", kills, ends)
				}
			})
		}
	}
}

// Without what Boot does, a power cut leaves half of two versions to be started.
func TestWithoutTheBootUnitAPowerCutWouldStartHalfAVersion(t *testing.T) {
	f := newFixture(t)
	f.stage()
	if _, killed := f.process("unpack 2", false); !killed {
		t.Fatal("it was not killed")
	}
	if files := f.machine.get("files"); !slices.Contains([]string{"half of 2"}, files) {
		t.Errorf("the files are %q; the attack above proves nothing", files)
	}
}

//go:build linux

package programs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs/become"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

// The test binary is also a helper that starts a program, and the programs that attack it.
const roleVariable = "BITBOX_BASE_PROGRAM_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func() error{"helper": helper, "forks": forks, "eats": eats, "holds": holds, "divides": divides}
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		if err := role(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaktest.Run(m))
}

const (
	patience = 3 * time.Minute
	mebibyte = 1 << 20
	// The helper's cgroup and that of the programs share this.
	unitMemory = 192 * mebibyte
	// Of that the programs have so much, if they have a cgroup of their own.
	programsMemory = 64 * mebibyte
	// The memory that the helper holds, and each of the programs that eat: it is the largest.
	helperMemory, eaterMemory = 64 * mebibyte, 16 * mebibyte
)

// attacks have how many tasks there may be in the cgroup that both share. Those that eat memory
// reach the bound of memory first.
var attacks = map[string]int{"forks": 96, "eats": 1024}

// cgroup is a cgroup of a test, in each hierarchy that counts: one with version 2, two with 1.
type cgroup []string

// hierarchies are where memory and tasks are counted.
func hierarchies() (roots cgroup, v2 bool) {
	if isCgroup("/sys/fs/cgroup") {
		return cgroup{"/sys/fs/cgroup"}, true
	}
	return cgroup{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"}, false
}

// newCgroup makes a cgroup within others, and bounds it.
func newCgroup(t *testing.T, in cgroup, name string, memory, tasks int) cgroup {
	t.Helper()
	_, v2 := hierarchies()
	files := map[string]int{"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory, "pids.max": tasks}
	if v2 {
		files = map[string]int{"memory.max": memory, "memory.swap.max": 0, "pids.max": tasks}
	}
	var made cgroup
	for _, parent := range in {
		if v2 {
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory +pids"), 0); err != nil {
				t.Fatal(err)
			}
		}
		directory := filepath.Join(parent, name)
		if err := os.Mkdir(directory, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { remove(t, directory) })
		made = append(made, directory)
	}
	for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max", "pids.max"} {
		for _, directory := range made {
			value, wanted := files[file]
			if _, err := os.Stat(filepath.Join(directory, file)); err != nil || !wanted {
				continue // another hierarchy, or a kernel that does not count swap
			}
			if err := os.WriteFile(filepath.Join(directory, file), []byte(strconv.Itoa(value)), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	return made
}

// remove ends what is left in a cgroup, and removes it.
func remove(t *testing.T, directory string) {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		content, _ := os.ReadFile(filepath.Join(directory, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(content)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if err = os.Remove(directory); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	t.Errorf("remove the cgroup of the test: %v", err)
}

// helper holds memory, has a program attack, and tells whether it can still start one.
func helper() error {
	if cgroups := os.Getenv("PLACES"); cgroups != "" {
		if err := placeIn(strings.Split(cgroups, ":")...); err != nil {
			return err
		}
	}
	held := hold(helperMemory)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	attacker := Command(ctx, self)
	attacker.Env = []string{roleVariable + "=" + os.Getenv("ATTACK")}
	output, err := attacker.StdoutPipe()
	if err == nil {
		err = attacker.Start()
	}
	if err != nil {
		return err
	}
	// It says when it is done, or it is killed.
	line, _ := bufio.NewReader(output).ReadString('\n')
	fmt.Print("the attacker: ", line, "\n")
	if err := exec.CommandContext(ctx, "/bin/true").Run(); err != nil {
		return fmt.Errorf("the helper can no longer start anything: %w", err)
	}
	fmt.Printf("the helper lives and holds %d bytes\n", len(held))
	return nil
}

// hold takes memory that is really there, and of which the race detector keeps no shadow.
func hold(size int) []byte {
	held, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err != nil {
		panic(err)
	}
	return held
}

// forks starts processes until the kernel refuses another.
func forks() error {
	for {
		if err := exec.Command("/bin/sleep", "60").Start(); err != nil {
			fmt.Println("full:", err)
			stay()
		}
	}
}

// eats starts processes that hold twice the memory that there is. Some are killed.
func eats() error {
	for range 2 * unitMemory / eaterMemory {
		child := exec.Command("/proc/self/exe")
		child.Env = []string{roleVariable + "=holds"}
		output, err := child.StdoutPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			return err
		}
		_, _ = bufio.NewReader(output).ReadString('\n')
	}
	fmt.Println("ate")
	stay()
	return nil
}

// stay waits to be killed. A process without a timer would end, since nothing could wake it.
func stay() { time.Sleep(2 * patience) }

func holds() error {
	held := hold(eaterMemory)
	fmt.Println("holds", len(held))
	stay()
	return errors.New(string(held[:1])) // it is in use until here
}

// divides is a helper that has its programs born apart, and says where it and they are.
func divides() error {
	if err := Separate(); err != nil {
		return err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	command := Command(context.Background(), "/bin/cat", "/proc/self/cgroup", "/proc/self/oom_score_adj")
	theirs, err := command.CombinedOutput()
	fmt.Printf("%s%s", own, theirs)
	return err
}

// The helper divides the cgroup that systemd gives it.
func TestTheHelperAndItsProgramsHaveACgroupEach(t *testing.T) {
	roots, v2 := hierarchies()
	if os.Getuid() != 0 || !v2 {
		t.Skip("this needs root, and cgroups of version 2")
	}
	unit := newCgroup(t, roots, fmt.Sprintf("bitbox-base-program-test-%d", os.Getpid()), unitMemory, attacks["eats"])
	for _, name := range []string{ownCgroup, programsCgroup} {
		t.Cleanup(func() { remove(t, filepath.Join(unit[0], name)) })
	}
	if err := placeIn(unit...); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := Command(t.Context(), self)
	defer places[0].Close()
	places = nil
	command.Env = []string{roleVariable + "=divides"}
	output, err := command.CombinedOutput()
	want := fmt.Sprintf("0::/%[1]s/helper\n0::/%[1]s/programs\n0\n", filepath.Base(unit[0]))
	if err != nil || string(output) != want {
		t.Errorf("it printed %q, %v; want %q", output, err, want)
	}
	for file, bound := range map[string]int{
		"helper/memory.max": MaxOwnMemory, "programs/memory.max": MaxMemory, "programs/pids.max": MaxTasks,
	} {
		if got, err := os.ReadFile(filepath.Join(unit[0], file)); err != nil || strings.TrimSpace(string(got)) != strconv.Itoa(bound) {
			t.Errorf("%s is %q, %v", file, got, err)
		}
	}
}

// attacked runs a helper whose program attacks it; apart: as the product does.
func attacked(t *testing.T, attack string, apart bool) (output string, err error) {
	t.Helper()
	roots, _ := hierarchies()
	unit := newCgroup(t, roots, fmt.Sprintf("bitbox-base-program-test-%d-%s-%v", os.Getpid(), attack, apart), unitMemory, attacks[attack])
	own := newCgroup(t, unit, ownCgroup, unitMemory, attacks[attack])
	programs := newCgroup(t, unit, programsCgroup, programsMemory, attacks[attack]/2)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := placeIn(own...); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := Command(ctx, self)
	for _, file := range places {
		defer file.Close()
	}
	places = nil
	command.Env = []string{roleVariable + "=helper", "ATTACK=" + attack}
	if apart {
		command.Env = append(command.Env, "PLACES="+strings.Join(programs, ":"))
	}
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	command.WaitDelay = time.Second // its children keep the pipe
	err = command.Run()
	return out.String(), err
}

// The attack: a program that the helper has started forks without end, or eats memory with many
// processes that are smaller than the helper. The helper lives.
func TestAProgramThatForksOrEatsMemoryDoesNotEndTheHelper(t *testing.T) {
	roots, _ := hierarchies()
	for _, root := range roots {
		if os.Getuid() != 0 || os.MkdirAll(filepath.Join(root, "bitbox-base-program-probe"), 0o755) != nil {
			t.Skip("this needs root, and cgroups that count memory and tasks")
		}
		_ = os.Remove(filepath.Join(root, "bitbox-base-program-probe"))
	}
	for attack := range attacks {
		t.Run(attack, func(t *testing.T) {
			output, err := attacked(t, attack, true)
			if err != nil || !strings.Contains(output, "the helper lives") {
				t.Errorf("the helper did not live: %v\n%s", err, output)
			}
			t.Logf("apart:\n%s", output)
			// Broken: the program shares the helper's cgroup.
			output, err = attacked(t, attack, false)
			if err == nil {
				t.Errorf("a program beside the helper leaves it alone; this attack proves nothing:\n%s", output)
			}
			t.Logf("beside the helper: %v\n%s", err, output)
		})
	}
}

// A program is like one that was started without the step between, but for its score.
func TestAProgramIsWhatItWouldBeWithoutTheStepBetween(t *testing.T) {
	scratch := filepath.Join(t.TempDir(), "cgroup.procs")
	if err := os.WriteFile(scratch, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := placeIn(filepath.Dir(scratch)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = places[0].Close()
		places = nil
	}()
	run := func(argv ...string) (string, error) {
		command := Command(t.Context(), argv...)
		command.Env = []string{"A=b c"}
		output, err := command.CombinedOutput()
		return string(output), err
	}
	for _, argv := range [][]string{
		{"/usr/bin/env"}, {"/bin/echo", "a  b", "$HOME", ""}, {"/bin/pwd"}, {"/bin/ls", "/proc/self/fd"}, {"/bin/sh", "-c", "ulimit -a"},
		{"/bin/grep", "^Sig[^Q]", "/proc/self/status"},
	} {
		plain := exec.Command(argv[0], argv[1:]...)
		plain.Env, plain.Dir = []string{"A=b c"}, "/"
		want, err := plain.CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := run(argv...); err != nil || got != string(want) {
			t.Errorf("%q printed %q, %v; want %q", argv, got, err, want)
		}
	}
	// A helper has another score.
	const score = "/proc/self/oom_score_adj"
	own, err := os.ReadFile(score)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(score, []byte("300"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := run("/bin/cat", score); err != nil || got != "0\n" {
		t.Errorf("the score of a program is %q, %v", got, err)
	}
	if err := os.WriteFile(score, bytes.TrimSpace(own), 0); err != nil {
		t.Fatal(err)
	}
	if entered, err := os.ReadFile(scratch); err != nil || !strings.HasPrefix(string(entered), "0") {
		t.Errorf("no cgroup was entered: %q, %v", entered, err)
	}
	var exit *exec.ExitError
	if output, err := run("/bin/sh", "-c", "exit 7"); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("an exit status of 7 is %v: %s", err, output)
	}
	if output, err := run("/usr/bin/there-is-no-such-program"); !errors.As(err, &exit) || exit.ExitCode() != become.NotStarted ||
		!strings.Contains(output, "/usr/bin/there-is-no-such-program") {
		t.Errorf("what is not there is %v: %s", err, output)
	}
	// Arguments come whole, or the program is not started: cut, a list of names would close less.
	long := strings.Repeat("x", 100_000)
	fits := strings.Repeat("y", become.MaxArguments-200_000-100)
	if output, err := run("/bin/echo", long, long, fits); err != nil || output != long+" "+long+" "+fits+"\n" {
		t.Errorf("arguments of %d bytes came as %d: %v", 200_000+len(fits), len(output), err)
	}
	if output, err := run("/bin/echo", long, long, long); !errors.As(err, &exit) || exit.ExitCode() != become.NotStarted ||
		!strings.Contains(output, "longer than 256 KiB") {
		t.Errorf("longer arguments: %v, %d bytes of output", err, len(output))
	}
	ctx, cancel := context.WithCancel(t.Context())
	command := Command(ctx, "/bin/sleep", "60")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := command.Wait(); err == nil {
		t.Error("it was not ended with its context")
	}
}

// The cost of the step between, beside a program that is started without it.
func BenchmarkStart(b *testing.B) {
	scratch := filepath.Join(b.TempDir(), "cgroup.procs")
	if err := os.WriteFile(scratch, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	start := func(b *testing.B) {
		for b.Loop() {
			if err := Command(b.Context(), "/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("beside", start)
	if err := placeIn(filepath.Dir(scratch)); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = places[0].Close()
		places = nil
	}()
	b.Run("apart", start)
}

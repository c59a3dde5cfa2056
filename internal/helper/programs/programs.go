// Package programs starts Debian's programs apart from the process that starts them.
//
// A program that the helper starts would share its cgroup and its OOM score: one that eats
// memory, or forks without end, would take the helper with it. After [Separate] each program is
// born in a cgroup beside the helper's, with bounds of its own, and is the first to end when the
// machine runs out of memory.
//
// Linux has no way to start a program like that which a sandbox without namespaces allows
// (clone3 is refused there, since its flags cannot be filtered), and a process that is moved
// after its start may have forked before. So this program is started once more, under another
// name (package become): it moves itself, and becomes the program. That takes 2 to 3 ms.
package programs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs/become"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The bounds of all programs that run at the same time, together. The unit's own bounds
// (bitbox-base-system.service) are the sum of these and of what the helper may have.
const (
	// MaxMemory is how much memory they have, in bytes. There are at most 20 of them; the largest,
	// fail2ban-client, takes 25 MB.
	MaxMemory = 256 << 20
	// MaxTasks is how many processes and threads they have.
	MaxTasks = 256
	// MaxOwnMemory is what is left to the helper itself, in bytes: twice the budgets of its callers.
	MaxOwnMemory = 448 << 20
)

// proofTime bounds the first program, which shows that programs can be started like that.
const proofTime = 10 * time.Second

// The names of the two cgroups below the unit's.
const (
	ownCgroup      = "helper"
	programsCgroup = "programs"
)

// places are the files cgroup.procs of the cgroups in which programs are born; nil: they are
// born where they are started. It is set before the first program is started.
var places []*os.File

// Separate moves this process into a cgroup of its own below that of its unit, and has all
// programs that are started from now on born in another one. The unit must leave its cgroup to
// the process (Delegate=). It is called once, before the first program is started.
func Separate() error {
	unit, err := unitCgroup()
	if err != nil {
		return err
	}
	if err := divide(unit); err != nil {
		return reason.Errorf("give the programs of the helper a cgroup of their own: %w", err)
	}
	if err := placeIn(filepath.Join(unit, programsCgroup)); err != nil {
		return err
	}
	// A helper that can start no program cannot close anything either.
	ctx, cancel := context.WithTimeout(context.Background(), proofTime)
	defer cancel()
	if err := Command(ctx, "/bin/true").Run(); err != nil {
		places = nil
		return reason.Errorf("start a program in a cgroup of its own: %w", err)
	}
	return nil
}

// unitCgroup is the cgroup of this process, as a directory (cgroups(7), version 2).
func unitCgroup() (string, error) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", reason.Errorf("read the own cgroup: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		path, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if directory := filepath.Join("/sys/fs/cgroup", path); found && isCgroup(directory) {
			return directory, nil
		}
	}
	return "", reason.New("read the own cgroup: this machine has no cgroups of version 2")
}

func isCgroup(directory string) bool {
	_, err := os.Stat(filepath.Join(directory, "cgroup.subtree_control"))
	return err == nil
}

// divide makes the two cgroups, and moves this process into its own: one with processes in it
// can hand on no bounds.
func divide(unit string) error {
	for _, name := range []string{ownCgroup, programsCgroup} {
		if err := os.Mkdir(filepath.Join(unit, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, w := range []struct{ file, value string }{
		{ownCgroup + "/cgroup.procs", "0"},
		{"cgroup.subtree_control", "+memory +pids"},
		{ownCgroup + "/memory.max", strconv.Itoa(MaxOwnMemory)},
		{programsCgroup + "/memory.max", strconv.Itoa(MaxMemory)},
		{programsCgroup + "/pids.max", strconv.Itoa(MaxTasks)},
	} {
		if err := os.WriteFile(filepath.Join(unit, w.file), []byte(w.value), 0); err != nil {
			return err
		}
	}
	return nil
}

// placeIn has programs born in cgroups, given as directories.
func placeIn(cgroups ...string) error {
	for _, cgroup := range cgroups {
		file, err := os.OpenFile(filepath.Join(cgroup, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			return reason.Errorf("open the cgroup of programs: %w", err)
		}
		places = append(places, file)
	}
	return nil
}

// Command is exec.CommandContext, for a program by its absolute path, without an environment and
// in the root directory. The caller must not set ExtraFiles.
func Command(ctx context.Context, argv ...string) *exec.Cmd {
	var command *exec.Cmd
	if places == nil {
		command = exec.CommandContext(ctx, argv[0], argv[1:]...)
	} else {
		command = exec.CommandContext(ctx, "/proc/self/exe")
		command.Args = append([]string{become.Name, strconv.Itoa(len(places))}, argv...)
		command.ExtraFiles = places
	}
	command.Env, command.Dir = []string{}, "/"
	return command
}

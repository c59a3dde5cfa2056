//go:build linux

package stage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the name of everything that a stage makes on the host, so that
// what a killed run left is recognised.
const prefix = "bbstage-"

// runsDirectory has a directory for each run: its lock, its mounts.
const runsDirectory = "/run/bitbox-base-stage"

// run is what a stage, or the product's layer, holds on the host.
type run struct {
	name string
	// lock is held as long as the process lives: who can take it knows that
	// the run is over.
	lock *os.File
}

// newRun makes a run, after having cleared up what others left.
func newRun(id string) (*run, error) {
	if err := os.MkdirAll(runsDirectory, 0o700); err != nil {
		return nil, err
	}
	// One process at a time: a run that is just being made looks like a dead one.
	making, err := lockFile(filepath.Join(runsDirectory, "making"), true)
	if err != nil {
		return nil, err
	}
	defer making.Close()
	reap()
	r := &run{name: prefix + id}
	if err := os.Mkdir(r.directory(), 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(r.lockPath(), false)
	if err != nil {
		return nil, err
	}
	r.lock = lock
	// In memory: fast, and gone with the mount.
	if err := unix.Mount("stage", r.directory(), "tmpfs", 0, "mode=0755"); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a tmpfs on %s: %w", r.directory(), err), r.clear())
	}
	return r, nil
}

func (r *run) directory() string { return filepath.Join(runsDirectory, r.name) }
func (r *run) lockPath() string  { return r.directory() + ".lock" }
func (r *run) root() string      { return filepath.Join(r.directory(), "root") }
func (r *run) data() string      { return filepath.Join(r.directory(), "data") }
func (r *run) base() string      { return r.name + "-base" }
func (r *run) lan() string       { return r.name + "-lan" }
func (r *run) attacker(n int) string {
	return r.name + "-a" + strconv.Itoa(n)
}

// lockFile takes the lock that a file stands for; wait says whether to wait for
// another process that has it.
func lockFile(path string, wait bool) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	if err := unix.Flock(int(file.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}

// mountRoot lays what this run writes over the layers, the topmost first.
func (r *run) mountRoot(layers []string) error {
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(r.directory(), name), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(layers, ":"),
		filepath.Join(r.directory(), "upper"), filepath.Join(r.directory(), "work"))
	if err := unix.Mount("stage", r.root(), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", r.root(), err)
	}
	return nil
}

// cgroupRoots are the places where a process's cgroup decides what systemd in a
// container takes for its own: each container needs one for itself.
func cgroupRoots() []string {
	var roots []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			roots = append(roots, root)
		}
	}
	return roots
}

// startInCgroup starts a command in a cgroup of its own. It ends with this
// process, however that ends; exited is closed when it has ended.
func (r *run) startInCgroup(command *exec.Cmd) (exited <-chan struct{}, err error) {
	ownCgroup()
	for _, root := range cgroupRoots() {
		if err := os.MkdirAll(filepath.Join(root, r.name), 0o755); err != nil {
			return nil, err
		}
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		// Version 1 of cgroups: a thread has one of its own, which what it starts
		// inherits. And what it starts is killed when this very thread ends, so it
		// stays until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		command.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err := func() error {
			for _, root := range cgroupRoots() {
				directory := filepath.Join(root, r.name)
				if moveThread(directory) == nil {
					continue
				}
				// Version 2: a process as a whole, when it is made.
				file, err := os.Open(directory)
				if err != nil {
					return err
				}
				defer file.Close()
				command.SysProcAttr.UseCgroupFD, command.SysProcAttr.CgroupFD = true, int(file.Fd())
			}
			return command.Start()
		}()
		// Back, or the cgroup could not be removed. Without version 1 there is no
		// way to go.
		if back := moveThread("/sys/fs/cgroup/systemd" + ownCgroup()); !errors.Is(back, os.ErrNotExist) {
			err = errors.Join(err, back)
		}
		started <- err
		if command.Process != nil {
			_ = command.Wait() // Its exit code tells nothing: it is killed, or asked to end.
		}
	}()
	return ended, <-started
}

// moveThread moves the calling thread to a cgroup of version 1.
func moveThread(directory string) error {
	file, err := os.OpenFile(filepath.Join(directory, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strconv.Itoa(unix.Gettid()))
	return errors.Join(err, file.Close())
}

// ownCgroup returns this process's path below the hierarchy of version 1 that
// systemd uses; it is taken before any thread was moved.
var ownCgroup = sync.OnceValue(func() string {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if _, path, found := strings.Cut(strings.TrimSpace(line), ":name=systemd:"); found {
			return path
		}
	}
	return ""
})

// clear removes everything that the run holds. It can be repeated.
func (r *run) clear() error {
	var errs []error
	namespaces := r.namespaces()
	for _, namespace := range namespaces {
		errs = append(errs, killIn(namespace))
	}
	for _, root := range cgroupRoots() {
		errs = append(errs, removeCgroup(filepath.Join(root, r.name)))
	}
	for _, namespace := range namespaces {
		errs = append(errs, ip("netns", "delete", namespace))
	}
	errs = append(errs, unmountBelow(r.directory()))
	if err := errors.Join(errs...); err != nil {
		return err // The lock stays for a next try.
	}
	return errors.Join(os.RemoveAll(r.directory()), os.Remove(r.lockPath()), r.unlock())
}

func (r *run) unlock() error {
	if r.lock == nil {
		return nil
	}
	return r.lock.Close()
}

// reap clears up after runs whose process is gone.
func reap() {
	locks, _ := filepath.Glob(filepath.Join(runsDirectory, prefix+"*.lock")) // its only error is a bad pattern
	for _, path := range locks {
		lock, err := lockFile(path, false)
		if err != nil {
			continue // its process lives
		}
		r := &run{name: strings.TrimSuffix(filepath.Base(path), ".lock"), lock: lock}
		if err := r.clear(); err != nil {
			fmt.Fprintf(os.Stderr, "stage: clear up what the run %s left: %v\n", r.name, err)
		}
	}
}

// namespaces lists the network namespaces of the run.
func (r *run) namespaces() []string {
	paths, _ := filepath.Glob(namespacePath(r.name + "-*")) // its only error is a bad pattern
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

// killIn ends every process in a network namespace of ours.
func killIn(namespace string) error {
	var own unix.Stat_t
	if err := unix.Stat(namespacePath(namespace), &own); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		found := false
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, entry := range entries {
			pid, err := strconv.Atoi(entry.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			var its unix.Stat_t
			if err := unix.Stat("/proc/"+entry.Name()+"/ns/net", &its); err != nil || its.Ino != own.Ino || its.Dev != own.Dev {
				continue
			}
			found = true
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone is as good
		}
		if !found {
			return nil
		}
	}
	return fmt.Errorf("processes in the network namespace %s do not end", namespace)
}

// removeCgroup removes a cgroup and those in it, once the processes are gone.
func removeCgroup(directory string) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, statErr := os.Stat(directory); errors.Is(statErr, os.ErrNotExist) {
			return nil
		}
		var directories []string
		err = filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				directories = append(directories, path)
			}
			return nil // what vanishes meanwhile need not be removed
		})
		for i := len(directories) - 1; i >= 0; i-- {
			if removeErr := os.Remove(directories[i]); removeErr != nil && !errors.Is(removeErr, os.ErrNotExist) {
				err = removeErr
			}
		}
	}
	return fmt.Errorf("remove the cgroup %s: %w", directory, err)
}

// unmountBelow unmounts everything on and below directory, the last first.
func unmountBelow(directory string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && (fields[4] == directory || strings.HasPrefix(fields[4], directory+"/")) {
			points = append(points, fields[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

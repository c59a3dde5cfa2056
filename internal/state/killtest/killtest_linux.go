// Package killtest kills a program at each of its writes to a disk, one run after another, so
// that a test can check what each kill leaves behind.
//
// The program runs under ptrace(2). At the kill, the disk has exactly what a kill -9 at that
// moment would leave: the system call at which the program stops has not begun.
package killtest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRuns ends a test whose program never finishes.
const maxRuns = 5000

// AtEachWrite starts the program again and again. The n-th time (n counts from 1) it is killed
// just before its n-th system call that changes a file or a directory, or syncs one. After each
// run check is called. It ends with the run in which the program finishes by itself, and fails
// the test if that run fails. It returns the number of kills.
//
// command must make a fresh exec.Cmd for each run. Its output must go to files: a pipe that the
// Cmd copies itself would need its Wait.
func AtEachWrite(t *testing.T, command func(n int) *exec.Cmd, check func(n int)) int {
	t.Helper()
	for n := 1; n <= maxRuns; n++ {
		status, err := run(command(n), n)
		if err != nil {
			t.Fatalf("run %d: %v", n, err)
		}
		check(n)
		switch {
		case status.Exited() && status.ExitStatus() == 0:
			return n - 1
		case status.Exited():
			t.Fatalf("run %d: the program failed with status %d", n, status.ExitStatus())
		case status.Signal() != syscall.SIGKILL:
			t.Fatalf("run %d: the program was ended by %v", n, status.Signal())
		}
	}
	t.Fatalf("the program did not get through in %d runs", maxRuns)
	return 0
}

// run runs the program up to its n-th write.
func run(command *exec.Cmd, n int) (status syscall.WaitStatus, err error) {
	// All of ptrace is bound to the thread that started the program.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// It has its own process group, so that waiting for its threads does not affect other
	// children of this process.
	command.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return 0, err
	}
	pid := command.Process.Pid
	defer func() { _ = command.Process.Release() }()
	defer func() {
		if err != nil {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, syscall.WALL, nil)
		}
	}()
	if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
		return 0, fmt.Errorf("wait for the program to start: %w", err)
	}
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		return 0, fmt.Errorf("trace the program: %w", err)
	}
	if err := syscall.PtraceSyscall(pid, 0); err != nil {
		return 0, fmt.Errorf("trace the program: %w", err)
	}
	for writes := 0; ; {
		tid, err := syscall.Wait4(-pid, &status, syscall.WALL, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the program: %w", err)
		case status.Exited() || status.Signaled():
			if tid == pid {
				return status, nil
			}
			continue // a thread has ended
		}
		signal := 0
		switch stop := status.StopSignal(); stop {
		case syscall.SIGTRAP | 0x80: // a system call
			if writes += isWrite(pid, tid); writes == n {
				writes++
				_ = syscall.Kill(pid, syscall.SIGKILL)
				continue
			}
		case syscall.SIGTRAP, syscall.SIGSTOP: // a new thread
		default:
			signal = int(stop)
		}
		// It fails when the program has just been killed.
		_ = syscall.PtraceSyscall(tid, signal)
	}
}

// syscallInfo is the needed part of struct ptrace_syscall_info of ptrace(2).
type syscallInfo struct {
	op                 uint8
	_                  [3]uint8
	arch               uint32
	instructionPointer uint64
	stackPointer       uint64
	number             uint64
	args               [6]uint64
}

const syscallEntry = 1 // PTRACE_SYSCALL_INFO_ENTRY

// isWrite is 1 if the thread is about to change something on a disk, else 0.
func isWrite(pid, tid int) int {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != syscallEntry {
		return 0
	}
	switch info.number {
	case unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
		unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_LINKAT, unix.SYS_MKDIRAT, unix.SYS_FCHMOD:
		return 1
	case unix.SYS_OPENAT:
		if info.args[2]&unix.O_CREAT != 0 {
			return 1
		}
	case unix.SYS_WRITE: // Go's runtime writes to its own eventfd as well
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, info.args[0]))
		if err == nil && strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/dev/") {
			return 1
		}
	}
	return 0
}

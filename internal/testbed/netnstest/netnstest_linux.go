package netnstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

const farEnd = "far0"

func namespace() (string, error) { return os.Readlink("/proc/self/ns/net") }

func reexec() (exitCode int, done bool, err error) {
	here, err := namespace()
	if err != nil {
		return 0, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	// The second process dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Args[0] = os.Args[0]
	command.Env = append(os.Environ(), variable+"="+here)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	attributes := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	command.SysProcAttr = attributes
	if err := command.Start(); err != nil {
		return 0, false, fmt.Errorf("%w (run as root, or allow user namespaces): %w", ErrUnavailable, err)
	}
	err = command.Wait()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() < 0 {
		fmt.Fprintln(os.Stderr, "netnstest: the process in the namespace ended:", err)
		return 1, true, nil
	}
	if err != nil && ended == nil {
		return 0, false, fmt.Errorf("wait for the process in the namespace: %w", err)
	}
	return command.ProcessState.ExitCode(), true, nil
}

// setUp brings the interfaces up. A process that was started by one in the
// namespace finds them there already.
func setUp(from string) error {
	here, err := namespace()
	if err != nil {
		return fmt.Errorf("ask which network namespace this is: %w", err)
	}
	if here == from {
		return fmt.Errorf("the variable %s is set, but this is not a namespace of its own; unset it", variable)
	}
	if _, err := net.InterfaceByName(Interface); err == nil {
		return nil
	}
	for _, arguments := range []string{
		"link set lo up",
		// A pair of virtual Ethernet devices: the far end is the empty network.
		"link add " + Interface + " type veth peer name " + farEnd,
		"link set " + farEnd + " addrgenmode none up",
		"link set " + Interface + " multicast on up",
		"addr add " + IPv4.String() + " dev " + Interface,
		// Without duplicate address detection the address is usable at once.
		"addr add " + IPv6.String() + " dev " + Interface + " nodad",
	} {
		if err := IP(arguments); err != nil {
			return err
		}
	}
	return nil
}

// IP runs ip(8) with the arguments given, separated by spaces. It is for tests
// that change the private network, and does nothing outside of one.
func IP(arguments string) error {
	if !Inside() {
		return fmt.Errorf("ip %s: refused outside of a private network namespace", arguments)
	}
	out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", arguments, err, strings.TrimSpace(string(out)))
	}
	return nil
}

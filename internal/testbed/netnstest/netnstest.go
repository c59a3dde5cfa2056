// Package netnstest gives a test binary, or the demonstration, its own network: a new network
// namespace with a loopback interface and an interface "lan0", which supports multicast and is
// connected to nothing. Programs in it announce themselves to nobody, and nobody reaches what
// listens there.
//
// A test package uses it like this:
//
//	func TestMain(m *testing.M) { netnstest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		netnstest.Require(t)
//		...
//	}
//
// The namespace is made for a second process of the same binary, not for a thread, so that
// everything that the test starts is in it too. It needs Linux, root or the right to make user
// namespaces, and the command ip(8).
package netnstest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// Interface is the name of the interface that plays the local network.
const Interface = "lan0"

// The addresses of Interface.
var (
	IPv4 = netip.MustParsePrefix("10.77.0.1/24")
	IPv6 = netip.MustParsePrefix("fd77::1/64")
)

// ErrUnavailable is wrapped by the error of Enter when this machine gives no
// network namespace.
var ErrUnavailable = errors.New("no private network namespace can be made here")

// variable names the environment variable that tells the second process where
// it came from: the identity of the first one's namespace. The second process
// refuses to set anything up in that one.
const variable = "BITBOX_NETNSTEST_OUTSIDE"

// errOutside is why this process is not in a namespace of its own, nil if it is.
var errOutside = fmt.Errorf("%w: TestMain does not call netnstest.Main", ErrUnavailable)

// Inside tells whether this is the second process already (see Enter).
func Inside() bool { return os.Getenv(variable) != "" }

// Enter runs this program once more, with the same arguments and in a fresh
// network namespace, waits for it and returns its exit code; done is true then.
// In the second process it sets the interfaces up and returns with done false:
// the program goes on, inside. An error that wraps ErrUnavailable means that
// nothing was run.
func Enter() (exitCode int, done bool, err error) {
	if Inside() {
		return 0, false, setUp(os.Getenv(variable))
	}
	return reexec()
}

// Main is for TestMain. It runs the tests in a fresh network namespace and ends
// the process. Where no namespace can be made it runs them nevertheless, and
// each that calls Require is skipped.
func Main(m interface{ Run() int }) { os.Exit(Run(m)) }

// Run is Main without the end of the process.
func Run(m interface{ Run() int }) int {
	code, done, err := Enter()
	switch {
	case done:
		return code
	case err != nil && !errors.Is(err, ErrUnavailable):
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	errOutside = err
	return m.Run()
}

// Require skips a test that needs the private network where there is none. In
// CI (environment variable CI) the test fails instead: there it must run.
func Require(t interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}) {
	t.Helper()
	switch {
	case errOutside == nil:
	case os.Getenv("CI") != "":
		t.Fatal(errOutside)
	default:
		t.Skip(errOutside)
	}
}

// Package leaktest fails the tests of a package that leave a goroutine or an open descriptor
// behind. A package that starts goroutines uses it:
//
//	func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
//
// Together with a TestMain that does more, [Checked] wraps the tests:
//
//	func TestMain(m *testing.M) { netnstest.Main(leaktest.Checked(m)) }
package leaktest

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// patience is how long what ends by itself may take to end after the last test.
const patience = time.Minute

// Tests is a package's tests: a *testing.M, or what wraps one.
type Tests interface{ Run() int }

// Run runs tests and returns the code to exit with: that of the tests or, if these have
// passed and left something behind, 1.
func Run(tests Tests) int {
	goroutines, descriptors := running(), open()
	code := tests.Run()
	if code != 0 {
		return code // a test that failed may well have left something
	}
	if !left(os.Stderr, goroutines, descriptors, patience) {
		return 1
	}
	return 0
}

// Checked returns tests with a check for leaks.
func Checked(tests Tests) Tests { return checked{tests} }

type checked struct{ tests Tests }

// Run implements Tests.
func (c checked) Run() int { return Run(c.tests) }

// left waits until everything is gone that was not there before, and returns whether that
// happened. It prints the rest.
func left(out io.Writer, goroutines map[string]string, descriptors map[string]string, within time.Duration) (clean bool) {
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		stacks, files := news(goroutines, running()), news(descriptors, open())
		if len(stacks)+len(files) == 0 {
			return true
		}
		if time.Now().After(deadline) {
			for _, stack := range stacks {
				fmt.Fprintf(out, "leaktest: a goroutine is left:\n%s\n\n", stack)
			}
			for _, file := range files {
				fmt.Fprintln(out, "leaktest: a descriptor is left:", file)
			}
			return false
		}
	}
}

// news returns what is there now and was not there before.
func news(before, now map[string]string) []string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if _, there := before[key]; !there {
			all = append(all, now[key])
		}
	}
	return all
}

// lasting are functions of the standard library whose goroutines never end, once started.
var lasting = []string{"os/signal.loop(", "os/signal.signal_recv("}

// running returns the stack of each goroutine but the caller's, by its number.
func running() map[string]string {
	text := make([]byte, 1<<20)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	all := map[string]string{}
	for i, stack := range strings.Split(string(text), "\n\n") {
		number, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		isLasting := slices.ContainsFunc(lasting, func(f string) bool { return strings.Contains(stack, f) })
		if i > 0 && !isLasting { // the first is the caller's
			all[number] = strings.TrimSpace(stack)
		}
	}
	return all
}

// ofRuntime are descriptors that Go's runtime opens once, when it first waits for another.
var ofRuntime = []string{"anon_inode:[eventpoll]", "anon_inode:[eventfd]"}

// open returns what is behind each open descriptor, by its number and that; nothing where
// there is no /proc.
func open() map[string]string {
	const directory = "/proc/self/fd"
	all := map[string]string{}
	entries, _ := os.ReadDir(directory) // no Linux
	for _, entry := range entries {
		target, err := os.Readlink(directory + "/" + entry.Name())
		if err != nil || slices.Contains(ofRuntime, target) {
			continue // the descriptor with which the folder was read
		}
		what := entry.Name() + " -> " + target
		all[what] = what
	}
	return all
}

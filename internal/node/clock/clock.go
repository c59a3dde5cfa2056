// Package clock has the start of a node wait for the time of the network. A node whose clock is
// behind refuses blocks that are newer than its clock. A node that reaches nobody gets no blocks,
// and does not wait.
package clock

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

const (
	// Folder is there while systemd-timesyncd runs (its unit, RuntimeDirectory).
	Folder = "/run/systemd/timesync"
	// Synchronised is there once it has set the clock (systemd-time-wait-sync(8)).
	Synchronised = Folder + "/synchronized"
	// Most is how long a start waits. A Base that has internet gets the time in seconds; one that has
	// none must have its node all the same.
	Most = 2 * time.Minute

	poll = time.Second
	// maxLetOut is far more than the file has, in bytes.
	maxLetOut = 4 << 10
)

// Reason is what an owner sees meanwhile.
const Reason = "the node waits until the clock of the Base is set, for two minutes at most"

// Result is how a wait has ended.
type Result int

// The results.
const (
	NotNeeded Result = iota // nobody sets the clock, the network is made on this machine, or the node reaches nobody
	Set                     // the clock is set
	Late                    // it was not set in time
)

// Gate is where the wait takes place.
type Gate struct {
	// Folder and Synchronised are systemd-timesyncd's.
	Folder, Synchronised string
	// LetOut is a file of root's with a line for each user whom the packet filter lets out, and User is
	// the node's. Unless the file tells that the node stays in, it waits. The file opens nothing.
	LetOut, User string
	// Lock is a file that is locked during the wait, so that it never tells of a start that has ended.
	Lock string
	// After is time.After.
	After func(time.Duration) <-chan time.Time
}

// Wait waits until the clock is set, if a node on this network needs that. An error means that the
// lock could not be had.
func (g Gate) Wait(network basev1.Network) (Result, error) {
	if node.MadeAtWill(network) || !there(g.Folder) || g.staysIn() {
		return NotNeeded, nil
	}
	if there(g.Synchronised) {
		return Set, nil
	}
	file, err := os.OpenFile(g.Lock, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return NotNeeded, fmt.Errorf("tell that the node waits for the clock: %w", err)
	}
	defer func() { _ = file.Close() }()
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return NotNeeded, fmt.Errorf("tell that the node waits for the clock, in %s: %w", g.Lock, err)
	}
	for range Most / poll {
		<-g.After(poll)
		if there(g.Synchronised) {
			return Set, nil
		}
	}
	return Late, nil
}

// staysIn tells whether the packet filter lets the node reach nobody. A file that is missing or that
// cannot be read says nothing.
func (g Gate) staysIn() bool {
	text, err := rootfile.Read(g.LetOut, maxLetOut)
	return err == nil && !slices.Contains(strings.Split(string(text), "\n"), g.User)
}

// Waits tells whether a start waits, from the file that it locks. The file is another user's, so it
// may be anything.
func Waits(lock string) bool {
	file, err := os.OpenFile(lock, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	held := &unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, held) == nil && held.Type != unix.F_UNLCK
}

// there tells whether something is there; what cannot be looked at counts as missing.
func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

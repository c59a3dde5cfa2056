// Command readstate reads what a Base has stored, as it does when it starts, and prints what it
// has found. test/formats runs the one of an older version on the state of this one: a Base that
// goes back starts with that.
//
//	readstate HELPER MIDDLEWARE    the directories of the two processes; they may be changed
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/daemon"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: readstate HELPER MIDDLEWARE")
		os.Exit(2)
	}
	if err := errors.Join(readHelper(os.Args[1]), readMiddleware(os.Args[2])); err != nil {
		fmt.Fprintln(os.Stderr, "readstate:", err)
		os.Exit(1)
	}
}

func readHelper(directory string) (err error) {
	k, err := ledger.Open(ledger.Config{
		Directory: directory, Live: machinetest.New(directory), Factory: posture.Factory(), Clock: boottime.Clock,
		BootID: "the boot of another version",
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	e := k.Effective()
	fmt.Printf("posture %d of %q: bans %+v, egress %q, oldest version %q, SSH keys %d, lockdown %v\n", e.Revision, e.NodeName, e.Bans, e.Egress,
		e.OldestVersion, len(e.KnownSSHKeys), e.Lockdown)
	for _, endpoint := range e.Endpoints {
		fmt.Printf("open: %s on port %d, shared %v\n", endpoint.Kind, endpoint.Port, endpoint.Shared)
	}
	for _, app := range e.Apps {
		fmt.Printf("App %s %q: %v\n", app.ID, app.Name, app.Role)
	}
	fmt.Printf("keys of Apps: %d\n", len(k.Enrolled()))
	changes, err := k.Changes.Usable()
	if err != nil {
		return err
	}
	count := 0
	changes.Newest(func(*systemv1.ChangeEntry) bool { count++; return true })
	fmt.Printf("changes are recorded: %v\n", count > 0)
	store := update.NewStore(filepath.Join(directory, "updates"))
	journal, err := store.Journal()
	if err != nil {
		return err
	}
	slots, err := store.Slots()
	fmt.Printf("last update: %q to %q, %s; slots %q and %q\n", journal.From, journal.To, journal.Phase, slots.Running, slots.Other)
	return err
}

func readMiddleware(directory string) error {
	m, err := daemon.Open(daemon.Config{StateDir: directory, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	fmt.Printf("Middleware of %q: %v\n", m.Name(), m.PublicKey())
	return m.Stop()
}

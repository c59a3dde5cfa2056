// Command auditor replaces the Base's binary in the tests of the audit. It runs the audit where
// the system helper would run it, in the helper's own sandbox.
//
//	bitbox-base audit run|fix-ID   reads an audit.Expectation from its input, prints []audit.Finding
//	bitbox-base audit repair ID    what the unit for repairs starts
//
// As `ports` it holds NGINX's ports. Its other roles do nothing, so that their units exist.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

func main() {
	if filepath.Base(os.Args[0]) != "bitbox-base" {
		return // systemd's generator, for which it waits: here are no services of a builder
	}
	if len(os.Args) == 3 && (os.Args[1] == "system" || os.Args[1] == "disks") {
		return // what is done once at boot; the stage has written the first configuration, and there is no node
	}
	if slices.Equal(os.Args[1:], []string{"ports"}) {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := proxy.Hold(ctx, generation.HeldPorts()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	if len(os.Args) < 3 || os.Args[1] != "audit" {
		for {
			time.Sleep(time.Hour)
		}
	}
	if err := run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	ctx := context.Background()
	if arguments[0] == "repair" {
		return audit.Repair(ctx, audit.Host{}, arguments[1])
	}
	var want audit.Expectation
	if err := json.NewDecoder(os.Stdin).Decode(&want); err != nil {
		return err
	}
	host := audit.Host{Apply: func(ctx context.Context) error { return reapply(ctx, want.Posture) }}
	if id, fix := strings.CutPrefix(arguments[0], "fix-"); fix {
		return audit.Fix(ctx, host, want, id)
	}
	return json.NewEncoder(os.Stdout).Encode(audit.Run(ctx, host, want))
}

// reapply does in short what the helper does.
func reapply(ctx context.Context, e posture.Effective) error {
	files, err := generation.RenderFor(e, generation.ThisMachine())
	if err != nil {
		return err
	}
	store := generation.NewStore(generation.StateDirectory)
	number, err := store.Current()
	if err != nil {
		return err
	}
	if err := store.Write(number+1, files); err != nil {
		return err
	}
	if err := store.Switch(number + 1); err != nil {
		return err
	}
	_, err = audit.Host{}.Run(ctx, "", "/usr/bin/systemctl", "reload", generation.FirewallUnit, generation.ProxyUnit)
	return err
}

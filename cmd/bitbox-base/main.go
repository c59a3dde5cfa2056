// Command bitbox-base is the program of the appliance. Its subcommands are the processes of
// the Base, and tools for people at the Base.
//
// Exit codes:
//
//	0  success
//	1  failure; the message on standard error says why
//	2  wrong usage
//	3  no Base runs on this state
//	4  the Base refused
//	5  another Base runs on this state
//	6  the state is damaged, missing, from a newer version, or not private
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The exit codes, as in the comment above.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitRefused    = 4
	exitInUse      = 5
	exitState      = 6
)

func main() {
	if filepath.Base(os.Args[0]) == generatorName {
		os.Exit(generate(os.Args[1:]))
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &program{}
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !p.running {
		err = usageError{err}
	}
	fmt.Fprintln(os.Stderr, "bitbox-base:", err)
	return exitCode(err)
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Error() string { return e.error.Error() + "; see --help" }

func exitCode(err error) int {
	var refused *pairing.Error
	var usage usageError
	var found severe // by an audit
	var declined *helperclient.Error
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &found):
		return found.exitCode()
	case errors.Is(err, ipc.ErrNotRunning):
		return exitNotRunning
	case errors.As(err, &refused), errors.As(err, &declined), errors.Is(err, errNothingToAnswer), errors.Is(err, errOtherCode):
		return exitRefused
	case errors.Is(err, state.ErrInUse):
		return exitInUse
	case errors.Is(err, state.ErrDamaged), errors.Is(err, state.ErrMissing), errors.Is(err, state.ErrNewer),
		errors.Is(err, state.ErrOlder), errors.Is(err, state.ErrKind), errors.Is(err, state.ErrMode):
		return exitState
	default:
		return exitFailed
	}
}

// program is one run of the command.
type program struct {
	stateDir string
	json     bool
	running  bool // the command line was understood
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bitbox-base",
		Short: "A networked node that only its owner's App can open",
		Long: `bitbox-base runs a Base, and lets the person in front of it accept pairings.

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 no Base runs on this state,
4 the Base refused, 5 another Base runs on this state, 6 the state cannot be used.`,
		Example: `  bitbox-base dev
  bitbox-base pairing list`,
		Args:              commandline.Args(0, 0),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRun:  func(*cobra.Command, []string) { p.running = true },
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVar(&p.stateDir, "state", defaultStateDir(), "directory of the Base's state")
	_ = root.MarkPersistentFlagDirname("state")
	root.AddCommand(p.devCommand(), p.pairingCommand(), p.versionCommand())
	root.AddCommand(p.middlewareCommand(), p.systemCommand(), p.consoleCommand(), p.localCommand(), p.auditCommand(), p.upgradeCommand(),
		p.slotsCommand(), disksCommand(),
		p.setupCommand(), portsCommand())
	return root
}

// defaultStateDir is $XDG_STATE_HOME/bitbox-base, by default
// ~/.local/state/bitbox-base (XDG Base Directory Specification 0.8).
func defaultStateDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "bitbox-base")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "" // --state must be given then; base.Start says so
	}
	return filepath.Join(home, ".local", "state", "bitbox-base")
}

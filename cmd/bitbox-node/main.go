// Command bitbox-node watches the Bitcoin node of a Base, and tells the Middleware of it over a
// unix socket. It runs as a user of its own, for it speaks HTTP to a program that strangers
// speak to, and has nothing that a Base must keep secret.
//
// Exit codes: 0 success, 1 failure, 2 wrong usage, 78 a node that the settings do not let start;
// the message on standard error says why.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// The exit codes, as in the comment above.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitSettings = 78
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	p := &program{stop: func() {}}
	defer func() { p.stop() }()
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	switch {
	case err == nil:
		return 0
	case !p.running:
		fmt.Fprintf(os.Stderr, "bitbox-node: %v; see --help\n", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "bitbox-node:", err)
	if errors.Is(err, errSettings) {
		return exitSettings
	}
	return exitFailed
}

// program is one run of the command.
type program struct {
	running bool   // the command line was understood
	stop    func() // gives the signals back
}

// begin runs once the command line was understood. The signals that end a service end the context of the
// command. `start` takes none: one that it had taken just before it became the node would be lost, and
// the node would go on.
func (p *program) begin(c *cobra.Command, _ []string) {
	p.running = true
	if c.Name() == startName {
		return
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	p.stop = stop
	c.SetContext(ctx)
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bitbox-node",
		Short: "Watch the Bitcoin node of a Base",
		Long: `bitbox-node asks the Bitcoin node of a Base every few seconds, and answers the Middleware
from what it has learned. An owner sees it with 'bitbox-app node'.`,
		Example: `  bitbox-node dev
  bitbox-node watch --program core --network mainnet`,
		Args:              commandline.Args(0, 0),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRun:  p.begin,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(watchCommand(), startCommand(), devCommand(), electrumCommand(), &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this program",
		Example: "  bitbox-node version",
		Args:    commandline.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Println("bitbox-node", version.Software)
			return err
		},
	})
	return root
}

func newLogger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/BitBoxSwiss/bitbox-base/internal/console"
	"github.com/BitBoxSwiss/bitbox-base/internal/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/system"
)

func (p *program) consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "console",
		Short: "Show pairings on this screen, and take the answers",
		Long: `console is what stands at the Base: it shows request numbers and codes, and takes
the answers. On the appliance systemd runs it on the first screen.`,
		Example: `  bitbox-base console`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			authority := system.Client{Port: system.Dial(generation.SystemSocket)}.Authority()
			var err error
			if term.IsTerminal(int(os.Stdin.Fd())) {
				err = console.Run(c.Context(), authority, os.Stdin, c.OutOrStdout())
			} else {
				err = console.Log(c.Context(), authority, slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
			}
			if errors.Is(err, context.Canceled) {
				return nil // asked to end
			}
			return err
		},
	}
}

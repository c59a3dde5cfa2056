package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/console"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
)

// errNoScreen: there is nothing to draw on.
var errNoScreen = errors.New("there is no screen here: the console needs a terminal to draw on, and a keyboard. Without one, root answers with " +
	"'bitbox-base pairing list', 'pairing accept NUMBER' and 'pairing confirm CODE'")

func (p *program) consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "console",
		Short: "Run the Base's console on this screen",
		Long: `console is the Base's own screen: it shows the Base's name and how open it is, request
numbers and codes, and takes answers from the keyboard or from buttons. On the appliance
systemd runs it on the first screen. Ctrl-C ends it.`,
		Example: `  bitbox-base console`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
				return errNoScreen
			}
			if _, err := os.Stat(filepath.Dir(generation.SystemSocket)); err != nil {
				return fmt.Errorf("no Base is installed on this machine (%w); on a developer's machine use: bitbox-base dev", ipc.ErrNotRunning)
			}
			err := showScreen(c.Context(), helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)})
			if errors.Is(err, context.Canceled) || errors.Is(err, console.ErrQuit) {
				return nil // asked to end
			}
			return err
		},
	}
}

func showScreen(ctx context.Context, helper helperclient.Client) error {
	before, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return fmt.Errorf("take the keyboard: %w", err)
	}
	defer func() { _ = term.Restore(int(os.Stdin.Fd()), before) }()
	screen := console.Screen{
		Authority: helper.Authority(),
		Helper:    consoleHelper{helper},
		Keys:      os.Stdin,
		Out:       os.Stdout,
		Buttons:   console.Buttons,
		Size: func() (columns, rows int) {
			columns, rows, _ = term.GetSize(int(os.Stdout.Fd()))
			return columns, rows
		},
	}
	return screen.Run(ctx)
}

// consoleHelper is the system helper, in the form that the console needs.
type consoleHelper struct{ client helperclient.Client }

func (h consoleHelper) Summary(ctx context.Context) (*systemv1.Summary, error) {
	reply, err := h.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetSummary{GetSummary: &systemv1.GetSummary{}}})
	return reply.GetSummary(), err
}

func (h consoleHelper) Reset(ctx context.Context) error {
	_, err := h.ask(ctx, resetHere(false))
	return err
}

func (h consoleHelper) ask(ctx context.Context, request *systemv1.SystemRequest) (*systemv1.SystemReply, error) {
	reply, err := h.client.Do(ctx, request, nil)
	if errors.Is(err, &helperclient.Error{Code: helperclient.CodeReset}) {
		err = console.ErrResetting
	}
	return reply, err
}

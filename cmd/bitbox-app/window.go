package main

import (
	"context"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

func (p *program) pairingCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "pairing",
		Short: "Open and close the window in which a further App may ask to be paired",
		Long: `While the pairing window is open, the Base hears requests of further Apps. Whether one
is let in, and with which role, is decided by hand at the Base.`,
		Example: `  bitbox-app pairing open
  bitbox-app pairing status`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(
		p.windowCommand("open", "Open the pairing window for three minutes", func(ctx context.Context, s *client.Session) (*basev1.Window, error) {
			response, err := s.Pairing.OpenWindow(ctx, &basev1.OpenWindowRequest{})
			return response.GetWindow(), err
		}),
		p.windowCommand("close", "Close the pairing window, and end a pairing that is under way", func(ctx context.Context, s *client.Session) (*basev1.Window, error) {
			_, err := s.Pairing.CloseWindow(ctx, &basev1.CloseWindowRequest{})
			return &basev1.Window{}, err
		}),
		p.windowCommand("status", "Show whether the pairing window is open", func(ctx context.Context, s *client.Session) (*basev1.Window, error) {
			response, err := s.Pairing.GetWindow(ctx, &basev1.GetWindowRequest{})
			return response.GetWindow(), err
		}),
	)
	return command
}

func (p *program) windowCommand(use, short string, do func(context.Context, *client.Session) (*basev1.Window, error)) *cobra.Command {
	return &cobra.Command{
		Use:     use,
		Short:   short,
		Example: "  bitbox-app pairing " + use,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) error {
				window, err := do(ctx, session)
				if err != nil {
					return err
				}
				if p.json {
					return p.printMessage(window)
				}
				return p.printf("%s\n", windowText(window))
			})
		},
	}
}

func windowText(w *basev1.Window) string {
	if !w.GetOpen() {
		return "The pairing window is closed."
	}
	return "The pairing window is open for another " + duration((w.GetRemainingMs()+999)/1000) + "."
}

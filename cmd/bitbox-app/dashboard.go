package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/dashboard"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) dashboardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard",
		Short: "Show all Bases on a full screen, with keys to pair and to change things",
		Long: `dashboard shows the Bases that this App is paired with and those that are announced nearby:
how they do, how open they are, and what happens there. bitbox-app alone, in a terminal,
opens it too. ? shows its keys, q quits at any moment.

--base is the Base to show first, --timeout bounds each conversation with a Base.`,
		Example: `  bitbox-app dashboard
  bitbox-app dashboard --base home`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if !p.showsDashboard() {
				return usageError{errors.New("the dashboard needs a terminal that can move its cursor; without one, 'bitbox-app status' and 'bitbox-app watch' tell the same")}
			}
			return p.dashboard(c.Context())
		},
	}
}

// showsDashboard tells whether somebody looks at a terminal that can show it.
func (p *program) showsDashboard() bool {
	return p.terminal && !p.json && term.IsTerminal(int(os.Stdout.Fd())) && dashboard.Fits(os.Environ())
}

func (p *program) dashboard(ctx context.Context) error {
	app, err := p.app(client.Options{})
	if err != nil {
		return err
	}
	chosen, err := p.chosenBases(app) // before the screen is cleared
	if err != nil {
		return err
	}
	base := strings.Join(chosen, "") // there is one at most
	return dashboard.Run(ctx, dashboard.Options{
		Source: dashboard.NewSource(app, base, p.address), Base: base,
		In: os.Stdin, Out: os.Stdout, Environment: os.Environ(),
		CallTime: cmp.Or(p.timeout, callTime), PairTime: cmp.Or(p.timeout, pairTime), EventText: eventText,
	})
}

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
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) dashboardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard",
		Short: "Open the full screen: all Bases at a glance, with keys to pair and to change things",
		Long: `dashboard shows the Bases that this App is paired with and those announced nearby: their
health, how open they are, and their events. It also opens when bitbox-app is run without a
command in a terminal. Press ? for the keys, q to quit at any time.

--base selects the Base to show first; --timeout limits each call to a Base.`,
		Example: `  bitbox-app dashboard
  bitbox-app dashboard --base home`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if !p.showsDashboard() {
				return usageError{errors.New("the full screen needs an interactive terminal; elsewhere use 'bitbox-app status' and 'bitbox-app watch'")}
			}
			return p.dashboard(c.Context())
		},
	}
}

// showsDashboard tells whether a person is at a terminal that can show it.
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
	known, err := p.releases()
	if err != nil {
		return err
	}
	base := strings.Join(chosen, "") // there is one at most
	return dashboard.Run(ctx, dashboard.Options{
		Owner: p.owner(app, base, known), Base: base, In: os.Stdin, Out: os.Stdout, Environment: os.Environ(),
	})
}

// owner follows the Bases of an App. The address of --address is that of the given Base.
func (p *program) owner(app *client.App, base string, known owner.Releases) *owner.Owner {
	o := owner.New(owner.Options{Source: owner.NewSource(app, base, p.address, p.softwareLine, known),
		CallTime: cmp.Or(p.timeout, callTime), PairTime: cmp.Or(p.timeout, pairTime)})
	p.unstored = o.Unstored // the screen is the owner's from now on
	return o
}

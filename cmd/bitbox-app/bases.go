package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// basis is a pairing, as JSON has it.
type basis struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`
	PublicKey string    `json:"publicKey"`
	AppID     string    `json:"appId"`
	AppName   string    `json:"appName"`
	Role      string    `json:"role"`
	PairedAt  time.Time `json:"pairedAt"`
	Addresses []string  `json:"addresses"`
}

func basisOf(b client.Base) *basis {
	return &basis{b.Name, string(b.State), fmt.Sprintf("%x", b.PublicKey), b.AppID, b.AppName, roleName(b.Role), b.PairedAt, b.Addresses}
}

// checkedBasis is what `bases --check --json` has.
type checkedBasis struct {
	basis
	Answers bool `json:"answers"`
	// Error and Code are the sentence and the exit code of a call that failed.
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

func (p *program) basesCommand() *cobra.Command {
	var check bool
	command := &cobra.Command{
		Use:   "bases",
		Short: "List the Bases that this App is paired with",
		Long: `bases lists the pairings that this App remembers, without asking anybody. With --check
it calls each of the Bases, side by side, and tells which of them answer.

Commands that only read, and lockdown, run on several Bases at once with --all, or with
their names in --base, and print a line for each.`,
		Example: `  bitbox-app bases
  bitbox-app bases --check
  bitbox-app bases --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			app, err := p.app(client.Options{})
			if err != nil {
				return err
			}
			bases, err := app.Bases()
			if err != nil {
				return err
			}
			if len(p.bases) > 0 {
				names, err := p.chosenBases(app)
				if err != nil {
					return err
				}
				bases = slices.DeleteFunc(bases, func(b client.Base) bool { return !slices.Contains(names, b.Name) })
			}
			if check && len(bases) > 0 {
				return p.checkBases(c.Context(), bases)
			}
			if p.json {
				list := []*basis{}
				for _, b := range bases {
					list = append(list, basisOf(b))
				}
				return p.printJSON(list)
			}
			if len(bases) == 0 {
				return p.printf("This App is not paired with any Base yet. Begin with: bitbox-app pair\n")
			}
			table := p.table("NAME", "STATE", "ROLE", "THIS APP THERE", "SINCE", "LAST AT")
			table.styled("STATE", stateStyle)
			for _, b := range bases {
				table.row(b.Name, string(b.State), roleName(b.Role), b.AppName, when(b.PairedAt, time.Now()), lastAt(b))
			}
			return table.print()
		},
	}
	command.Flags().BoolVar(&check, "check", false, "call each of them, and tell whether it answers")
	return command
}

// lastAt is where a Base was last.
func lastAt(b client.Base) string { return strings.Join(b.Addresses[:min(1, len(b.Addresses))], "") }

func stateStyle(cell string) terminal.Style {
	switch client.PairingState(cell) {
	case client.Active:
		return terminal.Green
	case client.Revoked:
		return terminal.Red
	}
	return terminal.Yellow
}

// checkBases calls each Base, and lists which of them answer. One that does not is no
// failure of the list.
func (p *program) checkBases(ctx context.Context, bases []client.Base) error {
	checked, names := make([]checkedBasis, len(bases)), make([]string, len(bases))
	for n, b := range bases {
		checked[n].basis, names[n] = *basisOf(b), b.Name
	}
	err := p.sideBySide(ctx, callTime, names, func(ctx context.Context, _ int, session *client.Session) error {
		_, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		return err
	}, func(n int, failed error) (error, error) {
		checked[n].Answers = failed == nil
		if failed != nil {
			checked[n].Error, checked[n].Code = sentence(ctx, failed), exitCode(ctx, failed)
		}
		return nil, nil
	})
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case p.json:
		return p.printJSON(checked)
	}
	table := p.table("NAME", "STATE", "ROLE", "LAST AT", "ANSWERS")
	table.styled("STATE", stateStyle)
	for n, b := range bases {
		cells := []string{b.Name, string(b.State), roleName(b.Role), lastAt(b), "yes"}
		if !checked[n].Answers {
			cells[4] = "no: " + checked[n].Error
		}
		table.sentence(cells...)
	}
	return table.print()
}

func (p *program) forgetCommand() *cobra.Command {
	var force bool
	command := &cobra.Command{
		Use:   "forget NAME",
		Short: "Delete this App's side of a pairing",
		Long: `forget deletes what this App knows of a Base, its keys included. The Base is not told:
to take the App's rights away there, use 'bitbox-app apps revoke'.

If this is the last owner's App, only somebody at the Base can let an owner in again.`,
		Example: `  bitbox-app forget "BitBox Base"`,
		Args:    commandline.Args(1, 1),
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return p.completeBases(c, args, typed)
		},
		RunE: func(c *cobra.Command, args []string) error {
			app, err := p.app(client.Options{})
			if err != nil {
				return err
			}
			base, err := app.Base(args[0])
			if err != nil {
				return err
			}
			if base.State != client.Revoked && !force {
				if err := p.reallyForget(c.Context(), base); err != nil {
					return err
				}
			}
			if err := app.Forget(args[0]); err != nil {
				return err
			}
			return p.say("%q is forgotten.\n", base.Name)
		},
	}
	command.Flags().BoolVar(&force, "force", false, "do not ask")
	return command
}

var errKept = errors.New("nothing was deleted")

func (p *program) reallyForget(ctx context.Context, base client.Base) error {
	p.left = errKept.Error()
	if !p.terminal {
		return usageError{fmt.Errorf("this App could still use its pairing with %q, which cannot be brought back: to delete it without being asked, add --force", base.Name)}
	}
	if err := p.printf("This App can still use its pairing with %q as %s. It cannot be brought back.\nDelete it? [y/N] ", base.Name, roleName(base.Role)); err != nil {
		return err
	}
	typed, err := nextLine(ctx, readLines(p.in), time.Time{})
	if err != nil {
		return err
	}
	if !strings.EqualFold(typed, "y") && !strings.EqualFold(typed, "yes") {
		return errKept
	}
	return nil
}

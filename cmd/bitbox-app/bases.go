package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// basis is a pairing in JSON.
type basis struct {
	Name      string `json:"name"`
	State     string `json:"state"`
	PublicKey string `json:"publicKey"`
	AppID     string `json:"appId"`
	AppName   string `json:"appName"`
	// Role is what this App was allowed to do at RoleAt.
	Role      string    `json:"role"`
	RoleAt    time.Time `json:"roleAt"`
	PairedAt  time.Time `json:"pairedAt"`
	Addresses []string  `json:"addresses"`
}

func basisOf(b client.Base) *basis {
	return &basis{b.Name, string(b.State), fmt.Sprintf("%x", b.PublicKey), b.AppID, b.AppName, roleName(b.Role), b.RoleAt, b.PairedAt,
		b.Addresses}
}

// checkedBasis is a line of `bases --check --json`.
type checkedBasis struct {
	basis
	// Answers is false, without a Code, for a Base that was not called.
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
		Long: `bases lists the pairings that this App has stored, without calling any Base. The role is the
one that the Base last reported to this App, with the time of that report.

With --check it calls each Base whose pairing can be used and reports which of them answer; if one
that it called does not, the exit code says so. It does not call a Base that has revoked this App,
or that this App has wiped.

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
				return p.printf("This App is not paired with any Base yet. To pair with one: bitbox-app pair\n")
			}
			table := p.table("NAME", "STATE", "ROLE", "APP NAME", "PAIRED", "LAST AT").whole("NAME")
			table.styled("STATE", stateStyle)
			for _, b := range bases {
				table.row(b.Name, string(b.State), asOf(roleName(b.Role), b.RoleAt), b.AppName, when(b.PairedAt, time.Now()), lastAt(b))
			}
			return table.print()
		},
	}
	command.Flags().BoolVar(&check, "check", false, "call each Base whose pairing can be used, and report whether it answers")
	return command
}

// asOf is a role with the time when it was reported.
func asOf(role string, at time.Time) string { return role + " (" + when(at, time.Now()) + ")" }

// lastAt is where the Base was last reached.
func lastAt(b client.Base) string { return strings.Join(b.Addresses[:min(1, len(b.Addresses))], "") }

func stateStyle(cell string) terminal.Style {
	switch client.PairingState(cell) {
	case client.Active:
		return terminal.Green
	case client.Revoked, client.Reset:
		return terminal.Red
	}
	return terminal.Yellow
}

// checkBases calls each Base with a usable pairing, and lists which of them answer.
func (p *program) checkBases(ctx context.Context, bases []client.Base) error {
	checked, names, at := make([]checkedBasis, len(bases)), []string{}, []int{}
	for n, b := range bases {
		checked[n].basis = *basisOf(b)
		if b.State.Usable() {
			names, at = append(names, b.Name), append(at, n)
		}
	}
	failed := p.sideBySide(ctx, callTime, names, func(ctx context.Context, n int, session *client.Session) error {
		info, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		if err == nil {
			c := &checked[at[n]]
			c.Answers, c.Role, c.RoleAt = true, roleName(info.GetCaller().GetRole()), time.Now()
		}
		return err
	}, func(n int, err error) (failed, unprinted error) {
		if err != nil {
			checked[at[n]].Error, checked[at[n]].Code = sentence(ctx, err), exitCode(ctx, err)
		}
		return err, nil
	})
	switch {
	case failed != nil && !isSeveral(failed):
		return failed
	case ctx.Err() != nil:
		return ctx.Err()
	case p.json:
		return cmp.Or(p.printJSON(checked), failed)
	}
	table := p.table("NAME", "STATE", "ROLE", "LAST AT", "ANSWERS").whole("NAME")
	table.styled("STATE", stateStyle)
	for n, b := range bases {
		c := checked[n]
		cells := []string{b.Name, string(b.State), c.Role, lastAt(b), "yes"}
		if !c.Answers {
			cells[2] = asOf(c.Role, c.RoleAt)
			cells[4] = "not called"
		}
		if c.Error != "" {
			cells[4] = "no: " + c.Error
		}
		table.sentence(cells...)
	}
	return cmp.Or(table.print(), failed)
}

func (p *program) forgetCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "forget NAME",
		Short: "Delete this App's side of a pairing",
		Long: `forget deletes all that this App has stored about a Base, its keys included. The Base is not
told; to take this App's rights away there, use 'bitbox-app apps revoke'.

If this is the only owner's App, only somebody at the Base can let an owner in again.`,
		Example: `  bitbox-app forget "BitBox Base"`,
		Args:    commandline.Args(1, 1),
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return p.completeBases(c, args, typed)
		},
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		app, err := p.app(client.Options{})
		if err != nil {
			return err
		}
		base, err := app.Base(args[0])
		if err != nil {
			return err
		}
		if base.State.Usable() {
			text := fmt.Sprintf("This App's pairing with %q will be deleted for good. It was %s there (as of %s).", base.Name, words.English.ARole(base.Role),
				when(base.RoleAt, time.Now()))
			if err := asking.confirm(c.Context(), "In this App:\n  "+p.out.Fold("  ", client.Printable(text))+"\n"); err != nil {
				return err
			}
		}
		if err := app.Forget(args[0]); err != nil {
			return err
		}
		if p.json {
			return p.printJSON(map[string]string{"forgotten": base.Name})
		}
		return p.printf("This App has forgotten %q.\n", client.Printable(base.Name))
	}
	return command
}

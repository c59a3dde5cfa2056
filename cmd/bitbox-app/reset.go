package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) factoryResetCommand() *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:   "factory-reset",
		Short: "Wipe the Base: identity, pairings, posture and keys",
		Long: `factory-reset wipes the Base and restarts it as new: no App is paired, SSH is off, and only
the entry is open. Every App, this one included, must be paired again by somebody at the
Base. To confirm, type the name of the Base.`,
		Example: `  bitbox-app factory-reset
  bitbox-app factory-reset --confirm kitchen`,
		Args: commandline.Args(0, 0),
	}
	command.Flags().StringVar(&name, "confirm", "", "the name of the Base, to confirm without being asked (for scripts)")
	command.RunE = func(c *cobra.Command, _ []string) error {
		p.left = "nothing was done"
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			wiped := ""
			err := session.FactoryReset(ctx, func(base string) (typed string, err error) {
				wiped, typed = base, name
				if !c.Flags().Changed("confirm") {
					typed, err = p.typeBase(ctx, base, wipes)
				}
				if err == nil && typed == base {
					p.left = "the Base may already be wiping itself; check it, and if it is not, run the command again"
					p.waiting("Waiting for the Base")
				}
				return typed, err
			})
			switch {
			case err != nil:
				return err
			case p.json:
				return p.printJSON(map[string]string{"reset": wiped})
			}
			return p.printf("%s is being wiped and restarts as new. To use it again: bitbox-app pair\n", client.Printable(wiped))
		})
	}
	return command
}

// wipes says what a factory reset costs.
const wipes = "This wipes the Base: its identity, all pairings and keys, and its posture.\n" +
	"Every App, this one included, must be paired again by somebody at the Base."

// typeBase says what something costs, and asks for the Base's name.
func (p *program) typeBase(ctx context.Context, base, cost string) (string, error) {
	if !p.terminal || p.json {
		return "", usageError{errors.New("there is no terminal to type the name of the Base at; to do it without being asked, add --confirm NAME")}
	}
	lines := readLines(p.in) // start now, to recognise input that was typed too early
	err := p.printf("%s\nTo confirm, type the name of the Base, %s: ", cost, client.Printable(base))
	if err != nil {
		return "", err
	}
	typed, err := nextLine(ctx, lines, time.Now())
	if err != nil {
		return "", fmt.Errorf("ask for the name of the Base: %w", err)
	}
	return typed, nil
}

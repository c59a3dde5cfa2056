package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) factoryResetCommand() *cobra.Command {
	var name string
	var eraseChain bool
	command := &cobra.Command{
		Use:   "factory-reset",
		Short: "Wipe the Base: identity, pairings, posture and keys",
		Long: `factory-reset wipes the Base and restarts it as new: no App is paired, SSH is off, and only
the entry is open. Every App, this one included, must be paired again by somebody at the
Base. To confirm, type the name of the Base. The chain of the Bitcoin node stays, unless you
ask for it to be erased: it has nothing of yours, and takes days to load again.`,
		Example: `  bitbox-app factory-reset
  bitbox-app factory-reset --confirm kitchen`,
		Args: commandline.Args(0, 0),
	}
	command.Flags().StringVar(&name, "confirm", "", "the name of the Base, to confirm without being asked (for scripts)")
	command.Flags().BoolVar(&eraseChain, "erase-chain", false, "erase the chain of the Bitcoin node, too")
	command.RunE = func(c *cobra.Command, _ []string) error {
		p.left = "nothing was done"
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			wiped := ""
			err := session.FactoryReset(ctx, func(base string) (answer client.ResetAnswer, err error) {
				wiped, answer = base, client.ResetAnswer{Typed: name, EraseChain: eraseChain}
				if !c.Flags().Changed("confirm") {
					answer, err = p.typeReset(ctx, base, eraseChain)
				}
				if err == nil && answer.Typed == base {
					p.left = "the Base may already be wiping itself; check it, and if it is not, run the command again"
					p.waiting("Waiting for the Base")
				}
				return answer, err
			})
			switch {
			case err != nil:
				return err
			case p.json:
				return p.printJSON(map[string]string{"reset": wiped})
			}
			return p.printf("%s To use it again: bitbox-app pair\n", owner.ResetDone(wiped))
		})
	}
	return command
}

// typeReset asks for the Base's name, and then for the chain, unless that is decided.
func (p *program) typeReset(ctx context.Context, base string, eraseChain bool) (answer client.ResetAnswer, err error) {
	asked := []string{baseQuestion(base, owner.ResetCost().Text)}
	if !eraseChain {
		asked = append(asked, fmt.Sprintf("%s\nTo erase it, too, type %q; otherwise press Enter: ", owner.ChainCost().Text,
			owner.EraseWords().String()))
	}
	typed, err := p.typeAnswers(ctx, base, asked...)
	if err != nil {
		return answer, err
	}
	eraseChain = eraseChain || len(typed) > 1 && words.Typed(owner.EraseWords(), typed[1])
	return client.ResetAnswer{Typed: typed[0], EraseChain: eraseChain}, nil
}

// typeBase says what something costs, and asks for the Base's name.
func (p *program) typeBase(ctx context.Context, base, cost string) (string, error) {
	typed, err := p.typeAnswers(ctx, base, baseQuestion(base, cost))
	if err != nil {
		return "", err
	}
	return typed[0], nil
}

func baseQuestion(base, cost string) string {
	return fmt.Sprintf("%s\nTo confirm, type the name of the Base, %s: ", cost, client.Printable(base))
}

// typeAnswers asks one question after the other, as long as the first is answered with the Base's
// name.
func (p *program) typeAnswers(ctx context.Context, base string, questions ...string) (typed []string, err error) {
	if !p.terminal || p.json {
		return nil, usageError{errors.New("there is no terminal to type the name of the Base at; to do it without being asked, add --confirm NAME")}
	}
	lines := readLines(p.in) // start now, to recognise input that was typed too early
	for _, question := range questions {
		if len(typed) > 0 && typed[0] != base {
			break
		}
		if err := p.printf("%s", question); err != nil {
			return nil, err
		}
		line, err := nextLine(ctx, lines, time.Now())
		if err != nil {
			return nil, fmt.Errorf("ask for the name of the Base: %w", err)
		}
		typed = append(typed, line)
	}
	return typed, nil
}

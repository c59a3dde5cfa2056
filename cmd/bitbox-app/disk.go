package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) diskCommand() *cobra.Command {
	list := func(c *cobra.Command, _ []string) error { return ask(p, c, callTime, diskQuery(p)) }
	command := &cobra.Command{
		Use:   "disk",
		Short: "List the disks of the Base, and choose one for the chain",
		Long: `disk lists the disks of the Base: what each is, what is on it, what it says of its health, and
whether it can hold the chain of the Bitcoin node. The whole chain of mainnet needs a disk of 2 TB.`,
		Example: `  bitbox-app disk
  bitbox-app disk use sda`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE:        list,
	}
	command.AddCommand(&cobra.Command{
		Use:         "list",
		Short:       "List the disks of the Base",
		Example:     `  bitbox-app disk list --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE:        list,
	}, p.diskUseCommand())
	return command
}

func diskQuery(p *program) query[*basev1.ListDisksResponse] {
	q := tableOf(p, query[*basev1.ListDisksResponse]{
		ask: func(ctx context.Context, session *client.Session) (*basev1.ListDisksResponse, error) {
			return session.Disks(ctx)
		},
		columns: []string{"NAME", "DISK", "SIZE", "BUS", "CONTENT", "HEALTH", "FOR THE CHAIN"},
		rows: func(answer *basev1.ListDisksResponse) (rows [][]string) {
			for _, d := range answer.GetDisks() {
				rows = append(rows, []string{d.GetName(), owner.DiskName(d), owner.DiskSize(d.GetSizeBytes()),
					d.GetBus(), words.English.DiskContent(d), words.English.DiskHealth(d.GetHealth()),
					words.English.DiskUsable(d)})
			}
			return rows
		},
		empty: "no disks",
		table: func(t *table) { t.styled("HEALTH", healthStyle) },
	})
	alone := q.show
	q.show = func(answer *basev1.ListDisksResponse) error {
		if err := alone(answer); err != nil {
			return err
		}
		return p.printf("%s\n", p.out.Fold("", client.Printable(words.English.ChainDisk(answer.GetChain()))))
	}
	return q
}

func healthStyle(cell string) terminal.Style {
	if strings.HasPrefix(cell, words.English.Say("machine.disk.failing", "")) {
		return terminal.Red
	}
	return terminal.Plain
}

func (p *program) diskUseCommand() *cobra.Command {
	var confirm string
	var pruned, erase bool
	command := &cobra.Command{
		Use:   "use NAME",
		Short: "Use a disk for the chain",
		Long: `use prepares a disk for the chain of the Bitcoin node. NAME is one of 'bitbox-app disk'.

The node stops, and starts again with the new disk. A chain that is on the disk of the system
stays there, unused: the node loads its chain anew. A disk with data on it is erased only after
you have typed that this is what you want. A disk that has a chain already is used as it is; with
--erase it is erased, too.

A disk below 1 TB is too small for the whole chain of mainnet. With --pruned it is used all the
same. A node of mainnet then keeps only the newest blocks, as many as fit: it cannot serve a
wallet server such as Electrum's, and 'bitbox-app node settings' shows how many GB it keeps.`,
		Example: `  bitbox-app disk use sda
  bitbox-app disk use nvme1n1 --confirm 'use nvme1n1'`,
		Args: commandline.Args(1, 1),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
				list, err := session.Disks(ctx)
				for _, d := range list.GetDisks() {
					if d.GetRefused() == "" {
						names = append(names, cobra.CompletionWithDesc(client.Printable(d.GetName()), client.Printable(owner.DiskName(d))))
					}
				}
				return err
			})
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	command.Flags().StringVar(&confirm, "confirm", "", "the sentence that would be typed, to confirm without being asked (for scripts)")
	command.Flags().BoolVar(&pruned, "pruned", false, "use a disk that is too small for the whole chain of mainnet; the node keeps the newest blocks only")
	command.Flags().BoolVar(&erase, "erase", false, "erase a disk even if it has a chain")
	command.RunE = func(c *cobra.Command, args []string) error {
		p.left = nothingChanged
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			list, err := session.Disks(ctx)
			if err != nil {
				return err
			}
			use, err := owner.ChooseDisk(list, args[0], erase, pruned, words.Saying("values.disk.pruned.flag"))
			if err != nil {
				return err
			}
			typed := confirm
			if !c.Flags().Changed("confirm") {
				if typed, err = p.typeDisk(ctx, use); err != nil {
					return err
				}
			}
			if err := use.Check(typed); err != nil {
				return err
			}
			p.left = perhapsDone
			if err := session.UseDisk(ctx, use.Disk, use.Erase, use.Pruned); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]string{"disk": use.Disk.GetId()})
			}
			return p.printf("%s See: bitbox-app disk\n", use.Done())
		})
	}
	return command
}

// typeDisk says what happens, and asks for the sentence.
func (p *program) typeDisk(ctx context.Context, use owner.DiskUse) (string, error) {
	if !p.terminal || p.json {
		return "", usageError{fmt.Errorf("there is no terminal to type at; to use the disk without being asked, add --confirm %q",
			use.Sentence().String())}
	}
	lines := readLines(p.in) // start now, to recognise input that was typed too early
	if err := p.printf("%s\nTo confirm, type: %s\n> ", use.Change().Text, use.Sentence()); err != nil {
		return "", err
	}
	typed, err := nextLine(ctx, lines, time.Now())
	if err != nil {
		return "", errors.Join(errors.New("nobody has confirmed"), err)
	}
	return strings.TrimSpace(typed), nil
}

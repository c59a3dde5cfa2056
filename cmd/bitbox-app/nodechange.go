package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// nodeChanged is what --json prints of a change of the node.
type nodeChanged struct {
	// Sent and Size are bytes of an archive that is being sent.
	Sent uint64 `json:"sent,omitempty"`
	Size uint64 `json:"size,omitempty"`
	// Done is install, reindex or resync.
	Done string `json:"done,omitempty"`
	// Version and Signers are those of an installation.
	Version string   `json:"version,omitempty"`
	Signers []string `json:"signers,omitempty"`
}

func (p *program) nodeInstallCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "install FILE",
		Short: "Have the node run a release of Bitcoin Core",
		Long: `install sends a release of Bitcoin Core to the Base: the archive for Linux as the project
publishes it, with SHA256SUMS and SHA256SUMS.asc beside it. This App checks name and hash, and
signs that you want it. The Base accepts the release if three of the people whom its builder
trusts have signed it, unpacks it, and restarts the node with it. The data of the node stay.

The release before it stays on the Base until the next one is installed.`,
		Example: `  bitbox-app node install bitcoin-31.0-x86_64-linux-gnu.tar.gz`,
		Args:    commandline.Args(1, 1),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		release, err := client.OpenBitcoinCore(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = release.Close() }()
		return p.call(c.Context(), owner.NodeInstallTime, func(ctx context.Context, session *client.Session) error {
			if err := asking.must(ctx, owner.CoreChange(release)); err != nil {
				return err
			}
			p.left = "nothing was installed; the Base deletes the partial file"
			teller := &updateTeller{program: p, size: release.Size}
			signers, err := session.InstallBitcoinCore(ctx, release, func(sent uint64) { teller.tell(client.UpdateProgress{Sent: sent}) })
			switch {
			case err != nil || teller.err != nil:
				return errors.Join(err, teller.err)
			case p.json:
				return p.printJSON(nodeChanged{Done: "install", Version: release.Version, Signers: signers})
			}
			return p.printf("%s\n", owner.CoreInstalled(release, signers))
		})
	}
	return command
}

func (p *program) nodeRestartCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "Restart the node",
		Long: `restart stops the node and starts it again. Bitcoin Core writes what it has in memory when it
stops, which can take 10 minutes.`,
		Example: `  bitbox-app node restart`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.changeService(c, owner.NodeService, basev1.ServiceAction_SERVICE_ACTION_RESTART,
				func(context.Context, string) error { return nil })
		},
	}
}

// rebuild says what a way of making the chain again does.
type rebuild struct {
	name, short, long string
	resync            bool
}

var rebuilds = []rebuild{
	{name: "reindex", short: "Have the node read all its blocks again",
		long: `reindex has the node forget what it has made of its blocks, and read the blocks on its disk
again. It repairs an index that is damaged. On mainnet that takes from half a day to several
days; a pruned node downloads what it has deleted. Wallets get no answers meanwhile.`,
	},
	{name: "resync", resync: true, short: "Delete the blocks of the node, and download them again",
		long: `resync has the node delete its blocks and what it has made of them, and download all of them
again: on mainnet more than 800 GB, in one to several days. It repairs blocks that are damaged.
Wallets get no answers meanwhile. What the node knows of peers and fees stays.`,
	},
}

func (p *program) nodeRebuildCommands() (commands []*cobra.Command) {
	for _, r := range rebuilds {
		var name string
		command := &cobra.Command{
			Use:     r.name,
			Short:   r.short,
			Long:    r.long + "\n\n'bitbox-app node' shows how far it is. To confirm, type the name of the Base.",
			Example: "  bitbox-app node " + r.name + "\n  bitbox-app node " + r.name + " --confirm kitchen",
			Args:    commandline.Args(0, 0),
		}
		command.Flags().StringVar(&name, "confirm", "", "the name of the Base, to confirm without being asked (for scripts)")
		command.RunE = func(c *cobra.Command, _ []string) error {
			return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
				return p.rebuild(ctx, session, r, c.Flags().Changed("confirm"), name)
			})
		}
		commands = append(commands, command)
	}
	return commands
}

func (p *program) rebuild(ctx context.Context, session *client.Session, r rebuild, given bool, typed string) error {
	p.left = nothingChanged
	answer, err := session.Node.GetNode(ctx, &basev1.GetNodeRequest{})
	if err != nil {
		return err
	}
	if err := owner.CheckRebuild(answer.GetNode(), r.resync); err != nil {
		return err
	}
	view, err := session.Posture(ctx)
	if err != nil {
		return err
	}
	base := view.Effective().NodeName
	if !given {
		if typed, err = p.typeBase(ctx, base, owner.RebuildCost(r.resync).Text); err != nil {
			return err
		}
	}
	if typed != base {
		return usageError{fmt.Errorf("that is not the name of the Base, %q, so nothing was done", client.Printable(base))}
	}
	p.left = perhapsDone
	if err := session.RebuildChain(ctx, r.resync); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(nodeChanged{Done: r.name})
	}
	return p.printf("%s 'bitbox-app node' shows how far it is.\n", words.Saying("done.rebuild"))
}

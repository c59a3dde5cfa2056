package main

import (
	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) nodeOnlineCommand() *cobra.Command {
	var home bool
	command := &cobra.Command{
		Use:   "online",
		Short: "Let the node reach the internet",
		Long: `online lets the Bitcoin node connect to peers on the internet. Nothing can connect to the
node, and it still cannot reach your home: a node speaks to strangers, and one that was taken
over must not attack your other devices.

With --home it may connect to private and link-local addresses instead, for a peer in your
own network. Give both commands for both.`,
		Example: `  bitbox-app node online
  bitbox-app node online --home`,
		Args: commandline.Args(0, 0),
	}
	command.Flags().BoolVar(&home, "home", false, "let it reach your home's network, not the internet")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		to := client.NodeInternet
		if home {
			to = client.NodeHome
		}
		return p.apply(c, asking, client.Change{Edit: client.LetOut(to)})
	}
	return command
}

func (p *program) nodeOfflineCommand() *cobra.Command {
	var home bool
	command := &cobra.Command{
		Use:   "offline",
		Short: "Keep the node from the internet and from your home",
		Long: `offline takes away what 'node online' allowed, and ends the node's connections. The node keeps
its blocks, and gets no new ones. With --home it may still reach the internet.`,
		Example: `  bitbox-app node offline`,
		Args:    commandline.Args(0, 0),
	}
	command.Flags().BoolVar(&home, "home", false, "keep it from your home's network only")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		from := []string{client.NodeInternet, client.NodeHome}
		if home {
			from = from[1:]
		}
		return p.apply(c, asking, client.Change{Edit: client.KeepIn(from...)})
	}
	return command
}

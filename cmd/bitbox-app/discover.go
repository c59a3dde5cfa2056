package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// discoverTime is how long to wait for answers from the local network.
const discoverTime = 3 * time.Second

func (p *program) discoverCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "discover",
		Short: "List the Bases on the local network",
		Long: `discover searches the local network for Bases by mDNS, and lists those that answer within
3 seconds, or within --timeout. Anybody on the network can announce anything: only pairing
proves which Base it is.`,
		Example: `  bitbox-app discover
  bitbox-app discover --json --timeout 10s`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			found, err := p.discover(c.Context(), discoverTime)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(found)
			}
			return p.listNearby(found)
		},
	}
}

// nearby is a Base on the local network, in JSON.
type nearby struct {
	Name            string   `json:"name"`
	Addresses       []string `json:"addresses"`
	ProtocolVersion int      `json:"protocolVersion"`
	PairingOpen     bool     `json:"pairingOpen"`
	// PairedAs is the name of the App's pairing with it, "" if there is none.
	PairedAs string `json:"pairedAs"`
}

func (p *program) discover(ctx context.Context, usual time.Duration) ([]nearby, error) {
	app, err := p.app(client.Options{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := p.limited(ctx, usual)
	defer cancel()
	p.waiting("Searching the local network")
	found, err := app.Discover(ctx)
	p.out.Wait("")
	if err != nil {
		return nil, err
	}
	list := []nearby{}
	for _, n := range found {
		list = append(list, nearby{n.Name, n.Addresses, n.ProtocolVersion, n.PairingOpen, n.Known})
	}
	return list, nil
}

func (p *program) listNearby(found []nearby) error {
	if len(found) == 0 {
		return p.printf("No Base answered. Check that it is on and connected to this network. If you know its address: bitbox-app pair HOST:PORT\n")
	}
	table := p.table("NAME", "ADDRESS", "PAIRING", "KNOWN AS")
	for _, n := range found {
		table.row(n.Name, n.address(), n.pairing(), n.PairedAs)
	}
	if err := table.print(); err != nil {
		return err
	}
	if len(found) >= client.MaxNearby {
		return p.printf("There are more Bases than can be real. Somebody may be faking them; type your Base's address.\n")
	}
	return nil
}

// address is the most useful address, and how many there are.
func (n nearby) address() string {
	if len(n.Addresses) == 0 {
		return ""
	}
	best := owner.BestAddress(n.Addresses)
	if all := len(n.Addresses); all > 1 {
		return fmt.Sprintf("%s (1 of %d addresses)", best, all)
	}
	return best
}

func (n nearby) pairing() string {
	switch {
	case n.ProtocolVersion != client.ProtocolVersion:
		return fmt.Sprintf("protocol %d, unknown to this App", n.ProtocolVersion)
	case n.PairingOpen:
		return "open"
	}
	return "closed"
}

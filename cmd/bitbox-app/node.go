package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// shownBlocks is how many blocks are shown unless somebody asks for more.
const shownBlocks = 10

func (p *program) nodeCommand() *cobra.Command {
	show := func(c *cobra.Command, _ []string) error { return ask(p, c, callTime, nodeQuery(p)) }
	command := &cobra.Command{
		Use:   "node",
		Short: "Show the Bitcoin node of the Base",
		Long: `node shows which network the Bitcoin node is on, how many blocks it has, and how it is doing.
While it catches up, it shows an estimate of the time left. Some programs do not tell
everything; then it says "not offered by this node". The row "Internet" comes from what an
owner has signed.`,
		Example: `  bitbox-app node
  bitbox-app node settings --program btcd --network signet
  bitbox-app node online
  bitbox-app node blocks --follow`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE:        show,
	}
	command.AddCommand(&cobra.Command{
		Use:         "show",
		Short:       "Show how the node is",
		Example:     `  bitbox-app node show --all`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE:        show,
	}, p.nodePeersCommand(), p.nodeBlocksCommand(), p.nodeTxCommand(), p.nodeFeesCommand(), p.nodeOnlineCommand(), p.nodeOfflineCommand(),
		p.nodeInstallCommand(), p.nodeRestartCommand(), p.nodeSettingsCommand())
	command.AddCommand(p.nodeRebuildCommands()...)
	return command
}

// nodeAnswer is what a Base tells about its node, and where its posture lets the node go; nil if
// the Base shows none, as a developer's Base.
type nodeAnswer struct {
	*basev1.GetNodeResponse
	posture *client.PostureView
}

func askNode(ctx context.Context, session *client.Session) (a nodeAnswer, err error) {
	if a.GetNodeResponse, err = session.Node.GetNode(ctx, &basev1.GetNodeRequest{}); err != nil || !words.HasNode(a.GetNode()) {
		return a, err
	}
	if a.posture, err = session.Posture(ctx); client.Refused(err) {
		return a, nil
	}
	return a, err
}

func nodeQuery(p *program) query[nodeAnswer] {
	return query[nodeAnswer]{
		ask:  askNode,
		json: func(a nodeAnswer) any { return a.GetNodeResponse },
		show: func(a nodeAnswer) error {
			table := p.table()
			for _, row := range words.English.NodeRows(a.GetNode(), words.English.NodeReach(a.posture), time.Now(), words.Plainly) {
				table.row(row[0], row[1])
			}
			return table.print()
		},
		columns: []string{"STATE", "NETWORK", "HEIGHT", "PROGRESS", "PEERS", "SOFTWARE"},
		rows: func(a nodeAnswer) [][]string {
			n := a.GetNode()
			if !words.HasNode(n) || n.GetAskedAt() == nil {
				return [][]string{{words.English.NodeState(n), "", "", "", "", ""}}
			}
			peers := words.English.Say("values.notoffered")
			if n.PeersIn != nil && n.PeersOut != nil {
				peers = fmt.Sprint(n.GetPeersIn() + n.GetPeersOut())
			}
			return [][]string{{words.English.NodeState(n), words.English.Network(n.GetNetwork()), fmt.Sprint(n.GetHeight()),
				words.English.Progress(n), peers,
				n.GetSoftware() + " " + n.GetVersion()}}
		},
		table: func(t *table) { t.styled("STATE", nodeStyle) },
	}
}

// nodeStyle has a node that does not answer stand out.
func nodeStyle(state string) terminal.Style {
	if state == words.English.NodeState(&basev1.Node{State: basev1.Node_STATE_STOPPED}) {
		return terminal.Red
	}
	return terminal.Plain
}

func (p *program) nodePeersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "List the peers of the node",
		Long: `peers lists the computers that the node exchanges blocks and transactions with. They tell
their software themselves; it proves nothing.`,
		Example:     `  bitbox-app node peers`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, tableOf(p, query[*basev1.ListPeersResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.ListPeersResponse, error) {
					return session.Node.ListPeers(ctx, &basev1.ListPeersRequest{})
				},
				columns: []string{"ADDRESS", "DIRECTION", "HEIGHT", "CONNECTED", "RECEIVED", "SENT", "PING", "SOFTWARE"},
				rows: func(list *basev1.ListPeersResponse) (rows [][]string) {
					for _, peer := range list.GetPeers() {
						rows = append(rows, peerCells(peer, time.Now()))
					}
					return rows
				},
				empty: "no peers",
			}))
		},
	}
}

func peerCells(peer *basev1.Peer, now time.Time) []string {
	direction, height, since, ping := "out", "", "", ""
	if peer.GetInbound() {
		direction = "in"
	}
	if peer.Height != nil {
		height = fmt.Sprint(peer.GetHeight())
	}
	if peer.GetConnectedAt() != nil {
		since = when(peer.GetConnectedAt().AsTime(), now)
	}
	if peer.PingMs != nil {
		ping = fmt.Sprintf("%.0f ms", peer.GetPingMs())
	}
	return []string{peer.GetAddress(), direction, height, since, size(peer.GetReceivedBytes()), size(peer.GetSentBytes()), ping,
		peer.GetSoftware()}
}

func (p *program) nodeBlocksCommand() *cobra.Command {
	var follow bool
	var most uint32
	command := &cobra.Command{
		Use:   "blocks",
		Short: "Show the newest blocks, and new ones as they arrive",
		Long: `blocks shows the newest blocks of the best chain, the newest last. With --follow it goes on
until Ctrl-C. After a reorganisation the blocks that took the place of others are shown too.
With --json it prints one block per line.`,
		Example: `  bitbox-app node blocks
  bitbox-app node blocks --follow --lines 1`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			usual := callTime
			if follow {
				usual = 0
			}
			return p.stream(c, usual, func(p *program, ctx context.Context, session *client.Session) error {
				if follow {
					return p.followBlocks(ctx, session, most)
				}
				list, err := session.Node.ListBlocks(ctx, &basev1.ListBlocksRequest{Most: most})
				for _, block := range list.GetBlocks() {
					if err := p.printBlock(block); err != nil {
						return err
					}
				}
				return err
			})
		},
	}
	command.Flags().BoolVarP(&follow, "follow", "f", false, "keep showing new blocks until Ctrl-C")
	command.Flags().Uint32VarP(&most, "lines", "n", shownBlocks, "show the last N blocks; the Base remembers 100")
	_ = command.RegisterFlagCompletionFunc("lines", cobra.NoFileCompletions)
	return command
}

func (p *program) followBlocks(ctx context.Context, session *client.Session, most uint32) error {
	stream, err := session.Node.WatchBlocks(ctx, &basev1.WatchBlocksRequest{Most: most})
	if err != nil {
		return err
	}
	for block, err := range stream.All() {
		if err != nil {
			return err
		}
		if err := p.printBlock(block); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printBlock(b *basev1.Block) error {
	if p.json {
		return p.printMessage(b)
	}
	transactions := "1 transaction"
	if b.GetTransactions() != 1 {
		transactions = fmt.Sprintf("%d transactions", b.GetTransactions())
	}
	at := ""
	if b.GetTime() != nil {
		at = b.GetTime().AsTime().Local().Format(time.DateTime)
	}
	return p.printf("%s  block %d  %s  %s, %s\n", at, b.GetHeight(), client.Printable(b.GetHash()), transactions, size(b.GetSizeBytes()))
}

func (p *program) nodeFeesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fees",
		Short: "Show what the node estimates that transactions have to pay",
		Long: `fees shows for some numbers of blocks which fee the node expects to be enough for a
transaction to be confirmed within them.`,
		Example:     `  bitbox-app node fees`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			q := tableOf(p, query[*basev1.GetFeesResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.GetFeesResponse, error) {
					return session.Node.GetFees(ctx, &basev1.GetFeesRequest{})
				},
				columns: []string{"WITHIN", "FEE"},
				rows: func(answer *basev1.GetFeesResponse) (rows [][]string) {
					for _, fee := range answer.GetFees() {
						blocks := "1 block"
						if fee.GetBlocks() != 1 {
							blocks = fmt.Sprintf("%d blocks", fee.GetBlocks())
						}
						rows = append(rows, []string{blocks, fmt.Sprintf("%.1f sat/vB", fee.GetSatPerVbyte())})
					}
					return rows
				},
				empty: "no estimate yet",
			})
			show := q.show
			q.show = func(answer *basev1.GetFeesResponse) error {
				switch {
				case !answer.GetOffered():
					return p.printf("Fees: %s.\n", words.English.Say("values.notoffered"))
				case len(answer.GetFees()) == 0:
					return p.printf("The node has no estimate yet; it has to see transactions for a while.\n")
				}
				return show(answer)
			}
			return ask(p, c, callTime, q)
		},
	}
}

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
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/proof"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// proofTime is how long a proof may take: some 50 calls, with 160 KB of headers each.
const proofTime = 5 * time.Minute

// headersAtOnce is how many headers are asked for at once (ListHeadersRequest).
const headersAtOnce = 2000

func (p *program) nodeTxCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tx TXID",
		Short: "Show whether a transaction is in the chain, and prove it",
		Long: `tx shows whether a transaction waits for a block or is in one. On mainnet the App does not
believe the Base: it checks the merkle proof that leads from the transaction to its block, and
the headers from there to a block that is built into the App. Newer headers must have the work
that Bitcoin asks for. On other networks blocks take no work, so nothing is proved.

The Base's own server for wallets finds the transaction. TXID has 64 hexadecimal digits.`,
		Example: `  bitbox-app node tx 0e3e2357e806b6cdb1f70b54c3a3a17b6714ee1f0e68bebb44a74b1efd512098`,
		Args:    commandline.Args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseTxID(args[0])
			if err != nil {
				return usageError{err}
			}
			return ask(p, c, proofTime, query[foundTx]{
				doing: "Looking for the transaction, and checking the proof",
				ask:   func(ctx context.Context, session *client.Session) (foundTx, error) { return findTx(ctx, session, id) },
				show:  p.printTx,
			})
		},
	}
}

// addresses are how addresses of each network begin (BIP 173; sb of btcd).
var addresses = map[string]string{"bc1": "mainnet", "tb1": "testnet4 or signet", "bcrt1": "regtest", "sb1": "simnet"}

// some writes how many there are of something.
func some(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// parseTxID reads an ID, and tells somebody who has typed an address.
func parseTxID(text string) (id proof.Hash, err error) {
	if id, err = proof.ParseID(text); err == nil {
		return id, nil
	}
	for begin, network := range addresses {
		if strings.HasPrefix(strings.ToLower(text), begin) {
			return id, fmt.Errorf("%s is an address of %s; a transaction is found by its ID, which a wallet shows", client.Printable(text), network)
		}
	}
	return id, fmt.Errorf("%q is no ID of a transaction, which has 64 hexadecimal digits", client.Printable(text))
}

// foundTx is what is known of a transaction, as 'node tx' prints it as JSON.
type foundTx struct {
	ID      string `json:"id"`
	Network string `json:"network"`
	// Confirmed: a block has it; otherwise it waits for one, and there is neither height nor time.
	Confirmed     bool   `json:"confirmed"`
	Height        uint32 `json:"height,omitempty"`
	Confirmations uint32 `json:"confirmations"`
	// Outputs is empty if a Base of an older version does not tell the whole transaction.
	Outputs []shownOutput `json:"outputs"`
	// Proved: this App has checked it. Otherwise NotProved says why not.
	Proved    bool       `json:"proved"`
	NotProved string     `json:"notProved,omitempty"`
	BlockTime *time.Time `json:"blockTime,omitempty"`
	// Checkpoint is the height of the built-in block; Work how many headers after it have the work.
	Checkpoint uint32 `json:"checkpoint,omitempty"`
	Work       uint32 `json:"work,omitempty"`
	// NewestTime is the time of the newest of them.
	NewestTime *time.Time `json:"newestTime,omitempty"`
}

type shownOutput struct {
	Satoshis uint64 `json:"satoshis"`
	Script   string `json:"script"`
}

// errNoTx: the node has no such transaction.
var errNoTx = errors.New("no such transaction")

// findTx asks for a transaction, and checks the answer.
func findTx(ctx context.Context, session *client.Session, id proof.Hash) (foundTx, error) {
	of, err := session.Node.GetNode(ctx, &basev1.GetNodeRequest{})
	if err != nil {
		return foundTx{}, err
	}
	network := of.GetNode().GetNetwork()
	answer, err := session.Node.GetTransaction(ctx, &basev1.GetTransactionRequest{Id: id[:]})
	if err != nil {
		return foundTx{}, err
	}
	found := foundTx{ID: id.String(), Network: words.English.Network(network), Outputs: []shownOutput{}}
	switch answer.GetState() {
	case basev1.GetTransactionResponse_STATE_CONFIRMED:
		found.Confirmed, found.Height = true, answer.GetPlace().GetHeight()
		found.Confirmations = answer.GetTip() - min(found.Height, answer.GetTip()) + 1
	case basev1.GetTransactionResponse_STATE_WAITING:
		found.NotProved = "it is in no block yet"
	case basev1.GetTransactionResponse_STATE_UNKNOWN:
		return found, fmt.Errorf("%w: neither the chain nor the mempool of the Base's node has %v", errNoTx, id)
	default:
		return found, fmt.Errorf("the Base cannot look for it: %s; 'bitbox-app node' shows how far it is",
			client.Printable(answer.GetReason()))
	}
	raw, err := wholeTx(answer, func(offset uint32) (*basev1.GetTransactionResponse, error) {
		return session.Node.GetTransaction(ctx, &basev1.GetTransactionRequest{Id: id[:], Offset: offset})
	})
	if err != nil {
		return found, err
	}
	if len(raw) > 0 {
		tx, err := proof.Transaction(id, raw)
		if err != nil {
			return found, lie(err)
		}
		for _, o := range tx.Outputs {
			found.Outputs = append(found.Outputs, shownOutput{o.Value, fmt.Sprintf("%x", o.Script)})
		}
	}
	switch {
	case !found.Confirmed:
	case network != basev1.Network_NETWORK_MAINNET:
		found.NotProved = "only mainnet's blocks take work that nobody can fake"
	case len(raw) == 0:
		found.NotProved = "a Base of this version tells no transaction of more than 100,000 bytes; an update helps"
	default:
		err = found.prove(ctx, session, id, answer)
	}
	return found, err
}

// wholeTx puts a transaction together that is told in parts. It has no bytes if the Base cannot tell it
// all: before there were parts.
func wholeTx(first *basev1.GetTransactionResponse, ask func(offset uint32) (*basev1.GetTransactionResponse, error)) ([]byte, error) {
	if len(first.GetTransaction()) > 0 || first.GetSize() == 0 {
		return first.GetTransaction(), nil
	}
	size := int(first.GetSize())
	if size > proof.MaxTransaction {
		return nil, lie(fmt.Errorf("%w: no block has room for the transaction", proof.ErrWrong))
	}
	raw := first.GetPart()
	for len(raw) < size {
		next, err := ask(uint32(len(raw)))
		if err != nil {
			return nil, err
		}
		if len(next.GetPart()) == 0 {
			return nil, fmt.Errorf("the Base has told %d of %d bytes of the transaction; try again", len(raw), size)
		}
		raw = append(raw, next.GetPart()...)
	}
	return raw[:size], nil
}

// lie is what a Base that was taken over looks like.
func lie(err error) error { return fmt.Errorf("%w: %w", client.ErrLyingBase, err) }

// prove checks the proof.
func (found *foundTx) prove(ctx context.Context, session *client.Session, id proof.Hash, answer *basev1.GetTransactionResponse) error {
	mainnet, err := proof.Mainnet()
	if err != nil {
		return err
	}
	at := proof.Place{Height: found.Height, Position: answer.GetPlace().GetPosition(), Tip: answer.GetTip()}
	for _, hash := range answer.GetPlace().GetBranch() {
		if len(hash) != len(proof.Hash{}) {
			return lie(proof.ErrWrong)
		}
		at.Branch = append(at.Branch, proof.Hash(hash))
	}
	proven, err := mainnet.Check(ctx, headersOf(session), id, at, time.Now())
	switch {
	case errors.Is(err, proof.ErrBehind):
		found.NotProved = err.Error()
		return nil
	case errors.Is(err, proof.ErrWrong):
		return lie(err)
	case err != nil:
		return err
	}
	found.Proved, found.BlockTime, found.Checkpoint, found.Work = true, &proven.Time, proven.Checkpoint, proven.Work
	if proven.Work > 0 {
		found.NewestTime = &proven.TipTime
	}
	return nil
}

// headersOf fetches headers from a Base.
func headersOf(session *client.Session) proof.Headers {
	return func(ctx context.Context, first, count uint32) ([]proof.Header, error) {
		answer, err := session.Node.ListHeaders(ctx, &basev1.ListHeadersRequest{First: first, Count: min(count, headersAtOnce)})
		if err != nil {
			return nil, err
		}
		var list []proof.Header
		for rest := answer.GetHeaders(); len(rest) >= proof.HeaderSize; rest = rest[proof.HeaderSize:] {
			list = append(list, proof.Header(rest[:proof.HeaderSize]))
		}
		return list, nil
	}
}

func (p *program) printTx(found foundTx) error {
	table := p.table()
	table.row("Transaction", found.ID)
	state := "waits for a block"
	if found.Confirmed {
		state = fmt.Sprintf("in block %d, %s", found.Height, some(int(found.Confirmations), "confirmation"))
		if found.BlockTime != nil {
			state += ", of " + when(*found.BlockTime, time.Now())
		}
	}
	table.row("State", state)
	if len(found.Outputs) > 0 {
		sum := uint64(0)
		for _, o := range found.Outputs {
			sum += o.Satoshis
		}
		const satoshis = 100_000_000
		table.row("Pays", fmt.Sprintf("%d.%08d BTC in %s", sum/satoshis, sum%satoshis, some(len(found.Outputs), "output")))
	}
	switch {
	case !found.Proved:
		table.row("Proved", fmt.Sprintf("not proved: %s (%s)", found.NotProved, found.Network))
	case found.Work == 0:
		table.row("Proved", fmt.Sprintf("yes: this App has checked the way to block %d, which is built in", found.Checkpoint))
	default:
		table.row("Proved", fmt.Sprintf("yes: this App has checked the work of %s after block %d, which is built in; the newest is of %s",
			some(int(found.Work), "block"), found.Checkpoint, when(*found.NewestTime, time.Now())))
	}
	return table.print()
}

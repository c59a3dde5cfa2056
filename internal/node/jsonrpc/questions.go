package jsonrpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
)

// Codes of refusals that both programs have (src/rpc/protocol.h of Bitcoin Core).
const (
	// CodeWarmingUp: the node starts.
	CodeWarmingUp = -28
	// codeUnknownMethod: the node does not offer this.
	codeUnknownMethod = -32601
	// codeOutOfRange and codeOutOfRangeBtcd: no block is at this height.
	codeOutOfRange, codeOutOfRangeBtcd = -8, -1
)

// Chain is the answer to getblockchaininfo.
type Chain struct {
	Network string `json:"chain"`
	Blocks  int64  `json:"blocks"`
	Headers int64  `json:"headers"`
	Best    string `json:"bestblockhash"`
	Pruned  bool   `json:"pruned"`
	// Only Core has these.
	Time        int64   `json:"time"` // of the best block
	Progress    float64 `json:"verificationprogress"`
	InitialSync bool    `json:"initialblockdownload"`
	SizeOnDisk  int64   `json:"size_on_disk"`
	Warnings    Texts   `json:"warnings"`
}

// Node begins the description of a node with what its chain says. networks has the program's
// names of networks.
func (c *Chain) Node(networks map[string]basev1.Network) (*basev1.Node, error) {
	height, err := node.Height(c.Blocks)
	if err != nil {
		return nil, err
	}
	if err := node.Hash(c.Best); err != nil {
		return nil, err
	}
	pruned := c.Pruned
	return &basev1.Node{Network: networks[c.Network], Height: height, BestBlock: c.Best, Pruned: &pruned}, nil
}

// Mempool is the answer to getmempoolinfo.
type Mempool struct {
	Size  int64 `json:"size"`
	Bytes int64 `json:"bytes"`
}

// Tell adds it to the description of a node.
func (m *Mempool) Tell(n *basev1.Node) {
	transactions, bytes := node.Count(m.Size), node.Count(m.Bytes)
	n.MempoolTransactions, n.MempoolBytes = &transactions, &bytes
}

// Peer is an entry of the answer to getpeerinfo.
type Peer struct {
	Address   string `json:"addr"`
	Inbound   bool   `json:"inbound"`
	Agent     string `json:"subver"`
	Connected int64  `json:"conntime"` // seconds since 1970
	Received  int64  `json:"bytesrecv"`
	Sent      int64  `json:"bytessent"`
	// Ping is in seconds with Core, in microseconds with btcd; absent or 0: not known.
	Ping float64 `json:"pingtime"`
	// SyncedHeaders is Core's: the last header that both have, -1 if there is none.
	SyncedHeaders *int64 `json:"synced_headers"`
	// CurrentHeight is btcd's: the last block that the peer has announced.
	CurrentHeight *int64 `json:"currentheight"`
}

// Peers describes peers, at most node.MaxPeers, and counts them. second is what a ping of one second is.
func Peers(list []Peer, second float64) (peers []*basev1.Peer, in, out uint32) {
	for _, p := range list[:min(len(list), node.MaxPeers)] {
		peer := &basev1.Peer{Address: node.Text(p.Address), Inbound: p.Inbound, Software: node.Text(p.Agent), ConnectedAt: Time(p.Connected),
			ReceivedBytes: node.Count(p.Received), SentBytes: node.Count(p.Sent)}
		for _, told := range []*int64{p.SyncedHeaders, p.CurrentHeight} {
			if told == nil {
				continue
			}
			if height, err := node.Height(*told); err == nil {
				peer.Height = &height
			}
		}
		if ms := p.Ping / second * 1000; ms > 0 && !math.IsInf(ms, 0) {
			peer.PingMs = &ms
		}
		if peers = append(peers, peer); p.Inbound {
			in++
		} else {
			out++
		}
	}
	return peers, in, out
}

// Time is a time that a node has told, in seconds since 1970; nil if it is none.
func Time(seconds int64) *timestamppb.Timestamp {
	const year9999 = 253402300799
	if seconds <= 0 || seconds > year9999 {
		return nil
	}
	return timestamppb.New(time.Unix(seconds, 0))
}

// Offers tells whether a node knows the question to which it has answered with an error or nil.
func Offers(err error) bool {
	var refused *Error
	return !errors.As(err, &refused) || refused.Code != codeUnknownMethod
}

// Fees describes what was answered for the numbers of blocks, in BTC for 1,000 bytes; 0: nothing.
func Fees(blocks []uint32, rates []float64) (fees []*basev1.Fee) {
	const satoshi, kilo = 1e8, 1e3
	for i, rate := range rates {
		if rate > 0 && rate < 1 { // a whole bitcoin for 1,000 bytes is no fee
			fees = append(fees, &basev1.Fee{Blocks: blocks[i], SatPerVbyte: rate * satoshi / kilo})
		}
	}
	return fees
}

// Hashes asks for the hashes of the best chain's blocks.
func (c *Client) Hashes(ctx context.Context, heights []uint64) ([]string, error) {
	hashes := make([]string, len(heights))
	var calls []*Call
	for i, height := range heights[:min(len(heights), node.MaxHashes)] {
		calls = append(calls, &Call{Method: "getblockhash", Params: []any{height}, Into: &hashes[i]})
	}
	if err := c.batch(ctx, calls); err != nil {
		return nil, err
	}
	for _, hash := range hashes {
		if err := node.Hash(hash); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrGarbage, err)
		}
	}
	return hashes, nil
}

// Blocks asks for blocks. Verbosity 1 lists their transactions by id.
func (c *Client) Blocks(ctx context.Context, hashes []string) ([]*basev1.Block, error) {
	answers := make([]struct {
		Hash     string `json:"hash"`
		Previous string `json:"previousblockhash"`
		Height   int64  `json:"height"`
		Time     int64  `json:"time"`
		Size     int64  `json:"size"`
		List     count  `json:"tx"`
	}, len(hashes))
	var calls []*Call
	for i, hash := range hashes[:min(len(hashes), node.MaxBlocks)] {
		calls = append(calls, &Call{Method: "getblock", Params: []any{hash, 1}, Into: &answers[i]})
	}
	if err := c.batch(ctx, calls); err != nil {
		return nil, err
	}
	blocks := make([]*basev1.Block, 0, len(hashes))
	for i, a := range answers {
		height, err := node.Height(a.Height)
		if err != nil || a.Hash != hashes[i] || height > 0 && node.Hash(a.Previous) != nil {
			return nil, fmt.Errorf("%w: a block is another one than was asked for", ErrGarbage)
		}
		if height == 0 { // btcd tells 64 zeros
			a.Previous = ""
		}
		blocks = append(blocks, &basev1.Block{Height: height, Hash: a.Hash, Previous: a.Previous, Time: Time(a.Time),
			SizeBytes: node.Count(a.Size), Transactions: uint32(a.List)})
	}
	return blocks, nil
}

// batch asks questions that all must be answered.
func (c *Client) batch(ctx context.Context, calls []*Call) error {
	if len(calls) == 0 {
		return nil
	}
	if err := c.Batch(ctx, calls...); err != nil {
		return err
	}
	for _, call := range calls {
		if call.Err != nil {
			return call.Err
		}
	}
	return nil
}

// Trouble says for an owner why a program cannot be asked.
func Trouble(program string, err error) error {
	var refused *Error
	trouble := &node.Trouble{Cause: err}
	say := func(format string, args ...any) { trouble.Text = fmt.Sprintf(format, args...) }
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &refused) && refused.Code == CodeWarmingUp:
		trouble.Starting = true
		say("%s starts: %s", program, refused.Message)
	case errors.As(err, &refused) && (refused.Code == codeOutOfRange || refused.Code == codeOutOfRangeBtcd):
		say("the chain of %s has changed while it was asked", program)
	case errors.As(err, &refused):
		say("%s refuses to answer: %s", program, refused.Message)
	case errors.Is(err, ErrNotRunning):
		say("%s does not run", program)
	case errors.Is(err, ErrCredentials):
		say("%s does not accept the credentials that it has written itself; restart it", program)
	case errors.Is(err, ErrForbidden):
		say("%s does not let the Base ask what it needs; look at rpcwhitelist in its configuration", program)
	case errors.Is(err, ErrBusy):
		say("%s has too much to do to answer", program)
	case errors.Is(err, ErrSlow):
		say("%s does not answer in time", program)
	case errors.Is(err, ErrCertificate):
		say("the program at the address of %s shows another certificate than the one of %s", program, program)
	default:
		say("what %s answers cannot be read", program)
	}
	return trouble
}

// OtherNetwork says that a program is on another network than it must be.
func OtherNetwork(program string, is, must basev1.Network) error {
	return &node.Trouble{Text: fmt.Sprintf("%s is on %s, and the Base is set to %s", program, node.NetworkName(is), node.NetworkName(must))}
}

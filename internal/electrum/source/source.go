// Package source asks the Bitcoin node of a Base for what a wallet server needs: blocks, parts of
// blocks, and transactions that wait. Blocks come as bytes, by Bitcoin Core's REST (rest.go) or
// by the Bitcoin network's protocol from btcd (peer.go): hexadecimal digits in JSON take 3 to 10
// times as long. The rest is JSON-RPC (internal/node/jsonrpc).
//
// The node is taken for hostile: each answer has a deadline and a size limit.
package source

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// Config says where the node is.
type Config struct {
	Program settings.Program
	Network basev1.Network
	// RPC is 127.0.0.1 and a port; Core's REST is there too.
	RPC string
	// Peer is where btcd listens for peers: 127.0.0.1 and a port.
	Peer string
	// Credentials and Certificate are files, as those of bitbox-node watch.
	Credentials, Certificate string
}

// Node is a node. It is safe for concurrent use.
type Node struct {
	rpc    *jsonrpc.Client
	blocks blocks
	rest   *rest // nil with btcd
	name   string
	first  chain.Hash
}

// blocks hands out blocks as bytes.
type blocks interface {
	block(ctx context.Context, hash chain.Hash) ([]byte, error)
}

// ErrNotOffered is returned for what this node does not offer.
var ErrNotOffered = errors.New("this node does not offer that")

// networks has the hash of each network's first block, and how its messages begin, both from
// btcd's chaincfg and wire.
var networks = map[basev1.Network]struct {
	first string
	magic uint32
}{
	basev1.Network_NETWORK_MAINNET:  {"000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f", 0xd9b4bef9},
	basev1.Network_NETWORK_TESTNET4: {"00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043", 0x283f161c},
	basev1.Network_NETWORK_SIGNET:   {"00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6", 0x40cf030a},
	basev1.Network_NETWORK_REGTEST:  {"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206", 0xdab5bffa},
	basev1.Network_NETWORK_SIMNET:   {"683e86bd5c6d110d91b94b97137ba6bfe02dbbdb8e3dff722a669b5d69d77af6", 0x12141c16},
}

// New returns the node. It does not connect yet.
func New(config Config) (*Node, error) {
	network, known := networks[config.Network]
	if !known {
		return nil, errors.New("a wallet server needs to know the network")
	}
	first, err := chain.ParseHash(network.first)
	if err != nil {
		return nil, err
	}
	n := &Node{first: first}
	switch config.Program {
	case settings.Core:
		made, err := core.New(core.Config{Address: config.RPC, Cookie: config.Credentials, Network: config.Network})
		if err != nil {
			return nil, err
		}
		n.rpc, n.name, n.rest = made.Client, core.Program, newREST(config.RPC)
		n.blocks = n.rest
	case settings.Btcd:
		made, err := btcd.New(btcd.Config{Address: config.RPC, Credentials: config.Credentials, Certificate: config.Certificate,
			Network: config.Network})
		if err != nil {
			return nil, err
		}
		n.rpc, n.name, n.blocks = made.Client, btcd.Program, &peer{address: config.Peer, magic: network.magic}
	default:
		return nil, fmt.Errorf("there is no program %q", config.Program)
	}
	return n, nil
}

// Close ends its connections.
func (n *Node) Close() {
	if n.rest != nil {
		n.rest.http.CloseIdleConnections()
		return
	}
	n.blocks.(*peer).close()
}

// First is the hash of the network's first block.
func (n *Node) First() chain.Hash { return n.first }

// ask asks one question.
func (n *Node) ask(ctx context.Context, into any, method string, params ...any) error {
	call := &jsonrpc.Call{Method: method, Params: params, Into: into}
	if err := n.rpc.Batch(ctx, call); err != nil {
		return jsonrpc.Trouble(n.name, err)
	}
	return call.Err
}

// Tip is how far the node is.
type Tip struct {
	Height  uint32
	Hash    chain.Hash
	Syncing bool   // the node says that it is still catching up
	Headers uint32 // how high it expects its chain to be
}

// ErrPruned: the node has thrown old blocks away.
var ErrPruned = errors.New("the node keeps only the newest blocks (it is pruned), and a wallet server needs all of them")

// ErrNetwork: the node is on another network.
var ErrNetwork = errors.New("the node is on another network than the Base is set to")

// Tip asks how far the node is.
func (n *Node) Tip(ctx context.Context) (tip Tip, err error) {
	var info struct {
		Blocks  int64  `json:"blocks"`
		Headers int64  `json:"headers"`
		Best    string `json:"bestblockhash"`
		Pruned  bool   `json:"pruned"`
		Syncing bool   `json:"initialblockdownload"`
	}
	var first string
	calls := []*jsonrpc.Call{
		{Method: "getblockchaininfo", Into: &info}, {Method: "getblockhash", Params: []any{0}, Into: &first},
	}
	if err := n.rpc.Batch(ctx, calls...); err != nil {
		return tip, jsonrpc.Trouble(n.name, err)
	}
	for _, call := range calls {
		if call.Err != nil {
			return tip, jsonrpc.Trouble(n.name, call.Err)
		}
	}
	height, err := node.Height(info.Blocks)
	if err != nil {
		return tip, err
	}
	headers, err := node.Height(info.Headers)
	if err != nil {
		return tip, err
	}
	tip = Tip{Height: uint32(height), Syncing: info.Syncing, Headers: uint32(headers)}
	if tip.Hash, err = chain.ParseHash(info.Best); err != nil {
		return tip, jsonrpc.Trouble(n.name, err)
	}
	switch {
	case first != n.first.String():
		return tip, ErrNetwork
	case info.Pruned:
		return tip, ErrPruned
	}
	return tip, nil
}

// Hashes returns the hashes of the best chain's blocks at these heights, at most node.MaxHashes.
func (n *Node) Hashes(ctx context.Context, heights []uint64) ([]chain.Hash, error) {
	texts, err := n.rpc.Hashes(ctx, heights)
	if err != nil {
		return nil, jsonrpc.Trouble(n.name, err)
	}
	hashes := make([]chain.Hash, len(texts))
	for i, text := range texts {
		if hashes[i], err = chain.ParseHash(text); err != nil {
			return nil, jsonrpc.Trouble(n.name, err)
		}
	}
	return hashes, nil
}

// Block returns a block's bytes. Its header has the hash.
func (n *Node) Block(ctx context.Context, hash chain.Hash) ([]byte, error) {
	raw, err := n.blocks.block(ctx, hash)
	if err != nil {
		return nil, fmt.Errorf("ask the node for a block: %w", err)
	}
	if len(raw) < chain.HeaderSize || chain.Double(raw[:chain.HeaderSize]) != hash {
		return nil, errors.New("ask the node for a block: it has answered with another one")
	}
	return raw, nil
}

// Part returns a part of a block: Core has that since version 31. ErrNotOffered otherwise.
func (n *Node) Part(ctx context.Context, hash chain.Hash, offset, size uint32) ([]byte, error) {
	if n.rest == nil {
		return nil, ErrNotOffered
	}
	return n.rest.part(ctx, hash, offset, size)
}

// Waiting are the IDs of the transactions in the mempool.
func (n *Node) Waiting(ctx context.Context) ([]chain.Hash, error) {
	var texts []string
	var err error
	if n.rest != nil {
		err = n.rest.waiting(ctx, &texts)
	} else {
		err = n.ask(ctx, &texts, "getrawmempool")
	}
	if err != nil {
		return nil, fmt.Errorf("ask the node for its mempool: %w", err)
	}
	ids := make([]chain.Hash, len(texts))
	for i, text := range texts {
		if ids[i], err = chain.ParseHash(text); err != nil {
			return nil, jsonrpc.Trouble(n.name, err)
		}
	}
	return ids, nil
}

// Entry is a transaction of the mempool.
type Entry struct {
	Tx    chain.Tx
	Fee   uint64 // satoshis
	VSize uint32 // virtual bytes
}

// MaxEntries is how many entries can be asked for at once. Eight transactions of 400,000 bytes,
// which is the most that nodes relay, fit into jsonrpc.MaxAnswer.
const MaxEntries = 8

// Entries returns transactions of the mempool. Those that have left it are missing.
func (n *Node) Entries(ctx context.Context, ids []chain.Hash) (entries []Entry, err error) {
	type answer struct {
		VSize uint32 `json:"vsize"`
		Fees  struct {
			Base float64 `json:"base"` // BTC
		} `json:"fees"`
	}
	answers, raws := make([]answer, len(ids)), make([]string, len(ids))
	var calls []*jsonrpc.Call
	var all map[string]struct {
		VSize uint32  `json:"vsize"`
		Fee   float64 `json:"fee"` // BTC
	}
	for i, id := range ids {
		calls = append(calls, &jsonrpc.Call{Method: "getrawtransaction", Params: []any{id.String()}, Into: &raws[i]})
		if n.rest != nil {
			calls = append(calls, &jsonrpc.Call{Method: "getmempoolentry", Params: []any{id.String()}, Into: &answers[i]})
		}
	}
	if n.rest == nil { // btcd has no getmempoolentry
		calls = append(calls, &jsonrpc.Call{Method: "getrawmempool", Params: []any{true}, Into: &all})
	}
	if err := n.rpc.Batch(ctx, calls...); err != nil {
		return nil, jsonrpc.Trouble(n.name, err)
	}
	for i, id := range ids {
		raw, err := hex.DecodeString(raws[i])
		if err != nil || len(raw) == 0 {
			continue
		}
		tx, err := chain.ParseTx(raw)
		if err != nil || tx.ID != id {
			continue
		}
		e := Entry{tx, satoshis(answers[i].Fees.Base), answers[i].VSize}
		if of, is := all[id.String()]; is {
			e.Fee, e.VSize = satoshis(of.Fee), of.VSize
		}
		if e.VSize > 0 {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// satoshis reads an amount in BTC.
func satoshis(btc float64) uint64 {
	const one = 1e8
	if !(btc > 0 && btc < 21e6) {
		return 0
	}
	return uint64(math.Round(btc * one))
}

// Broadcast hands a transaction to the network. If the node refuses it, the error is a
// *jsonrpc.Error.
func (n *Node) Broadcast(ctx context.Context, raw string) (id string, err error) {
	err = n.ask(ctx, &id, "sendrawtransaction", raw)
	return id, err
}

// Packages tells whether the node takes several transactions at once.
func (n *Node) Packages() bool { return n.rest != nil }

// Package is the node's answer to several transactions that belong together.
type Package struct {
	Message string `json:"package_msg"`
	Results map[string]struct {
		ID    string `json:"txid"`
		Error string `json:"error"`
	} `json:"tx-results"`
}

// BroadcastPackage hands several transactions to the network, parents first.
func (n *Node) BroadcastPackage(ctx context.Context, raws []string) (answer Package, err error) {
	if !n.Packages() {
		return answer, ErrNotOffered
	}
	err = n.ask(ctx, &answer, "submitpackage", raws)
	return answer, err
}

// Fee estimates what 1,000 virtual bytes cost to be in a block soon, in BTC; negative: the node
// cannot tell.
func (n *Node) Fee(ctx context.Context, blocks uint32) float64 {
	const unknown = -1
	if n.rest == nil {
		const most = 25 // btcd estimates no further
		rate := float64(unknown)
		if n.ask(ctx, &rate, "estimatefee", min(blocks, most)) != nil || rate <= 0 {
			return unknown
		}
		return rate
	}
	var estimate struct {
		Rate float64 `json:"feerate"`
	}
	if n.ask(ctx, &estimate, "estimatesmartfee", blocks) != nil || estimate.Rate <= 0 {
		return unknown
	}
	return estimate.Rate
}

// Mempool is what the node asks of transactions, in BTC for 1,000 virtual bytes.
type Mempool struct {
	Min              float64 `json:"mempoolminfee"`
	MinRelay         float64 `json:"minrelaytxfee"`
	IncrementalRelay float64 `json:"incrementalrelayfee"`
}

// Mempool asks for it. A node that does not tell has zeros.
func (n *Node) Mempool(ctx context.Context) (m Mempool) {
	if n.ask(ctx, &m, "getmempoolinfo") != nil {
		return Mempool{}
	}
	return m
}

// Decode has the node say what a transaction means, as JSON.
func (n *Node) Decode(ctx context.Context, raw []byte) (fields map[string]any, err error) {
	err = n.ask(ctx, &fields, "decoderawtransaction", hex.EncodeToString(raw))
	return fields, err
}

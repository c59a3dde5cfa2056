// Package core speaks to Bitcoin Core, versions 29 to 31, and to programs with its interface,
// such as Bitcoin Knots. It uses JSON-RPC on 127.0.0.1 with the cookie that Core writes at each
// start, and asks nothing but Methods: with Core's rpcwhitelist the cookie is good for nothing
// else.
package core

import (
	"context"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
)

// Program is what this node is called.
const Program = "Bitcoin Core"

// Methods are those that are asked, for rpcwhitelist.
var Methods = []string{"estimatesmartfee", "getblock", "getblockchaininfo", "getblockhash", "getmempoolinfo", "getnetworkinfo",
	"getpeerinfo"}

// WalletMethods are those that the server for wallets asks besides (internal/electrum).
var WalletMethods = []string{"decoderawtransaction", "getmempoolentry", "getrawtransaction", "sendrawtransaction", "submitpackage"}

// Config says where Core is.
type Config struct {
	// Address is that of its RPC: 127.0.0.1 and a port.
	Address string
	// Cookie is the path of its cookie.
	Cookie string
	// Network is the one that it must be on.
	Network basev1.Network
	// Post is jsonrpc.Config's.
	Post func(body []byte) ([]byte, error)
}

// Core is a node. It is safe for concurrent use.
type Core struct {
	*jsonrpc.Client
	network basev1.Network
}

// New returns the node at an address. It does not connect yet.
func New(config Config) (*Core, error) {
	rpc, err := jsonrpc.New(jsonrpc.Config{Address: config.Address, Credentials: config.Cookie, Post: config.Post})
	if err != nil {
		return nil, err
	}
	return &Core{rpc, config.Network}, nil
}

// networks has Core's names of networks.
var networks = map[string]basev1.Network{
	"main": basev1.Network_NETWORK_MAINNET, "testnet4": basev1.Network_NETWORK_TESTNET4, "signet": basev1.Network_NETWORK_SIGNET,
	"regtest": basev1.Network_NETWORK_REGTEST,
}

// feeTargets are the numbers of blocks for which fees are asked.
var feeTargets = []uint32{1, 3, 6, 24, 144}

// second is the unit of Core's pings.
const second = 1

// Look implements node.Node.
func (c *Core) Look(ctx context.Context) (*node.Look, error) {
	var chain jsonrpc.Chain
	var mempool jsonrpc.Mempool
	var peers []jsonrpc.Peer
	var network struct {
		Agent    string        `json:"subversion"`
		Warnings jsonrpc.Texts `json:"warnings"`
	}
	calls := []*jsonrpc.Call{
		{Method: "getblockchaininfo", Into: &chain}, {Method: "getnetworkinfo", Into: &network},
		{Method: "getmempoolinfo", Into: &mempool}, {Method: "getpeerinfo", Into: &peers},
	}
	needed := len(calls)
	estimates := make([]struct {
		Rate float64 `json:"feerate"` // BTC for 1,000 virtual bytes; absent: none yet
	}, len(feeTargets))
	for i, blocks := range feeTargets {
		calls = append(calls, &jsonrpc.Call{Method: "estimatesmartfee", Params: []any{blocks}, Into: &estimates[i]})
	}
	if err := c.Batch(ctx, calls...); err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	for _, call := range calls[:needed] {
		if call.Err != nil {
			return nil, jsonrpc.Trouble(Program, call.Err)
		}
	}
	n, err := chain.Node(networks)
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	if n.GetNetwork() != c.network {
		return nil, jsonrpc.OtherNetwork(Program, n.GetNetwork(), c.network)
	}
	headers, err := node.Height(chain.Headers)
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	size := node.Count(chain.SizeOnDisk)
	n.Headers, n.SizeBytes, n.BestBlockTime = &headers, &size, jsonrpc.Time(chain.Time)
	n.Software, n.Version = agent(network.Agent)
	n.Warnings = node.Warnings(append(chain.Warnings, network.Warnings...)...)
	mempool.Tell(n)
	look := &node.Look{Node: n, Syncing: chain.InitialSync, Progress: node.Share(chain.Progress)}
	var in, out uint32
	look.Peers, in, out = jsonrpc.Peers(peers, second)
	n.PeersIn, n.PeersOut = &in, &out
	rates := make([]float64, len(feeTargets))
	for i, e := range estimates {
		rates[i] = e.Rate
	}
	look.Fees = &basev1.GetFeesResponse{Offered: jsonrpc.Offers(calls[needed].Err), Fees: jsonrpc.Fees(feeTargets, rates)}
	return look, nil
}

// agent splits a user agent, such as /Satoshi:29.4.3/Knots:20260508/, into a program and its
// version.
func agent(text string) (software, version string) {
	parts := strings.Split(strings.Trim(node.Text(text), "/"), "/")
	version, known := strings.CutPrefix(parts[0], "Satoshi:")
	switch {
	case !known:
		return "a program like " + Program, parts[0]
	case len(parts) > 1:
		return Program + " (" + strings.Join(parts[1:], ", ") + ")", version
	}
	return Program, version
}

// Hashes implements node.Node.
func (c *Core) Hashes(ctx context.Context, heights []uint64) ([]string, error) {
	hashes, err := c.Client.Hashes(ctx, heights)
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	return hashes, nil
}

// Blocks implements node.Node.
func (c *Core) Blocks(ctx context.Context, hashes []string) ([]*basev1.Block, error) {
	blocks, err := c.Client.Blocks(ctx, hashes)
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	return blocks, nil
}

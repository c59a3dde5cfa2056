// Package btcd speaks to btcd, version 0.26 or newer: JSON-RPC over TLS on 127.0.0.1. The
// certificate is the one that btcd has made for itself, and no other.
//
// btcd serves networks for trying and testing (docs/decisions/0013-node.md). It differs from
// Core: each request is a new TLS connection, so that questions travel together; it has
// exactly as many headers as blocks; and it tells neither its size on the disk nor warnings.
package btcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"syscall"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
)

// Program is what this node is called.
const Program = "btcd"

// Config says where btcd is.
type Config struct {
	// Address is that of its RPC: 127.0.0.1 and a port.
	Address string
	// Credentials is the path of a file with the "user:password" that its configuration has.
	Credentials string
	// Certificate is the path of its certificate.
	Certificate string
	// Network is the one that it must be on.
	Network basev1.Network
	// Post is jsonrpc.Config's.
	Post func(body []byte) ([]byte, error)
}

// Btcd is a node. It is safe for concurrent use.
type Btcd struct {
	*jsonrpc.Client
	network basev1.Network
}

// New returns the node at an address. It does not connect yet.
func New(config Config) (*Btcd, error) {
	rpc, err := jsonrpc.New(jsonrpc.Config{Address: config.Address, Credentials: config.Credentials, Post: config.Post,
		TLS: pinned(config.Certificate)})
	if err != nil {
		return nil, err
	}
	return &Btcd{rpc, config.Network}, nil
}

// pinned checks that the other side has the certificate in a file.
func pinned(path string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The certificate is compared with the file, byte for byte. Names and times say
		// nothing more.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return jsonrpc.ErrCertificate
			}
			own, err := readCertificate(path)
			if err != nil || !bytes.Equal(own, state.PeerCertificates[0].Raw) {
				return jsonrpc.ErrCertificate
			}
			return nil
		},
	}
}

// maxCertificate is the longest file of a certificate in bytes; btcd's has 932.
const maxCertificate = 16 << 10

// readCertificate reads the first certificate of a file. The file is btcd's, so it may be
// anything.
func readCertificate(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b, err := io.ReadAll(io.LimitReader(file, maxCertificate))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return block.Bytes, nil
}

// networks has btcd's names of networks.
var networks = map[string]basev1.Network{
	"mainnet": basev1.Network_NETWORK_MAINNET, "testnet4": basev1.Network_NETWORK_TESTNET4, "signet": basev1.Network_NETWORK_SIGNET,
	"regtest": basev1.Network_NETWORK_REGTEST, "simnet": basev1.Network_NETWORK_SIMNET,
}

// feeTargets are the numbers of blocks for which fees are asked. btcd estimates for up to 25.
var feeTargets = []uint32{1, 3, 6, 24}

// second is the unit of btcd's pings: microseconds.
const second = 1e6

// Look implements node.Node.
func (b *Btcd) Look(ctx context.Context) (*node.Look, error) {
	var chain jsonrpc.Chain
	var mempool jsonrpc.Mempool
	var peers []jsonrpc.Peer
	var info struct {
		Version int64 `json:"version"`
	}
	calls := []*jsonrpc.Call{
		{Method: "getblockchaininfo", Into: &chain}, {Method: "getinfo", Into: &info},
		{Method: "getmempoolinfo", Into: &mempool}, {Method: "getpeerinfo", Into: &peers},
	}
	needed := len(calls)
	rates := make([]float64, len(feeTargets)) // BTC for 1,000 bytes
	for i, blocks := range feeTargets {
		calls = append(calls, &jsonrpc.Call{Method: "estimatefee", Params: []any{blocks}, Into: &rates[i]})
	}
	if err := b.Batch(ctx, calls...); err != nil {
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
	if n.GetNetwork() != b.network {
		return nil, jsonrpc.OtherNetwork(Program, n.GetNetwork(), b.network)
	}
	// The time of the best block is nowhere but in the block.
	best, err := b.Client.Blocks(ctx, []string{chain.Best})
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	n.BestBlockTime = best[0].GetTime()
	n.Software, n.Version = Program, version(info.Version)
	mempool.Tell(n)
	look := &node.Look{Node: n, Progress: -1}
	var in, out uint32
	look.Peers, in, out = jsonrpc.Peers(peers, second)
	n.PeersIn, n.PeersOut = &in, &out
	look.Fees = &basev1.GetFeesResponse{Offered: jsonrpc.Offers(calls[needed].Err), Fees: jsonrpc.Fees(feeTargets, rates)}
	return look, nil
}

// version writes a version, which btcd tells as a number: 260200 is 0.26.2.
func version(number int64) string {
	return fmt.Sprintf("%d.%d.%d", number/1_000_000, number/10_000%100, number/100%100)
}

// Hashes implements node.Node.
func (b *Btcd) Hashes(ctx context.Context, heights []uint64) ([]string, error) {
	hashes, err := b.Client.Hashes(ctx, heights)
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	return hashes, nil
}

// Blocks implements node.Node.
func (b *Btcd) Blocks(ctx context.Context, hashes []string) ([]*basev1.Block, error) {
	blocks, err := b.Client.Blocks(ctx, hashes)
	if err != nil {
		return nil, jsonrpc.Trouble(Program, err)
	}
	return blocks, nil
}

// Generate makes blocks, on a network where that is possible. The time of a block is at least
// one second after the one before, so many at once run ahead of the clock.
func (b *Btcd) Generate(ctx context.Context, blocks uint32) error {
	var hashes []string
	call := &jsonrpc.Call{Method: "generate", Params: []any{blocks}, Into: &hashes}
	if err := b.Batch(ctx, call); err != nil {
		return jsonrpc.Trouble(Program, err)
	}
	if call.Err != nil {
		return jsonrpc.Trouble(Program, call.Err)
	}
	return nil
}

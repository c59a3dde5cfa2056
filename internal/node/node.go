// Package node watches the Bitcoin node of a Base, whichever program that is, and tells the
// Middleware of it over a unix socket.
//
//   - [Node] is the one interface to a node. internal/node/core speaks to Bitcoin Core,
//     internal/node/btcd to btcd.
//   - [Watcher] asks a node every few seconds, and remembers the answers. A question to the
//     watcher makes no work for the node.
//   - What follows from the answers is pure: how far the node is ([judge]), how its chain has
//     changed ([chain]), and which events that makes ([monitor]).
//   - [Server] answers the Middleware (api/node/v1).
//
// A node is a guest. Its answers, and those of its peers, are bounded and made printable before
// anything else sees them. They decide about nothing but the display.
package node

import (
	"context"
	"encoding/hex"
	"math"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Node is a Bitcoin node. Its methods return a *Trouble if the node cannot be asked, or if its
// answer is impossible. A figure that a node does not offer is left out, and is no error.
type Node interface {
	// Look asks how the node is.
	Look(ctx context.Context) (*Look, error)
	// Hashes returns the hash of the best chain's block at each of the heights. There are at
	// most MaxHashes of them, and none is above the height that Look has told; a chain that
	// has become shorter since then is an error.
	Hashes(ctx context.Context, heights []uint64) ([]string, error)
	// Blocks describes the blocks with these hashes, at most MaxBlocks.
	Blocks(ctx context.Context, hashes []string) ([]*basev1.Block, error)
}

// Bounds of one question.
const (
	MaxHashes = 256
	// MaxBlocks is 4: a node lists the transactions of each block, 4 MiB of them at most
	// 1.1 MB of text, and jsonrpc.MaxAnswer must hold them.
	MaxBlocks = 4
)

// Look is what a node has said in one answer.
type Look struct {
	// Node has what the node says of itself. State, target, progress and estimates are left
	// out: they are judged by what it says.
	Node *basev1.Node
	// Syncing: the node itself says that it is still catching up.
	Syncing bool
	// Progress is the node's own, from 0 to 1; negative: it offers none.
	Progress float64
	Peers    []*basev1.Peer
	Fees     *basev1.GetFeesResponse
}

// Bounds of what is taken from a node. More peers than it may have, or longer texts than people
// read, are left out.
const (
	MaxPeers    = 256
	MaxWarnings = 8
	maxText     = 200 // bytes
	// maxHeight is 20 times the height of today's chain: a height above it is a lie, and sums of two
	// heights do not overflow.
	maxHeight = 20_000_000
)

// Trouble says why a node cannot be asked.
type Trouble struct {
	// Starting: it answers, and says that it cannot do more yet.
	Starting bool
	// Text is a sentence for an owner, without a full stop. Nothing in it is secret.
	Text string
	// Cause is for the log; it may be nil.
	Cause error
}

// Error returns the sentence.
func (t *Trouble) Error() string { return t.Text }

// Unwrap returns the cause.
func (t *Trouble) Unwrap() error { return t.Cause }

// Text makes text of a node, or of its peers, fit to be shown: one line of at most 200 bytes.
func Text(text string) string { return harmless.Cut(harmless.Line(text), maxText) }

// Height checks a height that a node has told.
func Height(height int64) (uint64, error) {
	if height < 0 || height > maxHeight {
		return 0, reason.Errorf("the node told the height %d, which no chain has", height)
	}
	return uint64(height), nil
}

// Hash checks a hash that a node has told.
func Hash(hash string) error {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 {
		return reason.New("the node told a hash that is not 64 hexadecimal digits")
	}
	return nil
}

// Count checks a number of things, or of bytes, that a node has told.
func Count(count int64) uint64 { return uint64(max(0, count)) }

// Share checks a share that a node has told, and returns it between 0 and 1.
func Share(share float64) float64 {
	if math.IsNaN(share) {
		return 0
	}
	return min(1, max(0, share))
}

// Warnings takes what a node warns of.
func Warnings(texts ...string) (warnings []string) {
	for _, text := range texts {
		if text = Text(text); text != "" && len(warnings) < MaxWarnings {
			warnings = append(warnings, text)
		}
	}
	return warnings
}

// NetworkName is how this project calls a network.
func NetworkName(network basev1.Network) string {
	for name, n := range networks {
		if n == network {
			return name
		}
	}
	return "an unknown network"
}

// ParseNetwork finds a network by its name.
func ParseNetwork(name string) (basev1.Network, error) {
	if n, ok := networks[name]; ok {
		return n, nil
	}
	return 0, reason.Errorf("there is no network %q; it is one of mainnet, testnet4, signet, regtest, simnet", harmless.Word(name))
}

var networks = map[string]basev1.Network{
	"mainnet": basev1.Network_NETWORK_MAINNET, "testnet4": basev1.Network_NETWORK_TESTNET4, "signet": basev1.Network_NETWORK_SIGNET,
	"regtest": basev1.Network_NETWORK_REGTEST, "simnet": basev1.Network_NETWORK_SIMNET,
}

// MadeAtWill tells whether the people who run a network make its blocks at will, so that neither their
// age nor a lack of peers says anything.
func MadeAtWill(network basev1.Network) bool {
	return network == basev1.Network_NETWORK_REGTEST || network == basev1.Network_NETWORK_SIMNET
}

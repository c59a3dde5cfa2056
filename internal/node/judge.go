package node

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

const (
	// blocksBehind is how many blocks a node may lack for a moment: they are on their way.
	blocksBehind = 6
	// oldBlock is the age of the best block at which a node of a public network is behind. With a block
	// each 10 minutes on average, a pause of 3 hours comes once in about 1,200 years.
	oldBlock = 3 * time.Hour
)

// target returns the height that a node is on its way to. headers are worth what their work has
// cost, but btcd has no more of them than blocks: there the peers have to say. The node has chosen
// its outbound peers, so they count, and the inbound ones only if there are no others; the median
// counts, so that one liar among them changes nothing.
func target(l *Look) uint64 {
	height := max(l.Node.GetHeight(), l.Node.GetHeaders())
	if l.Node.GetHeaders() > l.Node.GetHeight() {
		return height
	}
	for _, inbound := range []bool{false, true} {
		var heights []uint64
		for _, p := range l.Peers {
			if p.Height != nil && p.GetInbound() == inbound {
				heights = append(heights, p.GetHeight())
			}
		}
		if len(heights) > 0 {
			slices.Sort(heights)
			return max(height, heights[(len(heights)-1)/2])
		}
	}
	return height
}

// judge adds to what a node has said what follows from it.
func judge(l *Look, now time.Time) *basev1.Node {
	n := proto.CloneOf(l.Node)
	n.Target = target(l)
	n.State = basev1.Node_STATE_CURRENT
	old := !MadeAtWill(n.GetNetwork()) && now.Sub(n.GetBestBlockTime().AsTime()) > oldBlock
	// A network that is made says of itself that it syncs until its first new block.
	if n.GetTarget() > n.GetHeight()+blocksBehind || old || l.Syncing && !MadeAtWill(n.GetNetwork()) {
		n.State = basev1.Node_STATE_BEHIND
	}
	switch {
	case n.GetState() == basev1.Node_STATE_CURRENT:
		n.Progress = 1
	case l.Progress >= 0:
		n.Progress = l.Progress
	case n.GetTarget() > 0:
		n.Progress = float64(n.GetHeight()) / float64(n.GetTarget())
	}
	n.Unmaintained = unmaintained(n.GetSoftware(), n.GetVersion(), now)
	return n
}

package words

import (
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

// NotOffered stands for what a node does not tell.
const NotOffered = "not offered by this node"

// NodeState says how a node is, such as "up to date".
func NodeState(n *basev1.Node) string {
	switch n.GetState() {
	case basev1.Node_STATE_NONE, basev1.Node_STATE_NOT_INSTALLED:
		return "none"
	case basev1.Node_STATE_STOPPED:
		return "stopped"
	case basev1.Node_STATE_STARTING:
		return "starting"
	case basev1.Node_STATE_BEHIND:
		return "catching up"
	case basev1.Node_STATE_CURRENT:
		return "up to date"
	}
	return "unknown"
}

// HasNode tells whether there is a node that can say something.
func HasNode(n *basev1.Node) bool {
	return n != nil && n.GetState() != basev1.Node_STATE_NONE && n.GetState() != basev1.Node_STATE_NOT_INSTALLED
}

// Network names a network, such as "mainnet".
func Network(network basev1.Network) string {
	if network == basev1.Network_NETWORK_UNSPECIFIED {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(network.String(), "NETWORK_"))
}

// Node says in one line how a node is.
func Node(n *basev1.Node) string {
	switch {
	case n.GetReason() != "":
		return n.GetReason()
	case n.GetState() == basev1.Node_STATE_BEHIND:
		return fmt.Sprintf("%s, block %d, catching up: %s", Network(n.GetNetwork()), n.GetHeight(), Progress(n))
	}
	return fmt.Sprintf("%s, block %d, %s", Network(n.GetNetwork()), n.GetHeight(), NodeState(n))
}

// Progress says how far a node is, and how long the rest takes.
func Progress(n *basev1.Node) string {
	if n.GetState() == basev1.Node_STATE_CURRENT {
		return "100 %"
	}
	// Never 100 before it is there.
	const tenths = 1000
	text := fmt.Sprintf("%.1f %%", float64(min(tenths-1, int(n.GetProgress()*tenths)))/10)
	if n.LeftSeconds != nil {
		return text + ", about " + Duration(n.GetLeftSeconds()) + " left"
	}
	return text
}

// NodeReach says where the signed posture of a Base lets its node go; empty without a posture.
func NodeReach(view *client.PostureView) string {
	if view == nil {
		return ""
	}
	return nodeReach(client.LetsOut(view, client.NodeInternet), client.LetsOut(view, client.NodeHome))
}

func nodeReach(internet, home bool) string {
	switch {
	case internet && home:
		return "the node may reach it, and your home"
	case internet:
		return "the node may reach it, but not your home"
	case home:
		return "the node may reach your home only"
	}
	return "the node may not reach it ('bitbox-app node online' lets it)"
}

// NodeRows are the rows of a table about a node: a name, and what it is. reach is of NodeReach.
func NodeRows(n *basev1.Node, reach string, now time.Time) (rows [][2]string) {
	add := func(name, text string) { rows = append(rows, [2]string{name, text}) }
	state := NodeState(n)
	if n.GetReason() != "" {
		state += ": " + n.GetReason()
	}
	add("State", state)
	if HasNode(n) && reach != "" {
		add("Internet", reach)
	}
	if !HasNode(n) || n.GetAskedAt() == nil {
		return rows
	}
	if n.GetState() == basev1.Node_STATE_STOPPED || n.GetState() == basev1.Node_STATE_STARTING {
		add("As of", When(n.GetAskedAt().AsTime(), now))
	}
	add("Network", Network(n.GetNetwork()))
	software := n.GetSoftware() + " " + n.GetVersion()
	if n.GetUnmaintained() {
		software += " (no longer gets fixes; update it)"
	}
	add("Software", software)
	height := fmt.Sprint(n.GetHeight())
	if at := n.GetBestBlockTime(); at != nil {
		height += fmt.Sprintf(" (%s)", When(at.AsTime(), now))
	}
	add("Height", height)
	add("Headers", offered(n.Headers != nil, fmt.Sprint(n.GetHeaders())))
	add("Progress", Progress(n))
	add("Peers", offered(n.PeersIn != nil && n.PeersOut != nil, fmt.Sprintf("%d in, %d out", n.GetPeersIn(), n.GetPeersOut())))
	add("Mempool", offered(n.MempoolTransactions != nil && n.MempoolBytes != nil,
		fmt.Sprintf("%d transactions, %s", n.GetMempoolTransactions(), Size(n.GetMempoolBytes()))))
	add("On disk", offered(n.SizeBytes != nil, Size(n.GetSizeBytes())))
	if n.DiskTotalBytes != nil && n.DiskAvailableBytes != nil {
		disk := Free(n.GetDiskAvailableBytes(), n.GetDiskTotalBytes())
		if n.DiskFullSeconds != nil {
			disk += ", full in about " + Duration(n.GetDiskFullSeconds())
		}
		add("Disk", disk)
	}
	pruned := "no"
	if n.GetPruned() {
		pruned = "yes, old blocks are deleted"
	}
	add("Pruned", offered(n.Pruned != nil, pruned))
	if n.WalletServer != nil {
		add("Wallets", WalletServer(n.GetWalletServer()))
	}
	for _, warning := range n.GetWarnings() {
		add("Warning", warning)
	}
	return rows
}

// WalletServer says how far the server for wallets is.
func WalletServer(s *basev1.WalletServer) string {
	if s.GetReady() {
		return "ready"
	}
	text := "not ready"
	if s.GetTarget() > 0 {
		text += fmt.Sprintf(", block %d of %d is in its index", s.GetHeight(), s.GetTarget())
	}
	if s.GetRebuilt() {
		text += ", which was damaged and is made again"
	}
	if s.GetReason() != "" {
		text += ": " + s.GetReason()
	}
	return text
}

func offered(is bool, text string) string {
	if is {
		return text
	}
	return NotOffered
}

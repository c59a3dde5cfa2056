package words

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

// nodeStates are the keys of the states of a node.
var nodeStates = map[basev1.Node_State]string{
	basev1.Node_STATE_NONE:          "values.node.none",
	basev1.Node_STATE_NOT_INSTALLED: "values.node.none",
	basev1.Node_STATE_STOPPED:       "values.node.stopped",
	basev1.Node_STATE_STARTING:      "values.node.starting",
	basev1.Node_STATE_BEHIND:        "values.node.behind",
	basev1.Node_STATE_CURRENT:       "values.node.current",
}

// NodeState says how a node is, such as "up to date".
func (l Language) NodeState(n *basev1.Node) string { return l.nodeState(n.GetState()) }

func (l Language) nodeState(state basev1.Node_State) string {
	if key, known := nodeStates[state]; known {
		return l.Say(key)
	}
	return l.Say("values.unknown")
}

// HasNode tells whether there is a node that can say something.
func HasNode(n *basev1.Node) bool {
	return n != nil && n.GetState() != basev1.Node_STATE_NONE && n.GetState() != basev1.Node_STATE_NOT_INSTALLED
}

// Network names a network, such as "mainnet".
func (l Language) Network(network basev1.Network) string {
	if network == basev1.Network_NETWORK_UNSPECIFIED {
		return l.Say("values.unknown")
	}
	return strings.ToLower(strings.TrimPrefix(network.String(), "NETWORK_"))
}

// Node says in one line how a node is.
func (l Language) Node(n *basev1.Node) string {
	switch {
	case n.GetReason() != "":
		return l.Cited(n.GetReason())
	case n.GetState() == basev1.Node_STATE_BEHIND:
		return l.Say("values.node.line", l.Network(n.GetNetwork()), n.GetHeight(), l.NodeState(n)+": "+l.Progress(n))
	}
	return l.Say("values.node.line", l.Network(n.GetNetwork()), n.GetHeight(), l.NodeState(n))
}

// Progress says how far a node is, and how long the rest takes.
func (l Language) Progress(n *basev1.Node) string {
	if n.GetState() == basev1.Node_STATE_CURRENT {
		return "100 %"
	}
	// Never 100 before it is there.
	const tenths = 1000
	done := l.Decimal(float64(min(tenths-1, int(n.GetProgress()*tenths)))/10, 1)
	if n.LeftSeconds != nil {
		return l.Say("values.progress.left", done, l.Duration(n.GetLeftSeconds()))
	}
	return l.Say("values.progress", done)
}

// NodeReach says where the signed posture of a Base lets its node go; empty without a posture.
func (l Language) NodeReach(view *client.PostureView) string {
	if view == nil {
		return ""
	}
	return l.nodeReach(client.LetsOut(view, client.NodeInternet), client.LetsOut(view, client.NodeHome))
}

func (l Language) nodeReach(internet, home bool) string {
	switch {
	case internet && home:
		return l.Say("values.reach.both")
	case internet:
		return l.Say("values.reach.internet")
	case home:
		return l.Say("values.reach.home")
	}
	return l.Say("values.reach.none")
}

// Plainly writes a number in digits alone, for terminals and scripts.
func Plainly(n uint64) string { return strconv.FormatUint(n, 10) }

// Grouped writes a number with a narrow space after each three digits.
func Grouped(n uint64) string {
	digits := Plainly(n)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "\u202f" + digits[at:]
	}
	return digits
}

// NodeRows are the rows of a table about a node: a name, and what it is. reach is of NodeReach, and
// number writes a height or a count.
func (l Language) NodeRows(n *basev1.Node, reach string, now time.Time, number func(uint64) string) (rows [][2]string) {
	add := func(name, text string) { rows = append(rows, [2]string{l.Say("values.row." + name), text}) }
	offered := func(name string, is bool, text string) {
		if !is {
			text = l.Say("values.notoffered")
		}
		add(name, text)
	}
	state := l.NodeState(n)
	if n.GetReason() != "" {
		state += ": " + l.Cited(n.GetReason())
	}
	add("state", state)
	if HasNode(n) && reach != "" {
		add("internet", reach)
	}
	if !HasNode(n) || n.GetAskedAt() == nil {
		return rows
	}
	if n.GetState() == basev1.Node_STATE_STOPPED || n.GetState() == basev1.Node_STATE_STARTING {
		add("asof", l.When(n.GetAskedAt().AsTime(), now))
	}
	add("network", l.Network(n.GetNetwork()))
	software := n.GetSoftware() + " " + n.GetVersion()
	if n.GetUnmaintained() {
		software = l.Say("values.unmaintained", software)
	}
	add("software", software)
	height := number(n.GetHeight())
	if at := n.GetBestBlockTime(); at != nil {
		height += fmt.Sprintf(" (%s)", l.When(at.AsTime(), now))
	}
	add("height", height)
	offered("headers", n.Headers != nil, number(n.GetHeaders()))
	add("progress", l.Progress(n))
	offered("peers", n.PeersIn != nil && n.PeersOut != nil, l.Say("values.peers", n.GetPeersIn(), n.GetPeersOut()))
	offered("mempool", n.MempoolTransactions != nil && n.MempoolBytes != nil,
		l.Say("values.mempool", number(n.GetMempoolTransactions()), l.Size(n.GetMempoolBytes())))
	offered("ondisk", n.SizeBytes != nil, l.Size(n.GetSizeBytes()))
	if n.DiskTotalBytes != nil && n.DiskAvailableBytes != nil {
		disk := l.Free(n.GetDiskAvailableBytes(), n.GetDiskTotalBytes())
		if n.DiskFullSeconds != nil {
			disk = l.Say("values.full", disk, l.Duration(n.GetDiskFullSeconds()))
		}
		add("disk", disk)
	}
	pruned := "values.pruned.no"
	if n.GetPruned() {
		pruned = "values.pruned.yes"
	}
	offered("pruned", n.Pruned != nil, l.Say(pruned))
	if n.WalletServer != nil {
		add("wallets", l.walletServer(n.GetWalletServer(), number))
	}
	for _, warning := range n.GetWarnings() {
		add("warning", warning)
	}
	return rows
}

// walletServer says how far the server for wallets is.
func (l Language) walletServer(s *basev1.WalletServer, number func(uint64) string) string {
	if s.GetReady() {
		return l.Say("values.server.ready")
	}
	text := l.Say("values.server.notready")
	if s.GetTarget() > 0 {
		text = l.Say("values.server.index", text, number(uint64(s.GetHeight())), number(uint64(s.GetTarget())))
	}
	if s.GetRebuilt() {
		text = l.Say("values.server.rebuilt", text)
	}
	if s.GetReason() != "" {
		text += ": " + l.Cited(s.GetReason())
	}
	return text
}

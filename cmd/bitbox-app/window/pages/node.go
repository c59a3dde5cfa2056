package pages

import (
	"fmt"
	"html/template"
	"slices"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/picture"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// nodeService is the name of the node among the services.
const nodeService = "bitcoin"

// maxPeers is how many peers a page lists.
const maxPeers = 64

// nodeView is the Bitcoin node.
type nodeView struct {
	// Has: there is a node that can tell something; otherwise None says why not.
	Has          bool
	None         string
	State, Class string
	Reason       words.Text
	Ring         template.HTML
	Warnings     []string
	Facts        []fact
	// Reach says where the signed posture lets the node go.
	Reach                 []string
	ReachButtons, Restart []button
	Peers                 table
	NoPeers               string
}

// nodeClasses are the colours of the states.
var nodeClasses = map[basev1.Node_State]string{
	basev1.Node_STATE_CURRENT: "good", basev1.Node_STATE_BEHIND: "warn", basev1.Node_STATE_STARTING: "warn", basev1.Node_STATE_STOPPED: "bad",
}

// nodePage is the Bitcoin node, and how a wallet connects to it.
func (v *view) nodePage() []Part {
	shown := v.bitcoin()
	parts := []Part{v.heading(v.say("node.title"), v.say("node.lead")), v.part("node.now", "wide", shown), v.part("node.facts", "", shown),
		v.part("node.reach", "", shown), v.part("node.wallet", "wide", v.wallet())}
	if v.owns() && v.base.Look.Access != nil && !v.wallet().Open {
		parts = append(parts, v.form("node.open", "wide", v.walletForm()))
	}
	parts = append(parts, v.part("node.peers", "wide", shown), v.part("node.settings", "wide", v.nodeSettings()))
	if !v.owns() || v.answered(owner.NodeSettings, "").NodeSettings == nil {
		return parts
	}
	parts = append(parts, v.form("node.change", "wide", v.nodeForm()), v.form("node.core", "", v.do(owner.InstallCore)))
	if shown.Has {
		parts = append(parts, v.part("node.rebuild", "", v.rebuild()))
	}
	return parts
}

// rebuild offers what the node can do of making the chain again.
func (v *view) rebuild() (shown struct {
	Note    string
	Buttons []button
}) {
	kinds := []owner.DeedKind{owner.Reindex, owner.Resync}
	shown.Note = v.say("node.rebuild.note")
	if owner.CheckRebuild(v.base.Look.Node, false) != nil {
		kinds, shown.Note = kinds[1:], v.say("node.rebuild.download")
	}
	for _, kind := range kinds {
		shown.Buttons = append(shown.Buttons, button{Action: v.do(kind), Text: v.say("deed.title." + kind.String()), Class: "danger"})
	}
	return shown
}

func nodeWants(*view) []owner.Want {
	return []owner.Want{{Part: owner.Peers}, {Part: owner.Wallets, Subject: owner.WalletKind}, {Part: owner.NodeSettings}}
}

// bitcoin is the node as it is now.
func (v *view) bitcoin() nodeView {
	n := v.base.Look.Node
	if !words.HasNode(n) {
		none := "node.none"
		if n == nil {
			none = "node.unknown"
		}
		return nodeView{None: v.say(none)}
	}
	shown := nodeView{Has: true, State: v.say("node.state", v.language.NodeState(n)), Class: nodeClasses[n.GetState()],
		Reason: v.language.ByBase(n.GetReason()), Warnings: n.GetWarnings()}
	if n.GetAskedAt() != nil {
		percent := fmt.Sprintf("%.0f %%", 100*min(max(n.GetProgress(), 0), 1))
		shown.Ring = picture.Ring(picture.Words{Title: v.say("node.picture", percent)}, n.GetProgress(), percent)
		shown.Facts = v.nodeFacts(n)
	}
	if access := v.base.Look.Access; access != nil {
		shown.reach(v, access.Internet)
	}
	for _, s := range v.base.Look.Services {
		if s.GetName() == nodeService && v.operates() && slices.Contains(s.GetActions(), basev1.ServiceAction_SERVICE_ACTION_RESTART) {
			shown.Restart = []button{{Action: v.do(owner.RestartService), Fields: []fact{{"service", nodeService}}, Text: v.say("node.restart")}}
		}
	}
	peers := v.answered(owner.Peers, "")
	shown.Peers, shown.NoPeers = v.peersTable(peers.Peers.GetPeers()), v.say("node.peers.none")
	if peers.At.IsZero() {
		shown.NoPeers = v.say("node.peers.wait")
	}
	return shown
}

// nodeFacts are what the node tells of itself, without its state and its warnings.
func (v *view) nodeFacts(n *basev1.Node) (facts []fact) {
	rows := v.language.NodeRows(n, "", v.now, words.Grouped)
	for _, row := range rows[1 : len(rows)-len(n.GetWarnings())] {
		facts = append(facts, fact{row[0], row[1]})
	}
	return facts
}

// reach says where the node may go, and offers an owner to change that.
func (shown *nodeView) reach(v *view, egress []string) {
	internet, home := slices.Contains(egress, client.NodeInternet), slices.Contains(egress, client.NodeHome)
	for _, to := range []struct {
		is        bool
		on, off   string
		let, keep string
		service   string
	}{
		{internet, "node.internet.on", "node.internet.off", "node.online", "node.offline", client.NodeInternet},
		{home, "node.home.on", "node.home.off", "node.home.let", "node.home.keep", client.NodeHome},
	} {
		state, change, deed := to.off, to.let, owner.NodeOnline
		if to.is {
			state, change, deed = to.on, to.keep, owner.NodeOffline
		}
		shown.Reach = append(shown.Reach, v.say(state))
		if v.owns() {
			shown.ReachButtons = append(shown.ReachButtons, button{Action: v.do(deed), Fields: []fact{{"service", to.service}}, Text: v.say(change)})
		}
	}
}

// peersTable lists peers.
func (v *view) peersTable(peers []*basev1.Peer) table {
	t := table{Caption: v.say("node.peers.caption"), Head: v.says(
		"node.peer.address", "node.peer.direction", "node.peer.height", "node.peer.since",
		"node.peer.received", "node.peer.sent", "node.peer.ping", "node.peer.software")}
	for _, p := range peers[:min(len(peers), maxPeers)] {
		direction, height, since, ping := "node.peer.out", "", "", ""
		if p.GetInbound() {
			direction = "node.peer.in"
		}
		if p.Height != nil {
			height = words.Grouped(p.GetHeight())
		}
		if p.GetConnectedAt() != nil {
			since = v.language.When(p.GetConnectedAt().AsTime(), v.now)
		}
		if p.PingMs != nil {
			ping = fmt.Sprintf("%.0f ms", p.GetPingMs())
		}
		t.Rows = append(t.Rows, []string{p.GetAddress(), v.say(direction), height, since, v.language.Size(p.GetReceivedBytes()),
			v.language.Size(p.GetSentBytes()), ping, p.GetSoftware()})
	}
	if more := len(peers) - maxPeers; more > 0 {
		t.More = v.say("node.peers.more", more)
	}
	return t
}

// nodeSettingsView is which node the Base runs.
type nodeSettingsView struct {
	Known bool
	Notes []string
	Facts []fact
}

// nodeForm is the form of the settings of the node. An empty field changes nothing.
type nodeForm struct {
	Action             string
	Programs, Networks []choice
}

func (v *view) nodeForm() nodeForm {
	stays := choice{Text: v.say("node.stays")}
	f := nodeForm{Action: v.do(owner.ChangeNode), Networks: []choice{stays},
		Programs: []choice{stays, {Value: "core", Text: "Bitcoin Core"}, {Value: "btcd", Text: "btcd"}}}
	for _, network := range []basev1.Network{basev1.Network_NETWORK_MAINNET, basev1.Network_NETWORK_TESTNET4, basev1.Network_NETWORK_SIGNET,
		basev1.Network_NETWORK_REGTEST, basev1.Network_NETWORK_SIMNET} {
		typed := strings.ToLower(strings.TrimPrefix(network.String(), "NETWORK_"))
		f.Networks = append(f.Networks, choice{Value: typed, Text: v.language.Network(network)})
	}
	return f
}

// nodePrograms are the names of the programs.
var nodePrograms = map[basev1.NodeSettings_Program]string{
	basev1.NodeSettings_PROGRAM_CORE: "Bitcoin Core", basev1.NodeSettings_PROGRAM_BTCD: "btcd",
}

func (v *view) nodeSettings() nodeSettingsView {
	answer := v.answered(owner.NodeSettings, "").NodeSettings
	s := answer.GetSettings()
	if s == nil {
		return nodeSettingsView{}
	}
	from := "node.settings.builder"
	if answer.GetSigned() {
		from = "node.settings.signed"
	}
	shown := nodeSettingsView{Known: true, Notes: v.says(from)}
	if answer.GetHasOwnLines() {
		shown.Notes = append(shown.Notes, v.say("node.settings.own"))
	}
	blocks := v.say("node.prune.off")
	if s.GetPruneGb() > 0 {
		blocks = v.say("node.prune.on", s.GetPruneGb())
	}
	shown.Facts = []fact{
		{v.say("node.program"), nodePrograms[s.GetProgram()]}, {v.say("node.network"), v.language.Network(s.GetNetwork())},
		{v.say("node.pruned"), blocks}, {v.say("node.cache"), fmt.Sprintf("%d MiB", s.GetCacheMib())},
	}
	return shown
}

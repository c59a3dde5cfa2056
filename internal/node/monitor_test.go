package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// kinds says in short what was told.
func kinds(events []*basev1.Event) string {
	var all []string
	for _, event := range events {
		switch e := event.GetEvent().(type) {
		case *basev1.Event_NodeStopped:
			all = append(all, "stopped: "+e.NodeStopped.GetReason())
		case *basev1.Event_NodeBehind:
			b := e.NodeBehind
			all = append(all, fmt.Sprintf("behind %d of %d, lost %d", b.GetHeight(), b.GetTarget(), b.GetLostBlocks()))
		case *basev1.Event_NodeCaughtUp:
			all = append(all, fmt.Sprint("caught up ", e.NodeCaughtUp.GetHeight()))
		case *basev1.Event_NodeLonely:
			all = append(all, fmt.Sprint("lonely ", e.NodeLonely.GetMinutes()))
		case *basev1.Event_ChainReorganised:
			all = append(all, fmt.Sprint("reorganised ", e.ChainReorganised.GetDepth()))
		case *basev1.Event_NodeDiskFilling:
			all = append(all, "filling")
		case *basev1.Event_NodeUnmaintained:
			all = append(all, "unmaintained "+e.NodeUnmaintained.GetVersion())
		default:
			all = append(all, "something else")
		}
	}
	return strings.Join(all, "; ")
}

func TestEachThingThatHappensToANodeIsToldOnce(t *testing.T) {
	type look struct {
		at      time.Duration
		node    func(n *basev1.Node)
		changed change
		want    string
	}
	state := func(s basev1.Node_State) func(*basev1.Node) {
		return func(n *basev1.Node) { n.State, n.Reason = s, "why" }
	}
	well := state(basev1.Node_STATE_CURRENT)
	stopped, starting, behind := state(basev1.Node_STATE_STOPPED), state(basev1.Node_STATE_STARTING), state(basev1.Node_STATE_BEHIND)
	alone := func(n *basev1.Node) { none := uint32(0); n.PeersIn, n.PeersOut = &none, &none }
	full := func(days uint64) func(*basev1.Node) {
		return func(n *basev1.Node) { seconds := days * 86400; n.DiskFullSeconds = &seconds }
	}
	at := func(height uint64) func(*basev1.Node) {
		return func(n *basev1.Node) { n.Height, n.Target = height, height }
	}
	const minute, day = time.Minute, 24 * time.Hour
	for what, looks := range map[string][]look{
		"stops and comes back": {{0, well, change{}, ""}, {minute, stopped, change{}, ""}, {2 * minute, stopped, change{}, "stopped: why"},
			{9 * minute, stopped, change{}, ""}, {10 * minute, starting, change{}, ""}, {11 * minute, well, change{}, "caught up 1000"}},
		"is restarted":   {{0, well, change{}, ""}, {minute, stopped, change{}, ""}, {minute + minute/2, well, change{}, ""}},
		"its first days": {{0, behind, change{}, ""}, {day, behind, change{}, ""}, {2 * day, well, change{}, "caught up 1000"}},
		"was well and is not": {{0, well, change{}, ""}, {minute, behind, change{}, "behind 1000 of 1000, lost 0"},
			{2 * minute, behind, change{}, ""},
			{3 * minute, well, change{}, "caught up 1000"}, {4 * minute, behind, change{}, "behind 1000 of 1000, lost 0"}},
		"lost 50 blocks when it was killed": {{0, well, change{}, ""}, {minute, at(950), change{lost: 50}, "behind 950 of 1000, lost 50"},
			{2 * minute, at(999), change{}, ""}, {3 * minute, at(1000), change{}, "caught up 1000"}},
		"lost one": {{0, well, change{}, ""}, {minute, at(999), change{lost: 1}, ""}},
		"no peers": {{0, alone, change{}, ""}, {9 * minute, alone, change{}, ""}, {10 * minute, alone, change{}, "lonely 10"},
			{day, alone, change{}, ""},
			{day + minute, well, change{}, ""}, {2 * day, alone, change{}, ""}, {2*day + 10*minute, alone, change{}, "lonely 10"}},
		"regtest has no peers": {{0, func(n *basev1.Node) { alone(n); n.Network = basev1.Network_NETWORK_REGTEST }, change{}, ""},
			{day, func(n *basev1.Node) { alone(n); n.Network = basev1.Network_NETWORK_REGTEST }, change{}, ""}},
		"reorganisations": {{0, well, change{replaced: 1}, ""}, {minute, well, change{replaced: 2}, ""},
			{2 * minute, well, change{replaced: 3}, "reorganised 3"},
			{3 * minute, well, change{replaced: 100}, "reorganised 100"}},
		"the disk fills": {{0, full(30), change{}, ""}, {day, full(6), change{}, "filling"}, {2 * day, full(5), change{}, ""},
			{3 * day, full(13), change{}, ""},
			{4 * day, full(20), change{}, ""}, {5 * day, full(6), change{}, "filling"}},
		"an old version": {{0, func(n *basev1.Node) { n.Unmaintained, n.Version = true, "27.0" }, change{}, "unmaintained 27.0"},
			{minute, func(n *basev1.Node) { n.Unmaintained, n.Version = true, "27.0" }, change{}, ""},
			{2 * minute, func(n *basev1.Node) { n.Unmaintained, n.Version = true, "28.0" }, change{}, "unmaintained 28.0"}},
		"no node at all": {{0, state(basev1.Node_STATE_NONE), change{}, ""}, {day, state(basev1.Node_STATE_NONE), change{}, ""}},
		"not installed": {{0, state(basev1.Node_STATE_NOT_INSTALLED), change{}, ""},
			{day, state(basev1.Node_STATE_NOT_INSTALLED), change{}, ""}},
	} {
		var m monitor
		for _, l := range looks {
			one := uint32(1)
			n := &basev1.Node{State: basev1.Node_STATE_CURRENT, Network: basev1.Network_NETWORK_MAINNET, Height: 1000, Target: 1000,
				PeersIn: &one, PeersOut: &one}
			l.node(n)
			if got := kinds(m.look(l.at, n, l.changed)); got != l.want {
				t.Errorf("%s: after %v %q was told, not %q", what, l.at, got, l.want)
			}
		}
	}
}

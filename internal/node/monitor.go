package node

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

const (
	// stoppedAfter is how long a node may be silent: as long as a restart takes.
	stoppedAfter = time.Minute
	// lonelyAfter is how long a node may have no peer.
	lonelyAfter = 10 * time.Minute
	// deepReorganisation: one or two blocks are replaced now and then.
	deepReorganisation = 3
	// fullSoon is when a disk that fills up is told of; it is told again once it was above
	// twice that.
	fullSoon = 7 * 24 * time.Hour
)

// monitor remembers the state of a node, and makes an event of each change. It is pure. The zero
// monitor has told nothing.
type monitor struct {
	silentSince, lonelySince *time.Duration
	stopped, lonely, filling bool
	current                  bool // it had all blocks
	wasBehind                bool // it has not, and caught up is news
	// regain is the height that it had before it lost blocks: it has caught up when it is there.
	regain       uint64
	unmaintained string
}

// since keeps when something has begun, and tells how long it lasts.
func since(begun **time.Duration, holds bool, now time.Duration) time.Duration {
	switch {
	case !holds:
		*begun = nil
		return 0
	case *begun == nil:
		*begun = &now
	}
	return now - **begun
}

// look finds what is new. now is a clock that does not jump.
func (m *monitor) look(now time.Duration, n *basev1.Node, changed change) (events []*basev1.Event) {
	silent := n.GetState() == basev1.Node_STATE_STOPPED
	if since(&m.silentSince, silent, now) >= stoppedAfter && !m.stopped {
		m.stopped = true
		events = append(events, &basev1.Event{Event: &basev1.Event_NodeStopped{NodeStopped: &basev1.NodeStoppedEvent{Reason: n.GetReason()}}})
	}
	if n.GetState() != basev1.Node_STATE_BEHIND && n.GetState() != basev1.Node_STATE_CURRENT {
		return events // it says nothing about its chain
	}
	if changed.replaced >= deepReorganisation {
		events = append(events, &basev1.Event{Event: &basev1.Event_ChainReorganised{ChainReorganised: &basev1.ChainReorganisedEvent{
			Depth: changed.replaced, Height: n.GetHeight(), Before: changed.before.GetHash(), Now: n.GetBestBlock()}}})
	}
	events = append(events, m.progress(n, changed)...)
	alone := n.PeersIn != nil && n.PeersOut != nil && n.GetPeersIn()+n.GetPeersOut() == 0 && !MadeAtWill(n.GetNetwork())
	lasts := since(&m.lonelySince, alone, now)
	if lasts >= lonelyAfter && !m.lonely {
		events = append(events, &basev1.Event{Event: &basev1.Event_NodeLonely{NodeLonely: &basev1.NodeLonelyEvent{
			Minutes: uint64(lasts / time.Minute)}}})
	}
	m.lonely = alone && (m.lonely || lasts >= lonelyAfter)
	events = append(events, m.disk(n)...)
	if version := n.GetSoftware() + " " + n.GetVersion(); n.GetUnmaintained() && version != m.unmaintained {
		m.unmaintained = version
		events = append(events, &basev1.Event{Event: &basev1.Event_NodeUnmaintained{NodeUnmaintained: &basev1.NodeUnmaintainedEvent{
			Software: n.GetSoftware(), Version: n.GetVersion()}}})
	}
	return events
}

// progress tells that a node fell behind, and that it has caught up.
func (m *monitor) progress(n *basev1.Node, changed change) (events []*basev1.Event) {
	lost := changed.lost > blocksBehind
	if lost {
		m.regain = max(m.regain, n.GetHeight()+changed.lost)
	}
	if n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() >= m.regain {
		if m.wasBehind || m.stopped {
			events = append(events, &basev1.Event{Event: &basev1.Event_NodeCaughtUp{NodeCaughtUp: &basev1.NodeCaughtUpEvent{
				Network: n.GetNetwork(), Height: n.GetHeight()}}})
		}
		m.current, m.wasBehind, m.stopped, m.regain = true, false, false, 0
		return events
	}
	if m.current || lost {
		behind := &basev1.NodeBehindEvent{Height: n.GetHeight(), Target: max(n.GetTarget(), m.regain)}
		if lost {
			behind.LostBlocks = &changed.lost
		}
		events = append(events, &basev1.Event{Event: &basev1.Event_NodeBehind{NodeBehind: behind}})
	}
	m.current, m.wasBehind, m.stopped = false, true, false
	return events
}

// disk tells once that the disk is full within a week.
func (m *monitor) disk(n *basev1.Node) []*basev1.Event {
	full := time.Duration(n.GetDiskFullSeconds()) * time.Second
	switch {
	case n.DiskFullSeconds == nil || full > 2*fullSoon:
		m.filling = false
	case full < fullSoon && !m.filling:
		m.filling = true
		return []*basev1.Event{{Event: &basev1.Event_NodeDiskFilling{NodeDiskFilling: &basev1.NodeDiskFillingEvent{
			AvailableBytes: n.GetDiskAvailableBytes(), FullSeconds: n.GetDiskFullSeconds()}}}}
	}
	return nil
}

package admission

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits are the bounds before authentication (docs/limits.md).
type Limits struct {
	// Handshake is the absolute time from the start of a connection until the App's first record,
	// or until P3 of a pairing.
	Handshake time.Duration
	// Answers is the time that the two people have to answer, from P4 on.
	Answers time.Duration
	// Computing is how many handshakes are computed at once.
	Computing int
	// Parked is how many connections may wait without having authenticated. Above that, the
	// oldest is closed.
	Parked int
	// ParkedPerAddress is how many of them one address may have.
	ParkedPerAddress int
	// PerSecond and Burst bound the new connections of one address.
	PerSecond float64
	Burst     int
	// After SlowAfter failures that count within SlowWindow an address is slowed down: it then
	// has SlowedPlaces places for connections without a right mac1, and the newest closes the
	// oldest of them.
	SlowAfter    int
	SlowWindow   time.Duration
	SlowedPlaces int
}

// DefaultLimits returns the limits of the protocol.
func DefaultLimits() Limits {
	return Limits{
		Handshake:        5 * time.Second,
		Answers:          120 * time.Second,
		Computing:        50,
		Parked:           4096,
		ParkedPerAddress: 16,
		PerSecond:        20,
		Burst:            5,
		SlowAfter:        5,
		SlowWindow:       10 * time.Minute,
		SlowedPlaces:     2,
	}
}

// maxSources is how many addresses are remembered. It is above Limits.Parked, so an address
// without a waiting connection can always be forgotten.
const maxSources = 8192

// sources keeps the limits of each address. An IPv6 host has a whole /64, so that counts as its
// address.
type sources struct {
	limits Limits

	mu     sync.Mutex
	known  map[netip.Prefix]*list.Element
	recent list.List // of *source, the most recently seen first
}

type source struct {
	prefix  netip.Prefix
	rate    *rate.Limiter
	waiting list.List // of *visitor without a right mac1, the oldest first
	vouched int       // visitors with a right mac1
	// failures are the times of the last failures that count, at most Limits.SlowAfter, the
	// oldest first.
	failures []time.Time
}

func newSources(limits Limits) *sources {
	return &sources{limits: limits, known: map[netip.Prefix]*list.Element{}}
}

// PrefixOf returns the range that counts as one address with addr: an IPv4 address alone, or an
// IPv6 /64.
func PrefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // never fails: bits fits the family
	return prefix
}

// enter counts the new connection v of v.addr. It returns why v must not stay, or "", and the
// connections that v displaces. leave must follow if and only if the reason is "".
func (s *sources) enter(v *visitor, now time.Time) (displaced []*visitor, reason Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.lookupLocked(PrefixOf(v.addr))
	if !src.rate.AllowN(now, 1) {
		return nil, TooFast
	}
	for s.slowedLocked(src, now) && src.waiting.Len() >= s.limits.SlowedPlaces {
		oldest := src.waiting.Front().Value.(*visitor)
		src.dropLocked(oldest)
		displaced = append(displaced, oldest)
	}
	if src.waiting.Len()+src.vouched >= s.limits.ParkedPerAddress {
		return displaced, TooMany
	}
	v.source, v.turn = src, src.waiting.PushBack(v)
	return displaced, ""
}

// vouch records that v has shown a right mac1: from here on, no connection of its address
// displaces it.
func (s *sources) vouch(v *visitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.source == nil || v.turn == nil {
		return
	}
	v.source.waiting.Remove(v.turn)
	v.turn = nil
	v.source.vouched++
}

// leave uncounts a connection that enter admitted: it authenticated or ended.
func (s *sources) leave(v *visitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.source != nil {
		v.source.dropLocked(v)
	}
}

// failed counts a failure of an address.
func (s *sources) failed(addr netip.Addr, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.lookupLocked(PrefixOf(addr))
	src.failures = append(src.failures, now)
	src.failures = src.failures[max(0, len(src.failures)-s.limits.SlowAfter):]
}

func (s *sources) slowedLocked(src *source, now time.Time) bool {
	return len(src.failures) == s.limits.SlowAfter && now.Sub(src.failures[0]) < s.limits.SlowWindow
}

func (src *source) dropLocked(v *visitor) {
	if v.turn != nil {
		src.waiting.Remove(v.turn)
	} else {
		src.vouched--
	}
	v.source, v.turn = nil, nil
}

func (s *sources) lookupLocked(prefix netip.Prefix) *source {
	if element, ok := s.known[prefix]; ok {
		s.recent.MoveToFront(element)
		return element.Value.(*source)
	}
	for len(s.known) >= max(maxSources, s.limits.Parked+1) {
		if !s.forgetLocked() {
			break
		}
	}
	src := &source{prefix: prefix, rate: rate.NewLimiter(rate.Limit(s.limits.PerSecond), s.limits.Burst)}
	s.known[prefix] = s.recent.PushFront(src)
	return src
}

// forgetLocked drops the least recently seen address without a waiting connection.
func (s *sources) forgetLocked() bool {
	for element := s.recent.Back(); element != nil; element = element.Prev() {
		if src := element.Value.(*source); src.waiting.Len()+src.vouched == 0 {
			s.recent.Remove(element)
			delete(s.known, src.prefix)
			return true
		}
	}
	return false
}

// against returns the address that a failure counts against, and that is banned in the end.
// source is the client's address, local the Base's own on this connection. It returns an invalid
// address if nothing can be banned.
//
//	IPv4                          the address
//	IPv6, from beyond the link    the first address of its /64, which stands for all of it
//	IPv6, from the Base's site    the address alone: its /64 is the owner's home too
//
// The rule of a packet filter cannot distinguish these, so the destination decides. A host on the
// Base's link shares its prefix; and a host that reaches a local address of the Base is at home
// as well, whatever its own address is. An address of the site that is the first of its /64 would
// stand for the whole.
func against(source, local netip.Addr) netip.Addr {
	source, local = source.Unmap().WithZone(""), local.Unmap().WithZone("")
	if !source.Is6() {
		return source
	}
	first := PrefixOf(source).Addr()
	global := func(a netip.Addr) bool { return a.Is6() && a.IsGlobalUnicast() && !a.IsPrivate() }
	if global(source) && global(local) && first != PrefixOf(local).Addr() {
		return first
	}
	if source == first {
		return netip.Addr{}
	}
	return source
}

// parking holds the connections that have not authenticated.
type parking struct {
	places int

	mu      sync.Mutex
	waiting list.List // of *visitor, the oldest first
}

// park adds v, and returns the visitor that has to make room for it, or nil.
func (p *parking) park(v *visitor) (displaced *visitor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v.place = p.waiting.PushBack(v)
	if p.waiting.Len() <= p.places {
		return nil
	}
	return p.displaceLocked()
}

// displaceOldest removes and returns the visitor that has waited longest, or nil.
func (p *parking) displaceOldest() *visitor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.displaceLocked()
}

func (p *parking) displaceLocked() *visitor {
	oldest := p.waiting.Front()
	if oldest == nil {
		return nil
	}
	v := oldest.Value.(*visitor)
	p.waiting.Remove(oldest)
	v.place = nil
	return v
}

// unpark removes v; from then on strangers cannot displace it. Calling it again does nothing.
func (p *parking) unpark(v *visitor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.place != nil {
		p.waiting.Remove(v.place)
		v.place = nil
	}
}

// len returns how many are waiting.
func (p *parking) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.Len()
}

// frameMemorySize is how many mac1 are remembered (docs/protocol.md, section 5).
const frameMemorySize = 1024

// frameMemory remembers the last connect frames with a right mac1. Only keys of this Base make
// those, so a stranger cannot displace one.
type frameMemory struct {
	mu   sync.Mutex
	seen map[[16]byte]struct{}
	ring [frameMemorySize][16]byte
	next int
}

// first tells whether mac1 is new, and remembers it.
func (m *frameMemory) first(mac1 [16]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, seen := m.seen[mac1]; seen {
		return false
	}
	if m.seen == nil {
		m.seen = make(map[[16]byte]struct{}, frameMemorySize)
	}
	if len(m.seen) == frameMemorySize {
		delete(m.seen, m.ring[m.next])
	}
	m.seen[mac1] = struct{}{}
	m.ring[m.next] = mac1
	m.next = (m.next + 1) % frameMemorySize
	return true
}

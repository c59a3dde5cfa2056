package pairing

import (
	"cmp"
	"crypto/sha256"
	"math"
	"net/netip"
	"slices"
	"time"
)

type p1Digest = [sha256.Size]byte

// request is a pairing request that was heard.
type request struct {
	digest p1Digest
	number uint32
	source netip.Prefix
	order  uint64 // of its first coming
	last   time.Duration
}

// heard are the recent requests, by digest, and the few whose numbers are
// shown. The two are apart because they answer different questions. The digests bind an
// act to the request that came first with its number: an attacker who has seen the owner's P1
// on the network can make another one with the same number in a million tries, but only
// afterwards. So nothing pushes a digest out; a new one is refused when there is no room.
// The numbers shown are for a person's comfort: one that is typed works as well.
type heard struct {
	requests map[p1Digest]*request
	sources  map[netip.Prefix]int // how many requests each has
	shown    []*request           // the oldest first, at most MaxShown
	count    uint64
	swept    time.Duration

	evicts bool // the broken variant of a test: a new request pushes the most silent out
}

// sourceOf is what stands for an address: itself, or the /64 of an IPv6 address. The zero
// Prefix stands for all whose address is not known.
func sourceOf(address []byte) netip.Prefix {
	addr, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.Prefix{}
	}
	addr = addr.Unmap()
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// add remembers a request if there is room. The number is shown if show is set and there
// is room for that.
func (h *heard) add(now time.Duration, digest p1Digest, number uint32, source netip.Prefix, show bool) {
	h.sweep(now)
	r := h.requests[digest]
	if r == nil {
		if h.evicts && len(h.requests) >= MaxShown {
			h.remove(h.mostSilent())
		}
		if len(h.requests) >= MaxHeard || h.sources[source] >= MaxHeardFromOne {
			return
		}
		if h.requests == nil {
			h.requests, h.sources = map[p1Digest]*request{}, map[netip.Prefix]int{}
		}
		h.count++
		r = &request{digest: digest, number: number, source: source, order: h.count}
		h.requests[digest] = r
		h.sources[source]++
	}
	r.last = now
	if sameNumber := func(other *request) bool { return other.number == number }; show && len(h.shown) < MaxShown &&
		!slices.ContainsFunc(h.shown, sameNumber) {
		h.shown = append(h.shown, r)
	}
}

func (h *heard) mostSilent() (digest p1Digest) {
	silent := time.Duration(math.MaxInt64)
	for _, r := range h.requests {
		if r.last < silent {
			digest, silent = r.digest, r.last
		}
	}
	return digest
}

func (h *heard) remove(digest p1Digest) {
	r := h.requests[digest]
	if r == nil {
		return
	}
	delete(h.requests, digest)
	if h.sources[r.source]--; h.sources[r.source] == 0 {
		delete(h.sources, r.source)
	}
	h.shown = slices.DeleteFunc(h.shown, func(other *request) bool { return other == r })
}

// sweepEvery is how often digests are searched for those that are over. They are looked at
// again when they are used, so this only frees memory.
const sweepEvery = time.Second

func (h *heard) sweep(now time.Duration) {
	if now-h.swept < sweepEvery {
		return
	}
	h.swept = now
	for _, r := range h.requests {
		if r.last+HeardTime <= now {
			h.remove(r.digest)
		}
	}
}

// expire takes away the numbers whose App has given up.
func (h *heard) expire(now time.Duration) {
	h.shown = slices.DeleteFunc(h.shown, func(r *request) bool { return r.last+ShownFor <= now })
}

// hide takes away all numbers. Requests stay known: a number that was seen must not
// mean another request when it is accepted later.
func (h *heard) hide() { h.shown = nil }

// earliest returns the digest of the first request that came with this number,
// nil if none is remembered.
func (h *heard) earliest(now time.Duration, number uint32) *p1Digest {
	var first *request
	for _, r := range h.requests {
		if r.number == number && r.last+HeardTime > now && (first == nil || r.order < first.order) {
			first = r
		}
	}
	if first == nil {
		return nil
	}
	return &first.digest
}

// numbers returns each number that is shown once, newest first.
func (h *heard) numbers() []uint32 {
	newest := slices.SortedFunc(slices.Values(h.shown), func(a, b *request) int { return cmp.Compare(b.order, a.order) })
	var numbers []uint32
	for _, r := range newest {
		numbers = append(numbers, r.number)
	}
	return numbers
}

package pairing

import (
	"crypto/sha256"
	"slices"
	"time"
)

type p1Digest = [sha256.Size]byte

// request is a pairing request that was heard.
type request struct {
	digest p1Digest
	number uint32
	last   time.Duration
}

// heard are the last few requests, in the order in which they first came. A flood
// fills it, and drives the owner's request out of it. That costs the owner the
// comfort of seeing the number: a number that is typed works all the same.
type heard []request

// add remembers a request. When there are too many, the one that was silent for
// longest goes: an owner's App repeats its request.
func (h *heard) add(now time.Duration, digest p1Digest, number uint32) {
	for i := range *h {
		if (*h)[i].digest == digest {
			(*h)[i].last = now
			return
		}
	}
	if len(*h) == MaxHeard {
		oldest := slices.MinFunc(*h, func(a, b request) int { return int(a.last - b.last) })
		h.remove(oldest.digest)
	}
	*h = append(*h, request{digest, number, now})
}

func (h *heard) remove(digest p1Digest) {
	*h = slices.DeleteFunc(*h, func(r request) bool { return r.digest == digest })
}

func (h *heard) expire(now time.Duration) {
	*h = slices.DeleteFunc(*h, func(r request) bool { return r.last+HeardTime <= now })
}

// earliest returns the digest of the first request that came with this number,
// nil if none is remembered. Who hears the owner's P1 on the network can make
// another with the same number, but only afterwards.
func (h heard) earliest(number uint32) *p1Digest {
	for _, r := range h {
		if r.number == number {
			return &r.digest
		}
	}
	return nil
}

// numbers returns each number once, newest first.
func (h heard) numbers() []uint32 {
	var numbers []uint32
	for _, r := range slices.Backward(h) {
		if !slices.Contains(numbers, r.number) {
			numbers = append(numbers, r.number)
		}
	}
	return numbers
}

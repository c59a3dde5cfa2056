package registry

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// An address from which an active App has come is acquainted: other connections from there may be
// from the owner's old App, wallet or scanner, or share a NAT with the App. It is slowed down and
// never banned at the entry (admission).
const (
	// AcquaintedTime is how long an address stays acquainted, on the wall clock. A
	// clock that was set back makes it longer, never shorter.
	AcquaintedTime = 7 * 24 * time.Hour
	// MaxAcquainted is how many addresses one App makes acquainted; the least recently used one
	// makes room: for example home, the phone's network, and elsewhere.
	MaxAcquainted = 4
	// acquaintedStep is how far the stored time may lag behind, to spare the disk.
	acquaintedStep = time.Hour
)

// acquaintance is an address from which an App has come.
type acquaintance struct {
	// Prefix is an IPv4 address alone or an IPv6 /64.
	Prefix netip.Prefix `json:"prefix"`
	Seen   time.Time    `json:"seen"`
}

// Acquainted implements admission.Registry.
func (r *Registry) Acquainted(address netip.Addr) bool {
	known := r.acquainted.Load()
	if known == nil {
		return false
	}
	seen, ok := (*known)[admission.PrefixOf(address)]
	return ok && time.Since(seen) < AcquaintedTime
}

// acquaintLocked records that the App has sent its first record from an address.
func (r *Registry) acquaintLocked(p *record, address netip.Addr, now time.Time) {
	if !address.IsValid() {
		return
	}
	list, changed := acquaint(p.acquaintances, admission.PrefixOf(address), now)
	if !changed {
		return
	}
	p.acquaintances = list
	r.saveSoonLocked(p)
	r.indexAcquaintedLocked()
}

// acquaint returns the list with prefix as its newest, and whether that is worth storing.
func acquaint(list []acquaintance, prefix netip.Prefix, now time.Time) ([]acquaintance, bool) {
	at := slices.IndexFunc(list, func(a acquaintance) bool { return a.Prefix == prefix })
	if at >= 0 {
		if since := now.Sub(list[at].Seen); since >= 0 && since < acquaintedStep {
			return list, false
		}
	}
	list = slices.Clone(list)
	if at >= 0 {
		list = slices.Delete(list, at, at+1)
	}
	list = append(list, acquaintance{Prefix: prefix, Seen: now})
	return list[max(0, len(list)-MaxAcquainted):], true
}

// indexAcquaintedLocked rebuilds the index that Acquainted searches. Only Apps with rights count.
func (r *Registry) indexAcquaintedLocked() {
	known := map[netip.Prefix]time.Time{}
	for _, p := range r.pairings {
		if p.standing != standingActive {
			continue
		}
		for _, a := range p.acquaintances {
			if a.Seen.After(known[a.Prefix]) {
				known[a.Prefix] = a.Seen
			}
		}
	}
	r.acquainted.Store(&known)
}

// parseAcquaintances reads what was stored; nil: nothing was.
func parseAcquaintances(value []byte) ([]acquaintance, error) {
	if value == nil {
		return nil, nil
	}
	var list []acquaintance
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, reason.Errorf("the addresses that a paired App comes from: %w", err)
	}
	for _, a := range list {
		if !a.Prefix.IsValid() || a.Prefix != admission.PrefixOf(a.Prefix.Addr()) {
			return nil, reason.Errorf("the addresses that a paired App comes from: %s is no address", a.Prefix)
		}
	}
	if len(list) > MaxAcquainted {
		return nil, reason.Errorf("the addresses that a paired App comes from: %d, more than %d", len(list), MaxAcquainted)
	}
	return list, nil
}

// saveAcquaintancesLocked stores the acquainted addresses of an App.
func (r *Registry) saveAcquaintancesLocked(p *record) error {
	value, err := json.Marshal(p.acquaintances)
	if err != nil {
		return err
	}
	return r.update("store the addresses that an App comes from", func(tx *state.Tx) error {
		return tx.Put(bucketAcquainted, string(p.peer[:]), value)
	})
}

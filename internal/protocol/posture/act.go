package posture

import "slices"

// ActKind is what the Base did by itself.
type ActKind int

// The changes that a Base makes to its posture by itself.
const (
	// ActLeaseEnded: the time of a lease was over, or the machine was booted.
	ActLeaseEnded ActKind = iota + 1
	// ActUndone: a revision was undone.
	ActUndone
	// ActEnrolled: an App was enrolled by a ceremony.
	ActEnrolled
	// ActRetired: an App was taken out.
	ActRetired
	// ActGranted: SSH is leased because the provisioning file asks for it.
	ActGranted
)

// Act is something that the Base did by itself, for the log of changes.
type Act struct {
	Kind ActKind
	// Detail says to what and why, for people.
	Detail string
}

// TakeActs returns what the Base has done by itself since the last call, once what was to be
// saved of it is.
func (l *Ledger) TakeActs() []Act {
	acts := l.acts
	l.acts = nil
	return acts
}

// Epoch returns the epoch of the posture.
func (l *Ledger) Epoch() Epoch { return l.chain.epoch }

// Changed says what a revision that is kept has made different, with each lease at its whole
// length, as History does.
func (l *Ledger) Changed(revision uint64) []Change {
	c := l.chain
	for i := range c.entries {
		if c.entries[i].doc.GetRevision() != revision || i == 0 {
			continue
		}
		before := &c.entries[i-1]
		active := append(slices.Clone(before.active), c.recordedUnder(i-1)...)
		return Diff(asGranted(before, active), asGranted(&c.entries[i], c.entries[i].active))
	}
	return nil
}

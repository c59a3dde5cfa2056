package posture

import (
	"slices"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// checkpointInterval is how often running leases are saved. A lease that goes
// on after a reboot is charged for it once, since that much of its time may have
// passed unrecorded: reboots never make a lease longer.
const checkpointInterval = time.Minute

// RunningLease is a lease that has not ended.
type RunningLease struct {
	Kind      Kind
	GrantedIn uint64
	Remaining time.Duration
}

// grant is a lease with its kind.
type grant struct {
	Kind Kind
	Lease
}

// grants lists the leases of p.
func (p Posture) grants() []grant {
	var grants []grant
	if p.SSH != nil {
		grants = append(grants, grant{KindSSH, *p.SSH})
	}
	for _, extra := range p.Extras {
		grants = append(grants, grant{extra.Kind, extra.Lease})
	}
	return grants
}

// lease finds the lease of a kind in p.
func (p Posture) lease(kind Kind) (Lease, bool) {
	for _, g := range p.grants() {
		if g.Kind == kind {
			return g.Lease, true
		}
	}
	return Lease{}, false
}

// remaining returns what is left of a lease, 0 when it has ended.
func remaining(running []RunningLease, kind Kind, grantedIn uint64) time.Duration {
	for _, lease := range running {
		if lease.Kind == kind && lease.GrantedIn == grantedIn {
			return lease.Remaining
		}
	}
	return 0
}

// begin returns the running leases once p was accepted as a revision: those it
// grants begin, of the others only those that p or keep names go on.
func begin(running []RunningLease, revision uint64, p Posture, keep ...Posture) []RunningLease {
	named := p.grants()
	for _, other := range keep {
		named = append(named, other.grants()...)
	}
	var next []RunningLease
	for _, g := range named {
		if g.UntilClosed {
			continue // nothing of it passes
		}
		left := remaining(running, g.Kind, g.GrantedIn)
		if g.GrantedIn == revision {
			left = g.Length
		}
		if left > 0 && remaining(next, g.Kind, g.GrantedIn) == 0 {
			next = append(next, RunningLease{g.Kind, g.GrantedIn, left})
		}
	}
	return next
}

// pass counts time off every lease, and returns those that still run and those
// that have ended.
func pass(running []RunningLease, elapsed time.Duration) (left, ended []RunningLease) {
	for _, lease := range running {
		lease.Remaining -= elapsed
		if lease.Remaining > 0 {
			left = append(left, lease)
		} else {
			ended = append(ended, lease)
		}
	}
	return left, ended
}

// reboot returns the leases that go on after a reboot, charged for the time that
// may be unrecorded, and those that end with it: SSH's always does.
func reboot(running []RunningLease) (left, ended []RunningLease) {
	isSSH := func(l RunningLease) bool { return l.Kind == KindSSH }
	left, ended = pass(slices.DeleteFunc(slices.Clone(running), isSSH), checkpointInterval)
	for _, lease := range running {
		if isSSH(lease) {
			ended = append(ended, lease)
		}
	}
	return left, ended
}

func leasesToProto(running []RunningLease) []*systemv1.LeaseLeft {
	var list []*systemv1.LeaseLeft
	for _, lease := range running {
		list = append(list, &systemv1.LeaseLeft{
			Kind: string(lease.Kind), GrantedIn: lease.GrantedIn, RemainingMs: milliseconds(lease.Remaining),
		})
	}
	return list
}

func leasesFromProto(list []*systemv1.LeaseLeft) []RunningLease {
	var running []RunningLease
	for _, lease := range list {
		running = append(running, RunningLease{
			Kind(lease.GetKind()), lease.GetGrantedIn(), fromMilliseconds(lease.GetRemainingMs()),
		})
	}
	return running
}

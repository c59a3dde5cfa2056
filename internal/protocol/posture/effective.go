package posture

import (
	"cmp"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

const roleOwner = basev1.Role_ROLE_OWNER

// effective returns what is in force: the posture p of a revision, AND what is
// not closed by an active restriction, AND what still has a running lease.
func effective(revision uint64, p Posture, active []Restriction, running []RunningLease) Effective {
	lockdown := Closing{Type: ClosingLockdown}.isActive(active)
	e := Effective{
		Revision:      revision,
		NodeName:      p.NodeName,
		Endpoints:     []Endpoint{{Kind: KindEntry, Port: EntryPort}},
		Bans:          p.Bans,
		PairingClosed: p.PairingClosed || lockdown || Closing{Type: ClosingPairing}.isActive(active),
		Lockdown:      lockdown,
		OldestVersion: p.OldestVersion,
		KnownSSHKeys:  slices.Clone(p.SSHKeys),
	}
	slices.SortFunc(e.KnownSSHKeys, func(a, b sshkey.Key) int { return cmp.Compare(a.Line, b.Line) })

	// left is what remains of a lease, and whether it is still open. Without an end nothing remains.
	left := func(kind Kind, lease Lease) (time.Duration, bool) {
		closed := Closing{Type: ClosingLease, Kind: kind, GrantedIn: lease.GrantedIn}.isActive(active)
		if lockdown || closed {
			return 0, false
		}
		rest := min(remaining(running, kind, lease.GrantedIn), lease.Length)
		return rest, rest > 0 || lease.UntilClosed
	}
	for _, extra := range Extras {
		i := slices.IndexFunc(p.Extras, func(x ExtraEndpoint) bool { return x.Kind == extra.Kind })
		if i < 0 {
			continue
		}
		if rest, open := left(extra.Kind, p.Extras[i].Lease); open {
			endpoint := Endpoint{Kind: extra.Kind, Port: EntryPort, Shared: true, Remaining: rest,
				UntilClosed: p.Extras[i].Lease.UntilClosed, From: p.Extras[i].From}
			if p.Extras[i].OwnPort {
				endpoint.Port, endpoint.Shared = extra.Port, false
			}
			e.Endpoints = append(e.Endpoints, endpoint)
		}
	}
	if p.SSH != nil && len(p.SSHKeys) > 0 {
		if rest, open := left(KindSSH, *p.SSH); open {
			e.SSH = &SSH{Keys: slices.Clone(e.KnownSSHKeys), Remaining: rest}
		}
	}
	for _, service := range Services {
		if slices.Contains(p.Egress, service) {
			e.Egress = append(e.Egress, service)
		}
	}
	for _, app := range p.Apps {
		if !(Closing{Type: ClosingApp, App: app.SigningKey}).isActive(active) {
			e.Apps = append(e.Apps, app)
		}
	}
	slices.SortFunc(e.Apps, compareApps)
	return e
}

// cautious is what is in force while the last document is not settled: whom it raises
// is not raised yet, for it may be undone, and whom it lowers is lowered at once. Pairing that it opens
// is not open yet either: an App that was let in would stay.
func (c *chain) cautious(e Effective) Effective {
	before := c.beforeTip()
	if before == nil {
		return e
	}
	if effective(before.doc.GetRevision(), before.posture, c.activeOver(before), nil).PairingClosed {
		e.PairingClosed = true
	}
	for i := range e.Apps { // a list of its own, see effective
		if was, found := findApp(before.posture.Apps, e.Apps[i].SigningKey); found {
			e.Apps[i].Role = min(e.Apps[i].Role, was.Role)
		}
	}
	return e
}

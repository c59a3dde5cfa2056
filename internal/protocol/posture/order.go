package posture

import (
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// NoMoreOpen tells whether a is no more open than b: nobody reaches, enters, or
// leaves by anything under a who could not under b, nor for longer. It is a
// partial order: of two postures each may be open where the other is closed, and
// then neither is no more open than the other. Names open nothing and do not
// count.
//
//	endpoints    the same kind on the same port, for no longer, from no further network
//	SSH          off, or with no further key, for no longer
//	bans         no more tries, counted over no less time, for no less time
//	pairing      closed where b's is
//	egress, Apps no further one, no higher role
//	software     no older version
func NoMoreOpen(a, b Effective) bool {
	return noMoreEndpoints(a.Endpoints, b.Endpoints) &&
		noMoreSSH(a.SSH, b.SSH) &&
		a.Bans.MaxTries <= b.Bans.MaxTries && a.Bans.Window >= b.Bans.Window && a.Bans.BanTime >= b.Bans.BanTime &&
		(a.PairingClosed || !b.PairingClosed) &&
		isSubset(a.Egress, b.Egress) &&
		noOlder(a.OldestVersion, b.OldestVersion) &&
		noMoreApps(a.Apps, b.Apps)
}

// EquallyOpen tells whether a and b open the same.
func EquallyOpen(a, b Effective) bool { return NoMoreOpen(a, b) && NoMoreOpen(b, a) }

// Meet returns the most open Effective that is no more open than a nor than b:
// the posture to fall back to when neither of two can be applied as a whole. Names open
// nothing; it has those of a.
func Meet(a, b Effective) Effective {
	meet := a
	meet.Endpoints = nil
	for _, endpoint := range a.Endpoints {
		if other, found := findEndpoint(b.Endpoints, endpoint); found {
			if endpoint, open := endpoint.meet(other); open {
				meet.Endpoints = append(meet.Endpoints, endpoint)
			}
		}
	}
	meet.SSH = nil
	if a.SSH != nil && b.SSH != nil {
		keys := slices.DeleteFunc(slices.Clone(a.SSH.Keys), func(k sshkey.Key) bool { return !hasKey(b.SSH.Keys, k) })
		if len(keys) > 0 {
			meet.SSH = &SSH{Keys: keys, Remaining: min(a.SSH.Remaining, b.SSH.Remaining)}
		}
	}
	meet.Bans = BanPolicy{
		MaxTries: min(a.Bans.MaxTries, b.Bans.MaxTries),
		Window:   max(a.Bans.Window, b.Bans.Window),
		BanTime:  max(a.Bans.BanTime, b.Bans.BanTime),
	}
	meet.PairingClosed = a.PairingClosed || b.PairingClosed
	meet.Lockdown = a.Lockdown || b.Lockdown
	meet.Egress = slices.DeleteFunc(slices.Clone(a.Egress), func(s Service) bool { return !slices.Contains(b.Egress, s) })
	if noOlder(b.OldestVersion, a.OldestVersion) {
		meet.OldestVersion = b.OldestVersion
	}
	meet.Apps = nil
	for _, app := range a.Apps {
		if other, found := findApp(b.Apps, app.SigningKey); found {
			app.Role = min(app.Role, other.Role)
			meet.Apps = append(meet.Apps, app)
		}
	}
	return meet
}

func noMoreEndpoints(a, b []Endpoint) bool {
	for _, endpoint := range a {
		other, found := findEndpoint(b, endpoint)
		if !found || !endpoint.noLonger(other) || !endpoint.From.Within(other.From) {
			return false
		}
	}
	return true
}

// noLonger tells whether e ends no later than other.
func (e Endpoint) noLonger(other Endpoint) bool {
	return other.UntilClosed || !e.UntilClosed && e.Remaining <= other.Remaining
}

// meet returns what is open of the same endpoint in both; false if no network reaches both.
func (e Endpoint) meet(other Endpoint) (Endpoint, bool) {
	if !e.noLonger(other) {
		e.Remaining, e.UntilClosed = other.Remaining, other.UntilClosed
	}
	var open bool
	e.From, open = e.From.meet(other.From)
	return e, open
}

// findEndpoint finds the endpoint that opens the same service on the same port.
func findEndpoint(list []Endpoint, like Endpoint) (Endpoint, bool) {
	i := slices.IndexFunc(list, func(e Endpoint) bool {
		return e.Kind == like.Kind && e.Port == like.Port && e.Shared == like.Shared
	})
	if i < 0 {
		return Endpoint{}, false
	}
	return list[i], true
}

func noMoreSSH(a, b *SSH) bool {
	if a == nil {
		return true
	}
	if b == nil || a.Remaining > b.Remaining {
		return false
	}
	for _, key := range a.Keys {
		if !hasKey(b.Keys, key) {
			return false
		}
	}
	return true
}

// hasKey compares fingerprints: the comment of a key opens nothing.
func hasKey(keys []sshkey.Key, key sshkey.Key) bool {
	return slices.ContainsFunc(keys, func(k sshkey.Key) bool { return k.Fingerprint == key.Fingerprint })
}

func noMoreApps(a, b []App) bool {
	for _, app := range a {
		other, found := findApp(b, app.SigningKey)
		if !found || app.Role > other.Role {
			return false
		}
	}
	return true
}

// noOlder tells whether a allows no version that b does not.
func noOlder(a, b string) bool { return b == "" || a != "" && release.Compare(a, b) >= 0 }

func findApp(apps []App, key SigningKey) (App, bool) {
	i := slices.IndexFunc(apps, func(a App) bool { return a.SigningKey == key })
	if i < 0 {
		return App{}, false
	}
	return apps[i], true
}

func isSubset(a, b []Service) bool {
	for _, service := range a {
		if !slices.Contains(b, service) {
			return false
		}
	}
	return true
}

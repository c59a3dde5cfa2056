package owner

import (
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Weight is how much a standing matters.
type Weight int

// The weights.
const (
	Good Weight = iota
	// Unsure: nothing is known now.
	Unsure
	Warn
	Bad
)

// Standing is how a Base is: well, or the reason that matters most why it is not. The full screen and
// the window each have words of their own for it.
type Standing struct {
	// Key names it.
	Key    string
	Weight Weight
	// Finding is the one that is meant by "critical" and "warning", Service the one of "failed".
	Finding *basev1.Finding
	Service string
}

// nearlyFull is the free part of a disk below which it is said.
const nearlyFull = 0.05

// standings are in the order of how much they matter. The first that holds is the Base's.
var standings = []struct {
	key    string
	weight Weight
	holds  func(b *Base, s *Standing) bool
}{
	{"revoked", Bad, func(b *Base, _ *Standing) bool { return b.State == client.Revoked }},
	{"reset", Bad, func(b *Base, _ *Standing) bool { return b.State == client.Reset }},
	{"ended", Bad, func(b *Base, _ *Standing) bool { return b.Connection == Ended }},
	{"lie", Bad, func(b *Base, _ *Standing) bool { return b.Look.Lie != nil }},
	{"lost", Bad, func(b *Base, _ *Standing) bool { return b.Connection == Lost }},
	{"unfollowed", Unsure, func(b *Base, _ *Standing) bool { return b.Connection == Unfollowed }},
	{"connecting", Unsure, func(b *Base, _ *Standing) bool { return b.Look.Info == nil }},
	{"lockdown", Warn, func(b *Base, _ *Standing) bool { return b.Look.Access != nil && b.Look.Access.Lockdown }},
	{"critical", Bad, func(b *Base, s *Standing) bool {
		return s.finds(b.Findings, func(f *basev1.Finding) bool { return f.GetSeverity() == basev1.Finding_SEVERITY_CRITICAL })
	}},
	{"failed", Bad, func(b *Base, s *Standing) bool {
		at := slices.IndexFunc(b.Look.Services, func(s *basev1.Service) bool { return s.GetState() == basev1.Service_STATE_FAILED })
		if at >= 0 {
			s.Service = b.Look.Services[at].GetName()
		}
		return at >= 0
	}},
	{"trying", Warn, func(b *Base, _ *Standing) bool { return b.Look.Access != nil && b.Look.Access.Trying }},
	{"disk", Warn, func(b *Base, _ *Standing) bool {
		i := b.Look.Info
		return i.GetDiskTotalBytes() > 0 && float64(i.GetDiskAvailableBytes()) < nearlyFull*float64(i.GetDiskTotalBytes())
	}},
	{"node", Warn, func(b *Base, _ *Standing) bool { return b.Look.Node.GetState() == basev1.Node_STATE_STOPPED }},
	{"warning", Warn, func(b *Base, s *Standing) bool { return s.finds(b.Findings, words.IsSerious) }},
	{"doubted", Unsure, func(b *Base, _ *Standing) bool { return b.Connection != Connected }},
	{"good", Good, func(*Base, *Standing) bool { return true }},
}

// finds takes the first finding that is meant.
func (s *Standing) finds(findings []*basev1.Finding, is func(*basev1.Finding) bool) bool {
	at := slices.IndexFunc(findings, is)
	if at >= 0 {
		s.Finding = findings[at]
	}
	return at >= 0
}

// Standing is how the Base is.
func (b *Base) Standing() Standing {
	for _, one := range standings {
		s := Standing{Key: one.key, Weight: one.weight}
		if one.holds(b, &s) {
			return s
		}
	}
	panic("the last standing always holds")
}

// Serious are the findings of the last audit that are more than information.
func (b *Base) Serious() []*basev1.Finding {
	return slices.DeleteFunc(slices.Clone(b.Findings), func(f *basev1.Finding) bool { return !words.IsSerious(f) })
}

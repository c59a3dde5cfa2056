package pages

import (
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// wellness answers "is it well?" in one sentence.
type wellness struct {
	// Class is "good", "warn", "bad", or "" where nothing is known yet.
	Class string
	Text  string
	More  string // what to do about it
}

// judgement is a reason why a Base is not well.
type judgement struct {
	key   string // overview.well.KEY has the sentence, and overview.well.KEY.more the next step
	class string
	// holds may give what the sentence names; a finding is said in the language of the page.
	holds func(b owner.Base) (named any, holds bool)
}

// holdsIf is for a sentence without arguments.
func holdsIf(holds func(b owner.Base) bool) func(owner.Base) (any, bool) {
	return func(b owner.Base) (any, bool) { return nil, holds(b) }
}

// nearlyFull is the free part of a disk below which it is said.
const nearlyFull = 0.05

// judgements are in the order of how much they matter. The first that holds is said.
var judgements = []judgement{
	{"ended", "bad", func(b owner.Base) (any, bool) { return nil, b.Connection == owner.Ended }},
	{"lie", "bad", holdsIf(func(b owner.Base) bool { return b.Look.Lie != nil })},
	{"lost", "bad", func(b owner.Base) (any, bool) { return nil, b.Connection == owner.Lost }},
	{"unfollowed", "", func(b owner.Base) (any, bool) { return owner.MaxFollowed, b.Connection == owner.Unfollowed }},
	{"connecting", "", holdsIf(func(b owner.Base) bool { return b.Look.Info == nil })},
	{"lockdown", "warn", holdsIf(func(b owner.Base) bool { return b.Look.Access != nil && b.Look.Access.Lockdown })},
	{"critical", "bad", func(b owner.Base) (any, bool) {
		at := slices.IndexFunc(b.Findings, func(f *basev1.Finding) bool {
			return f.GetSeverity() == basev1.Finding_SEVERITY_CRITICAL
		})
		if at < 0 {
			return nil, false
		}
		return b.Findings[at], true
	}},
	{"failed", "bad", func(b owner.Base) (any, bool) {
		at := slices.IndexFunc(b.Look.Services, func(s *basev1.Service) bool { return s.GetState() == basev1.Service_STATE_FAILED })
		if at < 0 {
			return nil, false
		}
		return b.Look.Services[at].GetName(), true
	}},
	{"trying", "warn", holdsIf(func(b owner.Base) bool { return b.Look.Access != nil && b.Look.Access.Trying })},
	{"disk", "warn", holdsIf(func(b owner.Base) bool {
		i := b.Look.Info
		return i.GetDiskTotalBytes() > 0 && float64(i.GetDiskAvailableBytes()) < nearlyFull*float64(i.GetDiskTotalBytes())
	})},
	{"node", "warn", holdsIf(func(b owner.Base) bool { return b.Look.Node.GetState() == basev1.Node_STATE_STOPPED })},
	{"warning", "warn", func(b owner.Base) (any, bool) {
		if found := serious(b.Findings); len(found) > 0 {
			return found[0], true
		}
		return nil, false
	}},
	{"doubted", "", holdsIf(func(b owner.Base) bool { return b.Connection != owner.Connected })},
}

// judge says in one sentence whether a Base is well.
func (r *Renderer) judge(b owner.Base) wellness {
	for _, j := range judgements {
		named, holds := j.holds(b)
		if !holds {
			continue
		}
		w := wellness{j.class, r.say("overview.well." + j.key), r.say("overview.well." + j.key + ".more")}
		if found, is := named.(*basev1.Finding); is {
			named = r.language.Finding(found).Title.Text
		}
		if named != nil {
			w.Text = r.say("overview.well."+j.key, named)
		}
		return w
	}
	return wellness{"good", r.say("overview.well.good"), r.say("overview.well.good.more")}
}

// serious are the findings that are more than information.
func serious(findings []*basev1.Finding) []*basev1.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f *basev1.Finding) bool { return !words.IsSerious(f) })
}

// opened is something that can be reached now, and closes by itself or by a person.
type opened struct {
	Key, Name, Detail string
	// Until is when it closes by itself; zero: somebody has to close it.
	Until time.Time
	// Close starts the deed that ends it, with Subject; CloseName says what the button closes. They are
	// empty for a person who may not.
	Close, Subject, CloseName string
}

// Deadline is what a page counts down to.
func (o opened) Deadline() deadline { return deadline{o.Until, o.Name} }

// open lists what is open beside the channel.
func (v *view) open() []opened {
	b := v.base
	var list []opened
	add := func(key, name, detail string, left time.Duration, deed owner.DeedKind, subject string) {
		o := opened{Key: key, Name: name, Detail: detail}
		if v.owns() {
			o.Close, o.Subject, o.CloseName = v.do(deed), subject, v.say("overview.open.close", name)
		}
		if left > 0 {
			o.Until = b.At.Add(left)
		}
		list = append(list, o)
	}
	if a := b.Look.Access; a != nil {
		if a.SSH {
			add("ssh", "SSH", v.language.Count("overview.open.keys", len(a.Keys)), a.SSHLeft, owner.EndLease, "ssh")
		}
		for _, d := range a.Doors {
			if d.Left == 0 && !d.ForGood {
				continue // the channel
			}
			add("door "+d.Kind, doorName(d.Kind), v.doorDetail(d), d.Left, owner.EndLease, d.Kind)
		}
	}
	if w := b.Look.Window; w.GetOpen() {
		left := time.Duration(w.GetRemainingMs()) * time.Millisecond
		add("window", v.say("overview.open.window"), v.say("overview.open.window.detail"), left, owner.CloseWindow, "")
	}
	return list
}

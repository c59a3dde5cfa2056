package pages

import (
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// wellness answers "is it well?" in one sentence.
type wellness struct {
	// Class is "good", "warn", "bad", or "" where nothing is known yet.
	Class string
	Text  string
	More  string // what to do about it
}

var wellClasses = map[owner.Weight]string{owner.Good: "good", owner.Warn: "warn", owner.Bad: "bad"}

// judge says in one sentence whether a Base is well: overview.well.KEY, and overview.well.KEY.more is
// the next step.
func (r *Renderer) judge(b owner.Base) wellness {
	is := b.Standing()
	key := "overview.well." + is.Key
	w := wellness{wellClasses[is.Weight], r.say(key), r.say(key + ".more")}
	switch {
	case is.Finding != nil:
		w.Text = r.say(key, r.language.Within(r.language.Finding(is.Finding).Title))
	case is.Service != "":
		w.Text = r.say(key, is.Service)
	case is.Key == "unfollowed":
		w.Text = r.say(key, owner.MaxFollowed)
	}
	return w
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

package pages

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strconv"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/picture"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// deedPage is the page of a deed by its number, as the address has it.
func (v *view) deedPage(number string) func(*view) Page {
	n, err := strconv.ParseUint(number, 10, 64)
	d, known := v.state.Deed(n)
	if err != nil || !known {
		return (*view).nowhere
	}
	if base, known := v.state.Base(d.Base); known {
		v.base = base
	}
	return func(v *view) Page { return v.deed(d) }
}

// question is what has to be answered.
type question struct {
	ID      uint64
	To      string // where the answer goes
	Kind    string // a name for owner.QuestionKind: its sentences and its block of the template
	Changes []change
	Danger  bool
	Code    code
	App     string
	Problem words.Text
	Text    string // what has to be typed
	Screen  template.HTML
}

// questionKinds names the kinds of questions.
var questionKinds = map[owner.QuestionKind]string{
	owner.Consent: "consent", owner.Compare: "compare", owner.TellWords: "tellwords", owner.TypeWords: "typewords",
	owner.TypeSentence: "typesentence",
}

// step is one step of a deed. Class is "done", "now", "failed", or "" for what comes.
type step struct {
	Key, Class, Text, More string
	Lang                   string // of Text, if it is another one than the page's
	Until                  *deadline
}

func (v *view) deed(d owner.DeedState) Page {
	title := v.deedTitle(d)
	return v.framed(title, "narrow",
		v.part("deed.head", "wide", struct{ Title, Base, Address string }{title, v.base.Name, v.back(d)}),
		v.part("deed.question", "wide", v.asks(d)),
		v.part("deed.end", "wide", v.ending(d)),
		v.part("deed.steps", "wide", struct {
			Steps       []step
			Sent, Total uint64
			Percent     string
		}{v.steps(d), d.Sent, d.Total, percent(float64(d.Sent) / float64(max(d.Total, 1)))}),
		v.part("deed.stop", "wide", v.stopping(d)))
}

// isPairing tells whether a deed is a pairing, which belongs to no Base that this App knows.
func isPairing(d owner.DeedState) bool { return d.Deed.Kind == owner.Pair }

func (v *view) deedTitle(d owner.DeedState) string {
	if isPairing(d) {
		return v.say("pair.title")
	}
	name := d.Deed.Kind.String()
	if slices.Contains(titledBySubject, d.Deed.Kind) {
		subject := d.Deed.Subject
		if d.Deed.Kind == owner.EndLease || d.Deed.Kind == owner.Expose {
			subject = doorName(subject)
		}
		return v.say("deed.title."+name, subject)
	}
	return v.say("deed.title." + name)
}

// titledBySubject are the deeds whose title names what they are done to.
var titledBySubject = []owner.DeedKind{
	owner.EndLease, owner.LiftBan, owner.Expose, owner.UseDisk,
	owner.StartService, owner.StopService, owner.RestartService, owner.EnableService, owner.DisableService,
}

// back is the page on which the deed was begun, or the first one.
func (v *view) back(d owner.DeedState) string {
	if v.base.Name == "" {
		return ""
	}
	return addressOf(v.base, cmp.Or(d.Deed.From, first))
}

// request is a pairing that waits for an act at the Base.
type request struct {
	Number string
	Screen template.HTML
}

// waiting is a pairing to which this side has said yes. The code stays on the page, since the other
// side compares it now; nil: it is not known.
type waiting struct{ Compared *owner.Question }

// Words tells whether an owner's App says the other yes, for a Base without a screen.
func (w waiting) Words() bool { return w.Compared != nil && w.Compared.Kind == owner.TellWords }

// asks is what the page wants from the person now; nil: nothing.
func (v *view) asks(d owner.DeedState) any {
	type asked struct {
		Request  *request
		Question *question
		Waiting  *waiting
	}
	q := d.Question
	if q == nil {
		if !isPairing(d) || !d.Ended.IsZero() {
			return asked{}
		}
		if d.Agreed {
			return asked{Waiting: &waiting{d.Compared}}
		}
		screen := picture.Screen(picture.Words{Title: v.say("pair.screen.title"), Description: v.say("pair.request.screen")},
			picture.AskedForNumber)
		return asked{Request: &request{d.RequestNumber, screen}}
	}
	shown := &question{ID: q.ID, Kind: questionKinds[q.Kind], To: fmt.Sprintf("/deed/%d/answer", d.Number), App: q.App.Name,
		Problem: v.language.ByBase(q.App.Problem), Text: v.language.Said(q.Sentence).Text, Danger: d.Deed.Kind == owner.Lockdown}
	for _, c := range q.Changes {
		shown.Changes = append(shown.Changes, change{v.language.Will(c), c.Opens})
	}
	if q.Kind == owner.Compare || q.Kind == owner.TellWords {
		shown.Code = code{q.Code, v.say("pair.role." + q.Code.Role.Name()), v.say("pair.allows." + q.Code.Role.Name())}
		if q.Code.Role == basev1.Role_ROLE_UNSPECIFIED {
			shown.Code.Role, shown.Code.Allows = "?", ""
		}
		shown.Screen = picture.Screen(picture.Words{Title: v.say("pair.screen.title"), Description: v.say("pair.compare.screen")},
			picture.AskedForCode)
	}
	return asked{Question: shown}
}

// steps are what was done and what comes. A change that opens something is tried first: it is
// undone unless this App confirms it, which it does by itself.
func (v *view) steps(d owner.DeedState) []step {
	if isPairing(d) {
		return v.pairingSteps(d)
	}
	over, asked := !d.Ended.IsZero(), d.Question != nil
	var steps []step
	if d.Deed.Kind.Changes() {
		yes := step{Key: "yes", Text: v.say("deed.step.yes"), Class: "done"}
		switch {
		case asked:
			yes.Class = "now"
		case over && d.Err != nil && len(d.Steps) == 0:
			yes.Class = ""
		}
		steps = append(steps, yes)
	}
	for n, said := range d.Steps {
		text := v.language.Said(said)
		s := step{Key: fmt.Sprint(n), Text: text.Text, Class: "done", Lang: text.Lang}
		if !over && !asked && n == len(d.Steps)-1 {
			s.Class = "now"
		}
		steps = append(steps, s)
	}
	access := v.base.Look.Access
	mayBeTried := d.Deed.Kind.Tried() || d.Deed.Kind == owner.SetRole // another App's try says nothing of this deed
	if mayBeTried && d.Agreed && !over && access != nil && access.Trying {
		for n := range steps {
			steps[n].Class = "done"
		}
		steps = append(steps, step{Key: "try", Class: "now", Text: v.say("deed.step.try"), More: v.say("deed.step.try.more"),
			Until: &deadline{v.base.At.Add(access.UndoneIn), v.say("overview.try.ends")}})
	}
	last := step{Key: "end", Text: v.say("deed.step.end")}
	switch {
	case over && d.Err != nil:
		last.Class, last.Text = "failed", v.say("deed.step.failed")
	case over:
		last.Class, last.Text = "done", v.say("deed.step.done")
	case !asked && len(d.Steps) == 0:
		last.Class = "now"
	}
	return append(steps, last)
}

func (v *view) pairingSteps(d owner.DeedState) []step {
	const asking, accepting, comparing, letting, all = 0, 1, 2, 3, 4
	at := asking
	switch {
	case d.Made != nil:
		at = all
	case d.Agreed:
		at = letting
	case d.Question != nil:
		at = comparing
	case d.RequestNumber != "":
		at = accepting
	}
	var steps []step
	for n, key := range []string{"ask", "accept", "compare", "letin"} {
		s := step{Key: key, Text: v.say("pair.step." + key)}
		switch {
		case n < at:
			s.Class = "done"
		case n == at && d.Err != nil:
			s.Class = "failed"
		case n == at:
			s.Class = "now"
		}
		steps = append(steps, s)
	}
	return steps
}

// stop is how to stop a deed, and in which state that leaves the Base.
type stop struct{ To, Text string }

// stopping is nil once the deed has ended.
func (v *view) stopping(d owner.DeedState) *stop {
	if !d.Ended.IsZero() {
		return nil
	}
	s := &stop{fmt.Sprintf("/deed/%d/stop", d.Number), v.say("deed.stop.sent")}
	switch {
	case isPairing(d):
		s.Text = v.say("pair.stop.text")
	case !d.Deed.Kind.Changes():
		s.Text = v.say("deed.stop.look")
	case d.Deed.Kind.Tried(), d.Deed.Kind == owner.SetRole:
		s.Text = v.say("deed.stop.text")
	}
	return s
}

// ending is how a deed ended.
type ending struct {
	Result, Leaves words.Text
	Problem        *words.Text
	Next, NextText string
	// Links are what a person may do next with a Base that was just paired.
	Links []link
}

// ending is nil while the deed is under way.
func (v *view) ending(d owner.DeedState) *ending {
	if d.Ended.IsZero() {
		return nil
	}
	e := &ending{Result: v.language.Said(d.Result), Leaves: v.language.Said(d.Leaves), Problem: v.problem(d.Err)}
	switch {
	case d.Made != nil:
		made := owner.Base{Base: *d.Made}
		e.Next, e.NextText = addressOf(made, first), v.say("pair.done.next", d.Made.Name)
		for _, page := range []string{"security", "node", "people"} {
			e.Links = append(e.Links, link{Address: addressOf(made, page), Name: v.say("pair.done." + page)})
		}
	case isPairing(d):
		e.Next, e.NextText = "/pair", v.say("pair.again")
	case d.Err == nil && d.Deed.Kind == owner.EnableSSH:
		e.Next, e.NextText = addressOf(v.base, "security")+"#security-login", v.say("deed.next.ssh")
	case d.Err == nil && d.Deed.Kind == owner.Expose:
		e.Next, e.NextText = addressOf(v.base, "node")+"#node-wallet", v.say("deed.next.wallet")
	default:
		e.Next, e.NextText = v.back(d), v.say("deed.next", v.base.Name)
	}
	return e
}

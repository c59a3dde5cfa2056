package posture

import (
	"slices"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// Event is one line of the history: a document, or a restriction.
type Event struct {
	// At is by the clock of the computer that signed or recorded it. A clock can be wrong;
	// the order of events cannot.
	At time.Time `json:"at"`
	// Revision is that of the document, or during which the restriction was
	// recorded.
	Revision uint64 `json:"revision"`
	// Restriction is its number; 0 for a document.
	Restriction uint64 `json:"restriction,omitempty"`
	// By says who, for people.
	By string `json:"by"`
	// Note says why; it may be empty.
	Note string `json:"note,omitempty"`
	// Changes are the differences to what was in force before, with each lease at
	// its whole length.
	Changes []Change `json:"changes"`
}

// recorded is an Event and its author.
type recorded struct {
	Event
	origin systemv1.PostureDocument_Origin // unspecified for a restriction
	actor  Actor                           // of a restriction
}

// History tells what happened, oldest first, as far back as the Base keeps it.
func (v *View) History() []Event {
	var events []Event
	for _, e := range v.chain.history() {
		events = append(events, e.Event)
	}
	return events
}

func (c *chain) history() []recorded {
	var events []recorded
	before := &entry{posture: Factory()} // what the first that is kept is compared with
	var activeBefore []Restriction
	for i := range c.entries {
		e := &c.entries[i]
		active := e.active
		event := documentEvent(before, e)
		event.Changes = Diff(asGranted(before, activeBefore), asGranted(e, active))
		events = append(events, recorded{event, e.doc.GetOrigin(), 0})
		for _, r := range c.recordedUnder(i) {
			closed := append(slices.Clone(active), r)
			events = append(events, recorded{Event{
				At: r.RecordedAt, Revision: r.Revision, Restriction: r.Number, By: actorName(r.Actor),
				Changes: Diff(asGranted(e, active), asGranted(e, closed)),
			}, 0, r.Actor})
			active = closed
		}
		before, activeBefore = e, active
	}
	return events
}

// recordedUnder returns the restrictions recorded while entry i was the last.
func (c *chain) recordedUnder(i int) []Restriction {
	list := c.since(c.entries[i].restrictions)
	if i+1 < len(c.entries) {
		list = slices.DeleteFunc(list, func(r Restriction) bool { return r.Number > c.entries[i+1].restrictions })
	}
	return list
}

// asGranted is what an entry has in force while none of its leases has run.
func asGranted(e *entry, active []Restriction) Effective {
	return effective(e.doc.GetRevision(), e.posture, active, fullLength(e.posture))
}

func fullLength(p Posture) []RunningLease {
	var running []RunningLease
	for _, g := range p.grants() { // one without an end needs none
		running = append(running, RunningLease{g.Kind, g.GrantedIn, g.Length})
	}
	return running
}

func documentEvent(before, e *entry) Event {
	event := Event{At: time.Unix(e.doc.GetSignedAt(), 0), Revision: e.doc.GetRevision(), Note: e.doc.GetNote()}
	switch e.doc.GetOrigin() {
	case systemv1.PostureDocument_ORIGIN_FACTORY:
		event.By = "the factory"
	case systemv1.PostureDocument_ORIGIN_CEREMONY:
		event.By = "a pairing at the Base"
	case systemv1.PostureDocument_ORIGIN_LOCAL:
		event.By = "the Base's console"
	case systemv1.PostureDocument_ORIGIN_UNDO:
		event.By = "the Base, which undid the previous revision"
	case systemv1.PostureDocument_ORIGIN_OWNER:
		event.By = "an owner's App"
		if app, found := findApp(before.posture.Apps, SigningKey(e.signed.GetSigner())); found {
			event.By = "the App '" + app.Name + "'"
		}
	}
	return event
}

func actorName(actor Actor) string {
	switch actor {
	case ActorMiddleware:
		return "an App"
	case ActorConsole:
		return "the Base's console"
	case ActorClock:
		return "the end of its time"
	case ActorReboot:
		return "a reboot"
	default:
		return "the Base"
	}
}

// News is one thing that is to be told of.
type News struct {
	Event
	// Ended tells why something has ended by itself; empty if somebody has ended it.
	Ended string
	// ByMiddleware: an App closed it, and only the Middleware knows which.
	ByMiddleware bool
}

// ended are the actors that are no one.
var ended = map[Actor]string{ActorClock: "its time is over", ActorReboot: "the machine was restarted"}

// News is what happened after a revision and a restriction, each once: of a change that
// was undone, it tells only the undoing. It leaves out the changes of a pairing, which
// have events of their own.
func (l *Ledger) News(revision, restriction uint64) []News {
	var news []News
	var last Event // the last document
	for _, e := range l.chain.history() {
		told := News{Event: e.Event, Ended: ended[e.actor], ByMiddleware: e.actor == ActorMiddleware}
		isNew := e.Revision > revision
		if e.Restriction != 0 {
			isNew = e.Restriction > restriction
		}
		switch {
		case !isNew || e.origin == systemv1.PostureDocument_ORIGIN_FACTORY || e.origin == systemv1.PostureDocument_ORIGIN_CEREMONY:
		case e.origin == systemv1.PostureDocument_ORIGIN_UNDO:
			news = slices.DeleteFunc(news, func(n News) bool { return n.Restriction == 0 && n.Revision == last.Revision })
			told.By, told.Changes = last.By, []Change{Change{Kind: "undone"}.Said()}
			news = append(news, told)
		default:
			if told.Changes = slices.DeleteFunc(slices.Clone(e.Changes),
				func(c Change) bool { return c.Field == "app.role" }); len(told.Changes) > 0 {
				news = append(news, told)
			}
		}
		if e.Restriction == 0 {
			last = e.Event
		}
	}
	return news
}

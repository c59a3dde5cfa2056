package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

const (
	// lookTime is how long a question must be on the screen before a key answers it, as at the
	// Base's console: a key that was meant for something else, or is held down, must not answer.
	lookTime = time.Second
	// noticeTime is how long a notice stays on the screen.
	noticeTime = 15 * time.Second
	// maxEvents is how many events of each Base are kept.
	maxEvents = 200
	// maxFollowed is how many Bases are asked all the time. Any further Base is asked while it is
	// chosen.
	maxFollowed = 8
)

// The messages that Update takes, besides keys and sizes.
type (
	// tick: time has passed.
	tick struct{}
	// The news of the Bases.
	knows    = owner.Knows
	nearby   = owner.Heard
	searched = owner.Searched
	healthy  = owner.Healthy
	looked   = owner.Looked
	audited  = owner.Audited
	happened = owner.Happened
	doubted  = owner.Doubt
	lost     = owner.Silence
	// requested, compare and paired are the steps of a pairing.
	requested struct{ number string }
	compare   struct {
		id   int
		code client.Code
	}
	paired struct {
		base client.Base
		err  error
	}
	// asked: a deed is done only if the user says yes to its changes.
	asked struct {
		id      int
		changes []client.PostureChange
	}
	progressed struct{ step string }
	done       struct {
		text string
		err  error
	}
)

// An order is something that Update wants done outside.
type (
	// orderFollow: ask and listen to these Bases, and no others.
	orderFollow struct{ bases []string }
	// orderLook: ask a Base now.
	orderLook struct {
		base  string
		audit bool
	}
	orderBases struct{}
	orderPair  struct{ addresses []string }
	orderDo    struct {
		base string
		deed Deed
	}
	// orderAnswer answers compare or asked.
	orderAnswer struct {
		id  int
		yes bool
	}
	// orderGiveUp ends the pairing or the deed that is under way.
	orderGiveUp struct{}
	orderQuit   struct{}
)

// state is the state of a paired Base.
type state int

const (
	connecting state = iota
	answering
	silent // it did not answer, and is asked again
	ended  // it is not asked again: revoked, or to be paired again
)

// base is what is known about a paired Base.
type base struct {
	client.Base
	state state
	look  Look
	at    time.Time // of look.Access, look.Window, look.Bans
	// problem is one sentence; again is when the Base is asked again.
	problem string
	again   time.Time

	findings     []*basev1.Finding
	hasAudit     bool
	auditedAt    time.Time
	auditing     bool
	auditProblem string
	events       []event // the newest last
}

// event is something that happened, with how many times in a row.
type event struct {
	first, at time.Time
	times     int
	text      string
}

// found is an announced Base.
type found struct {
	client.Nearby
	id, round int
}

// The pages about a Base.
const (
	pageOverview = iota
	pageAccess
	pageApps
	pageSecurity
	pageEvents
	pageNode
	pageServices
)

// notice is one sentence about what was done, or was not.
type notice struct {
	text string
	bad  bool
	at   time.Time
}

// working is a deed under way.
type working struct {
	base string
	deed Deed
	step string
	// question is on the screen; nil: none.
	question *question
}

type question struct {
	id      int
	changes []client.PostureChange
	since   time.Time // since when it has been on the screen
	early   bool      // a key came too early
}

// choice is a list of which one has to be chosen.
type choice struct {
	title string
	deeds []Deed
	names []string
	at    int
}

// phase is the step of a pairing.
type phase int

const (
	choosing phase = iota + 1
	typing
	requesting
	comparing
	refusing // the user said no or cancelled; the end is awaited
	waiting  // the user said yes; the Base's yes is awaited
	finished
)

type pairing struct {
	phase   phase
	at      int    // which nearby Base is marked
	typed   string // an address
	with    string // the name of the Base asked, for people
	closed  bool   // the Base says that it lets no App in now
	since   time.Time
	number  string
	code    client.Code
	id      int
	shown   time.Time // since when the code has been on the screen
	early   bool
	result  string
	problem bool
}

// model is the whole state of the dashboard. It does no input and no output, and knows only the
// time that it is given.
type model struct {
	now           time.Time
	width, height int
	ascii         bool
	eventText     func(*basev1.Event) string
	lookTime      time.Duration // replaced in tests

	bases    []*base
	storage  string // why the pairings cannot be read
	nearby   []found
	round    int
	searches string // why the search fails

	wanted string // the Base to choose first; empty: the first one
	chosen string // key of the chosen entry
	page   int    // one of pages
	scroll int
	help   bool
	helped int // scroll position of the help

	notice  notice
	working *working
	choice  *choice
	pairing *pairing
	left    bool // the user has quit
}

func newModel(now time.Time, wanted string, ascii bool, eventText func(*basev1.Event) string) *model {
	return &model{now: now, width: usualWidth, height: usualHeight, ascii: ascii, wanted: wanted, eventText: eventText, lookTime: lookTime}
}

// update takes one message, and returns orders.
func (m *model) update(now time.Time, message any) []any {
	m.now = now
	if m.left {
		return nil
	}
	before := m.front()
	orders := m.take(message)
	if m.front() != before {
		m.seenAgain() // the user has not read what was not on the screen
	}
	return orders
}

// front is the part of the screen in which keys have another meaning.
type front struct {
	tooSmall, help, overview bool
	pairing                  phase
	question                 int
	choice                   *choice
}

func (m *model) front() front {
	switch {
	case m.tooSmall():
		return front{tooSmall: true}
	case m.help:
		return front{help: true}
	case m.pairing != nil:
		return front{pairing: m.pairing.phase}
	case m.working != nil && m.working.question != nil:
		return front{question: m.working.question.id}
	case m.choice != nil:
		return front{choice: m.choice}
	}
	return front{overview: true}
}

// seenAgain restarts the time in which no key answers.
func (m *model) seenAgain() {
	if m.pairing != nil {
		m.pairing.shown, m.pairing.early = m.now, false
	}
	if m.working != nil && m.working.question != nil {
		m.working.question.since, m.working.question.early = m.now, false
	}
}

func (m *model) take(message any) []any {
	switch e := message.(type) {
	case size:
		m.resize(e)
	case press:
		return m.press(e)
	case pasted:
		m.paste(string(e))
	case knows:
		return m.know(e)
	case nearby:
		m.hear(e)
	case searched:
		m.endRound(e)
	case healthy:
		if b := m.base(e.Base); b != nil && b.look.Info != nil {
			b.look.Info = e.Info
		}
	case looked:
		m.look(e)
	case audited:
		m.audit(e)
	case happened:
		m.happen(e)
	case doubted:
		if b := m.base(e.Base); b != nil {
			b.state = connecting
		}
	case lost:
		return m.lose(e)
	case requested, compare, paired:
		return m.pairingWent(e)
	case asked:
		if w := m.working; w != nil {
			w.question = &question{id: e.id, changes: e.changes}
		}
	case progressed:
		if m.working != nil {
			m.working.step = e.step
		}
	case done:
		return m.finish(e)
	}
	return nil
}

func (m *model) base(name string) *base {
	at := slices.IndexFunc(m.bases, func(b *base) bool { return b.Name == name })
	if at < 0 {
		return nil
	}
	return m.bases[at]
}

// know takes the list of pairings.
func (m *model) know(e knows) []any {
	m.storage = client.Explain(e.Err)
	if e.Err != nil {
		return nil
	}
	var list []*base
	var orders []any
	for _, known := range e.Bases {
		if at := slices.IndexFunc(list, func(b *base) bool { return b.Name == known.Name }); at >= 0 {
			if known.State.Usable() { // a revoked one may have the name of the one that replaces it
				list[at].Base = known
			}
			continue
		}
		b := m.base(known.Name)
		if b == nil || b.AppID != known.AppID {
			if b != nil {
				orders = append(orders, orderLook{base: b.Name}) // paired again
			}
			b = &base{}
		}
		b.Base = known
		list = append(list, b)
	}
	m.bases = list
	m.choose()
	return append(m.follow(), orders...)
}

// Keys of the entries that can be chosen.
func keyOf(b *base) string          { return "paired " + b.Name }
func (f found) key() string         { return fmt.Sprintf("found %d", f.id) }
func (m *model) chosenAt() int      { return slices.Index(m.keys(), m.chosen) }
func (m *model) chosenIsNone() bool { return m.chosenAt() < 0 }

// keys lists the entries, in the order of the screen.
func (m *model) keys() []string {
	var keys []string
	for _, b := range m.bases {
		keys = append(keys, keyOf(b))
	}
	for _, f := range m.strangers() {
		keys = append(keys, f.key())
	}
	return keys
}

// strangers are the Bases nearby that this App is not paired with.
func (m *model) strangers() []found {
	return slices.DeleteFunc(slices.Clone(m.nearby), func(f found) bool { return f.Known != "" })
}

// choose chooses an entry if none is chosen, or if the chosen one is gone.
func (m *model) choose() {
	keys := m.keys()
	if b := m.base(m.wanted); b != nil {
		m.chosen, m.wanted = keyOf(b), ""
		return
	}
	if m.chosenIsNone() && len(keys) > 0 {
		m.chosen, m.scroll = keys[0], 0
	}
}

// chosenBase is the chosen paired Base, nil if another entry is chosen.
func (m *model) chosenBase() *base {
	if at := m.chosenAt(); at >= 0 && at < len(m.bases) {
		return m.bases[at]
	}
	return nil
}

func (m *model) chosenFound() (found, bool) {
	strangers := m.strangers()
	if at := m.chosenAt() - len(m.bases); at >= 0 && at < len(strangers) {
		return strangers[at], true
	}
	return found{}, false
}

// follow says which Bases to ask.
func (m *model) follow() []any {
	var names []string
	for _, b := range m.bases {
		if b.State.Usable() && (len(names) < maxFollowed || b == m.chosenBase()) {
			names = append(names, b.Name)
		}
	}
	return []any{orderFollow{names}}
}

func (m *model) hear(e nearby) {
	f := found{Nearby: e.Found, id: e.ID, round: m.round}
	if at := slices.IndexFunc(m.nearby, func(o found) bool { return o.id == e.ID }); at >= 0 {
		m.nearby[at] = f
	} else if len(m.nearby) < client.MaxNearby {
		m.nearby = append(m.nearby, f)
		slices.SortStableFunc(m.nearby, func(a, b found) int { return strings.Compare(a.Name, b.Name) })
	}
	m.choose()
}

func (m *model) endRound(e searched) {
	m.searches = client.Explain(e.Err)
	m.round++
	m.nearby = slices.DeleteFunc(m.nearby, func(f found) bool { return f.round < m.round-owner.RoundsKept })
	m.choose()
}

func (m *model) look(e looked) {
	b := m.base(e.Base)
	if b == nil {
		return
	}
	b.state, b.look, b.at, b.problem = answering, e.Look.Bounded(), m.now, ""
	if b.State == client.Pending {
		b.State = client.Active // the first answer makes it active
	}
}

func (m *model) audit(e audited) {
	b := m.base(e.Base)
	if b == nil {
		return
	}
	b.auditing, b.auditProblem = false, client.Explain(e.Err)
	if e.Err == nil {
		b.findings, b.hasAudit, b.auditedAt = owner.Most(e.Findings), e.Known, m.now
	}
}

func (m *model) happen(e happened) {
	b := m.base(e.Base)
	if b == nil {
		return
	}
	if s := e.Event.GetSubscribed(); s != nil {
		if s.GetGap() {
			b.note(m.now, "The Base no longer keeps all earlier events.")
		}
		return
	}
	if app := cmp.Or(e.Event.GetSessionStarted().GetApp(), e.Event.GetSessionEnded().GetApp()); app.GetId() == b.AppID && app != nil {
		return // that is this dashboard, or commands of the same App
	}
	b.note(e.Event.GetTime().AsTime(), bounded(m.eventText(e.Event)))
}

// sameWithin is how far back to look for an event with the same text: two Apps that come and go
// must not push everything else off the page.
const sameWithin = 8

// note adds an event. If the same one was noted shortly before, that entry moves to the end, and
// is counted.
func (b *base) note(at time.Time, text string) {
	e := event{first: at, at: at, times: 1, text: text}
	for n := len(b.events) - 1; n >= max(0, len(b.events)-sameWithin); n-- {
		if same := b.events[n]; same.text == text {
			e.first, e.times = same.first, same.times+1
			b.events = slices.Delete(b.events, n, n+1)
			break
		}
	}
	b.events = append(b.events, e)
	if more := len(b.events) - maxEvents; more > 0 {
		b.events = slices.Clone(b.events[more:])
	}
}

func (m *model) lose(e lost) []any {
	b := m.base(e.Base)
	if b == nil {
		return nil
	}
	b.state, b.problem, b.again, b.auditing = silent, client.Explain(e.Err), m.now.Add(e.Again), false
	if e.Final {
		b.state = ended
		m.say(sentence(b.problem), true)
		return []any{orderBases{}} // it may be revoked, or deleted
	}
	return nil
}

func (m *model) finish(e done) []any {
	w := m.working
	m.working = nil
	if w == nil {
		return nil
	}
	m.say(e.text, false)
	if e.err != nil {
		m.say(sentence(client.Explain(e.err)), true)
	}
	return []any{orderLook{w.base, w.deed.Kind == Fix}}
}

func (m *model) say(text string, bad bool) { m.notice = notice{text, bad, m.now} }

// sentence writes an error's text as a sentence.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + strings.TrimRight(text[size:], ".") + "."
}

func (m *model) pairingWent(message any) []any {
	p := m.pairing
	if p == nil {
		return nil
	}
	switch e := message.(type) {
	case requested:
		p.number = e.number
	case compare:
		p.phase, p.code, p.id = comparing, e.code, e.id
		m.help = false
	case paired:
		p.phase, p.problem = finished, e.err != nil
		switch {
		case e.err != nil:
			p.result = sentence(client.Explain(e.err))
		case e.base.State == client.Pending:
			p.result = fmt.Sprintf("Paired with %q, but it has not answered a first call yet. This dashboard keeps trying; after three minutes the pairing lapses.", e.base.Name)
		default:
			p.result = fmt.Sprintf("Paired with %q. This App is %q there, with the role %s.", e.base.Name, e.base.AppName,
				words.English.Role(e.base.Role))
		}
		if e.err == nil {
			m.wanted = e.base.Name
		}
		return []any{orderBases{}}
	}
	return nil
}

// maxSide bounds the side of a screen, in cells: the size that a terminal reports is not trusted
// without limit.
const maxSide = 1000

func (m *model) resize(s size) {
	m.width, m.height = min(max(s.width, 0), maxSide), min(max(s.height, 0), maxSide)
}

// farewell says, after the user has quit, what remains of the work under way. made is the result
// of the pairing, if it succeeded at that very moment.
func (m *model) farewell(made *client.Base) string {
	switch p := m.pairing; {
	case p != nil && p.phase == waiting && made != nil:
		return fmt.Sprintf("The pairing with %q was completed just as you left.", client.Printable(made.Name))
	case p != nil && p.phase == requesting:
		return "You left before the Base had answered: no App was let in, and nothing is stored. The request number is no longer valid."
	case p != nil && p.phase == comparing:
		return "You left before you had said yes to the code: the Base was told no, no App was let in, and nothing is stored."
	case p != nil && p.phase == waiting:
		return "You had said yes to the code, and left before the Base had: nothing is stored here. If somebody still says yes at the Base, its half of the pairing lapses within three minutes. Pair again to use the Base."
	}
	switch w := m.working; {
	case w != nil && w.question != nil:
		return "You left before you had said yes: nothing was changed."
	case w != nil:
		return "You left while the Base was changing something. A change on trial undoes itself within a minute unless an App confirms it; 'bitbox-app posture show' shows the result."
	}
	return ""
}

package dashboard

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
)

// The orders of a key. The owner's methods have the same names.
type (
	refresh struct {
		base  string // empty: only the list of pairings
		audit bool
	}
	do struct {
		base string // empty: a pairing
		deed owner.Deed
	}
	answer struct {
		deed, question uint64
		yes            bool
	}
	stop struct{ deed uint64 }
	quit struct{}
)

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

// choice is a list of which one has to be chosen.
type choice struct {
	title   string
	options []option
	at      int
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

// pairing is what the screen knows of a pairing beside the deed itself.
type pairing struct {
	at      int    // which stranger is marked
	typing  bool   // an address is typed
	typed   string // so far
	with    string // the name of the Base asked, for people; empty before it is
	closed  bool   // the Base says that it lets no App in now
	deed    uint64 // 0: it has not begun
	refused bool
	failure string // why it could not begin
}

// model is what the screen shows: the state of the owner's Bases, and where the user is. It does no
// input and no output, and knows only the time that it is given.
type model struct {
	now           time.Time
	width, height int
	ascii         bool
	lookTime      time.Duration // replaced in tests

	state owner.State

	wanted string // the name of the Base to choose first; empty: the first one
	chosen entry
	page   int // one of pages
	scroll int
	help   bool
	helped int // scroll position of the help

	notice  notice
	choice  *choice
	pairing *pairing
	since   time.Time // since when the question, or the code, has been on the screen
	early   bool      // a key came too early
	left    bool      // the user has quit
}

func newModel(now time.Time, wanted string, ascii bool) *model {
	return &model{now: now, width: usualWidth, height: usualHeight, ascii: ascii, wanted: wanted, lookTime: lookTime}
}

// update takes a state of the owner, a key, or a size, and returns what a key asks for.
func (m *model) update(now time.Time, message any) (orders []any) {
	m.now = now
	if m.left {
		return nil
	}
	before := m.front()
	switch e := message.(type) {
	case owner.State:
		m.take(e)
	case size:
		m.resize(e)
	case press:
		orders = m.press(e)
	case pasted:
		m.paste(string(e))
	}
	if m.front() != before { // the user has not read what was not on the screen
		m.since, m.early = m.now, false
	}
	return orders
}

// front is the part of the screen in which keys have another meaning.
type front struct {
	tooSmall, help bool
	pairing        phase
	question       uint64
	choice         *choice
}

func (m *model) front() front {
	asks := m.asking()
	switch {
	case m.tooSmall():
		return front{tooSmall: true}
	case m.help:
		return front{help: true}
	case m.pairing != nil:
		return front{pairing: m.phase()}
	case asks != nil:
		return front{question: asks.Question.ID}
	}
	return front{choice: m.choice}
}

// take takes a new state, and says what has ended.
func (m *model) take(s owner.State) {
	before, phase := m.state, m.phase()
	m.state = s
	for _, d := range s.Deeds {
		if old, _ := before.Deed(d.Number); d.Ended.IsZero() || !old.Ended.IsZero() || d.Deed.Kind == owner.Pair {
			continue
		}
		m.say(d.Result.String(), false)
		if d.Err != nil {
			m.say(strings.TrimSpace(explain(d.Err)+" "+d.Leaves.String()), true)
		}
	}
	for _, b := range s.Bases {
		if old, known := before.Base(b.ID()); known && b.Connection == owner.Ended && old.Connection != owner.Ended && b.Err != nil {
			m.say(explain(b.Err), true)
		}
	}
	if m.phase() == comparing && phase != comparing {
		m.help = false // a code does not wait
	}
	m.choose()
}

// entry is what can be chosen: a paired Base or, without one, a stranger.
type entry struct {
	base     *owner.Base
	stranger *owner.Announced
}

func (e entry) is(other entry) bool {
	if e.base != nil {
		return other.base != nil && e.base.ID() == other.base.ID()
	}
	return e.stranger != nil && other.stranger != nil && e.stranger.ID == other.stranger.ID
}

func (e entry) name() string {
	if e.base != nil {
		return e.base.Name
	}
	return e.stranger.Name
}

// entries lists what can be chosen, in the order of the screen.
func (m *model) entries() (list []entry) {
	for n := range m.state.Bases {
		list = append(list, entry{base: &m.state.Bases[n]})
	}
	for _, s := range m.strangers() {
		list = append(list, entry{stranger: &s})
	}
	return list
}

// strangers are the Bases nearby that this App is not paired with.
func (m *model) strangers() []owner.Announced {
	return slices.DeleteFunc(slices.Clone(m.state.Nearby), func(s owner.Announced) bool { return s.Known != "" })
}

// choose chooses an entry if none is chosen, or if the chosen one is gone.
func (m *model) choose() {
	entries := m.entries()
	if at := slices.IndexFunc(entries, func(e entry) bool { return e.base != nil && e.base.Name == m.wanted }); at >= 0 {
		m.chosen, m.wanted = entries[at], ""
		return
	}
	switch at := m.chosenAt(); {
	case at >= 0:
		m.chosen = entries[at] // as it is now
	case len(entries) > 0:
		m.chosen, m.scroll = entries[0], 0
	default:
		m.chosen = entry{}
	}
}

func (m *model) chosenAt() int { return slices.IndexFunc(m.entries(), m.chosen.is) }

// working is the newest deed under way, beside a pairing; nil: none.
func (m *model) working() *owner.DeedState {
	return m.deed(func(d owner.DeedState) bool { return d.Ended.IsZero() })
}

// asking is the deed whose question is on the screen; nil: none.
func (m *model) asking() *owner.DeedState {
	return m.deed(func(d owner.DeedState) bool { return d.Question != nil })
}

func (m *model) deed(is func(owner.DeedState) bool) *owner.DeedState {
	at := slices.IndexFunc(m.state.Deeds, func(d owner.DeedState) bool { return d.Deed.Kind != owner.Pair && is(d) })
	if at < 0 {
		return nil
	}
	return &m.state.Deeds[at]
}

// phase is how far the pairing is; 0: there is none.
func (m *model) phase() phase {
	p := m.pairing
	if p == nil {
		return 0
	}
	switch d := m.paired(); {
	case p.failure != "", !d.Ended.IsZero():
		return finished
	case p.with == "" && p.typing:
		return typing
	case p.with == "":
		return choosing
	case p.refused:
		return refusing
	case d.Question != nil:
		return comparing
	case d.Agreed:
		return waiting
	}
	return requesting
}

// paired is the deed of the pairing; empty before it has begun.
func (m *model) paired() owner.DeedState {
	if m.pairing == nil {
		return owner.DeedState{}
	}
	d, _ := m.state.Deed(m.pairing.deed)
	return d
}

// begun tells which deed was begun, or why not.
func (m *model) begun(order do, number uint64, err error) {
	switch {
	case order.deed.Kind == owner.Pair && m.pairing != nil:
		m.pairing.deed, m.pairing.failure = number, explain(err)
	case err != nil:
		m.say(explain(err), true)
	}
}

// pairingResult is how the pairing has ended.
func (m *model) pairingResult() (text string, bad bool) {
	d := m.paired()
	switch {
	case m.pairing.failure != "":
		return m.pairing.failure, true
	case d.Made == nil:
		return explain(d.Err), true
	case d.Made.State == client.Pending:
		return fmt.Sprintf("Paired with %q, but it has not answered a first call yet. This dashboard keeps trying; after three minutes the pairing lapses.", d.Made.Name), false
	}
	return fmt.Sprintf("Paired with %q. This App is %q there, with the role %s.", d.Made.Name, d.Made.AppName,
		words.English.Role(d.Made.Role)), false
}

func (m *model) say(text string, bad bool) { m.notice = notice{text, bad, m.now} }

// explain writes an error as a sentence; nil: none.
func explain(err error) string {
	text := client.Explain(err)
	if text == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + strings.TrimRight(text[size:], ".") + "."
}

// maxSide bounds the side of a screen, in cells: the size that a terminal reports is not trusted
// without limit.
const maxSide = 1000

func (m *model) resize(s size) {
	m.width, m.height = min(max(s.width, 0), maxSide), min(max(s.height, 0), maxSide)
}

// farewell says, after the user has quit, what remains of the work under way. made is the result of
// the pairing, if it succeeded at that very moment.
func (m *model) farewell(made *client.Base) string {
	switch phase := m.phase(); {
	case phase == waiting && made != nil:
		return fmt.Sprintf("The pairing with %q was completed just as you left.", client.Printable(made.Name))
	case phase == requesting:
		return "You left before the Base had answered: no App was let in, and nothing is stored. The request number is no longer valid."
	case phase == comparing:
		return "You left before you had said yes to the code: the Base was told no, no App was let in, and nothing is stored."
	case phase == waiting:
		return "You had said yes to the code, and left before the Base had: nothing is stored here. If somebody still says yes at the Base, its half of the pairing lapses within three minutes. Pair again to use the Base."
	}
	switch working, asks := m.working(), m.asking(); {
	case asks != nil:
		return "You left before you had said yes: nothing was changed."
	case working != nil:
		return "You left while the Base was changing something. A change on trial undoes itself within a minute unless an App confirms it; 'bitbox-app posture show' shows the result."
	}
	return ""
}

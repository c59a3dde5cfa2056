package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// How long a question must be on the screen before one key can answer it: a bounce, or a key
// meant for the question before, must not answer it.
const (
	lookTime     = 500 * time.Millisecond
	lookTimeCode = time.Second
)

// leftAlone is how long an opened page stays without a key.
const leftAlone = time.Minute

// key is a key that was pressed, and when.
type key struct {
	kind keyKind
	r    rune // of keyRune
	at   time.Time
}

type keyKind int

const (
	keyRune keyKind = iota + 1
	keyEnter
	keyEscape
	keyBackspace
	keyQuit       // Ctrl-C: for a console that was started by hand
	keyYes        // one button
	keyNo         // the other one
	keyBothHeld   // both, for holdBoth
	keyOtherThing // arrows and the like
)

// page is the page that the user has opened. Everything else on the screen follows from the
// helper's reports.
type page int

const (
	pageNone page = iota
	pageOpen
	pageReset        // the name is to be typed
	pageResetButtons // both buttons are to be held again
)

// subject is what a question is about. Two are equal when an answer to one answers the other.
type subject struct {
	asked    question
	number   uint32
	role     basev1.Role // the role an owner has ordered; a yes is for this one
	ceremony pairing.CeremonyID
}

// order is the decision of a key, to be carried to the helper.
type order struct {
	what     orderKind
	number   uint32
	role     basev1.Role
	ceremony pairing.CeremonyID
}

type orderKind int

const (
	orderNothing orderKind = iota
	orderAccept
	orderYes
	orderNo
	orderOpen
	orderClose
	orderReset
	orderQuit
)

// desk is what the screen knows: the helper's last report, and the user's progress. It does no
// I/O. The helper checks every decision again.
type desk struct {
	reached   bool // the helper answers
	resetting bool
	summary   *systemv1.Summary
	snapshot  *systemv1.Snapshot
	seenAt    time.Time // when the snapshot came

	page     page
	touched  time.Time // the last key
	typed    string    // digits of a number or a code; on pageReset the name
	chosen   bool      // number was accepted here, and the role is asked
	number   uint32
	roleAt   int // in roleChoices
	declined []uint32
	notice   string
	toldAt   time.Time // when the helper reported what is in notice
	mistyped string    // what to say when the helper rejects the pairing: another code was typed

	// The question that was on the screen when it was last drawn, and since when.
	drawn   subject
	drawnAt time.Time
	// answered was answered, and stays on the screen until the helper reports the result.
	answered subject
}

// roleChoices are in the order in which they are shown.
var roleChoices = []basev1.Role{basev1.Role_ROLE_VIEWER, basev1.Role_ROLE_OPERATOR, basev1.Role_ROLE_OWNER}

// More questions, in addition to those of the terminal.
const (
	shallOpen question = iota + 100
	shallReset
	shallResetButtons
)

// lost: the helper does not answer. Its earlier reports no longer count.
func (d *desk) lost() {
	*d = desk{notice: "", resetting: d.resetting}
}

// see takes a report of the authority.
func (d *desk) see(s *systemv1.Snapshot, now time.Time) {
	before := d.snapshot
	d.snapshot, d.seenAt, d.reached = s, now, true
	if last := s.GetLast(); before != nil && last != nil && string(last.GetId()) != string(before.GetLast().GetId()) {
		d.notice, d.toldAt = outcome(last), now
		if last.GetOutcome() == systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE && d.mistyped != "" {
			d.notice = d.mistyped
		}
		d.mistyped = ""
	}
	if s.GetCeremony() != nil {
		d.page, d.chosen, d.declined = pageNone, false, nil
		if id, _ := pairing.CeremonyIDOf(s); id != ceremonyOf(before) {
			d.typed, d.notice = "", ""
		}
	}
	if !s.GetListening() {
		d.chosen, d.declined = false, nil
		if s.GetCeremony() == nil && d.page == pageNone {
			d.typed = ""
		}
	}
	if before.GetListening() && !s.GetListening() && s.GetCeremony() == nil && d.notice == "" {
		d.notice, d.toldAt = "Pairing is closed.", now
	}
}

func ceremonyOf(s *systemv1.Snapshot) pairing.CeremonyID {
	id, _ := pairing.CeremonyIDOf(s)
	return id
}

// requests are those that the user has not refused.
func (d *desk) requests() []uint32 {
	return slices.DeleteFunc(slices.Clone(d.snapshot.GetRequests()), func(n uint32) bool { return slices.Contains(d.declined, n) })
}

// subject is the present question. A code comes before everything else, and no request replaces
// it.
// request replaces it.
func (d *desk) subject() subject {
	switch c := d.snapshot.GetCeremony(); {
	case !d.reached || d.resetting:
		return subject{}
	case c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN && !c.GetBaseConfirmed() && !answeredByOwner(c):
		return subject{asked: isItEqual, ceremony: ceremonyOf(d.snapshot)}
	case c != nil:
		return subject{}
	case d.page == pageReset:
		return subject{asked: shallReset}
	case d.page == pageResetButtons:
		return subject{asked: shallResetButtons}
	case d.page == pageOpen:
		return subject{asked: shallOpen}
	case d.chosen:
		return subject{asked: whichRole, number: d.number}
	case d.snapshot.GetListening() && (d.typed != "" || len(d.requests()) > 1):
		return subject{asked: whichNumber, role: d.snapshot.GetWindowRole()}
	case len(d.requests()) == 1:
		return subject{asked: isItYours, number: d.requests()[0], role: d.snapshot.GetWindowRole()}
	}
	return subject{}
}

// wasDrawn: the frame of the present state is on the screen.
func (d *desk) wasDrawn(now time.Time) {
	s := d.subject()
	if s != d.drawn || d.drawnAt.IsZero() {
		d.drawn, d.drawnAt = s, now
	}
	if s != d.answered {
		d.answered = subject{}
	}
}

// tick closes a page that was left alone, and drops old notices.
func (d *desk) tick(now time.Time) {
	if now.Sub(d.touched) < leftAlone || now.Sub(d.toldAt) < leftAlone {
		return
	}
	d.page, d.chosen, d.typed, d.notice = pageNone, false, "", ""
}

// meant tells whether a key can be an answer to the question: the question had been on the screen
// for a while, and has not been answered yet.
func (d *desk) meant(k key) bool {
	look := lookTime
	if d.drawn.asked == isItEqual {
		look = lookTimeCode
	}
	return d.drawn == d.subject() && d.drawn != d.answered && !d.drawnAt.IsZero() && k.at.Sub(d.drawnAt) >= look
}

// press takes a key, and returns its decision.
func (d *desk) press(k key) order {
	d.touched = k.at
	if k.kind == keyQuit {
		return order{what: orderQuit}
	}
	if !d.reached || d.resetting {
		return order{}
	}
	s := d.subject()
	o := d.answer(k, s)
	if o.what != orderNothing && s.asked != nothing {
		d.answered = s
	}
	return o
}

func (d *desk) answer(k key, s subject) order {
	switch s.asked {
	case isItEqual:
		return d.pressCode(k, s)
	case isItYours:
		return d.pressRequest(k, s)
	case whichNumber:
		return d.pressNumber(k, s.role)
	case whichRole:
		return d.pressRole(k)
	case shallOpen:
		return d.pressOpen(k)
	case shallReset, shallResetButtons:
		return d.pressReset(k)
	}
	return d.pressOverview(k)
}

// letter is the key's letter in lower case, 0 if it has none.
func (k key) letter() rune {
	if k.kind != keyRune {
		return 0
	}
	return []rune(strings.ToLower(string(k.r)))[0]
}

func (k key) digit() bool { return k.kind == keyRune && k.r >= '0' && k.r <= '9' }

func (k key) yes() bool { return k.kind == keyYes || k.letter() == 'y' }
func (k key) no() bool  { return k.kind == keyNo || k.kind == keyEscape || k.letter() == 'n' }

// numberSize is how many digits numbers and codes have.
const numberSize = 6

// edit changes digits that are being typed.
func (d *desk) edit(k key) (edited bool) {
	switch {
	case k.digit() && len(d.typed) < numberSize:
		d.typed += string(k.r)
	case k.kind == keyBackspace && d.typed != "":
		d.typed = d.typed[:len(d.typed)-1]
	default:
		return false
	}
	return true
}

// pressCode: yes, no, or the code that the App shows.
func (d *desk) pressCode(k key, s subject) order {
	if d.edit(k) || !d.meant(k) {
		return order{}
	}
	switch {
	case k.kind == keyEnter && len(d.typed) == numberSize:
		number, _ := parseNumber(d.typed)
		d.typed = ""
		if code := d.snapshot.GetCeremony().GetCode(); noiseconn.FormatNumber(number) != code {
			d.mistyped = fmt.Sprintf("You typed %s, not %s. If the App showed that, somebody interfered.", noiseconn.FormatNumber(number), code)
			return order{what: orderNo, ceremony: s.ceremony}
		}
		return order{what: orderYes, ceremony: s.ceremony}
	case k.yes() && d.typed == "":
		return order{what: orderYes, ceremony: s.ceremony}
	case k.no():
		return order{what: orderNo, ceremony: s.ceremony}
	}
	return order{}
}

func (d *desk) pressRequest(k key, s subject) order {
	switch {
	case k.digit():
		d.edit(k)
	case k.yes() && d.meant(k):
		return d.accept(s.number, s.role)
	case k.letter() == 'r' && len(d.choices()) > 1 && d.snapshot.GetWindowRole() != 0 && d.meant(k):
		d.chosen, d.number, d.roleAt = true, s.number, 0
	case k.no() && d.meant(k):
		d.declined = append(d.declined, s.number)
		d.notice = "Not accepted. If your App shows a number after all, type it."
	case k.letter() == 'f' || k.kind == keyBothHeld:
		return d.pressOverview(k)
	}
	return order{}
}

func (d *desk) accept(number uint32, role basev1.Role) order {
	d.typed, d.number = "", number
	return order{what: orderAccept, number: number, role: role}
}

// pressNumber: digits and Enter; or with two buttons: no counts the digit up, yes goes on to the
// next.
func (d *desk) pressNumber(k key, role basev1.Role) order {
	if d.edit(k) {
		return order{}
	}
	switch {
	case k.kind == keyNo && len(d.typed) == 0, k.kind == keyNo && d.typed[len(d.typed)-1] == '9':
		d.typed = d.typed[:max(0, len(d.typed)-1)] + "0"
	case k.kind == keyNo:
		d.typed = d.typed[:len(d.typed)-1] + string(d.typed[len(d.typed)-1]+1)
	case k.kind == keyYes && len(d.typed) < numberSize:
		d.typed += "0"
	case k.kind == keyEnter && len(d.typed) == numberSize, k.kind == keyYes:
		number, _ := parseNumber(d.typed)
		return d.accept(number, role)
	case k.kind == keyEscape && d.typed != "":
		d.typed = ""
	case k.kind == keyEscape:
		d.declined = append(d.declined, d.requests()...)
		d.notice = "Not accepted. If your App shows a number after all, type it."
	case k.letter() == 'f' || k.kind == keyBothHeld:
		return d.pressOverview(k)
	}
	return order{}
}

// choices are the roles that may be given: an owner who has ordered the window has set the
// highest.
func (d *desk) choices() []basev1.Role {
	if ordered := d.snapshot.GetWindowRole(); ordered != basev1.Role_ROLE_UNSPECIFIED {
		return slices.DeleteFunc(slices.Clone(roleChoices), func(role basev1.Role) bool { return role > ordered })
	}
	return roleChoices
}

func (d *desk) pressRole(k key) order {
	choice, choices := -1, d.choices()
	switch {
	case k.digit() && int(k.r-'1') < len(choices) && k.r >= '1':
		choice = int(k.r - '1')
	case k.kind == keyNo:
		d.roleAt = (d.roleAt + 1) % len(choices)
	case k.kind == keyYes:
		choice = d.roleAt
	case k.no():
		d.chosen, d.declined, d.notice = false, append(d.declined, d.number), "Not accepted."
	}
	if choice < 0 || choice >= len(choices) || !d.meant(k) {
		return order{}
	}
	d.chosen = false
	return order{what: orderAccept, number: d.number, role: choices[choice]}
}

func (d *desk) pressOpen(k key) order {
	switch {
	case k.yes() && d.meant(k):
		d.page, d.notice = pageNone, ""
		return order{what: orderOpen}
	case k.no():
		d.page = pageNone
	}
	return order{}
}

// maxPhrase bounds the typed name, in characters.
const maxPhrase = 64

// pressReset needs the full name and Enter; or both buttons, held again.
func (d *desk) pressReset(k key) order {
	switch {
	case k.kind == keyBothHeld && d.page == pageResetButtons && d.meant(k),
		k.kind == keyEnter && d.page == pageReset && d.typed == resetPhrase(d.summary.GetNodeName()):
		d.page, d.typed = pageNone, ""
		return order{what: orderReset}
	case k.kind == keyRune && d.page == pageReset:
		if len([]rune(d.typed)) < maxPhrase {
			d.typed += string(k.r)
		}
	case k.kind == keyBackspace && d.typed != "":
		typed := []rune(d.typed)
		d.typed = string(typed[:len(typed)-1])
	case k.kind == keyEnter && d.typed != "":
		d.typed, d.notice = "", "That is not the requested text. Nothing was done."
	default: // Escape, Enter, one button
		d.page, d.typed, d.notice = pageNone, "", "The Base was not reset."
	}
	return order{}
}

// resetPhrase is the text to type: the name of the Base, if this screen can show it and any
// keyboard can type it.
func resetPhrase(name string) string {
	typable := name != ""
	for _, r := range name {
		typable = typable && r >= ' ' && r <= '~'
	}
	if !typable {
		return "factory reset"
	}
	return name
}

func (d *desk) pressOverview(k key) order {
	s := d.snapshot
	switch {
	case s.GetCeremony() != nil:
		// A user who has said yes may still say no, while the App has not confirmed.
		if k.no() && s.GetCeremony().GetPhase() != systemv1.Ceremony_PHASE_UNSPECIFIED {
			return order{what: orderNo, ceremony: ceremonyOf(s)}
		}
	case k.digit() && s.GetListening():
		d.edit(k)
	case (k.letter() == 'o' || k.kind == keyYes) && !s.GetListening():
		d.page = pageOpen
	case k.letter() == 'c' && s.GetWindowOpen():
		return order{what: orderClose}
	case k.letter() == 'f':
		d.page, d.typed, d.notice = pageReset, "", ""
	case k.kind == keyBothHeld:
		d.page, d.typed, d.notice = pageResetButtons, "", ""
	case k.kind == keyEscape || k.kind == keyEnter:
		d.notice = ""
	}
	return order{}
}

// carried takes the result of an order.
func (d *desk) carried(o order, refusal string, roleRequired bool) {
	switch {
	case roleRequired:
		d.chosen, d.number, d.roleAt = true, o.number, 0
	case refusal != "":
		d.notice, d.answered = refusal, subject{}
	case o.what == orderReset:
		d.resetting = true
	}
}

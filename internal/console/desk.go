package console

import (
	"slices"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// How long a question has to stand on the screen before it can be answered with
// one key: a bounce, or a key pressed a moment too late for the one before, does
// not answer it.
const (
	lookTime     = 500 * time.Millisecond
	lookTimeCode = time.Second
)

// leftAlone is how long a page that somebody has opened stays without a key.
const leftAlone = time.Minute

// key is what somebody did, and when.
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
	keyQuit       // Ctrl-C: for who has started the console by hand
	keyYes        // a button
	keyNo         // the other one
	keyBothHeld   // both, for holdBoth
	keyOtherThing // arrows and the like
)

// page is what a human has asked for. Everything else on the screen follows from
// what the helper says.
type page int

const (
	pageNone page = iota
	pageOpen
	pageReset        // the name is to be typed
	pageResetButtons // both buttons are to be held once more
)

// subject is what a question is about. Two are equal when an answer to the one
// answers the other.
type subject struct {
	asked    question
	number   uint32
	role     basev1.Role // that an owner has ordered; whoever says yes says it to this one
	ceremony pairing.CeremonyID
}

// order is what a key has decided, to be carried to the helper.
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

// desk is what the screen knows: the last that the helper has said, and how far
// the human is. It does no I/O, and decides nothing that the helper does not decide
// again.
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
	toldAt   time.Time // when the helper told what stands in notice

	// What was on the screen when it was drawn last, and since when.
	drawn   subject
	drawnAt time.Time
	// answered was answered, and stands there until the helper says what came of it.
	answered subject
}

// roleChoices stand in the order in which they are shown.
var roleChoices = []basev1.Role{basev1.Role_ROLE_VIEWER, basev1.Role_ROLE_OPERATOR, basev1.Role_ROLE_OWNER}

// Further questions, beside those of the terminal.
const (
	shallOpen question = iota + 100
	shallReset
	shallResetButtons
)

// lost: the helper does not answer. What it had said counts no more.
func (d *desk) lost() {
	*d = desk{notice: "", resetting: d.resetting}
}

// see takes what the authority says.
func (d *desk) see(s *systemv1.Snapshot, now time.Time) {
	before := d.snapshot
	d.snapshot, d.seenAt, d.reached = s, now, true
	if last := s.GetLast(); before != nil && last != nil && string(last.GetId()) != string(before.GetLast().GetId()) {
		d.notice, d.toldAt = outcome(last), now
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

// requests are those that the human has not said no to.
func (d *desk) requests() []uint32 {
	return slices.DeleteFunc(slices.Clone(d.snapshot.GetRequests()), func(n uint32) bool { return slices.Contains(d.declined, n) })
}

// subject is what there is to ask. A code comes before everything else, and no
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

// wasDrawn: the frame of the present state stands on the screen.
func (d *desk) wasDrawn(now time.Time) {
	s := d.subject()
	if s != d.drawn || d.drawnAt.IsZero() {
		d.drawn, d.drawnAt = s, now
	}
	if s != d.answered {
		d.answered = subject{}
	}
}

// tick closes a page that was left alone, and forgets what was told.
func (d *desk) tick(now time.Time) {
	if now.Sub(d.touched) < leftAlone || now.Sub(d.toldAt) < leftAlone {
		return
	}
	d.page, d.chosen, d.typed, d.notice = pageNone, false, "", ""
}

// meant tells whether a key can be an answer to what is asked: it was pressed
// when the question had stood there for a while, and nobody has answered it yet.
func (d *desk) meant(k key) bool {
	look := lookTime
	if d.drawn.asked == isItEqual {
		look = lookTimeCode
	}
	return d.drawn == d.subject() && d.drawn != d.answered && !d.drawnAt.IsZero() && k.at.Sub(d.drawnAt) >= look
}

// press takes a key, and returns what it has decided.
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

// pressCode: yes, no, or the code as the App shows it.
func (d *desk) pressCode(k key, s subject) order {
	if d.edit(k) || !d.meant(k) {
		return order{}
	}
	switch {
	case k.kind == keyEnter && len(d.typed) == numberSize:
		number, _ := parseNumber(d.typed)
		d.typed = ""
		if noiseconn.FormatNumber(number) != d.snapshot.GetCeremony().GetCode() {
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

// pressNumber: digits and Enter; or with two buttons: no counts the digit up, yes
// goes on to the next.
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

// choices are the roles that may be given: an owner who has ordered the window has said
// what at most.
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

// maxPhrase bounds what is typed of a name, in characters.
const maxPhrase = 64

// pressReset wants the name in full and Enter; or both buttons, held once more.
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
		d.typed, d.notice = "", "That is not what was asked for. Nothing was done."
	default: // Escape, Enter, one button
		d.page, d.typed, d.notice = pageNone, "", "The Base was not reset."
	}
	return order{}
}

// resetPhrase is what has to be typed: the name of the Base, if this screen can
// show it and any keyboard can type it.
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
		// Who has said yes may still say no, while the App has not.
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

// carried takes how an order went.
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

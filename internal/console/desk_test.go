package console

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// sitter is a user at a desk. The frame is drawn when something has changed, as in Screen.Run.
type sitter struct {
	*desk
	now time.Time
}

func sit(s *systemv1.Snapshot) *sitter {
	x := &sitter{&desk{summary: openBase()}, noon}
	x.sees(s)
	return x
}

func (x *sitter) sees(s *systemv1.Snapshot) {
	x.see(s, x.now)
	x.wasDrawn(x.now)
}

// after lets time pass, and presses a key.
func (x *sitter) after(d time.Duration, k key) order {
	x.now = x.now.Add(d)
	k.at = x.now
	o := x.press(k)
	x.wasDrawn(x.now)
	return o
}

func (x *sitter) types(text string) (last order) {
	for _, k := range parseKeys([]byte(text)) {
		last = x.after(100*time.Millisecond, k)
	}
	return last
}

func r(letter rune) key { return key{kind: keyRune, r: letter} }

func listening(numbers ...uint32) *systemv1.Snapshot {
	return &systemv1.Snapshot{Listening: true, Requests: numbers}
}

// Whatever key it is: a key pressed before the code could be read has no effect.
func TestAKeyThatBouncesConfirmsNoCode(t *testing.T) {
	for _, yes := range []key{r('y'), {kind: keyYes}} {
		x := sit(listening(123456))
		if o := x.after(lookTime, yes); o.what != orderAccept {
			t.Fatalf("the request was not accepted: %+v", o)
		}
		for range 9 { // the helper has not reported the result yet
			if o := x.after(100*time.Millisecond, yes); o.what != orderNothing {
				t.Fatalf("the request was accepted once more: %+v", o)
			}
		}
		x.sees(ceremony("phone", basev1.Role_ROLE_OWNER, nil))
		for range 9 { // it bounces, or is held down and repeats
			if o := x.after(100*time.Millisecond, yes); o.what != orderNothing {
				t.Fatalf("a code was answered by a key that meant something else: %+v", o)
			}
		}
		if o := x.after(lookTimeCode, yes); o.what != orderYes || o.ceremony != ceremonyOf(x.snapshot) {
			t.Errorf("a yes after reading is %+v", o)
		}
		// The broken variant treats a code as drawn when it was not; then the attack succeeds.
		broken := sit(ceremony("phone", basev1.Role_ROLE_OWNER, nil))
		broken.drawnAt = noon.Add(-time.Hour)
		if o := broken.after(0, yes); o.what != orderYes {
			t.Errorf("without looking at the time it is %+v", o)
		}
	}
}

// While the user compares a code, nothing from the network takes its place; and an answer is for
// the code that was on the screen.
func TestNoRequestTakesTheCodesPlace(t *testing.T) {
	shown := ceremony("phone", basev1.Role_ROLE_OWNER, nil)
	x := sit(shown)
	want := x.draw(x.now)
	flood := ceremony("phone", basev1.Role_ROLE_OWNER, nil)
	for n := range uint32(100) {
		flood.Requests = append(flood.Requests, n)
		x.sees(flood)
		if x.draw(x.now) != want {
			t.Fatalf("after %d requests the code is not as it was", n)
		}
	}
	if o := x.after(lookTimeCode, r('y')); o.what != orderYes || o.ceremony != ceremonyOf(shown) {
		t.Errorf("the answer is %+v", o)
	}

	// Another ceremony looks the same except for the code. A key that was already on its way
	// answers neither.
	x = sit(shown)
	other := ceremony("phone", basev1.Role_ROLE_OWNER, func(c *systemv1.Ceremony) { c.Id, c.Code = []byte("another-ceremony"), "111 111" })
	x.now = x.now.Add(time.Minute)
	x.see(other, x.now) // and its frame is not drawn yet
	if o := x.after(0, r('y')); o.what != orderNothing {
		t.Errorf("a yes to the code before has become %+v", o)
	}
}

// A flood drives the owner's request out of the list, and makes the question change all the time.
// The owner can still type the number.
func TestAFloodOfRequestsDoesNotHideTheRealOne(t *testing.T) {
	x := sit(listening(1))
	var o order
	for i, digit := range "482913" {
		x.now = x.now.Add(10 * time.Millisecond)
		x.sees(listening(uint32(i), uint32(i+1000), uint32(i+2000)))
		if o = x.after(10*time.Millisecond, r(digit)); o.what != orderNothing {
			t.Fatalf("after %d digits: %+v", i+1, o)
		}
	}
	x.sees(listening(7, 8, 9))
	if o = x.after(time.Millisecond, key{kind: keyEnter}); o.what != orderAccept || o.number != 482913 {
		t.Errorf("the typed number is %+v", o)
	}
	// Meanwhile no request of the crowd is accepted by chance.
	x = sit(listening(1))
	for n := range uint32(200) {
		x.sees(listening(n))
		if o := x.after(10*time.Millisecond, r('y')); o.what != orderNothing {
			t.Fatalf("a request of the crowd was accepted: %+v", o)
		}
	}
}

func TestTwoButtonsCanAcceptAnyNumber(t *testing.T) {
	x := sit(listening(1, 2, 3))
	yes, no := key{kind: keyYes}, key{kind: keyNo}
	var o order
	for i, digit := range "482913" {
		if i > 0 || digit > '0' {
			presses := int(digit - '0')
			if i == 0 {
				presses++ // the first brings the first digit
			}
			for range presses {
				o = x.after(200*time.Millisecond, no)
			}
		}
		if o.what != orderNothing {
			t.Fatalf("too early: %+v", o)
		}
		o = x.after(200*time.Millisecond, yes)
	}
	if o.what != orderAccept || o.number != 482913 {
		t.Errorf("the buttons have accepted %+v with %q", o, x.typed)
	}
	x.carried(o, "", true)
	x.wasDrawn(x.now)
	if o := x.after(time.Second, no); o.what != orderNothing {
		t.Errorf("to the next role is %+v", o)
	}
	if o := x.after(time.Second, yes); o.what != orderAccept || o.role != basev1.Role_ROLE_OPERATOR || o.number != 482913 {
		t.Errorf("the role is %+v", o)
	}
}

func TestRequestsAreAnsweredByKeys(t *testing.T) {
	x := sit(listening(123456))
	if o := x.after(time.Second, r('n')); o.what != orderNothing || x.subject().asked != nothing {
		t.Errorf("after a no it asks %+v, %+v", x.subject(), o)
	}
	x.sees(listening(123456, 7))
	if x.subject() != (subject{asked: isItYours, number: 7}) {
		t.Errorf("it asks %+v", x.subject())
	}
	// A typed number counts even if its request was declined.
	if o := x.types("123456\x7f6\r"); o.what != orderAccept || o.number != 123456 {
		t.Errorf("typed: %+v", o)
	}
	x.carried(order{what: orderAccept, number: 123456}, "", true)
	x.wasDrawn(x.now)
	if o := x.types("9x4"); o.what != orderNothing {
		t.Errorf("no role: %+v", o)
	}
	if o := x.after(time.Second, r('3')); o.what != orderAccept || o.role != basev1.Role_ROLE_OWNER {
		t.Errorf("owner is %+v", o)
	}
	x.carried(order{what: orderAccept}, "Not done: three requests were accepted.", false)
	if f := x.draw(x.now); f[noticeRow] != "  Not done: three requests were accepted." {
		t.Errorf("the refusal is told as %q", f[noticeRow])
	}
}

func TestACodeIsAnsweredByNoOrByTypingIt(t *testing.T) {
	for typed, want := range map[string]orderKind{
		"n": orderNo, "\x1b": orderNo, "482913\r": orderYes, "482914\r": orderNo, "48291\r": orderNothing, "\r": orderNothing,
		" ": orderNothing, "\x1b[A": orderNothing, "48y": orderNothing, "o": orderNothing, "f": orderNothing,
	} {
		x := sit(ceremony("phone", basev1.Role_ROLE_VIEWER, nil))
		x.now = x.now.Add(lookTimeCode)
		if o := x.types(typed); o.what != want || want != orderNothing && o.ceremony != ceremonyOf(x.snapshot) {
			t.Errorf("%q is %+v", typed, o)
		}
	}
}

// A rejection by a mistyped code says what was typed, so that the person can tell a typo from an attack.
func TestAMistypedCodeIsNamedWhenThePairingIsRejected(t *testing.T) {
	rejected := func(id string) *systemv1.Snapshot {
		return &systemv1.Snapshot{Last: &systemv1.LastCeremony{Id: []byte(id), Outcome: systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE}}
	}
	const plainNo = "The pairing was rejected here. No App was let in."
	for typed, want := range map[string]string{
		"482914\r": "You typed 482 914, not 482 913. If the App showed that, somebody interfered.", "n": plainNo,
	} {
		x := sit(ceremony("phone", basev1.Role_ROLE_OWNER, nil))
		x.now = x.now.Add(lookTimeCode)
		x.types(typed)
		x.sees(rejected("one"))
		if x.notice != want {
			t.Errorf("after %q it says %q, not %q", typed, x.notice, want)
		}
		if got := x.draw(x.now)[noticeRow]; got != "  "+want {
			t.Errorf("after %q the screen says %q", typed, got)
		}
		// The sentence belongs to that pairing alone.
		x.sees(ceremony("phone", basev1.Role_ROLE_OWNER, nil))
		x.sees(rejected("two"))
		if x.notice != plainNo {
			t.Errorf("after another pairing it says %q", x.notice)
		}
	}
}

// No single key on any page resets the Base; nor do two.
func TestNoStrayKeyResetsTheBase(t *testing.T) {
	keys := []key{{kind: keyEnter}, {kind: keyEscape}, {kind: keyBackspace}, {kind: keyYes}, {kind: keyNo}, {kind: keyBothHeld},
		{kind: keyOtherThing}}
	for letter := ' '; letter <= '~'; letter++ {
		keys = append(keys, r(letter))
	}
	starts := []*systemv1.Snapshot{{Paired: true}, listening(), listening(1), listening(1, 2), ceremony("x", basev1.Role_ROLE_OWNER, nil)}
	for _, start := range starts {
		for _, first := range keys {
			for _, second := range keys {
				x := sit(start)
				if o := x.after(time.Hour, first); o.what == orderReset {
					t.Fatalf("one key resets the Base: %+v", first)
				}
				twice := first.kind == keyBothHeld && second.kind == keyBothHeld // ten seconds with both hands
				if o := x.after(time.Second, second); o.what == orderReset && !twice {
					t.Fatalf("two keys reset the Base: %+v %+v", first, second)
				}
			}
		}
	}
}

func TestAResetNeedsTheFullName(t *testing.T) {
	for typed, want := range map[string]orderKind{
		"fkitchen\r": orderReset, "fkitchem\x7fn\r": orderReset, "fkitche\r": orderNothing, "fKitchen\r": orderNothing,
		"fkitchen": orderNothing, "fkitchen \r": orderNothing, "kitchen\r": orderNothing, "fkit\x1bchen\r": orderNothing,
	} {
		if o := sit(&systemv1.Snapshot{Paired: true}).types(typed); o.what != want {
			t.Errorf("%q is %+v", typed, o)
		}
	}
	for name, want := range map[string]string{"kitchen": "kitchen", "my Base": "my Base", "Küche": "factory reset", "\x1b[2J": "factory reset",
		"": "factory reset"} {
		if got := resetPhrase(name); got != want {
			t.Errorf("for %q one types %q", name, got)
		}
	}
	x := sit(&systemv1.Snapshot{Paired: true})
	x.types("fkitchen")
	x.tick(x.now.Add(leftAlone))
	x.wasDrawn(x.now)
	if o := x.types("\r"); o.what != orderNothing {
		t.Errorf("somebody had left, and the next one resets the Base: %+v", o)
	}
	// A code comes first: further typing no longer belongs to the name.
	x = sit(&systemv1.Snapshot{Paired: true})
	x.types("fkitchen")
	x.sees(ceremony("phone", basev1.Role_ROLE_OWNER, nil))
	if o := x.types("\r"); o.what != orderNothing {
		t.Errorf("%+v", o)
	}
}

func TestAReportOfALostHelperNoLongerCounts(t *testing.T) {
	x := sit(ceremony("phone", basev1.Role_ROLE_OWNER, nil))
	x.lost()
	x.wasDrawn(x.now)
	f := x.draw(x.now)
	if slices.ContainsFunc(f[:], func(row string) bool { return unfit(frame{row}) != "" || len(row) > 0 && row[0] == 'x' }) ||
		f != (&desk{}).draw(noon) {
		t.Errorf("the screen is\n%s", f)
	}
	if o := x.after(time.Hour, r('y')); o.what != orderNothing {
		t.Errorf("an answer to a code that is gone: %+v", o)
	}
}

func TestKeysOfATerminalAreToldApart(t *testing.T) {
	for sent, want := range map[string][]keyKind{
		"y": {keyRune}, "\r": {keyEnter}, "\n": {keyEnter}, "\x1b": {keyEscape}, "\x7f\b": {keyBackspace, keyBackspace}, "\x03": {keyQuit},
		"\x1b[A": {keyOtherThing}, "\x1b[3~y": {keyOtherThing, keyRune}, "\x1b[[Ay": {keyOtherThing, keyRune},
		"\x1bOPy": {keyOtherThing, keyRune},
		"\x1b[":   {keyOtherThing}, "\x1bO": {keyOtherThing}, "\x1by": {keyOtherThing}, "ü": {keyRune},
		"\xff\x00": {keyOtherThing, keyOtherThing},
		"":         nil,
	} {
		var got []keyKind
		for _, k := range parseKeys([]byte(sent)) {
			got = append(got, k.kind)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q is %v, want %v", sent, got, want)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x1b[3~y\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(parseKeys(b)) > len(b) {
			t.Error("more keys than bytes")
		}
		x := sit(listening(1))
		for _, k := range parseKeys(b) {
			if o := x.after(time.Millisecond, k); o.what == orderYes || o.what == orderReset && !bytes.Contains(b, []byte("kitchen")) {
				t.Errorf("%q has decided %+v", b, o)
			}
			if got := unfit(x.draw(x.now)); got != "" {
				t.Error(got)
			}
		}
	})
}

// eventBytes is the kernel's format.
func eventBytes(at time.Duration, kind, code uint16, value int32) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(at/time.Second))
	b = binary.NativeEndian.AppendUint64(b, uint64(at%time.Second/time.Microsecond))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, code)
	return binary.NativeEndian.AppendUint32(b, uint32(value))
}

func TestInputEventsAreParsed(t *testing.T) {
	b := slices.Concat(eventBytes(90*time.Second+5*time.Microsecond, evKey, codePower, 1), eventBytes(0, 0, 0, 0), []byte("a rest"))
	got := parseInputEvents(b)
	want := []inputEvent{{90*time.Second + 5*time.Microsecond, evKey, codePower, 1}, {}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if parseInputEvents(nil) != nil {
		t.Error("nothing is an event")
	}
}

func TestOnePressOfAButtonAnswersOnce(t *testing.T) {
	ms := time.Millisecond
	type edge struct {
		at    time.Duration
		code  uint16
		value int32
	}
	for name, c := range map[string]struct {
		edges []edge
		want  []keyKind
	}{
		"yes": {[]edge{{0, codeEnter, 1}, {200 * ms, codeEnter, 0}}, []keyKind{keyYes}},
		"no":  {[]edge{{0, codeButton1, 1}, {200 * ms, codeButton1, 0}}, []keyKind{keyNo}},
		"it bounces": {[]edge{{0, codeButton0, 1}, {2 * ms, codeButton0, 0}, {3 * ms, codeButton0, 1}, {5 * ms, codeButton0, 0},
			{6 * ms, codeButton0, 1}, {200 * ms, codeButton0, 0}, {203 * ms, codeButton0, 1}, {205 * ms, codeButton0, 0}}, []keyKind{keyYes}},
		"the kernel repeats": {[]edge{{0, codeEnter, 1}, {500 * ms, codeEnter, 2}, {530 * ms, codeEnter, 2}, {560 * ms, codeEnter, 0}},
			[]keyKind{keyYes}},
		"twice": {[]edge{{0, codeOK, 1}, {100 * ms, codeOK, 0}, {300 * ms, codeOK, 1}, {400 * ms, codeOK, 0}},
			[]keyKind{keyYes, keyYes}},
		"power, short":   {[]edge{{0, codePower, 1}, {300 * ms, codePower, 0}}, []keyKind{keyNo}},
		"power, long":    {[]edge{{0, codePower, 1}, {2500 * ms, codePower, 0}}, []keyKind{keyYes}},
		"both, not held": {[]edge{{0, codeEnter, 1}, {100 * ms, codeEscape, 1}, {300 * ms, codeEnter, 0}, {400 * ms, codeEscape, 0}}, nil},
		"both, and then one": {[]edge{{0, codeEnter, 1}, {100 * ms, codeEscape, 1}, {300 * ms, codeEnter, 0}, {400 * ms, codeEscape, 0},
			{900 * ms, codeEnter, 1}, {1000 * ms, codeEnter, 0}}, []keyKind{keyYes}},
		"both held": {[]edge{{0, codeEnter, 1}, {100 * ms, codeEscape, 1}, {5200 * ms, codeEnter, 0}, {5300 * ms, codeEscape, 0}},
			[]keyKind{keyBothHeld}},
		"another key": {[]edge{{0, 57, 1}, {100 * ms, 57, 0}}, nil},
	} {
		b := &buttons{}
		var got []keyKind
		var now time.Duration
		tell := func(k keyKind) {
			if k != 0 {
				got = append(got, k)
			}
		}
		for _, e := range c.edges {
			for ; now < e.at; now += ms {
				tell(b.hold(now))
			}
			tell(b.event(inputEvent{e.at, evKey, e.code, e.value}))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func keysOf(codes ...int) []byte {
	b := make([]byte, (codeMax+1)/8)
	for _, code := range codes {
		b[code/8] |= 1 << (code % 8)
	}
	return b
}

func TestTheConsoleDoesNotReadKeyboards(t *testing.T) {
	const keyY, key7, keypad5, volumeUp, mouse = 21, 8, 76, 115, 0x110
	for name, c := range map[string]struct {
		keys []byte
		want deviceKind
	}{
		"a keyboard":         {keysOf(codeEscape, codeEnter, keyY, key7, codePower), deviceOther},
		"a numeric keypad":   {keysOf(codeKPEnter, keypad5), deviceOther},
		"two buttons":        {keysOf(codeEnter, codeEscape), deviceButtons},
		"two GPIO buttons":   {keysOf(codeButton0, codeButton1), deviceButtons},
		"and a power button": {keysOf(codePower, codeOK, codeCancel), deviceButtons},
		"a power button":     {keysOf(codePower), devicePower},
		"a mouse":            {keysOf(mouse), deviceOther},
		"volume":             {keysOf(volumeUp), deviceOther},
		"nothing":            {nil, deviceOther},
	} {
		if got := classify(c.keys); got != c.want {
			t.Errorf("%s is %d", name, got)
		}
	}
}

// windowFor is a window that an owner's App has opened for a role.
func windowFor(role basev1.Role, numbers ...uint32) *systemv1.Snapshot {
	return &systemv1.Snapshot{Listening: true, WindowOpen: true, WindowRemainingMs: 170_000, WindowRole: role, Requests: numbers}
}

func TestAWindowForARoleIsShownAndGrantsNoOther(t *testing.T) {
	x := sit(windowFor(basev1.Role_ROLE_VIEWER))
	if f := x.draw(x.now); !bytes.Contains([]byte(join(f)), []byte("An owner's App asks to let in a VIEWER.")) {
		t.Errorf("the overview does not say so:\n%s", join(f))
	}
	x.sees(windowFor(basev1.Role_ROLE_OPERATOR, 123456))
	if f := x.draw(x.now); !bytes.Contains([]byte(join(f)), []byte("An owner's App asks to let in an OPERATOR.")) {
		t.Errorf("the question does not say so:\n%s", join(f))
	}
	// The role on the screen is the one that is given, whatever an owner orders meanwhile.
	if o := x.after(lookTime, r('y')); o.what != orderAccept || o.role != basev1.Role_ROLE_OPERATOR || o.number != 123456 {
		t.Errorf("a yes: %+v", o)
	}

	// A lower role may be given, but not a higher one.
	x = sit(windowFor(basev1.Role_ROLE_OPERATOR, 123456))
	x.after(lookTime, r('r'))
	if f := join(x.draw(x.now)); bytes.Contains([]byte(f), []byte("owner      ")) || !bytes.Contains([]byte(f), []byte("1  viewer")) {
		t.Errorf("to choose from:\n%s", f)
	}
	if o := x.after(lookTime, r('3')); o.what != orderNothing {
		t.Errorf("more than the owner has ordered: %+v", o)
	}
	if o := x.after(lookTime, r('1')); o.what != orderAccept || o.role != basev1.Role_ROLE_VIEWER {
		t.Errorf("less than the owner has ordered: %+v", o)
	}
}

// A yes to "viewer" is not a yes to "owner" if that takes its place.
func TestAYesIsForTheRoleOnTheScreen(t *testing.T) {
	x := sit(windowFor(basev1.Role_ROLE_VIEWER, 123456))
	x.now = x.now.Add(time.Second)
	x.sees(windowFor(basev1.Role_ROLE_OWNER, 123456))
	if o := x.after(lookTime-time.Millisecond, r('y')); o.what != orderNothing {
		t.Errorf("a yes that was meant for a viewer: %+v", o)
	}
	if o := x.after(time.Millisecond, r('y')); o.role != basev1.Role_ROLE_OWNER {
		t.Errorf("a yes for an owner: %+v", o)
	}
}

// A key here cannot confirm what an owner's App answers, but can refuse it.
func TestAnOwnersAnswerCanOnlyBeRefusedHere(t *testing.T) {
	s := ceremony("phone", basev1.Role_ROLE_OPERATOR, nil)
	s.Ceremony.ByOwner = make([]byte, 32)
	x := sit(s)
	if f := join(x.draw(x.now)); bytes.Contains([]byte(f), []byte("exactly this code")) ||
		!bytes.Contains([]byte(f), []byte("An owner's App has accepted request")) {
		t.Errorf("the screen shows\n%s", f)
	}
	if o := x.after(time.Minute, r('y')); o.what != orderNothing {
		t.Errorf("a yes: %+v", o)
	}
	if o := x.after(time.Second, r('n')); o.what != orderNo {
		t.Errorf("a no: %+v", o)
	}
}

func join(f frame) string { return strings.Join(f[:], "\n") }

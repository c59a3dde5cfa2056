package dashboard

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	tea "charm.land/bubbletea/v2"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// said returns the answers among orders.
func said(orders []any) (answers []orderAnswer) {
	for _, order := range orders {
		if answer, ok := order.(orderAnswer); ok {
			answers = append(answers, answer)
		}
	}
	return answers
}

func saidYes(orders []any) bool {
	return slices.ContainsFunc(said(orders), func(a orderAnswer) bool { return a.yes })
}

// A key that was meant for something else, or that is held down, confirms no code and no change.
func TestAnEarlyKeyAnswersNothing(t *testing.T) {
	attacks := map[string]func(s *stage, key string) bool{
		"at once":        func(s *stage, key string) bool { return saidYes(s.hears(press{key, key})) },
		"a moment later": func(s *stage, key string) bool { s.later(lookTime - 1); return saidYes(s.hears(press{key, key})) },
		"twice, bouncing": func(s *stage, key string) bool {
			s.later(lookTime - 1)
			first := saidYes(s.hears(press{key, key}))
			s.later(time.Millisecond)
			return first || saidYes(s.hears(press{key, key}))
		},
		"held down": func(s *stage, key string) bool { return heldDown(s, key) },
		"under the help": func(s *stage, key string) bool {
			s.later(2 * lookTime)
			s.hears(press{"?", "?"})
			s.later(2 * lookTime)
			s.hears(press{"esc", ""})
			return saidYes(s.hears(press{key, key}))
		},
		"on a tiny screen": func(s *stage, key string) bool {
			s.hears(size{10, 5})
			s.later(2 * lookTime)
			early := saidYes(s.hears(press{key, key}))
			s.hears(size{80, 24})
			return early || saidYes(s.hears(press{key, key}))
		},
	}
	for question, stage := range map[string]func(*testing.T) *stage{"comparing": comparingStage, "question": screens["question"],
		"lockdown": screens["lockdown"]} {
		key := "y"
		if question == "lockdown" {
			key = "L"
		}
		for name, attack := range attacks {
			if s := stage(t); attack(s, key) {
				t.Errorf("%s: %s answers", question, name)
			}
			// Without the time in which nothing answers, each of these keys would.
			s := stage(t)
			s.lookTime = 0
			if !attack(s, key) {
				t.Errorf("%s, broken: %s does not answer", question, name)
			}
		}
		s := stage(t)
		s.later(lookTime)
		if !saidYes(s.hears(press{key, key})) {
			t.Errorf("%s: a key that comes after the question was read does not answer", question)
		}
	}
}

// heldDown is what a terminal sends while a key is held down.
func heldDown(s *stage, key string) bool {
	yes := false
	for range 200 {
		yes = yes || saidYes(s.hears(press{key, key}))
		s.later(50 * time.Millisecond)
	}
	return yes
}

func TestOnlyAYesAnswersYes(t *testing.T) {
	keys := []string{"enter", "space", "tab", "esc", "up", "down", "f1", "ctrl+y", "alt+y", "n", "N", "1", "l", "?", "ä", "yes", "\x1b", "",
		"p", "q", "ctrl+c"}
	for question, stage := range map[string]func(*testing.T) *stage{"comparing": comparingStage, "question": screens["question"],
		"lockdown": screens["lockdown"]} {
		others := slices.Clone(keys)
		if question == "lockdown" {
			others = append(others, "y", "Y")
		} else {
			others = append(others, "L")
		}
		for _, key := range others {
			s := stage(t)
			if saidYes(s.types(key)) {
				t.Errorf("%s: %q is a yes", question, key)
			}
			s = stage(t)
			s.later(2 * lookTime)
			if saidYes(s.hears(pasted("y"), pasted("L"), pasted("Y\r"))) {
				t.Errorf("%s: what is pasted is a yes", question)
			}
		}
	}
}

func TestAChangeThatDoesNotFitTheScreenCannotBeApproved(t *testing.T) {
	s := busy(t)
	s.types("c")
	var changes []client.PostureChange
	for n := range 40 {
		changes = append(changes, client.PostureChange{Text: fmt.Sprintf("Thing %d will be different.", n)})
	}
	s.hears(asked{1, changes})
	if saidYes(s.types("y")) {
		t.Error("a change was approved that was not fully visible")
	}
	s.hears(size{80, 60})
	if !saidYes(s.types("y")) {
		t.Error("on a larger screen it is no yes either")
	}
}

func TestTheUserCanQuitAtAnyMoment(t *testing.T) {
	for name, stage := range screens {
		keys := []string{"q", "ctrl+c"}
		if name == "typing" {
			keys = []string{"ctrl+c"} // a name may have a q in it
		}
		for _, key := range keys {
			s := stage(t)
			if orders := s.hears(press{key, ""}); !has(orders, any(orderQuit{})) || saidYes(orders) {
				t.Errorf("%s: %s orders %v", name, key, orders)
			}
			if orders := s.types("y", "enter"); len(orders) > 0 {
				t.Errorf("%s: after that, keys order %v", name, orders)
			}
		}
	}
}

func TestQuittingReportsWhatRemains(t *testing.T) {
	for name, want := range map[string]string{
		"overview": "", "choosing": "", "paired": "",
		"requesting": "You left before the Base had answered", "comparing": "You left before you had said yes to the code",
		"waiting": "You had said yes to the code", "question": "nothing was changed", "working": "undoes itself within a minute",
	} {
		s := screens[name](t)
		s.hears(press{"ctrl+c", ""})
		if got := s.farewell(nil); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAPairingCompletedWhileQuittingIsReported(t *testing.T) {
	s := screens["waiting"](t)
	s.hears(press{"ctrl+c", ""})
	if got := s.farewell(&client.Base{Name: "kit\x1bchen"}); got != `The pairing with "kit?chen" was completed just as you left.` {
		t.Error(got)
	}
}

func TestOnlyAnOwnerIsOfferedAnOwnersActions(t *testing.T) {
	for _, role := range []basev1.Role{basev1.Role_ROLE_VIEWER, basev1.Role_ROLE_OPERATOR} {
		s := busy(t)
		look := s.base("kitchen").look
		look.Info = someInfo(role)
		s.hears(looked{Base: "kitchen", Look: look})
		for _, key := range []string{"o", "e", "c", "b", "f", "L", "U"} {
			if orders := s.types(key); len(orders) > 0 || !strings.Contains(s.notice.text, "Only an owner") {
				t.Errorf("%v: %s orders %v and says %q", role, key, orders, s.notice.text)
			}
		}
		if orders := s.types("a"); (len(orders) > 0) != (role == basev1.Role_ROLE_OPERATOR) {
			t.Errorf("%v: a orders %v", role, orders)
		}
	}
}

func TestKeysDoWhatTheHelpSays(t *testing.T) {
	for key, want := range map[string]any{
		"c": orderDo{"kitchen", Deed{Kind: ConfirmTry}},
		"L": orderDo{"kitchen", Deed{Kind: Lockdown}},
		"o": orderDo{"kitchen", Deed{Kind: CloseWindow}},
		"f": orderDo{"kitchen", Deed{Kind: Fix, Subject: "port-9999", Text: "Kill it."}},
		"a": orderLook{"kitchen", true},
		"r": orderLook{"kitchen", false},
	} {
		if orders := busy(t).types(key); !has(orders, want) {
			t.Errorf("%s orders %v", key, orders)
		}
	}
	// If there are several, the user chooses one.
	if orders := busy(t).types("b", "down", "enter"); !has(orders,
		any(orderDo{"kitchen", Deed{Kind: LiftBan, Subject: "2001:db8::77"}})) {
		t.Errorf("b orders %v", orders)
	}
	if orders := busy(t).types("e", "1"); !has(orders, any(orderDo{"kitchen", Deed{Kind: EndLease, Subject: "ssh"}})) {
		t.Errorf("e orders %v", orders)
	}
	// Only one at a time.
	s := busy(t)
	s.types("c")
	if orders := s.types("L"); len(orders) > 0 {
		t.Errorf("two things are done at once: %v", orders)
	}
	if orders := s.types("esc"); !has(orders, any(orderGiveUp{})) {
		t.Errorf("esc orders %v", orders)
	}
	s = house(t)
	s.types("p", "a")
	s.hears(pasted("bäse.local\n\x1b[2J:8846"))
	want := []string{"bäse.local[2J:8846"}
	if orders := s.types("enter"); len(orders) != 1 || !slices.Equal(orders[0].(orderPair).addresses, want) {
		t.Errorf("what was typed orders %v", orders)
	}
}

func TestManyBasesAreAskedWithinBounds(t *testing.T) {
	s := newStage(t)
	var bases []client.Base
	for n := range 30 {
		bases = append(bases, client.Base{Name: fmt.Sprintf("%02d", n), AppID: fmt.Sprint(n), State: client.Active})
	}
	orders := s.hears(knows{Bases: bases})
	if follow := orders[0].(orderFollow); len(follow.bases) != maxFollowed {
		t.Errorf("%d are asked", len(follow.bases))
	}
	for range 20 {
		orders = s.types("down")
	}
	if follow := orders[len(orders)-1].(orderFollow); len(follow.bases) != maxFollowed+1 || follow.bases[maxFollowed] != "20" {
		t.Errorf("%v are asked", follow.bases)
	}
	for n := range 10_000 {
		s.hears(nearby{ID: n, Found: client.Nearby{Name: fmt.Sprint(n), ProtocolVersion: 1}},
			happened{Base: "00", Event: &basev1.Event{Time: timestamppb.New(noon), Event: &basev1.Event_AppRenamed{}}})
	}
	if len(s.nearby) > client.MaxNearby || len(s.base("00").events) > maxEvents {
		t.Errorf("%d are nearby, %d events are kept", len(s.nearby), len(s.base("00").events))
	}
	if s.chosenBase().Name != "20" {
		t.Error("a flood of announcements has taken the choice away")
	}
}

func TestABaseDisappearsWhenItsAnnouncementsEnd(t *testing.T) {
	s := house(t)
	for range owner.RoundsKept {
		s.hears(searched{})
	}
	if len(s.strangers()) != 2 {
		t.Errorf("they are gone too early: %v", s.strangers())
	}
	s.hears(nearby{ID: 0, Found: client.Nearby{Name: "BitBox Base", ProtocolVersion: 1}}, searched{})
	if got := s.strangers(); len(got) != 1 || got[0].Name != "BitBox Base" {
		t.Errorf("%v are left", got)
	}
}

func TestARePairedBaseTakesTheRevokedOnesPlace(t *testing.T) {
	s := house(t)
	orders := s.hears(knows{Bases: []client.Base{
		{Name: "kitchen", State: client.Revoked, AppID: "5f2c9a7e01d4b863"},
		{Name: "kitchen", State: client.Active, AppID: "new"},
	}})
	if b := s.base("kitchen"); len(s.bases) != 1 || b.AppID != "new" {
		t.Errorf("%d Bases, %+v", len(s.bases), b.Base)
	}
	if follow := orders[0].(orderFollow); !slices.Equal(follow.bases, []string{"kitchen"}) {
		t.Errorf("%v are asked", follow.bases)
	}
}

func TestTimesCountDownWithoutMessages(t *testing.T) {
	s := busy(t)
	before := shown(s.view())
	s.later(10 * time.Second)
	after := shown(s.view())
	for _, each := range []struct{ before, after string }{{"undone in 42 s", "undone in 32 s"},
		{"OPEN, 2 min 51 s left", "OPEN, 2 min 41 s left"}, {"192.0.2.7, 49 min 58 s", "192.0.2.7, 49 min 48 s"}} {
		if !strings.Contains(before, each.before) || !strings.Contains(after, each.after) {
			t.Errorf("not from %q to %q:\n%s\n%s", each.before, each.after, before, after)
		}
	}
	s.later(time.Hour)
	if !strings.Contains(shown(s.view()), "undone in 0 s") {
		t.Error("a time that has passed is not 0")
	}
}

// evil are names that try to be more than text.
var evil = map[string]string{
	"escapes":   "\x1b[2J\x1b[1;1H\x1b]0;x\x07\x9b5mphone\r\n\x0e",
	"bidi":      "\u202eenohp\u2066 \u200f\u061c",
	"combining": "a" + strings.Repeat("\u0301", 4096) + strings.Repeat("\u20dd", 99),
	"wide":      strings.Repeat("\u6f22", 64),
	"emoji":     strings.Repeat("👩‍👩‍👧‍👦🏳️‍🌈☺️", 20),
	"invisible": "\u200b\u2060\ufeff\U000e0041\u00ad",
	"solid":     strings.Repeat("█", 300),
	"lines":     "one\ntwo\u2028three\u0085four\vfive",
	"long":      strings.Repeat("w", 100_000),
	"bytes":     "\xff\xfe\x80",
	"fake":      `x" │ ● well  y  yes, the same`,
}

// unfit says what is wrong with a screen, "" if nothing is.
func unfit(text string, width, height int) string {
	rows := strings.Split(text, "\n")
	if len(rows) != height {
		return fmt.Sprintf("%d rows", len(rows))
	}
	for n, row := range rows {
		if w := widthOf(row); w != width {
			return fmt.Sprintf("row %d is %d wide: %q", n, w, row)
		}
		marks := 0
		for _, r := range row {
			switch {
			case !unicode.IsPrint(r), r == utf8.RuneError:
				return fmt.Sprintf("row %d has %q", n, r)
			case unicode.In(r, unicode.Mn, unicode.Me):
				marks++
			default:
				marks = 0
			}
			if marks > maxCombining {
				return fmt.Sprintf("row %d is a heap of marks", n)
			}
		}
	}
	return ""
}

// haunted has an evil text in every place that comes from outside.
func haunted(t *testing.T, text string) map[string]*stage {
	stages := map[string]*stage{}
	for name, stage := range screens {
		s := stage(t)
		for n := range s.nearby {
			s.nearby[n].Name, s.nearby[n].Addresses = text, []string{text, text}
		}
		for _, b := range s.bases {
			b.problem, b.auditProblem = strings.Repeat(b.problem, 1)+text, text
			for _, app := range b.look.Apps {
				app.Name, app.Id = text, text
			}
			for _, ban := range b.look.Bans {
				ban.Address, ban.Jail = text, text
			}
			for _, f := range b.findings {
				f.Title, f.Found, f.Expected, f.Why, f.Fix = text, text, text, text, text
			}
			for _, service := range b.look.Services {
				service.Name, service.Reason = text, text
			}
			if i := b.look.Info; i != nil {
				i.Name, i.SoftwareVersion, i.Addresses, i.Caller.Name = text, text, []string{text}, text
				b.note(noon, text)
			}
			if a := b.look.Access; a != nil {
				a.Keys, a.Internet, a.Bans, b.look.Lie = []string{text}, []string{text}, text, errors.New(text)
				a.Doors = append(a.Doors, Door{Kind: text, Left: time.Hour})
				a.Tried = append(a.Tried, client.PostureChange{Done: text})
			}
		}
		s.notice.text = text
		if s.pairing != nil {
			s.pairing.with, s.pairing.result = text, text
			s.pairing.code.BaseName, s.pairing.code.AppName = text, text
		}
		if s.working != nil {
			s.working.step, s.working.base = text, text
			if s.working.question != nil {
				s.working.question.changes = []client.PostureChange{{Text: text, Opens: true}}
			}
		}
		if s.choice != nil {
			s.choice.names[0] = text
		}
		stages[name] = s
	}
	return stages
}

func TestNamesCannotDrawOnTheScreen(t *testing.T) {
	for what, text := range evil {
		for name, s := range haunted(t, text) {
			for _, sized := range []size{{80, 24}, {200, 50}, {72, 24}, {60, 15}, {minWidth, minHeight}, {5, 3}} {
				s.hears(sized)
				s.ascii = sized.width == 72
				if wrong := unfit(render(s.view(), false), sized.width, sized.height); wrong != "" {
					t.Errorf("%s in %s at %v: %s", what, name, sized, wrong)
				}
			}
		}
		// Without harmless it would be visible.
		if unfit(text+strings.Repeat(" ", max(0, 80-widthOf(text))), 80, 1) == "" && what != "solid" && what != "fake" && what != "emoji" {
			t.Errorf("%s would have been let through", what)
		}
	}
}

// Whatever the Base calls itself, the code and the keys stay in place.
func TestNoNameMovesTheCode(t *testing.T) {
	for _, sized := range []size{{80, 24}, {60, 15}, {minWidth, minHeight}} {
		honest := comparingStage(t)
		honest.hears(sized)
		want := strings.Split(render(honest.view(), false), "\n")
		for what, text := range evil {
			s := haunted(t, text)["comparing"]
			s.hears(sized)
			got := strings.Split(render(s.view(), false), "\n")
			for row := range want {
				isCode := strings.ContainsRune(want[row], '█') || strings.Contains(want[row], code.Digits)
				if (isCode || row >= sized.height-footRows) && got[row] != want[row] {
					t.Errorf("%s at %v: row %d is %q", what, sized, row, got[row])
				}
			}
		}
	}
}

// FuzzKeys types any keys and resizes to any size: the screen stays intact, and no question is
// answered with yes before there was time to read it.
func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x00p\x00a192.168.1.1\x01y"))
	f.Add([]byte("\x01LLLLyyyyccccffff\xff\x10\x20"))
	f.Add([]byte("\x02\xfe\xfe\xfe?jjjj\xfe123456 bqe"))
	names := []string{"up", "down", "left", "right", "enter", "esc", "tab", "space", "backspace", "pgup", "pgdown", "home"}
	begins := []string{"overview-busy", "comparing", "question", "lockdown", "typing", "choice"}
	f.Fuzz(func(t *testing.T, typed []byte) {
		if len(typed) == 0 || len(typed) > 200 {
			return
		}
		begin := begins[int(typed[0])%len(begins)]
		s := screens[begin](t)
		for n := 1; n < len(typed); n++ {
			var orders []any
			switch c := typed[n]; {
			case c < byte(len(names)):
				orders = s.hears(press{names[c], ""})
			case c >= 0xf0 && n+2 < len(typed):
				orders = s.hears(size{int(typed[n+1]), int(typed[n+2] / 4)})
				n += 2
			case c == 'q':
				continue
			case c == 0x7f:
				orders = s.hears(paired{}, searched{}, asked{n, []client.PostureChange{{Text: "x"}}}, compare{n, code}, done{})
			default:
				orders = s.hears(press{string(rune(c)), string(rune(c))}, pasted(typed[n:]))
			}
			if saidYes(orders) {
				t.Fatalf("%s: a yes without time to read, at %d of %q", begin, n, typed)
			}
			if wrong := unfit(render(s.view(), false), s.width, s.height); wrong != "" && s.width > 0 && s.height > 0 {
				t.Fatalf("%s: after %q: %s", begin, typed[:n+1], wrong)
			}
		}
	})
}

// At 80 by 24 and at 40 columns each page shows its name and number.
func TestEachPageHasItsNameOnSmallScreens(t *testing.T) {
	for _, sized := range []size{{80, 24}, {72, 24}, {60, 15}, {minWidth, 24}} {
		s := busy(t)
		s.chosenBase().look.Node = someNode()
		s.hears(sized)
		screen := render(s.view(), false)
		for n, name := range pageNames {
			if !strings.Contains(screen, fmt.Sprintf("%d %s", n+1, name)) {
				t.Errorf("%d by %d: no %q\n%s", sized.width, sized.height, name, screen)
			}
		}
	}
}

func TestEventsThatSayTheSameAreMergedAndReadInFull(t *testing.T) {
	s := house(t)
	b := s.chosenBase()
	before := len(b.events)
	long := "Somebody asked to be paired, " + strings.Repeat("again and again, ", 20) + "and that is the end."
	for n := range 100 {
		b.note(noon.Add(time.Duration(n)*time.Second), "Anna's phone connected.")
		b.note(noon.Add(time.Duration(n)*time.Second), "Anna's phone disconnected.")
	}
	b.note(noon, long)
	if got := len(b.events) - before; got != 3 {
		t.Errorf("%d events take %d rows", 201, got)
	}
	s.types("5")
	screen := render(s.view(), false)
	for _, want := range []string{"and that is the", "(100 times since " + noon.Local().Format(time.TimeOnly) + ")"} {
		if !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(screen, "│", " ")), " "), want) {
			t.Errorf("%q is not shown:\n%s", want, screen)
		}
	}
}

func TestATerminalWithoutASizeGetsTheUsualOne(t *testing.T) {
	for _, s := range []tea.WindowSizeMsg{{}, {Width: 80}, {Height: 24}, {Width: -1, Height: -1}} {
		if got := believable(s); got != (tea.WindowSizeMsg{Width: usualWidth, Height: usualHeight}) {
			t.Errorf("%+v becomes %+v", s, got)
		}
	}
	own := tea.WindowSizeMsg{Width: 132, Height: 43}
	if got := believable(own); got != own {
		t.Errorf("%+v becomes %+v", own, got)
	}
}

func TestABaseThatCannotBeUsedSaysSo(t *testing.T) {
	for state, want := range map[client.PairingState]string{client.Revoked: "was revoked", client.Reset: "has wiped the Base"} {
		s := newStage(t)
		orders := s.hears(knows{Bases: []client.Base{{Name: "old", State: state, AppID: "b3"}}})
		screen := render(s.view(), false)
		if !strings.Contains(screen, want) || strings.Contains(screen, "onnecting") {
			t.Errorf("%s:\n%s", state, screen)
		}
		for _, order := range orders {
			if f, ok := order.(orderFollow); ok && len(f.bases) > 0 {
				t.Errorf("%s: %v is asked", state, f.bases)
			}
		}
	}
}

// has tells whether an order is among them.
func has(orders []any, order any) bool {
	return slices.ContainsFunc(orders, func(o any) bool { return reflect.DeepEqual(o, order) })
}

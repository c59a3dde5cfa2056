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

	tea "charm.land/bubbletea/v2"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// saidYes tells whether there is a yes among orders.
func saidYes(orders []any) bool {
	return slices.ContainsFunc(orders, func(order any) bool {
		a, is := order.(answer)
		return is && a.yes
	})
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
	s := busy(t).begins("c")
	var changes []client.PostureChange
	for n := range 40 {
		changes = append(changes, client.PostureChange{Text: fmt.Sprintf("Thing %d will be different.", n)})
	}
	s.asks(changes...)
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
			if orders := s.hears(press{key, ""}); !has(orders, any(quit{})) || saidYes(orders) {
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
		s.kitchen(func(b *owner.Base) { b.Look.Info = someInfo(role) })
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
	kitchen := owner.Base{Base: client.Base{PublicKey: [32]byte{2}}}.ID()
	for _, c := range []struct {
		keys []string
		want any
	}{
		{[]string{"c"}, do{kitchen, owner.Deed{Kind: owner.ConfirmTry}}},
		{[]string{"L"}, do{kitchen, owner.Deed{Kind: owner.Lockdown}}},
		{[]string{"o"}, do{kitchen, owner.Deed{Kind: owner.CloseWindow}}},
		{[]string{"f"}, do{kitchen, owner.Deed{Kind: owner.Fix, Subject: "port-9999", Text: "Kill it."}}},
		{[]string{"a"}, refresh{kitchen, true}},
		{[]string{"r"}, refresh{kitchen, false}},
		// If there are several, the user chooses one.
		{[]string{"b", "down", "enter"}, do{kitchen, owner.Deed{Kind: owner.LiftBan, Subject: "2001:db8::77"}}},
		{[]string{"e", "1"}, do{kitchen, owner.Deed{Kind: owner.EndLease, Subject: "ssh"}}},
	} {
		if orders := busy(t).types(c.keys...); !has(orders, c.want) {
			t.Errorf("%v order %v", c.keys, orders)
		}
	}
	if orders := busy(t).begins("c").types("esc"); !has(orders, any(stop{1})) {
		t.Errorf("esc orders %v", orders)
	}
	s := house(t)
	s.types("p", "a")
	s.hears(pasted("bäse.local\n\x1b[2J:8846"))
	want := do{deed: owner.Deed{Kind: owner.Pair, Addresses: []string{"bäse.local[2J:8846"}}}
	if orders := s.types("enter"); !has(orders, any(want)) {
		t.Errorf("what was typed orders %v", orders)
	}
}

// A lockdown waits for nothing, and what was done before is told as well.
func TestALockdownCanBeAskedForWhileAnotherChangeIsUnderWay(t *testing.T) {
	s := busy(t).begins("c").begins("L").asks((owner.Deed{Kind: owner.Lockdown}).Change())
	if !strings.Contains(shown(s.view()), "LOCK DOWN kitchen?") {
		t.Errorf("the lockdown is not asked for:\n%s", shown(s.view()))
	}
	s.goesOn(func(d *owner.DeedState) {
		d.Question, d.Ended, d.Result = nil, s.now, words.Saying("done.lockdown")
	})
	if text := shown(s.view()); !strings.Contains(text, "The Base is locked down") {
		t.Errorf("its end is not told:\n%s", text)
	}
	if orders := s.types("esc"); !has(orders, any(stop{1})) {
		t.Errorf("esc orders %v", orders)
	}
}

func TestWhatTheOwnerRefusesIsSaid(t *testing.T) {
	s := busy(t)
	s.begun(do{deed: owner.Deed{Kind: owner.Unlock}}, 0, errors.New("another change of this Base is under way"))
	if !strings.Contains(shown(s.view()), "Another change of this Base is under way.") {
		t.Error(shown(s.view()))
	}
	s = house(t)
	s.types("down", "down", "enter")
	s.begun(do{deed: owner.Deed{Kind: owner.Pair}}, 0, errors.New("another pairing is under way"))
	if s.types("x"); !strings.Contains(shown(s.view()), "Another pairing is under way.") {
		t.Error(shown(s.view()))
	}
}

func TestAFloodOfAnnouncementsLeavesTheChoice(t *testing.T) {
	s := house(t)
	s.types("down", "down", "down")
	if s.chosen.name() != "neighbour's" {
		t.Fatalf("%s is chosen", s.chosen.name())
	}
	s.becomes(func(o *owner.State) {
		o.Nearby[2].Name = "its new name"
		for n := range client.MaxNearby {
			o.Nearby = append(o.Nearby, owner.Announced{ID: 10 + n, Nearby: client.Nearby{Name: "a", ProtocolVersion: 1}})
		}
		slices.Reverse(o.Nearby)
	})
	if s.chosen.name() != "its new name" {
		t.Errorf("%s is chosen", s.chosen.name())
	}
	s.becomes(func(o *owner.State) { o.Nearby = nil })
	if s.chosen.name() != "garage" {
		t.Errorf("once it has gone, %s is chosen", s.chosen.name())
	}
}

func TestABaseThatWasPairedIsChosen(t *testing.T) {
	s := screens["paired"](t)
	s.becomes(func(o *owner.State) {
		o.Bases = append(o.Bases, owner.Base{Base: client.Base{Name: "BitBox Base", PublicKey: [32]byte{9}, State: client.Active}})
	})
	if s.types("enter"); s.pairing != nil || s.chosen.name() != "BitBox Base" {
		t.Errorf("%s is chosen", s.chosen.name())
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
		for n := range s.state.Nearby {
			s.state.Nearby[n].Name, s.state.Nearby[n].Addresses = text, []string{text, text}
		}
		for n := range s.state.Bases {
			b := &s.state.Bases[n]
			b.Err, b.AuditErr = errors.New(client.Explain(b.Err)+text), errors.New(text)
			for _, app := range b.Look.Apps {
				app.Name, app.Id = text, text
			}
			for _, ban := range b.Look.Bans {
				ban.Address, ban.Jail = text, text
			}
			for _, f := range b.Findings {
				f.Title, f.Found, f.Expected, f.Why, f.Fix = text, text, text, text, text
			}
			for _, service := range b.Look.Services {
				service.Name, service.Reason = text, text
			}
			if i := b.Look.Info; i != nil {
				i.Name, i.SoftwareVersion, i.Addresses, i.Caller.Name = text, text, []string{text}, text
				b.Events = append(b.Events, someEvent(noon, &basev1.Event{Event: &basev1.Event_ApplyFailed{
					ApplyFailed: &basev1.ApplyFailedEvent{Reason: text}}}))
			}
			if a := b.Look.Access; a != nil {
				a.Keys, a.Internet, a.Bans, b.Look.Lie = []string{text}, []string{text}, words.Plain(text), errors.New(text)
				a.Doors = append(a.Doors, owner.Door{Kind: text, Left: time.Hour})
				a.Tried = append(a.Tried, client.PostureChange{Done: text})
			}
		}
		s.notice.text = text
		if s.pairing != nil {
			s.pairing.with = text
		}
		for n := range s.state.Deeds {
			d := &s.state.Deeds[n]
			d.Steps, d.Err = []words.Said{words.Plain(text)}, errors.New(text)
			if d.Made != nil {
				d.Made.Name, d.Made.AppName = text, text
			}
			if d.Question != nil {
				d.Question.Changes = []client.PostureChange{{Text: text, Opens: true}}
				d.Question.Code.BaseName, d.Question.Code.AppName = text, text
			}
		}
		if s.choice != nil {
			s.choice.options[0].name = text
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
				s.becomes(func(o *owner.State) { anything(o, n) })
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

// anything changes the deeds as n decides.
func anything(o *owner.State, n int) {
	if len(o.Deeds) == 0 || n%5 == 0 {
		o.Deeds = append(o.Deeds, owner.DeedState{Number: uint64(n), Deed: owner.Deed{Kind: owner.Unlock}})
	}
	d := &o.Deeds[n%len(o.Deeds)]
	switch n % 3 {
	case 0:
		d.Question = nil
	case 1:
		d.Ended, d.Question = noon, nil
	default:
		d.Question = &owner.Question{ID: uint64(n), Changes: []client.PostureChange{{Text: "x"}}, Code: code}
	}
}

// At 80 by 24 and at 40 columns each page shows its name and number.
func TestEachPageHasItsNameOnSmallScreens(t *testing.T) {
	for _, sized := range []size{{80, 24}, {72, 24}, {60, 15}, {minWidth, 24}} {
		s := busy(t)
		s.chosen.base.Look.Node = someNode()
		s.hears(sized)
		screen := render(s.view(), false)
		for n, name := range pageNames {
			if !strings.Contains(screen, fmt.Sprintf("%d %s", n+1, name)) {
				t.Errorf("%d by %d: no %q\n%s", sized.width, sized.height, name, screen)
			}
		}
	}
}

func TestEventsAreReadInFull(t *testing.T) {
	s := house(t)
	long := "Somebody asked, " + strings.Repeat("again and again, ", 20) + "and that is the end"
	s.kitchen(func(b *owner.Base) {
		e := someEvent(noon, &basev1.Event{Event: &basev1.Event_ApplyFailed{ApplyFailed: &basev1.ApplyFailedEvent{Reason: long}}})
		e.Times = 100
		b.Events = append(b.Events, e)
	})
	s.types("5")
	screen := render(s.view(), false)
	for _, want := range []string{"and that is the end", "(100 times since " + noon.Local().Format(time.TimeOnly) + ")"} {
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
		s.hears(owner.State{Bases: []owner.Base{{Base: client.Base{Name: "old", State: state}, Connection: owner.Ended}}})
		screen := render(s.view(), false)
		if !strings.Contains(screen, want) || strings.Contains(screen, "onnecting") {
			t.Errorf("%s:\n%s", state, screen)
		}
	}
}

func TestTheUserDecidesAboutColours(t *testing.T) {
	for environment, want := range map[string]string{
		"TERM=xterm": "ANSI", "TERM=xterm,NO_COLOR=1": "Ascii", "TERM=xterm,NO_COLOR=": "ANSI", "TERM=vt100": "Ascii", "TERM=xterm-mono": "Ascii",
		"TERM=xterm,NO_COLOR=yes": "Ascii",
	} {
		if got := profile(strings.Split(environment, ",")).String(); got != want {
			t.Errorf("%s: %s", environment, got)
		}
	}
}

// has tells whether an order is among them.
func has(orders []any, order any) bool {
	return slices.ContainsFunc(orders, func(o any) bool { return reflect.DeepEqual(o, order) })
}

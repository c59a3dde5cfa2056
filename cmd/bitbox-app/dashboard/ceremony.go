package dashboard

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/digits"
)

// allows describes what a role may do, in the words of the Base's console.
var allows = map[basev1.Role]string{
	basev1.Role_ROLE_VIEWER:   "sees how the Base is doing",
	basev1.Role_ROLE_OPERATOR: "also runs the node",
	basev1.Role_ROLE_OWNER:    "also decides who is let in, and how open the Base is",
}

// sheet collects the rows of a page. On a low screen it leaves out empty rows.
type sheet struct {
	m     *model
	lines []line
	tight bool
}

func (m *model) sheet() *sheet { return &sheet{m: m, tight: m.height < 20} }

func (s *sheet) gap() {
	if !s.tight {
		s.lines = append(s.lines, nil)
	}
}

func (s *sheet) say(text string, look style) {
	s.lines = append(s.lines, indented("  ", wrap(text, s.m.width-4, look))...)
}

// large draws a number large enough to be read from across the room.
func (s *sheet) large(text string) {
	rows, before := digits.Large(text), "   "
	if s.m.width < 78 {
		rows = digits.Narrow(text)
	}
	s.gap()
	for _, row := range rows {
		s.lines = append(s.lines, plain(strings.TrimRight(before+row, " ")))
	}
	s.gap()
}

func (m *model) viewPairing() (body, foot []line) {
	s, p, d, phase := m.sheet(), m.pairing, m.paired(), m.phase()
	s.gap()
	keys := m.keyLine("Esc  give up", "q  quit")
	switch phase {
	case choosing:
		return m.viewChoosing()
	case typing:
		s.say("The Base's address: host, or host:port.", bold)
		s.gap()
		s.lines = append(s.lines, line{{"  > ", bold}, {p.typed, 0}, {"_", bold}})
		keys = m.keyLine("Enter  pair with it", "Esc  back", "Ctrl-C  quit")
	case requesting:
		m.sayRequest(s)
	case comparing:
		m.sayCode(s)
		keys = m.keyLine("y  yes, the same", "n  no, it is another one", "q  no, and quit")
	case refusing:
		s.say("Ending the pairing ...", bold)
		keys = m.keyLine("q  quit")
	case waiting:
		s.say("You have said yes. Now somebody at the Base has to say yes, if it shows "+codeOf(d).Digits+" as well ...", bold)
		s.large(codeOf(d).Digits)
	case finished:
		look := bold
		text, bad := m.pairingResult()
		if bad {
			look |= red
		}
		s.say(text, look)
		keys = m.keyLine("Enter  back", "q  quit")
	}
	foot = []line{nil, keys}
	if m.early && phase == comparing {
		foot[0] = styled(" Too early: not an answer. Compare, and press it again.", bold|yellow)
	}
	return s.lines, foot
}

func (m *model) sayRequest(s *sheet) {
	p, d := m.pairing, m.paired()
	if d.RequestNumber == "" {
		s.say("Asking "+p.with+" ...", bold)
		return
	}
	s.say("Accept this number at the Base:  "+d.RequestNumber, bold)
	s.large(d.RequestNumber)
	s.say(fmt.Sprintf("Asking %s, for %s.", p.with, words.English.Duration(uint64(max(0, m.now.Sub(d.Began)/time.Second)))), 0)
	s.gap()
	if p.closed {
		s.say("Pairing is closed there: somebody at the Base, or an owner's App (key o), has to open it.", yellow|bold)
		return
	}
	s.say("When somebody has accepted it there, both show a code.", 0)
}

// codeOf is the code that is compared, or to which the user has said yes.
func codeOf(d owner.DeedState) client.Code {
	if q := cmp.Or(d.Question, d.Compared); q != nil {
		return q.Code
	}
	return client.Code{}
}

func (m *model) sayCode(s *sheet) {
	c := codeOf(m.paired())
	s.say("Does the Base show exactly this code:  "+c.Digits+" ?", bold)
	s.large(c.Digits)
	if !s.tight {
		s.say(fmt.Sprintf("It calls itself %q, and gives this App, %q,", c.BaseName, c.AppName), 0)
		s.say(fmt.Sprintf("the role %s: it %s.", words.English.Role(c.Role), allows[c.Role]), 0)
		s.gap()
		s.say("Compare all six digits. If they differ, somebody may be in between.", 0)
		return
	}
	// These rows have one line each, however long a name is, so the digits never move.
	s.lines = append(s.lines, plain(fmt.Sprintf("  %s for %s, from %s", words.English.Role(c.Role), c.AppName, c.BaseName)))
}

func (m *model) viewChoosing() (body, foot []line) {
	p, strangers := m.pairing, m.strangers()
	at := min(p.at, len(strangers))
	body = []line{nil, styled("  Which Base?", bold), nil}
	rows := max(1, m.bodyRows()-len(body))
	first := min(max(0, at-rows/2), max(0, len(strangers)+1-rows))
	for n := first; n < min(len(strangers)+1, first+rows); n++ {
		name, more := "another Base, by its address", ""
		if n < len(strangers) {
			f := strangers[n]
			name, more = f.Name, "  "+standingOf(f)+"  "+owner.BestAddress(f.Addresses)
		}
		if n == at {
			body = append(body, line{{"  > ", bold}, {name, bold | reverse}, {more, 0}})
			continue
		}
		body = append(body, line{{"    ", 0}, {name, 0}, {more, faint}})
	}
	return body, []line{nil, m.keyLine("Enter  pair with it", "a  type an address", "Esc  back", "q  quit")}
}

// keyTable says what each key does, for the help. docs/app/dashboard.md has the same table.
var keyTable = []struct{ keys, what string }{
	{"up down", "choose a Base (also k, j)"},
	{"left right", "go to another page (also Tab, 1 to 7)"},
	{"PgUp PgDn", "scroll (also Space, Home)"},
	{"Enter", "pair with the chosen Base"},
	{"p", "pair with a Base: choose it, or type its address"},
	{"c", "confirm a change on trial"},
	{"L", "lock the Base down: press L again"},
	{"U", "lift a lockdown"},
	{"f", "have the Base fix a finding of its audit"},
	{"b", "let a banned address in again"},
	{"e", "end SSH or an extra API before its time"},
	{"o", "open or close the pairing window, for a further App"},
	{"a", "run an audit of the Base"},
	{"r", "ask the Base again now"},
	{"Esc", "go back; cancel what is under way"},
	{"?", "this help"},
	{"q Ctrl-C", "quit, at any moment"},
}

func (m *model) helpLines() []line {
	var lines []line
	for _, k := range keyTable {
		name := fmt.Sprintf("  %-12s", k.keys)
		for n, part := range wrap(k.what, m.width-len(name)-1, 0) {
			if n > 0 {
				name = strings.Repeat(" ", len(name))
			}
			lines = append(lines, append(line{{name, bold}}, part...))
		}
	}
	lines = append(lines, nil)
	return append(lines, indented("  ", wrap("Each change is shown in words first, and made only when you say yes to it.", m.width-4, 0))...)
}

// mostHelped is how far the help can be scrolled.
func (m *model) mostHelped() int {
	return max(0, len(m.helpLines())-m.bodyRows())
}

func (m *model) viewHelp() (body, foot []line) {
	more := line(nil)
	if m.mostHelped() > 0 {
		more = styled(" Down and up show the rest.", faint)
	}
	return m.helpLines()[min(m.helped, m.mostHelped()):], []line{more, m.keyLine("Esc  back", "q  quit")}
}

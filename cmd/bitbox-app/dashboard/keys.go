package dashboard

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

type (
	// size is that of the terminal.
	size struct{ width, height int }
	// press is a key: its name ("up", "ctrl+c", "y", "L"), and the text that it types, if any.
	press struct{ key, text string }
	// pasted is pasted text: it is typed, but it answers nothing.
	pasted string
)

// maxTyped is longer than any address, in bytes.
const maxTyped = 255

func (m *model) press(k press) []any {
	switch {
	case k.key == "ctrl+c":
		return m.leave()
	case m.tooSmall():
		if k.key == "q" {
			return m.leave()
		}
		return nil // its effect would not be visible
	case k.key == "q" && m.phase() != typing:
		return m.leave()
	case m.help:
		return m.pressHelp(k)
	case k.key == "?" && m.phase() != typing:
		m.help, m.helped = true, 0
		return nil
	case m.pairing != nil:
		return m.pressPairing(k)
	case m.asking() != nil:
		return m.pressQuestion(k)
	case m.choice != nil:
		return m.pressChoice(k)
	}
	return m.pressOverview(k)
}

func (m *model) leave() []any {
	m.left = true
	return []any{quit{}}
}

func (m *model) pressHelp(k press) []any {
	switch k.key {
	case "down", "j", "pgdown", "space":
		m.helped = min(m.helped+1, m.mostHelped())
	case "up", "k", "pgup":
		m.helped = max(0, m.helped-1)
	default:
		m.help = false
	}
	return nil
}

// tooEarly tells that a key came before a question was on the screen for lookTime, and starts
// that time again.
func (m *model) tooEarly() bool {
	if m.now.Sub(m.since) >= m.lookTime {
		return false
	}
	m.since, m.early = m.now, true
	return true
}

func (m *model) pressQuestion(k press) []any {
	d := m.asking()
	if m.tooEarly() {
		return nil
	}
	yes := "y"
	if d.Deed.Kind == owner.Lockdown {
		yes = "L" // a habitual yes must not lock a Base down
	}
	switch k.key {
	case yes, strings.ToUpper(yes):
		if m.questionFits(d) { // or else not all of it can be read
			return []any{answer{d.Number, d.Question.ID, true}}
		}
	case "n", "N", "esc", "enter":
		return []any{answer{d.Number, d.Question.ID, false}}
	}
	return nil
}

func (m *model) pressChoice(k press) []any {
	c := m.choice
	switch k.key {
	case "up", "k":
		c.at = max(0, c.at-1)
	case "down", "j":
		c.at = min(len(c.options)-1, c.at+1)
	case "enter":
		m.choice = nil
		return m.do(c.options[c.at].deed)
	case "esc", "n", "N":
		m.choice = nil
	}
	if len(k.key) == 1 && k.key[0] >= '1' && k.key[0] <= '9' && int(k.key[0]-'1') < len(c.options) {
		m.choice = nil
		return m.do(c.options[k.key[0]-'1'].deed)
	}
	return nil
}

func (m *model) pressOverview(k press) []any {
	switch k.key {
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgdown", "space":
		m.scrollBy(m.pageHeight() - 1)
	case "pgup":
		m.scrollBy(1 - m.pageHeight())
	case "home":
		m.scroll = 0
	case "left":
		m.turn(m.turned() - 1)
	case "right", "tab":
		m.turn(m.turned() + 1)
	case "1", "2", "3", "4", "5", "6", "7":
		m.turn(int(k.key[0] - '1'))
	case "p":
		m.beginPairing()
	case "enter":
		if s := m.chosen.stranger; s != nil {
			m.pairing = &pairing{}
			return m.pairWith(*s)
		}
	case "esc":
		if d := m.working(); d != nil {
			return []any{stop{d.Number}}
		}
		m.notice = notice{}
	case "r":
		if b := m.chosen.base; b != nil {
			return []any{refresh{base: b.ID()}}
		}
		return []any{refresh{}}
	default:
		return m.pressDeed(k.key)
	}
	return nil
}

func (m *model) move(by int) {
	if entries := m.entries(); len(entries) > 0 {
		m.chosen, m.scroll = entries[min(max(m.chosenAt()+by, 0), len(entries)-1)], 0
	}
}

func (m *model) scrollBy(rows int) {
	m.scroll = min(max(m.scroll+rows, 0), max(0, len(m.pageLines())-m.pageHeight()))
}

// turn turns to a page by its place among those that there are.
func (m *model) turn(to int) {
	pages := m.pages()
	m.page, m.scroll = pages[min(max(to, 0), len(pages)-1)], 0
}

// turned is the place of the present page; if the Base does not have it, that of the first.
func (m *model) turned() int { return max(0, slices.Index(m.pages(), m.page)) }

// pages are those about the chosen Base: the node and the services only where it tells them.
func (m *model) pages() []int {
	pages := []int{pageOverview, pageAccess, pageApps, pageSecurity, pageEvents}
	b := m.chosen.base
	if b != nil && b.Look.Node != nil {
		pages = append(pages, pageNode)
	}
	if b != nil && len(b.Look.Services) > 0 {
		pages = append(pages, pageServices)
	}
	return pages
}

// pressDeed handles the keys that change something at the chosen Base.
func (m *model) pressDeed(key string) []any {
	b := m.chosen.base
	if b == nil || !slices.Contains([]string{"a", "o", "e", "c", "b", "f", "L", "U"}, key) {
		return nil
	}
	switch {
	case b.Connection != owner.Connected:
		m.say(fmt.Sprintf("%s is not answering now.", b.Name), true)
		return nil
	case key == "a":
		return m.pressAudit(b)
	case b.RoleNow() != basev1.Role_ROLE_OWNER:
		m.say("Only an owner's App may do that.", true)
		return nil
	}
	switch key {
	case "o":
		kind := owner.OpenWindow
		if b.Look.Window.GetOpen() {
			kind = owner.CloseWindow
		}
		return m.do(owner.Deed{Kind: kind})
	case "e":
		return m.chooseOf("Which one should end?", "Nothing is open for a limited time.", leases(b))
	case "b":
		return m.chooseOf("Which ban do you want to lift?", "No address is banned.", bans(b))
	case "f":
		return m.chooseOf("Which finding should the Base fix?", "No finding can be fixed by the Base itself.", fixes(b))
	}
	a := b.Look.Access
	switch {
	case a == nil && key != "L":
		m.say("This Base does not have this function.", true)
	case key == "c" && !a.Trying:
		m.say("No change is waiting for confirmation.", true)
	case key == "c":
		return m.do(owner.Deed{Kind: owner.ConfirmTry})
	case key == "U" && !a.Lockdown:
		m.say("The Base is not locked down.", true)
	case key == "U":
		return m.do(owner.Deed{Kind: owner.Unlock})
	case key == "L":
		return m.do(owner.Deed{Kind: owner.Lockdown})
	}
	return nil
}

func (m *model) pressAudit(b *owner.Base) []any {
	if b.RoleNow() == basev1.Role_ROLE_VIEWER {
		m.say("Only an operator's or an owner's App may run an audit.", true)
		return nil
	}
	return []any{refresh{b.ID(), true}}
}

// option is a deed with the words that offer it.
type option struct {
	deed owner.Deed
	name string
}

func (m *model) chooseOf(title, none string, options []option) []any {
	switch len(options) {
	case 0:
		m.say(none, true)
		return nil
	case 1:
		return m.do(options[0].deed)
	}
	m.choice = &choice{title: title, options: options}
	return nil
}

func leases(b *owner.Base) (list []option) {
	a := b.Look.Access
	if a == nil {
		return nil
	}
	if a.SSH {
		list = append(list, option{owner.Deed{Kind: owner.EndLease, Subject: "ssh"}, "SSH"})
	}
	for _, d := range a.Doors {
		if d.Left > 0 || d.ForGood {
			list = append(list, option{owner.Deed{Kind: owner.EndLease, Subject: d.Kind}, d.Kind})
		}
	}
	return list
}

func bans(b *owner.Base) (list []option) {
	for _, ban := range b.Look.Bans {
		o := option{owner.Deed{Kind: owner.LiftBan, Subject: ban.GetAddress()}, ban.GetAddress() + " (" + ban.GetJail() + ")"}
		if !slices.ContainsFunc(list, func(other option) bool { return reflect.DeepEqual(other.deed, o.deed) }) {
			list = append(list, o)
		}
	}
	return list
}

func fixes(b *owner.Base) (list []option) {
	for _, f := range b.Findings {
		if f.GetFixable() {
			list = append(list, option{owner.Deed{Kind: owner.Fix, Subject: f.GetId(), Text: f.GetFix()}, f.GetTitle()})
		}
	}
	return list
}

func (m *model) do(deed owner.Deed) []any {
	b := m.chosen.base
	if b == nil {
		return nil
	}
	m.notice = notice{}
	return []any{do{b.ID(), deed}}
}

// beginPairing lets the user choose one of the Bases nearby, starting at the chosen one.
func (m *model) beginPairing() {
	m.pairing = &pairing{}
	if c := m.chosen.stranger; c != nil {
		m.pairing.at = slices.IndexFunc(m.strangers(), func(s owner.Announced) bool { return s.ID == c.ID })
	}
}

func (m *model) pairWith(s owner.Announced) []any {
	p := m.pairing
	if s.ProtocolVersion != client.ProtocolVersion {
		p.failure = fmt.Sprintf("%s speaks protocol %d, which this App does not know. Update the older of the two.", s.Name, s.ProtocolVersion)
		return nil
	}
	p.closed = !s.PairingOpen
	return m.pairAt(s.Name+" at "+owner.BestAddress(s.Addresses), s.Addresses)
}

func (m *model) pairAt(with string, addresses []string) []any {
	m.pairing.with = with
	return []any{do{deed: owner.Deed{Kind: owner.Pair, Addresses: addresses}}}
}

func (m *model) pressPairing(k press) []any {
	p, d := m.pairing, m.paired()
	switch m.phase() {
	case choosing:
		return m.pressChoosing(k)
	case typing:
		return m.pressTyping(k)
	case comparing:
		return m.pressComparing(k)
	case finished:
		if k.key == "enter" || k.key == "esc" {
			m.pairing = nil
			if d.Made != nil {
				m.wanted = d.Made.Name
			}
			m.choose()
		}
		return nil
	case refusing:
		return nil
	}
	if k.key == "esc" {
		p.refused = true
		return []any{stop{p.deed}}
	}
	return nil
}

func (m *model) pressChoosing(k press) []any {
	p, strangers := m.pairing, m.strangers()
	p.at = min(p.at, len(strangers)) // the last entry is a typed address
	switch k.key {
	case "up", "k":
		p.at = max(0, p.at-1)
	case "down", "j":
		p.at = min(len(strangers), p.at+1)
	case "a":
		p.typing = true
	case "enter":
		if p.at == len(strangers) {
			p.typing = true
			return nil
		}
		return m.pairWith(strangers[p.at])
	case "esc":
		m.pairing = nil
	}
	return nil
}

func (m *model) pressTyping(k press) []any {
	p := m.pairing
	switch k.key {
	case "esc":
		p.typing, p.typed = false, ""
	case "backspace":
		if r := []rune(p.typed); len(r) > 0 {
			p.typed = string(r[:len(r)-1])
		}
	case "enter":
		if p.typed != "" {
			return m.pairAt(p.typed, []string{p.typed})
		}
	default:
		m.paste(k.text)
	}
	return nil
}

func (m *model) paste(text string) {
	p := m.pairing
	if m.phase() != typing {
		return
	}
	for _, r := range text {
		if r != ' ' && unicode.IsPrint(r) && len(p.typed) < maxTyped {
			p.typed += string(r)
		}
	}
}

// pressComparing takes the answer to the code, only from a key that was pressed after the code
// had been on the screen long enough.
func (m *model) pressComparing(k press) []any {
	d := m.paired()
	if m.tooEarly() {
		return nil
	}
	switch k.key {
	case "y", "Y":
		return []any{answer{d.Number, d.Question.ID, true}}
	case "n", "N", "esc":
		m.pairing.refused = true
		return []any{answer{d.Number, d.Question.ID, false}}
	}
	return nil
}

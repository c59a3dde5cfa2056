package dashboard

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
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
		return m.quit()
	case m.tooSmall():
		if k.key == "q" {
			return m.quit()
		}
		return nil // its effect would not be visible
	case k.key == "q" && (m.pairing == nil || m.pairing.phase != typing):
		return m.quit()
	case m.help:
		return m.pressHelp(k)
	case k.key == "?" && (m.pairing == nil || m.pairing.phase != typing):
		m.help, m.helped = true, 0
		return nil
	case m.pairing != nil:
		return m.pressPairing(k)
	case m.working != nil && m.working.question != nil:
		return m.pressQuestion(k)
	case m.choice != nil:
		return m.pressChoice(k)
	}
	return m.pressOverview(k)
}

func (m *model) quit() []any {
	m.left = true
	return []any{orderQuit{}}
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
func (m *model) tooEarly(since *time.Time, early *bool) bool {
	if m.now.Sub(*since) >= m.lookTime {
		return false
	}
	*since, *early = m.now, true
	return true
}

func (m *model) pressQuestion(k press) []any {
	q := m.working.question
	if m.tooEarly(&q.since, &q.early) {
		return nil
	}
	yes := "y"
	if m.working.deed.Kind == Lockdown {
		yes = "L" // a habitual yes must not lock a Base down
	}
	switch k.key {
	case yes, strings.ToUpper(yes):
		if !m.questionFits() {
			return nil // not all of it can be read
		}
		m.working.question = nil
		return []any{orderAnswer{q.id, true}}
	case "n", "N", "esc", "enter":
		m.working.question = nil
		return []any{orderAnswer{q.id, false}}
	}
	return nil
}

func (m *model) pressChoice(k press) []any {
	c := m.choice
	switch k.key {
	case "up", "k":
		c.at = max(0, c.at-1)
	case "down", "j":
		c.at = min(len(c.deeds)-1, c.at+1)
	case "enter":
		m.choice = nil
		return m.do(c.deeds[c.at])
	case "esc", "n", "N":
		m.choice = nil
	}
	if len(k.key) == 1 && k.key[0] >= '1' && k.key[0] <= '9' && int(k.key[0]-'1') < len(c.deeds) {
		m.choice = nil
		return m.do(c.deeds[k.key[0]-'1'])
	}
	return nil
}

func (m *model) pressOverview(k press) []any {
	switch k.key {
	case "up", "k":
		return m.move(-1)
	case "down", "j":
		return m.move(1)
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
		if f, ok := m.chosenFound(); ok {
			m.pairing = &pairing{phase: choosing}
			return m.pairWith(f)
		}
	case "esc":
		if m.working != nil {
			return []any{orderGiveUp{}}
		}
		m.notice = notice{}
	case "r":
		if b := m.chosenBase(); b != nil {
			return []any{orderBases{}, orderLook{b.Name, false}}
		}
		return []any{orderBases{}}
	default:
		return m.pressDeed(k.key)
	}
	return nil
}

func (m *model) move(by int) []any {
	keys := m.keys()
	if len(keys) == 0 {
		return nil
	}
	m.chosen, m.scroll = keys[min(max(m.chosenAt()+by, 0), len(keys)-1)], 0
	return m.follow()
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
	b := m.chosenBase()
	if b != nil && b.look.Node != nil {
		pages = append(pages, pageNode)
	}
	if b != nil && len(b.look.Services) > 0 {
		pages = append(pages, pageServices)
	}
	return pages
}

// pressDeed handles the keys that change something at the chosen Base.
func (m *model) pressDeed(key string) []any {
	b := m.chosenBase()
	if b == nil || !slices.Contains([]string{"a", "o", "e", "c", "b", "f", "L", "U"}, key) {
		return nil
	}
	switch {
	case b.state != answering:
		m.say(fmt.Sprintf("%s is not answering now.", b.Name), true)
		return nil
	case m.working != nil:
		m.say("Another change is under way; Esc cancels it.", true)
		return nil
	case key == "a":
		return m.pressAudit(b)
	case b.role() != basev1.Role_ROLE_OWNER:
		m.say("Only an owner's App may do that.", true)
		return nil
	}
	switch key {
	case "o":
		kind := OpenWindow
		if b.look.Window.GetOpen() {
			kind = CloseWindow
		}
		return m.do(Deed{Kind: kind})
	case "e":
		return m.chooseOf("Which one should end?", "Nothing is open for a limited time.", b.leases())
	case "b":
		return m.chooseOf("Which ban do you want to lift?", "No address is banned.", b.bans())
	case "f":
		return m.chooseOf("Which finding should the Base fix?", "No finding can be fixed by the Base itself.", b.fixes())
	}
	a := b.look.Access
	switch {
	case a == nil && key != "L":
		m.say("This Base does not have this function.", true)
	case key == "c" && !a.Trying:
		m.say("No change is waiting for confirmation.", true)
	case key == "c":
		return m.do(Deed{Kind: ConfirmTry})
	case key == "U" && !a.Lockdown:
		m.say("The Base is not locked down.", true)
	case key == "U":
		return m.do(Deed{Kind: Unlock})
	case key == "L":
		return m.do(Deed{Kind: Lockdown})
	}
	return nil
}

func (m *model) pressAudit(b *base) []any {
	if b.role() == basev1.Role_ROLE_VIEWER {
		m.say("Only an operator's or an owner's App may run an audit.", true)
		return nil
	}
	b.auditing = true
	return []any{orderLook{b.Name, true}}
}

// role is what this App may do now; it was reported at the pairing, and may have changed since.
func (b *base) role() basev1.Role {
	if now := b.look.Info.GetCaller().GetRole(); now != basev1.Role_ROLE_UNSPECIFIED {
		return now
	}
	return b.Role
}

// option is a deed with the words that offer it.
type option struct {
	deed Deed
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
	m.choice = &choice{title: title}
	for _, o := range options {
		m.choice.deeds, m.choice.names = append(m.choice.deeds, o.deed), append(m.choice.names, o.name)
	}
	return nil
}

func (b *base) leases() (list []option) {
	a := b.look.Access
	if a == nil {
		return nil
	}
	if a.SSH {
		list = append(list, option{Deed{Kind: EndLease, Subject: "ssh"}, "SSH"})
	}
	for _, d := range a.Doors {
		if d.Left > 0 || d.ForGood {
			list = append(list, option{Deed{Kind: EndLease, Subject: d.Kind}, d.Kind})
		}
	}
	return list
}

func (b *base) bans() (list []option) {
	for _, ban := range b.look.Bans {
		o := option{Deed{Kind: LiftBan, Subject: ban.GetAddress()}, ban.GetAddress() + " (" + ban.GetJail() + ")"}
		if !slices.ContainsFunc(list, func(other option) bool { return reflect.DeepEqual(other.deed, o.deed) }) {
			list = append(list, o)
		}
	}
	return list
}

func (b *base) fixes() (list []option) {
	for _, f := range b.findings {
		if f.GetFixable() {
			list = append(list, option{Deed{Kind: Fix, Subject: f.GetId(), Text: f.GetFix()}, f.GetTitle()})
		}
	}
	return list
}

func (m *model) do(deed Deed) []any {
	b := m.chosenBase()
	if b == nil {
		return nil
	}
	m.working = &working{base: b.Name, deed: deed}
	m.notice = notice{}
	return []any{orderDo{b.Name, deed}}
}

// beginPairing lets the user choose one of the Bases nearby, starting at the chosen one.
func (m *model) beginPairing() {
	m.pairing = &pairing{phase: choosing}
	if f, ok := m.chosenFound(); ok {
		m.pairing.at = slices.IndexFunc(m.strangers(), func(o found) bool { return o.id == f.id })
	}
}

func (m *model) pairWith(f found) []any {
	p := m.pairing
	if f.ProtocolVersion != client.ProtocolVersion {
		p.phase, p.problem, p.result = finished, true, fmt.Sprintf("%s speaks protocol %d, which this App does not know. Update the older of the two.", f.Name, f.ProtocolVersion)
		return nil
	}
	p.phase, p.since, p.with, p.closed = requesting, m.now, f.Name+" at "+bestAddress(f.Addresses), !f.PairingOpen
	return []any{orderPair{f.Addresses}}
}

// bestAddress is the address that is most useful to a person. A link-local one has a zone, which
// is an interface of this machine.
func bestAddress(addresses []string) string {
	for _, address := range addresses {
		if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Zone() == "" {
			return address
		}
	}
	return strings.Join(addresses[:min(1, len(addresses))], "")
}

func (m *model) pressPairing(k press) []any {
	p := m.pairing
	switch p.phase {
	case choosing:
		return m.pressChoosing(k)
	case typing:
		return m.pressTyping(k)
	case comparing:
		return m.pressComparing(k)
	case finished:
		if k.key == "enter" || k.key == "esc" {
			m.pairing = nil
			m.choose()
			return m.follow()
		}
		return nil
	}
	if k.key == "esc" && p.phase != refusing {
		p.phase = refusing
		return []any{orderGiveUp{}}
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
		p.phase = typing
	case "enter":
		if p.at == len(strangers) {
			p.phase = typing
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
		p.phase, p.typed = choosing, ""
	case "backspace":
		if r := []rune(p.typed); len(r) > 0 {
			p.typed = string(r[:len(r)-1])
		}
	case "enter":
		if p.typed != "" {
			p.phase, p.since, p.with = requesting, m.now, p.typed
			return []any{orderPair{[]string{p.typed}}}
		}
	default:
		m.paste(k.text)
	}
	return nil
}

func (m *model) paste(text string) {
	p := m.pairing
	if p == nil || p.phase != typing {
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
	p := m.pairing
	if m.tooEarly(&p.shown, &p.early) {
		return nil
	}
	switch k.key {
	case "y", "Y":
		p.phase = waiting
		return []any{orderAnswer{p.id, true}}
	case "n", "N", "esc":
		p.phase = refusing
		return []any{orderAnswer{p.id, false}}
	}
	return nil
}

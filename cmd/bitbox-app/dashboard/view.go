package dashboard

import (
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// The parts of the screen, in cells.
const (
	// minWidth and minHeight are the space that a code in narrow digits needs.
	minWidth, minHeight = 40, 11
	// listWidth is the width of the list of Bases. A screen narrower than twoPanes has no list.
	listWidth, twoPanes = 22, 72
	// headRows and footRows are always shown, above and below everything.
	headRows, footRows = 1, 3
)

func (m *model) tooSmall() bool { return m.width < minWidth || m.height < minHeight }

// view draws the screen: one line per row, each exactly as wide as the screen.
func (m *model) view() []line {
	if m.tooSmall() {
		return m.viewTooSmall()
	}
	var body []line
	var foot []line
	switch {
	case m.help:
		body, foot = m.viewHelp()
	case m.pairing != nil:
		body, foot = m.viewPairing()
	case m.asking() != nil:
		body, foot = m.viewQuestion()
	case m.choice != nil:
		body, foot = m.viewChoice()
	default:
		body, foot = m.viewOverview()
	}
	lines := append([]line{m.viewHead()}, body...)
	rows := m.height - len(foot) - 1
	for len(lines) < rows {
		lines = append(lines, nil)
	}
	lines = append(lines[:rows], styled(strings.Repeat("─", m.width), faint))
	lines = append(lines, foot...)
	for n := range lines {
		lines[n] = lines[n].fit(m.width, m.ascii)
	}
	return lines
}

func (m *model) viewTooSmall() []line {
	var lines []line
	for _, l := range wrap(fmt.Sprintf("Too small: %d by %d cells are needed. q quits.", minWidth, minHeight), max(1, m.width), 0) {
		if len(lines) < m.height {
			lines = append(lines, l.fit(m.width, m.ascii))
		}
	}
	for len(lines) < m.height {
		lines = append(lines, line(nil).fit(m.width, m.ascii))
	}
	return lines
}

func (m *model) viewHead() line {
	left, right := " BitBox Base", m.now.Local().Format(time.TimeOnly)+" "
	switch {
	case m.help:
		left += " · keys"
	case m.pairing != nil:
		left += " · pair"
	}
	gap := m.width - widthOf(left) - widthOf(right)
	return styled(left+strings.Repeat(" ", max(1, gap))+right, reverse)
}

// keyLine lists keys: as many as fit, the most important first.
func (m *model) keyLine(keys ...string) line {
	l, left := line{{text: " "}}, m.width-1
	for _, k := range keys {
		name, what, _ := strings.Cut(k, " ")
		w := widthOf(k)
		if w > left {
			break
		}
		l = append(l, span{name, bold}, span{" " + what + "   ", 0})
		left -= w + len("   ")
	}
	return l
}

// noticeLine is what was done, or what is being done.
func (m *model) noticeLine() line {
	d, n := m.working(), m.notice
	switch {
	case n.text != "" && m.now.Sub(n.at) < noticeTime && (d == nil || n.at.After(d.Began)):
		return styled(" "+n.text, bold|colour(n.bad))
	case d != nil:
		text := "asking the Base"
		if len(d.Steps) > 0 {
			text = d.Steps[len(d.Steps)-1].String()
		}
		return line{{" ... " + text, bold}, {"   Esc cancels it", 0}}
	case m.state.StorageErr != nil:
		return styled(" "+explain(m.state.StorageErr), bold|red)
	case m.state.UnstoredErr != nil:
		return styled(" "+explain(m.state.UnstoredErr), bold|red)
	}
	return nil
}

func colour(bad bool) style {
	if bad {
		return red
	}
	return green
}

func (m *model) viewOverview() (body, foot []line) {
	height := m.bodyRows()
	foot = []line{m.noticeLine(), m.overviewKeys()}
	if len(m.entries()) == 0 {
		return m.viewNothing(), foot
	}
	if m.width < twoPanes {
		body = append(body, m.viewSwitch())
		return append(body, m.viewChosen(m.width, height-1)...), foot
	}
	list, detail := m.viewList(height), m.viewChosen(m.width-listWidth-2, height)
	for row := range height {
		l, d := line(nil), line(nil)
		if row < len(list) {
			l = list[row]
		}
		if row < len(detail) {
			d = detail[row]
		}
		joined := append(l.fit(listWidth, m.ascii), span{"│ ", faint})
		body = append(body, append(joined, d...))
	}
	return body, foot
}

func (m *model) overviewKeys() line {
	keys := []string{"?  help", "q  quit"}
	b := m.chosen.base
	switch {
	case b == nil:
		if m.chosen.stranger != nil {
			keys = append(keys, "Enter  pair")
		} else {
			keys = append(keys, "p  pair")
		}
		return m.keyLine(keys...)
	case b.Connection == owner.Unfollowed: // it is not asked by a key either
		return m.keyLine(append(keys, "p  pair")...)
	case b.Connection != owner.Connected:
		return m.keyLine(append(keys, "r  try now", "p  pair")...)
	}
	owns := b.RoleNow() == basev1.Role_ROLE_OWNER
	a := b.Look.Access
	if owns && a != nil && a.Trying {
		keys = append(keys, "c  confirm")
	}
	switch {
	case owns && a != nil && a.Lockdown:
		keys = append(keys, "U  lift lockdown")
	case owns && (a != nil || b.Look.Lie != nil):
		keys = append(keys, "L  lock down")
	}
	if owns && len(fixes(b)) > 0 {
		keys = append(keys, "f  fix")
	}
	if owns && len(bans(b)) > 0 {
		keys = append(keys, "b  lift ban")
	}
	if owns && len(leases(b)) > 0 {
		keys = append(keys, "e  end")
	}
	if owns {
		if b.Look.Window.GetOpen() {
			keys = append(keys, "o  close window")
		} else {
			keys = append(keys, "o  let App in")
		}
	}
	return m.keyLine(append(keys, "p  pair")...)
}

func (m *model) viewNothing() []line {
	lines := []line{nil}
	width := m.width - 4
	say := func(text string, s style) {
		lines = append(lines, append(indented("  ", wrap(text, width, s)), nil)...)
	}
	say("This App is not paired with any Base yet, and none is announced on the local network.", bold)
	say("Is the Base on, and on this network? It appears here by itself. To type its address, press p.", 0)
	if m.state.SearchErr != nil {
		say(explain(m.state.SearchErr), red)
	}
	return lines
}

// viewSwitch replaces the list where there is no room for it.
func (m *model) viewSwitch() line {
	l := line{{fmt.Sprintf(" %d of %d ", m.chosenAt()+1, len(m.entries())), faint}}
	if b := m.chosen.base; b != nil {
		mark, text, s := m.standing(b)
		return append(l, span{b.Name, bold}, span{"  " + mark + " " + text, s})
	}
	return append(l, span{m.chosen.name(), bold}, span{"  not paired", 0})
}

func (m *model) viewList(height int) []line {
	var lines []line
	chosen := 0
	if len(m.state.Bases) > 0 {
		lines = append(lines, styled(" Paired", faint))
	}
	for n, e := range m.entries() {
		mark, text, s := "+", "", style(0)
		if e.base != nil {
			mark, text, s = m.standing(e.base)
		} else {
			text = standingOf(*e.stranger)
		}
		if n == len(m.state.Bases) {
			lines = append(lines, nil, styled(" Announced nearby", faint))
		}
		before, nameStyle := "  ", bold
		if e.is(m.chosen) {
			before, nameStyle, chosen = "> ", bold|reverse, len(lines)
		}
		lines = append(lines, line{{before, bold}, {e.name(), nameStyle}}, line{{"  " + mark + " " + text, s}})
	}
	if m.state.SearchErr != nil {
		lines = append(append(lines, nil), indented(" ", wrap("Not searching: "+client.Explain(m.state.SearchErr), listWidth-2, red))...)
	}
	first := min(max(0, chosen-height/2), max(0, len(lines)-height))
	lines = lines[first:min(len(lines), first+height)]
	return lines
}

func standingOf(f owner.Announced) string {
	switch {
	case f.ProtocolVersion != client.ProtocolVersion:
		return fmt.Sprintf("protocol %d", f.ProtocolVersion)
	case f.PairingOpen:
		return "pairing open"
	}
	return "pairing closed"
}

// standings are the few words and the symbol for each standing of a Base that needs no more than them.
var standings = map[string]struct{ mark, text string }{
	"revoked":    {"○", "revoked"},
	"reset":      {"○", "was reset"},
	"ended":      {"○", "see there"},
	"lie":        {"▲", "DOES NOT VERIFY"},
	"lost":       {"○", "no answer"},
	"unfollowed": {"○", "not followed"},
	"connecting": {"·", "connecting"},
	"lockdown":   {"▲", "locked down"},
	"failed":     {"▲", "a service failed"},
	"disk":       {"▲", "disk nearly full"},
	"node":       {"▲", "the node stopped"},
	"doubted":    {"·", "connecting"},
	"good":       {"●", "well"},
}

var weights = map[owner.Weight]style{owner.Good: green, owner.Unsure: faint, owner.Warn: yellow, owner.Bad: red}

// standing says how a Base is, in a symbol and a few words.
func (m *model) standing(b *owner.Base) (mark, text string, s style) {
	is := b.Standing()
	said, style := standings[is.Key], weights[is.Weight]
	switch is.Key {
	case "critical", "warning":
		return "▲", counted(len(b.Serious()), "finding", "findings"), style
	case "trying":
		return "▲", "change: " + m.untilIn(b, b.Look.Access.UndoneIn), style | bold
	case "lie":
		style |= bold
	}
	return said.mark, said.text, style
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// noneOr is a count, with "no keys" for 0.
func noneOr(n int, one, many string) string {
	if n == 0 {
		return "no " + many
	}
	return counted(n, one, many)
}

// untilIn is the rest of a time that a Base has reported.
func (m *model) untilIn(b *owner.Base, told time.Duration) string {
	return words.English.Duration(owner.Seconds(told - m.now.Sub(b.At)))
}

// viewChosen shows the chosen entry, in this many cells.
func (m *model) viewChosen(width, height int) []line {
	b := m.chosen.base
	if b == nil {
		if m.chosen.stranger == nil {
			return nil
		}
		return m.viewStranger(*m.chosen.stranger, width)
	}
	lines := m.chosenHead(b, width)
	page := m.pageLines()
	rows := max(1, height-len(lines))
	scroll := min(m.scroll, max(0, len(page)-rows))
	shown := page[scroll:min(len(page), scroll+rows)]
	if more := len(page) - scroll - len(shown); more > 0 {
		shown = append(shown[:len(shown)-1:len(shown)-1], styled(fmt.Sprintf("  ... %d more rows: PgDn", more+1), faint))
	}
	return append(lines, shown...)
}

// pageHeight is how many rows a page about the chosen Base has.
func (m *model) pageHeight() int {
	b := m.chosen.base
	if b == nil {
		return 1
	}
	height := m.bodyRows()
	if m.width < twoPanes {
		height--
	}
	return max(1, height-len(m.chosenHead(b, m.pageWidth())))
}

func (m *model) pageWidth() int {
	if m.width < twoPanes {
		return m.width
	}
	return m.width - listWidth - 2
}

// chosenHead is above each page: the Base's name, urgent notices, and the names of the pages.
func (m *model) chosenHead(b *owner.Base, width int) []line {
	var lines []line
	if m.width >= twoPanes {
		mark, text, s := m.standing(b)
		lines = append(lines, line{{b.Name, bold}, {"  " + mark + " " + text, s}, {software(b), faint}})
	}
	alerts, most := m.alerts(b, width), max(3, m.bodyRows()/3)
	if b.Look.Info == nil {
		most = m.bodyRows() - len(lines) - 1 // nothing stands below them
	}
	if len(alerts) > most {
		last := alerts[most-1]
		alerts = append(alerts[:most-1:most-1], append(last[:len(last):len(last)], span{text: " ..."}))
	}
	lines = append(lines, alerts...)
	if b.Look.Info == nil {
		return lines
	}
	return append(lines, m.tabs(width)...)
}

// software is the version that a Base runs, and since when.
func software(b *owner.Base) string {
	i := b.Look.Info
	if i == nil {
		return ""
	}
	return fmt.Sprintf("   %s, up %s", i.GetSoftwareVersion(), words.English.Duration(i.GetMachineUptimeSeconds()))
}

var pageNames = []string{"Overview", "Access", "Apps", "Security", "Events", "Node", "Services"}

// tabs names the pages, in as many rows as the names need.
func (m *model) tabs(width int) []line {
	var lines []line
	row := line{}
	for n, page := range m.pages() {
		name := pageNames[page]
		tab := span{fmt.Sprintf(" %d %s ", n+1, name), 0}
		if n == m.turned() {
			tab = span{fmt.Sprintf("[%d %s]", n+1, name), bold | reverse}
		}
		if len(row) > 0 && widthOf(row.text())+widthOf(tab.text) > width {
			lines, row = append(lines, row), line{}
		}
		row = append(row, tab)
	}
	return append(lines, row)
}

// alerts are notices that must be visible on each page.
func (m *model) alerts(b *owner.Base, width int) []line {
	var lines []line
	say := func(text string, s style) { lines = append(lines, indented("▲ ", wrap(text, width-3, s))...) }
	if b.State == client.Revoked {
		say("The Base says that this App was revoked. An owner can pair it again.", red|bold)
	} else if b.State == client.Reset {
		say("This App has wiped the Base, which no longer knows any App. Pair with it again.", red|bold)
	} else if b.Connection == owner.Unfollowed {
		say(fmt.Sprintf("This App follows %d Bases, and no more: it does not ask this one. Commands still reach it.", owner.MaxFollowed), yellow)
	} else if b.Err != nil {
		var state []string
		if b.Connection == owner.Lost {
			state = append(state, "Asked again in "+words.English.Duration(owner.Seconds(b.Again.Sub(m.now)))+".")
		}
		if b.Look.Info != nil {
			state = append(state, "The data below is from "+words.English.When(b.At, m.now)+".")
		}
		if len(state) > 0 {
			say(strings.Join(state, " "), red|bold)
		}
		say(explain(b.Err), red)
	}
	if b.Look.Lie != nil {
		say("DOES NOT VERIFY: "+explain(b.Look.Lie), red|bold)
	}
	if a := b.Look.Access; a != nil && b.Connection == owner.Connected {
		switch {
		case a.Trying:
			text := "A change is on trial: undone in " + m.untilIn(b, a.UndoneIn) + "."
			if b.RoleNow() == basev1.Role_ROLE_OWNER {
				text += " c confirms it."
			}
			say(text, yellow|bold)
		case a.Applying:
			say("A change is being put in force.", yellow)
		}
		if a.Lockdown {
			say("Locked down: only this App's channel is open. U lifts it.", yellow|bold)
		}
		if a.Gap {
			say("The Base no longer has all the changes since this App looked last.", yellow)
		}
	}
	return lines
}

func (m *model) viewStranger(f owner.Announced, width int) []line {
	lines := []line{{{f.Name, bold}, {"  not paired", 0}}, nil}
	say := func(text string, s style) { lines = append(lines, append(wrap(text, width-1, s), nil)...) }
	switch {
	case f.ProtocolVersion != client.ProtocolVersion:
		say(fmt.Sprintf("It speaks protocol %d, which this App does not know.", f.ProtocolVersion), red)
	case f.PairingOpen:
		say("It listens for pairing requests. Press Enter to pair.", 0)
	default:
		say("It is not accepting Apps now. An owner's App, or somebody at the Base, can open pairing for three minutes.", 0)
	}
	for _, address := range f.Addresses {
		lines = append(lines, plain("  "+address))
	}
	lines = append(lines, nil)
	say("Anybody on the network can announce anything: only comparing the code proves which Base it is.", faint)
	return lines
}

// questionLines describe the changes of a deed.
func (m *model) questionLines(d *owner.DeedState) (body []line) {
	width := m.width - 6
	base, _ := m.state.Base(d.Base)
	title, s := fmt.Sprintf("These changes will be made at %s:", base.Name), bold
	if d.Deed.Kind == owner.Lockdown {
		title, s = fmt.Sprintf("LOCK DOWN %s?", base.Name), bold|reverse
	}
	body = []line{nil, {{"  ", 0}, {title, s}}, nil}
	for _, change := range d.Question.Changes {
		first := "    "
		if change.Opens {
			first = "  + [opens] "
		}
		body = append(body, indented(first, wrap(change.Text, width-len(first), 0))...)
	}
	if d.Deed.Kind == owner.Lockdown {
		body = append(append(body, nil), indented("    ", wrap("No key is removed. Press U here afterwards to lift it.", width, 0))...)
	}
	return body
}

// questionFits tells whether all changes of a deed can be read.
func (m *model) questionFits(d *owner.DeedState) bool {
	for _, change := range d.Question.Changes {
		if len(change.Text) > maxText {
			return false
		}
	}
	return len(m.questionLines(d)) <= m.bodyRows()
}

// viewQuestion asks whether to do a deed.
func (m *model) viewQuestion() (body, foot []line) {
	d := m.asking()
	body = m.questionLines(d)
	foot = []line{nil, m.keyLine("y  yes, do it", "n  no", "q  no, and quit")}
	if d.Deed.Kind == owner.Lockdown {
		foot[1] = m.keyLine("L  once more: lock down", "n  no", "q  no, and quit")
	}
	if m.early {
		foot[0] = earlyLine
	}
	if rows := m.bodyRows(); !m.questionFits(d) {
		body = append(body[:min(len(body), rows-1):min(len(body), rows-1)],
			styled("    ... and more. This screen is too small to show it all: you can only answer no", bold|red))
	}
	return body, foot
}

// bodyRows is how many rows there are between head and foot.
func (m *model) bodyRows() int { return m.height - headRows - footRows }

var earlyLine = styled(" Too early: not an answer. Read, and press it again.", bold|yellow)

func (m *model) viewChoice() (body, foot []line) {
	c := m.choice
	body = []line{nil, styled("  "+c.title, bold), nil}
	rows := max(1, m.bodyRows()-len(body))
	first := min(max(0, c.at-rows/2), max(0, len(c.options)-rows))
	for n := first; n < min(len(c.options), first+rows); n++ {
		number := "  "
		if n < 9 {
			number = fmt.Sprintf("%d ", n+1)
		}
		if n == c.at {
			body = append(body, line{{"  > " + number, bold}, {c.options[n].name, bold | reverse}})
			continue
		}
		body = append(body, plain("    "+number+c.options[n].name))
	}
	return body, []line{nil, m.keyLine("Enter  this one", "Esc  none", "q  quit")}
}

package dashboard

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/curves"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// labelWidth is the width of the names on the left of the overview.
const labelWidth = 9

// pageLines are all rows of the chosen page.
func (m *model) pageLines() []line {
	b := m.chosen.base
	if b == nil {
		return nil
	}
	if b.Look.Info == nil {
		if b.Connection == owner.Connecting || b.Connection == owner.Doubted {
			return []line{nil, plain("Connecting ...")}
		}
		return nil
	}
	switch m.pages()[m.turned()] {
	case pageAccess:
		return m.accessPage(b)
	case pageApps:
		return m.appsPage(b)
	case pageSecurity:
		return m.securityPage(b)
	case pageEvents:
		return m.eventsPage(b)
	case pageNode:
		return m.nodePage(b)
	case pageServices:
		return m.servicesPage(b)
	}
	return m.overviewPage(b)
}

// rows collects rows with a name on their left.
type rows struct{ lines []line }

func (r *rows) add(name, text string) { r.put(name, span{text: text}) }

func (r *rows) put(name string, spans ...span) {
	r.lines = append(r.lines, append(line{{fmt.Sprintf("%-*s", labelWidth, name), faint}}, spans...))
}

// overviewPage shows first what somebody else could use, then what may fail.
func (m *model) overviewPage(b *owner.Base) []line {
	r := &rows{}
	m.accessRows(r, b)
	m.auditInShort(r, b)
	if b.Look.HasBans {
		m.bansInShort(r, b)
	}
	r.add("Apps", m.appsInShort(b))
	if b.Look.Access != nil && b.Look.Access.Software != "" {
		r.add("Software", b.Look.Access.Software)
	}
	m.servicesInShort(r, b)
	if n := b.Look.Node; words.HasNode(n) {
		r.put("Node", span{words.English.Node(n), nodeStyle(n)})
	}
	r.lines = append(r.lines, nil)
	m.healthRows(r, b)
	r.lines = append(r.lines, nil)
	const fewest = 3
	return append(r.lines, m.eventLines(b, max(fewest, m.pageHeight()-len(r.lines)))...)
}

func (m *model) healthRows(r *rows, b *owner.Base) {
	i := b.Look.Info
	var load []string
	for _, l := range i.GetLoadAverage() {
		load = append(load, fmt.Sprintf("%.2f", l))
	}
	temperature := ""
	if i.TemperatureCelsius != nil {
		temperature = fmt.Sprintf("   %.0f °C", i.GetTemperatureCelsius())
	}
	drawn := curves.Draw(b.Look.Samples, curveWidth, !m.ascii)
	r.add("Load", beside(strings.Join(load, " ")+temperature, drawn.Load))
	r.add("Memory", beside(words.English.Free(i.GetMemoryAvailableBytes(), i.GetMemoryTotalBytes()), drawn.Memory))
	r.add("Disk", beside(words.English.Free(i.GetDiskAvailableBytes(), i.GetDiskTotalBytes()), drawn.Disk))
	if addresses := i.GetAddresses(); len(addresses) > 0 {
		r.add("Address", strings.Join(addresses, ", "))
	}
}

// beside puts a curve beside its value.
func beside(text, curve string) string { return strings.TrimRight(text+"   "+curve, " ") }

// curveWidth is the width of a curve in cells.
const curveWidth = 12

// accessRows show exactly what is open, and for how long.
func (m *model) accessRows(r *rows, b *owner.Base) {
	a := b.Look.Access
	if a == nil {
		open := "the Apps' channel (a developer's Base)"
		if b.Look.Lie != nil {
			open = "unknown, because the Base's report does not verify"
		}
		r.add("Open", open)
		m.windowRow(r, b)
		return
	}
	for n, d := range a.Doors {
		name := "Open"
		if n > 0 {
			name = ""
		}
		r.put(name, m.door(b, d))
	}
	if a.SSH {
		r.put("SSH", span{fmt.Sprintf("ON, %s left, %s", m.untilIn(b, a.SSHLeft), counted(len(a.Keys), "key", "keys")), yellow | bold})
	} else {
		r.add("SSH", "off; "+noneOr(len(a.Keys), "key is", "keys are")+" kept")
	}
	m.windowRow(r, b)
}

func (m *model) door(b *owner.Base, d owner.Door) span {
	text := fmt.Sprintf("port %d  ", d.Port)
	switch {
	case d.Left == 0 && !d.ForGood:
		return span{text: text + "the Apps' channel"}
	case d.Shared:
		text += d.Kind + ", shared"
	default:
		text += d.Kind
	}
	if d.ForGood {
		text += ", open for good"
	} else {
		text += ", " + m.untilIn(b, d.Left) + " left"
	}
	if len(d.From) > 0 {
		text += ", from " + strings.Join(d.From, ", ")
	}
	return span{text, yellow | bold}
}

func (m *model) windowRow(r *rows, b *owner.Base) {
	switch w := b.Look.Window; {
	case w.GetOpen():
		r.put("Pairing", span{"OPEN, " + m.untilIn(b, time.Duration(w.GetRemainingMs())*time.Millisecond) + " left", yellow | bold})
	case b.Look.Access != nil && b.Look.Access.PairingClosed:
		r.add("Pairing", "closed; only the Base's console opens it")
	default:
		r.add("Pairing", "closed")
	}
}

func (m *model) appsInShort(b *owner.Base) string {
	connected := 0
	for _, app := range b.Look.Apps {
		if app.GetSessions() > 0 {
			connected++
		}
	}
	caller := b.Look.Info.GetCaller()
	return fmt.Sprintf("%d, %d connected; this is %q, %s", len(b.Look.Apps), connected, caller.GetName(), words.English.Role(b.RoleNow()))
}

func (m *model) bansInShort(r *rows, b *owner.Base) {
	bans := b.Look.Bans
	if len(bans) == 0 {
		r.add("Bans", "none")
		return
	}
	text := fmt.Sprintf("%d: %s", len(bans), bans[0].GetAddress()) + until(bans[0].GetUntil(), m.now)
	if len(bans) > 1 {
		text += "; ..."
	}
	r.put("Bans", span{text, yellow})
}

func until(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	return ", " + words.English.Duration(owner.Seconds(t.AsTime().Sub(now))) + " left"
}

// shownFindings is how many findings the overview names.
const shownFindings = 3

func (m *model) auditInShort(r *rows, b *owner.Base) {
	findings := b.Findings
	switch {
	case b.Auditing && len(findings) == 0:
		r.add("Audit", "the audit is running ...")
		return
	case b.AuditErr != nil:
		r.put("Audit", span{"failed: " + client.Explain(b.AuditErr), red})
		return
	case !b.HasAudit:
		return
	case len(findings) == 0:
		r.put("Audit", span{"no findings, " + words.English.When(b.AuditedAt, m.now), green})
		return
	}
	for n, f := range findings[:min(len(findings), shownFindings)] {
		name := "Audit"
		if n > 0 {
			name = ""
		}
		r.put(name, span{"[" + words.English.Severity(f) + "] ", grave(f)}, span{text: f.GetTitle()})
	}
	if more := len(findings) - shownFindings; more > 0 {
		r.add("", fmt.Sprintf("and %d more: press 4", more))
	}
}

func grave(f *basev1.Finding) style {
	switch f.GetSeverity() {
	case basev1.Finding_SEVERITY_INFO:
		return 0
	case basev1.Finding_SEVERITY_WARNING:
		return yellow | bold
	}
	return red | bold
}

func (m *model) servicesInShort(r *rows, b *owner.Base) {
	services := b.Look.Services
	if len(services) == 0 {
		return
	}
	running := 0
	var failed []string
	for _, s := range services {
		switch s.GetState() {
		case basev1.Service_STATE_RUNNING:
			running++
		case basev1.Service_STATE_FAILED:
			failed = append(failed, s.GetName())
		}
	}
	if len(failed) > 0 {
		r.put("Services", span{"FAILED: " + strings.Join(failed, ", "), red | bold})
		return
	}
	r.add("Services", fmt.Sprintf("%d of %d run, none failed", running, len(services)))
}

var noEvents = styled("No events since this dashboard listens.", faint)

// eventLines are the newest events, one row each.
func (m *model) eventLines(b *owner.Base, most int) []line {
	var lines []line
	for n := len(b.Events) - 1; n >= 0 && len(lines) < most; n-- {
		e := b.Events[n]
		lines = append(lines, line{{m.eventTime(e.At) + "  ", faint}, {text: often(e) + words.English.Event(e.Event)}})
	}
	if len(lines) == 0 {
		return []line{noEvents}
	}
	return lines
}

// eventsPage shows all events, each in full, and says how many are missing.
func (m *model) eventsPage(b *owner.Base) []line {
	var lines []line
	for _, e := range slices.Backward(b.Events) {
		text := words.English.Event(e.Event)
		if e.Times > 1 {
			text += fmt.Sprintf(" (%d times since %s)", e.Times, m.eventTime(e.First))
		}
		at := m.eventTime(e.At) + "  "
		all := indented(at, wrap(text, m.pageWidth()-widthOf(at)-1, 0))
		all[0][0].style = faint
		lines = append(lines, all...)
	}
	if len(lines) == 0 {
		lines = append(lines, noEvents)
	}
	if b.Missing > 0 {
		lines = append(lines, wrap(words.English.Count("events.missing", b.Missing), m.pageWidth()-1, faint)...)
	}
	return lines
}

// often is how many times an event happened, before its text where there is only one row.
func often(e owner.Event) string {
	if e.Times < 2 {
		return ""
	}
	return fmt.Sprintf("%d× ", e.Times)
}

func (m *model) eventTime(at time.Time) string {
	if when := words.English.When(at, m.now); len(when) > len("15:04") {
		return when
	}
	return at.Local().Format(time.TimeOnly)
}

func (m *model) accessPage(b *owner.Base) []line {
	r := &rows{}
	m.accessRows(r, b)
	if a := b.Look.Access; a != nil {
		m.openedRows(r, b)
		r.list("SSH keys", a.Keys)
		internet := "no service of the Base may reach it"
		if len(a.Internet) > 0 {
			internet = strings.Join(a.Internet, ", ")
		}
		r.add("Internet", internet)
		m.wrapped(r, "Bans", a.Bans.String())
		r.add("Revision", fmt.Sprint(a.Revision)+", signed")
	}
	r.list("Address", b.Look.Info.GetAddresses())
	if a := b.Look.Access; a != nil && a.Trying {
		r.lines = append(r.lines, nil)
		r.lines = append(r.lines, m.triedLines(a)...)
	}
	return r.lines
}

// openedRows say how to use what is open, and how to recognise the Base there.
func (m *model) openedRows(r *rows, b *owner.Base) {
	if ssh := b.SSH(); ssh != nil {
		m.wrapped(r, "Log in", ssh.Login())
		m.wrapped(r, "Host key", ssh.HostKeyChecked())
	}
	for _, d := range b.Look.Access.Doors {
		if wallet := b.API(d); wallet != nil && d.IsWallets() {
			m.wrapped(r, "Wallets", wallet.Line)
			if signed := wallet.CertificateChecked(); signed != "" {
				m.wrapped(r, "", betweenBytes.ReplaceAllString(signed, "$0 "))
			}
		}
	}
}

// betweenBytes are the places where a row may break a fingerprint: after each eight bytes.
var betweenBytes = regexp.MustCompile(`(?:[0-9A-F]{2}:){8}`)

// wrapped puts a text on as many rows as it takes.
func (m *model) wrapped(r *rows, name, text string) {
	for n, row := range wrap(text, m.pageWidth()-labelWidth-1, 0) {
		r.put([]string{name, ""}[min(n, 1)], row...)
	}
}

// list puts each text on its own row.
func (r *rows) list(name string, texts []string) {
	for n, text := range texts {
		r.add([]string{name, ""}[min(n, 1)], text)
	}
}

func (m *model) triedLines(a *owner.Access) []line {
	lines := []line{styled("On trial:", bold)}
	for _, change := range a.Tried {
		first := "  "
		if change.Opens {
			first = "+ [opens] "
		}
		lines = append(lines, indented(first, wrap(change.Done, m.pageWidth()-len(first)-1, 0))...)
	}
	return lines
}

func (m *model) appsPage(b *owner.Base) []line {
	var lines []line
	for _, app := range b.Look.Apps {
		seen := "never connected"
		switch {
		case app.GetIsCaller():
			seen = "this App"
		case app.GetSessions() > 0:
			seen = "connected"
		case app.GetLastSeenAt() != nil:
			seen = "seen " + words.English.When(app.GetLastSeenAt().AsTime(), m.now)
		}
		s := style(0)
		if app.GetSessions() > 0 {
			s = green
		}
		lines = append(lines,
			line{{app.GetName(), bold}},
			line{{"  " + words.English.Role(app.GetRole()) + ", ", 0}, {seen, s},
				{", paired " + words.English.When(app.GetPairedAt().AsTime(), m.now), faint}})
	}
	return append(lines, nil, styled("bitbox-app apps renames and revokes them.", faint))
}

func (m *model) securityPage(b *owner.Base) []line {
	var lines []line
	if b.Look.HasBans {
		lines = append(lines, styled("Banned addresses", bold))
		for _, ban := range b.Look.Bans {
			lines = append(lines, plain(fmt.Sprintf("  %s (%s)%s", ban.GetAddress(), ban.GetJail(), until(ban.GetUntil(), m.now))))
		}
		if len(b.Look.Bans) == 0 {
			lines = append(lines, plain("  none"))
		}
		lines = append(lines, nil)
	}
	return append(lines, m.auditLines(b)...)
}

func (m *model) auditLines(b *owner.Base) []line {
	if !b.HasAudit && b.AuditErr == nil && !b.Auditing {
		return []line{plain("This Base has no audit for this App.")}
	}
	head := styled("Audit", bold)
	switch {
	case b.Auditing:
		head = append(head, span{text: ", under way ..."})
	case !b.AuditedAt.IsZero():
		head = append(head, span{text: " of " + words.English.When(b.AuditedAt, m.now) + "; a asks again"})
	}
	lines := []line{head}
	width := m.pageWidth() - 1
	if b.AuditErr != nil {
		lines = append(lines, indented("  ", wrap(explain(b.AuditErr), width-2, red))...)
	}
	if len(b.Findings) == 0 && b.HasAudit {
		lines = append(lines, styled("  The Base is as closed as it should be.", green))
	}
	for _, f := range b.Findings {
		lines = append(lines, line{{"[" + words.English.Severity(f) + "] ", grave(f)}, {f.GetTitle(), bold}})
		how := "by hand: "
		if f.GetFixable() {
			how = "f: "
		}
		for _, part := range []struct{ name, text string }{{"expected", f.GetExpected()}, {"found", f.GetFound()}, {"why", f.GetWhy()},
			{"fix", how + f.GetFix()}} {
			if part.text != "" {
				lines = append(lines, indented(fmt.Sprintf("  %-9s", part.name), wrap(strings.TrimSpace(part.text), width-11, 0))...)
			}
		}
	}
	return lines
}

func (m *model) servicesPage(b *owner.Base) []line {
	var lines []line
	for _, s := range b.Look.Services {
		stateWord := strings.ToLower(strings.TrimPrefix(s.GetState().String(), "STATE_"))
		look := style(0)
		switch s.GetState() {
		case basev1.Service_STATE_RUNNING:
			look = green
		case basev1.Service_STATE_FAILED:
			look = red | bold
		}
		l := line{{fmt.Sprintf("%-20s ", s.GetName()), bold}, {stateWord, look}}
		if s.GetSince() != nil {
			l = append(l, span{text: " since " + words.English.When(s.GetSince().AsTime(), m.now)})
		}
		if s.MemoryBytes != nil {
			l = append(l, span{text: ", " + words.English.Size(s.GetMemoryBytes())})
		}
		if s.GetRestarts() > 0 {
			l = append(l, span{", restarted " + counted(int(s.GetRestarts()), "time", "times"), yellow})
		}
		lines = append(lines, l)
		if s.GetReason() != "" {
			lines = append(lines, indented("  ", wrap(s.GetReason(), m.pageWidth()-3, red))...)
		}
	}
	return lines
}

// nodeStyle has a node that does not answer stand out.
func nodeStyle(n *basev1.Node) style {
	if n.GetState() == basev1.Node_STATE_STOPPED {
		return red | bold
	}
	return 0
}

// reachOf says where the posture lets the node go.
func reachOf(b *owner.Base) string {
	if b.Look.Access == nil {
		return ""
	}
	return b.Look.Access.NodeReach
}

func (m *model) nodePage(b *owner.Base) []line {
	r := &rows{}
	for n, row := range words.English.NodeRows(b.Look.Node, reachOf(b), m.now, words.Plainly) {
		look := style(0)
		switch {
		case n == 0:
			look = nodeStyle(b.Look.Node)
		case row[0] == "Warning":
			look = yellow
		}
		for i, l := range wrap(row[1], m.pageWidth()-labelWidth-1, look) {
			if i > 0 {
				row[0] = ""
			}
			r.put(row[0], l...)
		}
	}
	return r.lines
}

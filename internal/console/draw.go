package console

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/digits"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// The screen: 80x25 of a Linux console, whose last row stays empty, so that it also fits a serial
// terminal of 80x24.
const (
	columns = 80
	rows    = 24
)

// frame is the screen, a string for each row, without spaces at the ends. Each character is
// printable ASCII, a letter of Latin-1, which Debian's default console font has, or digits.Solid.
type frame [rows]string

// plain makes text safe for the screen: other characters, including those of escape sequences,
// become question marks, and text that is too long is cut.
func plain(text string, width int) string {
	fits := []rune(strings.Map(func(r rune) rune {
		switch {
		case r >= ' ' && r <= '~', r >= 'À' && r <= 'ÿ' && r != '×' && r != '÷':
			return r
		}
		return '?'
	}, text))
	if len(fits) > width {
		fits = append(fits[:width-3], '.', '.', '.')
	}
	return string(fits)
}

// Rows of the frame.
const (
	headRow   = 0
	bodyRow   = 2
	noticeRow = 20
	footRow   = 22
)

// nameWidth is how much of an App's name is shown. The code decides, not the name.
const nameWidth = 60

// sheet writes the rows of a frame.
type sheet struct {
	frame frame
	row   int
}

func (s *sheet) put(row int, format string, args ...any) {
	s.frame[row] = strings.TrimRight(plain(fmt.Sprintf(format, args...), columns), " ")
}

// line writes the next row of the body.
func (s *sheet) line(format string, args ...any) {
	if s.row < noticeRow {
		s.put(s.row, format, args...)
	}
	s.row++
}

func (s *sheet) large(text string) {
	s.row++
	for _, row := range digits.Large(text) {
		s.frame[s.row] = strings.TrimRight("    "+row, " ") // these are the only solid cells
		s.row++
	}
	s.row++
}

// draw draws the desk. It is pure.
func (d *desk) draw(now time.Time) frame {
	s := &sheet{row: bodyRow}
	name := d.summary.GetNodeName()
	s.put(headRow, " BitBox Base%*s", columns-13, plain(name, 60))
	s.put(headRow+1, "%s", strings.Repeat("-", columns))
	foot := ""
	switch {
	case d.resetting:
		s.row = 8
		s.line("    FACTORY RESET")
		s.row++
		s.line("    This Base is being wiped and will restart as new.")
		s.line("    Do not switch it off. After a power cut it continues.")
	case !d.reached:
		s.row = 8
		s.line("    Waiting for the system helper of this Base ...")
		s.row++
		s.line("    It is starting or restarting. A pairing that was under way")
		s.line("    has ended; no App was let in.")
	case d.snapshot.GetCeremony() != nil:
		foot = d.drawCeremony(s)
	default:
		foot = d.drawQuestion(s, now)
	}
	if d.notice != "" && d.reached && !d.resetting {
		s.put(noticeRow, "  %s", d.notice)
	}
	s.put(footRow-1, "%s", strings.Repeat("-", columns))
	s.put(footRow, " %s", foot)
	return s.frame
}

func quoted(name string) string {
	return `"` + strings.ReplaceAll(plain(name, nameWidth), `"`, `'`) + `"`
}

// allows describes what a role may do, in the words of the pages.
var allows = map[basev1.Role]string{
	basev1.Role_ROLE_VIEWER:   "sees how the Base is doing",
	basev1.Role_ROLE_OPERATOR: "also runs the node",
	basev1.Role_ROLE_OWNER:    "also decides who is let in, and how open the Base is",
}

func (d *desk) drawCeremony(s *sheet) (foot string) {
	c := d.snapshot.GetCeremony()
	if answeredByOwner(c) {
		s.line("  An owner's App has accepted request %s, to let in %s,", noiseconn.FormatNumber(c.GetNumber()), c.GetRole().Name())
		s.line("  and confirms it in place of this screen.")
		if c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN {
			s.row++
			s.line("  It calls itself %s.", quoted(c.GetAppName()))
		}
		return "N  refuse it"
	}
	if c.GetPhase() != systemv1.Ceremony_PHASE_SHOWN {
		s.line("  Request %s is accepted. Waiting for its App ...", noiseconn.FormatNumber(c.GetNumber()))
		s.row++
		s.line("  In a moment the App and this screen show a code.")
		return "N  give up"
	}
	if c.GetBaseConfirmed() {
		s.line("  Now say yes in the App as well ...")
	} else {
		s.line("  Does the App show exactly this code?")
	}
	s.large(c.GetCode())
	s.line("  As %s it %s.", c.GetRole().Name(), allows[c.GetRole()])
	s.line("  It calls itself %s.", quoted(c.GetAppName()))
	s.row++
	if c.GetBaseConfirmed() {
		s.line("  You have said yes here.")
		return "N  no, I changed my mind"
	}
	if d.typed != "" {
		s.line("  Typed: %s   Enter compares it for you", typedDigits(d.typed))
	} else {
		s.line("  Compare all six digits. If they differ, somebody may be in between.")
	}
	return "Y  yes, the same      N  no, a different one      or type the App's code"
}

// typedDigits shows what is there of six digits.
func typedDigits(typed string) string {
	padded := typed + strings.Repeat("_", numberSize-len(typed))
	return padded[:3] + " " + padded[3:]
}

func (d *desk) drawQuestion(s *sheet, now time.Time) (foot string) {
	switch q := d.subject(); q.asked {
	case isItYours:
		ordered := d.snapshot.GetWindowRole()
		if ordered != basev1.Role_ROLE_UNSPECIFIED {
			s.line("  %s", asksFor(d.snapshot))
			s.line("  As %s it %s.", ordered.Name(), allows[ordered])
			s.row++
		}
		s.line("  An App asks to be paired. Does yours show this number?")
		s.large(noiseconn.FormatNumber(q.number))
		s.line("  If not, it is somebody else's: say no.")
		if ordered > basev1.Role_ROLE_VIEWER {
			return "Y  yes, mine    N  no    R  a lower role    or type the number that yours shows"
		}
		return "Y  yes, it is mine      N  no      or type the number that yours shows"
	case whichNumber:
		if n := len(d.requests()); n > 1 {
			s.line("  At least %d Apps ask to be paired. Type the number that yours shows.", n)
		} else {
			s.line("  Type the number that your App shows.")
		}
		s.large(typedDigits(d.typed))
		s.line("  With two buttons: NO counts the digit up, YES goes to the next.")
		return "0-9  type      Enter  accept this number      Esc  none of these is mine"
	case whichRole:
		s.line("  This Base has an owner. What may the App with number %s do?", noiseconn.FormatNumber(q.number))
		s.row++
		for i, role := range d.choices() {
			mark := " "
			if i == d.roleAt {
				mark = ">"
			}
			s.line("  %s %d  %-9s  %s", mark, i+1, role.Name(), allows[role])
		}
		s.row++
		s.line("  With two buttons: NO goes to the next, YES takes the marked one.")
		return "1 2 3  choose      N  refuse it"
	case shallOpen:
		s.line("  Let another App in?")
		s.row++
		s.line("  This Base then listens for requests for three minutes. No App is let in")
		s.line("  before you have compared a code here.")
		return "Y  yes      N  no"
	case shallReset:
		s.line("  FACTORY RESET")
		s.row++
		d.drawLoss(s)
		s.line("  To wipe this Base, type this and press Enter:   %s", resetPhrase(d.summary.GetNodeName()))
		s.row++
		s.line("  > %s_", d.typed)
		return "Esc  do nothing"
	case shallResetButtons:
		s.line("  FACTORY RESET")
		s.row++
		d.drawLoss(s)
		s.line("  To wipe this Base, let go, and hold both buttons for %.0f seconds again.", holdBoth.Seconds())
		return "one button alone  do nothing"
	}
	return d.drawOverview(s, now)
}

func (d *desk) drawLoss(s *sheet) {
	s.line("  This removes the Base's identity, all pairings and the posture, SSH keys and")
	s.line("  certificates, and the log. The Base restarts as new. All Apps must be")
	s.line("  paired again. This cannot be undone.")
	s.row++
}

func (d *desk) drawOverview(s *sheet, now time.Time) (foot string) {
	row := func(name, format string, args ...any) {
		s.line(" %-12s %s", name, fmt.Sprintf(format, args...))
	}
	foot = "O  let another App in      F  factory reset"
	v := d.summary
	row("Name", "%s", plain(v.GetNodeName(), 64))
	d.drawAddresses(row, v)
	s.row++
	switch {
	case d.snapshot.GetWindowOpen():
		left := max(0, time.Duration(d.snapshot.GetWindowRemainingMs())*time.Millisecond-now.Sub(d.seenAt))
		if asks := asksFor(d.snapshot); asks != "" {
			row("Pairing", "%s", asks)
			row("", "Open for another %.0f s. Start it in the new App: bitbox-app pair", left.Seconds())
		} else {
			row("Pairing", "open for another %.0f s. Start it in the App: bitbox-app pair", left.Seconds())
		}
		foot = "C  close pairing      0-9  type your App's number      F  factory reset"
	case d.snapshot.GetListening():
		row("Pairing", "no owner yet. Start it in the App: bitbox-app pair")
		if d.snapshot.GetClaimOpen() {
			row("", "The App that wrote the provisioning file can connect as it is.")
		}
		foot = "0-9  type your App's number      F  factory reset"
	default:
		row("Pairing", "%s; closed", counted(int(v.GetApps()), "App is paired", "Apps are paired")+", "+counted(int(v.GetOwners()), "owner",
			"owners"))
	}
	s.row++
	if v == nil {
		row("Security", "not yet known")
		return foot
	}
	d.drawSecurity(row, v)
	s.row++
	row("Software", "%s", plain(v.GetSoftwareVersion(), 60))
	if r := v.GetLastReset(); r != nil {
		row("Reset", "%s UTC, ordered by %s", time.Unix(r.GetOrderedAt(), 0).UTC().Format("2006-01-02 15:04"), r.GetBy())
	}
	return foot
}

// shownAddresses is how many of the Base's addresses are shown.
const shownAddresses = 3

func (d *desk) drawAddresses(row func(string, string, ...any), v *systemv1.Summary) {
	var shown []string
	for _, v4 := range []bool{true, false} {
		for _, text := range v.GetAddresses() {
			addr, err := netip.ParseAddr(text)
			if err == nil && addr.Is4() == v4 && !addr.IsLinkLocalUnicast() {
				shown = append(shown, addr.String())
			}
		}
	}
	if len(shown) == 0 {
		row("Address", "none: check the network cable")
	}
	for i, text := range shown[:min(len(shown), shownAddresses)] {
		name := ""
		if i == 0 {
			name = "Address"
		}
		row(name, "%s", text)
	}
}

func (d *desk) drawSecurity(row func(string, string, ...any), v *systemv1.Summary) {
	var open []string
	if v.GetSsh() != nil {
		open = append(open, "SSH")
	}
	for _, api := range v.GetApis() {
		open = append(open, api.GetKind())
	}
	state := fmt.Sprintf("closed: only the Apps' channel is open, TCP port %d", posture.EntryPort)
	if len(open) > 0 {
		state = "open besides the Apps' channel: " + strings.Join(open, ", ")
	}
	if v.GetLockdown() {
		state = "LOCKED DOWN; an owner's App can lift it"
	}
	switch {
	case v.GetNotApplied():
		state = "NOT YET IN FORCE; the Base tries again"
	case v.GetPhase() == systemv1.PostureReport_PHASE_APPLYING:
		state = "a change is being put in force"
	case v.GetPhase() == systemv1.PostureReport_PHASE_TRYING:
		state = "a change is on trial, and undone unless its App confirms it"
	}
	row("Security", "%s (revision %d)", state, v.GetRevision())
	if ssh := v.GetSsh(); ssh != nil {
		row("SSH", "ON for another %s, %s", remaining(ssh.GetRemainingMs()), counted(int(ssh.GetKeys()), "key", "keys"))
	} else {
		row("SSH", "off")
	}
	for _, api := range v.GetApis() {
		until, from := "for another "+remaining(api.GetRemainingMs()), ""
		if api.GetUntilClosed() {
			until = "open for good"
		}
		if len(api.GetFrom()) > 0 {
			from = ", from " + plain(strings.Join(api.GetFrom(), ", "), 60)
		}
		row("Extra API", "%s on port %d %s%s", plain(api.GetKind(), 20), api.GetPort(), until, from)
	}
	row("Bans", "%s", noneOr(int(v.GetBans()), "address", "addresses"))
	switch {
	case !v.GetAudited():
		row("Audit", "no audit has been done yet")
	case v.GetFindings() == 0:
		row("Audit", "no findings")
	default:
		row("Audit", "%s; see 'bitbox-app audit'", counted(int(v.GetFindings()), "FINDING", "FINDINGS"))
	}
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func noneOr(n int, one, many string) string {
	if n == 0 {
		return "none"
	}
	return counted(n, one, many)
}

// remaining is a time as people say it, in its two largest units.
func remaining(milliseconds uint64) string {
	minutes := (milliseconds + 59_999) / 60_000
	days, hours, minutes := minutes/(24*60), minutes/60%24, minutes%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	}
	return fmt.Sprintf("%d min", minutes)
}

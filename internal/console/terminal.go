package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// Run is the dialogue with the person at a terminal, until ctx ends or the authority fails. When
// in ends, it still shows the state, and no longer asks.
//
// A read from a terminal cannot be cancelled. The goroutine that reads in ends with the process,
// or with the next line.
func Run(ctx context.Context, authority pairing.Client, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &terminal{authority: authority, out: out}
	snapshots, ended := make(chan *systemv1.Snapshot), make(chan error, 1)
	go func() {
		ended <- follow(ctx, authority, func(s *systemv1.Snapshot) {
			select {
			case snapshots <- s:
			case <-ctx.Done():
			}
		})
	}()
	lines := readLines(ctx, in)
	for {
		select {
		case err := <-ended:
			return err
		case snapshot := <-snapshots:
			t.show(snapshot)
		case l, ok := <-lines:
			if !ok {
				lines = nil
				t.say("The input has ended. Answer with: bitbox-base pairing list | accept NUMBER | confirm | reject")
				continue
			}
			t.take(ctx, l)
		}
	}
}

// line is a typed line, and when it was typed.
type line struct {
	text string
	at   time.Time
}

// maxTypedAhead is how many lines are kept unread; more are dropped. They must not wait in the
// reader, or they would get a later time than that of their typing.
const maxTypedAhead = 100

func readLines(ctx context.Context, in io.Reader) <-chan line {
	lines := make(chan line, maxTypedAhead)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(in); scanner.Scan() && ctx.Err() == nil; {
			select {
			case lines <- line{strings.TrimSpace(scanner.Text()), time.Now()}:
			default:
			}
		}
	}()
	return lines
}

// question is the present question.
type question int

const (
	nothing     question = iota
	whichNumber          // several requests: type the number of yours
	isItYours            // one request: is this the number that your App shows?
	whichRole            // a number was accepted, and the role must be named
	isItEqual            // is this the code that your App shows?
)

// terminal is the dialogue. One goroutine runs it.
type terminal struct {
	authority pairing.Client
	out       io.Writer

	shown    *systemv1.Snapshot // nil: none yet
	asked    question
	askedAt  time.Time
	number   uint32             // of isItYours and whichRole
	role     basev1.Role        // the role an owner had ordered when the question was asked
	ceremony pairing.CeremonyID // of isItEqual
	declined []uint32           // numbers that the user has refused
}

// say writes a paragraph. If the terminal is gone, the caller notices and ends ctx.
func (t *terminal) say(format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, "\n"+format+"\n", args...)
}

// ask writes a question. Input typed before it is not an answer.
func (t *terminal) ask(q question, format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, "\n"+format+" ", args...)
	t.asked, t.askedAt, t.role = q, time.Now(), t.shown.GetWindowRole()
}

// show prints what is new in a snapshot, and asks the present question.
func (t *terminal) show(s *systemv1.Snapshot) {
	before := t.shown
	t.shown = s
	if last := s.GetLast(); before != nil && last != nil && string(last.GetId()) != string(before.GetLast().GetId()) {
		t.asked = nothing
		t.say("%s", outcome(last))
	}
	if before == nil || s.GetListening() != before.GetListening() || s.GetWindowOpen() != before.GetWindowOpen() ||
		s.GetWindowRole() != before.GetWindowRole() {
		t.showListening(before, s)
	}
	switch c := s.GetCeremony(); {
	case c != nil && answeredByOwner(c):
		if before.GetCeremony() == nil || before.GetCeremony().GetPhase() != c.GetPhase() {
			t.asked = nothing
			t.say("An owner's App has accepted request %s, to let in %s, and will confirm it. To refuse it, type: no",
				noiseconn.FormatNumber(c.GetNumber()), c.GetRole().Name())
		}
	case c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN:
		t.showCode(before, c)
	case c.GetPhase() == systemv1.Ceremony_PHASE_ACCEPTED:
		if before.GetCeremony().GetNumber() != c.GetNumber() || before.GetCeremony() == nil {
			t.asked = nothing
			t.say("Request %s is accepted. Waiting for the App, for up to %.0f s …",
				noiseconn.FormatNumber(c.GetNumber()), pairing.AcceptedTime.Seconds())
		}
	case c == nil:
		t.showRequests(s.GetRequests())
	}
}

func (t *terminal) showListening(before, s *systemv1.Snapshot) {
	switch {
	case s.GetListening() && s.GetWindowOpen():
		text := fmt.Sprintf("The pairing window is open for %d s. Start the pairing in the App: bitbox-app pair", s.GetWindowRemainingMs()/1000)
		if asks := asksFor(s); asks != "" {
			text = asks + " " + text
		}
		t.say("%s", text)
	case s.GetListening():
		t.say("This Base has no owner yet. Start the pairing in the App: bitbox-app pair")
	case before.GetListening():
		t.asked, t.declined = nothing, nil
		t.say("Pairing is closed. To let another App in, type: open")
	}
}

func (t *terminal) showRequests(requests []uint32) {
	open := slices.DeleteFunc(slices.Clone(requests), func(n uint32) bool { return slices.Contains(t.declined, n) })
	switch {
	case t.asked == whichRole: // a number has been chosen
	case len(open) == 0:
		if t.asked != nothing {
			t.asked = nothing
			t.say("The App no longer asks.")
		}
	case len(open) > 1:
		if t.asked != whichNumber {
			t.ask(whichNumber, "Several Apps ask to be paired. Type the request number that yours shows:")
		}
	case t.asked != isItYours || t.number != open[0] || t.role != t.shown.GetWindowRole():
		t.number = open[0]
		t.ask(isItYours, "An App asks to be paired%s. Its request number:  %s\n\nDoes your App show this number? [y/N%s]",
			t.orderedAs(), noiseconn.FormatNumber(t.number), t.lowerRoles())
	}
}

// orderedAs is " as viewer", if an owner has set the role.
func (t *terminal) orderedAs() string {
	if role := t.shown.GetWindowRole(); role != basev1.Role_ROLE_UNSPECIFIED {
		return " as " + role.Name()
	}
	return ""
}

// lowerRoles may be typed in place of y, to give a lower role than the owner has ordered.
func (t *terminal) lowerRoles() string {
	text := ""
	for _, role := range roleChoices {
		if role < t.shown.GetWindowRole() {
			text += "/" + role.Name()
		}
	}
	return text
}

func (t *terminal) showCode(before *systemv1.Snapshot, c *systemv1.Ceremony) {
	id, _ := pairing.CeremonyIDOf(t.shown)
	switch {
	case c.GetBaseConfirmed():
		t.asked = nothing
		if !before.GetCeremony().GetBaseConfirmed() && !c.GetAppConfirmed() {
			t.say("Now say yes in the App as well …")
		}
	case t.asked != isItEqual || t.ceremony != id:
		t.ceremony = id
		t.askCode(c)
	}
}

func (t *terminal) askCode(c *systemv1.Ceremony) {
	t.ask(isItEqual, "%q would become %s of this Base. Code:  %s\n\nDoes the App show exactly this code? [y/N]",
		c.GetAppName(), c.GetRole().Name(), c.GetCode())
}

// take acts on a line.
func (t *terminal) take(ctx context.Context, l line) {
	asked := t.asked
	if asked != nothing && l.at.Before(t.askedAt) {
		asked = nothing // it cannot be an answer
	}
	number, isNumber := parseNumber(l.text)
	switch {
	case asked == isItEqual:
		t.answerCode(ctx, l.text)
	case asked == whichRole:
		t.answerRole(ctx, l.text)
	case isNumber && t.shown.GetListening():
		t.accept(ctx, number, t.shown.GetWindowRole())
	case asked == isItYours:
		t.answerRequest(ctx, l.text)
	case asked == whichNumber:
		t.ask(whichNumber, "Type the six digits that the App shows:")
	default:
		t.command(ctx, l.text)
	}
}

func (t *terminal) answerRequest(ctx context.Context, text string) {
	role := basev1.Role(basev1.Role_value["ROLE_"+strings.ToUpper(text)])
	switch yes, known := parseYes(text); {
	case role != basev1.Role_ROLE_UNSPECIFIED && role < t.role:
		t.accept(ctx, t.number, role)
	case !known:
		t.ask(isItYours, "Does your App show %s? Type y or n:", noiseconn.FormatNumber(t.number))
	case yes:
		t.accept(ctx, t.number, t.role)
	default:
		t.asked, t.declined = nothing, append(t.declined, t.number)
		t.say("Not accepted. If your App shows a number after all, type it.")
		t.showRequests(t.shown.GetRequests())
	}
}

// accept asks for the role when the authority requires one.
func (t *terminal) accept(ctx context.Context, number uint32, role basev1.Role) {
	err := t.authority.Accept(ctx, number, role)
	switch {
	case errors.Is(err, pairing.ErrRoleRequired):
		t.number = number
		t.ask(whichRole, "This Base has an owner. What may the new App do?\n"+
			"  viewer    sees how the Base is doing\n"+
			"  operator  also runs the node\n"+
			"  owner     also decides which Apps are let in, and how open the Base is\n"+
			"Type one of these, or no:")
	case err != nil:
		t.asked = nothing
		t.fail(err)
	default:
		t.asked = nothing // a second "y" would be a second act
	}
}

func (t *terminal) answerRole(ctx context.Context, text string) {
	role := basev1.Role(basev1.Role_value["ROLE_"+strings.ToUpper(text)])
	if yes, known := parseYes(text); known && !yes {
		t.asked, t.declined = nothing, append(t.declined, t.number)
		t.say("Not accepted.")
		return
	}
	if role == basev1.Role_ROLE_UNSPECIFIED {
		t.ask(whichRole, "Type viewer, operator or owner, or no:")
		return
	}
	t.accept(ctx, t.number, role)
}

// answerCode takes y, n, or the code that the App shows.
func (t *terminal) answerCode(ctx context.Context, text string) {
	yes, known := parseYes(text)
	if typed, isNumber := parseNumber(text); isNumber {
		code := t.shown.GetCeremony().GetCode()
		yes, known = noiseconn.FormatNumber(typed) == code, true
		if !yes {
			t.say("You typed %s, but the code here is %s. If the App shows %s, you mistyped it: pair again. If not, somebody may be in between.",
				noiseconn.FormatNumber(typed), code, code)
		}
	}
	if !known {
		t.askCode(t.shown.GetCeremony())
		return
	}
	t.asked = nothing
	if err := t.authority.Answer(ctx, t.ceremony, yes); err != nil {
		t.fail(err)
	}
}

func (t *terminal) command(ctx context.Context, text string) {
	var err error
	switch strings.ToLower(text) {
	case "":
	case "open":
		err = t.authority.OpenWindow(ctx)
	case "close":
		err = t.authority.CloseWindow(ctx)
	case "n", "no":
		if id, ok := pairing.CeremonyIDOf(t.shown); ok {
			err = t.authority.Answer(ctx, id, false)
		}
	default:
		if t.shown.GetListening() {
			t.say("There is no question now. If your App shows a request number, type it. To stop letting Apps in, type: close")
			break
		}
		t.say("There is no question now. To let another App in, type: open")
	}
	if err != nil {
		t.fail(err)
	}
}

// fail prints a refusal.
func (t *terminal) fail(err error) { t.say("%s", refusal(err)) }

// refusal is the authority's refusal, in its own words.
func refusal(err error) string {
	var refused *pairing.Error
	if errors.As(err, &refused) {
		return fmt.Sprintf("Not done: %s.", refused.Message)
	}
	return fmt.Sprintf("Not done: %v.", err)
}

// parseYes reads an answer; an empty one means no.
func parseYes(text string) (yes, known bool) {
	switch strings.ToLower(text) {
	case "y", "yes":
		return true, true
	case "", "n", "no":
		return false, true
	}
	return false, false
}

// parseNumber reads six digits, with or without a space.
func parseNumber(text string) (uint32, bool) {
	digits := strings.ReplaceAll(text, " ", "")
	number, err := strconv.ParseUint(digits, 10, 32)
	return uint32(number), err == nil && len(digits) == 6
}

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// changeTime is how long a change may take: the person reads and decides, the Base applies it,
// and the App confirms it.
const changeTime = 10 * time.Minute

// consent is how a command asks before it changes something.
type consent struct {
	program *program
	yes     bool
	lines   <-chan line
	sent    string // what an interruption after the yes leaves behind
	shown   []client.PostureChange
	remark  string // what stands before the question, if anything
	again   string // what is asked about once more, after a first yes; empty: nothing
	connect *owner.Opened
}

// The states that an interruption leaves behind.
const (
	nothingChanged = "nothing was changed"
	perhapsDone    = "the Base may have done it already; check before you try again"
)

// consent adds the flag --yes to a command that changes something.
func (p *program) consent(command *cobra.Command) *consent {
	c := &consent{program: p, sent: perhapsDone}
	command.Flags().BoolVar(&c.yes, "yes", false, "do not ask (for scripts)")
	return c
}

// approve shows the differences, and asks.
func (c *consent) approve(ctx context.Context) client.Approve {
	c.listen()
	return func(changes []client.PostureChange) (bool, error) {
		c.shown = changes
		text := "Changes at the Base:\n"
		for _, change := range changes {
			text += "  " + c.program.out.Fold("  ", changeText(change)) + "\n"
		}
		text += c.remark
		if c.again != "" {
			return c.ask(ctx, text, c.again)
		}
		return c.ask(ctx, text)
	}
}

// listen starts reading, to recognise input that was typed too early.
func (c *consent) listen() {
	if c.lines == nil && c.mayAsk() {
		c.lines = readLines(c.program.in)
	}
	c.program.left = nothingChanged
}

// mayAsk tells whether a person is there to answer.
func (c *consent) mayAsk() bool { return !c.yes && c.program.terminal && !c.program.json }

// must asks about one change, and returns an error unless the user wants it.
func (c *consent) must(ctx context.Context, change client.PostureChange) error {
	return approved(c.approve(ctx)([]client.PostureChange{change}))
}

// confirm asks about something that is not a change at the Base.
func (c *consent) confirm(ctx context.Context, text string) error {
	c.listen()
	return approved(c.ask(ctx, text))
}

func approved(yes bool, err error) error {
	if err == nil && !yes {
		err = &client.Error{Kind: client.ErrNotApproved, Text: nothingChanged}
	}
	return err
}

// changeText marks changes that open the Base further.
func changeText(change client.PostureChange) string {
	if change.Opens {
		return "[opens] " + client.Printable(change.Text)
	}
	return client.Printable(change.Text)
}

// ask shows each text, and asks for a yes to it.
func (c *consent) ask(ctx context.Context, texts ...string) (bool, error) {
	p := c.program
	switch {
	case c.yes:
		p.left = c.sent
		return true, p.say("%s", strings.Join(texts, ""))
	case !c.mayAsk():
		return false, usageError{errors.New("there is no terminal to approve this change at; to make it without being asked, add --yes")}
	}
	for _, text := range texts {
		if err := p.printf("%sGo on? [y/N] ", text); err != nil {
			return false, err
		}
		// Input typed before the text was shown is not an answer.
		typed, err := nextLine(ctx, c.lines, time.Now())
		if err != nil || !strings.EqualFold(typed, "y") && !strings.EqualFold(typed, "yes") {
			return false, err
		}
	}
	p.left = c.sent
	p.waiting("Waiting for the Base")
	return true, nil
}

// changed is the JSON output of a change.
type changed struct {
	Revision uint64                 `json:"revision"`
	Changes  []client.PostureChange `json:"changes"`
	// Connect is how to use what was opened.
	Connect *owner.Opened `json:"connect,omitempty"`
}

func (c *consent) changed(view *client.PostureView) changed {
	return changed{view.Effective().Revision, c.shown, c.connect}
}

// done reports that a change is in force.
func (c *consent) done(view *client.PostureView, err error) error {
	if err != nil {
		return err
	}
	revision := view.Effective().Revision
	if c.program.json {
		return c.program.printJSON(c.changed(view))
	}
	if err := c.program.printf("Done. The Base has signed that this is in force (revision %d).\n", revision); err != nil || c.connect == nil {
		return err
	}
	return c.program.sayOpened(*c.connect)
}

// apply makes a change.
func (p *program) apply(c *cobra.Command, asking *consent, change client.Change) error {
	return p.applyAndSay(c, asking, change, opened{})
}

// opened is what a change opens; each may be nil.
type opened struct {
	// before returns what the user should know before the question; empty: nothing.
	before func(context.Context, *client.Session) string
	// at returns how to use it, by the address of the Base.
	at func(host string, view *client.PostureView) *owner.Opened
}

// applyAndSay makes a change, and says how to use what it has opened.
func (p *program) applyAndSay(c *cobra.Command, asking *consent, change client.Change, what opened) error {
	return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
		if what.before != nil {
			asking.remark = what.before(ctx, session)
		}
		asking.sent = nothingChanged // if there are more, the error lists them
		change.Approve = asking.approve(ctx)
		change.Progress = func(step string) { _ = p.step("  ... ", step) }
		view, err := session.Apply(ctx, change)
		if err == nil && what.at != nil {
			if host, _ := p.hostOf(session); host != "" {
				asking.connect = what.at(host, view)
			}
		}
		return asking.done(view, err)
	})
}

// complete offers values from the posture.
func (p *program) complete(of func(*client.PostureView) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var list []string
		err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
			view, err := session.Posture(ctx)
			if err == nil {
				list = of(view)
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

func (p *program) postureCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "posture",
		Short: "Show and change how open the Base is",
		Long: `The posture says how open the Base is. The Base signs it and this App verifies it, so even a
Base whose network-facing part was taken over cannot show a false one.`,
		Example: `  bitbox-app posture show
  bitbox-app posture history`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(p.postureShowCommand(), p.postureDiffCommand(), p.postureHistoryCommand(),
		p.postureBackCommand(), p.postureConfirmCommand(), p.postureUnlockCommand())
	return command
}

func (p *program) postureShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show what is open on the Base, and for how long",
		Example: `  bitbox-app posture show
  bitbox-app posture show --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, query[*client.PostureView]{
				ask:     look,
				json:    func(view *client.PostureView) any { return shownOf(view) },
				show:    p.printPosture,
				columns: []string{"REVISION", "SSH", "EXTRA", "PAIRING", "LOCKDOWN", "APPS"},
				rows:    postureRow,
				table: func(t *table) {
					open := func(cell string) terminal.Style {
						if strings.HasPrefix(cell, "off") || cell == "none" {
							return terminal.Plain
						}
						return terminal.Yellow
					}
					t.styled("SSH", open).styled("EXTRA", open)
				},
			})
		},
	}
}

// look asks for the posture, verified.
func look(ctx context.Context, session *client.Session) (*client.PostureView, error) {
	return session.Posture(ctx)
}

// postureRow is a posture in one line.
func postureRow(view *client.PostureView) [][]string {
	s := shownOf(view)
	onOff := map[bool]string{true: "on", false: "off"}
	revision, ssh, pairing := strconv.FormatUint(s.Revision, 10), onOff[s.SSH], "by an owner"
	switch {
	case s.Applying:
		revision += " (being applied)"
	case s.Trying:
		revision += " (tried)"
	}
	if s.SSH {
		ssh += ", " + duration(uint64(max(s.SSHRemaining, 0)))
	}
	var extra []string
	for _, end := range s.Endpoints {
		switch {
		case end.UntilClosed:
			extra = append(extra, end.Kind+", for good")
		case end.Remaining > 0:
			extra = append(extra, fmt.Sprintf("%s, %s", end.Kind, duration(uint64(end.Remaining))))
		}
	}
	if len(extra) == 0 {
		extra = []string{"none"}
	}
	if s.PairingClosed {
		pairing = "at its console"
	}
	return [][]string{{revision, ssh, strings.Join(extra, "; "), pairing, onOff[s.Lockdown], strconv.Itoa(len(s.Apps))}}
}

// shown is the posture in force, in JSON.
type shown struct {
	Revision uint64 `json:"revision"`
	// Applying: the Base puts this revision in force. Trying: it waits for confirmation.
	Applying      bool            `json:"applying"`
	Trying        bool            `json:"trying"`
	UndoneIn      int             `json:"undoneInSeconds"`
	Name          string          `json:"name"`
	Lockdown      bool            `json:"lockdown"`
	PairingClosed bool            `json:"pairingClosed"`
	Endpoints     []shownEndpoint `json:"endpoints"`
	SSH           bool            `json:"ssh"`
	SSHRemaining  int             `json:"sshRemainingSeconds"`
	SSHKeys       []shownKey      `json:"sshKeys"`
	MaxTries      uint32          `json:"banMaxTries"`
	BanWindow     int             `json:"banWindowSeconds"`
	BanTime       int             `json:"banSeconds"`
	Egress        []string        `json:"egress"`
	Apps          []shownApp      `json:"apps"`
	// OldestVersion is the oldest version of the software that may run; empty: any.
	OldestVersion string `json:"oldestVersion"`
	// Image is what the Base runs; absent if it is no image.
	Image *shownImage `json:"image,omitempty"`
	// Gap: the Base no longer keeps all that happened since this App looked last.
	Gap bool `json:"historyHasGap"`
}

type shownImage struct {
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	Slot         string `json:"slot"`
	RootHash     string `json:"rootHash"`
	SecureBoot   string `json:"secureBoot"`
}

type shownEndpoint struct {
	Kind      string `json:"kind"`
	Port      uint16 `json:"port"`
	Shared    bool   `json:"shared"`
	Remaining int    `json:"remainingSeconds"`
	// UntilClosed: it has no end, and remainingSeconds is 0.
	UntilClosed bool `json:"untilClosed"`
	// From are the networks that reach it; empty: every network.
	From []string `json:"from"`
}

type shownKey struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
	Comment     string `json:"comment"`
}

type shownApp struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Role       string `json:"role"`
	SigningKey string `json:"signingKey"`
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func shownOf(view *client.PostureView) shown {
	e := view.Effective()
	pending, trying, left := view.Pending()
	s := shown{
		Revision: e.Revision, Applying: pending && !trying, Trying: trying, UndoneIn: seconds(left), Name: e.NodeName, Lockdown: e.Lockdown,
		PairingClosed: e.PairingClosed, Endpoints: []shownEndpoint{}, SSH: e.SSH != nil, SSHKeys: shownKeys(view),
		MaxTries: e.Bans.MaxTries, BanWindow: seconds(e.Bans.Window), BanTime: seconds(e.Bans.BanTime),
		Egress: []string{}, Apps: []shownApp{}, Gap: view.Gap,
	}
	s.OldestVersion = e.OldestVersion
	if i := view.Identities().Image; i != nil {
		s.Image = &shownImage{i.Version, i.Architecture, i.Slot, hex.EncodeToString(i.RootHash[:]), i.SecureBoot}
	}
	for _, end := range e.Endpoints {
		s.Endpoints = append(s.Endpoints, shownEndpoint{string(end.Kind), end.Port, end.Shared, seconds(end.Remaining), end.UntilClosed,
			append([]string{}, end.From.Strings()...)})
	}
	if e.SSH != nil {
		s.SSHRemaining = seconds(e.SSH.Remaining)
	}
	for _, service := range e.Egress {
		s.Egress = append(s.Egress, string(service))
	}
	for _, app := range e.Apps {
		s.Apps = append(s.Apps, shownApp{app.ID, app.Name, roleName(app.Role), app.SigningKey.String()})
	}
	return s
}

func (p *program) printPosture(view *client.PostureView) error {
	s := shownOf(view)
	table := p.table()
	row := func(name, format string, args ...any) { table.row(name, fmt.Sprintf(format, args...)) }
	left := func(n int) string { return duration(uint64(max(n, 0))) }
	switch {
	case s.Applying:
		row("Revision", "%d, being applied", s.Revision)
	case s.Trying:
		row("Revision", "%d, on trial: undone in %s unless it is confirmed", s.Revision, left(s.UndoneIn))
	default:
		row("Revision", "%d", s.Revision)
	}
	row("Name", "%s", s.Name)
	if s.Lockdown {
		row("Lockdown", "on; 'bitbox-app posture unlock' lifts it")
	}
	for _, end := range s.Endpoints {
		kind := strings.ToUpper(end.Kind[:1]) + end.Kind[1:] // of a posture that was verified, so one that is known
		text := fmt.Sprintf("port %d", end.Port)
		if end.Shared {
			text += ", beside the encrypted channel"
		}
		switch {
		case end.UntilClosed:
			text += ", open for good: until somebody closes it"
		case end.Remaining > 0:
			text += ", for another " + left(end.Remaining)
		}
		if len(end.From) > 0 {
			text += ", from " + strings.Join(end.From, ", ") + " alone"
		}
		row(kind, "%s", text)
	}
	if s.SSH {
		row("SSH", "on for another %s, keys: %d", left(s.SSHRemaining), len(s.SSHKeys))
	} else {
		row("SSH", "off, stored keys: %d", len(s.SSHKeys))
	}
	if s.PairingClosed {
		row("Pairing", "only from the Base's console")
	} else {
		row("Pairing", "when an owner opens a window")
	}
	if s.OldestVersion != "" {
		row("Software", "no version older than %s", s.OldestVersion)
	}
	row("Bans", "after %d failures within %s, for %s", s.MaxTries, left(s.BanWindow), left(s.BanTime))
	if len(s.Egress) > 0 {
		row("Internet", "%s", strings.Join(s.Egress, ", "))
	}
	for _, app := range s.Apps {
		row("App", "%s (%s)", app.Name, app.Role)
	}
	if s.Gap {
		row("History", "the Base no longer keeps all that happened since this App looked last")
	}
	return table.print()
}

func (p *program) postureHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "Show who opened and closed what, and when",
		Long: `history shows each revision of the posture and each restriction that the Base keeps, oldest
first. The order is certain; each time is from the clock of the App or Base that acted.`,
		Example: `  bitbox-app posture history
  bitbox-app posture history --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, tableOf(p, query[*client.PostureView]{
				ask:     look,
				json:    func(view *client.PostureView) any { return view.History() },
				columns: []string{"REVISION", "WHEN", "BY", "WHAT"},
				rows:    historyRows,
			}))
		},
	}
}

func historyRows(view *client.PostureView) [][]string {
	var rows [][]string
	for _, event := range view.History() {
		cells := []string{strconv.FormatUint(event.Revision, 10), when(event.At, time.Now()), event.By}
		if event.Note != "" {
			cells[2] += " (" + event.Note + ")"
		}
		for _, change := range event.Changes {
			rows = append(rows, append(cells, change.Done))
			cells = []string{"", "", ""}
		}
		if len(event.Changes) == 0 {
			rows = append(rows, append(cells, "No change to what is in force."))
		}
	}
	return rows
}

// revision reads a typed revision.
func revision(typed string) (uint64, error) {
	n, err := strconv.ParseUint(typed, 10, 64)
	if err != nil {
		return 0, usageError{fmt.Errorf("%q is not the number of a revision; 'bitbox-app posture history' lists them", client.Printable(typed))}
	}
	return n, nil
}

// revisions are those that 'posture back' can go back to.
func revisions(view *client.PostureView) []string {
	var list []string
	_, last := view.Posture()
	for _, event := range view.History() {
		if event.Restriction == 0 && event.Revision < last {
			list = append(list, cobra.CompletionWithDesc(strconv.FormatUint(event.Revision, 10), client.Printable("by "+event.By)))
		}
	}
	return list
}

func (p *program) postureDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff [REVISION]",
		Short: "Show what going back to a revision would change",
		Long: `diff shows what 'posture back REVISION' would change, without changing anything. The default
is the revision before the last one: what undoing the last change would do.`,
		Example: `  bitbox-app posture diff
  bitbox-app posture diff 7`,
		Args:              commandline.Args(0, 1),
		ValidArgsFunction: p.complete(revisions),
		RunE: func(c *cobra.Command, args []string) error {
			return p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) error {
				view, err := session.Posture(ctx)
				if err != nil {
					return err
				}
				_, last := view.Posture()
				to := max(last, 1) - 1
				if len(args) > 0 {
					if to, err = revision(args[0]); err != nil {
						return err
					}
				}
				changes, err := session.Preview(ctx, client.Change{Edit: client.GoBack(to)})
				if err != nil {
					return err
				}
				if p.json {
					return p.printJSON(changed{Revision: to, Changes: append([]client.PostureChange{}, changes...)})
				}
				if len(changes) == 0 {
					return p.printf("Going back to revision %d would change nothing.\n", to)
				}
				if err := p.printf("Going back to revision %d:\n", to); err != nil {
					return err
				}
				for _, change := range changes {
					if err := p.printf("  %s\n", changeText(change)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (p *program) postureBackCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "back REVISION",
		Short: "Go back to the settings of an earlier revision",
		Long: `back makes a new revision with the settings of an earlier one and the present Apps; a revoked
App stays revoked. A lease in it that has ended begins again.`,
		Example:           `  bitbox-app posture back 7`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: p.complete(revisions),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		to, err := revision(args[0])
		if err != nil {
			return err
		}
		return p.apply(c, asking, client.Change{Edit: client.GoBack(to)})
	}
	return command
}

func (p *program) postureConfirmCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "confirm",
		Short: "Confirm a change that is on trial",
		Long: `Each change is tried first, and undone after a minute unless it is confirmed over a new
connection. The command that makes a change confirms it by itself; use confirm if that
command was interrupted.`,
		Example: `  bitbox-app posture confirm`,
		Args:    commandline.Args(0, 0),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			return asking.done(session.ConfirmTry(ctx, asking.approve(ctx)))
		})
	}
	return command
}

func (p *program) postureUnlockCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "unlock",
		Short: "Lift a lockdown",
		Long: `unlock lifts all lockdowns. SSH and extra APIs stay closed. With --reopen, those whose lease
has not ended are opened again.`,
		Example: `  bitbox-app posture unlock
  bitbox-app posture unlock --reopen`,
		Args: commandline.Args(0, 0),
	}
	asking := p.consent(command)
	reopen := command.Flags().Bool("reopen", false, "open what the lockdown has closed, for the rest of its time")
	command.RunE = func(c *cobra.Command, _ []string) error {
		edit := client.Edit(client.KeepClosed)
		if *reopen {
			edit = client.Keep
		}
		return p.apply(c, asking, client.Change{Edit: edit, Unlock: true})
	}
	return command
}

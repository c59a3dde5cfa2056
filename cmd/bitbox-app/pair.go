package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// pairTime is how long a person at the Base may take to accept the request: as long as a pairing
// window is open.
const pairTime = 180 * time.Second

func (p *program) pairCommand() *cobra.Command {
	var as, name string
	var words bool
	command := &cobra.Command{
		Use:   "pair [ADDRESS | NAME]",
		Short: "Pair with a Base",
		Long: `pair asks a Base to let this App in. Without an argument it pairs with the only Base on the
local network, or lets you choose.

It shows a request number; accept this number at the Base. Then the App and the Base each
show a code. Confirm only if both codes are the same: that is what keeps everybody else
out.

At a terminal you answer y or n. Without a terminal, pair reads the code from standard
input and compares it; it cannot be confirmed unseen. The code must have been read at the
Base.

For a Base without a display, use --words: this App then shows six words. Type them into
an owner's App (bitbox-app pairing accept), and confirm here only if that App says that
they match.`,
		Example: `  bitbox-app pair
  bitbox-app pair --words
  bitbox-app pair 192.168.1.20
  bitbox-app pair "BitBox Base" --as home`,
		Args:              commandline.Args(0, 1),
		ValidArgsFunction: p.completeNearby,
		RunE: func(c *cobra.Command, args []string) error {
			app, err := p.app(client.Options{Name: name})
			if err != nil {
				return err
			}
			if p.address != "" {
				args = append(args, p.address)
			}
			p.left = "no code was shown and nothing is stored; the Base forgets the request"
			lines := readLines(p.in)
			addresses, err := p.target(c.Context(), lines, args, words)
			if err != nil {
				return err
			}
			ctx, cancel := p.limited(c.Context(), pairTime)
			defer cancel()
			base, err := app.Pair(ctx, addresses, client.PairOptions{
				Name:      as,
				Words:     words,
				Requested: func(number string) { p.showNumber(number, words) },
				Confirm: func(ctx context.Context, code client.Code) (bool, error) {
					if words {
						return p.confirmWords(ctx, lines, code)
					}
					return p.confirm(ctx, lines, code)
				},
			})
			if err != nil {
				return err
			}
			return p.showPaired(base)
		},
	}
	command.Flags().StringVar(&as, "as", "", "name of the Base in this App (default: its own name)")
	command.Flags().StringVar(&name, "app-name", "", "name of this App at the Base (default: the name of this machine)")
	command.Flags().BoolVar(&words, "words", false, "the Base has no display; an owner's App accepts the request and compares six words")
	_ = command.RegisterFlagCompletionFunc("as", cobra.NoFileCompletions)
	_ = command.RegisterFlagCompletionFunc("app-name", cobra.NoFileCompletions)
	return command
}

// target returns the addresses to pair with. With words, no window has to be open.
func (p *program) target(ctx context.Context, lines <-chan line, args []string, words bool) ([]string, error) {
	if len(args) > 1 {
		return nil, usageError{errors.New("the address was given twice")}
	}
	if len(args) == 1 && isAddress(args[0]) {
		return args, client.CheckAddress(args[0])
	}
	found, err := p.discover(ctx, discoverTime)
	if err != nil {
		return nil, err
	}
	if len(args) == 1 {
		var named []nearby
		for _, n := range found {
			if strings.EqualFold(n.Name, args[0]) {
				named = append(named, n)
			}
		}
		if len(named) == 0 && isHost(args[0]) {
			return args, nil
		}
		if len(named) == 0 {
			return nil, &client.Error{Kind: client.ErrNoSuchBase,
				Text: fmt.Sprintf("no Base named %q answered on the local network; to give an address, write host:port", client.Printable(args[0]))}
		}
		found = named
	}
	switch {
	case len(found) == 0:
		return nil, &client.Error{Kind: client.ErrNoSuchBase,
			Text: "no Base answered on the local network; check that it is on and connected to this network, or give its address: bitbox-app pair HOST:PORT"}
	case len(found) == 1:
		if err := p.say("Found %q at %s.\n", found[0].Name, found[0].address()); err != nil {
			return nil, err
		}
		if !found[0].PairingOpen && !words {
			if err := p.say("Its pairing window is closed. An owner can open it: bitbox-app pairing open\n"); err != nil {
				return nil, err
			}
		}
		return found[0].Addresses, nil
	case !p.terminal:
		return nil, &client.Error{Kind: client.ErrSeveralBases,
			Text: fmt.Sprintf("%d Bases answered on the local network; give the address of the one you mean (see 'bitbox-app discover')",
				len(found))}
	}
	return p.choose(ctx, lines, found)
}

// isAddress tells an address from the name of a Base: it is an IP address, or has a port. A name
// with a dot may be either: "St. Gallen" or base.example.
func isAddress(s string) bool {
	if _, port, err := net.SplitHostPort(s); err == nil {
		_, err := strconv.ParseUint(port, 10, 16)
		return err == nil
	}
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

// isHost tells whether a text that is not the name of a Base may be a host.
func isHost(s string) bool { return strings.Contains(s, ".") && client.CheckAddress(s) == nil }

func (p *program) choose(ctx context.Context, lines <-chan line, found []nearby) ([]string, error) {
	table := p.table("", "NAME", "ADDRESS", "PAIRING", "KNOWN AS")
	for n, one := range found {
		table.row(strconv.Itoa(n+1), one.Name, one.address(), one.pairing(), one.PairedAs)
	}
	if err := table.print(); err != nil {
		return nil, err
	}
	for {
		if err := p.printf("Which one? [1-%d] ", len(found)); err != nil {
			return nil, err
		}
		typed, err := nextLine(ctx, lines, time.Time{})
		if err != nil {
			return nil, err
		}
		if n, err := strconv.Atoi(typed); err == nil && 1 <= n && n <= len(found) {
			return found[n-1].Addresses, nil
		}
	}
}

// pairEvent is a line of `pair --json`.
type pairEvent struct {
	// Event is "requested", "code" or "paired".
	Event string `json:"event"`
	// Number has to be accepted at the Base ("requested").
	Number string `json:"number,omitempty"`
	// The Base's own name, and the role it grants ("code").
	BaseName string `json:"baseName,omitempty"`
	Role     string `json:"role,omitempty"`
	// Words have to be typed into the owner's App ("code", with --words).
	Words string `json:"words,omitempty"`
	// The pairing ("paired").
	Base *basis `json:"base,omitempty"`
}

// say prints for people; JSON leaves it out.
func (p *program) say(format string, args ...any) error {
	if p.json {
		return nil
	}
	return p.printf(format, args...)
}

func (p *program) showNumber(number string, words bool) {
	// If printing fails, the pairing ends at the code, because nobody confirms it.
	if p.json {
		_ = p.printJSON(pairEvent{Event: "requested", Number: number})
		return
	}
	if words {
		_ = p.printf("Request number:  %s\n\nAccept this number in an owner's App. Waiting ...\n\n  bitbox-app pairing accept %s --role viewer|operator|owner\n",
			number, strings.ReplaceAll(number, " ", ""))
		return
	}
	_ = p.printf("Request number:  %s\n\nAccept this number at the Base. Waiting ...\n", number)
	p.waiting("Waiting until %s is accepted at the Base", number)
}

// confirmWords shows the words, and asks whether the owner's App says that they match. Input
// typed before they were shown is not an answer.
func (p *program) confirmWords(ctx context.Context, lines <-chan line, code client.Code) (bool, error) {
	if p.json {
		if err := p.printJSON(pairEvent{Event: "code", BaseName: code.BaseName, Role: roleName(code.Role), Words: code.Words}); err != nil {
			return false, err
		}
	}
	if err := p.say("\nThe Base %q will give this App, %q, the role %s.\n\nWords:  %s\n\nType these words into the owner's App.\n",
		code.BaseName, code.AppName, roleName(code.Role), code.Words); err != nil {
		return false, err
	}
	shown := time.Now()
	for {
		if err := p.say("Does the owner's App say that the words match? [y/N] "); err != nil {
			return false, err
		}
		typed, err := nextLine(ctx, lines, shown)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(typed) {
		case "y", "yes":
			return true, p.say("\n")
		case "", "n", "no":
			return false, nil
		}
	}
}

func (p *program) confirm(ctx context.Context, lines <-chan line, code client.Code) (bool, error) {
	if p.terminal && !p.json {
		return p.compare(ctx, lines, code)
	}
	// The code is not shown, so a script cannot return it without reading it at the Base.
	if p.json {
		if err := p.printJSON(pairEvent{Event: "code", BaseName: code.BaseName, Role: roleName(code.Role)}); err != nil {
			return false, err
		}
	}
	for {
		if err := p.say("\nThe Base %q will give this App, %q, the role %s.\nType the code that the Base shows: ", code.BaseName, code.AppName,
			roleName(code.Role)); err != nil {
			return false, err
		}
		typed, err := nextLine(ctx, lines, time.Time{})
		if err != nil {
			return false, err
		}
		if digits, ok := sixDigits(typed); ok {
			if digits != code.Digits {
				return false, p.say("%s is not the code of this pairing.\n", digits)
			}
			return true, p.say("\n")
		}
	}
}

// compare asks the person at the terminal to compare. Input typed before the code was shown is
// not an answer.
func (p *program) compare(ctx context.Context, lines <-chan line, code client.Code) (bool, error) {
	if err := p.printf("\nThe Base %q will give this App, %q, the role %s.\n\nCode:  %s\n\n", code.BaseName, code.AppName, roleName(code.Role),
		code.Digits); err != nil {
		return false, err
	}
	shown := time.Now()
	for {
		if err := p.printf("Does the Base show the same code? [y/N] "); err != nil {
			return false, err
		}
		typed, err := nextLine(ctx, lines, shown)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(typed) {
		case "y", "yes":
			return true, nil
		case "", "n", "no":
			return false, nil
		}
		if digits, ok := sixDigits(typed); ok {
			if digits != code.Digits {
				return false, p.printf("%s is not the code that this App shows.\n", digits)
			}
			return true, nil
		}
	}
}

// sixDigits reads a code, with or without spaces, and formats it as "123 456".
func sixDigits(s string) (string, bool) {
	s = strings.ReplaceAll(s, " ", "")
	if len(s) != 6 || strings.Trim(s, "0123456789") != "" {
		return "", false
	}
	return s[:3] + " " + s[3:], true
}

func (p *program) showPaired(base client.Base) error {
	if p.json {
		return p.printJSON(pairEvent{Event: "paired", Base: basisOf(base)})
	}
	if base.State == client.Pending {
		return p.printf("\nPaired with %q, but it has not answered a call yet. Run this within three minutes: bitbox-app status\n", base.Name)
	}
	return p.printf("\nPaired with %q. This App is %q there, with the role %s.\n", base.Name, base.AppName, roleName(base.Role))
}

// line is a typed line, and when it was typed.
type line struct {
	text string
	at   time.Time
}

// maxTypedAhead is how many lines are kept unread. A line must not wait in the reader, where it
// would get a later time than that of its typing.
const maxTypedAhead = 100

// readLines reads lines ahead, so that waiting for one can end with a context.
func readLines(in io.Reader) <-chan line {
	lines := make(chan line, maxTypedAhead)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			lines <- line{strings.TrimSpace(scanner.Text()), time.Now()}
		}
	}()
	return lines
}

var errNoAnswer = errors.New("standard input ended before an answer")

// nextLine returns the next line that was typed after this time.
func nextLine(ctx context.Context, lines <-chan line, after time.Time) (string, error) {
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				return "", errNoAnswer
			}
			if l.at.After(after) {
				return l.text, nil
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (p *program) completeNearby(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found, err := p.discover(c.Context(), completeTime)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, n := range found {
		names = append(names, cobra.CompletionWithDesc(n.Name, n.address()))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

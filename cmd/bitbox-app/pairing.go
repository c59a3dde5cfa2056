package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) pairingCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "pairing",
		Short: "Let another App in",
		Long: `While the pairing window is open, the Base listens for requests of other Apps. Somebody at
the Base decides whether one is let in. With --role you set its role; otherwise the person
at the Base chooses it.

If the Base has no display, an owner's App decides: bitbox-app pairing accept.`,
		Example: `  bitbox-app pairing open --role viewer
  bitbox-app pairing status
  bitbox-app pairing accept 123456 --role operator`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(
		p.pairingOpenCommand(),
		p.pairingAcceptCommand(),
		p.windowCommand("close", "Close the pairing window and end a pairing in progress",
			func(ctx context.Context, s *client.Session) (*basev1.Window, error) {
				_, err := s.Pairing.CloseWindow(ctx, &basev1.CloseWindowRequest{})
				return &basev1.Window{}, err
			}),
		p.windowStatusCommand(),
	)
	return command
}

func (p *program) windowStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether the pairing window is open",
		Example: `  bitbox-app pairing status
  bitbox-app pairing status --all`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, query[*basev1.Window]{
				ask: func(ctx context.Context, s *client.Session) (*basev1.Window, error) {
					response, err := s.Pairing.GetWindow(ctx, &basev1.GetWindowRequest{})
					return response.GetWindow(), err
				},
				show:    func(window *basev1.Window) error { return p.printf("%s\n", words.English.Window(window)) },
				columns: []string{"WINDOW"},
				rows:    func(window *basev1.Window) [][]string { return [][]string{{words.English.Window(window)}} },
			})
		},
	}
}

func (p *program) windowCommand(use, short string, do func(context.Context, *client.Session) (*basev1.Window, error)) *cobra.Command {
	return &cobra.Command{
		Use:     use,
		Short:   short,
		Example: "  bitbox-app pairing " + use,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) error {
				window, err := do(ctx, session)
				if err != nil {
					return err
				}
				if p.json {
					return p.printMessage(window)
				}
				return p.printf("%s\n", words.English.Window(window))
			})
		},
	}
}

// roleFlag adds --role to a command.
func roleFlag(command *cobra.Command, role *string, usage string) {
	command.Flags().StringVar(role, "role", "", usage)
	_ = command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(basev1.RoleNames(), cobra.ShellCompDirectiveNoFileComp))
}

func (p *program) pairingOpenCommand() *cobra.Command {
	var role string
	command := p.windowCommand("open", "Open the pairing window for three minutes",
		func(ctx context.Context, s *client.Session) (*basev1.Window, error) {
			if role != "" {
				wanted, err := client.ParseRole(role)
				if err != nil {
					return nil, err
				}
				return s.OpenWindow(ctx, wanted)
			}
			response, err := s.Pairing.OpenWindow(ctx, &basev1.OpenWindowRequest{})
			return response.GetWindow(), err
		})
	command.Long = `open lets the Base listen for requests of other Apps for three minutes. With --role, which
this App signs, the Base shows what the new App may do and asks only whether to let it in.
` + rolesText
	command.Example = `  bitbox-app pairing open
  bitbox-app pairing open --role viewer`
	roleFlag(command, &role, "role of the new App: viewer, operator or owner (default: chosen at the Base)")
	return command
}

// acceptTime is how long letting an App in takes at most: the Base waits 60 s for the request and
// 120 s for the answers, and then the App connects.
const acceptTime = 220 * time.Second

// acceptEvent is a line of `pairing accept --json`.
type acceptEvent struct {
	// Event is "accepted", "words", "matched" or "let in".
	Event string `json:"event"`
	// App is what the new App calls itself ("words").
	App string `json:"app,omitempty"`
	// Problem is why the typed text was not six words ("words").
	Problem string `json:"problem,omitempty"`
	// Listed: the Base has signed that the App is paired ("let in").
	Listed bool `json:"listed,omitempty"`
}

func (p *program) pairingAcceptCommand() *cobra.Command {
	var role string
	command := &cobra.Command{
		Use:   "accept NUMBER",
		Short: "Let another App in at a Base without a display",
		Long: `accept is for a Base without a display, where nobody could compare a code. Start the new App
with 'bitbox-app pair --words'; it shows a request number and then six words. Type the words
here as you read or hear them. This App signs them, and the Base replies, signed, whether
they match its own. Only then confirm in the new App.

` + rolesText,
		Example: `  bitbox-app pairing accept 123456 --role operator
  bitbox-app pairing accept 123 456 --role viewer`,
		Args:              commandline.Args(1, 2),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	roleFlag(command, &role, "role of the new App: viewer, operator or owner")
	command.RunE = func(c *cobra.Command, args []string) error {
		granted, err := client.ParseRole(role)
		if err != nil {
			return usageError{errors.New("give the role of the new App, such as --role viewer")}
		}
		lines := readLines(p.in)
		return p.call(c.Context(), acceptTime, func(ctx context.Context, session *client.Session) error {
			listed, err := session.AcceptPairing(ctx, client.Acceptance{
				Number: strings.Join(args, ""),
				Role:   granted,
				Accepted: func() {
					_ = p.tell(acceptEvent{Event: "accepted"}, "Accepted. Waiting for the new App ...\n")
				},
				Words: func(ctx context.Context, app client.NewApp) (string, error) {
					return p.askWords(ctx, lines, app, granted)
				},
				Matched: func() {
					_ = p.tell(acceptEvent{Event: "matched"}, "\nThe words match; the Base has signed that. Now confirm in the new App.\n")
				},
			})
			if err != nil {
				return err
			}
			text := "The new App is let in as " + roleName(granted) + ". The Base has signed that.\n"
			if !listed {
				text = "The new App will be let in as " + roleName(granted) + " once it connects; then 'bitbox-app apps list' shows it.\n"
			}
			return p.tell(acceptEvent{Event: "let in", Listed: listed}, "%s", text)
		})
	}
	return command
}

// tell prints the same for a person or for a program.
func (p *program) tell(event acceptEvent, format string, args ...any) error {
	if p.json {
		return p.printJSON(event)
	}
	return p.printf(format, args...)
}

// askWords asks for the words of the new App. Input typed before that is not an answer.
func (p *program) askWords(ctx context.Context, lines <-chan line, app client.NewApp, role basev1.Role) (string, error) {
	text := fmt.Sprintf("\n%q asks to become %s of this Base.\nType the six words that it shows, or just press Enter to refuse it: ",
		client.Printable(app.Name), roleName(role))
	if app.Problem != "" {
		text = "These are not the six words: " + app.Problem + ".\nTry again: "
	}
	asked := time.Now()
	if err := p.tell(acceptEvent{Event: "words", App: app.Name, Problem: app.Problem}, "%s", text); err != nil {
		return "", err
	}
	return nextLine(ctx, lines, asked)
}

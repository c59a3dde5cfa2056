package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// callTime bounds one request to the Base on the same machine.
const callTime = 10 * time.Second

// Errors of the commands themselves.
var (
	errNothingToAnswer = errors.New("no code is shown, so there is nothing to answer; 'bitbox-base pairing list' shows the state")
	errOtherCode       = errors.New("the code you typed is not the one that the Base shows: somebody may be in between, so the pairing was rejected")
)

func (p *program) pairingCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "pairing",
		Short: "Accept a pairing request at the Base, and confirm its code",
		Long: `pairing talks to the Base that runs on this machine, for the person in front of it.

An App that asks to be paired shows a request number. Accept that number; then both
sides show a code. Confirm only if the two codes are the same.`,
		Example: `  bitbox-base pairing list
  bitbox-base pairing accept 123456
  bitbox-base pairing confirm 482913`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(
		p.listCommand(), p.acceptCommand(), p.confirmCommand(), p.rejectCommand(),
		p.simpleCommand("open", "Open the pairing window for 180 seconds", pairing.Client.OpenWindow),
		p.simpleCommand("close", "Close the pairing window, and end a pairing in progress", pairing.Client.CloseWindow),
		p.retireCommand(),
	)
	return command
}

// ask runs one conversation with the Base.
func (p *program) ask(c *cobra.Command, conversation func(ctx context.Context, authority pairing.Client) error) error {
	ctx, cancel := context.WithTimeout(c.Context(), callTime)
	defer cancel()
	if authority, ok := applianceAuthority(c); ok {
		return conversation(ctx, authority)
	}
	err := conversation(ctx, pairing.Client{Port: pairing.Over(ipc.Dial(devbase.ControlSocket(p.stateDir)).Call)})
	if errors.Is(err, ipc.ErrNotRunning) {
		return notRunning{p.stateDir}
	}
	return err
}

// notRunning is ipc.ErrNotRunning in the words of this command.
type notRunning struct{ stateDir string }

func (e notRunning) Error() string {
	return fmt.Sprintf("no Base is running on the state %s; start one with: bitbox-base dev --state %s", e.stateDir, e.stateDir)
}

func (notRunning) Unwrap() error { return ipc.ErrNotRunning }

func (p *program) listCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "list",
		Short:   "List requests, and the code of a pairing in progress",
		Example: `  bitbox-base pairing list --json`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.ask(c, func(ctx context.Context, authority pairing.Client) error {
				snapshot, err := authority.Watch(ctx, 0)
				if err != nil {
					return err
				}
				if p.json {
					text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(snapshot)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", text)
					return err
				}
				return describe(c.OutOrStdout(), snapshot)
			})
		},
	}
	command.Flags().BoolVar(&p.json, "json", false, "print JSON (bitbox.system.v1.Snapshot)")
	return command
}

// describe prints the state, one line for each thing.
func describe(out io.Writer, s *systemv1.Snapshot) error {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch {
	case s.GetWindowOpen():
		add("The pairing window is open for another %d s.", s.GetWindowRemainingMs()/1000)
		if role := s.GetWindowRole(); role != basev1.Role_ROLE_UNSPECIFIED {
			add("An owner's App has opened it to let in: %s.", words(role.String(), "ROLE_"))
		}
	case s.GetListening():
		add("This Base has no owner and listens for requests.")
	default:
		add("The pairing window is closed.")
	}
	for _, number := range s.GetRequests() {
		add("An App asks with number %s.", noiseconn.FormatNumber(number))
	}
	if wait := s.GetActWaitMs(); wait > 0 {
		add("No request can be accepted for another %d s.", (wait+999)/1000)
	}
	if ceremony := s.GetCeremony(); ceremony != nil {
		add("%s", describeCeremony(ceremony))
	}
	if last := s.GetLast(); last != nil && s.GetCeremony() == nil {
		add("The last pairing: %s.", words(last.GetOutcome().String(), "OUTCOME_"))
	}
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

func describeCeremony(c *systemv1.Ceremony) string {
	if len(c.GetByOwner()) > 0 {
		return fmt.Sprintf("An owner's App has accepted request %s as %s, and will confirm it. To refuse it: bitbox-base pairing reject",
			noiseconn.FormatNumber(c.GetNumber()), words(c.GetRole().String(), "ROLE_"))
	}
	if c.GetPhase() != systemv1.Ceremony_PHASE_SHOWN {
		return fmt.Sprintf("Request %s was accepted; waiting for its App.", noiseconn.FormatNumber(c.GetNumber()))
	}
	text := fmt.Sprintf("Code %s for %q as %s.", c.GetCode(), c.GetAppName(), words(c.GetRole().String(), "ROLE_"))
	switch {
	case c.GetBaseConfirmed():
		return text + " Confirmed here; waiting for the App."
	case c.GetAppConfirmed():
		return text + " The App has confirmed; confirm here if it shows the same code."
	default:
		return text + " Confirm if the App shows the same code."
	}
}

// words turns the name of an enumeration's value into words.
func words(value, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(value, prefix), "_", " "))
}

func parseRole(text string) (basev1.Role, error) {
	if text == "" {
		return basev1.Role_ROLE_UNSPECIFIED, nil
	}
	role, known := basev1.ParseRole(text)
	if !known {
		return 0, usageError{fmt.Errorf("there is no role %q; choose owner, operator or viewer", text)}
	}
	return role, nil
}

// parseNumber reads six digits, with or without spaces.
func parseNumber(args []string) (uint32, error) {
	text := strings.ReplaceAll(strings.Join(args, ""), " ", "")
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || len(text) != 6 {
		return 0, usageError{fmt.Errorf("%q is not a number of six digits such as the App shows", strings.Join(args, " "))}
	}
	return uint32(number), nil
}

func (p *program) acceptCommand() *cobra.Command {
	var role string
	command := &cobra.Command{
		Use:   "accept NUMBER",
		Short: "Accept the request of an App that shows this number",
		Long: `accept lets the App that shows this request number go on to the code. On a Base
without an owner it becomes the owner; otherwise give its role.`,
		Example: `  bitbox-base pairing accept 123456
  bitbox-base pairing accept 123 456 --role viewer`,
		Args: commandline.Args(1, 2),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) (numbers []string, _ cobra.ShellCompDirective) {
			if len(args) == 0 {
				_ = p.ask(c, func(ctx context.Context, authority pairing.Client) error {
					snapshot, err := authority.Watch(ctx, 0)
					for _, number := range snapshot.GetRequests() {
						numbers = append(numbers, fmt.Sprintf("%06d", number))
					}
					return err
				})
			}
			return numbers, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			number, err := parseNumber(args)
			if err != nil {
				return err
			}
			granted, err := parseRole(role)
			if err != nil {
				return err
			}
			return p.ask(c, func(ctx context.Context, authority pairing.Client) error {
				return authority.Accept(ctx, number, granted)
			})
		},
	}
	command.Flags().StringVar(&role, "role", "", "what the App may do: owner, operator or viewer")
	_ = command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(basev1.RoleNames(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

func (p *program) confirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm [CODE]",
		Short: "Confirm that the App shows the same code",
		Long: `confirm says that the App shows the code that the Base shows. Better type the code
as the App shows it: then it is compared for you, and another one rejects the
pairing.`,
		Example: `  bitbox-base pairing confirm 482913`,
		Args:    commandline.Args(0, 2),
		RunE: func(c *cobra.Command, args []string) error {
			typed := ""
			if len(args) > 0 {
				number, err := parseNumber(args)
				if err != nil {
					return err
				}
				typed = noiseconn.FormatNumber(number)
			}
			return p.ask(c, func(ctx context.Context, authority pairing.Client) error {
				return answer(ctx, authority, func(code string) (yes bool, err error) {
					if typed != "" && typed != code {
						return false, errOtherCode
					}
					return true, nil
				})
			})
		},
	}
}

func (p *program) rejectCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "reject",
		Short:   "Report that the App shows another code",
		Example: `  bitbox-base pairing reject`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.ask(c, func(ctx context.Context, authority pairing.Client) error {
				return answer(ctx, authority, func(string) (bool, error) { return false, nil })
			})
		},
	}
}

// answer gives a person's answer about the code on the display.
func answer(ctx context.Context, authority pairing.Client, decide func(code string) (yes bool, err error)) error {
	snapshot, err := authority.Watch(ctx, 0)
	if err != nil {
		return err
	}
	id, ok := pairing.CeremonyIDOf(snapshot)
	if !ok || snapshot.GetCeremony().GetPhase() != systemv1.Ceremony_PHASE_SHOWN {
		return errNothingToAnswer
	}
	yes, decided := decide(snapshot.GetCeremony().GetCode())
	return errors.Join(decided, authority.Answer(ctx, id, yes))
}

func (p *program) simpleCommand(use, short string, verb func(pairing.Client, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use:     use,
		Short:   short,
		Example: "  bitbox-base pairing " + use,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.ask(c, func(ctx context.Context, authority pairing.Client) error { return verb(authority, ctx) })
		},
	}
}

func (p *program) retireCommand() *cobra.Command {
	var yes bool
	command := &cobra.Command{
		Use:   "retire SIGNING-KEY",
		Short: "Remove an App's signing key for good",
		Long: `retire takes away the signing key of an App, also that of a last owner. The log names
keys that no App is paired with. A Base without an owner listens for requests again.
It asks first, since the key does not come back.`,
		Example: `  bitbox-base pairing retire 5f1d0c…64 hexadecimal digits`,
		Args:    commandline.Args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := hex.DecodeString(args[0])
			if err != nil || len(key) != noiseconn.KeySize {
				return usageError{fmt.Errorf("%q is not a signing key, which has 64 hexadecimal digits", args[0])}
			}
			fmt.Fprintf(c.OutOrStdout(), "The App with the signing key %x is cut off for good.\n", key)
			if err := confirm(c, yes); err != nil {
				return err
			}
			return p.ask(c, func(ctx context.Context, authority pairing.Client) error { return authority.Retire(ctx, key) })
		},
	}
	command.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return command
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// forFlag adds the flag for the length of a lease.
func forFlag(command *cobra.Command) *time.Duration {
	length := new(time.Duration)
	commandline.DurationVar(command.Flags(), length, "for", "how long: 5m (minutes) to 7d")
	_ = command.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"1h", "1d", "7d"}, cobra.ShellCompDirectiveNoFileComp))
	return length
}

// chosen refuses a lease without a length, and a length that no Base accepts.
func chosen(length time.Duration) error {
	if length == 0 {
		return usageError{errors.New("give a time, such as --for 1d; 5m (minutes) to 7d are allowed")}
	}
	if err := owner.CheckLease(length); err != nil {
		return usageError{fmt.Errorf("--for %w", err)}
	}
	return nil
}

// isExtra refuses an unknown kind of extra API.
func isExtra(kind string) error {
	if !slices.Contains(client.Extras(), kind) {
		return usageError{fmt.Errorf("%q is not an extra API; available: %s", client.Printable(kind), strings.Join(client.Extras(), ", "))}
	}
	return nil
}

// openingFlags are how an extra API is to be opened, as typed.
type openingFlags struct {
	length      *time.Duration
	untilClosed bool
	shareEntry  bool
	from        []string
	// public: the user wants public networks, and is not asked about them once more.
	public bool
}

func newOpeningFlags(command *cobra.Command) *openingFlags {
	o := &openingFlags{length: forFlag(command)}
	flags := command.Flags()
	flags.BoolVar(&o.untilClosed, "until-closed", false, "for good: until somebody closes it")
	flags.StringSliceVar(&o.from, "from", nil, "only from these networks, such as 192.168.1.0/24")
	flags.BoolVar(&o.shareEntry, "share-entry", false, "share the port of the encrypted channel instead of a port of its own")
	flags.BoolVar(&o.public, "public", false, "allow --from a public network without being asked once more")
	_ = command.RegisterFlagCompletionFunc("from", cobra.NoFileCompletions)
	return o
}

// opening returns what was typed, or a usage error.
func (o *openingFlags) opening() (client.Opening, error) {
	how := client.Opening{For: *o.length, UntilClosed: o.untilClosed, ShareEntry: o.shareEntry}
	switch {
	case o.untilClosed && how.For != 0:
		return how, usageError{errors.New("--for and --until-closed cannot be combined; give one of them")}
	case !o.untilClosed && how.For == 0:
		return how, usageError{errors.New("give a time, such as --for 1d (5m to 7d are allowed), or --until-closed")}
	case o.shareEntry && len(o.from) > 0:
		return how, usageError{errors.New("--from and --share-entry cannot be combined: every network reaches the shared port")}
	case !o.untilClosed:
		if err := chosen(how.For); err != nil {
			return how, err
		}
	}
	if len(o.from) > client.MaxNetworks {
		return how, usageError{fmt.Errorf("--from can name at most %d networks", client.MaxNetworks)}
	}
	var err error
	if how.From, err = owner.ReadNetworks(o.from); err != nil {
		return how, usageError{fmt.Errorf("--from %w", err)}
	}
	return how, nil
}

// publicQuestion is what a user is asked once more; empty if there is nothing to ask.
func (o *openingFlags) publicQuestion(how client.Opening, asking *consent) (string, error) {
	var names []string
	for _, network := range client.PublicNetworks(how.From) {
		names = append(names, network.String())
	}
	switch {
	case len(names) == 0 || o.public:
		return "", nil
	case !asking.mayAsk():
		return "", usageError{fmt.Errorf("--from %s is a public network, with computers of strangers; to open the API to them, add --public",
			strings.Join(names, ","))}
	}
	return fmt.Sprintf("Computers of strangers will reach it: %s is public.\n", strings.Join(names, ", ")), nil
}

func (p *program) exposeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "expose KIND --for TIME | --until-closed",
		Short: "Open an extra API, for a time or until it is closed",
		Long: `expose makes an extra API reachable from the network, over TLS, for 5 minutes to 7 days, or
with --until-closed for good: it stays open over reboots until 'unexpose' or 'lockdown'. It
gets a port of its own (50002 for electrum), or shares the port of the encrypted channel.

--from limits it to networks, such as 192.168.1.0/24; packet filter and server refuse all
others. A public network is asked about once more.

Then expose shows how to connect, and the fingerprint of the certificate. The only kind is
electrum, for Electrum wallets.`,
		Example: `  bitbox-app expose electrum --until-closed --from 192.168.1.0/24
  bitbox-app expose electrum --for 1d
  bitbox-app expose electrum --for 7d --share-entry --yes`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(client.Extras(), cobra.ShellCompDirectiveNoFileComp),
	}
	flags := newOpeningFlags(command)
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		if err := isExtra(args[0]); err != nil {
			return err
		}
		how, err := flags.opening()
		if err != nil {
			return err
		}
		if asking.again, err = flags.publicQuestion(how, asking); err != nil {
			return err
		}
		return p.applyAndSay(c, asking, client.Change{Edit: client.Expose(args[0], how)},
			opened{
				before: func(ctx context.Context, session *client.Session) string {
					used, err := session.Wallet.GetWallets(ctx, &basev1.GetWalletsRequest{Kind: args[0]})
					if err != nil || used.GetAnswers() { // an older Base does not tell
						return ""
					}
					return "  " + p.out.Fold("  ", "Note: "+owner.WalletWarning(used).String()+".") + "\n"
				},
				at: func(host string, view *client.PostureView) *owner.Opened { return owner.OpenedBy(host, args[0], view) },
			})
	}
	return command
}

func (p *program) unexposeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:               "unexpose KIND",
		Short:             "Close an extra API, and end its connections",
		Example:           `  bitbox-app unexpose electrum`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(client.Extras(), cobra.ShellCompDirectiveNoFileComp),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		if err := isExtra(args[0]); err != nil {
			return err
		}
		return p.endLease(c, asking, args[0])
	}
	return command
}

func (p *program) endLease(c *cobra.Command, asking *consent, kind string) error {
	return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
		return asking.done(session.EndLease(ctx, kind, asking.approve(ctx)))
	})
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) nodeSettingsCommand() *cobra.Command {
	var w owner.NodeWish
	var confirm string
	command := &cobra.Command{
		Use:   "settings",
		Short: "Show and change which node the Base runs",
		Long: `settings shows which program is the Bitcoin node, on which network, and how much it stores.
With flags it changes that; what has no flag stays. The change is signed, and the node
restarts. Either all of it is good, or nothing is changed.

Mainnet needs Bitcoin Core, or that you type a sentence that says what btcd is. With --prune
the node deletes old blocks, and no wallet server can use it. Lines that root has added in
/etc/bitbox-base/node-own.conf stay, and count before these settings.`,
		Example: `  bitbox-app node settings
  bitbox-app node settings --program core --network mainnet --prune 100
  bitbox-app node settings --program btcd --network signet`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
	}
	flags := command.Flags()
	for _, flag := range []struct {
		value       *string
		name, usage string
		values      []string
	}{
		{&w.Program, "program", "the program: core or btcd", []string{"core", "btcd"}},
		{&w.Network, "network", "the network: mainnet, testnet4, signet, regtest or simnet",
			[]string{"mainnet", "testnet4", "signet", "regtest", "simnet"}},
		{&w.Prune, "prune", "keep this many GB of blocks, 2 to 10000; off: all blocks", []string{"off"}},
		{&w.Cache, "cache", "hold this many MiB of the chain's state in memory, 4 to 16384", nil},
		{&w.Every, "block-every", "with btcd on regtest: make a block this often, such as 20s; off: make none", []string{"off"}},
		{&confirm, "confirm", "the sentence about btcd on mainnet, to confirm without being asked (for scripts)", nil},
	} {
		flags.StringVar(flag.value, flag.name, "", flag.usage)
		_ = command.RegisterFlagCompletionFunc(flag.name, cobra.FixedCompletions(flag.values, cobra.ShellCompDirectiveNoFileComp))
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		if w == (owner.NodeWish{}) && confirm == "" {
			return ask(p, c, callTime, nodeSettingsQuery(p))
		}
		if err := p.oneBase(c); err != nil {
			return err
		}
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			return p.changeNode(ctx, session, asking, w, confirm)
		})
	}
	return command
}

func nodeSettingsQuery(p *program) query[*basev1.ChosenNode] {
	return query[*basev1.ChosenNode]{
		ask: func(ctx context.Context, session *client.Session) (*basev1.ChosenNode, error) {
			return session.NodeSettings(ctx)
		},
		show: func(answer *basev1.ChosenNode) error {
			if answer.GetSettings() == nil {
				return p.printf("This Base has no node. To give it one: bitbox-app node settings --program btcd --network signet\n")
			}
			table := p.table()
			for _, value := range owner.NodeValues(answer.GetSettings()) {
				table.row(value.Title.String(), value.Text.String())
			}
			from := "the builder, or root"
			if answer.GetSigned() {
				from = "an owner, who has signed them"
			}
			table.row("From", from)
			if answer.GetHasOwnLines() {
				table.row("Own lines", "root has added some; they count before these settings")
			}
			return table.print()
		},
		columns: []string{"PROGRAM", "NETWORK", "BLOCKS", "CACHE"},
		rows: func(answer *basev1.ChosenNode) [][]string {
			if answer.GetSettings() == nil {
				return [][]string{{"none", "", "", ""}}
			}
			var row []string
			for _, value := range owner.NodeValues(answer.GetSettings())[:4] {
				row = append(row, value.Text.String())
			}
			return [][]string{row}
		},
	}
}

func (p *program) changeNode(ctx context.Context, session *client.Session, asking *consent, w owner.NodeWish,
	confirm string) error {
	p.left = nothingChanged
	before, err := session.NodeSettings(ctx)
	if err != nil {
		return err
	}
	wanted, err := w.Over(before.GetSettings())
	if err != nil {
		return err
	}
	if owner.AsksBtcd(wanted) {
		if err := p.acceptBtcd(ctx, asking, confirm); err != nil {
			return err
		}
	}
	if err := owner.Accept(before.GetSettings(), wanted); err != nil {
		return err
	}
	changes, stays := owner.NodeChanges(before.GetSettings(), wanted)
	if yes, err := asking.approve(ctx)(append(slices.Clone(changes), stays...)); err != nil || !yes {
		return approved(yes, err)
	}
	was, err := owner.ServiceOfNode(ctx, session)
	if err != nil {
		return err
	}
	if err := session.ChangeNodeSettings(ctx, wanted); err != nil {
		return err
	}
	if err := p.say("The settings are stored, and the node restarts. Stopping it may take 10 minutes.\n"); err != nil {
		return err
	}
	p.left = "the settings are stored, and the node restarts with them"
	p.waiting("Waiting for the node")
	known, err := owner.AwaitNode(ctx, session, was, wanted.GetNetwork())
	reason := known.String()
	switch {
	case err != nil:
		return err
	case p.json:
		return p.printJSON(nodeSettingsChanged{Changes: changes, Up: reason == "", Reason: reason})
	case reason == "":
		return p.printf("The node answers with these settings.\n")
	}
	text := fmt.Sprintf("The node does not answer with these settings yet: %s.\nSee: bitbox-app logs bitcoin\n", client.Printable(reason))
	if back := nodeFlags(before.GetSettings()); back != "" {
		text += "To go back: bitbox-app node settings " + back + "\n"
	}
	return p.printf("%s", text)
}

// nodeSettingsChanged is what 'node settings' prints as JSON after a change.
type nodeSettingsChanged struct {
	Changes []client.PostureChange `json:"changes"`
	// Up: the node answers. Otherwise Reason says what is known.
	Up     bool   `json:"up"`
	Reason string `json:"reason,omitempty"`
}

// nodeFlags are those that lead to some settings.
func nodeFlags(s *basev1.NodeSettings) string {
	if s == nil {
		return ""
	}
	off := func(n uint32, unit string) string {
		if n == 0 {
			return "off"
		}
		return strconv.FormatUint(uint64(n), 10) + unit
	}
	program := strings.ToLower(strings.TrimPrefix(s.GetProgram().String(), "PROGRAM_"))
	flags := fmt.Sprintf("--program %s --network %s --prune %s --cache %d", program,
		words.English.Network(s.GetNetwork()), off(s.GetPruneGb(), ""), s.GetCacheMib())
	if s.GetBlockEverySeconds() > 0 {
		flags += " --block-every " + off(s.GetBlockEverySeconds(), "s")
	}
	return flags
}

// acceptBtcd has somebody who wants btcd on mainnet type what it is.
func (p *program) acceptBtcd(ctx context.Context, asking *consent, typed string) (err error) {
	if typed == "" {
		if !asking.mayAsk() {
			return usageError{fmt.Errorf("btcd on mainnet needs a sentence that somebody types; to give it without being asked, add --confirm %q",
				owner.BtcdSentence().String())}
		}
		asking.listen()
		if err := p.printf("%s\nTo use it on mainnet, type this sentence:\n%s\n> ", owner.BtcdCost().Text, owner.BtcdSentence()); err != nil {
			return err
		}
		if typed, err = nextLine(ctx, asking.lines, time.Now()); err != nil {
			return fmt.Errorf("ask for the sentence about btcd on mainnet: %w", err)
		}
	}
	return owner.CheckBtcd(typed)
}

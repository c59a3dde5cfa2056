package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

const (
	// upTime is how long a node may take to answer with new settings until the command says that it
	// does not yet. Bitcoin Core reads the index of its blocks first.
	upTime = 90 * time.Second
	upEach = time.Second
	// usualCache is that of Bitcoin Core, in MiB.
	usualCache = 450
	// btcdSentence is what somebody types who wants btcd on mainnet.
	btcdSentence = "btcd is another implementation, has disagreed with the network before, and its mempool differs"
)

// wantedNode are the flags of 'node settings'; empty: as before.
type wantedNode struct{ program, network, prune, cache, every, confirm string }

func (p *program) nodeSettingsCommand() *cobra.Command {
	var w wantedNode
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
		{&w.program, "program", "the program: core or btcd", []string{"core", "btcd"}},
		{&w.network, "network", "the network: mainnet, testnet4, signet, regtest or simnet",
			[]string{"mainnet", "testnet4", "signet", "regtest", "simnet"}},
		{&w.prune, "prune", "keep this many GB of blocks, 2 to 10000; off: all blocks", []string{"off"}},
		{&w.cache, "cache", "hold this many MiB of the chain's state in memory, 4 to 16384", nil},
		{&w.every, "block-every", "with btcd on regtest: make a block this often, such as 20s; off: make none", []string{"off"}},
		{&w.confirm, "confirm", "the sentence about btcd on mainnet, to confirm without being asked (for scripts)", nil},
	} {
		flags.StringVar(flag.value, flag.name, "", flag.usage)
		_ = command.RegisterFlagCompletionFunc(flag.name, cobra.FixedCompletions(flag.values, cobra.ShellCompDirectiveNoFileComp))
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		if w == (wantedNode{}) {
			return ask(p, c, callTime, nodeSettingsQuery(p))
		}
		if err := p.oneBase(c); err != nil {
			return err
		}
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			return p.changeNode(ctx, session, asking, w)
		})
	}
	return command
}

func nodeSettingsQuery(p *program) query[*basev1.GetNodeSettingsResponse] {
	return query[*basev1.GetNodeSettingsResponse]{
		ask: func(ctx context.Context, session *client.Session) (*basev1.GetNodeSettingsResponse, error) {
			return session.Node.GetNodeSettings(ctx, &basev1.GetNodeSettingsRequest{})
		},
		show: func(answer *basev1.GetNodeSettingsResponse) error {
			if answer.GetSettings() == nil {
				return p.printf("This Base has no node. To give it one: bitbox-app node settings --program btcd --network signet\n")
			}
			table := p.table()
			for _, value := range nodeValues(answer.GetSettings()) {
				table.row(value.title, value.text)
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
		rows: func(answer *basev1.GetNodeSettingsResponse) [][]string {
			if answer.GetSettings() == nil {
				return [][]string{{"none", "", "", ""}}
			}
			values := nodeValues(answer.GetSettings())
			return [][]string{{values[0].text, values[1].text, values[2].text, values[3].text}}
		},
	}
}

// nodeValue is a setting in words.
type nodeValue struct{ field, title, text string }

func nodeValues(s *basev1.NodeSettings) []nodeValue {
	blocks, every := "all are kept", "none are made"
	if s.GetPruneGb() > 0 {
		blocks = fmt.Sprintf("the newest %d GB are kept", s.GetPruneGb())
	}
	if s.GetBlockEverySeconds() > 0 {
		every = "one is made every " + words.English.Duration(uint64(s.GetBlockEverySeconds()))
	}
	program := map[basev1.NodeSettings_Program]string{
		basev1.NodeSettings_PROGRAM_CORE: "Bitcoin Core", basev1.NodeSettings_PROGRAM_BTCD: "btcd"}[s.GetProgram()]
	values := []nodeValue{
		{"node.program", "Program", cmp.Or(program, "none")}, {"node.network", "Network", words.English.Network(s.GetNetwork())},
		{"node.prune", "Blocks", blocks}, {"node.cache", "Cache", fmt.Sprintf("%d MiB", s.GetCacheMib())},
	}
	if s.GetBlockEverySeconds() > 0 || s.GetNetwork() == basev1.Network_NETWORK_REGTEST {
		values = append(values, nodeValue{"node.block-every", "New blocks", every})
	}
	return values
}

// number reads a flag that is a number, or "off".
func number(flag, typed string, off bool) (uint32, error) {
	if off && typed == "off" {
		return 0, nil
	}
	n, err := strconv.ParseUint(typed, 10, 32)
	if err != nil || n == 0 {
		return 0, usageError{fmt.Errorf("--%s is %q, and must be a number", flag, client.Printable(typed))}
	}
	return uint32(n), nil
}

// over puts the flags over the settings that there are.
func (w wantedNode) over(now *basev1.NodeSettings) (*basev1.NodeSettings, error) {
	s := proto.CloneOf(now)
	if s == nil {
		s = &basev1.NodeSettings{CacheMib: usualCache}
	}
	var errs [4]error
	if w.program != "" {
		s.Program = basev1.NodeSettings_Program(basev1.NodeSettings_Program_value["PROGRAM_"+strings.ToUpper(w.program)])
		if s.Program == 0 {
			errs[0] = usageError{fmt.Errorf("there is no program %q; it is core or btcd", client.Printable(w.program))}
		}
	}
	if w.network != "" {
		s.Network = basev1.Network(basev1.Network_value["NETWORK_"+strings.ToUpper(w.network)])
		if s.Network == 0 {
			errs[1] = usageError{fmt.Errorf("there is no network %q; it is mainnet, testnet4, signet, regtest or simnet",
				client.Printable(w.network))}
		}
	}
	if w.prune != "" {
		s.PruneGb, errs[2] = number("prune", w.prune, true)
	}
	if w.cache != "" {
		s.CacheMib, errs[3] = number("cache", w.cache, false)
	}
	makes := s.Program == basev1.NodeSettings_PROGRAM_BTCD && s.Network == basev1.Network_NETWORK_REGTEST
	switch {
	case w.every == "off" || w.every == "" && !makes:
		s.BlockEverySeconds = 0
	case w.every != "":
		every, err := time.ParseDuration(w.every)
		if err != nil || every < time.Second || every > 24*time.Hour {
			return nil, usageError{errors.New("--block-every is a time from 1s to 24h, such as 20s")}
		}
		s.BlockEverySeconds = uint32(every / time.Second)
	}
	if s.Program == 0 || s.Network == 0 {
		errs[0] = cmp.Or(errs[0], errs[1], error(usageError{errors.New("this Base has no node yet; name a program and a network")}))
	}
	s.AcceptsBtcdOnMainnet = false
	return s, cmp.Or(errs[0], errs[1], errs[2], errs[3])
}

func (p *program) changeNode(ctx context.Context, session *client.Session, asking *consent, w wantedNode) error {
	p.left = nothingChanged
	before, err := session.Node.GetNodeSettings(ctx, &basev1.GetNodeSettingsRequest{})
	if err != nil {
		return err
	}
	wanted, err := w.over(before.GetSettings())
	if err != nil {
		return err
	}
	if wanted.GetProgram() == basev1.NodeSettings_PROGRAM_BTCD && wanted.GetNetwork() == basev1.Network_NETWORK_MAINNET {
		if err := p.acceptBtcd(ctx, asking, before.GetSettings(), w.confirm); err != nil {
			return err
		}
		wanted.AcceptsBtcdOnMainnet = true
	}
	if proto.Equal(wanted, before.GetSettings()) {
		return &client.Error{Kind: client.ErrNoChange, Text: "there is nothing to change: the node already has these settings"}
	}
	changes := nodeChanges(before.GetSettings(), wanted)
	if yes, err := asking.approve(ctx)(changes); err != nil || !yes {
		return approved(yes, err)
	}
	was, err := serviceOfNode(ctx, session)
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
	reason, err := p.nodeComesUp(ctx, session, was, wanted.GetNetwork())
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

// nodeChanges says what is different.
func nodeChanges(before, after *basev1.NodeSettings) (changes []client.PostureChange) {
	was := map[string]string{}
	for _, value := range nodeValues(before) {
		was[value.field] = value.text
	}
	for _, value := range nodeValues(after) {
		if before == nil {
			was[value.field] = "none"
		}
		if value.text != was[value.field] {
			changes = append(changes, client.PostureChange{Field: value.field, Before: was[value.field], After: value.text,
				Text: fmt.Sprintf("%s of the node: %s (before: %s).", value.title, value.text, cmp.Or(was[value.field], "none"))})
		}
	}
	return changes
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

// acceptBtcd has somebody who wants btcd on mainnet type what it is; once is enough.
func (p *program) acceptBtcd(ctx context.Context, asking *consent, before *basev1.NodeSettings, typed string) (err error) {
	if before.GetAcceptsBtcdOnMainnet() && before.GetNetwork() == basev1.Network_NETWORK_MAINNET {
		return nil
	}
	if typed == "" {
		if !asking.mayAsk() {
			return usageError{fmt.Errorf("btcd on mainnet needs a sentence that somebody types; to give it without being asked, add --confirm %q",
				btcdSentence)}
		}
		asking.listen()
		if err := p.printf("Nearly all of the network runs Bitcoin Core. A wallet on another implementation may see another chain,\n"+
			"as in 2022, when btcd stood still at two valid blocks. To use it on mainnet, type this sentence:\n%s\n> ", btcdSentence); err != nil {
			return err
		}
		if typed, err = nextLine(ctx, asking.lines, time.Now()); err != nil {
			return fmt.Errorf("ask for the sentence about btcd on mainnet: %w", err)
		}
	}
	if strings.TrimSpace(typed) != btcdSentence {
		return &client.Error{Kind: client.ErrNotApproved, Text: "that is not the sentence, so nothing was changed; take Bitcoin Core for mainnet"}
	}
	return nil
}

// serviceOfNode is the service of the node, as systemd knows it.
func serviceOfNode(ctx context.Context, session *client.Session) (*basev1.Service, error) {
	list, err := session.Services.ListServices(ctx, &basev1.ListServicesRequest{})
	for _, service := range list.GetServices() {
		if service.GetName() == nodeService {
			return service, err
		}
	}
	return nil, err
}

// nodeComesUp waits for the node to restart, and to answer on its network. Otherwise it returns why
// it does not, as far as the Base knows. was is its service before.
func (p *program) nodeComesUp(ctx context.Context, session *client.Session, was *basev1.Service, network basev1.Network) (reason string,
	err error) {
	p.waiting("Waiting for the node")
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	for {
		service, err := serviceOfNode(ctx, session)
		var n *basev1.Node
		// Before it has restarted, the old one answers.
		restarted := service.GetState() != basev1.Service_STATE_STOPPING && !proto.Equal(service.GetSince(), was.GetSince())
		if err == nil && restarted {
			var answer *basev1.GetNodeResponse
			answer, err = session.Node.GetNode(ctx, &basev1.GetNodeRequest{})
			n = answer.GetNode()
		}
		switch {
		case ctx.Err() != nil:
			return cmp.Or(reason, "it has not answered for "+duration(uint64(upTime/time.Second))), nil
		case client.Refused(err): // bitbox-node restarts, too
		case err != nil:
			return "", err
		case !restarted:
			reason = "it is still stopping"
		case service.GetState() == basev1.Service_STATE_FAILED:
			return "it did not start: " + cmp.Or(service.GetReason(), "its log says why"), nil
		case n.GetNetwork() == network && (n.GetState() == basev1.Node_STATE_CURRENT || n.GetState() == basev1.Node_STATE_BEHIND):
			return "", nil
		default:
			reason = cmp.Or(n.GetReason(), "it is "+words.English.NodeState(n))
		}
		select {
		case <-ctx.Done():
		case <-time.After(upEach):
		}
	}
}

package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// checkFirewall compares both live packet filters with the rendered rules, rule by rule. It reads
// only the filter tables; checkForeignTables finds any other.
func checkFirewall(ctx context.Context, system System, want Expectation) ([]difference, error) {
	policy, err := generation.FirewallFor(want.Posture, generation.ThisMachine())
	if err != nil {
		return nil, err
	}
	rules, err := firewall.Render(policy)
	if err != nil {
		return nil, err
	}
	accounts, err := readAccounts(system)
	if err != nil {
		return nil, err
	}
	var differences []difference
	var failures error
	for _, family := range []struct{ id, save, rules string }{
		{idFirewall4, iptables, rules.V4},
		{idFirewall6, ip6tables, rules.V6},
	} {
		live, err := ask(ctx, system, family.save, "-t", "filter")
		if err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		drift, err := firewall.Diff(family.rules, live, accounts.uid)
		failures = errors.Join(failures, err)
		var found []string
		for _, d := range drift {
			found = append(found, d.String())
		}
		if found != nil {
			differences = append(differences, difference{id: family.id, found: found})
		}
	}
	return differences, failures
}

var listRuleset = []string{nft, "-j", "list", "ruleset"}

// checkForeignTables looks for anything in nftables besides the packet filter and the bans.
// iptables-save would not show it.
func checkForeignTables(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	ruleset, err := ask(ctx, system, listRuleset...)
	if err != nil {
		return nil, err
	}
	foreign, err := firewall.ForeignTables([]byte(ruleset))
	if err != nil || foreign == nil {
		return nil, err
	}
	return []difference{{id: idForeign, found: foreign}}, nil
}

// legacyFamily is one half of the older packet filter.
type legacyFamily struct {
	// name is that of its programs, and the instance of legacyUnit.
	name string
	// tables is where the kernel lists its tables. The file is absent until a table is used.
	tables string
	set    string
	save   string
}

var legacyFamilies = []legacyFamily{
	{"iptables", "/proc/net/ip_tables_names", legacySet, legacy},
	{"ip6tables", "/proc/net/ip6_tables_names", legacySet6, legacy6},
}

// legacyUnit reads the rules outside the system helper's sandbox, which the older programs cannot
// run in: they need an internet socket. legacyOutput is the file they are written to.
func (f legacyFamily) legacyUnit() string { return "bitbox-base-legacy-rules@" + f.name + ".service" }

func (f legacyFamily) legacyOutput() string {
	return generation.RuntimeDirectory + "/" + f.name + "-legacy.rules"
}

// inUse tells whether there is any table. Usually there is none, and no unit has to be started.
func (f legacyFamily) inUse(system System) (bool, error) {
	tables, err := system.ReadFile(f.tables)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(tables) > 0, err
}

// checkLegacyRules looks for rules of the older packet filter. The kernel applies them too.
func checkLegacyRules(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	var found []string
	for _, family := range legacyFamilies {
		used, err := family.inUse(system)
		if err != nil {
			return nil, err
		}
		if !used {
			continue
		}
		if _, err := ask(ctx, system, systemctl, "start", family.legacyUnit()); err != nil {
			return nil, err
		}
		rules, err := system.ReadFile(family.legacyOutput())
		if err != nil {
			return nil, err
		}
		for _, line := range firewall.ForeignLegacy(string(rules)) {
			found = append(found, fmt.Sprintf("%s-legacy: %s", family.name, line))
		}
	}
	if found == nil {
		return nil, nil
	}
	return []difference{{id: idLegacy, found: found}}, nil
}

// nftFamilies are those of nft(8).
var nftFamilies = []string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}

// removeForeign removes foreign tables, foreign chains with a hook from our own tables, and the
// table of bans if it was changed; fail2ban makes that one again from its database. Everything is
// named by the kernel's number, so no name becomes an argument. Our own filter is never removed.
func removeForeign(ctx context.Context, system System, _ Expectation) error {
	ruleset, err := ask(ctx, system, listRuleset...)
	if err != nil {
		return err
	}
	removals, err := removalsOf([]byte(ruleset))
	if err != nil {
		return err
	}
	for _, argv := range removals {
		if _, err := ask(ctx, system, argv...); err != nil {
			return err
		}
	}
	// Anything that is still foreign is in the table of bans.
	rest, err := checkForeignTables(ctx, system, Expectation{})
	if err != nil || rest == nil {
		return err
	}
	// The table is already gone if it was not the foreign one; the audit that follows still finds
	// it.
	if _, err := system.Run(ctx, "", nft, "delete", "table", "inet", firewall.BanTable); err != nil {
		return err
	}
	return restart(generation.BansUnit)(ctx, system, Expectation{})
}

// removalsOf returns the commands that remove foreign tables and chains.
func removalsOf(ruleset []byte) ([][]string, error) {
	type object struct {
		Family, Table, Name, Hook string
		Handle                    uint64
	}
	var document struct {
		Objects []struct{ Table, Chain *object } `json:"nftables"`
	}
	if err := json.Unmarshal(ruleset, &document); err != nil {
		return nil, reason.Errorf("read the output of nft -j list ruleset: %w", err)
	}
	var removals [][]string
	for _, o := range document.Objects {
		var kind []string
		handle := uint64(0)
		switch {
		case o.Table != nil && !ownTable(o.Table.Family, o.Table.Name):
			kind, handle = []string{"table", o.Table.Family}, o.Table.Handle
		case o.Chain != nil && o.Chain.Table == filterTable && o.Chain.Hook != "" && ownTable(o.Chain.Family, filterTable) &&
			!slices.Contains([]string{"INPUT", "FORWARD", "OUTPUT"}, o.Chain.Name):
			kind, handle = []string{"chain", o.Chain.Family, filterTable}, o.Chain.Handle
		default:
			continue
		}
		if !slices.Contains(nftFamilies, kind[1]) || handle == 0 {
			return nil, reason.Errorf("remove a foreign %s: its family %q or its number is unknown; remove it with nft by hand", kind[0],
				printable(kind[1]))
		}
		argv := append([]string{nft, "delete"}, kind...)
		removals = append(removals, append(argv, "handle", strconv.FormatUint(handle, 10)))
	}
	return removals, nil
}

const filterTable = "filter"

func ownTable(family, name string) bool {
	switch family {
	case "ip", "ip6":
		return name == filterTable
	case "inet":
		return name == firewall.BanTable
	}
	return false
}

// flushLegacy empties the older packet filter. Its empty tables stay: only unloading the kernel
// module would remove them.
func flushLegacy(ctx context.Context, system System) error {
	for _, family := range legacyFamilies {
		used, err := family.inUse(system)
		if err != nil {
			return err
		}
		if !used {
			continue
		}
		rules, err := ask(ctx, system, family.save)
		if err != nil {
			return err
		}
		for table, chains := range legacyTables {
			if !hasLine(rules, "*"+table) {
				continue
			}
			commands := [][]string{{"-F"}, {"-X"}}
			for _, chain := range chains {
				if hasPrefixLine(rules, ":"+chain+" ") {
					commands = append(commands, []string{"-P", chain, "ACCEPT"})
				}
			}
			for _, command := range commands {
				if _, err := ask(ctx, system, append([]string{family.set, "-w", "5", "-t", table}, command...)...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// legacyTables are the tables of iptables(8) with their chains. An empty one gets the policy
// ACCEPT, which leaves the decision to our own filter.
var legacyTables = map[string][]string{
	"filter":   {"INPUT", "FORWARD", "OUTPUT"},
	"nat":      {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"raw":      {"PREROUTING", "OUTPUT"},
	"security": {"INPUT", "FORWARD", "OUTPUT"},
}

package firewall

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Difference is a line in which the live filter differs from the rendered one.
type Difference struct {
	// Line is a rule or a chain's policy, as iptables-save prints it.
	Line string
	// Missing tells that the line should be there and is not; otherwise it is there and should
	// not be.
	Missing bool
}

func (d Difference) String() string {
	if d.Missing {
		return "missing: " + d.Line
	}
	return "added: " + d.Line
}

var (
	uidOwner = regexp.MustCompile(`--uid-owner ([a-z_][a-z0-9_-]*)`)
	counters = regexp.MustCompile(`^(:\S+ \S+) \[\d+:\d+\]$`)
)

// Diff compares a rendered file with the output of iptables-save (or ip6tables-save) and returns
// the differences; nil means none. Order counts: a filter with the right rules in another order
// is another filter, and is reported. Tables other than "filter" are differences too.
//
// The live filter shows users by number; uid returns the number of a name.
func Diff(rendered, live string, uid func(name string) (int, error)) ([]Difference, error) {
	var failure error
	numbered := uidOwner.ReplaceAllStringFunc(rendered, func(match string) string {
		name := strings.TrimPrefix(match, "--uid-owner ")
		number, err := uid(name)
		if err != nil && failure == nil {
			failure = reason.Errorf("compare the packet filter: look up the user %s of a rule: %w", name, err)
		}
		return "--uid-owner " + strconv.Itoa(number)
	})
	if failure != nil {
		return nil, failure
	}
	want, got := significant(numbered), significant(live)
	if slices.Equal(want, got) {
		return nil, nil
	}
	var differences []Difference
	left := map[string]int{}
	for _, line := range got {
		left[line]++
	}
	for _, line := range want {
		if left[line] == 0 {
			differences = append(differences, Difference{Line: line, Missing: true})
			continue
		}
		left[line]--
	}
	for _, line := range got {
		if left[line] > 0 {
			differences = append(differences, Difference{Line: line})
			left[line]--
		}
	}
	if differences == nil {
		// The lines are the same: name the first that is out of place.
		for i := range want {
			if want[i] != got[i] {
				return []Difference{{Line: got[i] + "   (out of place: the order differs)"}}, nil
			}
		}
	}
	return differences, nil
}

// significant drops comments, empty lines and counters.
func significant(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		lines = append(lines, counters.ReplaceAllString(line, "$1"))
	}
	return lines
}

// Ban tables: those that fail2ban's nftables-multiport action makes.
const (
	BanTable  = "f2b-table"
	banFamily = "inet"
	banChain  = "f2b-chain"
)

// ForeignTables reads `nft -j list ruleset` and returns a sentence for each thing that is not
// ours: anything that could let packets past the filter or redirect them without showing in
// iptables-save. Ours are the tables behind iptables and ip6tables, and fail2ban's, which may
// only refuse.
func ForeignTables(ruleset []byte) ([]string, error) {
	var document struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(ruleset, &document); err != nil {
		return nil, reason.Errorf("read the output of nft -j list ruleset: %w", err)
	}
	if document.Objects == nil {
		return nil, reason.New("read the output of nft -j list ruleset: it has no list of objects")
	}
	var foreign []string
	for _, object := range document.Objects {
		for kind, raw := range object {
			sentence, err := foreignObject(kind, raw)
			if err != nil {
				return nil, err
			}
			if sentence != "" {
				foreign = append(foreign, sentence)
			}
		}
	}
	return foreign, nil
}

// nftObject has the common fields of the kinds of objects.
type nftObject struct {
	Family string                       `json:"family"`
	Table  string                       `json:"table"`
	Chain  string                       `json:"chain"`
	Name   string                       `json:"name"`
	Type   json.RawMessage              `json:"type"` // a set's may be a list
	Hook   string                       `json:"hook"`
	Prio   int                          `json:"prio"`
	Policy string                       `json:"policy"`
	Flags  json.RawMessage              `json:"flags"`
	Expr   []map[string]json.RawMessage `json:"expr"`
}

func foreignObject(kind string, raw json.RawMessage) (string, error) {
	if kind == "metainfo" {
		return "", nil
	}
	var o nftObject
	if err := json.Unmarshal(raw, &o); err != nil {
		return "", reason.Errorf("read the output of nft -j list ruleset: a %s: %w", kind, err)
	}
	table := o.Table
	if kind == "table" {
		table = o.Name
	}
	ban := o.Family == banFamily && table == BanTable
	filter := (o.Family == "ip" || o.Family == "ip6") && table == "filter"
	if !ban && !filter {
		if kind != "table" {
			return "", nil // reported once, with its table
		}
		return fmt.Sprintf("a foreign table: %s %s", o.Family, table), nil
	}
	where := fmt.Sprintf("%s %s %s", o.Family, table, o.Name)
	switch {
	case kind == "table":
		if dormant := string(o.Flags); dormant != "" {
			return fmt.Sprintf("the table %s %s has flags that switch it off: %s", o.Family, table, dormant), nil
		}
	case kind == "chain" && filter:
		// Chains without a hook, and all rules, show in iptables-save.
		expected := map[string]string{"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output"}
		if o.Hook != expected[o.Name] {
			return fmt.Sprintf("a foreign chain: %s at the hook %q", where, o.Hook), nil
		}
		if o.Hook != "" && (string(o.Type) != `"filter"` || o.Policy != "drop") {
			return fmt.Sprintf("the chain %s is of type %s with policy %s", where, o.Type, o.Policy), nil
		}
	case kind == "chain" && ban:
		if o.Name != banChain || o.Hook != "input" || string(o.Type) != `"filter"` || o.Policy != "accept" || o.Prio != -1 {
			return fmt.Sprintf("a foreign chain: %s at the hook %q", where, o.Hook), nil
		}
	case kind == "rule" && ban:
		if !refusesOnly(o.Expr) {
			return fmt.Sprintf("a rule in %s %s does more than refuse banned addresses", o.Family, table), nil
		}
	case kind == "set" && ban, kind == "rule" && filter:
	default:
		return fmt.Sprintf("a foreign %s: %s", kind, where), nil
	}
	return "", nil
}

// refusesOnly tells whether a rule only matches packets and drops or rejects them.
func refusesOnly(expressions []map[string]json.RawMessage) bool {
	refuses := false
	for _, expression := range expressions {
		for statement := range expression {
			switch statement {
			case "match", "counter":
			case "drop", "reject":
				refuses = true
			default:
				return false
			}
		}
	}
	return refuses
}

// ForeignLegacy reads the output of iptables-legacy-save or ip6tables-legacy-save and returns the
// lines that have an effect. The kernel applies that older filter in addition to ours; it must be
// empty.
func ForeignLegacy(save string) []string {
	var foreign []string
	for _, line := range significant(save) {
		chain := strings.HasPrefix(line, ":") && strings.HasSuffix(line, " ACCEPT")
		if !chain && !strings.HasPrefix(line, "*") && line != "COMMIT" {
			foreign = append(foreign, line)
		}
	}
	return foreign
}

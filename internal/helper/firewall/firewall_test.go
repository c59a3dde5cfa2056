package firewall_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

var policies = map[string]firewall.Policy{
	"closed": {Entry: 8845},
	"open": {
		Entry: 8845, Extra: []uint16{50002}, SSH: 22, Upstream: []uint16{8846, 50001},
		Egress: []firewall.Egress{{User: "debian-tor", Protocol: firewall.TCP}, {User: "bitcoin", Protocol: firewall.TCP, Port: 8333}},
	},
}

func TestRulesAreAsReviewed(t *testing.T) {
	for name, policy := range policies {
		rules, err := firewall.Render(policy)
		if err != nil {
			t.Fatal(err)
		}
		for suffix, got := range map[string]string{"iptables": rules.V4, "ip6tables": rules.V6} {
			file := filepath.Join("testdata", name+"."+suffix)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s differs; if that is meant, run go test -update and review it:\n%s", file, d)
			}
		}
	}
}

// refuseRest is a rule that decides whatever is left.
var refuseRest = regexp.MustCompile(`^-A \S+ -j (DROP|REJECT --reject-with \S+)$`)

// loopholes returns the lines that no policy may ever lead to. It knows
// nothing of how they are rendered.
func loopholes(rules string, p firewall.Policy) []string {
	open := append(slices.Clone(p.Extra), p.Entry)
	if p.SSH != 0 {
		open = append(open, p.SSH)
	}
	var inbound []string
	for _, port := range open {
		inbound = append(inbound, fmt.Sprintf(`-p tcp -m tcp --dport %d --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -m hashlimit .*`, port))
	}
	inbound = append(inbound,
		`-i lo`,
		`-m conntrack --ctstate RELATED,ESTABLISHED`,
		`(-s fe80::/10 )?-p (ipv6-)?icmp .*`,
		`-d 224\.0\.0\.1/32 -p igmp .*`,
		`-s fe80::/10 -d fe80::/10 -p udp -m udp --dport 546`,
		`-d (224\.0\.0\.251/32|ff02::fb/128) -p udp -m udp --dport 5353 .*`,
	)
	outbound := []string{
		`-o lo -p tcp -m owner --uid-owner www-data .*`,
		`-o lo`,
		`-m conntrack --ctstate RELATED,ESTABLISHED`,
		`-p ipv6-icmp .*`,
		`-d 224\.0\.0\.0/24 -p igmp`,
		`(-d \S+ )?-p (tcp|udp) -m owner --uid-owner [a-z_][a-z0-9_-]*( -m (tcp|udp) --dport \d+)?`,
	}
	accepted := regexp.MustCompile(`^-A INPUT (` + strings.Join(inbound, "|") + `) -j ACCEPT$|^-A OUTPUT (` + strings.Join(outbound, "|") + `) -j ACCEPT$`)
	harmless := regexp.MustCompile(`^(#.*|\*filter|COMMIT|:(INPUT|FORWARD|OUTPUT) DROP \[0:0\]|-A FORWARD -j DROP|-A (INPUT|OUTPUT) .*-j (DROP|REJECT --reject-with \S+))$`)
	strangersFriend := regexp.MustCompile(`--uid-owner (www-data|bitbox-base)\b.* -j ACCEPT$`)

	var found []string
	for line := range strings.Lines(rules) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.Contains(line, "--sport"), strings.Contains(line, "--source-port"):
			found = append(found, line)
		case strangersFriend.MatchString(line) && !strings.HasPrefix(line, "-A OUTPUT -o lo -p tcp"):
			found = append(found, line)
		case !accepted.MatchString(line) && !harmless.MatchString(line):
			found = append(found, line)
		}
	}
	for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		if !strings.Contains(rules, "\n:"+chain+" DROP ") {
			found = append(found, chain+" does not drop by default")
		}
		if all := regexp.MustCompile(`(?m)^-A `+chain+` .*$`).FindAllString(rules, -1); len(all) == 0 || !refuseRest.MatchString(all[len(all)-1]) {
			found = append(found, chain+" lets packets through while it is replaced")
		}
	}
	return found
}

func TestNoPolicyOpensMoreThanItNames(t *testing.T) {
	port := rapid.Uint16Range(1, 65535)
	rapid.Check(t, func(t *rapid.T) {
		open := rapid.SliceOfNDistinct(port, 1, 6, rapid.ID[uint16]).Draw(t, "open")
		policy := firewall.Policy{
			Entry: open[0], Extra: open[1:],
			Upstream: rapid.SliceOfN(port, 0, 4).Draw(t, "upstream"),
			Egress: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) firewall.Egress {
				return firewall.Egress{
					User:     rapid.StringMatching(`[a-v_][a-z0-9_-]{0,10}`).Draw(t, "user"),
					Protocol: rapid.SampledFrom([]firewall.Protocol{firewall.TCP, firewall.UDP}).Draw(t, "protocol"),
					Port:     rapid.Uint16().Draw(t, "port"),
				}
			}), 0, 4).Draw(t, "egress"),
		}
		if len(open) > 1 && rapid.Bool().Draw(t, "ssh") {
			policy.Extra, policy.SSH = open[2:], open[1]
		}
		rules, err := firewall.Render(policy)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{rules.V4, rules.V6} {
			if found := loopholes(text, policy); found != nil {
				t.Fatalf("%+v leads to:\n%s", policy, strings.Join(found, "\n"))
			}
		}
	})
}

// The search for loopholes must be able to find one.
func TestLoopholesAreFound(t *testing.T) {
	policy := policies["closed"]
	rules, err := firewall.Render(policy)
	if err != nil {
		t.Fatal(err)
	}
	if found := loopholes(rules.V4, policy); found != nil {
		t.Fatalf("found in good rules: %q", found)
	}
	for name, broken := range map[string]string{
		"source port":     strings.Replace(rules.V4, "COMMIT", "-A INPUT -p tcp -m tcp --sport 9001 -j ACCEPT\nCOMMIT", 1),
		"other port":      strings.Replace(rules.V4, "COMMIT", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT", 1),
		"everything":      strings.Replace(rules.V4, "COMMIT", "-A INPUT -j ACCEPT\nCOMMIT", 1),
		"no last rule":    strings.Replace(rules.V4, "-A INPUT -j DROP\n", "", 1),
		"nothing routed":  strings.Replace(rules.V4, "-A FORWARD -j DROP\n", "", 1),
		"default accept":  strings.Replace(rules.V4, ":INPUT DROP", ":INPUT ACCEPT", 1),
		"no limit":        regexp.MustCompile(`-m hashlimit .*tcp8845`).ReplaceAllString(rules.V4, ""),
		"stray packets":   strings.Replace(rules.V4, "--tcp-flags FIN,SYN,RST,ACK SYN -m conntrack", "-m conntrack", 1),
		"proxy goes out":  strings.Replace(rules.V4, "COMMIT", "-A OUTPUT -p tcp -m owner --uid-owner www-data -j ACCEPT\nCOMMIT", 1),
		"routed packets":  strings.Replace(rules.V4, "COMMIT", "-A FORWARD -j ACCEPT\nCOMMIT", 1),
		"everybody sends": strings.Replace(rules.V4, "COMMIT", "-A OUTPUT -p tcp -j ACCEPT\nCOMMIT", 1),
	} {
		if broken == rules.V4 {
			t.Fatalf("%s: the rules were not broken", name)
		}
		if loopholes(broken, policy) == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

func TestImpossiblePoliciesAreRefused(t *testing.T) {
	for name, policy := range map[string]firewall.Policy{
		"no entry":          {},
		"entry twice":       {Entry: 8845, Extra: []uint16{8845}},
		"SSH on the entry":  {Entry: 22, SSH: 22},
		"port 0":            {Entry: 8845, Extra: []uint16{0}},
		"upstream 0":        {Entry: 8845, Upstream: []uint16{0}},
		"proxy goes out":    {Entry: 8845, Egress: []firewall.Egress{{User: "www-data", Protocol: firewall.TCP, Port: 443}}},
		"Middleware too":    {Entry: 8845, Egress: []firewall.Egress{{User: "bitbox-base", Protocol: firewall.TCP, Port: 443}}},
		"root":              {Entry: 8845, Egress: []firewall.Egress{{User: "root", Protocol: firewall.TCP, Port: 443}}},
		"no user":           {Entry: 8845, Egress: []firewall.Egress{{Protocol: firewall.TCP, Port: 443}}},
		"a rule as user":    {Entry: 8845, Egress: []firewall.Egress{{User: "root -j ACCEPT\n-A INPUT", Protocol: firewall.TCP, Port: 443}}},
		"a number as user":  {Entry: 8845, Egress: []firewall.Egress{{User: "0", Protocol: firewall.TCP, Port: 443}}},
		"unknown transport": {Entry: 8845, Egress: []firewall.Egress{{User: "tor", Protocol: "all", Port: 443}}},
	} {
		if rules, err := firewall.Render(policy); err == nil {
			t.Errorf("%s: rendered\n%s", name, rules.V4)
		}
	}
}

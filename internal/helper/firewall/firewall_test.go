package firewall_test

import (
	"flag"
	"fmt"
	"net/netip"
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

var update = flag.Bool("update", false, "rewrite the golden files")

var policies = map[string]firewall.Policy{
	"closed": {Entry: 8845},
	"open": {
		Entry: 8845, Extra: []firewall.Extra{{Port: 50002}}, SSH: 22, Upstream: []uint16{8846, 50001},
		Egress: []firewall.Egress{
			{User: "debian-tor", Protocol: firewall.TCP}, {User: "bitcoin", Protocol: firewall.TCP, Port: 8333},
			{User: "lightning", Protocol: firewall.TCP}, {User: "lightning", Protocol: firewall.TCP, Home: true},
		},
	},
	"limited": {Entry: 8845, Extra: []firewall.Extra{
		{Port: 50002, From: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00::/64")}},
		{Port: 50004, From: []netip.Prefix{netip.MustParsePrefix("192.168.1.7/32")}},
	}},
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

// refuseRest is a rule that decides about everything that is left.
var refuseRest = regexp.MustCompile(`^-A \S+ -j (DROP|REJECT --reject-with \S+)$`)

// home are the addresses of private networks and of links.
const home = `(10\.0\.0\.0/8|172\.16\.0\.0/12|192\.168\.0\.0/16|169\.254\.0\.0/16|fc00::/7|fe80::/10)`

// unicastAnswer is the only rule that matches a source port: Avahi's own, of outgoing packets.
const unicastAnswer = `-d ` + home + ` -p udp -m owner --uid-owner avahi -m udp --sport 5353 -m hashlimit --hashlimit-upto 10/sec --hashlimit-burst 20 --hashlimit-mode dstip --hashlimit-name mdnsanswer`

var isUnicastAnswer = regexp.MustCompile(`^-A OUTPUT ` + unicastAnswer + ` -j ACCEPT$`)

// watchersQuestion is all that the node's watcher, and the server for wallets, may send.
const watchersQuestion = `-d 127\.0\.0\.1/32 -o lo -p tcp -m owner --uid-owner (bitbox-node|bitbox-electrum) -m conntrack --ctstate NEW ` +
	`-m tcp --dport (8332|8333)`

var isWatchersQuestion = regexp.MustCompile(`^-A OUTPUT ` + watchersQuestion + ` -j ACCEPT$`)

// globalLimit matches a limit that all senders share, so one of them can use it up.
var globalLimit = regexp.MustCompile(` -m limit `)

// loopholes returns the lines that no policy may ever produce. It does not know how they are
// rendered.
func loopholes(rules string, p firewall.Policy) []string {
	open := append(slices.Clone(p.Extra), firewall.Extra{Port: p.Entry})
	if p.SSH != 0 {
		open = append(open, firewall.Extra{Port: p.SSH})
	}
	var inbound []string
	for _, extra := range open {
		sources := []string{""}
		for i, network := range extra.From {
			sources = append(sources[:i], fmt.Sprintf("-s %s ", regexp.QuoteMeta(network.String())))
		}
		inbound = append(inbound, fmt.Sprintf(`(%s)-p tcp -m tcp --dport %d --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -m hashlimit .*`,
			strings.Join(sources, "|"), extra.Port))
	}
	inbound = append(inbound,
		`-i lo`,
		`-m conntrack --ctstate RELATED,ESTABLISHED`,
		`(-s fe80::/10 )?-p (ipv6-)?icmp .*`,
		`-d 224\.0\.0\.(1|251)/32 -p 2`,
		`-d fe80::/10 -p udp -m udp --dport 546 -m hashlimit .*`,
		`-d (224\.0\.0\.251/32|ff02::fb/128) -p udp -m udp --dport 5353 .*`,
	)
	outbound := []string{
		`-o lo -p tcp -m owner --uid-owner www-data .*`,
		`-o lo`,
		`-m conntrack --ctstate RELATED,ESTABLISHED`,
		`-p ipv6-icmp .*`,
		`-d 224\.0\.0\.0/24 -p 2`,
		`(-d \S+ )?-p (tcp|udp) -m owner --uid-owner [a-z_][a-z0-9_-]* -m (tcp|udp) --dport \d+`,
		`(-d 127\.0\.0\.53/32 )?-o lo -p (tcp|udp) -m owner --uid-owner [a-z_][a-z0-9_-]* -m (tcp|udp) --dport 53`,
		unicastAnswer,
		watchersQuestion,
	}
	accepted := regexp.MustCompile(`^-A INPUT (` + strings.Join(inbound, "|") + `) -j ACCEPT$|^-A OUTPUT (` + strings.Join(outbound, "|") +
		`) -j ACCEPT$|` +
		`^-A OUTPUT -p (tcp|udp) -m owner --uid-owner [a-z_][a-z0-9_-]* -j (INTERNET|HOME)$|^-A HOME -d ` + home +
		` -j ACCEPT$|^-A INTERNET -j ACCEPT$`)
	harmless := regexp.MustCompile(`^(#.*|\*filter|COMMIT|:(INPUT|FORWARD|OUTPUT) DROP \[0:0\]|:(HOME|INTERNET) - \[0:0\]|-A FORWARD -j DROP|-A (INPUT|OUTPUT|INTERNET) .*-j (DROP|REJECT --reject-with \S+))$`)
	strangersFriend := regexp.MustCompile(`--uid-owner (www-data|bitbox-base|bitbox-node|bitbox-electrum) .* -j (ACCEPT|INTERNET|HOME)$`)

	var found []string
	for line := range strings.Lines(rules) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case (strings.Contains(line, "--sport") || strings.Contains(line, "--source-port")) && !isUnicastAnswer.MatchString(line):
			found = append(found, line)
		case globalLimit.MatchString(line):
			found = append(found, line)
		case strangersFriend.MatchString(line) && !strings.HasPrefix(line, "-A OUTPUT -o lo -p tcp -m owner --uid-owner www-data ") &&
			!isWatchersQuestion.MatchString(line):
			found = append(found, line)
		case !accepted.MatchString(line) && !harmless.MatchString(line):
			found = append(found, line)
		}
	}
	beforeLoopback, _, _ := strings.Cut(rules, "-A OUTPUT -o lo -j ACCEPT\n")
	for _, protocol := range []string{"tcp", "udp"} {
		if !strings.Contains(beforeLoopback, fmt.Sprintf("\n-A OUTPUT -o lo -p %s -m conntrack --ctstate NEW -m %[1]s --dport 53 -j REJECT",
			protocol)) {
			found = append(found, "everybody may ask the resolver, by "+protocol)
		}
	}
	for _, user := range []string{"bitcoin", "bitbox-node", "bitbox-electrum"} {
		if !strings.Contains(beforeLoopback, "\n-A OUTPUT -o lo -m owner --uid-owner "+user+" -m conntrack --ctstate NEW -j REJECT") {
			found = append(found, user+" reaches all of loopback")
		}
	}
	before, _, _ := strings.Cut(rules, "\n-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n")
	if !strings.Contains(before, "\n-A OUTPUT -p tcp -m owner --uid-owner bitcoin -j REJECT ") {
		found = append(found, "the node keeps connections that it may no longer have")
	}
	for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		if !strings.Contains(rules, "\n:"+chain+" DROP ") {
			found = append(found, chain+" does not drop by default")
		}
		if all := regexp.MustCompile(`(?m)^-A `+chain+` .*$`).FindAllString(rules, -1); len(all) == 0 ||
			!refuseRest.MatchString(all[len(all)-1]) {
			found = append(found, chain+" lets packets through while it is replaced")
		}
	}
	return append(found, waysHome(rules)...)
}

// waysHome returns which addresses outside the internet the chain for the internet lets through.
// It evaluates the rules packet by packet, as the kernel does.
func waysHome(rules string) (found []string) {
	chain := regexp.MustCompile(`(?m)^-A INTERNET(?: -d (\S+))? -j (\S+)`).FindAllStringSubmatch(rules, -1)
	if len(chain) == 0 {
		return nil
	}
	verdict := func(to netip.Addr) string {
		for _, rule := range chain {
			if rule[1] == "" || netip.MustParsePrefix(rule[1]).Contains(to) {
				return rule[2]
			}
		}
		return ""
	}
	for _, to := range []string{
		"10.1.2.3", "172.31.255.1", "192.168.1.1", "169.254.9.9", "100.64.0.1", "100.127.255.254", "0.0.0.1", "224.0.0.251", "239.255.255.250",
		"255.255.255.255",
		"fe80::1", "fd00::1", "fc00::1", "ff02::fb", "::1", "::ffff:192.168.1.1", "64:ff9b::c0a8:101", "fec0::1",
	} {
		address := netip.MustParseAddr(to)
		if sameFamily := address.Is6() == strings.Contains(rules, "ipv6-icmp"); sameFamily && verdict(address) != "REJECT" {
			found = append(found, "the internet includes "+to)
		}
	}
	for _, to := range []string{"1.1.1.1", "172.32.0.1", "192.169.0.1", "100.128.0.1", "2001:4860::8", "2a00::1"} {
		address := netip.MustParseAddr(to)
		if sameFamily := address.Is6() == strings.Contains(rules, "ipv6-icmp"); sameFamily && verdict(address) != "ACCEPT" {
			found = append(found, "the internet does not include "+to)
		}
	}
	return found
}

func TestNoPolicyOpensMoreThanItNames(t *testing.T) {
	port := rapid.Uint16Range(1, 65535)
	rapid.Check(t, func(t *rapid.T) {
		open := rapid.SliceOfNDistinct(port, 1, 6, rapid.ID[uint16]).Draw(t, "open")
		policy := firewall.Policy{
			Entry:    open[0],
			Upstream: rapid.SliceOfN(port, 0, 4).Draw(t, "upstream"),
			Egress: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) firewall.Egress {
				e := firewall.Egress{
					User:     rapid.StringMatching(`[a-v_][a-z0-9_-]{0,10}`).Draw(t, "user"),
					Protocol: rapid.SampledFrom([]firewall.Protocol{firewall.TCP, firewall.UDP}).Draw(t, "protocol"),
					Port:     rapid.SampledFrom([]uint16{0, 53, 8333}).Draw(t, "port"),
				}
				e.Home = e.Port == 0 && rapid.Bool().Draw(t, "home")
				return e
			}), 0, 4).Draw(t, "egress"),
		}
		open = open[1:]
		if len(open) > 0 && rapid.Bool().Draw(t, "ssh") {
			policy.SSH, open = open[0], open[1:]
		}
		for _, port := range open {
			from := rapid.SliceOfN(rapid.SampledFrom(policies["limited"].Extra[0].From), 0, 2).Draw(t, "from")
			policy.Extra = append(policy.Extra, firewall.Extra{Port: port, From: from})
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
	policy := policies["open"]
	rules, err := firewall.Render(policy)
	if err != nil {
		t.Fatal(err)
	}
	if found := append(loopholes(rules.V4, policy), loopholes(rules.V6, policy)...); found != nil {
		t.Fatalf("found in good rules: %q", found)
	}
	home := policies["limited"]
	limited, err := firewall.Render(home)
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string]string{
		"every network":          strings.ReplaceAll(limited.V4, "-s 192.168.1.0/24 ", ""),
		"another network":        strings.ReplaceAll(limited.V4, "-s 192.168.1.0/24 ", "-s 192.168.0.0/16 "),
		"every network, by IPv6": strings.ReplaceAll(limited.V6, "-s fd00::/64 ", ""),
		"a port that no network of IPv6 reaches": strings.Replace(limited.V6, "COMMIT",
			strings.ReplaceAll(regexp.MustCompile(`(?m)^-A INPUT .*tcp50002.*\n`).FindString(limited.V6), "50002", "50004")+"COMMIT", 1),
	} {
		if broken == limited.V4 || broken == limited.V6 {
			t.Fatalf("%s: the rules were not broken", name)
		}
		if loopholes(broken, home) == nil {
			t.Errorf("%s: not found", name)
		}
	}
	for name, broken := range map[string]string{
		"source port":    strings.Replace(rules.V4, "COMMIT", "-A INPUT -p tcp -m tcp --sport 9001 -j ACCEPT\nCOMMIT", 1),
		"other port":     strings.Replace(rules.V4, "COMMIT", "-A INPUT -p tcp -m tcp --dport 23 -j ACCEPT\nCOMMIT", 1),
		"everything":     strings.Replace(rules.V4, "COMMIT", "-A INPUT -j ACCEPT\nCOMMIT", 1),
		"no last rule":   strings.Replace(rules.V4, "-A INPUT -j DROP\n", "", 1),
		"nothing routed": strings.Replace(rules.V4, "-A FORWARD -j DROP\n", "", 1),
		"default accept": strings.Replace(rules.V4, ":INPUT DROP", ":INPUT ACCEPT", 1),
		"no limit":       regexp.MustCompile(`-m hashlimit .*tcp8845`).ReplaceAllString(rules.V4, ""),
		"stray packets":  strings.Replace(rules.V4, "--tcp-flags FIN,SYN,RST,ACK SYN -m conntrack", "-m conntrack", 1),
		"proxy goes out": strings.Replace(rules.V4, "COMMIT",
			"-A OUTPUT -p tcp -m owner --uid-owner www-data -j ACCEPT\nCOMMIT", 1),
		"the watcher goes out": strings.Replace(rules.V4, "COMMIT",
			"-A OUTPUT -p tcp -m owner --uid-owner bitbox-node -m tcp --dport 443 -j ACCEPT\nCOMMIT", 1),
		"the watcher asks anybody here": strings.Replace(rules.V4, "-d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner bitbox-node",
			"-o lo -p tcp -m owner --uid-owner bitbox-node", 1),
		"the node asks anybody here": regexp.MustCompile(`(?m)^-A OUTPUT -o lo -m owner --uid-owner bitcoin .*\n`).ReplaceAllString(rules.V4, ""),
		"the node keeps its connections": regexp.MustCompile(`(?m)^-A OUTPUT -p tcp -m owner --uid-owner bitcoin -j REJECT .*\n`).ReplaceAllString(
			rules.V4, ""),
		"routed packets": strings.Replace(rules.V4, "COMMIT", "-A FORWARD -j ACCEPT\nCOMMIT", 1),
		"a private network counts as internet": strings.Replace(rules.V4,
			"-A INTERNET -d 172.16.0.0/12 -j REJECT --reject-with icmp-port-unreachable\n", "", 1),
		"a shared range counts as internet": strings.Replace(rules.V4,
			"-A INTERNET -d 100.64.0.0/10 -j REJECT --reject-with icmp-port-unreachable\n", "", 1),
		"a service goes everywhere": strings.Replace(rules.V4, "-m owner --uid-owner debian-tor -j INTERNET",
			"-m owner --uid-owner debian-tor -j ACCEPT", 1),
		"home is everywhere": strings.Replace(rules.V4, "-A HOME -d 10.0.0.0/8 -j ACCEPT", "-A HOME -j ACCEPT", 1),
		"answers to everybody": strings.Replace(rules.V4, "-A OUTPUT -d 10.0.0.0/8 -p udp -m owner --uid-owner avahi",
			"-A OUTPUT -p udp -m owner --uid-owner avahi", 1),
		"answers of everybody": strings.Replace(rules.V4, "-A OUTPUT -d 10.0.0.0/8 -p udp -m owner --uid-owner avahi",
			"-A OUTPUT -d 10.0.0.0/8 -p udp", 1),
		"a neighbour uses a limit up": strings.Replace(rules.V4, "-p 2 -j ACCEPT", "-p 2 -m limit --limit 10/sec -j ACCEPT", 1),
		"names for all": regexp.MustCompile(`(?m)^-A OUTPUT -o lo -p udp .*--dport 53 -j REJECT.*\n`).ReplaceAllString(
			rules.V4, ""),
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
		"no entry":           {},
		"entry twice":        {Entry: 8845, Extra: []firewall.Extra{{Port: 8845}}},
		"SSH on the entry":   {Entry: 22, SSH: 22},
		"port 0":             {Entry: 8845, Extra: []firewall.Extra{{Port: 0}}},
		"host bits":          {Entry: 8845, Extra: []firewall.Extra{{Port: 50002, From: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}}},
		"no network":         {Entry: 8845, Extra: []firewall.Extra{{Port: 50002, From: []netip.Prefix{{}}}}},
		"IPv4 as IPv6":       {Entry: 8845, Extra: []firewall.Extra{{Port: 50002, From: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}}},
		"upstream 0":         {Entry: 8845, Upstream: []uint16{0}},
		"proxy goes out":     {Entry: 8845, Egress: []firewall.Egress{{User: "www-data", Protocol: firewall.TCP, Port: 443}}},
		"Middleware too":     {Entry: 8845, Egress: []firewall.Egress{{User: "bitbox-base", Protocol: firewall.TCP, Port: 443}}},
		"the watcher too":    {Entry: 8845, Egress: []firewall.Egress{{User: "bitbox-node", Protocol: firewall.TCP, Port: 443}}},
		"root":               {Entry: 8845, Egress: []firewall.Egress{{User: "root", Protocol: firewall.TCP, Port: 443}}},
		"no user":            {Entry: 8845, Egress: []firewall.Egress{{Protocol: firewall.TCP, Port: 443}}},
		"a rule as user":     {Entry: 8845, Egress: []firewall.Egress{{User: "root -j ACCEPT\n-A INPUT", Protocol: firewall.TCP, Port: 443}}},
		"a number as user":   {Entry: 8845, Egress: []firewall.Egress{{User: "0", Protocol: firewall.TCP, Port: 443}}},
		"a port of the home": {Entry: 8845, Egress: []firewall.Egress{{User: "tor", Protocol: firewall.TCP, Port: 443, Home: true}}},
		"unknown transport":  {Entry: 8845, Egress: []firewall.Egress{{User: "tor", Protocol: "all", Port: 443}}},
	} {
		if rules, err := firewall.Render(policy); err == nil {
			t.Errorf("%s: rendered\n%s", name, rules.V4)
		}
	}
}

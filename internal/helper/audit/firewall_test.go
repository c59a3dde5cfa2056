package audit

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func nftAlso(object string) func(*testing.T, *fake) {
	return func(t *testing.T, f *fake) { f.replace(t, "]}}]}", "]}},"+object+"]}", listRuleset...) }
}

func TestAnotherPacketFilterIsFound(t *testing.T) {
	find(t, map[string]attack{
		"IPv4 opened": {func(t *testing.T, f *fake) {
			f.replace(t, "COMMIT", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT", iptables, "-t", "filter")
		}, []string{idFirewall4}},
		"IPv6 policy": {func(t *testing.T, f *fake) {
			f.replace(t, ":INPUT DROP", ":INPUT ACCEPT", ip6tables, "-t", "filter")
		}, []string{idFirewall6}},
		"gone": {func(_ *testing.T, f *fake) { f.print("", iptables, "-t", "filter") }, []string{idFirewall4}},
		"the user match of a rule is gone": {func(_ *testing.T, f *fake) {
			f.files["/etc/passwd"] = strings.Replace(f.files["/etc/passwd"], "_apt:", "other:", 1)
		}, []string{"unchecked-firewall"}},
		"a redirect": {nftAlso(`{"table": {"family": "ip", "name": "nat", "handle": 9}}`), []string{idForeign}},
		"older rules": {func(_ *testing.T, f *fake) {
			f.files["/proc/net/ip6_tables_names"] = "filter\n"
			f.print("", systemctl, "start", "bitbox-base-legacy-rules@ip6tables.service")
			f.files["/run/bitbox-base/ip6tables-legacy.rules"] = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"
		}, []string{idLegacy}},
		"an empty older table": {func(_ *testing.T, f *fake) {
			f.files["/proc/net/ip_tables_names"] = "filter\n"
			f.print("", systemctl, "start", "bitbox-base-legacy-rules@iptables.service")
			f.files["/run/bitbox-base/iptables-legacy.rules"] = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
		}, []string{}},
		"older rules that cannot be read": {func(_ *testing.T, f *fake) {
			f.files["/proc/net/ip_tables_names"] = "filter\n"
		}, []string{"unchecked-legacy-rules"}},
	})
}

// Anybody who makes a table chooses its name. Only the kernel's numbers and a known family become
// arguments.
func TestForeignTablesAreRemovedByNumber(t *testing.T) {
	for name, c := range map[string]struct {
		object string
		want   []string
	}{
		"a table": {`{"table": {"family": "inet", "name": "x; flush ruleset", "handle": 9}}`,
			[]string{nft, "delete", "table", "inet", "handle", "9"}},
		"a chain of ours": {`{"chain": {"family": "ip", "table": "filter", "name": "evil", "handle": 12, "hook": "prerouting"}}`,
			[]string{nft, "delete", "chain", "ip", "filter", "handle", "12"}},
		"our own filter":    {`{"table": {"family": "ip6", "name": "filter", "handle": 9}}`, nil},
		"our own chain":     {`{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 12, "hook": "input"}}`, nil},
		"the bans":          {`{"table": {"family": "inet", "name": "f2b-table", "handle": 9}}`, nil},
		"an unknown family": {`{"table": {"family": "-f /etc/x", "name": "x", "handle": 9}}`, nil},
		"no number":         {`{"table": {"family": "ip", "name": "x"}}`, nil},
	} {
		got, _ := removalsOf([]byte(`{"nftables": [` + c.object + `]}`))
		if c.want == nil && len(got) > 0 || c.want != nil && (len(got) != 1 || !slices.Equal(got[0], c.want)) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := removalsOf([]byte("nonsense")); err == nil {
		t.Error("nonsense was parsed as an empty list")
	}
}

func TestOlderRulesAreFlushedTableByTable(t *testing.T) {
	f := base(t)
	f.files["/proc/net/ip_tables_names"] = "filter\n"
	f.print("*filter\n:INPUT DROP [0:0]\n:evil - [0:0]\n-A INPUT -j evil\nCOMMIT\n", legacy)
	f.obeys = func(string) bool { return true }
	if err := flushLegacy(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	want := []string{
		legacy, legacySet + " -w 5 -t filter -F", legacySet + " -w 5 -t filter -X", legacySet + " -w 5 -t filter -P INPUT ACCEPT",
	}
	if !slices.Equal(f.ran, want) {
		t.Errorf("ran\n%s", strings.Join(f.ran, "\n"))
	}
}

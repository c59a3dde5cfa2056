package repository_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// limits are the rows of docs/limits.md without their last column, made of the code's
// constants.
func limits(t *testing.T) []string {
	rate := func(perSecond, burst int) string { return fmt.Sprintf("%d a second, %d at once", perSecond, burst) }
	number := func(n int) string { return fmt.Sprint(n) }
	minutes := func(d time.Duration) string { return fmt.Sprintf("%d minutes", d/time.Minute) }
	a, bans := admission.DefaultLimits(), posture.Factory().Bans
	starts := ""
	for _, setting := range sshaccess.Settings(sshaccess.Config{}) {
		if setting.Keyword == "PerSourceMaxStartups" {
			starts = setting.Value
		}
	}
	if bans.BanTime != time.Hour {
		t.Errorf("a ban lasts %v; the table says 1 hour", bans.BanTime)
	}
	rows := [][3]string{
		{"iptables", "TCP connections of one address to one port", number(firewall.HeldConnections)},
		{"iptables", "new TCP connections of one address to one port", rate(firewall.NewPerSecond, firewall.NewBurst)},
		{"iptables", "TCP connections of one address to SSH", number(firewall.SSHHeldConnections)},
		{"iptables", "new TCP connections of one address to SSH", fmt.Sprintf("%d a minute", firewall.SSHNewPerMinute)},
		{"iptables", "mDNS questions of one source (IPv6: one single address)", rate(firewall.MDNSPerSecond, firewall.MDNSBurst)},
		{"iptables", "unicast mDNS answers to one host", rate(firewall.MDNSAnswersPerSecond, firewall.MDNSAnswersBurst)},
		{"iptables", "echo requests of one source (IPv6: one single address)", rate(firewall.PingPerSecond, firewall.PingBurst)},
		{"iptables", "DHCPv6 messages of one source (one single address)", rate(firewall.DHCPv6PerSecond, firewall.DHCPv6Burst)},
		{"NGINX", "connections of one IP address to one port", number(proxy.HeldConnections)},
		{"NGINX", "connections of one worker, two for each client", number(proxy.WorkerConnections)},
		{"admission", "new connections of one address", rate(int(a.PerSecond), a.Burst)},
		{"admission", "connections of one address that have not authenticated", number(a.ParkedPerAddress)},
		{"admission", fmt.Sprintf("… after %d failures that count within %s", a.SlowAfter, minutes(a.SlowWindow)), number(a.SlowedPlaces)},
		{"admission", "connections that have not authenticated, of all addresses", number(a.Parked)},
		{"admission", "time until the first record", fmt.Sprintf("%d seconds", a.Handshake/time.Second)},
		{"admission", "handshakes computed at once", number(a.Computing)},
		{"admission", fmt.Sprintf("addresses that one App makes acquainted, for %d days", registry.AcquaintedTime/(24*time.Hour)),
			number(registry.MaxAcquainted)},
		{"authority", "P1 that one claim answers, each once, until a restart", number(pairing.MaxClaims)},
		{"fail2ban", fmt.Sprintf("failures that count within %s (the owner can change both)", minutes(bans.Window)), number(int(bans.MaxTries))},
		{"fail2ban", "bans of one jail that are listed", number(bruteforce.MaxBans)},
		{"sshd", "connections of one address that have not logged in", starts},
		{"App", fmt.Sprintf("handshakes in %s with an address at which the Base stays silent", minutes(client.SilenceWindow)),
			number(client.MaxSilences)},
	}
	var list []string
	for _, row := range rows {
		list = append(list, "| "+strings.Join(row[:], " | "))
	}
	return list
}

func TestTheTableOfLimitsIsTheCodes(t *testing.T) {
	page, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| --- | --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var told []string
	for _, row := range regexp.MustCompile(`(?m)^(.*?) \|[^|]*\|$`).FindAllStringSubmatch(table, -1) {
		told = append(told, row[1])
	}
	if d := cmp.Diff(limits(t), told); d != "" {
		t.Errorf("docs/limits.md (+) is not what the code does (-):\n%s", d)
	}
	// By default an address is slowed down by the failure that bans it, and not later.
	if a, bans := admission.DefaultLimits(), posture.Factory().Bans; a.SlowAfter != int(bans.MaxTries) || a.SlowWindow != bans.Window {
		t.Errorf("an address is slowed down after %d failures in %v, and banned after %d in %v", a.SlowAfter, a.SlowWindow, bans.MaxTries,
			bans.Window)
	}
}

package bruteforce

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Ban is one address that is blocked.
type Ban struct {
	Jail string
	Addr netip.Addr
	// Since and Until are wall-clock times of the Base.
	Since, Until time.Time
}

// Counts are a jail's figures since fail2ban started.
type Counts struct {
	CurrentlyFailed, TotalFailed int
	CurrentlyBanned, TotalBanned int
}

// Arguments of fail2ban-client.

// BansArguments lists the bans of a jail with their times, for ParseBans.
func BansArguments(jail string) []string { return []string{"get", jail, "banip", "--with-time"} }

// StatusArguments asks for a jail's figures, for ParseCounts.
func StatusArguments(jail string) []string { return []string{"status", jail} }

// LiftArguments lifts every ban of an address, in all jails and for good.
func LiftArguments(addr netip.Addr) []string { return []string{"unban", addr.Unmap().String()} }

// banTime is how fail2ban prints times, in the time zone of its process; its
// unit sets that to UTC.
const banTime = "2006-01-02 15:04:05"

// ParseBans reads what fail2ban-client prints for BansArguments: one ban a line,
//
//	10.0.0.9 	2026-11-22 20:39:34 + 3600 = 2026-11-22 21:39:34
func ParseBans(jail, output string) ([]Ban, error) {
	var bans []Ban
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		ban, err := parseBan(jail, line)
		if err != nil {
			return nil, fmt.Errorf("read the bans of jail %s from the line %q: %w", jail, line, err)
		}
		bans = append(bans, ban)
	}
	return bans, nil
}

func parseBan(jail, line string) (Ban, error) {
	address, rest, _ := strings.Cut(line, " ")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return Ban{}, err
	}
	begin, rest, found := strings.Cut(strings.TrimSpace(rest), " + ")
	if !found {
		return Ban{}, fmt.Errorf("no time of the ban in it")
	}
	since, err := time.Parse(banTime, begin)
	if err != nil {
		return Ban{}, err
	}
	length, _, _ := strings.Cut(rest, " ")
	seconds, err := strconv.ParseInt(length, 10, 32)
	if err != nil {
		return Ban{}, err
	}
	return Ban{Jail: jail, Addr: addr, Since: since, Until: since.Add(time.Duration(seconds) * time.Second)}, nil
}

// ParseCounts reads what fail2ban-client prints for StatusArguments.
func ParseCounts(output string) (Counts, error) {
	var counts Counts
	fields := map[string]*int{
		"Currently failed": &counts.CurrentlyFailed, "Total failed": &counts.TotalFailed,
		"Currently banned": &counts.CurrentlyBanned, "Total banned": &counts.TotalBanned,
	}
	for line := range strings.Lines(output) {
		label, value, found := strings.Cut(strings.TrimLeft(line, " |`-"), ":")
		target := fields[label]
		if !found || target == nil {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return Counts{}, fmt.Errorf("read the figures of a jail from the line %q: %w", strings.TrimSpace(line), err)
		}
		*target = n
		delete(fields, label)
	}
	if len(fields) > 0 {
		return Counts{}, fmt.Errorf("read the figures of a jail: %d of 4 are missing in %q; is fail2ban running?", len(fields), output)
	}
	return counts, nil
}

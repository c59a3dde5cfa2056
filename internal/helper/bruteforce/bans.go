package bruteforce

import (
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Ban is one banned address or network.
type Ban struct {
	Jail string
	// Addr is the address, or the first one of Network.
	Addr netip.Addr
	// Network is set if a whole network is banned: an IPv6 /64 by the jail of the entry, any
	// network by root.
	Network netip.Prefix
	// Since and Until are wall-clock times of the Base. Until is zero if the ban does not end by
	// itself; only root can make such a ban.
	Since, Until time.Time
}

// Subject is what is banned, for people: an address or a network.
func (b Ban) Subject() string {
	if b.Network.IsValid() {
		return b.Network.String()
	}
	return b.Addr.String()
}

// Bans are the bans of all jails.
type Bans struct {
	// List has the newest MaxBans of each jail, the newest last.
	List []Ban
	// Current is how many bans there are, Total how many there were since fail2ban started.
	Current, Total int
}

// MaxBans is how many bans of a jail are listed, the newest. A stranger with many networks can
// have all of them banned; then the count says more than the list.
const MaxBans = 1000

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

// LiftArguments lifts every ban that covers an address, in all jails and for good. The first
// address of an IPv6 /64 stands for the whole.
func LiftArguments(addr netip.Addr) []string {
	addr = addr.Unmap().WithZone("")
	arguments := []string{"unban", addr.String()}
	if network, err := addr.Prefix(64); err == nil && addr.Is6() && network.Addr() != addr {
		arguments = append(arguments, network.Addr().String())
	}
	return arguments
}

// banTime is how fail2ban prints times, in the time zone of its process; its
// unit sets that to UTC.
const banTime = "2006-01-02 15:04:05"

// ParseBans reads the lines of fail2ban-client for BansArguments, one ban each, and returns the
// newest MaxBans, the newest last:
//
//	10.0.0.9 	2026-11-22 20:39:34 + 3600 = 2026-11-22 21:39:34
//
// fail2ban prints them in the order in which they end. That is another one after an owner has
// changed the ban time, and when root has banned somebody for ever. Bans that began in the same
// second stay in fail2ban's order. It keeps at most 2 * MaxBans at a time, however many there are.
//
// A ban made by root in an unknown form must not hide the others: such a line is ignored. It
// fails if no line can be read.
func ParseBans(jail string, lines iter.Seq[string]) ([]Ban, error) {
	var bans []Ban
	var failure error
	for line := range lines {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		ban, err := parseBan(jail, line)
		if err != nil {
			failure = reason.Errorf("read the bans of jail %s from the line %q: %w", jail, line, err)
			continue
		}
		if bans = append(bans, ban); len(bans) == 2*MaxBans {
			bans = newest(bans)
		}
	}
	if bans == nil {
		return nil, failure
	}
	return newest(bans), nil
}

// newest sorts bans by their beginning and returns the last MaxBans.
func newest(bans []Ban) []Ban {
	slices.SortStableFunc(bans, func(a, b Ban) int { return a.Since.Compare(b.Since) })
	return slices.Delete(bans, 0, max(0, len(bans)-MaxBans))
}

func parseBan(jail, line string) (Ban, error) {
	subject, rest, _ := strings.Cut(line, " ")
	ban := Ban{Jail: jail}
	network, err := netip.ParsePrefix(subject)
	if err == nil {
		ban.Network, ban.Addr = network.Masked(), network.Masked().Addr()
	} else if ban.Addr, err = netip.ParseAddr(subject); err != nil {
		return Ban{}, err
	}
	if ban.Network.IsSingleIP() {
		ban.Network = netip.Prefix{}
	}
	if whole, err := ban.Addr.Prefix(64); err == nil && jail == JailHandshake && ban.Addr.Is6() && !ban.Network.IsValid() &&
		whole.Addr() == ban.Addr {
		ban.Network = whole // its first address stands for it
	}
	begin, rest, found := strings.Cut(strings.TrimSpace(rest), " + ")
	if !found {
		return Ban{}, reason.New("it contains no time of the ban")
	}
	if ban.Since, err = time.Parse(banTime, begin); err != nil {
		return Ban{}, err
	}
	length, _, _ := strings.Cut(rest, " ")
	seconds, err := strconv.ParseInt(length, 10, 32)
	if err != nil {
		return Ban{}, err
	}
	if seconds >= 0 {
		ban.Until = ban.Since.Add(time.Duration(seconds) * time.Second)
	}
	return ban, nil
}

// ParseCounts reads the output of fail2ban-client for StatusArguments.
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
			return Counts{}, reason.Errorf("read the figures of a jail from the line %q: %w", strings.TrimSpace(line), err)
		}
		*target = n
		delete(fields, label)
	}
	if len(fields) > 0 {
		return Counts{}, reason.Errorf("read the figures of a jail: %d of 4 are missing in %q; is fail2ban running?", len(fields), output)
	}
	return counts, nil
}

// Package bruteforce is the Base's brute-force protection: it tells fail2ban which failures
// count, and reads its bans.
//
// There are two jails. One reads the log of sshd. The other reads the refusals of the
// Middleware, and counts those that the Middleware has marked with the address to count them
// against (internal/middleware/admission). Nothing in this package decides who may be banned.
// Loopback, from which Tor connects, is never banned.
//
// fail2ban gets its own, complete configuration directory, so that nothing in /etc/fail2ban
// can loosen or extend it. From there it uses only the parts that Debian maintains better than
// we could: the patterns for sshd, and the action for nftables. Bans live in their own table of
// nftables and survive a reload of the packet filter; fail2ban's database keeps them across a
// restart.
package bruteforce

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The jails.
const (
	JailSSH       = "sshd"
	JailHandshake = "bitbox-base-handshake"
)

// Jails lists them.
var Jails = []string{JailSSH, JailHandshake}

// Actions are what a jail does with an address. The entry's also bans whole /64s. sshd logs
// complete addresses, so a neighbour with the first address of the owner's /64 could have the
// owner banned. docs/limits.md says what limits a stranger with a whole /64, and why fail2ban and
// sshd cannot ban it.
var Actions = map[string]string{JailSSH: "bitbox-base", JailHandshake: "bitbox-base-entry"}

// Config is the input of Render.
type Config struct {
	// Entry are the TCP ports that a ban for refused handshakes closes to an address: the entry,
	// and extra APIs with their own port.
	Entry []uint16
	// SSH is the port of sshd.
	SSH uint16
	// MaxTries failures within Window ban an address for BanTime.
	MaxTries uint32
	Window   time.Duration // whole seconds
	BanTime  time.Duration // whole seconds
	// SSHUnit and MiddlewareUnit are the units whose logs are read.
	SSHUnit        string
	MiddlewareUnit string
}

// JournalMatch says which lines of the journal a jail reads. The journal vouches for the unit of a
// line and for its user. Sessions run in the unit of sshd, and may log; sshd judges logins as root.
func (c Config) JournalMatch(jail string) string {
	if jail == JailSSH {
		return "_SYSTEMD_UNIT=" + c.SSHUnit + " _UID=0"
	}
	return "_SYSTEMD_UNIT=" + c.MiddlewareUnit
}

// maxBan is how long fail2ban remembers bans: longer than the longest ban of a posture.
const maxBan = 8 * 24 * time.Hour

// Paths of the running fail2ban. They are Debian's, so `fail2ban-client` works as an
// administrator expects.
const (
	Socket   = "/run/fail2ban/fail2ban.sock"
	pidFile  = "/run/fail2ban/fail2ban.pid"
	database = "/var/lib/fail2ban/fail2ban.sqlite3"
)

const rendered = "# Rendered by bitbox-base; changes are found by the audit and undone.\n"

// Render writes the files of fail2ban's configuration directory, by their path in it. It fails if
// a value in c is invalid.
func Render(c Config) (map[string]string, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	var ports []string
	for _, port := range c.Entry {
		ports = append(ports, fmt.Sprint(port))
	}
	files := map[string]string{}
	files["fail2ban.conf"] = rendered + fmt.Sprintf(`
[DEFAULT]
loglevel = NOTICE
# The journal.
logtarget = STDOUT
syslogsocket = auto
socket = %s
pidfile = %s
# Keeps bans over a restart.
dbfile = %s
dbpurgeage = %d
dbmaxmatches = 10
allowipv6 = auto

[Definition]

[Thread]
`, Socket, pidFile, database, seconds(maxBan))

	files["jail.conf"] = rendered + fmt.Sprintf(`
[DEFAULT]
backend = systemd
# Addresses only: a name would be looked up where the attacker says.
usedns = no
# Tor arrives from loopback; banning it would ban everybody behind it.
ignoreip = 127.0.0.0/8 ::1
ignoreself = false
maxretry = %[1]d
findtime = %[2]d
bantime = %[3]d
action = bitbox-base[name=%%(__name__)s, port="%%(port)s"]

[%[4]s]
enabled = true
filter = bitbox-base-sshd
port = %[5]d
journalmatch = %[6]s

[%[7]s]
enabled = true
filter = %[7]s
port = %[8]s
journalmatch = %[9]s
action = bitbox-base-entry[name=%%(__name__)s, port="%%(port)s"]
`, c.MaxTries, seconds(c.Window), seconds(c.BanTime), JailSSH, c.SSH, c.JournalMatch(JailSSH),
		JailHandshake, strings.Join(ports, ","), c.JournalMatch(JailHandshake))

	files["filter.d/bitbox-base-sshd.conf"] = rendered + `
[INCLUDES]
before = /etc/fail2ban/filter.d/sshd.conf

[Definition]
# An owner's usual actions count for nothing: checking whether the port is open,
# or giving up at the question for the host key. Trying keys and failing counts,
# once for each connection however many keys a client offers.
mode = normal
mdre-normal-other = ^<F-MLFFORGET>(?:Connection (?:closed|reset)|Disconnected)</F-MLFFORGET> (?:by|from) authenticating user <F-USER>\S+</F-USER> <HOST>%(__on_port_opt)s\s+\[preauth\]\s*$
                    ^<F-NOFAIL><F-MLFFORGET>(?:Connection (?:closed|reset)|Disconnected)</F-MLFFORGET></F-NOFAIL> (?:by|from)(?: invalid user <F-USER>\S+|.*?</F-USER>)? <HOST>(?:%(__suff)s|\s*)$
`

	// The pattern is anchored at the beginning of the line: a line that only contains such a
	// text, because a stranger put it there, does not match.
	files["filter.d/"+JailHandshake+".conf"] = rendered + `
[Definition]
failregex = ^\S+ bitbox-base\[\d+\]: (?:time=\S+ level=INFO msg="handshake refused"|handshake refused) against=<ADDR> addr=\S+ reason=
ignoreregex =
`

	files["action.d/bitbox-base.conf"] = rendered + `
# nftables rather than iptables: a reload of the packet filter would wipe bans
# that iptables held, while fail2ban still listed them.
[INCLUDES]
before = /etc/fail2ban/action.d/nftables.conf

[Definition]
type = multiport

[Init]
protocol = tcp
# A refusal would tell that somebody is here.
blocktype = drop
`

	files["action.d/bitbox-base-entry.conf"] = rendered + `
[INCLUDES]
before = bitbox-base.conf

[Definition]
rule_stat = %(match)s <addr_family> saddr @<addr_set> <blocktype> <network_rule>

[Init]
network_rule =

[Init?family=inet6]
# The first address of a /64 stands for the whole: the sets take no prefixes.
network_rule = && <nftables> add rule <table_family> <table> <chain> $proto dport \{ <port> \} ip6 saddr and ffff:ffff:ffff:ffff:: @<addr_set> <blocktype>
`
	return files, nil
}

func (c Config) check() error {
	switch {
	case len(c.Entry) == 0 || slices.Contains(c.Entry, 0) || c.SSH == 0:
		return reason.Errorf("render fail2ban's jails: a port is missing or 0 (entry %d, SSH %d)", c.Entry, c.SSH)
	case c.MaxTries < 1:
		return reason.Errorf("render fail2ban's jails: %d tries; at least 1 must be allowed", c.MaxTries)
	case c.Window < time.Second || c.Window%time.Second != 0 || c.BanTime < time.Second || c.BanTime%time.Second != 0 || c.BanTime > maxBan:
		return reason.Errorf("render fail2ban's jails: window %v and ban %v must be whole seconds, the ban at most %v", c.Window, c.BanTime, maxBan)
	}
	for _, unit := range []string{c.SSHUnit, c.MiddlewareUnit} {
		if !strings.HasSuffix(unit, ".service") || strings.ContainsAny(unit, " \t\r\n%+=\"'") {
			return reason.Errorf("render fail2ban's jails: %q is not the name of a service unit", unit)
		}
	}
	return nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// Package firewall is the Base's packet filter: it renders the rules, and compares them with
// the live ones.
//
// One [Policy] becomes the input of iptables-restore and of ip6tables-restore, so the two
// families cannot differ by accident. In all three directions, a packet is dropped unless a
// rule accepts it. For outgoing packets the rules go by the user who sends them.
//
// No rule for incoming packets matches a source port, because the sender chooses it.
//
// The text has exactly the format of iptables-save (with names of users in place of numbers).
// So comparing it with the live filter means comparing lines, see [Diff]. [ForeignTables]
// finds what iptables-save does not show.
package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Users that have their own rules.
const (
	ProxyUser      = "www-data"    // NGINX
	MiddlewareUser = "bitbox-base" // has no network at all; see its unit
	MDNSUser       = "avahi"
	ChainUser      = "bitcoin"     // the Bitcoin node, which speaks to strangers
	WatcherUser    = "bitbox-node" // what asks it; it reaches NodePort and nothing else
	// WalletUser serves wallets: it asks the node, and nothing else.
	WalletUser = "bitbox-electrum"
)

// Stub is where the resolver of this machine answers (systemd-resolved(8)).
const Stub = "127.0.0.53"

// NodePort is where the Bitcoin node answers bitbox-node, on 127.0.0.1.
const NodePort = 8332

// PeerPort is where btcd hands its blocks to WalletUser, on 127.0.0.1.
const PeerPort = 8333

// nodePorts has the ports of 127.0.0.1 that each user reaches who asks the node.
var nodePorts = []struct {
	user string
	port uint16
}{{WatcherUser, NodePort}, {WalletUser, NodePort}, {WalletUser, PeerPort}}

// Limits on what one address may ask of a port, before any of our processes is woken. An address
// is one IPv4 address, or an IPv6 /64: a network gives each of its hosts as many IPv6 addresses
// as it likes.
const (
	// HeldConnections is how many TCP connections an address may hold to one
	// port. Apps need one each.
	HeldConnections = 16
	// NewPerSecond and NewBurst bound how many TCP connections an address
	// opens to a port.
	NewPerSecond = 20
	NewBurst     = 40
	// SSHHeldConnections and SSHNewPerMinute are the same for SSH, which nobody needs to open
	// often.
	SSHHeldConnections = 4
	SSHNewPerMinute    = 20
)

// Limits on other packets, for each sender. If all senders shared a limit, one neighbour could
// use it up and silence the Base for the others. On IPv6 each address of the link counts
// separately here: they are all from one /64.
const (
	// MDNSPerSecond and MDNSBurst bound questions to the mDNS group.
	MDNSPerSecond = 50
	MDNSBurst     = 100
	// MDNSAnswersPerSecond and MDNSAnswersBurst bound unicast answers to one host.
	MDNSAnswersPerSecond = 10
	MDNSAnswersBurst     = 20
	// PingPerSecond and PingBurst bound echo requests.
	PingPerSecond = 10
	PingBurst     = 20
	// DHCPv6PerSecond and DHCPv6Burst bound what DHCPv6 servers send.
	DHCPv6PerSecond = 10
	DHCPv6Burst     = 20
)

// Protocol is a transport protocol, as iptables names it.
type Protocol string

// The transport protocols that have ports.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// igmp is the number of the protocol by which hosts join multicast groups (RFC 3376).
// iptables-save prints the number.
const igmp = 2

// Egress lets one user's processes start conversations with one port of any host, or with all
// ports of a part of the world.
type Egress struct {
	User     string   // an existing system user; otherwise the filter does not load, and nothing starts
	Protocol Protocol // TCP or UDP
	// Port is the destination. 0 means all ports (tor and bitcoind), but only of the internet: a
	// service that talks to strangers must not scan the owner's home. It gets names from Stub, for
	// the resolvers that Stub asks are at home.
	Port uint16
	// Home selects the owner's home instead of the internet: private and link-local addresses.
	// Only with port 0.
	Home bool
}

// Extra is the TCP port of an extra API, and who reaches it.
type Extra struct {
	Port uint16
	// From are the networks that reach it, without host bits; empty: every network. Those of one
	// family close the port to the other.
	From []netip.Prefix
}

// Policy is what the packet filter allows in addition to what every Base needs.
type Policy struct {
	// Entry is the TCP port of the single entry (NGINX). Required.
	Entry uint16
	// Extra are the extra APIs that have their own port.
	Extra []Extra
	// SSH is the port of sshd while it is leased; 0 means closed.
	SSH uint16
	// Upstream are the TCP ports on loopback that NGINX may connect to. It can reach nothing
	// else, neither on loopback nor outside.
	Upstream []uint16
	// Egress is what the posture opens outwards in addition to the Base's own needs.
	Egress []Egress
}

// ownEgress is what Debian needs for its updates and its clock. NGINX and the Middleware are not
// in it: they start no connection.
var ownEgress = []Egress{
	{User: "_apt", Protocol: TCP, Port: 53}, {User: "_apt", Protocol: UDP, Port: 53}, // names, where no local resolver answers
	{User: "_apt", Protocol: TCP, Port: 80}, {User: "_apt", Protocol: TCP, Port: 443}, // Debian's mirrors
	{User: "systemd-resolve", Protocol: TCP, Port: 53}, {User: "systemd-resolve", Protocol: UDP, Port: 53},
	{User: "systemd-timesync", Protocol: TCP, Port: 53}, {User: "systemd-timesync", Protocol: UDP, Port: 53},
	{User: "systemd-timesync", Protocol: UDP, Port: 123},
}

// Rules are the two files of a Policy.
type Rules struct {
	V4 string // for iptables-restore
	V6 string // for ip6tables-restore
}

// Render writes the rules of a policy. It fails if a port or a user in it is invalid.
func Render(p Policy) (Rules, error) {
	if err := p.check(); err != nil {
		return Rules{}, err
	}
	return Rules{V4: render(p, v4), V6: render(p, v6)}, nil
}

func (p Policy) check() error {
	if p.Entry == 0 {
		return reason.New("render the packet filter: the port of the entry is 0; it must be 1 to 65535")
	}
	open := []uint16{p.Entry}
	for _, extra := range p.Extra {
		open = append(open, extra.Port)
		for _, network := range extra.From {
			if !network.IsValid() || network.Masked() != network || network.Addr().Is4In6() {
				return reason.Errorf("render the packet filter: %s, which reaches port %d, is not a network of IPv4 or IPv6", network, extra.Port)
			}
		}
	}
	if p.SSH != 0 {
		open = append(open, p.SSH)
	}
	seen := map[uint16]bool{}
	for _, port := range open {
		if port == 0 || seen[port] {
			return reason.Errorf("render the packet filter: port %d is 0 or opened twice (entry %d, SSH %d)", port, p.Entry, p.SSH)
		}
		seen[port] = true
	}
	if slices.Contains(p.Upstream, 0) {
		return reason.New("render the packet filter: port 0 is given as an upstream of the proxy")
	}
	for _, e := range p.Egress {
		if e.Protocol != TCP && e.Protocol != UDP {
			return reason.Errorf("render the packet filter: the protocol %q of user %q is neither tcp nor udp", e.Protocol, e.User)
		}
		if e.Home && e.Port != 0 {
			return reason.Errorf("render the packet filter: port %d of the home is given for %q; all or none can be", e.Port, e.User)
		}
		if err := checkUser(e.User); err != nil {
			return err
		}
		switch e.User {
		case ProxyUser, MiddlewareUser, WatcherUser, WalletUser:
			return reason.Errorf("render the packet filter: %s faces strangers and may not start any connection outwards", e.User)
		case "root":
			return reason.New("render the packet filter: root would stand for every service without its own user; give the service a user")
		}
	}
	return nil
}

// checkUser accepts what adduser(8) gives a system user, so a name can neither end a rule nor be
// taken for a number.
func checkUser(name string) error {
	valid := name != "" && len(name) <= 32
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z'
		valid = valid && (letter || i > 0 && (r == '-' || r >= '0' && r <= '9'))
	}
	if !valid {
		return reason.Errorf("render the packet filter: %q is not the name of a system user (lower case letters, digits, - and _, at most 32)", name)
	}
	return nil
}

// family holds what differs between IPv4 and IPv6.
type family struct {
	six bool
	// refusal is how a local process learns that it may not send.
	refusal string
	// mask is the part of an address that counts as one peer.
	mask string
	// ratePeer is the same for hashlimit; empty means a whole address.
	ratePeer string
	// mdns is the multicast group of RFC 6762.
	mdns string
	// dhcpServer is the port of DHCP servers.
	dhcpServer int
	// home are the addresses of private networks and of links: RFC 1918, 3927, 4193, 4291.
	home []string
	// elsewhere are further addresses that are not the internet: those that providers share (RFC
	// 6598), this host, loopback, multicast, reserved ones. For IPv6 it is everything but global
	// unicast (2000::/3), including IPv4 behind a translator (64:ff9b::/96), which may lead home.
	elsewhere []string
}

var (
	v4 = family{refusal: "icmp-port-unreachable", mask: "32", mdns: "224.0.0.251/32", dhcpServer: 67,
		home:      []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"},
		elsewhere: []string{"0.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "192.0.0.0/24", "224.0.0.0/3"}}
	v6 = family{six: true, refusal: "icmp6-port-unreachable", mask: "64", ratePeer: " --hashlimit-srcmask 64", mdns: "ff02::fb/128",
		dhcpServer: 547,
		home:       []string{"fc00::/7", "fe80::/10"},
		elsewhere:  []string{"::/3", "4000::/2", "8000::/1"}}
)

// Our own chains, which the rules of an Egress with all ports lead to.
const (
	chainInternet = "INTERNET"
	chainHome     = "HOME"
)

func render(p Policy, f family) string {
	b := &builder{}
	b.comment("Rendered by bitbox-base; changes are found by the audit and undone.")
	b.line("*filter")
	b.line(":INPUT DROP [0:0]")
	b.line(":FORWARD DROP [0:0]")
	b.line(":OUTPUT DROP [0:0]")
	internet, home := p.chains()
	if home {
		b.line(":%s - [0:0]", chainHome)
	}
	if internet {
		b.line(":%s - [0:0]", chainInternet)
	}

	b.comment("The machine itself, and answers to what left it.")
	b.line("-A INPUT -i lo -j ACCEPT")
	b.line("-A INPUT -m conntrack --ctstate INVALID -j DROP")
	b.line("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")

	if f.six {
		b.comment("Without these there is no IPv6 (RFC 4890): errors, router and neighbour discovery from this link only, multicast queries.")
		for kind := 1; kind <= 4; kind++ {
			b.line("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type %d -j ACCEPT", kind)
		}
		b.line("-A INPUT -s fe80::/10 -p ipv6-icmp -m icmp6 --icmpv6-type 130 -j ACCEPT")
		for kind := 134; kind <= 136; kind++ {
			b.line("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type %d -m hl --hl-eq 255 -j ACCEPT", kind)
		}
		b.comment("Ping, to find faults in the network.")
		b.line("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 %s -j ACCEPT", eachSender("ping", PingPerSecond, PingBurst))
		b.comment("A DHCPv6 server's answer to a multicast. It may come from a global address.")
		b.line("-A INPUT -d fe80::/10 -p udp -m udp --dport 546 %s -j ACCEPT", eachSender("dhcpv6", DHCPv6PerSecond, DHCPv6Burst))
	} else {
		b.comment("Switches forward mDNS only to hosts that answer their multicast queries: to all groups, and to this one.")
		for _, group := range []string{"224.0.0.1/32", f.mdns} {
			b.line("-A INPUT -d %s -p %d -j ACCEPT", group, igmp)
		}
		b.comment("Ping, to find faults in the network.")
		b.line("-A INPUT -p icmp -m icmp --icmp-type 8 %s -j ACCEPT", eachSender("ping", PingPerSecond, PingBurst))
		// No rule for DHCPv4: clients hear the answers to their broadcasts on packet sockets,
		// before this filter, and those to a renewal are answers.
	}

	b.comment("mDNS, on its multicast group only.")
	b.line("-A INPUT -d %s -p udp -m udp --dport 5353 %s -j ACCEPT", f.mdns, eachSender("mdns", MDNSPerSecond, MDNSBurst))

	b.comment("The entry, and extra APIs with their own port.")
	extras := slices.SortedFunc(slices.Values(p.Extra), func(a, b Extra) int { return int(a.Port) - int(b.Port) })
	for _, extra := range append([]Extra{{Port: p.Entry}}, extras...) {
		for _, source := range f.sources(extra.From) {
			b.open(f, source, extra.Port, HeldConnections, strconv.Itoa(NewPerSecond)+"/sec", NewBurst)
		}
	}
	if p.SSH != 0 {
		b.comment("SSH, while it is leased.")
		b.open(f, "", p.SSH, SSHHeldConnections, strconv.Itoa(SSHNewPerMinute)+"/min", SSHNewPerMinute)
	}

	// A chain ends in a rule, whatever its policy is: when the kernel replaces a table, the new
	// chain has its rules a moment before it has its policy. Until then the kernel accepts
	// packets that match no rule (nft_chain_commit_drop_policy in Linux's nf_tables_api.c;
	// test/stage shows it).
	b.comment("Everything else. The policy alone would let packets through while rules are replaced.")
	b.line("-A INPUT -j DROP")
	b.line("-A FORWARD -j DROP")

	b.comment("Proxy and mDNS face strangers: even on loopback they may start only what they need.")
	for _, port := range sorted(p.Upstream) {
		b.line("-A OUTPUT -o lo -p tcp -m owner --uid-owner %s -m conntrack --ctstate NEW -m tcp --dport %d -j ACCEPT", ProxyUser, port)
	}
	for _, user := range []string{ProxyUser, MDNSUser} {
		b.line("-A OUTPUT -o lo -m owner --uid-owner %s -m conntrack --ctstate NEW -j REJECT --reject-with %s", user, f.refusal)
	}
	// The name in a question can carry data out.
	b.comment("The resolver on loopback answers users who may go out, and no others.")
	for _, user := range resolving(slices.Concat(ownEgress, p.Egress), func(e Egress) bool { return e.Port == 53 }) {
		for _, protocol := range []Protocol{TCP, UDP} {
			b.line("-A OUTPUT -o lo -p %s -m owner --uid-owner %s -m %s --dport 53 -j ACCEPT", protocol, user, protocol)
		}
	}
	if !f.six {
		for _, user := range resolving(p.Egress, func(e Egress) bool { return e.Port == 0 && !e.Home }) {
			for _, protocol := range []Protocol{TCP, UDP} {
				b.line("-A OUTPUT -d %s/32 -o lo -p %s -m owner --uid-owner %s -m %s --dport 53 -j ACCEPT", Stub, protocol, user, protocol)
			}
		}
	}
	for _, protocol := range []Protocol{TCP, UDP} {
		b.line("-A OUTPUT -o lo -p %s -m conntrack --ctstate NEW -m %s --dport 53 -j REJECT --reject-with %s", protocol, protocol, f.refusal)
	}
	b.comment("The Bitcoin node is a guest: it may ask nothing here, and those that ask it nothing else.")
	if !f.six {
		for _, n := range nodePorts {
			b.line("-A OUTPUT -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner %s -m conntrack --ctstate NEW -m tcp --dport %d -j ACCEPT", n.user,
				n.port)
		}
	}
	for _, user := range []string{ChainUser, WatcherUser, WalletUser} {
		b.line("-A OUTPUT -o lo -m owner --uid-owner %s -m conntrack --ctstate NEW -j REJECT --reject-with %s", user, f.refusal)
	}
	b.line("-A OUTPUT -o lo -j ACCEPT")
	b.line("-A OUTPUT -m conntrack --ctstate INVALID -j DROP")
	b.comment("The Bitcoin node goes where the posture lets it, also over connections that it has from before.")
	egress := slices.Clone(p.Egress)
	slices.SortFunc(egress, func(a, b Egress) int { return strings.Compare(order(a), order(b)) })
	egress = slices.Compact(egress)
	for _, e := range egress {
		if e.User == ChainUser {
			b.egress(e)
		}
	}
	b.line("-A OUTPUT -p tcp -m owner --uid-owner %s -j REJECT --reject-with tcp-reset", ChainUser)
	b.line("-A OUTPUT -m owner --uid-owner %s -j REJECT --reject-with %s", ChainUser, f.refusal)
	b.line("-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")

	if f.six {
		b.comment("Router and neighbour discovery, membership of multicast groups.")
		for _, kind := range []int{133, 135, 136, 131, 132, 143} {
			b.line("-A OUTPUT -p ipv6-icmp -m icmp6 --icmpv6-type %d -j ACCEPT", kind)
		}
	} else {
		b.comment("Membership of multicast groups.")
		b.line("-A OUTPUT -d 224.0.0.0/24 -p %d -j ACCEPT", igmp)
	}
	b.comment("DHCP: systemd-networkd, and dhclient, which is root.")
	for _, user := range []string{"root", "systemd-network"} {
		b.line("-A OUTPUT -p udp -m owner --uid-owner %s -m udp --dport %d -j ACCEPT", user, f.dhcpServer)
	}
	b.comment("mDNS, to its multicast group, and to a host at home that asked from another port (RFC 6762, section 6.7).")
	b.line("-A OUTPUT -d %s -p udp -m owner --uid-owner %s -m udp --dport 5353 -j ACCEPT", f.mdns, MDNSUser)
	for _, network := range f.home {
		b.line("-A OUTPUT -d %s -p udp -m owner --uid-owner %s -m udp --sport 5353 -m hashlimit --hashlimit-upto %d/sec --hashlimit-burst %d --hashlimit-mode dstip --hashlimit-name mdnsanswer -j ACCEPT",
			network, MDNSUser, MDNSAnswersPerSecond, MDNSAnswersBurst)
	}

	b.comment("Names, time and Debian's updates.")
	for _, e := range ownEgress {
		b.egress(e)
	}
	if egress = slices.DeleteFunc(egress, func(e Egress) bool { return e.User == ChainUser }); len(egress) > 0 {
		b.comment("The posture opens these.")
		for _, e := range egress {
			b.egress(e)
		}
	}
	b.comment("A refused program should fail at once rather than wait.")
	b.line("-A OUTPUT -j REJECT --reject-with %s", f.refusal)
	if home {
		b.comment("The owner's home.")
		for _, network := range f.home {
			b.line("-A %s -d %s -j ACCEPT", chainHome, network)
		}
	}
	if internet {
		b.comment("The internet: everything except the owner's home and special ranges.")
		for _, network := range slices.Concat(f.home, f.elsewhere) {
			b.line("-A %s -d %s -j REJECT --reject-with %s", chainInternet, network, f.refusal)
		}
		b.line("-A %s -j ACCEPT", chainInternet)
	}
	b.line("COMMIT")
	return b.String()
}

// chains tells which of our own chains the policy needs.
func (p Policy) chains() (internet, home bool) {
	for _, e := range p.Egress {
		home = home || e.Home
		internet = internet || e.Port == 0 && !e.Home
	}
	return internet, home
}

// order sorts an Egress. A user's rule for the home comes before the one for the
// internet, whose chain refuses the home.
func order(e Egress) string {
	return fmt.Sprint(e.User, " ", e.Protocol, !e.Home, 100000+int(e.Port))
}

// eachSender limits packets of each source address.
func eachSender(name string, perSecond, burst int) string {
	return fmt.Sprintf("-m hashlimit --hashlimit-upto %d/sec --hashlimit-burst %d --hashlimit-mode srcip --hashlimit-name %s", perSecond,
		burst, name)
}

// resolving are the users of some of list, sorted: they may ask the resolver here.
func resolving(list []Egress, some func(Egress) bool) []string {
	var users []string
	for _, e := range list {
		if some(e) {
			users = append(users, e.User)
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

type builder struct{ strings.Builder }

func (b *builder) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
func (b *builder) comment(text string)             { b.line("# %s", text) }

// sources are what the rules for a port match, by the networks that reach it: each network of the
// family, or everybody.
func (f family) sources(from []netip.Prefix) []string {
	if len(from) == 0 {
		return []string{""}
	}
	var sources []string
	for _, network := range from {
		if network.Addr().Is6() == f.six {
			sources = append(sources, fmt.Sprintf(" -s %s", network))
		}
	}
	return sources
}

// open accepts new connections to a port from a source, within limits per peer. Only a first SYN is new:
// otherwise the kernel would take a stray ACK for the middle of a connection that it has not seen,
// and answer a scanner.
func (b *builder) open(f family, source string, port uint16, held int, rate string, burst int) {
	syn := fmt.Sprintf("-A INPUT%s -p tcp -m tcp --dport %d --tcp-flags FIN,SYN,RST,ACK SYN", source, port)
	b.line("%s -m connlimit --connlimit-above %d --connlimit-mask %s --connlimit-saddr -j DROP", syn, held, f.mask)
	b.line("%s -m conntrack --ctstate NEW -m hashlimit --hashlimit-upto %s --hashlimit-burst %d --hashlimit-mode srcip --hashlimit-name tcp%d%s -j ACCEPT", syn, rate, burst, port, f.ratePeer)
}

func (b *builder) egress(e Egress) {
	switch {
	case e.Home:
		b.line("-A OUTPUT -p %s -m owner --uid-owner %s -j %s", e.Protocol, e.User, chainHome)
		return
	case e.Port == 0:
		b.line("-A OUTPUT -p %s -m owner --uid-owner %s -j %s", e.Protocol, e.User, chainInternet)
		return
	}
	b.line("-A OUTPUT -p %s -m owner --uid-owner %s -m %s --dport %d -j ACCEPT", e.Protocol, e.User, e.Protocol, e.Port)
}

func sorted(ports []uint16) []uint16 {
	s := slices.Clone(ports)
	slices.Sort(s)
	return slices.Compact(s)
}

// Package generation renders what is in force into the configuration files of Debian's
// servers, and switches between two such sets in one step.
//
// A generation is a directory that is written once and never changed:
//
//	/var/lib/bitbox-base/system/generations/17/
//	    iptables.rules  ip6tables.rules     the packet filter
//	    nginx.conf                          the entry
//	    fail2ban/…                          its whole configuration directory
//	    sshd_config  authorized_keys        SSH, whether it is on or off
//	    let-out                             the users whom the packet filter lets out
//
// The link `current` beside `generations` names the one in force. The units of the servers
// refer to files through this link, so one rename commits all files at once, and a power cut
// leaves the old set or the new one. The link `candidate` names the generation that the
// pre-flight units check before the switch.
//
// Rendering ([RenderFor]) is pure. [Store] writes the files.
package generation

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

// Paths on the appliance. The units and the static configuration in packaging/ use the same
// paths; a test compares them.
const (
	// StateDirectory is the system helper's. Only root can write there; everybody may enter,
	// because a generation holds no secret and servers that are not root read it.
	StateDirectory = "/var/lib/bitbox-base/system"
	// CertificateDirectory keeps the certificates of extra APIs. Root writes; NGINX's group
	// reads.
	CertificateDirectory = "/var/lib/bitbox-base/certificates"
	// HostKey is sshd's only host key.
	HostKey = "/var/lib/bitbox-base/ssh/host_ed25519"
	// RuntimeDirectory has files that do not outlive a reboot.
	RuntimeDirectory = "/run/bitbox-base"
	// MiddlewareSocket is where NGINX hands connections to the Middleware.
	MiddlewareSocket = RuntimeDirectory + "/middleware.sock"
	// SystemSocket is where the system helper takes requests.
	SystemSocket = RuntimeDirectory + "/system.sock"
	// SSHLease is the file without which the SSH unit does not start. A reboot removes it, and so
	// ends SSH.
	SSHLease = RuntimeDirectory + "/ssh-lease"
	// AnnouncementFile is what Avahi announces; RenderAnnouncement writes it. It is not part of a
	// generation: it opens nothing, and changes with each start and each pairing window.
	AnnouncementFile = RuntimeDirectory + "/announcement/bitbox-base.service"
	// ProxyPIDFile is NGINX's.
	ProxyPIDFile = "/run/bitbox-base-nginx/nginx.pid"
)

// The units. The system helper starts no others.
const (
	FirewallUnit   = "bitbox-base-firewall.service"
	MiddlewareUnit = "bitbox-base-middleware.service"
	ProxyUnit      = "bitbox-base-nginx.service"
	BansUnit       = "bitbox-base-fail2ban.service"
	SSHUnit        = "bitbox-base-ssh.service"
	MDNSUnit       = "bitbox-base-avahi.service"
	PortsUnit      = "bitbox-base-ports.service"
	ChainUnit      = "bitbox-base-bitcoin.service"
	WatcherUnit    = "bitbox-base-node.service"
	WalletUnit     = "bitbox-base-electrum.service"
)

// ProxyUser is the user of NGINX and of PortsUnit, which holds NGINX's ports.
const ProxyUser = firewall.ProxyUser

// HeldPorts are all addresses that NGINX may ever listen on, whatever the posture: the kinds of
// extra APIs and their ports are constant.
func HeldPorts() []netip.AddrPort {
	var own []uint16
	for _, extra := range posture.Extras {
		own = append(own, extra.Port)
	}
	return proxy.Held(posture.EntryPort, own)
}

// PreflightUnits check the candidate with the programs that would read it, in an empty network of
// their own. Starting them fails if one finds a fault.
var PreflightUnits = []string{
	"bitbox-base-preflight-firewall.service",
	"bitbox-base-preflight-nginx.service",
	"bitbox-base-preflight-fail2ban.service",
	"bitbox-base-preflight-sshd.service",
}

// Files of a generation, relative to its directory.
const (
	IPv4Rules      = "iptables.rules"
	IPv6Rules      = "ip6tables.rules"
	ProxyConfig    = "nginx.conf"
	BansDirectory  = "fail2ban"
	SSHConfig      = "sshd_config"
	AuthorizedKeys = "authorized_keys"
	// LetOut has a line for each user whom the packet filter of the same generation lets out. It opens
	// nothing: the node waits for the clock only if it is let out.
	LetOut = "let-out"
)

// Current returns the path of a file of the generation in force, as the servers use it.
func Current(file string) string { return filepath.Join(StateDirectory, currentLink, file) }

const (
	currentLink    = "current"
	candidateLink  = "candidate"
	generationsDir = "generations"
)

// sockets says where the Base's own service behind each extra API listens.
var sockets = map[posture.Kind]string{
	posture.KindElectrum: WalletSocket,
}

// WalletSocket is where the Base's own Electrum server listens, for NGINX's group.
const WalletSocket = "/run/bitbox-electrum/wallets.sock"

// Upstream is where the service behind an extra API listens: at a unix socket of the Base's own, or
// at an address on loopback that the builder has named.
type Upstream struct {
	Socket  string // empty: Address
	Address netip.AddrPort
}

// UpstreamOf returns where the service behind an extra API listens; false if there is none of this kind.
func UpstreamOf(kind posture.Kind, m Machine) (Upstream, bool) {
	if kind == posture.KindElectrum && m.Electrum.IsValid() {
		return Upstream{Address: m.Electrum}, true
	}
	socket, known := sockets[kind]
	return Upstream{Socket: socket}, known
}

// serviceEgress names the user of each service that the posture can let out, and where to: it may
// reach any TCP port there, because peers choose theirs. The user must
// exist: otherwise the pre-flight finds that the rules do not load.
var serviceEgress = map[posture.Service][]firewall.Egress{
	posture.ServiceBitcoin:       {{User: firewall.ChainUser, Protocol: firewall.TCP}},
	posture.ServiceLightning:     {{User: "lightning", Protocol: firewall.TCP}},
	posture.ServiceTor:           {{User: "debian-tor", Protocol: firewall.TCP}},
	posture.ServiceBitcoinHome:   {{User: firewall.ChainUser, Protocol: firewall.TCP, Home: true}},
	posture.ServiceLightningHome: {{User: "lightning", Protocol: firewall.TCP, Home: true}},
}

// Files are the content of a generation, by the path of each file in its
// directory.
type Files map[string]string

// Machine is what the rendering of a posture depends on in the machine.
type Machine struct {
	// NoIPv6: the kernel has no IPv6.
	NoIPv6 bool
	// Electrum is where the builder's own Electrum server listens, on loopback; the zero AddrPort:
	// there is none, and the Base's own is used.
	Electrum netip.AddrPort
}

// ElectrumFile is where a builder names an Electrum server of their own: one line with a loopback
// address and a port, such as 127.0.0.1:50001. It is root's.
const ElectrumFile = "/etc/bitbox-base/electrum-server"

// readElectrum reads it. A file that cannot be used counts as none, so that a change of the posture
// never fails for it.
func readElectrum(path string) netip.AddrPort {
	const longest = 64 // bytes
	text, err := rootfile.Read(path, longest)
	if err != nil {
		return netip.AddrPort{}
	}
	at, err := netip.ParseAddrPort(strings.TrimSpace(string(text)))
	if err != nil || !at.Addr().IsLoopback() || at.Port() < 1024 {
		return netip.AddrPort{}
	}
	return at
}

// ThisMachine asks the kernel, and reads what its builder has named.
func ThisMachine() Machine {
	return Machine{NoIPv6: noIPv6("/proc/net"), Electrum: readElectrum(ElectrumFile)}
}

// noIPv6 tells whether the kernel has no IPv6, as with ipv6.disable=1. Both files exist in every
// network namespace if the kernel has the family. Without access to them nothing is known, and IPv6
// is assumed: rules for it harm nobody.
func noIPv6(network string) bool {
	_, v4 := os.Stat(filepath.Join(network, "tcp"))
	_, v6 := os.Stat(filepath.Join(network, "tcp6"))
	return v4 == nil && errors.Is(v6, fs.ErrNotExist)
}

// Render is RenderFor a machine with everything.
func Render(e posture.Effective) (Files, error) { return RenderFor(e, Machine{}) }

// RenderFor writes everything that e asks for. It fails if something in e is unknown here or
// cannot be rendered; then no part of the result is usable.
func RenderFor(e posture.Effective, m Machine) (Files, error) {
	web, err := ProxyFor(e, m)
	if err != nil {
		return nil, err
	}
	filter, err := FirewallFor(e, m)
	if err != nil {
		return nil, err
	}
	files := Files{}
	rules, err := firewall.Render(filter)
	if err != nil {
		return nil, err
	}
	files[IPv4Rules], files[IPv6Rules] = rules.V4, rules.V6
	files[LetOut] = letOut(filter)
	if files[ProxyConfig], err = proxy.Render(web); err != nil {
		return nil, err
	}
	jails, err := bruteforce.Render(BansFor(e))
	if err != nil {
		return nil, err
	}
	for name, content := range jails {
		files[BansDirectory+"/"+name] = content
	}
	if files[SSHConfig], err = sshaccess.RenderConfig(SSHConfigFor()); err != nil {
		return nil, err
	}
	var keys []sshkey.Key
	if e.SSH != nil {
		keys = e.SSH.Keys
	}
	files[AuthorizedKeys] = sshaccess.RenderAuthorizedKeys(keys)
	return files, nil
}

// ProxyFor returns what NGINX has to do for e.
func ProxyFor(e posture.Effective, m Machine) (proxy.Config, error) {
	c := proxy.Config{Middleware: MiddlewareSocket, PIDFile: ProxyPIDFile, Certificates: CertificateDirectory, NoIPv6: m.NoIPv6}
	for _, endpoint := range e.Endpoints {
		if endpoint.Kind == posture.KindEntry {
			c.Entry = endpoint.Port
			continue
		}
		upstream, known := UpstreamOf(endpoint.Kind, m)
		if !known {
			return proxy.Config{}, reason.Errorf("render the posture: no service is known behind the extra API %q", endpoint.Kind)
		}
		api := proxy.API{Name: string(endpoint.Kind), Socket: upstream.Socket, Upstream: upstream.Address, From: endpoint.From}
		if !endpoint.Shared {
			api.Port = endpoint.Port
		}
		c.APIs = append(c.APIs, api)
	}
	return c, nil
}

// FirewallFor returns what the packet filter has to allow for e.
func FirewallFor(e posture.Effective, m Machine) (firewall.Policy, error) {
	web, err := ProxyFor(e, m)
	if err != nil {
		return firewall.Policy{}, err
	}
	p := firewall.Policy{Entry: web.Entry, Extra: extras(web), Upstream: web.UpstreamPorts()}
	if e.SSH != nil {
		p.SSH = sshaccess.Port
	}
	for _, service := range e.Egress {
		egress, known := serviceEgress[service]
		if !known {
			return firewall.Policy{}, reason.Errorf("render the posture: the service %q, which may reach the internet, is unknown", service)
		}
		p.Egress = append(p.Egress, egress...)
	}
	return p, nil
}

// letOut writes LetOut.
func letOut(p firewall.Policy) string {
	var users []string
	for _, egress := range p.Egress {
		users = append(users, egress.User+"\n")
	}
	slices.Sort(users)
	return strings.Join(slices.Compact(users), "")
}

func extras(web proxy.Config) []firewall.Extra {
	var list []firewall.Extra
	for _, api := range web.APIs {
		if api.Port != 0 {
			list = append(list, firewall.Extra{Port: api.Port, From: api.From})
		}
	}
	return list
}

// BansFor returns what fail2ban has to do for e.
func BansFor(e posture.Effective) bruteforce.Config {
	c := bruteforce.Config{
		SSH:      sshaccess.Port,
		MaxTries: e.Bans.MaxTries, Window: e.Bans.Window, BanTime: e.Bans.BanTime,
		SSHUnit: SSHUnit, MiddlewareUnit: MiddlewareUnit,
	}
	for _, endpoint := range e.Endpoints {
		if !endpoint.Shared {
			c.Entry = append(c.Entry, endpoint.Port)
		}
	}
	return c
}

// SSHConfigFor returns the configuration of sshd. It is the same whether SSH is on or off: a
// unit, a port and a key file make the difference.
func SSHConfigFor() sshaccess.Config {
	return sshaccess.Config{HostKey: HostKey, AuthorizedKeys: Current(AuthorizedKeys)}
}

// directoryName returns the name of a generation's directory.
func directoryName(number uint64) string { return strconv.FormatUint(number, 10) }

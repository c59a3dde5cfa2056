package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/listeners"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// owner is a unit that may listen, and the user that it listens as.
type owner struct{ unit, user string }

// permission is a socket that is allowed.
type permission struct {
	protocol string
	port     uint16 // 0: any
	loopback bool   // on loopback alone
	owners   []owner
}

var (
	proxyOwner    = []owner{{generation.ProxyUnit, generation.ProxyUser}}
	resolverOwner = []owner{{"systemd-resolved.service", "systemd-resolve"}}
	networkOwners = []owner{
		{"systemd-networkd.service", "systemd-network"}, {"networking.service", "root"}, {"NetworkManager.service", "root"},
		{"dhclient.service", "root"},
	}
)

// alwaysPermitted are the sockets that every Base has besides those of its servers. The packet
// filter lets nobody start a conversation with those of port 0: they carry questions of ours, and
// their source port is not known in advance.
var alwaysPermitted = []permission{
	{"udp", 68, false, networkOwners}, // DHCP
	{"udp", 546, false, networkOwners},
	{"udp", 0, false, append([]owner{{services.TimeUnit, "systemd-timesync"}}, resolverOwner...)},
	{"tcp", 53, true, resolverOwner},
	{"tcp", firewall.NodePort, true, []owner{{generation.ChainUnit, firewall.ChainUser}}},
	{"tcp", firewall.PeerPort, true, []owner{{generation.ChainUnit, firewall.ChainUser}}},
}

// servers are the sockets that the posture in force requires.
func servers(e posture.Effective) []permission {
	list := entries(e)
	if e.SSH != nil {
		list = append(list, permission{"tcp", sshaccess.Port, false, []owner{{generation.SSHUnit, "root"}}})
	}
	if slices.ContainsFunc(e.Endpoints, func(endpoint posture.Endpoint) bool {
		return endpoint.Shared &&
			endpoint.Kind != posture.KindEntry
	}) {
		list = append(list, permission{"tcp", proxy.InnerPort, true, proxyOwner})
	}
	return append(list, permission{"udp", mdnsPort, false, []owner{{generation.MDNSUnit, "avahi"}}})
}

// entries are those of NGINX. They must exist, or no App can connect. systemd says whether the
// other servers run (units.go, ssh.go).
func entries(e posture.Effective) []permission {
	var list []permission
	for _, endpoint := range e.Endpoints {
		if !endpoint.Shared {
			list = append(list, permission{"tcp", endpoint.Port, false, proxyOwner})
		}
	}
	return list
}

// mdnsPort is from RFC 6762.
const mdnsPort = 5353

// resolve finds the numbers of the users. A user that does not exist owns nothing.
func resolve(list []permission, a accounts) []listeners.Permission {
	var resolved []listeners.Permission
	for _, p := range list {
		r := listeners.Permission{Protocol: p.protocol, Port: p.port, Loopback: p.loopback}
		for _, o := range p.owners {
			if uid, err := a.uid(o.user); err == nil {
				r.Owners = append(r.Owners, listeners.Owner{Unit: o.unit, UID: uid})
			}
		}
		resolved = append(resolved, r)
	}
	return resolved
}

// ownServices lets the services of the appliance's builder listen on loopback, each as its own
// user.
func ownServices(ctx context.Context, system System) ([]listeners.Permission, error) {
	text, err := system.ReadFile(services.OwnFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	own, err := services.Parse(text)
	if err != nil || len(own) == 0 {
		return nil, err
	}
	output, err := ask(ctx, system, append([]string{systemctl, "show", "--no-pager", "-p", "LoadState,UID"}, own.Units()...)...)
	if err != nil {
		return nil, err
	}
	var owners []listeners.Owner
	for i, u := range units.Parse(output) {
		if i >= len(own) {
			break
		}
		uid, err := strconv.Atoi(u["UID"])
		if err != nil {
			uid = 0 // systemd prints "[not set]" for root's
		}
		owners = append(owners, listeners.Owner{Unit: own[i].Unit, UID: uid})
	}
	return []listeners.Permission{
		{Protocol: "tcp", Loopback: true, Owners: owners}, {Protocol: "udp", Loopback: true, Owners: owners},
	}, nil
}

// checkSockets compares each listener and its user with the posture, on loopback too: a process
// that takes the port of a service there receives the service's traffic.
func checkSockets(ctx context.Context, system System, want Expectation) ([]difference, error) {
	output, err := ask(ctx, system, listeners.Command...)
	if err != nil {
		return nil, err
	}
	sockets, err := listeners.Parse(output)
	if err != nil {
		return nil, err
	}
	accounts, err := readAccounts(system)
	if err != nil {
		return nil, err
	}
	own, err := ownServices(ctx, system)
	if err != nil {
		return nil, err
	}
	wildcards := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	if _, err := system.Lstat(ipv6Sockets); errors.Is(err, fs.ErrNotExist) {
		wildcards = wildcards[:1]
	}
	return compareSockets(sockets, want.Posture, accounts, own, wildcards), nil
}

// ipv6Sockets is there if the kernel has IPv6.
const ipv6Sockets = "/proc/net/tcp6"

// compareSockets expects NGINX on each of the wildcard addresses.
func compareSockets(sockets []listeners.Socket, e posture.Effective, a accounts, own []listeners.Permission,
	wildcards []netip.Addr) []difference {
	permitted := slices.Concat(resolve(servers(e), a), resolve(alwaysPermitted, a), own)
	var unexpected []string
	for _, s := range listeners.Unexpected(sockets, permitted) {
		unexpected = append(unexpected, s.String())
	}
	units := listeners.TellUnits(sockets)
	var silent []string
	for _, p := range resolve(entries(e), a) {
		for _, wildcard := range wildcards {
			if !slices.ContainsFunc(sockets, func(s listeners.Socket) bool { return p.Covers(s, units) && s.Addr == wildcard }) {
				silent = append(silent, fmt.Sprintf("NGINX does not listen on tcp %s", netip.AddrPortFrom(wildcard, p.Port)))
			}
		}
	}
	var differences []difference
	if unexpected != nil {
		differences = append(differences, difference{id: idListener, found: unexpected})
	}
	if silent != nil {
		differences = append(differences, difference{id: idEntrySilent, found: silent})
	}
	return differences
}

// Package proxy renders the configuration of NGINX, the Base's single entry.
//
// NGINX listens on one port and passes every connection to the Middleware's unix socket, with
// the client's true address in a PROXY header (version 1). It does not look into the
// connection: the channel inside is encrypted between App and Base.
//
// An owner may open an extra API (such as the Electrum protocol for a wallet). It always uses
// TLS, which ends at NGINX. Its certificate is made once and kept, because wallets pin it
// (certificate.go). An extra API has its own port or shares the entry. If it shares the entry,
// NGINX waits for the first bytes: TLS goes to the API, everything else to the Middleware.
//
// NGINX runs as an ordinary user without any privilege, from a unit of ours; no port here is
// below 1024. Rendering is pure.
package proxy

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// InnerPort is where NGINX, on loopback, ends the TLS of the API that shares the entry. It
// accepts connections only from the entry, with a PROXY header.
const InnerPort = 8846

const (
	// HeldConnections is how many connections one address may hold. The packet filter has the
	// same limit (firewall.HeldConnections) and counts an IPv6 /64 as one address, which NGINX
	// cannot.
	HeldConnections = 16
	// WorkerConnections is per worker, and a client takes two. With NGINX's default of 1,024, 200
	// strangers with eight silent connections each locked an owner out.
	WorkerConnections = 8192
	// sessionTimeout is how long a connection may be silent. The Base itself ends a session after
	// 24 h (docs/protocol.md); this is a little more.
	sessionTimeout = "25h"
	// shutdownTimeout is how long a process from before a reload is kept for its connections.
	// The Middleware asks Apps to leave it sooner (docs/protocol.md, section 11.6).
	shutdownTimeout = "10m"
	// apiTimeout is the same for an extra API.
	apiTimeout = "30m"
)

// API is an extra API that an owner has opened.
type API struct {
	// Name names its certificate: lower case letters, digits and -.
	Name string
	// Port is its own TCP port; 0 shares the entry. Only one API can share it: wallets that
	// connect to an address send no name that could tell APIs apart.
	Port uint16
	// Upstream is where the service listens, on loopback, in plain text; the zero AddrPort: at Socket.
	Upstream netip.AddrPort
	// Socket is the path of the service's unix socket. It gets the client's address in a PROXY header.
	Socket string
	// From are the networks that reach it, without host bits; empty: every network. Only with a port
	// of its own.
	From []netip.Prefix
}

// Config is the input of Render.
type Config struct {
	// Entry is the TCP port of the single entry.
	Entry uint16
	// Middleware is the path of the unix socket of the Middleware.
	Middleware string
	// PIDFile is the path of the file with NGINX's process number.
	PIDFile string
	// Certificates is the directory of the certificates of extra APIs, one
	// file for each, see CertificateFile.
	Certificates string
	APIs         []API
	// NoIPv6: the kernel has no IPv6. NGINX would not start if it had to listen there.
	NoIPv6 bool
}

// CertificateFile returns the path of the certificate of the API called name.
func CertificateFile(directory, name string) string {
	return filepath.Join(directory, name+".pem")
}

// Held returns the addresses that NGINX listens on when the entry and all of these ports are
// open: another process must not take any of them.
func Held(entry uint16, own []uint16) []netip.AddrPort {
	addresses := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), InnerPort)}
	for _, port := range append([]uint16{entry}, own...) {
		addresses = append(addresses, netip.AddrPortFrom(netip.IPv4Unspecified(), port), netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	}
	return addresses
}

// UpstreamPorts returns the TCP ports on loopback that NGINX must be able to reach, for the
// packet filter.
func (c Config) UpstreamPorts() []uint16 {
	var ports []uint16
	for _, api := range c.APIs {
		if api.Socket == "" {
			ports = append(ports, api.Upstream.Port())
		}
		if api.Port == 0 {
			ports = append(ports, InnerPort)
		}
	}
	return ports
}

// Render writes nginx.conf. It fails if a value in c is invalid.
func Render(c Config) (string, error) {
	shared, err := c.check()
	if err != nil {
		return "", err
	}
	b := &strings.Builder{}
	fmt.Fprintf(b, `# Rendered by bitbox-base; changes are found by the audit and undone.

# The one module that is needed. There is no http block: this server speaks
# no HTTP to anybody.
load_module /usr/lib/nginx/modules/ngx_stream_module.so;

daemon off; # systemd watches it
pid %[1]s;
error_log stderr warn; # the journal
worker_processes auto;
# Apps are asked to leave an old one before; those that stay are cut off.
worker_shutdown_timeout %[4]s;
# Each client takes two of these: its own and the one to the Middleware. Too
# few, and silent strangers lock everybody out. The unit allows as many files.
events {
    worker_connections %[2]d;
}

stream {
    limit_conn_zone $binary_remote_addr zone=address:10m;
    limit_conn_log_level warn;

    # Unread answers must not be lost when a client has sent its last.
    proxy_half_close on;
    proxy_buffer_size 64k; # twice the throughput of the default
    proxy_connect_timeout 5s;

    upstream middleware {
        server unix:%[3]s;
    }
`, c.PIDFile, WorkerConnections, c.Middleware, shutdownTimeout)

	for _, api := range c.APIs {
		at := "unix:" + api.Socket
		if api.Socket == "" {
			at = api.Upstream.String()
		}
		fmt.Fprintf(b, `
    upstream %s {
        server %s;
    }
`, api.Name, at)
	}

	target := "middleware"
	if shared != nil {
		target = "$entry"
		fmt.Fprintf(b, `
    upstream inner {
        server 127.0.0.1:%d;
    }

    # The first byte of TLS is 22, of our channel 1 or 2.
    map $ssl_preread_protocol $entry {
        "" middleware;
        default inner;
    }
`, InnerPort)
	}
	b.WriteString("\n    # The single entry.\n    server {\n")
	c.listen(b, c.Entry, "")
	if shared != nil {
		b.WriteString("        ssl_preread on;\n        preread_timeout 5s;\n")
	}
	fmt.Fprintf(b, `        # The client's true address, for limits, log and bans.
        proxy_protocol on;
        proxy_timeout %s;
        proxy_pass %s;
    }
`, sessionTimeout, target)

	for _, api := range c.APIs {
		fmt.Fprintf(b, "\n    # %s, opened by an owner.\n    server {\n", api.Name)
		if api.Port == 0 {
			fmt.Fprintf(b, "        listen 127.0.0.1:%d ssl proxy_protocol reuseport;\n        set_real_ip_from 127.0.0.1;\n", InnerPort)
		} else {
			c.listen(b, api.Port, " ssl")
		}
		for _, network := range api.From {
			fmt.Fprintf(b, "        allow %s;\n", network)
		}
		if len(api.From) > 0 {
			b.WriteString("        deny all; # the packet filter refuses them first\n")
		}
		header := ""
		if api.Socket != "" {
			header = "        # The wallet's true address.\n        proxy_protocol on;\n"
		}
		fmt.Fprintf(b, `        ssl_certificate %[1]s;
        ssl_certificate_key %[1]s;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256;
        ssl_session_tickets off; # their key would weaken forward secrecy
        ssl_handshake_timeout 5s;
%[4]s        proxy_timeout %[2]s;
        proxy_pass %[3]s;
    }
`, CertificateFile(c.Certificates, api.Name), apiTimeout, api.Name, header)
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// listen writes what every server that the network can reach has. It listens on wildcards: NGINX
// does not start with an absent address, and addresses come and go. The keepalive detects peers
// that have vanished.
func (c Config) listen(b *strings.Builder, port uint16, options string) {
	// reuseport: another process holds the ports for NGINX (Hold); only a socket with this option
	// can share them.
	const keepalive = " reuseport backlog=1024 so_keepalive=60s:10s:3;\n"
	fmt.Fprintf(b, "        listen 0.0.0.0:%d%s%s", port, options, keepalive)
	if !c.NoIPv6 {
		fmt.Fprintf(b, "        listen [::]:%d%s ipv6only=on%s", port, options, keepalive)
	}
	fmt.Fprintf(b, "        limit_conn address %d;\n", HeldConnections)
}

// check returns the API that shares the entry, if any.
func (c Config) check() (shared *API, err error) {
	for name, path := range map[string]string{"Middleware": c.Middleware, "PIDFile": c.PIDFile, "Certificates": c.Certificates} {
		if err := checkPath(name, path); err != nil {
			return nil, err
		}
	}
	if c.Entry == 0 {
		return nil, reason.New("render nginx.conf: the port of the entry is 0; it must be 1 to 65535")
	}
	ports := map[uint16]bool{c.Entry: true, InnerPort: true}
	names := map[string]bool{"middleware": true, "inner": true}
	for i := range c.APIs {
		api := &c.APIs[i]
		if !validName(api.Name) || names[api.Name] {
			return nil, reason.Errorf("render nginx.conf: %q cannot name an API: it must be 1 to 32 lower case letters, digits and -, and used once",
				api.Name)
		}
		names[api.Name] = true
		if api.Socket != "" {
			if err := checkPath("the socket of "+api.Name, api.Socket); err != nil {
				return nil, err
			}
		} else if !api.Upstream.Addr().IsLoopback() || api.Upstream.Port() == 0 {
			return nil, reason.Errorf("render nginx.conf: the service behind %s is at %s; it must be a port on loopback", api.Name, api.Upstream)
		}
		for _, network := range api.From {
			if !network.IsValid() || network.Masked() != network || network.Addr().Is4In6() || api.Port == 0 {
				return nil, reason.Errorf("render nginx.conf: %s, which reaches %s, is not a network of IPv4 or IPv6, or %[2]s has no port of its own",
					network, api.Name)
			}
		}
		if api.Port == 0 {
			if shared != nil {
				return nil, reason.Errorf("render nginx.conf: %s and %s both share the entry; only one can, give the other a port of its own", shared.Name,
					api.Name)
			}
			shared = api
			continue
		}
		if ports[api.Port] || api.Port < 1024 {
			return nil, reason.Errorf("render nginx.conf: port %d of %s is used already or below 1024", api.Port, api.Name)
		}
		ports[api.Port] = true
	}
	return shared, nil
}

func checkPath(name, path string) error {
	if !filepath.IsAbs(path) || strings.ContainsAny(path, " \t\r\n;{}\"'$#\\") {
		return reason.Errorf("render nginx.conf: %s is %q; it must be an absolute path without blanks and special characters", name, path)
	}
	return nil
}

func validName(name string) bool {
	if name == "" || len(name) > 32 || name[0] == '-' {
		return false
	}
	for _, r := range name {
		if r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

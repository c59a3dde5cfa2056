package proxy_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func config(apis ...proxy.API) proxy.Config {
	return proxy.Config{
		Entry: 8845, Middleware: "/run/bitbox-base/middleware.sock", PIDFile: "/run/bitbox-base-nginx/nginx.pid",
		Certificates: "/var/lib/bitbox-base/certificates", APIs: apis,
	}
}

// limited has an API that some networks reach.
func limited(port uint16, networks ...string) proxy.Config {
	api := proxy.API{Name: "electrum", Port: port, Upstream: electrum}
	for _, network := range networks {
		api.From = append(api.From, netip.MustParsePrefix(network))
	}
	return config(api)
}

var electrum = netip.MustParseAddrPort("127.0.0.1:50001")

func TestConfigurationIsAsReviewed(t *testing.T) {
	for name, c := range map[string]proxy.Config{
		"closed":  config(),
		"shared":  config(proxy.API{Name: "electrum", Upstream: electrum}),
		"own":     config(proxy.API{Name: "electrum", Port: 50002, Socket: "/run/bitbox-electrum/wallets.sock"}),
		"ownport": config(proxy.API{Name: "electrum", Port: 50002, Upstream: electrum}),
		"limited": limited(50002, "192.168.1.0/24", "fd00::/64"),
		"noipv6": {Entry: 8845, Middleware: "/run/bitbox-base/middleware.sock", PIDFile: "/run/bitbox-base-nginx/nginx.pid",
			Certificates: "/var/lib/bitbox-base/certificates", NoIPv6: true},
	} {
		got, err := proxy.Render(c)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".conf")
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

func TestImpossibleConfigurationsAreRefused(t *testing.T) {
	lan := netip.MustParseAddrPort("192.168.1.2:50001")
	socket := config()
	socket.Middleware = "/run/x; } server { listen 22"
	relative := config()
	relative.Certificates = "certificates"
	noEntry := config()
	noEntry.Entry = 0
	for name, c := range map[string]proxy.Config{
		"no entry":                     noEntry,
		"a directive in a path":        socket,
		"a relative path":              relative,
		"an upstream elsewhere":        config(proxy.API{Name: "electrum", Upstream: lan}),
		"a directive as socket":        config(proxy.API{Name: "electrum", Socket: "/run/x;"}),
		"no upstream":                  config(proxy.API{Name: "electrum"}),
		"two share the entry":          config(proxy.API{Name: "a", Upstream: electrum}, proxy.API{Name: "b", Upstream: electrum}),
		"the entry's port":             config(proxy.API{Name: "electrum", Port: 8845, Upstream: electrum}),
		"the inner port":               config(proxy.API{Name: "electrum", Port: proxy.InnerPort, Upstream: electrum}),
		"SSH's port":                   config(proxy.API{Name: "electrum", Port: 22, Upstream: electrum}),
		"host bits":                    limited(50002, "10.0.0.1/8"),
		"no network":                   config(proxy.API{Name: "electrum", Port: 50002, Upstream: electrum, From: []netip.Prefix{{}}}),
		"a network of the shared port": limited(0, "10.0.0.0/8"),
		"a reserved name":              config(proxy.API{Name: "middleware", Upstream: electrum}),
		"a directive as name":          config(proxy.API{Name: "x{}", Upstream: electrum}),
		"a path as name":               config(proxy.API{Name: "../x", Upstream: electrum}),
	} {
		if text, err := proxy.Render(c); err == nil {
			t.Errorf("%s: rendered\n%s", name, text)
		}
	}
}

// HTTP is the first thing that a stranger would try, and NGINX is made to speak it.
func TestNoConfigurationSpeaksHTTP(t *testing.T) {
	for _, c := range []proxy.Config{config(), config(proxy.API{Name: "electrum", Upstream: electrum})} {
		text, err := proxy.Render(c)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(line), "http") {
				t.Errorf("NGINX would speak HTTP: %s", line)
			}
		}
	}
}

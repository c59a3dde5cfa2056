//go:build linux

package window_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/wallets"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// screen is a page of the window.
type screen struct {
	name string
	// path of the page; {base} stands for the id of the Base.
	path string
	// shows is a text that tells that the page has all of its parts.
	shows string
}

// screens are those of a Base at which much goes on.
var screens = []screen{
	{"bases", "/bases", baseName},
	{"pair", "/pair", ""},
	{"overview", "/base/{base}/overview", "192.0.2.7"},
	{"security", "/base/{base}/security", "192.0.2.7"},
	{"node", "/base/{base}/node", "regtest"},
	{"services", "/base/{base}/services", ""},
	{"people", "/base/{base}/people", "Phone"},
	{"updates", "/base/{base}/updates", ""},
	{"log", "/base/{base}/log", ""},
	{"machine", "/base/{base}/machine", ""},
	{"settings", "/base/{base}/settings", ""},
}

// newLivelyHome is a home at which much goes on: a node with blocks, wallets, a ban, a finding, a
// second person, and something that is open.
func newLivelyHome(t *testing.T, options windowtest.Options) *home {
	t.Helper()
	h := &home{base: newBase(t)}
	own, peer := nodetest.StartBtcd(t, "regtest"), nodetest.StartBtcd(t, "regtest")
	peer.Generate(12)
	own.Connect(peer)
	nodetest.Serve(t, h.NodeSocket(), node.Config{Node: own.Node(), Interval: nodetest.Quick})
	options.Dir = h.pair("Laptop")
	windowtest.Pair(t, h.Appliance, "", "Phone", basev1.Role_ROLE_VIEWER)
	upstream, _ := generation.UpstreamOf(posture.KindElectrum, generation.ThisMachine())
	h.Machine.Listening(upstream)
	h.Machine.Connected(wallets.Connection{Cookie: 1, Peer: netip.MustParseAddrPort("192.168.1.20:40000")})
	h.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	h.Machine.SetDisks(&basev1.Disk{Name: "sda", Id: strings.Repeat("a1", 16), Model: "CT2000MX500SSD1", SerialEnd: "A1B2",
		SizeBytes: 2_000_398_934_016, Bus: "sata", Health: &basev1.DiskHealth{Verdict: basev1.DiskHealth_VERDICT_GOOD}})
	for _, unit := range []string{"nginx", "bitbox-base-system"} {
		_ = h.Services.Log(unit, "it has started", 6) // a service of another name is one log less
	}
	h.app = windowtest.Start(t, options)
	h.run("expose", "electrum", "--for", "1h", "--yes")
	h.run("ssh", "keys", "add", key, "--yes")
	h.drift() // last: it puts the helper's clock ahead, and no try is confirmed by a connection from before
	h.run("audit")
	h.browser = chromiumtest.Start(t, chromiumtest.Options{})
	h.tab = h.browser.Tab()
	h.app.Open(h.tab)
	h.tab.AwaitText(baseName)
	return h
}

// drift has the audit find something that it can repair.
func (b *base) drift() {
	b.Machine.Drift(&basev1.Finding{Id: "ssh-settings", Severity: basev1.Finding_SEVERITY_WARNING,
		Title: "sshd runs with settings that are not the Base's", Expected: "PasswordAuthentication no", Found: "PasswordAuthentication yes",
		Why: "Somebody could guess a password.", Fix: "The Base writes its own settings of SSH again.", Fixable: true})
	b.Advance(time.Minute) // the helper reports for a while what it has just found
}

// run runs a command of the same App.
func (h *home) run(arguments ...string) string {
	h.t.Helper()
	out, err := h.app.Command(arguments...).CombinedOutput()
	if err != nil && !strings.HasPrefix(arguments[0], "audit") { // whose code tells of findings
		h.t.Fatalf("bitbox-app %q: %v: %s", arguments, err, out)
	}
	return string(out)
}

// show goes to a screen and waits until it is complete.
func (h *home) show(s screen) {
	h.t.Helper()
	h.tab.Open(h.app.Origin() + strings.Replace(s.path, "{base}", h.id(), 1))
	h.tab.AwaitText(s.shows)
}

// The pages of a Base at which much goes on are as those that are made of known states
// (TestAxeFindsNothingSeriousOnAnyPageInAnyState), but with all that a real Base says.
func TestAxeFindsNothingSeriousOnAnyScreenOfALivelyBase(t *testing.T) {
	chromiumtest.RequireAxe(t)
	h := newLivelyHome(t, windowtest.Options{})
	for _, s := range screens {
		h.show(s)
		for _, scheme := range []string{"light", "dark"} {
			h.tab.Scheme(scheme)
			for _, v := range h.tab.Axe() {
				t.Errorf("%s, %s: %s (%s): %s", s.name, scheme, v.ID, v.Impact, strings.Join(v.Elements, "\n"))
			}
		}
		portray(t, h.tab, s.name)
	}
}

// These are the bytes and requests that a browser needs to show a first page. `make bench` prints them.
func TestTheFirstPageIsSmall(t *testing.T) {
	const mostBytes, mostRequests = 150_000, 5
	h := newHome(t, windowtest.Options{})
	overview := h.tab.Path()
	for _, path := range []string{overview, "/pair", "/bases"} {
		h.tab.Requests()
		h.tab.Open(h.app.Origin() + path)
		h.tab.AwaitRequest("/stream")
		h.tab.Await("the page is never complete", `document.readyState === "complete"`)
		bytes, requests := 0, h.tab.Requests()
		for _, r := range requests {
			bytes += r.Bytes
		}
		t.Logf("%s: %d bytes in %d requests", path, bytes, len(requests))
		if bytes > mostBytes || len(requests) > mostRequests || bytes < 10_000 || len(requests) < 3 {
			t.Errorf("%s takes %d bytes in %d requests: %v", path, bytes, len(requests), requests)
		}
	}
}

package repository

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// group is a folder of packages with one privilege, and what they may import of this
// module. The privilege boundary shows here: what faces the network imports neither the
// helper nor os/exec, and the helper imports nothing that parses what comes from the
// network.
type group struct {
	folder string
	// may lists folders of which all packages may be imported, beside the group's own.
	may []string
	// risky lists packages of the table risky that the group may import.
	risky []string
	// forTests: only tests, and the programs that show or measure a Base, import it.
	forTests bool
}

// groups has a row for each. A package belongs to the row with the longest folder that
// holds it.
var groups = []group{
	// The API, and small packages that everybody shares.
	{folder: "api", may: []string{"internal/protocol"}, risky: []string{"unsafe"}}, // generated
	{folder: "internal/atomicfile"},
	{folder: "internal/bootdisk"},
	{folder: "internal/boottime"},
	{folder: "internal/bounded"},
	{folder: "internal/commandline", may: []string{"internal/timespan"}},
	{folder: "internal/digits"},
	{folder: "internal/failpoint"},
	{folder: "internal/harmless"},
	{folder: reasons, may: []string{"internal/harmless"}},
	{folder: "internal/rootfile"},
	{folder: "internal/secret"},
	{folder: "internal/timespan"},
	{folder: "internal/version"},
	{folder: "internal/ipc"},
	{folder: "internal/backlog", may: []string{"api"}},
	// Releases of Bitcoin Core. gpgv reads their signatures.
	{folder: "internal/bitcoincore", may: []string{"internal/rootfile"}},
	{folder: "internal/bitcoincore/verify", may: []string{
		"internal/atomicfile", "internal/bitcoincore", "internal/bounded", "internal/failpoint", "internal/rootfile",
	}, risky: []string{"os/exec"}},
	{folder: "internal/state", may: []string{"internal/atomicfile"}},
	// The rules that App and Base share.
	{folder: "internal/protocol", may: []string{"api", "internal/atomicfile", "internal/secret"}},
	// Names and addresses on the local network.
	{folder: "internal/discovery", may: []string{"internal/protocol"}, risky: []string{"golang.org/x/net"}},
	// Root. No package here opens a port or parses what a stranger sends.
	{folder: "internal/helper", may: []string{
		"api", "internal/atomicfile", "internal/backlog", "internal/bitcoincore", "internal/bootdisk", "internal/bounded",
		"internal/failpoint", "internal/harmless", "internal/helperclient", "internal/ipc",
		"internal/node/settings", // which node the Base runs: a table, and files of root's
		"internal/protocol", "internal/rootfile", "internal/secret", "internal/state", "internal/timespan",
		"internal/version", "packaging",
	}, risky: []string{"os/exec"}},
	// Quotas of projects, which only ioctl and quotactl set.
	{folder: "internal/helper/quota", risky: []string{"unsafe"}},
	// The one way to the helper.
	{folder: "internal/helperclient", may: []string{"api", "internal/ipc", "internal/protocol"}},
	// The Bitcoin node, a guest. It speaks HTTP to a program that strangers speak to.
	{folder: "internal/node", may: []string{"api", "internal/backlog", "internal/bitcoincore", "internal/harmless", "internal/ipc",
		"internal/rootfile", "internal/timespan"},
		risky: []string{"net/http", "crypto/tls"}},
	// Answers wallets, who are strangers, from what the node says.
	{folder: "internal/electrum", may: []string{"api", "internal/failpoint", "internal/node", "internal/version"},
		risky: []string{"net/http"}},
	{folder: "internal/nodeclient", may: []string{"api", "internal/backlog", "internal/harmless", "internal/ipc"}},
	{folder: "cmd/bitbox-node", may: []string{
		"api", "internal/commandline", "internal/electrum", "internal/harmless", "internal/ipc", "internal/node",
		"internal/nodeclient", "internal/timespan", "internal/version",
	}, risky: []string{"os/exec"}},
	// Faces the network, without privilege.
	{folder: "internal/middleware", may: []string{
		"api", "internal/backlog", "internal/boottime", "internal/failpoint", "internal/helperclient", "internal/nodeclient",
		"internal/protocol", "internal/state", "internal/version",
	}},
	// A whole Base in one process, for a developer.
	{folder: "internal/devbase", may: []string{
		"api", "internal/console", "internal/discovery", "internal/failpoint", "internal/helper/timezone", "internal/ipc", "internal/middleware",
		"internal/nodeclient", "internal/protocol", "internal/secret", "internal/state",
	}},
	// The Base's screen.
	{folder: "internal/console", may: []string{"api", "internal/digits", "internal/protocol"}, risky: []string{"unsafe"}}, // buttons
	// The owner's computer.
	{folder: "client", may: []string{"api", "internal/atomicfile", "internal/bitcoincore", "internal/bootdisk", "internal/discovery",
		"internal/protocol", "internal/secret", "internal/state"}},
	{folder: "internal/app"},
	// It checks headers and transactions by the same rules as the server for wallets reads them.
	{folder: "internal/app/proof", may: []string{"internal/electrum/chain"}},
	// Only the App fetches releases; the Base calls nobody.
	{folder: "internal/app/releases", may: []string{"internal/atomicfile", "internal/protocol"}, risky: []string{"net/http"}},
	// It begins TLS, as a wallet does.
	{folder: "internal/app/walletcheck", may: []string{"api"}, risky: []string{"crypto/tls"}},
	{folder: "cmd/bitbox-app", may: []string{"api", "client", "cmd/bitbox-app/window", "internal/app", "internal/commandline",
		"internal/digits", "internal/protocol", "internal/timespan", "internal/version"}},
	// Pictures are made of values alone.
	{folder: "cmd/bitbox-app/window/picture", may: []string{"internal/app/qrcode"}, risky: []string{"html"}},
	// The page for the owner, on the owner's computer.
	{folder: "cmd/bitbox-app/window", may: []string{"api", "client", "cmd/bitbox-app/owner", "cmd/bitbox-app/window/browser",
		"cmd/bitbox-app/window/pages", "cmd/bitbox-app/window/peer", "cmd/bitbox-app/words", "internal/atomicfile",
		"internal/state", "internal/timespan"}, risky: []string{"net/http"}},
	{folder: "cmd/bitbox-app/window/browser", risky: []string{"os/exec"}},
	{folder: "cmd/bitbox-app/window/peer", risky: []string{"unsafe"}}, // the table of connections of Windows
	// The pages are made of values alone.
	{folder: "cmd/bitbox-app/window/pages", may: []string{
		"api", "cmd/bitbox-app/curves", "cmd/bitbox-app/owner", "cmd/bitbox-app/window/picture", "cmd/bitbox-app/window/static",
		"cmd/bitbox-app/words", "client", "internal/protocol",
	}, risky: []string{"html"}},
	// The Base's program, which plays each part of the Base.
	{folder: "cmd/bitbox-base", may: []string{
		"api", "internal/bitcoincore", "internal/boottime", "internal/commandline", "internal/console", "internal/devbase", "internal/helper",
		"internal/helperclient", "internal/ipc", "internal/middleware", "internal/node/settings", "internal/nodeclient",
		"internal/protocol", "internal/state",
		"internal/version",
	}},
	// The builders of packages and images.
	{folder: "packaging"},
	{folder: "packaging/bitcoincore", may: []string{"internal/bitcoincore"}},
	{folder: "packaging/manual", may: []string{"internal/version"}},
	{folder: "packaging/release", may: []string{"internal/atomicfile", "internal/helper/slot/verity", "internal/protocol", "internal/version"},
		risky: []string{"os/exec"}},
	{folder: "image", may: []string{"internal/atomicfile", "internal/bootdisk", "internal/helper", "internal/testbed/debianroot"},
		risky: []string{"os/exec"}},
	{folder: "image/initrd", may: []string{"internal/atomicfile", "internal/bootdisk", "internal/helper/slot/gpt"},
		risky: []string{"os/exec", "unsafe"}}, // dm-verity
	// Tests, and programs that show or measure a Base. They may import anything.
	{folder: "internal/testbed", may: []string{""}, risky: risky, forTests: true},
	{folder: "internal/middleware/registry/registrytest", may: []string{""}, forTests: true},
	{folder: "internal/state/killtest", risky: []string{"os/exec", "unsafe"}, forTests: true},
	{folder: "test", may: []string{""}, risky: risky, forTests: true},
	{folder: "appliance", may: []string{""}, risky: risky, forTests: true},
	{folder: "bench", may: []string{""}, risky: risky, forTests: true},
	{folder: "demo", may: []string{""}, risky: risky, forTests: true},
}

// risky are packages outside this module that run programs, parse much of what the network
// sends, or step around the type system. Folders stand for all that is in them.
var risky = []string{"os/exec", "net/http", "net/rpc", "net/smtp", "net/textproto", "crypto/tls", "html", "plugin", "text/template",
	"unsafe", "golang.org/x/net"}

// exceptions are imports that the table forbids and that are there, each with the reason.
var exceptions = map[string]string{}

// reasons is the package that makes errors. Every package may import it.
const reasons = "internal/reason"

// within tells whether a package is in a folder.
func within(pkg, folder string) bool {
	return folder == "" || pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

// groupOf returns the row of a package.
func groupOf(pkg string) (found group, ok bool) {
	for _, g := range groups {
		if within(pkg, g.folder) && len(g.folder) >= len(found.folder) {
			found, ok = g, true
		}
	}
	return found, ok
}

// forbidden tells why a package may not import another one, "" if it may.
func forbidden(g group, imported string, ours bool) string {
	if !ours {
		if slices.ContainsFunc(risky, func(r string) bool { return within(imported, r) }) &&
			!slices.ContainsFunc(g.risky, func(r string) bool { return within(imported, r) }) {
			return "it is risky, and the row of " + g.folder + " does not list it"
		}
		if imported == "testing" && !g.forTests {
			return g.folder + " is no test"
		}
		return ""
	}
	of, ok := groupOf(imported)
	switch {
	case !ok:
		return "no row has it"
	case of.forTests && !g.forTests && !slices.Contains(g.may, imported):
		return of.folder + " is for tests"
	case of.folder == g.folder, of.folder == reasons:
		return ""
	case !slices.ContainsFunc(g.may, func(folder string) bool { return within(imported, folder) }):
		return "the row of " + g.folder + " does not list it"
	}
	return ""
}

func TestEachPackageImportsOnlyWhatItsPrivilegeAllows(t *testing.T) {
	unneeded := maps.Clone(exceptions)
	used := map[string]bool{}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		patterns := []string{"./..."}
		if goos != "linux" {
			patterns = []string{"./client/...", "./cmd/bitbox-app/..."}
		}
		for _, p := range goList(t, []string{"GOOS=" + goos, "CGO_ENABLED=0"}, patterns...) {
			pkg := strings.TrimPrefix(p.ImportPath, module+"/")
			g, ok := groupOf(pkg)
			if !ok {
				t.Errorf("%s is in no row of the table", pkg)
				continue
			}
			used[g.folder] = true
			for _, path := range p.Imports {
				imported, ours := strings.CutPrefix(path, module+"/")
				for _, folder := range slices.Concat(g.may, g.risky) {
					if within(imported, folder) {
						used[g.folder+" "+folder] = true
					}
				}
				why := forbidden(g, imported, ours)
				if why == "" {
					continue
				}
				if _, excepted := exceptions[pkg+" "+imported]; excepted {
					delete(unneeded, pkg+" "+imported)
					continue
				}
				t.Errorf("%s imports %s: %s", pkg, imported, why)
			}
		}
	}
	// A permission that nobody needs would let the next import in unseen.
	for exception := range unneeded {
		t.Errorf("the exception %q is no longer needed", exception)
	}
	for _, g := range groups {
		if !used[g.folder] {
			t.Errorf("the row of %s has no package", g.folder)
		}
		if g.forTests {
			continue
		}
		for _, folder := range slices.Concat(g.may, g.risky) {
			if !used[g.folder+" "+folder] {
				t.Errorf("the row of %s lists %s, which nobody there imports", g.folder, folder)
			}
		}
	}
}

func TestTheTableOfImportsRefusesWhatCrossesTheBoundary(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ours          bool
	}{
		{"internal/middleware/api", "os/exec", false},
		{"internal/middleware/daemon", "internal/helper/system", true},
		{"internal/middleware/daemon", "internal/testbed/netnstest", true},
		{"internal/helper/apply", "net/http", false},
		{"internal/nodeclient", "net/http", false},
		{"internal/middleware/api", "internal/node/core", true},
		{"internal/node/core", "os/exec", false},
		{"internal/helper/apply", "golang.org/x/net/dns/dnsmessage", false},
		{"internal/helper/apply", "internal/middleware/admission", true},
		{"internal/protocol/noiseconn", "internal/helper/host", true},
		{"internal/protocol/noiseconn", "os/exec", false},
		{"cmd/bitbox-app", "internal/helper/generation", true},
		{"cmd/bitbox-app", "internal/new", true},
	} {
		g, _ := groupOf(c.pkg)
		if forbidden(g, c.imported, c.ours) == "" {
			t.Errorf("%s may import %s", c.pkg, c.imported)
		}
	}
}

//go:build linux

package window_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// newHomeWithBtcd is a home whose Base runs btcd on regtest.
func newHomeWithBtcd(t *testing.T) *home {
	t.Helper()
	b := newBase(t)
	own := nodetest.StartBtcd(t, "regtest")
	own.Generate(2)
	nodetest.Serve(t, b.NodeSocket(), node.Config{Node: own.Node(), Interval: nodetest.Quick})
	return newHomeAt(t, b, windowtest.Options{})
}

// types answers a question that wants a sentence.
func (h *home) types(sentence string) {
	h.t.Helper()
	h.tab.AwaitPath("/deed/")
	h.tab.Await("it asks for a sentence", `document.querySelector("#typed")`)
	h.tab.Type("#typed", sentence)
	windowtest.Yes(h.tab)
}

func TestTheNodeGetsOtherSettings(t *testing.T) {
	h := newHomeWithBtcd(t)
	h.visit("node")
	h.tab.AwaitText(say("node.settings.builder"))
	h.tab.Type("#node-cache", "500")
	h.press("node-settings")
	h.tab.AwaitText("500")
	h.agrees()
	h.visit("node")
	h.tab.AwaitText(say("node.settings.signed"))
	if got := h.run("node", "settings"); !strings.Contains(got, "500") {
		t.Errorf("the settings are %s", got)
	}
	// The same settings again are no change.
	h.tab.Type("#node-cache", "500")
	h.press("node-settings")
	if windowtest.Ended(h.tab) {
		t.Error("the same settings are changed")
	}
}

func TestBitcoinCoreIsInstalledFromFilesThatEnoughPeopleHaveSigned(t *testing.T) {
	signed := coretest.New(t)
	h := newHomeWithBtcd(t)
	h.Signers = signed.List(coretest.Builders...)
	install := func(by ...string) (done bool) {
		archive := filepath.Join(chromiumtest.Home(t, chromiumtest.UserID), coretest.Name("31.0"))
		release := signed.Write("31.0", by...)
		for from, to := range map[string]string{release: archive,
			filepath.Join(filepath.Dir(release), "SHA256SUMS"):     filepath.Join(filepath.Dir(archive), "SHA256SUMS"),
			filepath.Join(filepath.Dir(release), "SHA256SUMS.asc"): filepath.Join(filepath.Dir(archive), "SHA256SUMS.asc")} {
			content, err := os.ReadFile(from)
			if err = errors.Join(err, os.WriteFile(to, content, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		h.visit("node")
		h.tab.Attach("#core-archive", archive)
		h.tab.Attach("#core-sums", filepath.Join(filepath.Dir(archive), "SHA256SUMS"))
		h.tab.Attach("#core-signatures", filepath.Join(filepath.Dir(archive), "SHA256SUMS.asc"))
		h.press("install-core")
		h.tab.AwaitText("31.0")
		windowtest.Yes(h.tab)
		return windowtest.Ended(h.tab)
	}
	if install("ann") {
		t.Error("a release that one person has signed is installed")
	}
	if !install("ann", "bob", "cyd") {
		t.Fatalf("it is not installed:\n%s", h.tab.Text())
	}
	h.tab.AwaitText("31.0")
	if programs, err := os.ReadDir(h.BitcoinCore()); err != nil || len(programs) == 0 {
		t.Errorf("the Base has %d programs of it, %v", len(programs), err)
	}
	if left, _ := filepath.Glob(filepath.Join(h.app.Dir(), "upload-*")); len(left) > 0 {
		t.Errorf("the App keeps %q", left)
	}
}

// rebuilds types the name of the Base, wrongly at first, and returns the order that reaches the node.
func (h *home) rebuilds(kind owner.DeedKind) string {
	h.t.Helper()
	name := h.Effective().NodeName
	h.visit("node")
	h.press(kind.String())
	h.types("no " + name)
	if windowtest.Ended(h.tab) {
		h.t.Error("another name is enough")
	}
	if _, err := os.Stat(h.Rebuild()); !errors.Is(err, fs.ErrNotExist) {
		h.t.Errorf("another name orders it: %v", err)
	}
	h.visit("node")
	h.press(kind.String())
	h.types(name)
	if !windowtest.Ended(h.tab) {
		h.t.Fatalf("it is not ordered:\n%s", h.tab.Text())
	}
	order, err := os.ReadFile(h.Rebuild())
	if err != nil {
		h.t.Error(err)
	}
	return string(order)
}

func TestBtcdDownloadsItsBlocksAgainAndIsNotToReadThem(t *testing.T) {
	h := newHomeWithBtcd(t)
	h.visit("node")
	h.tab.AwaitText(say("node.rebuild.download"))
	if h.tab.Shows(say("deed.title.reindex")) {
		t.Error("btcd is offered what it cannot do")
	}
	if order := h.rebuilds(owner.Resync); !strings.Contains(order, `"resync":true`) {
		t.Errorf("the order is %s", order)
	}
}

func TestBitcoinCoreReadsItsBlocksAgain(t *testing.T) {
	d := nodetest.StartDocumented(t, nodetest.DocumentedVersions[0])
	answers, err := core.New(core.Config{Address: d.Address, Cookie: d.Cookie, Network: basev1.Network_NETWORK_MAINNET})
	if err != nil {
		t.Fatal(err)
	}
	b := newBase(t)
	nodetest.Serve(t, b.NodeSocket(), node.Config{Node: answers, Interval: nodetest.Quick})
	h := newHomeAt(t, b, windowtest.Options{})
	if order := h.rebuilds(owner.Reindex); order == "" || strings.Contains(order, `"resync":true`) {
		t.Errorf("the order is %s", order)
	}
}

func TestAFactoryResetTakesTheChainOnlyIfItsBoxIsTickedAndThatIsTyped(t *testing.T) {
	h := newHomeWithBtcd(t)
	helper, _ := h.Directories()
	name := h.Effective().NodeName
	begin := func() {
		h.visit("settings")
		h.tab.Click("input[name=erase]")
		h.press("factory-reset")
		h.types(name)
		h.tab.AwaitText(owner.EraseWords().String())
	}
	begin()
	h.types("erase nothing")
	if windowtest.Ended(h.tab) {
		t.Error("another sentence is enough")
	}
	if _, ordered := factoryreset.Ordered(helper); ordered {
		t.Fatal("another sentence wipes the Base")
	}
	begin()
	h.types(owner.EraseWords().String())
	if !windowtest.Ended(h.tab) {
		t.Fatalf("it is not done:\n%s", h.tab.Text())
	}
	if record, ordered := factoryreset.Ordered(helper); !ordered || !record.EraseChain {
		t.Errorf("ordered: %t, %+v", ordered, record)
	}
}

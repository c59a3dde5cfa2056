//go:build linux

package window_test

import (
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// base is an appliance in this process.
type base struct {
	*appliancetest.Appliance
	t *testing.T
}

func newBase(t *testing.T) *base {
	t.Helper()
	return newBaseThrough(t, nil)
}

// newBaseThrough is newBase with something between Middleware and helper.
func newBaseThrough(t *testing.T, through func(helperclient.Port) helperclient.Port) *base {
	t.Helper()
	a, err := appliancetest.Start(through)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Errorf("stop the Base: %v", err)
		}
	})
	return &base{a, t}
}

// pair pairs an owner's App, and returns its folder.
func (b *base) pair(name string) string {
	b.t.Helper()
	return windowtest.Pair(b.t, b.Appliance, "", name, basev1.Role_ROLE_OWNER)
}

// display is a person at the screen of the Base.
func (b *base) display() display {
	return display{b.t, helperclient.Client{Port: b.Port(caller.Console)}.Authority()}
}

// home is a Base, its owner's App with an open window, and the browser.
type home struct {
	*base
	app     *windowtest.App
	browser *chromiumtest.Browser
	tab     *chromiumtest.Tab
	baseID  string // what the window calls the Base in its paths, once it was asked
}

// newHome starts all of it, and waits until the window shows the Base. The arguments are the
// browser's.
func newHome(t *testing.T, options windowtest.Options, arguments ...string) *home {
	t.Helper()
	return newHomeAt(t, newBase(t), options, arguments...)
}

// newHomeAt is newHome with a Base that is there.
func newHomeAt(t *testing.T, b *base, options windowtest.Options, arguments ...string) *home {
	t.Helper()
	h := &home{base: b}
	options.Dir = h.pair("laptop")
	h.app = windowtest.Start(t, options)
	h.browser = chromiumtest.Start(t, chromiumtest.Options{Arguments: arguments})
	h.tab = h.browser.Tab()
	h.app.Open(h.tab)
	h.tab.AwaitText(baseName)
	return h
}

// baseName is what the App calls the Base.
const baseName = windowtest.BaseName

// id is what the window calls the Base in its paths.
func (h *home) id() string {
	h.t.Helper()
	if h.baseID != "" {
		return h.baseID
	}
	h.tab.Await("there is a link to the Base", `document.querySelector("a[href^='/base/']")`)
	path := chromiumtest.Eval[string](h.tab, `document.querySelector("a[href^='/base/']").getAttribute("href")`)
	h.baseID, _, _ = strings.Cut(strings.TrimPrefix(path, "/base/"), "/")
	return h.baseID
}

// visit goes to a page of the Base.
func (h *home) visit(page string) {
	h.t.Helper()
	h.tab.Open(h.app.Origin() + "/base/" + h.id() + "/" + page)
}

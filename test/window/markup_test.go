//go:build linux

package window_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// markup is a text that runs a script where a browser takes it for a part of the page. It is short enough
// for a name.
const markup = `<img src=x onerror=window.ran=1>`

// unescaped is an App that takes all texts for parts of the page. lax is one without the policy that
// forbids scripts in the page.
var (
	unescaped = windowtest.Change{File: "cmd/bitbox-app/window/pages/pages.go", Old: `return template.HTML(inOrder(b.String()))`,
		New: `return template.HTML(strings.NewReplacer("&lt;", "<", "&gt;", ">").Replace(inOrder(b.String())))`}
	lax = windowtest.Change{File: "cmd/bitbox-app/window/server.go", Old: `"Content-Security-Policy":      policy,`, New: ``}
)

// shown is what a hostile Base has brought into the pages.
type shown struct {
	ran      bool     // a script of its own
	elements int      // elements of its own
	refused  []string // what the browser has refused
}

// look adds what the present page shows.
func (s *shown) look(tab *chromiumtest.Tab) {
	s.ran = s.ran || chromiumtest.Eval[bool](tab, "window.ran === 1")
	s.elements += chromiumtest.Eval[int](tab, `document.querySelectorAll("[onerror], [src=x]").length`)
	s.refused = append(s.refused, tab.Complaints()...)
}

// tellMarkup is a Base that says the markup wherever it can: its own name, that of an App, what the
// audit finds, why an address is banned, a disk, a log, and an event that arrives while the page is open.
func tellMarkup(t *testing.T, program string) (s shown) {
	b := newBase(t)
	b.Machine.SetDisks(&basev1.Disk{Name: "sda", Id: strings.Repeat("a1", 16), Model: markup, Bus: "sata", SizeBytes: 1 << 40})
	b.Machine.Ban(bruteforce.Ban{Jail: markup, Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	b.Machine.Drift(&basev1.Finding{Id: "ssh-settings", Severity: basev1.Finding_SEVERITY_WARNING, Title: markup, Expected: markup,
		Found: markup, Why: markup, Fix: markup, Fixable: true})
	if err := b.Services.Log("nginx", markup, 6); err != nil {
		t.Fatal(err)
	}
	h := &home{base: b}
	dir := windowtest.PairAs(t, b.Appliance, "", markup, markup, basev1.Role_ROLE_OWNER)
	h.app = windowtest.Start(t, windowtest.Options{Dir: dir, Program: program})
	h.run("audit")
	h.browser = chromiumtest.Start(t, chromiumtest.Options{})
	h.tab = h.browser.Tab()
	h.app.Open(h.tab)
	shows := func(path string) {
		h.tab.Open(h.app.Origin() + strings.Replace(path, "{base}", h.id(), 1))
		h.tab.Await("the page shows the text, or takes it for an element",
			`document.body.innerText.includes(`+quote(markup)+`) || document.querySelector("main [onerror]")`)
		s.look(h.tab)
	}
	h.id()
	for _, path := range []string{"/bases", "/base/{base}/overview", "/base/{base}/security", "/base/{base}/people",
		"/base/{base}/machine", "/base/{base}/services?service=nginx"} {
		shows(path)
	}
	// The event comes by the stream, and is merged into the page.
	h.visit("overview")
	h.tab.AwaitPath("/base/")
	before := chromiumtest.Eval[int](h.tab, count)
	windowtest.Pair(t, b.Appliance, "", strings.Replace(markup, "x ", "y ", 1), basev1.Role_ROLE_VIEWER)
	h.tab.Await("the page shows an App of another name", count+" > 0")
	if before != 0 {
		t.Error("the page had that before; this test proves nothing")
	}
	s.look(h.tab)
	return s
}

// count is how often the page shows the name that comes by the stream, or has it as an element.
const count = `(document.body.innerText.split("src=y").length - 1 + document.querySelectorAll("[src=y]").length)`

func TestNoTextOfABaseOrAnAppBecomesAPartOfThePage(t *testing.T) {
	t.Run("as it is", func(t *testing.T) {
		if s := tellMarkup(t, windowtest.Build(t)); s.ran || s.elements > 0 || len(s.refused) > 0 {
			t.Errorf("a script ran: %t, there are %d elements, and the browser refuses %q", s.ran, s.elements, s.refused)
		}
	})
	t.Run("broken: texts are not escaped", func(t *testing.T) {
		if s := tellMarkup(t, windowtest.Build(t, unescaped)); s.ran || s.elements == 0 || len(s.refused) == 0 {
			t.Errorf("a script ran: %t, there are %d elements, and the browser refuses %q", s.ran, s.elements, s.refused)
		}
	})
	t.Run("broken: nor is there a policy", func(t *testing.T) {
		if s := tellMarkup(t, windowtest.Build(t, unescaped, lax)); !s.ran {
			t.Error("no script runs without the defences as well; this test proves nothing")
		}
	})
}

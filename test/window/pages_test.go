//go:build linux

package window_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

var screenshots = flag.String("screenshots", "", "write a picture of each page into this folder (make screenshots)")

// widths are those of a telephone, a small laptop and a wide screen, in CSS pixels.
var widths = []int64{360, 1024, 1600}

// madePages are the pages that the tests of package pages make, of each screen in each state of a
// Base, also in those that are hard to come by. It returns where they are served, and their names.
func madePages(t *testing.T) (origin string, names []string) {
	t.Helper()
	folder := t.TempDir()
	// The outcome of these tests counts elsewhere.
	out, _ := exec.Command("go", "test", "-count=1", "../../cmd/bitbox-app/window/pages", "-args", "-preview", folder).CombinedOutput()
	all, err := filepath.Glob(filepath.Join(folder, "*.html"))
	if err != nil || len(all) == 0 {
		t.Fatalf("there are no pages (%v): %s", err, out)
	}
	for _, path := range all {
		names = append(names, strings.TrimSuffix(filepath.Base(path), ".html"))
	}
	slices.Sort(names)
	files := http.FileServer(http.Dir(folder))
	return serve(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		if r.URL.Path == "/stream" || r.URL.Path == "/tab" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		files.ServeHTTP(w, r)
	}), names
}

// A person who cannot see, cannot use a mouse, or sees little contrast, must get at everything.
func TestAxeFindsNothingSeriousOnAnyPageInAnyState(t *testing.T) {
	chromiumtest.RequireAxe(t)
	origin, names := madePages(t)
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	found := map[string][]string{} // the pages with it, by what is found
	for _, name := range names {
		if strings.HasSuffix(name, ".de") {
			continue // it has the same structure and colours
		}
		tab.Open(origin + "/" + name + ".html")
		windowtest.Read(tab)
		for _, scheme := range []string{"light", "dark"} {
			tab.Scheme(scheme)
			for _, v := range tab.Axe() {
				for _, element := range v.Elements {
					key := fmt.Sprintf("%s (%s): %s", v.ID, v.Impact, element)
					found[key] = append(found[key], name+" "+scheme)
				}
			}
		}
	}
	for what, on := range found {
		t.Errorf("%s\non %q", what, on)
	}
}

// Nobody needs a mouse. The key that leaps over the links comes first, and it shows where the focus is.
func TestAChangeIsMadeByKeyboardAlone(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.visit("people")
	h.tab.AwaitText(say("people.window.do"))
	goTo := func(selector string) {
		t.Helper()
		for range 100 {
			h.tab.Keys(kb.Tab)
			if chromiumtest.Eval[bool](h.tab, "document.activeElement.matches("+quote(selector)+")") {
				if outline := chromiumtest.Eval[string](h.tab, "getComputedStyle(document.activeElement).outlineStyle"); outline != "solid" {
					t.Errorf("%s has the focus, and its outline is %s", selector, outline)
				}
				return
			}
		}
		t.Fatalf("the key Tab never comes to %s", selector)
	}
	h.tab.Keys(kb.Tab)
	if !chromiumtest.Eval[bool](h.tab, "document.activeElement.matches('.skip')") {
		t.Error("the link that leaps over the others does not come first")
	}
	h.tab.Keys(kb.Enter)
	goTo("#window-role")
	h.tab.Keys("v") // viewer
	h.tab.Await("the list has what was typed", `document.activeElement.value === "viewer"`)
	goTo(`form[action*="/deed/open-window"] button`)
	h.tab.Keys(kb.Enter)
	h.tab.AwaitPath("/deed/")
	h.tab.Await("there is a question", `document.querySelector("[data-dead]")`)
	windowtest.Read(h.tab)
	goTo("[data-dead]")
	h.tab.Keys(" ")
	if !windowtest.Ended(h.tab) {
		t.Fatalf("it is not done:\n%s", h.tab.Text())
	}
	goTo("[data-say=end] ~ .acts a")
	h.tab.Keys(kb.Enter)
	h.tab.AwaitPath("/base/")
	h.tab.AwaitText(say("people.window.role", say("pair.role.viewer")))
}

// Nobody has to move a page sideways.
func TestEachPageFitsItsWindowInEachState(t *testing.T) {
	origin, names := madePages(t)
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	for _, name := range names {
		tab.Open(origin + "/" + name + ".html")
		if pictured.MatchString(name) {
			portray(t, tab, "made-"+name)
		} else {
			fits(t, tab, name, "")
		}
	}
}

// pictured are the pages of which there are pictures: each screen once, and the steps of a change.
var pictured = regexp.MustCompile(`^(home-base-.*|lost-base-.*-overview|open-base-.*-(overview|security)|several-bases|nearby-pair|` +
	`(requesting|pairing|waiting|consenting|sending|stopped|finished)-deed-1|enter|locked)\.(en|de)$`)

// keep writes a picture of a page, if somebody wants them.
func keep(t *testing.T, tab *chromiumtest.Tab, name string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	err := os.MkdirAll(*screenshots, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(*screenshots, name+".png"), tab.Picture(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fits checks at each width that nobody has to move the page sideways, and keeps a picture.
func fits(t *testing.T, tab *chromiumtest.Tab, name, picture string) {
	t.Helper()
	for _, width := range widths {
		tab.Size(width, 800)
		if wide := chromiumtest.Eval[int64](tab, "document.documentElement.scrollWidth"); wide > width {
			t.Errorf("%s is %d pixels wide in a window of %d: %s", name, wide, width, widest(tab, width))
		}
		if picture != "" {
			keep(t, tab, fmt.Sprintf("%s-%d", picture, width))
		}
	}
}

// portray is fits in both schemes, with pictures.
func portray(t *testing.T, tab *chromiumtest.Tab, name string) {
	t.Helper()
	for _, scheme := range []string{"dark", "light"} {
		tab.Scheme(scheme)
		fits(t, tab, name, name+"-"+scheme)
	}
	tab.Size(1024, 768)
}

// widest is the innermost element that a window of this width does not hold.
func widest(tab *chromiumtest.Tab, width int64) string {
	return chromiumtest.Eval[string](tab, fmt.Sprintf(`[...document.querySelectorAll("main *, header *, nav *")]
		.filter((e) => e.getBoundingClientRect().right > %d).map((e) => e.outerHTML.slice(0, 160)).slice(-1)[0] || ""`, width))
}

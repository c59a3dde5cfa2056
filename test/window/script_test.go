//go:build linux

package window_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/static"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
)

// desk is in the place of the window's server: it sends what a test wants.
type desk struct {
	t      *testing.T
	origin string
	// script replaces the window's, if it is not empty.
	script []byte
	proof  [32]byte

	mu      sync.Mutex
	page    pages.Page
	streams map[chan string]bool // that are open
	opened  int
	tab     int      // the status of POST /tab
	asked   int      // how often POST /tab came
	posts   []string // the paths of forms that were sent
}

// policy is that of the window (TestTheServersPolicyIsTheOneOfTheTests).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types window"

// newDesk serves a page with one live part.
func newDesk(t *testing.T, html string) *desk {
	t.Helper()
	d := &desk{t: t, proof: [32]byte{1}, streams: map[chan string]bool{}, tab: http.StatusNoContent, script: static.Script.Content,
		page: pages.Page{Title: "A page", Parts: []pages.Part{{ID: "live", HTML: template.HTML(html)}}}}
	d.origin = serve(t, "127.0.0.1:0", d.handle)
	return d
}

func (d *desk) handle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", policy)
	switch r.URL.Path {
	case "/stream":
		d.stream(w, r)
	case "/tab":
		d.mu.Lock()
		status := d.tab
		d.asked++
		d.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status == http.StatusUnauthorized {
			fmt.Fprint(w, `{"locked":"Call 0900 1234."}`)
		}
	case static.Script.Path:
		w.Header().Set("Content-Type", static.Script.Type)
		_, _ = w.Write(d.script)
	case static.Style.Path, static.Icon.Path:
		for _, file := range static.All {
			if file.Path == r.URL.Path {
				w.Header().Set("Content-Type", file.Type)
				_, _ = w.Write(file.Content)
			}
		}
	default:
		d.mu.Lock()
		page := d.page
		if r.Method == http.MethodPost {
			d.posts = append(d.posts, r.URL.Path)
		}
		d.mu.Unlock()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(d.document(page)))
	}
}

// document writes a page whole.
func (d *desk) document(page pages.Page) string {
	var document bytes.Buffer
	err := pages.New(words.English, time.Minute).Document(&document, page, pages.Frame{Path: "/", Proof: hex.EncodeToString(d.proof[:])})
	if err != nil {
		d.t.Error(err)
	}
	text := document.String()
	if !bytes.Equal(d.script, static.Script.Content) { // the document names the hash of the true script
		text = regexp.MustCompile(`(<script [^>]*?) integrity="[^"]*"`).ReplaceAllString(text, "$1")
	}
	return text
}

// become sends a page that has other parts.
func (d *desk) become(page pages.Page) {
	d.t.Helper()
	d.mu.Lock()
	d.page = page
	d.mu.Unlock()
	parts := []map[string]any{{"id": "", "html": d.document(page.Bones())}}
	for _, live := range page.Live() {
		parts = append(parts, map[string]any{"id": live.ID, "html": live.HTML})
	}
	d.send(map[string]any{"parts": parts})
}

// sent is how often a form was sent.
func (d *desk) sent() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.posts)
}

func (d *desk) stream(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 16)
	nonce, _ := hex.DecodeString(r.URL.Query().Get("nonce"))
	mac := hmac.New(sha256.New, d.proof[:])
	mac.Write(nonce)
	w.Header().Set("Content-Type", "text/event-stream")
	events <- fmt.Sprintf(`{"proof":"%x"}`, mac.Sum(nil))
	d.mu.Lock()
	d.streams[events] = true
	d.opened++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.streams, events)
	}()
	for {
		select {
		case <-r.Context().Done():
			return
		case event, ok := <-events:
			if !ok {
				return
			}
			fmt.Fprintf(w, "data: %s\n\n", event)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// send sends an event to each page whose stream is open.
func (d *desk) send(event map[string]any) {
	d.t.Helper()
	text, err := json.Marshal(event)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.streams) == 0 {
		d.t.Fatal("no stream is open")
	}
	for events := range d.streams {
		events <- string(text)
	}
}

// change sends the part once more.
func (d *desk) change(html string) {
	d.t.Helper()
	d.send(map[string]any{"parts": []map[string]any{{"id": "live", "html": html}}})
}

// listening waits until this number of streams is open.
func (d *desk) listening(number int) {
	d.t.Helper()
	until(d.t, fmt.Sprintf("%d streams are open", number), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.streams) == number
	})
}

// open opens the page in a browser, and waits for its stream.
func (d *desk) open(tab *chromiumtest.Tab) {
	d.t.Helper()
	// The time of the page can be put ahead.
	tab.Before("{ const passes = Date.now; window.ahead = 0; Date.now = () => passes() + window.ahead }")
	tab.Open(d.origin + "/")
	d.listening(1)
}

// otherwise returns the script with one piece changed.
func (d *desk) otherwise(old, replacement string) []byte {
	d.t.Helper()
	if bytes.Count(static.Script.Content, []byte(old)) != 1 {
		d.t.Fatalf("the script has %q not once: the broken variant no longer breaks what it should", old)
	}
	return bytes.Replace(static.Script.Content, []byte(old), []byte(replacement), 1)
}

// The server's own policy is in its package, where no test reaches it.
func TestTheServersPolicyIsTheOneOfTheTests(t *testing.T) {
	source, err := os.ReadFile("../../cmd/bitbox-app/window/server.go")
	if err != nil {
		t.Fatal(err)
	}
	pieces := strings.SplitAfter(policy, "form-action 'self'; ")
	for _, piece := range pieces {
		if !bytes.Contains(source, []byte(piece)) {
			t.Errorf("the server's policy has not %q", piece)
		}
	}
}

func TestAChangeOfThePageKeepsWhatAPersonDoes(t *testing.T) {
	const before = `<p id="told">Height 100</p><p data-key="x">Some words to select</p><ul><li data-key="a">first</li></ul>
		<label for="name">Name</label> <input id="name"> <button>Press</button>`
	const after = `<p id="told">Height 101</p><ul><li data-key="new">new</li><li data-key="a">first</li></ul><p data-key="y">A new line</p>
		<p data-key="x">Some words to select</p><label for="name">Name</label> <input id="name"> <button>Press</button>`
	lost := func(t *testing.T, broken bool) (lost []string) {
		d := newDesk(t, before)
		if broken {
			d.script = d.otherwise("children(old, fresh.body) :", "old.replaceChildren(...fresh.body.childNodes) :")
		}
		tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
		d.open(tab)
		check := func(what, expression string) {
			if !chromiumtest.Eval[bool](tab, expression) {
				lost = append(lost, what)
			}
		}
		tab.Type("Name", "Ada")
		chromiumtest.Eval[bool](tab, "document.activeElement.setSelectionRange(1, 1), true")
		d.change(after)
		tab.AwaitText("Height 101")
		tab.AwaitText("new")
		check("the typed text", "document.getElementById('name').value === 'Ada'")
		check("the focus", "document.activeElement.id === 'name'")
		check("the caret", "document.activeElement.selectionStart === 1")

		chromiumtest.Eval[bool](tab, "document.activeElement.blur(), getSelection().selectAllChildren(document.querySelector('[data-key=x]')), true")
		d.change(before)
		tab.AwaitText("Height 100")
		check("the selection", "getSelection().toString() === 'Some words to select'")
		return lost
	}
	if got := lost(t, false); len(got) > 0 {
		t.Errorf("a change takes %q away", got)
	}
	if got := lost(t, true); len(got) != 4 {
		t.Errorf("a script that replaces everything takes only %q away; this test proves nothing", got)
	}
}

func TestAYesIsDeadForItsFirstSecond(t *testing.T) {
	const form = `<form method="post" action="/yes"><button data-dead="7">Yes, change it</button></form>`
	d := newDesk(t, form)
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	d.open(tab)
	// As if the question came up only now, under a finger that was about to press something else.
	d.change(strings.Replace(form, `"7"`, `"8"`, 1))
	tab.Await("the next question is there", "document.querySelector('[data-dead=\"8\"]')")
	begun := chromiumtest.Eval[float64](tab, "performance.now()")
	tab.Press("Yes")
	if early := chromiumtest.Eval[float64](tab, "performance.now()") - begun; early < 900 { // or the machine was slow
		if d.sent() > 0 {
			t.Errorf("it answers after %.0f ms", early)
		}
		tab.Await("it says that this was early", "document.getElementById('voice').textContent === "+quote(words.English.Say("frame.early")))
	}
	for d.sent() == 0 { // Press fails the test when its patience is over
		tab.Press("Yes")
	}
	// And a form without that mark answers at once.
	d = newDesk(t, strings.Replace(form, ` data-dead="7"`, "", 1))
	d.open(tab)
	tab.Press("Yes")
	until(t, "it is sent", func() bool { return d.sent() == 1 })
}

// A yes that does not look pale can be pressed. Animations have a clock of their own: here they end at once.
func TestAYesThatIsNotPaleCounts(t *testing.T) {
	const form = `<form method="post" action="/yes"><button data-dead="7">Yes, change it</button></form>`
	for name, pale := range map[string]string{
		"as it is": "", "broken: only an animation is pale": "button.classList.toggle('pale', early(button))",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, form)
			if pale != "" {
				d.script = d.otherwise(pale, "")
			}
			tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
			d.open(tab)
			d.change(strings.Replace(form, `"7"`, `"8"`, 1))
			tab.Await("the next question is there", "document.querySelector('[data-dead=\"8\"]')")
			chromiumtest.Eval[bool](tab, `(async () => {
				const yes = document.querySelector("[data-dead]")
				const pale = () => { document.getAnimations().forEach(a => a.finish()); return getComputedStyle(yes).opacity !== "1" }
				while (pale()) await new Promise(done => setTimeout(done, 5))
				setTimeout(() => yes.click())
				return true
			})()`)
			said := "document.getElementById('voice')?.textContent === " + quote(words.English.Say("frame.early"))
			tab.Await("it is sent, or said to be early", fmt.Sprintf("location.pathname === '/yes' || %s", said))
			if lost := d.sent() == 0; lost != (pale != "") {
				t.Errorf("the press is lost: %v", lost)
			}
		})
	}
}

// A page may open a stream again while the proof of the last one is still being checked.
func TestAPageOutlivesTheProofOfAStreamThatItHasLeft(t *testing.T) {
	shared := [][2]string{ // one nonce for all streams, as the script had it once
		{"const nonce = random()", "const nonce = window.asked = random()"},
		{"bytes(proof), bytes(nonce)", "bytes(proof), bytes(window.asked)"},
		{"if (source !== from) return", "if (over) return"},
	}
	for name, changes := range map[string][][2]string{"as it is": nil, "broken: streams share a nonce": shared} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, "<p>Height 100</p>")
			for _, change := range changes {
				d.otherwise(change[0], "") // it is there once
				if d.script = bytes.Replace(d.script, []byte(change[0]), []byte(change[1]), 1); bytes.Equal(d.script, static.Script.Content) {
					t.Fatal("the variant is not broken")
				}
			}
			tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
			// The first check of a proof waits until the test lets it go on.
			tab.Before(`{
				const verify = crypto.subtle.verify.bind(crypto.subtle), first = new Promise(go => { window.go = go })
				let checks = 0
				window.checking = false
				window.checked = false
				crypto.subtle.importKey = (importKey => async (...how) => {
					const key = await importKey(...how)
					if (!checks++) { window.checking = true; await first }
					return key
				})(crypto.subtle.importKey.bind(crypto.subtle))
				crypto.subtle.verify = async (...what) => { const right = await verify(...what); window.checked = true; return right }
			}`)
			d.open(tab)
			tab.Await("a proof is being checked", "checking")
			chromiumtest.Eval[bool](tab, "document.dispatchEvent(new Event('visibilitychange'))")
			tab.Await("the second proof was checked", "checked")
			chromiumtest.Eval[bool](tab, "checked = false, go(), true")
			tab.Await("the first proof was checked", "checked")
			if changes == nil {
				d.listening(1)
				d.change("<p>Height 101</p>")
			}
			foreign := words.English.Say("frame.foreign")
			tab.Await("it goes on, or ends", shownText("Height 101")+" || "+shownText(foreign))
			if ended := tab.Shows(foreign); ended != (changes != nil) {
				t.Errorf("the page has ended: %v", ended)
			}
		})
	}
}

// shownText is true on a page that shows a text, in JavaScript.
func shownText(text string) string { return "document.body.innerText.includes(" + quote(text) + ")" }

// A page gets and loses forms while a person uses it: an opening ends, another owner changes something.
func TestAPressIsNotLostWhenThePageGetsOtherParts(t *testing.T) {
	const reload = "for (const part of event.parts ?? []) part.id ? apply(part) : location.reload()"
	press := pages.Part{ID: "press", HTML: `<form method="post" action="/press"><button>Press</button></form>`}
	other := pages.Page{Title: "Another page", Parts: []pages.Part{
		{ID: "new", HTML: `<h2>Just now</h2><label for="new-name">New</label> <input id="new-name"><p>Lines</p><p>of it</p>`, Form: true}, press,
		{ID: "live", HTML: "<p>Height 101</p>"}}}
	for name, each := range map[string]struct {
		old, new string // in the script
		lost     bool
	}{
		"as it is":                           {},
		"broken: the page is loaded again":   {"for (const part of event.parts ?? []) apply(part)", reload, true},
		"broken: what is pressed moves away": {"turn.then(calm).then(", "turn.then(", true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, "<p>Height 100</p>")
			d.page.Parts = append([]pages.Part{press}, d.page.Parts...)
			if each.old != "" {
				d.script = d.otherwise(each.old, each.new)
			}
			tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
			tab.Before(`window.told = 0, window.presses = 0
				window.EventSource = class extends EventSource { constructor(at) { super(at); this.addEventListener("message", () => told++) } }
				addEventListener("submit", () => presses++)`)
			d.open(tab)
			tab.Await("the page hears of its server", "told === 1")
			lift := tab.Hold("Press")
			d.become(other)
			if each.lost {
				tab.AwaitText("Just now")
			} else {
				tab.Await("the page hears of the change", "told === 2")
			}
			lift()
			if each.lost {
				if chromiumtest.Eval[int](tab, "presses") > 0 {
					t.Error("the press counts: this test proves nothing")
				}
				return
			}
			until(t, "the press counts", func() bool { return d.sent() == 1 })
			tab.AwaitText("Just now")
		})
	}
}

func TestAPageThatGetsOtherPartsKeepsWhatAPersonDoes(t *testing.T) {
	d := newDesk(t, `<p>Height 100</p><details><summary>More</summary></details>`)
	form := func(id string) pages.Part {
		return pages.Part{ID: id, HTML: template.HTML(`<label for="` + id + `-name">` + id + `</label> <input id="` + id + `-name">`), Form: true}
	}
	live := d.page.Parts[0]
	d.page.Parts = []pages.Part{live, form("stays"), form("goes"), form("ends")}
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	d.open(tab)
	tab.Press("More")
	tab.Type("goes", "Ada")
	tab.Type("stays", "Eve")
	chromiumtest.Eval[bool](tab, "document.activeElement.setSelectionRange(1, 1), true")
	begun := chromiumtest.Eval[float64](tab, "performance.timeOrigin")
	live.HTML = `<p>Height 101</p><details><summary>More</summary></details>`
	d.become(pages.Page{Title: "Another page", Language: "de", Class: "narrow", Bare: true,
		Parts: []pages.Part{form("comes"), live, form("stays")}})
	tab.AwaitText("comes")
	tab.AwaitText("Height 101")
	tab.AwaitNoText("ends")
	for what, expression := range map[string]string{
		"the page was not loaded again":       fmt.Sprintf("performance.timeOrigin === %f", begun),
		"what is open stays open":             "document.querySelector('details').open",
		"what was typed is there":             "document.getElementById('stays-name').value === 'Eve'",
		"the focus is there":                  "document.activeElement.id === 'stays-name' && document.activeElement.selectionStart === 1",
		"what was typed in a form that goes":  "document.getElementById('goes-name').value === 'Ada'",
		"the title and the body are the new":  "document.title === 'Another page' && document.body.className === 'bare' && !document.getElementById('side')",
		"its parts are where they belong":     "document.querySelector('main').className === 'narrow' && document.querySelector('main').firstElementChild.id === 'comes'",
		"the next stream asks for this shape": "document.body.dataset.shape === " + quote(d.page.Shape()),
	} {
		if !chromiumtest.Eval[bool](tab, expression) {
			t.Errorf("it is not so that %s", what)
		}
	}
	// A form that has gone stays only as long as it has typed text.
	tab.Type("goes", "\b")
	chromiumtest.Eval[bool](tab, "document.activeElement.blur(), true")
	tab.AwaitNoText("goes")
}

func TestAPressThatTremblesCountsOnce(t *testing.T) {
	for _, broken := range []bool{false, true} {
		d := newDesk(t, `<form method="post" action="/press"><button>Press</button></form>`)
		if broken {
			d.script = d.otherwise("sent = performance.now()\n", "\n")
		}
		tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
		d.open(tab)
		times := chromiumtest.Eval[int](tab, `((button) => {
			let times = 0
			addEventListener("submit", (event) => event.defaultPrevented || times++)
			button.click(), button.click()
			return times
		})(document.querySelector("form button"))`)
		if (times > 1) != broken || times < 1 {
			t.Errorf("broken: %t; it is sent %d times", broken, times)
		}
	}
}

func TestAFileBesideTheZoneDoesNotReplaceThePage(t *testing.T) {
	file := filepath.Join(chromiumtest.Home(t, chromiumtest.UserID), "key.pub")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, `<p id="beside">Beside</p><div data-drop><input type="file" data-into="keys"><textarea id="keys"></textarea></div>`)
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	d.open(tab)
	tab.Drop("#beside", file)
	tab.Await("it says so", "document.getElementById('voice').textContent === "+quote(words.English.Say("frame.beside")))
	if tab.Path() != "/" {
		t.Errorf("the file has replaced the page: %s", tab.Path())
	}
	tab.Drop("[data-drop]", file)
	tab.Await("the file is read", "document.getElementById('keys').value.trim() === "+quote(key))
}

// Somebody who listens hears what matters, and is not talked to without a pause.
func TestTheVoiceSpeaksOfThingsThatEndAndAtMostEachThreeSeconds(t *testing.T) {
	d := newDesk(t, "")
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	d.open(tab)
	chromiumtest.Eval[bool](tab, `window.heard = [], new MutationObserver(() => {
		const said = document.getElementById("voice").textContent
		if (said) heard.push({said, at: Date.now()})
	}).observe(document.getElementById("voice"), {childList: true, characterData: true, subtree: true}), true`)
	ends := chromiumtest.Eval[int64](tab, "Date.now() + 45000")
	d.change(fmt.Sprintf(`<p data-say="one">One thing</p><p data-say="two">Another thing</p>
		<time data-until="%d" data-spoken="SSH">0:45</time>`, ends))
	for n, said := range []string{"One thing", "Another thing"} {
		tab.Await(said, fmt.Sprintf("heard.length > %d && heard[%d].said === %s", n, n, quote(said)))
	}
	for n, seconds := range []int{30, 10, 0} {
		chromiumtest.Eval[bool](tab, fmt.Sprintf("ahead += %d - %d * 1000 - Date.now(), true", ends, seconds))
		tab.Await(fmt.Sprint(seconds, " seconds are said"), fmt.Sprintf("heard.length > %d", n+2))
	}
	all := chromiumtest.Eval[[]struct {
		Said string `json:"said"`
		At   int64  `json:"at"`
	}](tab, "heard")
	for n, want := range []string{"One thing", "Another thing", words.English.Say("frame.left", "SSH", "30"),
		words.English.Say("frame.left", "SSH", "10"), words.English.Say("frame.ended", "SSH")} {
		if all[n].Said != want {
			t.Errorf("it says %q, want %q", all[n].Said, want)
		}
		if n > 0 && all[n].At-all[n-1].At < 3000 {
			t.Errorf("%q comes %d ms after %q", all[n].Said, all[n].At-all[n-1].At, all[n-1].Said)
		}
	}
}

func TestAPageWithoutNewsSaysSinceWhenAndNoLonger(t *testing.T) {
	d := newDesk(t, "<p>Height 100</p>")
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	d.open(tab)
	chromiumtest.Eval[bool](tab, "ahead += 34000, true")
	stale, _, _ := strings.Cut(words.English.Say("frame.stale", "{time}"), "{time}")
	note := "(document.getElementById('note').hidden ? '' : document.getElementById('note').textContent)"
	if said := chromiumtest.Eval[string](tab, note); strings.Contains(said, stale) {
		t.Errorf("it is too early for %q", said)
	}
	chromiumtest.Eval[bool](tab, "ahead += 2000, true")
	tab.Await("it says that it is out of date", note+".includes("+quote(stale)+")")
	d.send(map[string]any{"alive": true})
	tab.Await("it no longer says so", note+" === ''")
}

// Six open streams would block every further request of the browser.
func TestAPageThatNobodySeesHasNoStream(t *testing.T) {
	d := newDesk(t, "<p>Height 100</p>")
	browser := chromiumtest.Start(t, chromiumtest.Options{})
	tab := browser.TabBeside()
	d.open(tab)
	other := browser.TabBeside()
	other.Front()
	d.listening(0)
	tab.Front()
	d.listening(1)
	d.change("<p>Height 101</p>")
	tab.AwaitText("Height 101")
}

func TestAPageTellsALockedWindowFromOneThatIsGone(t *testing.T) {
	d := newDesk(t, "<p>Height 100</p>")
	browser := chromiumtest.Start(t, chromiumtest.Options{})
	tab := browser.Tab()
	d.open(tab)
	tab.AwaitText("Height 100")
	d.mu.Lock()
	d.tab = http.StatusUnauthorized
	d.mu.Unlock()
	d.send(map[string]any{"locked": "It is locked."})
	tab.AwaitText("It is locked.")
	tab.AwaitNoText("Height 100")
	// Another tab has come in.
	d.mu.Lock()
	d.tab = http.StatusNoContent
	d.mu.Unlock()
	chromiumtest.Eval[bool](tab, "ahead += 60000, true")
	tab.AwaitText("Height 100")
	d.listening(1)
	d.send(map[string]any{"gone": "The App has ended."})
	tab.AwaitText("The App has ended.")
	d.listening(0)
}

// After the App's end its port may be another user's, who has no proof and answers as they like.
func TestAServerWithoutProofPutsNoSentenceOnThePage(t *testing.T) {
	for _, broken := range []bool{false, true} {
		d := newDesk(t, "<p>Height 100</p>")
		if broken {
			d.script = d.otherwise("lock(words.locked)", "lock((await answer.json()).locked)")
		}
		tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
		d.open(tab)
		d.mu.Lock()
		d.tab = http.StatusUnauthorized
		for events := range d.streams {
			close(events)
		}
		d.mu.Unlock()
		tab.AwaitNoText("Height 100")
		note := chromiumtest.Eval[string](tab, "document.getElementById('note').textContent")
		if theirs := note != words.English.Say("frame.locked"); theirs != broken {
			t.Errorf("broken: %t; the page says %q", broken, note)
		}
	}
}

// Who comes to a tab that nobody has seen for long must not see it even for a moment.
func TestAPageThatNobodySeesLocks(t *testing.T) {
	for _, broken := range []bool{false, true} {
		d := newDesk(t, "<p>Height 100</p>")
		if broken {
			d.script = d.otherwise("reported > 50000) ask()", "reported > 50000) report()")
		}
		browser := chromiumtest.Start(t, chromiumtest.Options{})
		tab := browser.TabBeside()
		d.open(tab)
		browser.TabBeside().Front()
		d.listening(0)
		d.mu.Lock()
		d.tab, d.asked = http.StatusUnauthorized, 0
		d.mu.Unlock()
		chromiumtest.Eval[bool](tab, "ahead += 60000, true")
		until(t, "the page asks", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.asked > 0
		})
		if !broken {
			tab.Await("the page is locked", "document.body.classList.contains('locked')")
		} else if chromiumtest.Eval[bool](tab, "document.body.classList.contains('locked')") {
			t.Error("the broken variant locks too: the test shows nothing")
		}
	}
}

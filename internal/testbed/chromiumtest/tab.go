//go:build linux

package chromiumtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// lookEvery is how often a condition is looked at.
const lookEvery = 20 * time.Millisecond

// An element rests once it was seen at the same place of the same page so often, at such intervals.
const (
	restingLooks = 3
	restEvery    = 50 * time.Millisecond
)

// The size of a tab at first: a small laptop.
const firstWidth, firstHeight = 1024, 768

// Tab is a page of a browser. A script of the page that fails, or that the page's own policy
// refuses, fails the test.
type Tab struct {
	t      T
	ctx    context.Context
	number int
	folder func() (string, error)
	close  context.CancelFunc

	mu         sync.Mutex
	complaints []string
	requests   []Request
	pending    map[network.RequestID]int // an index of requests
}

// Request is what the browser has fetched for a page.
type Request struct {
	URL    string
	Status int // of HTTP; 0: it has failed, or is not answered yet
	// Bytes on the wire, with the header.
	Bytes int
}

// Tab opens a tab with nothing in it, in a window of its own. It is closed with the test.
func (b *Browser) Tab() *Tab {
	b.t.Helper()
	return b.open()
}

// TabBeside opens a tab in the one window that the browser began with. It hides the other tabs there.
func (b *Browser) TabBeside() *Tab {
	b.t.Helper()
	return b.open(chromedp.WithNewWindow(false))
}

func (b *Browser) open(options ...chromedp.ContextOption) *Tab {
	b.t.Helper()
	b.mu.Lock()
	b.tabs++
	tab := &Tab{t: b.t, number: b.tabs, folder: b.folder, pending: map[network.RequestID]int{}}
	b.mu.Unlock()
	tab.ctx, tab.close = chromedp.NewContext(b.ctx, options...)
	b.t.Cleanup(tab.end)
	tab.must("open a tab", func(ctx context.Context) error {
		if err := chromedp.Listen(tab.ctx, tab.hear); err != nil {
			return err
		}
		_, err := chromedp.Call(tab.ctx, network.Enable, network.EnableParams{})
		return err
	})
	tab.Size(firstWidth, firstHeight)
	return tab
}

// end closes the tab, and reports what went wrong in it.
func (tab *Tab) end() {
	if tab.ctx.Err() != nil {
		return
	}
	for _, complaint := range tab.Complaints() {
		tab.t.Errorf("tab %d: %s", tab.number, complaint)
	}
	if tab.t.Failed() {
		tab.keep()
	}
	tab.close()
}

// Close closes the tab, as a person does.
func (tab *Tab) Close() {
	tab.t.Helper()
	tab.end()
}

// hear collects what a page fetches, and what its scripts complain about. It must return at once.
func (tab *Tab) hear(event any) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		tab.complaints = append(tab.complaints, "a script failed: "+text)
	case *log.EventEntryAdded:
		// A server may refuse. The page's own policy must have nothing to refuse.
		if e.Entry.Source != log.EntrySourceNetwork && e.Entry.Level == log.EntryLevelError {
			tab.complaints = append(tab.complaints, fmt.Sprintf("the browser says (%s): %s", e.Entry.Source, e.Entry.Text))
		}
	case *network.EventRequestWillBeSent:
		if n, known := tab.pending[e.RequestID]; known && e.RedirectResponse != nil {
			tab.requests[n].Status = int(e.RedirectResponse.Status)
		}
		tab.pending[e.RequestID] = len(tab.requests)
		tab.requests = append(tab.requests, Request{URL: e.Request.URL})
	case *network.EventResponseReceived:
		if n, known := tab.pending[e.RequestID]; known {
			tab.requests[n].Status = int(e.Response.Status)
			tab.requests[n].Bytes = int(e.Response.EncodedDataLength)
		}
	case *network.EventLoadingFinished:
		if n, known := tab.pending[e.RequestID]; known {
			tab.requests[n].Bytes = int(e.EncodedDataLength)
		}
	}
}

// Complaints returns the errors of scripts and of the page's policy since the last call. A test
// that provokes some takes them away by this.
func (tab *Tab) Complaints() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	all := tab.complaints
	tab.complaints = nil
	return all
}

// Requests returns what the tab has fetched since the last call.
func (tab *Tab) Requests() []Request {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	all := tab.requests
	tab.requests, tab.pending = nil, map[network.RequestID]int{}
	return all
}

// AwaitRequest waits until the tab has asked for a path since the last call of Requests.
func (tab *Tab) AwaitRequest(path string) {
	tab.t.Helper()
	if !Until(func() bool {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		return slices.ContainsFunc(tab.requests, func(r Request) bool {
			u, err := url.Parse(r.URL)
			return err == nil && u.Path == path
		})
	}) {
		tab.t.Fatalf("tab %d: it never asks for %s", tab.number, path)
	}
}

// must does something that takes a moment, or fails the test.
func (tab *Tab) must(what string, f func(context.Context) error) {
	tab.t.Helper()
	if err := within(tab.ctx, f); err != nil {
		tab.t.Fatalf("tab %d: %s: %v", tab.number, what, err)
	}
}

// do runs steps of chromedp.
func (tab *Tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	tab.must(what, func(ctx context.Context) error { return chromedp.Do(ctx, steps...) })
}

// Open opens an address, and fails the test if nothing answers there.
func (tab *Tab) Open(url string) {
	tab.t.Helper()
	if err := tab.Try(url); err != nil {
		tab.t.Fatalf("tab %d: open %s: %v", tab.number, url, err)
	}
}

// Try opens an address, and returns why that failed. A page that refuses is no failure.
func (tab *Tab) Try(url string) error {
	return within(tab.ctx, func(ctx context.Context) error { return chromedp.Do(ctx, chromedp.Navigate(url)) })
}

// Back goes one page back, and Reload loads the page again.
func (tab *Tab) Back() { tab.t.Helper(); tab.do("go back", chromedp.NavigateBack()) }

// Reload loads the page again.
func (tab *Tab) Reload() { tab.t.Helper(); tab.do("reload", chromedp.Reload()) }

// Front puts the tab before the others, which hides them.
func (tab *Tab) Front() {
	tab.t.Helper()
	tab.must("bring the tab to the front", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, page.BringToFront, struct{}{})
		return err
	})
}

// ID is what the browser calls the tab.
func (tab *Tab) ID() target.ID { return chromedp.FromContext(tab.ctx).Target.TargetID }

// Size sets the size of the tab, in CSS pixels.
func (tab *Tab) Size(width, height int64) {
	tab.t.Helper()
	tab.do("set the size", chromedp.EmulateViewport(width, height))
}

// Scheme has the user prefer light or dark colours, and no motion: colours that are about to change
// are no colours to look at.
func (tab *Tab) Scheme(colours string) {
	tab.t.Helper()
	tab.must("prefer "+colours, func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: colours}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
		return err
	})
}

// Scripts switches the page's own scripts off or on, from the next page on.
func (tab *Tab) Scripts(on bool) {
	tab.t.Helper()
	tab.must("switch scripts", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
		return err
	})
}

// Eval evaluates an expression of JavaScript in the page. A promise is awaited.
func Eval[V any](tab *Tab, expression string) V {
	tab.t.Helper()
	value, err := try[V](tab, expression)
	if err != nil {
		tab.t.Fatalf("tab %d: evaluate %s: %v", tab.number, expression, err)
	}
	return value
}

func try[V any](tab *Tab, expression string) (value V, err error) {
	err = within(tab.ctx, func(ctx context.Context) error {
		var failed error
		value, failed = chromedp.Run(ctx, chromedp.Evaluate[V](expression, chromedp.EvalAwaitPromise))
		return failed
	})
	return value, err
}

// Await waits until an expression of JavaScript is true, also across pages.
func (tab *Tab) Await(what, expression string) {
	tab.t.Helper()
	if err := tab.await(expression); err != nil {
		tab.t.Fatalf("tab %d: %s: %v; the page is:\n%s", tab.number, what, err, tab.text())
	}
}

func (tab *Tab) await(expression string) error {
	last := errors.New("it was never true")
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(lookEvery) {
		is, err := try[bool](tab, "!!("+expression+")")
		if is {
			return nil
		}
		if tab.ctx.Err() != nil {
			return tab.ctx.Err()
		}
		if err != nil {
			last = err // perhaps between two pages
		}
	}
	return fmt.Errorf("not within %v: %w", Patience, last)
}

// quote makes a literal of JavaScript.
func quote(text string) string {
	literal, _ := json.Marshal(text) // of a string, it cannot fail
	return string(literal)
}

// AwaitText waits until the page shows a text. How a text is broken into lines does not count.
func (tab *Tab) AwaitText(text string) {
	tab.t.Helper()
	tab.Await(fmt.Sprintf("it never shows %q", text), shows(text))
}

// AwaitNoText waits until the page does not show a text.
func (tab *Tab) AwaitNoText(text string) {
	tab.t.Helper()
	tab.Await(fmt.Sprintf("it goes on to show %q", text), "document.body && !"+shows(text))
}

func shows(text string) string {
	return fmt.Sprintf(`((document.body && document.body.innerText || "").replace(/\s+/g, " ").includes(%s))`,
		quote(strings.Join(strings.Fields(text), " ")))
}

// Shows tells whether the page shows a text now.
func (tab *Tab) Shows(text string) bool { tab.t.Helper(); return Eval[bool](tab, shows(text)) }

// Path returns the path and query of the page's address.
func (tab *Tab) Path() string {
	tab.t.Helper()
	return Eval[string](tab, "location.pathname + location.search")
}

// AwaitPath waits until the tab is at a page whose path begins like this.
func (tab *Tab) AwaitPath(prefix string) {
	tab.t.Helper()
	tab.Await("it never comes to "+prefix, "document.readyState === 'complete' && location.pathname.startsWith("+quote(prefix)+")")
}

// Text returns what the page shows.
func (tab *Tab) Text() string {
	tab.t.Helper()
	return Eval[string](tab, "document.body ? document.body.innerText : ''")
}

func (tab *Tab) text() string {
	text, err := try[string](tab, "location.href + '\\n' + (document.body ? document.body.innerText : '')")
	if err != nil {
		return err.Error()
	}
	return text
}

// place finds an element that can be pressed, brings it into view, and returns its middle. It is
// null until the element is there, is not disabled, and is what a pointer would hit.
const place = `((element) => {
	if (!element || element.disabled || element.getAttribute("aria-disabled") === "true") return null;
	element.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
	const box = element.getBoundingClientRect();
	const at = {x: box.x + box.width / 2, y: box.y + box.height / 2, page: performance.timeOrigin};
	const hit = document.elementFromPoint(at.x, at.y);
	return box.width && hit && (element.contains(hit) || hit.contains(element) && hit.tagName === "LABEL") ? at : null;
})`

// named finds what a person presses by the words on it.
const named = `((name) => {
	const words = (e) => (e.getAttribute("aria-label") || e.innerText || e.value || "").replace(/\s+/g, " ").trim();
	const all = [...document.querySelectorAll("button, a[href], summary, input[type=submit], label")].filter((e) => e.checkVisibility());
	return all.find((e) => words(e) === name) || all.find((e) => words(e).startsWith(name));
})`

// Press presses a button, a link or the like by the words on it, once it can be pressed.
func (tab *Tab) Press(words string) {
	tab.t.Helper()
	tab.press(fmt.Sprintf("nothing to press says %q", words), named+"("+quote(words)+")")
}

// Click presses the first element that a CSS selector finds, once it can be pressed.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	tab.press("nothing to press is "+selector, "document.querySelector("+quote(selector)+")")
}

func (tab *Tab) press(what, element string) {
	tab.t.Helper()
	at := tab.place(what, element)
	tab.do("press", chromedp.MouseClickXY(at.X, at.Y))
}

// Hold presses the button of the pointer on what says these words, and returns what lifts it at the same place.
func (tab *Tab) Hold(words string) (lift func()) {
	tab.t.Helper()
	at := tab.place(fmt.Sprintf("nothing to hold says %q", words), named+"("+quote(words)+")")
	dispatch := func(what string, kind input.DispatchMouseEventType) {
		tab.t.Helper()
		tab.do(what, chromedp.MouseEvent(kind, at.X, at.Y, chromedp.ButtonType(input.MouseButtonLeft), chromedp.ClickCount(1)))
	}
	dispatch("hold", chromedp.MousePressed)
	return func() { tab.t.Helper(); dispatch("lift", chromedp.MouseReleased) }
}

// point is a place on a page, in CSS pixels. Page is when the page was begun.
type point struct{ X, Y, Page float64 }

// place waits until an element can be pressed and rests, and returns its middle. A page that is still filling moves
// what is on it, and is loaded again when its forms change: then a press would hit something else, or nothing.
func (tab *Tab) place(what, element string) *point {
	tab.t.Helper()
	expression, end := place+"("+element+")", time.Now().Add(Patience)
	var before, at *point
	for rested := 0; rested < restingLooks; time.Sleep(restEvery) {
		if time.Now().After(end) {
			tab.t.Fatalf("tab %d: %s; the page is:\n%s", tab.number, what, tab.text())
		}
		at, _ = try[*point](tab, expression) // an error: between two pages
		if rested++; at == nil || before == nil || *at != *before {
			rested = 0
		}
		before = at
	}
	return at
}

// Type types into the field with that label, or that a CSS selector finds, in place of its text.
func (tab *Tab) Type(field, text string) {
	tab.t.Helper()
	find := fmt.Sprintf(`((field) => {
		const label = [...document.querySelectorAll("label")].find((l) => l.checkVisibility() && l.innerText.trim().startsWith(field));
		if (label && label.control) return label.control;
		try { return document.querySelector(field); } catch { return null; }
	})(%s)`, quote(field))
	tab.Await("there is no field "+field, find)
	Eval[chromedp.Void](tab, "((e) => { e.scrollIntoView({block: 'center', behavior: 'instant'}); e.focus(); e.select && e.select(); })("+find+")")
	tab.do("type", chromedp.KeyEvent(text))
}

// Choose chooses a value of the first list that a CSS selector finds.
func (tab *Tab) Choose(selector, value string) {
	tab.t.Helper()
	find := "document.querySelector(" + quote(selector) + ")"
	tab.Await("there is no list "+selector+" with "+value, find+" && [...("+find+").options].some((o) => o.value === "+quote(value)+")")
	Eval[chromedp.Void](tab, fmt.Sprintf(`((e) => { e.focus(); e.value = %s; e.dispatchEvent(new Event("change", {bubbles: true})); })(%s)`,
		quote(value), find))
}

// Keys presses keys, which package kb of chromedp names.
func (tab *Tab) Keys(keys string, options ...chromedp.KeyOption) {
	tab.t.Helper()
	tab.do("press keys", chromedp.KeyEvent(keys, options...))
}

// Before has a script run in each page that is opened from now on, before the page's own.
func (tab *Tab) Before(script string) {
	tab.t.Helper()
	tab.must("add a script", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		return err
	})
}

// Drop drops a file onto the middle of the first element that a CSS selector finds.
func (tab *Tab) Drop(selector, file string) {
	tab.t.Helper()
	at := tab.place("nothing is there to drop on: "+selector, "document.querySelector("+quote(selector)+")")
	tab.must("drop a file", func(ctx context.Context) error {
		for _, kind := range []input.DispatchDragEventType{
			input.DispatchDragEventTypeDragEnter, input.DispatchDragEventTypeDragOver, input.DispatchDragEventTypeDrop} {
			if _, err := chromedp.Call(ctx, input.DispatchDragEvent, input.DispatchDragEventParams{Type: kind, X: at.X, Y: at.Y,
				Data: &input.DragData{Items: []*input.DragDataItem{}, Files: []string{file}, DragOperationsMask: 1}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Attach puts files into the first field that a CSS selector finds, once there is one.
func (tab *Tab) Attach(selector string, files ...string) {
	tab.t.Helper()
	find := "document.querySelector(" + quote(selector) + ")"
	tab.Await("there is no field "+selector, find)
	tab.must("attach files", func(ctx context.Context) error {
		found, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: find})
		if err != nil {
			return err
		}
		_, err = chromedp.Call(ctx, dom.SetFileInputFiles, dom.SetFileInputFilesParams{Files: files, ObjectID: found.Result.ObjectID})
		return err
	})
}

// PictureOf is a PNG of the first element that a CSS selector finds.
func (tab *Tab) PictureOf(selector string) []byte {
	tab.t.Helper()
	find := "document.querySelector(" + quote(selector) + ")"
	tab.Await("there is no "+selector, find)
	box := Eval[*page.Viewport](tab, "((b) => ({x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height, scale: 2}))("+
		find+".getBoundingClientRect())")
	var picture []byte
	tab.must("take a picture of "+selector, func(ctx context.Context) error {
		beyond := true
		taken, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Clip: box, CaptureBeyondViewport: &beyond})
		if err == nil {
			picture = taken.Data
		}
		return err
	})
	return picture
}

// Picture is the whole page as a PNG.
func (tab *Tab) Picture() []byte {
	tab.t.Helper()
	picture, err := tab.picture()
	if err != nil {
		tab.t.Fatalf("tab %d: take a picture: %v", tab.number, err)
	}
	return picture
}

func (tab *Tab) picture() (picture []byte, err error) {
	const asPNG = 100 // says chromedp
	err = within(tab.ctx, func(ctx context.Context) error {
		var failed error
		picture, failed = chromedp.Run(ctx, chromedp.FullScreenshot(asPNG))
		return failed
	})
	return picture, err
}

// keep leaves a picture and the text of the page, for somebody who asks why a test failed.
func (tab *Tab) keep() {
	folder, err := tab.folder()
	if err == nil {
		err = os.MkdirAll(folder, 0o755)
	}
	if err != nil {
		tab.t.Logf("no picture of the failed test is kept: %v", err)
		return
	}
	name := filepath.Join(folder, fmt.Sprintf("%s-%d", strings.NewReplacer("/", "-", " ", "-").Replace(tab.t.Name()), tab.number))
	picture, err := tab.picture()
	err = errors.Join(err, os.WriteFile(name+".txt", []byte(tab.text()+"\n"), 0o644))
	if len(picture) > 0 {
		err = errors.Join(err, os.WriteFile(name+".png", picture, 0o644))
	}
	tab.t.Logf("the page of the failed test is in %s.png and .txt (%v)", name, err)
}

// Until waits for a condition, and tells whether it came true.
func Until(condition func() bool) bool {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(lookEvery) {
		if condition() {
			return true
		}
	}
	return condition()
}

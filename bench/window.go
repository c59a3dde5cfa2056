package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

const (
	// mostBytes and mostRequests are what the first page may take (test/window asserts both).
	mostBytes, mostRequests = 150e3, 5
	// idleTime is how long an idle window is watched. The kernel counts in ticks of 10 ms.
	idleTime = 30 * time.Second
	// eventsOfAnHour is one event a second.
	eventsOfAnHour = 3600
	// hostPause keeps the calls that make events below the rate of an App.
	hostPause = 5 * time.Millisecond
)

// measureWindow measures the App's window in Debian's Chromium, as an ordinary user of this computer.
func measureWindow(r *report) error {
	if _, err := os.Stat(chromiumtest.Program); err != nil {
		return fmt.Errorf("find the browser of Debian's package chromium, which scripts/setup-tests installs: %w", err)
	}
	return withT(func(t *worker) {
		d := newDesktop(t)
		d.firstPage(r)
		d.firstPaint(r)
		d.event(r)
		d.memory(r)
		d.idle(r)
	})
}

// desktop is a Base, and the window of an App that is paired with it.
type desktop struct {
	*whole
	t       *worker
	session *client.Session // of an owner, who renames the window's App
	dir, id string          // the folder and id of the window's App
	app     *windowtest.App
	browser *chromiumtest.Browser
	tab     *chromiumtest.Tab
	page    string // the path of the Base's overview
	renamed int
}

func newDesktop(t *worker) *desktop {
	d := &desktop{t: t}
	var err error
	if d.whole, err = newWhole(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { t.check(d.whole.close()) })
	at := d.base.Addr().String()
	d.dir = filepath.Join(chromiumtest.Home(t, chromiumtest.UserID), "app")
	viewer, err := client.New(client.Options{Dir: d.dir, Name: "window", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	t.check(errors.Join(d.pair(d.whole.app, at), d.pair(viewer, at)))
	bases, err := viewer.Bases()
	if err != nil || len(bases) != 1 {
		t.Fatalf("the App knows %d Bases: %v", len(bases), err)
	}
	d.id = bases[0].AppID
	windowtest.Give(t, d.dir)
	if d.session, err = d.call(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.session.Close)
	d.app = windowtest.Start(t, windowtest.Options{Dir: d.dir})
	t.Cleanup(func() { t.check(windowtest.Clear()) })
	d.browser = chromiumtest.Start(t, chromiumtest.Options{})
	d.tab = d.browser.Tab()
	d.app.Open(d.tab)
	d.tab.AwaitPath("/base/")
	d.page = d.tab.Path()
	return d
}

// firstPage counts what a browser fetches to show the overview of a Base.
func (d *desktop) firstPage(r *report) {
	d.open()
	d.tab.Await("the page is never complete", `document.readyState === "complete"`)
	bytes, requests := 0, d.tab.Requests()
	for _, one := range requests {
		bytes += one.Bytes
	}
	r.add(figure{what: "the window's first page, bytes", unit: "kB", ours: float64(bytes) / 1e3, rival: "the most that it may take",
		their: mostBytes / 1e3, least: 1})
	r.add(figure{what: "the window's first page, requests", unit: "", ours: float64(len(requests)), rival: "the most that it may take",
		their: mostRequests, least: 1})
}

// open opens the overview, and waits until its script has asked for the stream.
func (d *desktop) open() {
	d.tab.Requests()
	d.tab.Open(d.app.Origin() + d.page)
	d.tab.AwaitRequest("/stream")
}

// firstPaint compares the first paint of the overview with that of the same bytes from net/http alone.
func (d *desktop) firstPaint(r *report) {
	const rounds, loads = 5, 7
	files := map[string]string{}
	for _, path := range append([]string{d.page}, chromiumtest.Eval[[]string](d.tab,
		`[...document.querySelectorAll("link[href], script[src]")].map((e) => new URL(e.href || e.src).pathname)`)...) {
		files[path] = chromiumtest.Eval[string](d.tab, fmt.Sprintf("fetch(%q).then((r) => r.text())", path))
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, known := files[r.URL.RequestURI()]
		if !known {
			w.WriteHeader(http.StatusNoContent) // the stream
			return
		}
		kind := "text/html; charset=utf-8"
		switch filepath.Ext(r.URL.Path) {
		case ".css":
			kind = "text/css; charset=utf-8"
		case ".js":
			kind = "text/javascript; charset=utf-8"
		case ".svg":
			kind = "image/svg+xml"
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte(content))
	}))
	d.t.Cleanup(plain.Close)
	tab := d.browser.Tab()
	paint := func(origin string) func() (float64, error) {
		return func() (float64, error) {
			var took []float64
			for range loads {
				tab.Open(origin + d.page)
				tab.Await("nothing is painted", `performance.getEntriesByName("first-contentful-paint").length`)
				took = append(took, chromiumtest.Eval[float64](tab, `performance.getEntriesByName("first-contentful-paint")[0].startTime`))
			}
			return median(took), nil
		}
	}
	f := figure{what: "first paint of the overview, from loopback, p50", unit: "ms", rival: "net/http with the same bytes", least: 0.5}
	var err error
	f.ours, f.their, err = alternateFigures(rounds, paint(d.app.Origin()), paint(plain.URL))
	d.t.check(err)
	tab.Complaints()
	tab.Close()
	r.add(f)
}

// rename has an event happen whose text nothing else has, and returns that text.
func (d *desktop) rename() string {
	d.renamed++
	name := fmt.Sprintf("bench-%d.", d.renamed)
	_, err := d.session.Apps.RenameApp(context.Background(), &basev1.RenameAppRequest{Id: d.id, Name: name})
	d.t.check(err)
	return name
}

// seen notes when the page has which name first, in milliseconds since 1970.
const seen = `(() => {
	window.seen = {}
	new MutationObserver(() => {
		const now = performance.timeOrigin + performance.now()
		for (const name of document.getElementById("main").textContent.match(/bench-\d+\./g) || []) window.seen[name] ||= now
	}).observe(document.getElementById("main"), {subtree: true, childList: true, characterData: true})
})()`

// event is the time from the stamp of an event to the page that has it; the rival is a terminal
// that prints the same event.
func (d *desktop) event(r *report) {
	const events = 50
	d.open()
	watch, err := follow(d.app.Command("watch", "--json"))
	d.t.check(err)
	defer func() { d.t.check(watch.end()) }()
	chromiumtest.Eval[any](d.tab, seen)
	var page, printed []float64
	for range events {
		name := d.rename()
		l, err := watch.until(name)
		d.t.check(err)
		event := &basev1.Event{}
		d.t.check(protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(l.text), event))
		at := event.GetTime().AsTime()
		printed = append(printed, l.at.Sub(at).Seconds()*1e3)
		d.tab.Await("the page never has "+name, fmt.Sprintf("window.seen[%q]", name))
		page = append(page, chromiumtest.Eval[float64](d.tab, fmt.Sprintf("window.seen[%q]", name))-float64(at.UnixNano())/1e6)
	}
	slices.Sort(page)
	r.add(figure{what: "from an event to the changed page, p50", unit: "ms", ours: median(page), rival: "the same event, printed by `bitbox-app watch`",
		their: median(printed)})
	r.add(figure{what: "from an event to the changed page, p99", unit: "ms", ours: page[len(page)*99/100]})
}

// memory is that of the App after the events of an hour, beside itself before them.
func (d *desktop) memory(r *report) {
	d.open()
	before := resident(d.t, d.app.Process())
	name := ""
	for range eventsOfAnHour {
		name = d.rename()
		time.Sleep(hostPause)
	}
	d.tab.AwaitText(name)
	r.add(figure{what: "memory of the App, its window open, after 3,600 events", unit: "MiB", ours: resident(d.t, d.app.Process()),
		rival: "itself before them", their: before, least: 0.5})
}

// resident is how much memory a process has, in MiB.
func resident(t *worker, process int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	t.check(err)
	for line := range strings.Lines(string(status)) {
		if kib, is := strings.CutPrefix(line, "VmRSS:"); is {
			n, err := strconv.ParseFloat(strings.Fields(kib)[0], 64)
			t.check(err)
			return n / 1024
		}
	}
	t.Fatal("the kernel does not tell how much memory the App has")
	return 0
}

// idle is the processor time of a window that nobody uses, beside that of a terminal that waits for
// events.
func (d *desktop) idle(r *report) {
	d.open()
	watch, err := follow(d.app.Command("watch", "--json"))
	d.t.check(err)
	defer func() { d.t.check(watch.end()) }()
	processes := []int{d.app.Process(), watch.process.Process.Pid}
	var before [2]float64
	for n, process := range processes {
		before[n] = busy(d.t, process)
	}
	began := time.Now()
	time.Sleep(idleTime)
	perMinute := func(n int) float64 { return (busy(d.t, processes[n]) - before[n]) / time.Since(began).Minutes() }
	r.add(figure{what: "processor time of the App, its window idle", unit: "ms a minute", ours: perMinute(0),
		rival: "`bitbox-app watch`, as idle", their: perMinute(1)})
}

// busy is the processor time of a process, in milliseconds.
func busy(t *worker, process int) float64 {
	const tick = 10 // milliseconds, on every Linux (USER_HZ)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	t.check(err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, wrongUser := strconv.ParseFloat(fields[11], 64)
	system, wrongSystem := strconv.ParseFloat(fields[12], 64)
	t.check(errors.Join(wrongUser, wrongSystem))
	return (user + system) * tick
}

// worker is what the testbed takes for a test.
type worker struct {
	err      error
	cleanups []func()
}

var _ chromiumtest.T = (*worker)(nil)

// withT does something that ends with its first error, and clears up behind it.
func withT(do func(t *worker)) error {
	t := &worker{}
	run := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		<-done
	}
	run(func() { do(t) })
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		run(last)
	}
	return t.err
}

// check ends it with an error, unless that is nil.
func (t *worker) check(err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (*worker) Helper()                      {}
func (*worker) Name() string                 { return "bench" }
func (*worker) Logf(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }
func (t *worker) Errorf(format string, a ...any) {
	t.err = errors.Join(t.err, fmt.Errorf(format, a...))
}
func (t *worker) Fatal(a ...any) {
	t.Errorf("%s", fmt.Sprint(a...))
	runtime.Goexit()
}
func (t *worker) Fatalf(format string, a ...any) { t.Fatal(fmt.Sprintf(format, a...)) }
func (t *worker) Skip(a ...any)                  { t.Fatal(a...) }
func (t *worker) Failed() bool                   { return t.err != nil }
func (t *worker) Cleanup(f func())               { t.cleanups = append(t.cleanups, f) }
func (t *worker) TempDir() string {
	dir, err := os.MkdirTemp("", "bitbox-base-bench-")
	t.check(err)
	t.Cleanup(func() { t.check(os.RemoveAll(dir)) })
	return dir
}

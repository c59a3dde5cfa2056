package window

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// clock is the time of a window under test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// site is a window under test, with a page whose parts the test sets. It notes what its owner is asked.
type site struct {
	*server
	t     *testing.T
	clock *clock
	said  chan string
	ended chan error
	end   func()

	mu       sync.Mutex
	parts    map[string]string
	wakes    map[chan struct{}]bool
	underWay bool
	busy     *doing // what is under way, and lets nothing else begin
	done     []any
}

func (s *site) Subscribe() (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wake := make(chan struct{}, 1)
	s.wakes[wake] = true
	return wake, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.wakes, wake)
	}
}

func (s *site) State() owner.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := owner.State{Bases: []owner.Base{{Base: client.Base{Name: "Home", PublicKey: [32]byte{1}}}},
		Deeds: []owner.DeedState{{Number: 1, Ended: s.clock.read()}}}
	if s.underWay {
		state.Deeds[0].Ended = time.Time{}
	}
	if s.busy != nil {
		state.Deeds = append(state.Deeds, owner.DeedState{Number: 9, Base: s.busy.base, Deed: s.busy.deed})
	}
	return state
}

func (s *site) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (s *site) Do(base string, d owner.Deed) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy != nil {
		return 0, &client.Error{Kind: client.ErrNotNow, Text: "another change of this Base is under way"}
	}
	s.done = append(s.done, doing{base, d})
	return uint64(len(s.done)), nil
}

func (s *site) Answer(deed, question uint64, a owner.Answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, answering{deed, question, a})
	return nil
}

func (s *site) Stop(deed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, deed)
}

func (s *site) Refresh(string, bool) {}

// doing and answering are what the owner was asked.
type (
	doing struct {
		base string
		deed owner.Deed
	}
	answering struct {
		deed, question uint64
		answer         owner.Answer
	}
)

func (s *site) setUnderWay(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay = is
	s.wake()
}

// set changes a part of each page.
func (s *site) set(id, html string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[id] = html
	s.wake()
}

// wake tells all who have subscribed; the caller holds mu.
func (s *site) wake() {
	for wake := range s.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

func (s *site) Page(path string, _ owner.State, _ time.Time) pages.Page {
	p := pages.Page{Title: path, Status: http.StatusOK}
	if path == "/enter" {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.parts)) {
		p.Parts = append(p.Parts, pages.Part{ID: id, HTML: template.HTML(s.parts[id])})
	}
	return p
}

func (s *site) Wants(string, owner.State) (string, []owner.Want) { return "", nil }

func (s *site) Want(string, owner.Want) {}

func (s *site) Notice(status int, said words.Text) pages.Page {
	return pages.Page{Title: said.Text, Status: status}
}

func (s *site) Document(w io.Writer, p pages.Page, f pages.Frame) error {
	_, err := fmt.Fprintf(w, "<title>%s</title><meta name=proof content=%q>%v", p.Title, f.Proof, p.Parts)
	return err
}

// openSite serves a window; change may break it before it begins.
func openSite(t *testing.T, change func(*server)) *site {
	t.Helper()
	s := &site{t: t, clock: &clock{now: time.Unix(1_900_000_000, 0)}, said: make(chan string, 100), ended: make(chan error, 1),
		parts: map[string]string{"health": "well"}, wakes: map[chan struct{}]bool{}}
	dir := t.TempDir()
	starts, release, _, err := claim(t.Context(), dir, question{})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := listenOnLoopback()
	if err != nil {
		t.Fatal(err)
	}
	s.server, err = newServer(Options{
		Owner: s, Pages: func(words.Language, time.Duration) Renderer { return s }, Dir: dir,
		NoBrowser: true, Say: func(sentence string) { s.said <- sentence }, now: s.clock.read,
	}, listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s.timing.watch, s.timing.gather = 10*time.Millisecond, time.Millisecond
	if change != nil {
		change(s.server)
	}
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.ended <- s.run(ctx, listener, starts)
	}()
	t.Cleanup(func() {
		end()
		<-ended
		release()
	})
	if said := <-s.said; !strings.Contains(said, "/enter") {
		t.Errorf("it does not say how to open it: %q", said)
	}
	return s
}

// A browser's headers for what it does.
var (
	typed = http.Header{"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"},
		"Sec-Fetch-User": {"?1"}}
	linked   = http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	scripted = http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
)

// with is a copy of headers with one of them changed; "" takes it away.
func with(headers http.Header, name, value string) http.Header {
	changed := headers.Clone()
	changed.Set(name, value)
	if value == "" {
		changed.Del(name)
	}
	return changed
}

// answer is what came of a request.
type answer struct {
	status int
	body   string
	header http.Header
}

// visitorBrowser is a browser without a script: it keeps cookies and sends the headers that it is told.
type visitorBrowser struct {
	site   *site
	cookie string
	client *http.Client
}

func (s *site) browser() *visitorBrowser {
	transport := &http.Transport{DisableKeepAlives: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &visitorBrowser{site: s, client: &http.Client{Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *visitorBrowser) request(method, path string, headers http.Header, form url.Values) *http.Request {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, b.site.address+path, body)
	if err != nil {
		b.site.t.Fatal(err)
	}
	r.Header = headers.Clone()
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	if b.cookie != "" {
		r.AddCookie(&http.Cookie{Name: b.site.cookie, Value: b.cookie})
	}
	return r
}

func (b *visitorBrowser) do(method, path string, headers http.Header, form url.Values) answer {
	b.site.t.Helper()
	response, err := b.client.Do(b.request(method, path, headers, form))
	if err != nil {
		b.site.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.site.t.Fatal(err)
	}
	for _, c := range response.Cookies() {
		if c.Name == b.site.cookie {
			b.cookie = c.Value
		}
	}
	return answer{response.StatusCode, string(text), response.Header}
}

// enters enters by a ticket and returns it.
func (b *visitorBrowser) enters() string {
	b.site.t.Helper()
	ticket, err := b.site.desk.ticket(b.site.now())
	if err != nil {
		b.site.t.Fatal(err)
	}
	if got := b.do("POST", "/enter", scripted, url.Values{"ticket": {ticket}}); got.status != http.StatusNoContent {
		b.site.t.Fatalf("it does not come in: %+v", got)
	}
	return ticket
}

const (
	someTab   = "00112233445566778899aabbccddeeff"
	someNonce = "ffeeddccbbaa99887766554433221100"
)

// events opens a stream and returns its events; the channel is closed at its end. leave ends it.
func (b *visitorBrowser) events(tab string) (events <-chan event, leave func()) {
	b.site.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.site.t.Cleanup(cancel)
	r := b.request("GET", "/stream?page=/bases&tab="+tab+"&nonce="+someNonce, scripted, nil).WithContext(ctx)
	client := *b.client
	client.Timeout = 0
	response, err := client.Do(r)
	if err != nil {
		b.site.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		b.site.t.Fatalf("the stream is refused: %s", response.Status)
	}
	all := make(chan event, 1000)
	go func() {
		defer close(all)
		defer func() { _ = response.Body.Close() }()
		for e := range parse(response.Body) {
			all <- e
		}
	}()
	return all, cancel
}

// parse reads an event stream as a browser does: a line ends at LF, CR, or both (HTML, section
// "Interpreting an event stream"). Data that is no JSON of an event stands as its title.
func parse(stream io.Reader) func(yield func(event) bool) {
	return func(yield func(event) bool) {
		lines := bufio.NewScanner(stream)
		lines.Buffer(nil, 2*longestEvent)
		lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
			at := slices.IndexFunc(data, func(b byte) bool { return b == '\n' || b == '\r' })
			switch {
			case at < 0 && atEOF && len(data) > 0:
				return len(data), data, nil
			case at < 0:
				return 0, nil, nil
			case data[at] == '\r' && at+1 < len(data) && data[at+1] == '\n':
				return at + 2, data[:at], nil
			}
			return at + 1, data[:at], nil
		})
		for lines.Scan() {
			text, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			e := event{}
			if json.Unmarshal([]byte(text), &e) != nil {
				e = event{Title: text}
			}
			if !yield(e) {
				return
			}
		}
	}
}

// await returns the next event that is as wanted, and fails at the end of the stream.
func await(t *testing.T, events <-chan event, wanted func(event) bool) event {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the stream has ended")
			}
			if wanted(e) {
				return e
			}
		case <-late:
			t.Fatal("the event does not come")
		}
	}
}

func awaitClosed(t *testing.T, events <-chan event) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-late:
			t.Fatal("the stream goes on")
		}
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it does not come", what)
		}
	}
}

// without is a change that takes one rule from the door.
func without(name string) func(*server) {
	return func(s *server) {
		s.door.rules = slices.DeleteFunc(slices.Clone(s.door.rules), func(r rule) bool { return r.name == name })
		if len(s.door.rules) == len(rules) {
			panic("there is no rule " + name)
		}
	}
}

func dialSite(t *testing.T, s *site) net.Conn {
	conn, err := net.Dial("tcp4", strings.TrimPrefix(s.address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

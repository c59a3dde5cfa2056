package window

import (
	"crypto/hmac"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// attack is one request to a window that has a session open. It must be refused, and it must come in
// if the door is broken.
type attack struct {
	name    string
	rule    string // that holds it off
	method  string
	path    string
	headers http.Header
	form    url.Values
}

func TestTheDoorRefusesEachForeignRequest(t *testing.T) {
	tab := url.Values{"tab": {someTab}, "state": {"shown"}, "active": {"1"}}
	for _, a := range []attack{
		{"DNS rebinding", "host", "GET", "/bases", with(linked, "Host", "evil.example:80"), nil},
		{"the name localhost", "host", "GET", "/bases", with(linked, "Host", "localhost:80"), nil},
		{"a browser that does not say where from", "site", "GET", "/bases", with(linked, "Sec-Fetch-Site", ""), nil},
		{"a link of another site", "site", "GET", "/bases", with(linked, "Sec-Fetch-Site", "cross-site"), nil},
		{"a link of another port", "site", "GET", "/bases", with(linked, "Sec-Fetch-Site", "same-site"), nil},
		{"the script of another port", "site", "GET", "/bases", with(scripted, "Sec-Fetch-Site", "same-site"), nil},
		{"a form of another site", "site", "POST", "/tab", with(linked, "Sec-Fetch-Site", "cross-site"), tab},
		{"a form of another port", "site", "POST", "/tab", with(linked, "Sec-Fetch-Site", "same-site"), tab},
		{"a form without a page", "site", "POST", "/tab", with(linked, "Sec-Fetch-Site", "none"), tab},
		{"a frame of ours", "frame", "GET", "/bases", with(linked, "Sec-Fetch-Dest", "iframe"), nil},
	} {
		t.Run(a.name, func(t *testing.T) {
			for _, broken := range []bool{false, true} {
				change := func(*server) {}
				if broken {
					change = without(a.rule)
				}
				b := openSite(t, change).browser()
				b.enters()
				got := b.do(a.method, a.path, a.headers, a.form)
				if in := got.status < 400; in != broken {
					t.Errorf("broken: %t; it gets %d %q", broken, got.status, got.body)
				}
				if !broken && strings.Contains(got.body, "well") {
					t.Errorf("the refusal shows the page: %s", got.body)
				}
			}
		})
	}
}

func TestWhatAPersonDoesComesIn(t *testing.T) {
	b := openSite(t, nil).browser()
	b.enters()
	for _, headers := range []http.Header{typed, linked} {
		if got := b.do("GET", "/bases", headers, nil); got.status != http.StatusOK || !strings.Contains(got.body, "well") {
			t.Errorf("%v: %d %q", headers, got.status, got.body)
		}
	}
}

func TestWithoutASessionNothingIsShown(t *testing.T) {
	for _, broken := range []bool{false, true} {
		change := func(*server) {}
		if broken {
			change = without("session")
		}
		b := openSite(t, change).browser()
		for _, cookie := range []string{"", "made up"} {
			b.cookie = cookie
			if got := b.do("GET", "/bases", typed, nil); strings.Contains(got.body, "well") != broken {
				t.Errorf("broken: %t; with the cookie %q: %d %q", broken, cookie, got.status, got.body)
			}
		}
	}
}

func TestATicketThatComesTwiceLocksEverything(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := openSite(t, nil)
		owner, thief := s.browser(), s.browser()
		ticket := owner.enters()
		events, _ := owner.events(someTab)
		await(t, events, func(e event) bool { return len(e.Parts) > 0 })
		if broken { // a desk that forgets what was used
			s.desk.mu.Lock()
			clear(s.desk.tickets)
			s.desk.mu.Unlock()
		}
		got := thief.do("POST", "/enter", scripted, url.Values{"ticket": {ticket}})
		if got.status != http.StatusForbidden {
			t.Errorf("a thief comes in: %d %q", got.status, got.body)
		}
		if seen := owner.do("GET", "/bases", linked, nil); (seen.status == http.StatusOK) != broken {
			t.Errorf("broken: %t; the owner gets %d", broken, seen.status)
		}
		if broken {
			continue
		}
		if e := await(t, events, func(e event) bool { return e.Locked != "" }); e.Locked != words.English.Say("door.used") {
			t.Errorf("the page is told %q", e.Locked)
		}
		awaitClosed(t, events)
		if said := <-s.said; !strings.Contains(said, "used twice") {
			t.Errorf("the terminal says %q", said)
		}
	}
}

func TestALateTicketIsRefused(t *testing.T) {
	for _, late := range []bool{true, false} {
		s := openSite(t, nil)
		b := s.browser()
		ticket, err := s.desk.ticket(s.now())
		if err != nil {
			t.Fatal(err)
		}
		if late {
			s.clock.advance(ticketLife + time.Second)
		}
		got := b.do("POST", "/enter", scripted, url.Values{"ticket": {ticket}})
		if (got.status == http.StatusForbidden) != late || late && !strings.Contains(got.body, words.English.Say("door.late")) {
			t.Errorf("late: %t; it gets %d %q", late, got.status, got.body)
		}
	}
}

// Where the kernel does not say whose a connection is, the ticket is not enough: another user can
// read it.
func TestAConnectionOfAnUnknownUserNeedsTheCode(t *testing.T) {
	s := openSite(t, nil)
	ticket, err := s.desk.ticket(s.now())
	if err != nil {
		t.Fatal(err)
	}
	code, err := s.desk.newCode(s.now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		whose peer.Whose
		form  url.Values
		want  int
	}{
		{peer.Unknown, url.Values{"ticket": {ticket}}, http.StatusUnauthorized},
		{peer.Unknown, url.Values{"code": {"000 000 000"}}, http.StatusForbidden},
		{peer.Unknown, url.Values{"code": {code}}, http.StatusNoContent},
		{peer.Own, url.Values{"ticket": {ticket}}, http.StatusNoContent},
	} {
		r := s.browser().request("POST", "/enter", scripted, c.form)
		w := httptest.NewRecorder()
		s.enter(w, r, visitor{peer: c.whose})
		if w.Code != c.want {
			t.Errorf("%v: %d", c.form, w.Code)
		}
	}
}

func TestACodeIsGuessedAFewTimesOnly(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := openSite(t, nil)
		b := s.browser()
		code, err := s.desk.newCode(s.now())
		if err != nil {
			t.Fatal(err)
		}
		for range codeTries {
			if broken { // a desk that does not count
				s.desk.mu.Lock()
				s.desk.tries = 0
				s.desk.mu.Unlock()
			}
			if got := b.do("POST", "/enter", linked, url.Values{"code": {"not this one"}}); got.status != http.StatusForbidden {
				t.Fatalf("a wrong code gets %d", got.status)
			}
		}
		got := b.do("POST", "/enter", linked, url.Values{"code": {code}})
		if in := got.status == http.StatusSeeOther; in != broken {
			t.Errorf("broken: %t; the right code then gets %d", broken, got.status)
		}
	}
}

func TestANameWithLineBreaksForgesNoEvent(t *testing.T) {
	const forged = `{"title":"forged"}`
	for _, end := range []string{"\r", "\n", "\r\n", "\u2028", "\n\n"} {
		name := "kitchen" + end + end + "data: " + forged + end + end
		s := openSite(t, nil)
		s.set("health", name)
		b := s.browser()
		b.enters()
		events, leave := b.events(someTab)
		first := await(t, events, func(e event) bool { return len(e.Parts) > 0 })
		if !slices.Contains(first.Parts, part{"health", name}) {
			t.Errorf("%q arrives as %q", name, first.Parts)
		}
		leave()
		for e := range events {
			if e.Title == "forged" {
				t.Errorf("%q forges an event", end)
			}
		}
	}
	// A stream that writes text as it is can be forged.
	seen := false
	for e := range parse(strings.NewReader("data: kitchen\rdata: " + forged + "\n\n")) {
		seen = seen || e.Title == "forged"
	}
	if !seen {
		t.Error("the test sees no forged event")
	}
}

var proofKey = regexp.MustCompile(`name=proof content="([0-9a-f]{64})"`)

// After the App has ended, another program may have its port, and a page that is still open asks it.
func TestADeadAppsPortProvesNothing(t *testing.T) {
	for _, broken := range []bool{false, true} {
		first := openSite(t, nil)
		b := first.browser()
		b.enters()
		key := proofKey.FindStringSubmatch(b.do("GET", "/bases", linked, nil).body)
		if key == nil {
			t.Fatal("the page has no key")
		}
		raw, err := hex.DecodeString(key[1])
		if err != nil {
			t.Fatal(err)
		}
		proves := func(s *site) bool {
			b := s.browser()
			b.enters()
			events, _ := b.events(someTab)
			proof := await(t, events, func(event) bool { return true }).Proof
			nonce, _ := hex.DecodeString(someNonce)
			return hmac.Equal([]byte(proof), []byte(prove([32]byte(raw), nonce)))
		}
		if !proves(first) {
			t.Error("the server of the page does not prove itself")
		}
		thief := openSite(t, func(s *server) {
			if broken {
				s.proof = first.proof
			}
		})
		if got := proves(thief); got != broken {
			t.Errorf("broken: %t; another server proves itself: %t", broken, got)
		}
	}
}

func TestPagesCannotHoldAllStreams(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := openSite(t, func(s *server) {
			if broken {
				s.streams = make(chan struct{}, 2*mostStreams)
			}
		})
		b := s.browser()
		b.enters()
		var leave func()
		for n := range mostStreams {
			var events <-chan event
			events, leave = b.events(fmt.Sprintf("%032x", n))
			await(t, events, func(e event) bool { return len(e.Parts) > 0 })
		}
		status := func() int {
			response, err := b.client.Do(b.request("GET", "/stream?page=/bases&tab="+someTab+"&nonce="+someNonce, scripted, nil))
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			return response.StatusCode
		}
		if got := status(); (got == http.StatusOK) != broken {
			t.Errorf("broken: %t; one more stream gets %d", broken, got)
		}
		leave()
		until(t, "a place is free again", func() bool { return status() == http.StatusOK })
	}
}

func TestAPageThatDoesNotReadIsDropped(t *testing.T) {
	s := openSite(t, func(s *server) { s.timing.write = 200 * time.Millisecond })
	b := s.browser()
	b.enters()
	if err := b.request("GET", "/stream?page=/bases&tab="+someTab+"&nonce="+someNonce, scripted, nil).Write(dialSite(t, s)); err != nil {
		t.Fatal(err)
	}
	until(t, "the stream is open", func() bool { return len(s.streams) == 1 })
	large := strings.Repeat("x", longestEvent/2)
	n := 0
	until(t, "the slow page is dropped", func() bool {
		n++
		s.set("health", fmt.Sprint(n, large))
		return len(s.streams) == 0
	})
}

func TestRootIsRefused(t *testing.T) {
	if err := refuseRoot(1000); err != nil {
		t.Error(err)
	}
	if err := refuseRoot(0); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("root gets %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := Run(t.Context(), Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("root gets %v", err)
	}
}

func TestGoingBackAfterLockingShowsNothing(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	got := b.do("GET", "/bases", linked, nil)
	if got.header.Get("Cache-Control") != "no-store" { // a browser keeps no copy to go back to
		t.Errorf("the page is kept: %v", got.header)
	}
	s.life.stay(s.now(), time.Hour)
	s.clock.advance(usualIdle)
	until(t, "the page locks", func() bool { return b.do("GET", "/bases", linked, nil).status == http.StatusUnauthorized })
	for _, path := range []string{"/bases", "/base/0011/overview", "/deed/1", "/stream?page=/bases"} {
		if got := b.do("GET", path, linked, nil); got.status != http.StatusUnauthorized || strings.Contains(got.body, "well") ||
			proofKey.MatchString(got.body) {
			t.Errorf("%s: %d %q", path, got.status, got.body)
		}
	}
}

// While a computer sleeps, the monotonic clock may stand still, and a difference of two times uses it if
// both have it.
func TestTheTimeAsleepCounts(t *testing.T) {
	for name, now := range map[string]func() time.Time{"wall": wallTime, "broken: monotonic": time.Now} {
		before := now()
		if monotonic := before != before.Round(0); monotonic != strings.HasPrefix(name, "broken") {
			t.Errorf("%s: %s", name, before)
		}
	}
}

// A Base decides how long its parts of a page are. What others say must go on all the same.
func TestALongPartDoesNotStopAPage(t *testing.T) {
	const each = longestEvent * 2 / 3
	for name, long := range map[string]string{
		"one": strings.Repeat("x", longestEvent+1), "one of markup": strings.Repeat("<", each), "two that fit alone": strings.Repeat("x", each),
	} {
		s := openSite(t, nil)
		s.set("findings", long)
		s.set("health", "not well")
		s.set("logs", long)
		b := s.browser()
		b.enters()
		events, _ := b.events(someTab)
		for _, id := range []string{"findings", "health", "logs"} {
			e := await(t, events, func(e event) bool { return slices.ContainsFunc(e.Parts, func(p part) bool { return p.ID == id }) })
			whole := e.Parts[0].HTML == long
			if id == "health" && e.Parts[0].HTML != "not well" || id != "health" && whole != (name == "two that fit alone") {
				t.Errorf("%s: %s is shown as %.80q", name, id, e.Parts[0].HTML)
			}
		}
	}
}

// A page of another site that knows the port sends requests without end, by the same browser.
func TestAFloodOfForeignRequestsTakesNoTurnFromThePerson(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := openSite(t, func(s *server) {
			s.budget, s.refusals = rate.NewLimiter(0, 10), rate.NewLimiter(0, 10)
			if broken {
				s.refusals = s.budget
			}
		})
		b := s.browser()
		b.enters()
		for range 30 {
			response, err := b.client.Do(b.request("GET", "/bases", with(scripted, "Sec-Fetch-Site", "cross-site"), nil))
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if !response.Close {
				t.Fatal("a foreign request keeps a place for its connection")
			}
		}
		if got := b.do("GET", "/bases", linked, nil); (got.status == http.StatusOK) == broken {
			t.Errorf("broken: %t; the person gets %d", broken, got.status)
		}
	}
}

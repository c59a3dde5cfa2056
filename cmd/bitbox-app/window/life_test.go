package window

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/static"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// goesOn fails if the window has ended.
func (s *site) goesOn(when string) {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.t.Fatalf("%s: the window has ended: %v", when, err)
	case <-time.After(10 * s.timing.watch):
	}
}

func (s *site) awaitEnd(when string) {
	s.t.Helper()
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("%s: %v", when, err)
		}
	case <-time.After(patience):
		s.t.Fatalf("%s: the window does not end", when)
	}
}

func TestTheWindowEndsAMinuteAfterItsLastPage(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	events, leave := b.events(someTab)
	await(t, events, func(e event) bool { return len(e.Parts) > 0 })
	s.clock.advance(10 * time.Minute)
	s.goesOn("while a page is open")
	leave()
	awaitClosed(t, events)
	until(t, "the page is counted out", func() bool { return len(s.streams) == 0 })
	s.setUnderWay(true)
	s.clock.advance(2 * time.Minute)
	s.goesOn("while a deed is under way")
	s.setUnderWay(false)
	s.clock.advance(lastPage)
	s.awaitEnd("a minute after the last page and the deed")
}

func TestAHiddenPageKeepsTheWindowOpenAndAClosedOneDoesNot(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	say := func(state string) int {
		return b.do("POST", "/tab", scripted, url.Values{"tab": {someTab}, "state": {state}, "active": {"0"}}).status
	}
	s.clock.advance(3 * time.Minute)
	if got := say("hidden"); got != http.StatusNoContent {
		t.Fatalf("it gets %d", got)
	}
	for range 5 {
		s.clock.advance(tabLease - time.Second)
		s.goesOn("while a hidden page gives signs of life")
		say("hidden")
	}
	say("closed")
	s.clock.advance(lastPage)
	s.awaitEnd("a minute after the page was closed")
}

func TestAPageWithoutAScriptKeepsTheWindowOpenUntilItLocks(t *testing.T) {
	for _, scripts := range []bool{false, true} {
		s := openSite(t, nil)
		b := s.browser()
		b.enters()
		b.do("GET", "/bases", linked, nil)
		if scripts {
			events, leave := b.events(someTab)
			await(t, events, func(e event) bool { return len(e.Parts) > 0 })
			leave()
			until(t, "the page is counted out", func() bool { return len(s.streams) == 0 })
		}
		s.clock.advance(usualIdle - time.Second)
		if scripts {
			s.awaitEnd("long after a page with a script was closed")
			continue
		}
		s.goesOn("while a page without a script is open")
		s.clock.advance(2 * lastPage)
		s.awaitEnd("after the page has locked")
	}
}

func TestNobodyComesAndTheWindowEnds(t *testing.T) {
	s := openSite(t, nil)
	s.goesOn("at first")
	s.clock.advance(codeLife)
	s.goesOn("while the code is good")
	s.clock.advance(lastPage)
	s.awaitEnd("after the code")
}

func TestAnOpenPageIsToldThatTheWindowEnds(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	events, _ := b.events(someTab)
	await(t, events, func(e event) bool { return len(e.Parts) > 0 })
	s.end()
	await(t, events, func(e event) bool { return e.Gone == words.English.Say("door.gone") })
	awaitClosed(t, events)
	s.awaitEnd("when it is ended")
}

func TestAnIdlePageIsWarnedAndLocksAndComesBack(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	active := func() int {
		return b.do("POST", "/tab", scripted, url.Values{"tab": {someTab}, "state": {"shown"}, "active": {"1"}}).status
	}
	events, _ := b.events(someTab)
	await(t, events, func(e event) bool { return len(e.Parts) > 0 })
	s.clock.advance(usualIdle - 30*time.Second)
	if e := await(t, events, func(e event) bool { return e.Idle != nil }); *e.Idle != 30 {
		t.Errorf("it is warned %d s before", *e.Idle)
	}
	active()
	if e := await(t, events, func(e event) bool { return e.Idle != nil }); *e.Idle != 0 {
		t.Errorf("after a key it is still warned: %d", *e.Idle)
	}
	// Neither the stream nor signs of life keep a page open.
	s.clock.advance(usualIdle - time.Second)
	s.set("health", "better")
	b.do("POST", "/tab", scripted, url.Values{"tab": {someTab}, "state": {"shown"}, "active": {"0"}})
	b.do("GET", "/bases", linked, nil)
	s.clock.advance(time.Second)
	await(t, events, func(e event) bool { return e.Locked == words.English.Say("door.idle") })
	awaitClosed(t, events)
	if got := active(); got != http.StatusUnauthorized {
		t.Errorf("a key opens it again: %d", got)
	}
	// The page stays in the browser, with what was typed; another ticket brings it back.
	key := s.proof
	b.enters()
	if got := active(); got != http.StatusNoContent {
		t.Errorf("the page is told %d", got)
	}
	events, _ = b.events(someTab)
	if e := await(t, events, func(event) bool { return true }); e.Proof != prove(key, mustHex(t, someNonce)) {
		t.Error("the page that was locked does not know its server again")
	}
}

func TestNoPageLocksDuringADeed(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	s.setUnderWay(true)
	time.Sleep(5 * s.timing.watch)
	for range 3 {
		s.clock.advance(usualIdle / 2)
		s.goesOn("during a deed")
	}
	if got := b.do("GET", "/bases", linked, nil); got.status != http.StatusOK {
		t.Errorf("during a deed it gets %d", got.status)
	}
	s.life.stay(s.now(), time.Hour)
	s.setUnderWay(false)
	s.clock.advance(usualIdle)
	until(t, "it locks after the deed", func() bool { return b.do("GET", "/bases", linked, nil).status == http.StatusUnauthorized })
}

func TestASecondStartIsInvitedByTheFirst(t *testing.T) {
	s := openSite(t, nil)
	_, _, found, err := claim(t.Context(), s.Dir, question{})
	if err != nil || found == nil || found.Address != s.address {
		t.Fatalf("it is %+v %v", found, err)
	}
	b := s.browser()
	if got := b.do("POST", "/enter", scripted, url.Values{"ticket": {found.Ticket}}); got.status != http.StatusNoContent {
		t.Errorf("the ticket gets %d %s", got.status, got.body)
	}
	_, _, found, err = claim(t.Context(), s.Dir, question{Code: true})
	if err != nil || found == nil || found.Code == "" {
		t.Fatalf("it is %+v %v", found, err)
	}
	if got := s.browser().do("POST", "/enter", linked, url.Values{"code": {found.Code}}); got.status != http.StatusSeeOther {
		t.Errorf("the code gets %d %s", got.status, got.body)
	}
}

func TestTheSocketOfAWindowThatDiedIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	first, release, _, err := claim(t.Context(), dir, question{})
	if err != nil {
		t.Fatal(err)
	}
	first.SetUnlinkOnClose(false) // as a process that was killed leaves it
	release()
	second, release, found, err := claim(t.Context(), dir, question{})
	if err != nil || found != nil {
		t.Fatalf("it is %v %v", found, err)
	}
	defer release()
	if second.Addr().String() != first.Addr().String() {
		t.Error(second.Addr())
	}
}

func TestAFolderWithALongNameIsNamed(t *testing.T) {
	if _, _, _, err := claim(t.Context(), "/"+strings.Repeat("x", longestPath), question{}); err == nil ||
		!strings.Contains(err.Error(), "--dir") {
		t.Errorf("it is %v", err)
	}
}

func TestEachAnswerHasTheHeadersOfThePolicy(t *testing.T) {
	b := openSite(t, nil).browser()
	refused := b.do("GET", "/bases", typed, nil)
	b.enters()
	for name, got := range map[string]answer{"page": b.do("GET", "/bases", typed, nil), "refusal": refused,
		"nothing": b.do("GET", "/there/is/nothing", typed, nil), "script": b.do("POST", "/tab", scripted, url.Values{})} {
		for header, want := range headers {
			if got.header.Get(header) != want {
				t.Errorf("%s: %s is %q", name, header, got.header.Get(header))
			}
		}
	}
	for _, word := range []string{"unsafe", "*", "data:", "http:"} {
		if strings.Contains(policy, word) {
			t.Errorf("the policy has %q", word)
		}
	}
}

func TestTheCookieIsForThisServerAlone(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	ticket, err := s.desk.ticket(s.now())
	if err != nil {
		t.Fatal(err)
	}
	got := b.do("POST", "/enter", scripted, url.Values{"ticket": {ticket}}).header.Get("Set-Cookie")
	port := s.address[strings.LastIndex(s.address, ":")+1:]
	for _, want := range []string{"window-" + port + "=", "; HttpOnly", "; SameSite=Strict", "Path=/"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if strings.Contains(got, "Expires") || strings.Contains(got, "Max-Age") {
		t.Errorf("it outlives the browser: %q", got)
	}
	// A server on another port sets a cookie of the same name; ours counts.
	r := b.request("GET", "/bases", linked, nil)
	r.Header.Set("Cookie", s.cookie+"=foreign; "+s.cookie+"="+b.cookie)
	response, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("with a foreign cookie beside ours it gets %s", response.Status)
	}
}

func TestAStaticFileIsNamedByItsHash(t *testing.T) {
	s := openSite(t, nil)
	file := static.Script
	got := s.browser().do("GET", file.Path, with(scripted, "Sec-Fetch-Mode", "no-cors"), nil)
	hash := sha256.Sum256([]byte(got.body))
	if got.status != http.StatusOK || file.Integrity != "sha256-"+base64.StdEncoding.EncodeToString(hash[:]) {
		t.Errorf("%s %s: %d", file.Path, file.Integrity, got.status)
	}
	if got := s.browser().do("GET", "/static/other.js", scripted, nil); got.status != http.StatusNotFound {
		t.Errorf("another name gets %d", got.status)
	}
}

func mustHex(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

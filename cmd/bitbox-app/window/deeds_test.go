package window

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// asked is what the owner was asked so far.
func (s *site) asked() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.done
	s.done = nil
	return all
}

func TestAFormStartsItsDeedAndLeadsToIt(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	base := s.State().Bases[0].ID()
	for _, c := range []struct {
		path  string
		form  url.Values
		asked any
	}{
		{"/base/" + base + "/deed/lift-ban", url.Values{"subject": {"192.0.2.7"}},
			doing{base, owner.Deed{Kind: owner.LiftBan, Subject: "192.0.2.7"}}},
		{"/base/" + base + "/lockdown", url.Values{}, doing{base, owner.Deed{Kind: owner.Lockdown}}},
		{"/deed/1/answer", url.Values{"question": {"7"}, "answer": {"yes"}}, answering{1, 7, owner.Answer{Yes: true}}},
		{"/deed/1/answer", url.Values{"question": {"7"}, "answer": {"no"}, "text": {"six"}}, answering{1, 7, owner.Answer{Text: "six"}}},
		{"/deed/1/stop", url.Values{}, uint64(1)},
	} {
		got := b.do("POST", c.path, linked, c.form)
		if got.status != http.StatusSeeOther || got.header.Get("Location") != "/deed/1" {
			t.Errorf("%s: %d to %q", c.path, got.status, got.header.Get("Location"))
		}
		if asked := s.asked(); !reflect.DeepEqual(asked, []any{c.asked}) {
			t.Errorf("%s: the owner is asked %+v", c.path, asked)
		}
	}
}

func TestAFormThatDoesNotFitIsRefused(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	base := "/base/" + s.State().Bases[0].ID()
	for path, form := range map[string]url.Values{
		base + "/deed/lift-ban":              {"subject": {"192.0.2.7"}, "text": {"more"}},
		base + "/deed/lift-ban?x":            {},
		base + "/deed/lift-ban?twice":        {"subject": {"a", "b"}},
		base + "/deed/lift-ban?long":         {"subject": {strings.Repeat("x", longestField+1)}},
		base + "/deed/lift-ban?longer":       {"subject": {strings.Repeat("x", longestForm)}},
		base + "/deed/erase":                 {},
		"/base/0011223344556677/deed/unlock": {},
		base + "/lockdown":                   {"subject": {"x"}},
		"/deed/1/answer":                     {"question": {"7"}, "answer": {"maybe"}},
		"/deed/1/answer?none":                {"answer": {"yes"}},
		"/deed/x/answer":                     {"question": {"7"}, "answer": {"yes"}},
		"/deed/x/stop":                       {},
		"/settings":                          {"language": {"fr"}, "idle": {"15"}},
		"/settings?short":                    {"language": {"de"}, "idle": {"0"}},
		"/settings?long":                     {"language": {"de"}, "idle": {"999999999999999"}},
	} {
		if got := b.do("POST", path, linked, form); got.status != http.StatusBadRequest && got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if asked := s.asked(); len(asked) > 0 {
		t.Errorf("the owner is asked %+v", asked)
	}
}

func TestSettingsHoldAtOnceAndForTheNextStart(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	if got := b.do("POST", "/settings", linked, url.Values{"language": {"de"}, "idle": {"5"}}); got.status != http.StatusSeeOther {
		t.Fatalf("it gets %d", got.status)
	}
	for name, now := range map[string]*settings{"now": s.settings, "next": newSettings(s.Options)} {
		if language, _, idle := now.read(); language.Tag != "de" || idle.Minutes() != 5 {
			t.Errorf("%s: %s, %s", name, language.Tag, idle)
		}
	}
	o := s.Options
	o.Language, o.Idle = "en", longestIdle
	if language, _, idle := newSettings(o).read(); language.Tag != "en" || idle != longestIdle {
		t.Errorf("flags: %s, %s", language.Tag, idle)
	}
}

func TestRequestsHaveABudget(t *testing.T) {
	s := openSite(t, nil)
	s.budget.SetLimit(0)
	b := s.browser()
	for range atOnce + 1 {
		if b.do("GET", "/enter", typed, nil).status == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("each request is answered")
}

package window

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// asked is what the owner was asked since the last call.
func (s *site) asked() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.done
	s.done = nil
	return all
}

// elsewhere are the deeds that are no form of /base/{id}/deed/{kind}, and why.
var elsewhere = map[owner.DeedKind]string{
	owner.Pair:        "there is no Base yet, so /pair begins it",
	owner.Lockdown:    "it is a button on each page, and /base/{id}/lockdown begins it",
	owner.Install:     "it is a file, which has a route with a longer limit",
	owner.InstallCore: "it is files, which have a route with a longer limit",
}

func TestEachDeedHasAFormAndEachFormIsOfADeed(t *testing.T) {
	for _, kind := range owner.Kinds() {
		if _, has := forms[kind]; has == (elsewhere[kind] != "") {
			t.Errorf("%s has a form: %t; begun elsewhere: %q", kind, has, elsewhere[kind])
		}
	}
	for kind := range forms {
		if kind.String() == "" {
			t.Errorf("there is a form of the deed %d, which package owner does not have", kind)
		}
	}
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
		{"/base/" + base + "/deed/unlock?from=security", url.Values{}, doing{base, owner.Deed{Kind: owner.Unlock, From: "security"}}},
		{"/base/" + base + "/deed/unlock?from=//other.example", url.Values{}, doing{base, owner.Deed{Kind: owner.Unlock}}},
		{"/base/" + base + "/deed/factory-reset", url.Values{}, doing{base, owner.Deed{Kind: owner.FactoryReset}}},
		{"/base/" + base + "/lockdown", url.Values{}, doing{base, owner.Deed{Kind: owner.Lockdown}}},
		{"/pair", url.Values{"address": {"192.0.2.7:8845", "192.0.2.8:8845"}},
			doing{"", owner.Deed{Kind: owner.Pair, Addresses: []string{"192.0.2.7:8845", "192.0.2.8:8845"}}}},
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

func TestAPressThatComesTwiceLeadsToItsDeed(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	base := s.State().Bases[0].ID()
	s.mu.Lock()
	s.busy = &doing{base, owner.Deed{Kind: owner.LiftBan, Subject: "192.0.2.7"}}
	s.mu.Unlock()
	for address, status := range map[string]int{"192.0.2.7": http.StatusSeeOther, "192.0.2.8": http.StatusConflict} {
		got := b.do("POST", "/base/"+base+"/deed/lift-ban", linked, url.Values{"subject": {address}})
		if to := got.header.Get("Location"); got.status != status || (to == "/deed/9") != (status == http.StatusSeeOther) {
			t.Errorf("%s: %d to %q", address, got.status, to)
		}
	}
}

func TestAFormThatDoesNotFitIsRefused(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	base := "/base/" + s.State().Bases[0].ID()
	addresses := make([]string, mostValues+1)
	for n := range addresses {
		addresses[n] = fmt.Sprintf("192.0.2.%d:8845", n)
	}
	for path, form := range map[string]url.Values{
		base + "/deed/lift-ban":              {"subject": {"192.0.2.7"}, "more": {"x"}},
		base + "/deed/lift-ban?none":         {},
		base + "/deed/lift-ban?long":         {"subject": {strings.Repeat("x", longestForm)}},
		base + "/deed/erase":                 {},
		base + "/deed/pair":                  {"address": {"192.0.2.7"}},
		base + "/deed/install":               {"file": {"/etc/passwd"}},
		"/base/0011223344556677/deed/unlock": {},
		"/base/0011223344556677/lockdown":    {},
		base + "/lockdown":                   {"subject": {"x"}},
		"/pair":                              {"address": addresses},
		"/deed/1/answer":                     {"question": {"7"}, "answer": {"maybe"}},
		"/deed/1/answer?none":                {"answer": {"yes"}},
		"/deed/1/answer?more":                {"question": {"7"}, "answer": {"yes"}, "more": {"x"}},
		"/deed/x/answer":                     {"question": {"7"}, "answer": {"yes"}},
		"/deed/x/stop":                       {},
		"/settings":                          {"language": {"fr"}, "idle": {"15"}},
		"/settings?short":                    {"language": {"de"}, "idle": {"0"}},
		"/settings?long":                     {"language": {"de"}, "idle": {"999999999999999"}},
		"/settings?more":                     {"language": {"de"}, "idle": {"15"}, "more": {"x"}},
	} {
		if got := b.do("POST", path, linked, form); got.status != http.StatusBadRequest && got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if asked := s.asked(); len(asked) > 0 {
		t.Errorf("the owner is asked %+v", asked)
	}
}

// upload is a form with fields and a file, in this order.
func upload(t *testing.T, b *visitorBrowser, path string, names ...string) answer {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, name := range names {
		file, err := form.CreateFormFile(name, "../../x.release")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = file.Write([]byte("content"))
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	r := b.request("POST", path, linked, url.Values{})
	r.Body, r.ContentLength = http.NoBody, 0
	raw, err := http.NewRequest("POST", r.URL.String(), &body)
	if err != nil {
		t.Fatal(err)
	}
	raw.Header = r.Header
	raw.Header.Set("Content-Type", form.FormDataContentType())
	response, err := b.client.Do(raw)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return answer{status: response.StatusCode, header: response.Header}
}

func TestAnUploadIsKeptUntilItsDeedHasEnded(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	path := "/base/" + s.State().Bases[0].ID() + "/deed/install"
	left := func() []string {
		found, err := filepath.Glob(filepath.Join(s.Dir, uploads+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, names := range [][]string{{"other"}, {"file", "file"}, {}} {
		if got := upload(t, b, path, names...); got.status != http.StatusBadRequest || len(left()) > 0 {
			t.Errorf("%q: %d, %q", names, got.status, left())
		}
	}
	s.setUnderWay(true) // the deed that is about to begin
	if got := upload(t, b, path, "file"); got.status != http.StatusSeeOther {
		t.Fatalf("it gets %d", got.status)
	}
	asked := s.asked()
	if len(asked) != 1 {
		t.Fatalf("the owner is asked %+v", asked)
	}
	file := asked[0].(doing).deed.Text
	if content, err := os.ReadFile(file); err != nil || string(content) != "content" || filepath.Dir(filepath.Dir(file)) != s.Dir {
		t.Errorf("%s has %q (%v)", file, content, err)
	}
	if got := upload(t, b, path, "file"); got.status != http.StatusConflict {
		t.Errorf("a second upload at the same time gets %d", got.status)
	}
	s.setUnderWay(false)
	until(t, "the file is removed", func() bool { return len(left()) == 0 })
	if err := os.WriteFile(filepath.Join(s.Dir, "upload-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeUploads(s.Dir); err != nil || len(left()) > 0 {
		t.Errorf("after a kill %q is left (%v)", left(), err)
	}
}

func TestSettingsHoldAtOnceAndForTheNextStart(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	// A choice that is left empty stays as it is.
	for _, form := range []url.Values{{"language": {"en"}, "idle": {"5"}}, {"language": {"de"}, "idle": {""}}} {
		if got := b.do("POST", "/settings", linked, form); got.status != http.StatusSeeOther {
			t.Fatalf("%v: it gets %d", form, got.status)
		}
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

// A person who saves the settings stays at them. An address that no Base of this App has leads nowhere else.
func TestSettingsComeBackToTheirPage(t *testing.T) {
	s := openSite(t, nil)
	b := s.browser()
	b.enters()
	id := s.State().Bases[0].ID()
	for base, want := range map[string]string{id: "/base/" + id + "/settings", "": "/", "/other.example": "/", id + "/..": "/"} {
		got := b.do("POST", "/settings", linked, url.Values{"language": {"en"}, "idle": {"15"}, "base": {base}})
		if to := got.header.Get("Location"); got.status != http.StatusSeeOther || to != want {
			t.Errorf("from %q: %d to %q, want %q", base, got.status, to, want)
		}
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

// A folder is named as its user likes, and its name is no pattern.
func TestWhatAKilledWindowLeavesIsRemovedFromAnyFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[ab]")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{uploads + "1", "keep-" + uploads} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeUploads(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "keep-"+uploads {
		t.Errorf("it leaves %v (%v)", left, err)
	}
}

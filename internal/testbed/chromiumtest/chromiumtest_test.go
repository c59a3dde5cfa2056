//go:build linux

package chromiumtest

import (
	"bytes"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// aPage has a button that is dead at first, a policy, and a script that the policy refuses.
const aPage = `<!doctype html><title>A page</title><body>
<label for=name>Your name</label> <input id=name>
<button id=b disabled>Go   on</button> <p id=said></p>
<script nonce=n>
setTimeout(() => { b.disabled = false }, 100);
b.onclick = () => { said.textContent = "Hello, " + document.getElementById("name").value };
</script></body>`

func serve(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-n'")
		body := aPage
		if r.URL.Path == "/bad" {
			body += `<img src=x onerror="said.textContent='pwned'">`
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server
}

func TestATabIsUsedAsAPersonDoes(t *testing.T) {
	server := serve(t)
	tab := Start(t, Options{}).Tab()
	tab.Open(server.URL)
	tab.Type("Your name", "Ada")
	tab.Press("Go on")
	tab.AwaitText("Hello, Ada")
	if tab.Shows("Hello, Bob") {
		t.Error("it shows what it does not show")
	}
	tab.Size(360, 640)
	picture, err := png.DecodeConfig(bytes.NewReader(tab.Picture()))
	if err != nil || picture.Width != 360 {
		t.Errorf("the picture is %v wide, %v", picture.Width, err)
	}
	requests := tab.Requests()
	if len(requests) == 0 || requests[0].Status != http.StatusOK || requests[0].Bytes < len(aPage) {
		t.Errorf("requests are %+v", requests)
	}
}

func TestATabComplainsOfWhatThePolicyRefuses(t *testing.T) {
	server := serve(t)
	tab := Start(t, Options{}).Tab()
	tab.Open(server.URL + "/bad")
	tab.Await("the page is loaded", "document.readyState === 'complete'")
	all := strings.Join(tab.Complaints(), "\n")
	if !strings.Contains(all, "Content Security Policy") {
		t.Errorf("it complains of %q", all)
	}
	if tab.Shows("pwned") {
		t.Error("the policy let it through")
	}
}

func TestAxeFindsWhatAPersonCannotReadOrReach(t *testing.T) {
	RequireAxe(t)
	server := serve(t)
	tab := Start(t, Options{}).Tab()
	tab.Open(server.URL)
	Eval[bool](tab, `document.documentElement.lang = "en", true`)
	for _, v := range tab.Axe() {
		t.Errorf("it finds %s in a page that is well: %q", v.ID, v.Elements)
	}
	Eval[bool](tab, `document.querySelector("label").remove(), said.textContent = "pale", said.style.color = "#ddd", true`)
	found := map[string]bool{}
	for _, v := range tab.Axe() {
		found[v.ID] = true
	}
	if !found["label"] || !found["color-contrast"] {
		t.Errorf("it finds %v", found)
	}
}

func TestAnotherAxeIsRefused(t *testing.T) {
	if _, err := script([]byte("something else"), strings.Repeat("0", 128)); err == nil || !strings.Contains(err.Error(), "hash") {
		t.Errorf("it is taken: %v", err)
	}
}

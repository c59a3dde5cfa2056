//go:build linux

package window_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// otherUser is somebody else on the owner's computer.
const otherUser = chromiumtest.UserID - 1

// fails checks that an attack fails on the App as it is, and succeeds on an App in which one defence
// is missing.
func fails(t *testing.T, attack func(t *testing.T, program string) (succeeded bool), missing ...windowtest.Change) {
	t.Helper()
	t.Run("as it is", func(t *testing.T) {
		if attack(t, windowtest.Build(t)) {
			t.Error("the attack succeeds")
		}
	})
	t.Run("broken", func(t *testing.T) {
		if !attack(t, windowtest.Build(t, missing...)) {
			t.Error("the attack fails without the defence as well; this test proves nothing")
		}
	})
}

// as runs f with the right to make sockets as another user, in the eyes of the kernel.
func as(user int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(user), 0, 0)
	defer func() { _, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(os.Geteuid()), 0, 0) }()
	f()
}

// status is how the last request to a path was answered; 0: it was not.
func status(tab *chromiumtest.Tab, path string) int {
	found := 0
	for _, r := range tab.Requests() {
		if u, err := url.Parse(r.URL); err == nil && u.Path == path {
			found = r.Status
		}
	}
	return found
}

func TestANameThatIsPointedToThisComputerGetsNothing(t *testing.T) {
	fails(t, func(t *testing.T, program string) bool {
		h := newHome(t, windowtest.Options{Program: program}, "host-resolver-rules=MAP rebound.example 127.0.0.1")
		attacker := h.browser.Tab()
		attacker.Requests()
		attacker.Open(strings.Replace(h.app.Origin(), "127.0.0.1", "rebound.example", 1) + "/enter")
		attacker.Complaints() // the browser trusts no name that is served without TLS
		switch s := status(attacker, "/enter"); s {
		case http.StatusMisdirectedRequest:
			return false
		case http.StatusOK:
			return true
		default:
			t.Fatalf("the answer is %d", s)
			return false
		}
	}, siteRule, windowtest.Change{File: "cmd/bitbox-app/window/door.go", Old: "return f.host != d.host",
		New: "return false && f.host != d.host"})
}

// The cookie comes along: for a browser all ports of 127.0.0.1 are one site.
func TestAPageOnAnotherPortOfThisComputerPressesNothing(t *testing.T) {
	fails(t, func(t *testing.T, program string) bool {
		h := newHome(t, windowtest.Options{Program: program})
		lockdown := "/base/" + h.id() + "/lockdown"
		var stolen string
		attacker := serve(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
			stolen = r.Header.Get("Cookie")
			fmt.Fprintf(w, `<!doctype html><title>Win a prize</title><form method=post action=%q><button>Claim it</button></form>`,
				h.app.Origin()+lockdown)
		})
		tab := h.browser.Tab()
		tab.Open(attacker)
		if stolen == "" {
			t.Error("the cookie does not come along; this test proves less than it says")
		}
		tab.Requests()
		tab.Press("Claim it")
		tab.Await("the form was sent", "location.origin === "+fmt.Sprintf("%q", h.app.Origin()))
		return !h.isClosed(status(tab, lockdown))
	}, siteRule)
}

var siteRule = windowtest.Change{File: "cmd/bitbox-app/window/door.go", Old: `return f.site != "same-origin" &&`,
	New: `return false && f.site != "same-origin" &&`}

// isClosed tells whether an answer is a refusal.
func (h *home) isClosed(status int) bool {
	switch status {
	case http.StatusForbidden, http.StatusUnauthorized, http.StatusMisdirectedRequest:
		return true
	case http.StatusOK, http.StatusSeeOther:
		return false
	}
	h.t.Fatalf("the answer is %d", status)
	return false
}

// A foreign page that has guessed the port can load and embed nothing, not even what is no secret.
func TestAForeignPageThatGuessesThePortLoadsNothing(t *testing.T) {
	fails(t, func(t *testing.T, program string) bool {
		h := newHome(t, windowtest.Options{Program: program}, "host-resolver-rules=MAP foreign.example 127.0.0.1")
		script := chromiumtest.Eval[string](h.tab, `document.querySelector("script[src]").getAttribute("src")`)
		attacker := serve(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `<!doctype html><title>Foreign</title><script>
			window.loaded = []; window.ended = 0
			const origin = %q
			const made = (name, tag, attributes) => {
				const e = Object.assign(document.createElement(tag), attributes)
				e.onload = () => { loaded.push(name); ended++ }
				e.onerror = () => ended++
				document.documentElement.append(e)
			}
			made("script", "script", {src: origin + %q})
			made("style", "link", {rel: "stylesheet", href: origin + %q.replace(".js", ".css")})
			made("picture", "img", {src: origin + "/static/icon.svg"})
			fetch(origin + "/enter", {credentials: "include"}).then(() => loaded.push("fetch"), () => {}).finally(() => ended++)
			const stream = new EventSource(origin + "/stream?page=/bases&tab=" + "0".repeat(32) + "&nonce=" + "0".repeat(32))
			stream.onopen = () => { loaded.push("stream"); ended++ }
			stream.onerror = () => { stream.close(); ended++ }
			</script>`, h.app.Origin(), script, script)
		})
		tab := h.browser.Tab()
		tab.Open(strings.Replace(attacker, "127.0.0.1", "foreign.example", 1))
		tab.Await("all attempts have ended", "window.ended >= 5")
		tab.Complaints() // the browser refuses what has no CORS header, and says so
		loaded := chromiumtest.Eval[[]string](tab, "loaded")
		t.Logf("a foreign page has loaded %q", loaded)
		return len(loaded) > 0
	}, siteRule, windowtest.Change{File: "cmd/bitbox-app/window/server.go", Old: `"Cross-Origin-Resource-Policy": "same-origin",`,
		New: `"Cross-Origin-Resource-Policy": "cross-origin",`})
}

// A page in a frame could lie under another one.
func TestThePageIsInNoFrame(t *testing.T) {
	frameRule := windowtest.Change{File: "cmd/bitbox-app/window/door.go", Old: `return f.mode == "navigate" && f.dest != "document"`,
		New: `return false && f.dest == ""`}
	fails(t, func(t *testing.T, program string) bool {
		h := newHome(t, windowtest.Options{Program: program})
		attacker := serve(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `<!doctype html><title>Frame</title><iframe src="%s/enter"></iframe>`, h.app.Origin())
		})
		tab := h.browser.Tab()
		tab.Open(attacker)
		tab.Complaints() // of the frame
		return !h.isClosed(status(tab, "/enter"))
	}, siteRule, frameRule)
}

// Another user of the computer reads the ticket in the command line of the browser, and the cookie
// where it comes along to another port.
func TestAnotherUserOfThisComputerGetsNothing(t *testing.T) {
	needRoot(t)
	fails(t, func(t *testing.T, program string) bool {
		h := newHome(t, windowtest.Options{Program: program})
		var cookie string
		tab := h.browser.Tab()
		tab.Open(serve(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
			cookie = r.Header.Get("Cookie")
			fmt.Fprint(w, "<!doctype html><title>Hello</title>")
		}))
		if cookie == "" {
			t.Fatal("the cookie does not come along")
		}
		at := strings.TrimPrefix(h.app.Origin(), "http://")
		var conn net.Conn
		var err error
		as(otherUser, func() { conn, err = net.Dial("tcp", at) })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = errors.Join(conn.SetDeadline(time.Now().Add(chromiumtest.Patience)), ask(conn, at, "/bases", cookie))
		answer, readErr := http.ReadResponse(bufio.NewReader(conn), nil)
		if readErr != nil {
			return false // hung up on; perhaps before all was written
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
		return err == nil && answer.StatusCode == http.StatusOK && strings.Contains(string(text), baseName)
	}, windowtest.Change{File: "cmd/bitbox-app/window/door.go", Old: "return whose != peer.Other", New: "return whose != peer.Other || true"})
}

// ask sends a request as the browser of the owner does.
func ask(conn net.Conn, host, path, cookie string) error {
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n"+
		"Sec-Fetch-Dest: document\r\nSec-Fetch-User: ?1\r\nConnection: close\r\n\r\n", path, host, cookie)
	return err
}

func TestAnotherUsersBrowserDoesNotSpendTheTicket(t *testing.T) {
	needRoot(t)
	base := newBase(t)
	app := windowtest.Start(t, windowtest.Options{Dir: base.pair("laptop")})
	entry := app.Entry()
	thief := chromiumtest.Start(t, chromiumtest.Options{UserID: otherUser}).Tab()
	if err := thief.Try(entry); err == nil {
		t.Errorf("another user's browser shows %q", thief.Text())
	}
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	tab.Open(entry)
	tab.AwaitText(baseName)
}

func TestATicketThatComesASecondTimeLocksEverything(t *testing.T) {
	fails(t, func(t *testing.T, program string) bool {
		base := newBase(t)
		app := windowtest.Start(t, windowtest.Options{Dir: base.pair("laptop"), Program: program})
		entry := app.Entry()
		tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
		tab.Open(entry)
		tab.AwaitText(baseName)
		// A program of the same user has read the command line.
		thief := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
		thief.Open(entry)
		thief.Await("the ticket is answered", "location.hash === '' && document.body.innerText.trim() !== '' && "+
			"(location.pathname !== '/enter' || !document.getElementById('note').hidden)")
		if thief.Shows(baseName) || thief.Path() != "/enter" {
			return true
		}
		tab.Await("the page is locked", "document.body.classList.contains('locked')")
		if tab.Shows(baseName) {
			t.Error("a locked page shows the Base")
		}
		// Going back shows nothing either, and a new ticket from the owner opens the window again.
		tab.Reload()
		if tab.Shows(baseName) {
			t.Error("a locked window shows the Base after a reload")
		}
		tab.Open(app.Again())
		tab.AwaitText(baseName)
		return false
	}, windowtest.Change{File: "cmd/bitbox-app/window/ticket.go", Old: "case t.used:", New: "case false && t.used:"})
}

// After the App has ended, its port may be another user's.
func TestAServerThatTookThePortOfADeadAppChangesNothingOnThePage(t *testing.T) {
	fails(t, func(t *testing.T, program string) bool {
		base := newBase(t)
		app := windowtest.Start(t, windowtest.Options{Dir: base.pair("laptop"), Program: program})
		browser := chromiumtest.Start(t, chromiumtest.Options{})
		tab := browser.TabBeside()
		app.Open(tab)
		tab.AwaitText(baseName)
		part := chromiumtest.Eval[string](tab, `document.querySelector("main .part").id`)
		// The page is hidden, so it does not see the App end.
		other := browser.TabBeside()
		other.Front()
		tab.Await("the page is hidden", "document.hidden")
		app.Kill()
		var mu sync.Mutex
		streams := 0
		var listener net.Listener
		var err error
		as(otherUser, func() { listener, err = net.Listen("tcp", strings.TrimPrefix(app.Origin(), "http://")) })
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, listener, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/stream" {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			mu.Lock()
			streams++
			mu.Unlock()
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"proof\":\"%064x\"}\n\ndata: {\"parts\":[{\"id\":%q,\"html\":\"<p>Type your words here</p>\"}]}\n\n", 7, part)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		tab.Front()
		tab.Await("it shows the forged part, or says that the server is another one",
			"document.body.innerText.includes('Type your words here') || !document.getElementById('note').hidden")
		mu.Lock()
		defer mu.Unlock()
		if streams == 0 {
			t.Error("the page has asked the server for nothing; this test proves nothing")
		}
		return tab.Shows("Type your words here")
	}, windowtest.Change{File: "cmd/bitbox-app/window/static/app.js", Old: "if (!proven) return end(words.foreign)", New: ""})
}

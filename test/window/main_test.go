//go:build linux

// Package window_test uses the App's window as its owner does: Debian's Chromium, the App's program,
// and a Base with the real system helper and Middleware, in a network of their own.
//
// As root, which CI is, App and browser run as an ordinary user. Without root they run as the user
// who runs the tests, and what needs a second user or a network is skipped.
package window_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

func TestMain(m *testing.M) {
	tests := cleared{leaktest.Checked(m)}
	if os.Geteuid() == 0 {
		netnstest.Main(tests)
	}
	os.Exit(tests.Run())
}

// cleared are tests whose builds are removed at the end.
type cleared struct{ leaktest.Tests }

func (c cleared) Run() int {
	code := c.Tests.Run()
	if err := windowtest.Clear(); err != nil {
		fmt.Fprintln(os.Stderr, "remove what was built:", err)
		return 1
	}
	return code
}

// needRoot skips a test that needs a second user, or a network of its own. In CI it fails.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("this test must run as root")
	default:
		t.Skip("SKIPPED, not passed: this needs root")
	}
}

// key is a public key of SSH.
const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Yq0u3MG3Bz7Nv0YQmYzBLLp6Uj3EIPKGLgZ1nQk9L anna"

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	if !chromiumtest.Until(condition) {
		t.Fatalf("it does not happen that %s", what)
	}
}

// quote makes a literal of JavaScript.
func quote(text string) string {
	literal, _ := json.Marshal(text) // of a string, it cannot fail
	return string(literal)
}

// serve serves pages, and returns where.
func serve(t *testing.T, address string, handle http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, listener, handle)
}

func serveOn(t *testing.T, listener net.Listener, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/favicon.ico" {
			http.NotFound(w, r)
			return
		}
		handle(w, r)
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

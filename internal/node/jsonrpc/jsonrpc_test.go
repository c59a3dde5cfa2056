package jsonrpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

const password = "a-password-that-nobody-may-see"

// credentials makes a file with them.
func credentials(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(path, []byte("user:"+password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask asks a node that answers by a function.
func ask(t *testing.T, answer http.HandlerFunc) (value int, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that its client has gone
		answer(w, r)
	}))
	defer server.Close()
	client, err := New(Config{Address: server.Listener.Addr().String(), Credentials: credentials(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	call := &Call{Method: "number", Into: &value}
	if err = client.Batch(ctx, call); err == nil {
		err = call.Err
	}
	return value, err
}

func text(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }
}

func TestAHostileNodeIsBoundedAndDoesNotGetThrough(t *testing.T) {
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	_, _ = zip.Write(bytes.Repeat([]byte(" "), 4*MaxAnswer))
	_ = zip.Close()
	t.Setenv("HTTP_PROXY", other.URL)
	t.Setenv("http_proxy", other.URL)
	for what, c := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"the right answer":  {text(`[{"id":0,"result":7}]`), nil},
		"nothing":           {text(""), ErrGarbage},
		"no JSON":           {text("<html>"), ErrGarbage},
		"no list":           {text(`{"id":0,"result":7}`), ErrGarbage},
		"two answers":       {text(`[{"id":0,"result":7},{"id":1,"result":8}]`), ErrGarbage},
		"another question":  {text(`[{"id":1,"result":7}]`), ErrGarbage},
		"no question":       {text(`[{"result":7}]`), ErrGarbage},
		"another form":      {text(`[{"id":0,"result":"seven"}]`), ErrGarbage},
		"no result":         {text(`[{"id":0}]`), ErrGarbage},
		"too deep":          {text(`[{"id":0,"result":` + strings.Repeat("[", 1<<20)), ErrGarbage},
		"wrong credentials": {status(http.StatusUnauthorized), ErrCredentials},
		"not whitelisted":   {status(http.StatusForbidden), ErrForbidden},
		"busy":              {status(http.StatusServiceUnavailable), ErrBusy},
		"another status":    {status(http.StatusTeapot), ErrGarbage},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, ErrGarbage},
		"more than it holds": {func(w http.ResponseWriter, _ *http.Request) { endless(w, 0) }, ErrGarbage},
		"a drip":             {func(w http.ResponseWriter, _ *http.Request) { endless(w, 10*time.Millisecond) }, ErrSlow},
		"silence":            {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ErrSlow},
		"a compressed bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}, ErrGarbage},
		"a header without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
		}, ErrGarbage},
		"it hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrNotRunning},
	} {
		value, err := ask(t, c.answer)
		if !errors.Is(err, c.want) || c.want == nil && value != 7 {
			t.Errorf("%s: %d, %v; want %v", what, value, err, c.want)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, err), password) {
			t.Errorf("%s: the error has the password: %v", what, err)
		}
	}
	if elsewhere != 0 {
		t.Errorf("%d requests went elsewhere", elsewhere)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// endless writes spaces until nobody reads them.
func endless(w http.ResponseWriter, pause time.Duration) {
	for {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 4096)); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(pause)
	}
}

func TestTheNodesTextOfARefusalIsOneShortPrintableLine(t *testing.T) {
	_, err := ask(t, text(`[{"id":0,"error":{"code":-1,"message":"\u001b[2Ja\nb`+strings.Repeat("x", 9999)+`"}}]`))
	var refused *Error
	if !errors.As(err, &refused) || len(refused.Message) > maxMessage || strings.ContainsAny(refused.Message, "\x1b\n") {
		t.Errorf("%q", err)
	}
}

func TestANodeIsAskedOn127001Only(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1", "127.0.0.1:0", "127.0.0.2:8332", "127.0.0.53:53", "localhost:8332", "0.0.0.0:8332",
		"[::1]:8332", "192.168.1.20:8332", "[::ffff:127.0.0.1]:8332", "example.com:8332"} {
		if _, err := New(Config{Address: address}); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
	if _, err := New(Config{Address: "127.0.0.1:8332"}); err != nil {
		t.Error(err)
	}
}

// The file of the credentials is the node's. A node that was taken over may put anything there.
func TestAFileOfCredentialsThatIsSomethingElseIsRefused(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", "user:of somebody else")
	write("long", "user:"+strings.Repeat("x", maxCookie))
	write("empty", "")
	write("no-colon", "userpassword")
	write("no-password", "user:")
	if err := errors.Join(os.Symlink(secret, filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "directory"), 0o700),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "long", "empty", "no-colon", "no-password", "directory", "pipe"} {
		if user, _, err := readCredentials(filepath.Join(dir, name)); !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %q, %v", name, user, err)
		}
	}
	if _, _, err := readCredentials(filepath.Join(dir, "missing")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("missing: %v", err)
	}
	if user, word, err := readCredentials(secret); user != "user" || word != "of somebody else" || err != nil {
		t.Errorf("%q, %q, %v", user, word, err)
	}
}

func TestANodeThatDoesNotRunIsTold(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	client, err := New(Config{Address: listener.Addr().String(), Credentials: credentials(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Batch(t.Context(), &Call{Method: "x", Into: new(int)}); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Batch(ctx, &Call{Method: "x", Into: new(int)}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestEachFailureHasASentenceForAnOwner(t *testing.T) {
	for _, cause := range []error{ErrNotRunning, ErrCredentials, ErrForbidden, ErrBusy, ErrSlow, ErrGarbage, ErrCertificate,
		&Error{-8, "out of range"}, &Error{-1, "out of range"}, &Error{-5, "whatever"}} {
		err := Trouble("Bitcoin Core", fmt.Errorf("ask the node: %w", cause))
		var trouble *node.Trouble
		if !errors.As(err, &trouble) || trouble.Starting || !strings.Contains(trouble.Text, "Bitcoin Core") ||
			strings.HasSuffix(trouble.Text, ".") || !errors.Is(err, cause) {
			t.Errorf("%v became %v", cause, err)
		}
	}
	var trouble *node.Trouble
	if err := Trouble("Bitcoin Core", &Error{CodeWarmingUp, "Loading block index..."}); !errors.As(err, &trouble) || !trouble.Starting {
		t.Errorf("%v", err)
	}
	if err := Trouble("Bitcoin Core", context.Canceled); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

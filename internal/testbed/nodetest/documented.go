package nodetest

import (
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

//go:embed documented
var documented embed.FS

// DocumentedVersions are the major versions of Bitcoin Core that Documented has: those that no real
// node in the tests is of.
var DocumentedVersions = []int{30, 31}

// Documented gives the answers that the documentation of a version of Bitcoin Core has, over HTTP on
// 127.0.0.1. They show what is read of them, and not that a real node answers like that.
type Documented struct {
	// Address is where it listens; Cookie is the path of its cookie.
	Address, Cookie string

	answers map[string]json.RawMessage
	mutex   sync.Mutex
	asked   map[string]bool
}

// StartDocumented starts one, which ends with the test.
func StartDocumented(t testing.TB, major int) *Documented {
	t.Helper()
	d := &Documented{Cookie: filepath.Join(t.TempDir(), ".cookie"), answers: map[string]json.RawMessage{}, asked: map[string]bool{}}
	if err := os.WriteFile(d.Cookie, []byte("__cookie__:0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	for question, answer := range lines(t, major) {
		if !json.Valid([]byte(answer)) || d.answers[question] != nil {
			t.Fatalf("version %d: the answer to %s is wrong, or there are two", major, question)
		}
		d.answers[question] = json.RawMessage(answer)
	}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	d.Address = server.Listener.Addr().String()
	return d
}

// lines goes over the questions and answers of a version.
func lines(t testing.TB, major int) iter.Seq2[string, string] {
	t.Helper()
	text, err := documented.ReadFile(fmt.Sprintf("documented/core-%d.txt", major))
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(string, string) bool) {
		for line := range strings.Lines(string(text)) {
			question, answer, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			if found && !yield(question, answer) {
				return
			}
		}
	}
}

// DocumentedLines are all answers of a version, a line each, for Answers.
func DocumentedLines(t testing.TB, major int) string {
	t.Helper()
	var all []string
	for _, answer := range lines(t, major) {
		all = append(all, answer)
	}
	return strings.Join(all, "\n")
}

// Replace gives another answer to a question from here on.
func (d *Documented) Replace(question, answer string) { d.answers[question] = json.RawMessage(answer) }

// Asked are the methods that were asked, in order of their names.
func (d *Documented) Asked() (methods []string) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for method := range d.asked {
		methods = append(methods, method)
	}
	slices.Sort(methods)
	return methods
}

// ServeHTTP answers a batch of questions, or a path of REST.
func (d *Documented) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/rest/") {
		d.rest(w, r)
		return
	}
	type reply struct {
		ID     int             `json:"id"`
		Result json.RawMessage `json:"result,omitempty"`
		Error  any             `json:"error,omitempty"`
	}
	var questions []struct {
		ID     int    `json:"id"`
		Method string `json:"method"`
		Params []any  `json:"params"`
	}
	if _, _, ok := r.BasicAuth(); !ok || json.NewDecoder(r.Body).Decode(&questions) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	replies := make([]reply, len(questions))
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for i, q := range questions {
		d.asked[q.Method] = true
		replies[i] = reply{ID: q.ID, Error: map[string]any{"code": -32601, "message": "Method not found"}}
		for _, question := range []string{strings.TrimSpace(fmt.Sprintln(append([]any{q.Method}, q.Params...)...)), q.Method} {
			if answer := d.answers[question]; answer != nil {
				replies[i] = reply{ID: q.ID, Result: answer}
				break
			}
		}
	}
	_ = json.NewEncoder(w).Encode(replies)
}

// rest answers a path. Bytes are kept as hexadecimal digits.
func (d *Documented) rest(w http.ResponseWriter, r *http.Request) {
	answer := d.answers[r.URL.RequestURI()]
	if answer == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if strings.HasSuffix(r.URL.Path, ".bin") {
		var digits string
		if err := json.Unmarshal(answer, &digits); err != nil {
			panic(err)
		}
		answer, _ = hex.DecodeString(digits)
	}
	_, _ = w.Write(answer)
}

package window

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

const (
	// headerTime, requestTime and answerTime bound a request. A stream and an upload have limits of
	// their own.
	headerTime  = 5 * time.Second
	requestTime = 15 * time.Second
	answerTime  = 15 * time.Second
	keepTime    = time.Minute
	// perSecond and atOnce are how many requests are answered; a page with its script, style and
	// stream takes four.
	perSecond, atOnce = 50, 200
	// longestHeader bounds the header of a request, in bytes.
	longestHeader = 16 << 10
	// leaveTime is how long the end of the process waits for requests.
	leaveTime = 2 * time.Second
)

// policy is what a page may do. It has no inline script and no inline style, talks to this server
// alone, and turns text into HTML by one function of the script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types window"

// headers are those of each answer.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"Cache-Control":                "no-store",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), microphone=(), geolocation=(), usb=(), serial=(), hid=(), payment=()",
}

// server is the window while it is open.
type server struct {
	Options
	address string // http://127.0.0.1:PORT
	cookie  string // its name. Cookies are shared by all ports of 127.0.0.1
	proof   [32]byte
	door    door
	desk    *desk
	life    *life
	streams chan struct{} // a place for each one that is open
	// budget is of requests that come in, and refusals of the others.
	budget, refusals *rate.Limiter
	gone             context.Context // ends when the window does
	timing           timing
	settings         *settings
	// uploading has a place for the one file that is on its way, and running is what takes care of it.
	uploading chan struct{}
	running   sync.WaitGroup
	routes    map[string]route
	mux       *http.ServeMux
}

// visitor is what is known of a request's sender.
type visitor struct {
	peer    peer.Whose
	session digest
	state   sessionState
	why     string // the key of the sentence why the session is not open
}

// ServeHTTP implements http.Handler: the door first, then the route.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	v := s.visitor(r)
	_, pattern := s.mux.Handler(r)
	to, ok := s.routes[pattern]
	if !ok {
		to = route{needs: toSee, serve: (*server).nowhere}
	}
	f := facts{
		method: r.Method, host: r.Host, site: single(r, "Sec-Fetch-Site"), mode: single(r, "Sec-Fetch-Mode"), dest: single(r, "Sec-Fetch-Dest"),
		session: v.state,
	}
	refused := s.door.decide(f, to.needs)
	budget := s.budget
	if !refused.comesIn() {
		// A page of another site may send as many as it likes; they must not take a place or a turn from
		// the person.
		budget = s.refusals
		w.Header().Set("Connection", "close")
	}
	if !budget.Allow() {
		http.Error(w, s.settings.say("door.busy"), http.StatusTooManyRequests)
		return
	}
	if !refused.comesIn() {
		if refused.status == http.StatusUnauthorized {
			refused.why = v.why
		}
		s.refuse(w, r, refused)
		return
	}
	if v.state == open && (r.Header.Get("Sec-Fetch-User") == "?1" || to.acts) {
		s.desk.active(v.session, s.now())
	}
	r.Body = http.MaxBytesReader(w, r.Body, to.limit)
	if !ok {
		to.serve(s, w, r, v)
		return
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitorKey{}, v)))
}

// visitorKey is the key of the visitor in the context of a request.
type visitorKey struct{}

// single is a header that must be there once; "" if it is not.
func single(r *http.Request, name string) string {
	if values := r.Header.Values(name); len(values) == 1 {
		return values[0]
	}
	return ""
}

// visitor finds the session of a request. A server on another port can set a cookie of this name as
// well, so there may be several.
func (s *server) visitor(r *http.Request) visitor {
	whose, _ := r.Context().Value(whoseKey{}).(peer.Whose)
	v := visitor{peer: whose, why: "door.stranger"}
	for _, cookie := range r.CookiesNamed(s.cookie) {
		session := sessionOf(cookie.Value)
		if state, why := s.desk.state(session); state > v.state {
			v.session, v.state, v.why = session, state, why
		}
	}
	return v
}

// refuse answers a request that does not come in: a page for a person, a sentence for the script.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, v verdict) {
	sentence := s.settings.say(v.why)
	switch {
	case v.status == http.StatusMisdirectedRequest || single(r, "Sec-Fetch-Site") == "":
		// Another site, or a browser that does not say where a request comes from.
		http.Error(w, sentence, v.status)
	case single(r, "Sec-Fetch-Mode") == "navigate":
		language, by, _ := s.settings.read()
		s.document(w, by, by.Notice(v.status, words.Text{Text: sentence, Lang: language.Tag}), "", false)
	default:
		answerJSON(w, v.status, map[string]any{"refused": sentence})
	}
}

func answerJSON(w http.ResponseWriter, status int, answer map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a browser that has left needs none
}

// document sends a whole page. Only one of a session that is open has the key of the proof.
func (s *server) document(w http.ResponseWriter, by Renderer, p pages.Page, path string, proven bool) {
	text := s.written(by, p, path, proven)
	if text == "" {
		http.Error(w, s.settings.say("door.failed"), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(max(p.Status, http.StatusOK))
	_, _ = io.WriteString(w, text)
}

// written is the text of a whole page; empty if it cannot be written.
func (s *server) written(by Renderer, p pages.Page, path string, proven bool) string {
	frame := pages.Frame{Path: path}
	if proven {
		frame.Proof = hex.EncodeToString(s.proof[:])
	}
	var text strings.Builder
	if err := by.Document(&text, p, frame); err != nil {
		s.Say(fmt.Sprintf("A page could not be shown: %v.", err))
		return ""
	}
	return text.String()
}

// serve serves the window on a listener until ctx ends.
func (s *server) serve(ctx context.Context, listener net.Listener) error {
	web := &http.Server{
		Handler: s, ConnContext: withWhose, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: answerTime,
		IdleTimeout: keepTime, MaxHeaderBytes: longestHeader, ErrorLog: log.New(io.Discard, "", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the window: %w", err)
	case <-ctx.Done():
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	err := web.Shutdown(leaving)
	if err != nil {
		err = web.Close()
	}
	if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
		return errors.Join(err, ended)
	}
	return err
}

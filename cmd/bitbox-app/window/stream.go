package window

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
)

const (
	// longestEvent bounds one event, in bytes.
	longestEvent = 1 << 20
	// mostStreams bounds the streams that are open.
	mostStreams = 16
	// idLength is the length of the id of a tab and of a nonce, in hex digits.
	idLength = 32
)

// timing has the durations of a stream.
type timing struct {
	// beat is how often an open page hears that the App is there.
	beat time.Duration
	// gather is the shortest pause between two looks at what has changed: changes that come
	// together are one event.
	gather time.Duration
	// watch is how often a stream checks whether its session has locked, and the window whether it is over.
	watch time.Duration
	// write is how long a page may take to receive one event. A page that is slower is dropped; it
	// opens a stream again and gets the state as it is then.
	write time.Duration
}

var usualTiming = timing{beat: 15 * time.Second, gather: 200 * time.Millisecond, watch: time.Second, write: 10 * time.Second}

// event is one line of the stream. Only what it is about is set.
type event struct {
	Proof  string `json:"proof,omitempty"`
	Title  string `json:"title,omitempty"`
	Parts  []part `json:"parts,omitempty"`
	Alive  bool   `json:"alive,omitempty"`
	Idle   *int   `json:"idle,omitempty"` // seconds; 0: the page does not lock soon
	Locked string `json:"locked,omitempty"`
	Gone   string `json:"gone,omitempty"`
}

// part is a part of the page that has changed. One without an id is the document itself, without the
// content of its live parts.
type part struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

var errLongEvent = errors.New("an event of the window's stream is too long")

// encode is an event as the stream carries it. JSON has no line breaks but its own escapes, so that no
// name in it, with CR or LF, begins another event.
func encode(e event) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode an event of the window: %w", err)
	}
	if len(text) > longestEvent {
		return nil, errLongEvent
	}
	return append(append([]byte("data: "), text...), "\n\n"...), nil
}

// encodeParts is an event in as many lines as it needs: of many long parts each is one of its own, and
// one that no event can carry says so. A Base decides how long its parts are, and a page must not stay as
// it was, with all that other Bases say. The sentence is the App's own, and has no markup.
func encodeParts(e event, tooLong string) ([]byte, error) {
	text, err := encode(e)
	if !errors.Is(err, errLongEvent) {
		return text, err
	}
	parts := e.Parts
	e.Parts = nil
	text, err = encode(e)
	for _, each := range parts {
		line, failed := encode(event{Parts: []part{each}})
		if errors.Is(failed, errLongEvent) {
			line, failed = encode(event{Parts: []part{{each.ID, `<p class="callout bad">` + tooLong + "</p>"}}})
		}
		text, err = append(text, line...), errors.Join(err, failed)
	}
	return text, err
}

// prove shows that this server has the key that the page was given with its document.
func prove(key [32]byte, nonce []byte) string {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(nonce)
	return hex.EncodeToString(mac.Sum(nil))
}

// isID tells whether a text is an id of a tab, or a nonce.
func isID(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == idLength/2
}

// shown is what a tab has been sent, so that only what has changed is sent again.
type shown struct {
	title string
	parts map[string]string
	shape string // of the document, as its script says; empty: that of the first page
	begun bool
}

// changed is the event that brings a tab up to date; ok is false if nothing has changed. Document writes
// a page whole.
func (s *shown) changed(p pages.Page, document func(pages.Page) string) (e event, ok bool) {
	// A form may have come or gone, also between the document and its stream.
	if s.shape != "" && p.Shape() != s.shape {
		e.Parts = []part{{HTML: document(p.Bones())}}
		s.begun = false
	}
	if p.Title != s.title {
		e.Title, s.title = p.Title, p.Title
	}
	for _, each := range p.Live() {
		if html := string(each.HTML); !s.begun || s.parts[each.ID] != html {
			e.Parts = append(e.Parts, part{each.ID, html})
			s.parts[each.ID] = html
		}
	}
	s.shape, s.begun = p.Shape(), true
	return e, e.Title != "" || len(e.Parts) > 0
}

// stream tells a page what has changed, until it leaves, locks, or the window ends.
func (s *server) stream(w http.ResponseWriter, r *http.Request, v visitor) {
	query := r.URL.Query()
	at, tab := query.Get("page"), query.Get("tab")
	nonce, err := hex.DecodeString(query.Get("nonce"))
	if !isID(tab) || !isID(query.Get("nonce")) || err != nil || !strings.HasPrefix(at, "/") {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		s.refuse(w, r, verdict{http.StatusServiceUnavailable, "door.full"})
		return
	}
	left := s.life.opens(tab, v.session, s.now())
	defer func() { left(s.now()) }()
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Time{}) != nil { // the request is read; its end is the end of the page
		return
	}
	send := func(e event) bool {
		text, err := encodeParts(e, s.settings.say("door.long"))
		if err != nil {
			s.Say(fmt.Sprintf("A page could not be brought up to date: %v.", err))
			return false
		}
		if control.SetWriteDeadline(time.Now().Add(s.timing.write)) != nil {
			return false
		}
		_, err = w.Write(text)
		return err == nil && control.Flush() == nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if send(event{Proof: prove(s.proof, nonce)}) {
		s.follow(r.Context(), v, at, query.Get("shape"), send)
	}
}

// follow sends what changes on a page.
func (s *server) follow(ctx context.Context, v visitor, at, shape string, send func(event) bool) {
	wake, unsubscribe := s.Owner.Subscribe()
	defer unsubscribe()
	beat, watch := time.NewTicker(s.timing.beat), time.NewTicker(s.timing.watch)
	defer beat.Stop()
	defer watch.Stop()
	sent, warned := shown{parts: map[string]string{}, shape: shape}, false
	look := func() bool {
		by, page := s.page(at)
		e, ok := sent.changed(page, func(p pages.Page) string { return s.written(by, p, at, true) })
		return !ok || send(e)
	}
	for going := look(); going; {
		select {
		case <-ctx.Done():
			return
		case <-s.gone.Done():
			send(event{Gone: s.settings.say("door.gone")})
			return
		case <-wake:
			going = look() && pause(ctx, s.timing.gather)
		case <-beat.C:
			going = look() && send(event{Alive: true}) // times on the page move on
		case <-watch.C:
			if state, why := s.desk.state(v.session); state != open {
				send(event{Locked: s.settings.say(why)})
				return
			}
			_, _, idle := s.settings.read()
			if left := s.desk.left(v.session, s.now(), idle); (left <= warning(idle)) != warned {
				warned = !warned
				seconds := 0
				if warned {
					seconds = int((left + time.Second - 1) / time.Second)
				}
				going = send(event{Idle: &seconds})
			}
		}
	}
}

// warning is how long before it locks a page says so.
func warning(idle time.Duration) time.Duration { return min(time.Minute, idle/2) }

// pause returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

package window

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"
)

const (
	// ticketLife is how long a browser has from its start until its script enters.
	ticketLife = time.Minute
	// codeLife is how long a person has to open the address by hand, and codeTries how often they may
	// be wrong.
	codeLife  = 5 * time.Minute
	codeTries = 5
	// codeDigits is the length of a code: a guess of codeTries is right once in 200 million times.
	codeDigits = 9
	// most bounds tickets and sessions. More than this is no person; the oldest is dropped.
	most = 16
	// secretBytes is the length of a ticket and of a session's cookie, before base64.
	secretBytes = 32
)

// entered is what became of a try to enter.
type entered int

const (
	welcome entered = iota
	unknownTicket
	lateTicket
	usedTicket // and everything is locked
	wrongCode
	noCode // there is none, or no longer
)

// The keys of the sentences about it.
var enteredWords = map[entered]string{
	unknownTicket: "door.unknown", lateTicket: "door.late", usedTicket: "door.used", wrongCode: "door.wrongcode", noCode: "door.nocode",
}

// digest stands for a secret that is compared: it is looked up by its hash, so that the time of
// a look-up tells nothing of the secret.
type digest [sha256.Size]byte

type ticket struct {
	made time.Time
	used bool
}

type session struct {
	made   time.Time
	active time.Time // when its person last did something
	locked string    // the key of the sentence that says why; "" if it is open
}

// desk gives out tickets and codes, and takes them for sessions. Secrets leave it once.
type desk struct {
	random io.Reader

	mu       sync.Mutex
	tickets  map[digest]*ticket
	sessions map[digest]*session
	code     *digest // nil: none
	codeMade time.Time
	tries    int
}

func newDesk(random io.Reader) *desk {
	return &desk{random: random, tickets: map[digest]*ticket{}, sessions: map[digest]*session{}}
}

// secret makes a new one.
func (d *desk) secret() (string, digest, error) {
	var raw [secretBytes]byte
	if _, err := io.ReadFull(d.random, raw[:]); err != nil {
		return "", digest{}, fmt.Errorf("make a secret: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(raw[:])
	return text, sha256.Sum256([]byte(text)), nil
}

// ticket makes a ticket, which is good once, for ticketLife.
func (d *desk) ticket(now time.Time) (string, error) {
	text, hash, err := d.secret()
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	drop(d.tickets, func(t *ticket) time.Time { return t.made })
	d.tickets[hash] = &ticket{made: now}
	return text, nil
}

// newCode makes the code for the terminal, which is good once, for codeLife. It replaces the
// previous one.
func (d *desk) newCode(now time.Time) (string, error) {
	digits := make([]byte, 0, codeDigits)
	for len(digits) < codeDigits {
		var b [1]byte
		if _, err := io.ReadFull(d.random, b[:]); err != nil {
			return "", fmt.Errorf("make a code: %w", err)
		}
		if b[0] < 250 { // each digit as often as the others
			digits = append(digits, '0'+b[0]%10)
		}
	}
	hash := digest(sha256.Sum256(digits))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.code, d.codeMade, d.tries = &hash, now, 0
	return string(digits[:3]) + " " + string(digits[3:6]) + " " + string(digits[6:]), nil
}

// enterByTicket spends a ticket for a session and returns its cookie. A ticket that comes a second
// time may have been stolen before the first, so it locks everything.
func (d *desk) enterByTicket(text string, now time.Time) (string, entered, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.tickets[sha256.Sum256([]byte(text))]
	switch {
	case !ok:
		return "", unknownTicket, nil
	case t.used:
		d.lockAll("door.used")
		return "", usedTicket, nil
	case now.Sub(t.made) > ticketLife:
		return "", lateTicket, nil
	}
	t.used = true
	return d.begin(now)
}

// enterByCode spends the code for a session.
func (d *desk) enterByCode(text string, now time.Time) (string, entered, error) {
	typed := sha256.Sum256([]byte(strings.Join(strings.Fields(text), "")))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.code == nil || now.Sub(d.codeMade) > codeLife {
		return "", noCode, nil
	}
	if subtle.ConstantTimeCompare(typed[:], d.code[:]) == 0 {
		if d.tries++; d.tries >= codeTries {
			d.code = nil
		}
		return "", wrongCode, nil
	}
	d.code = nil
	return d.begin(now)
}

// begin makes a session and returns its cookie.
func (d *desk) begin(now time.Time) (string, entered, error) {
	text, hash, err := d.secret()
	if err != nil {
		return "", 0, err
	}
	drop(d.sessions, func(s *session) time.Time { return s.made })
	d.sessions[hash] = &session{made: now, active: now}
	return text, welcome, nil
}

// drop makes room for one more.
func drop[T any](all map[digest]T, made func(T) time.Time) {
	for len(all) >= most {
		var oldest digest
		first := time.Time{}
		for hash, each := range all {
			if first.IsZero() || made(each).Before(first) {
				oldest, first = hash, made(each)
			}
		}
		delete(all, oldest)
	}
}

// lockAll locks each session; the caller holds mu.
func (d *desk) lockAll(why string) {
	d.code = nil
	for _, t := range d.tickets {
		t.used = true
	}
	for _, s := range d.sessions {
		s.locked = why
	}
}

// sessionOf is the session of a cookie.
func sessionOf(cookie string) digest { return sha256.Sum256([]byte(cookie)) }

// state tells how far a session is good, and the key of the sentence why it is not open.
func (d *desk) state(of digest) (sessionState, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.sessions[of]
	switch {
	case !ok:
		return stranger, "door.stranger"
	case s.locked != "":
		return locked, s.locked
	}
	return open, ""
}

// active notes that the person of a session has done something.
func (d *desk) active(of digest, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.sessions[of]; ok && s.locked == "" {
		s.active = now
	}
}

// idle locks the sessions in which nothing was done for as long as limit. While something is under way
// that needs its person, none locks, and the time begins afterwards.
func (d *desk) idle(now time.Time, limit time.Duration, underWay bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range maps.Values(d.sessions) {
		switch {
		case underWay && s.locked == "":
			s.active = now
		case s.locked == "" && now.Sub(s.active) >= limit:
			s.locked = "door.idle"
		}
	}
}

// left is how long a session stays open if nothing is done.
func (d *desk) left(of digest, now time.Time, limit time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.sessions[of]; ok {
		return max(0, limit-now.Sub(s.active))
	}
	return 0
}

// forget drops the session that another one replaces in the same browser.
func (d *desk) forget(session digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, session)
}

package pairing

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// The attacks on the code are played with few codes, so that luck can be counted:
// an attacker who can only guess wins once in luckModulus tries.
const (
	luckModulus = 16
	luckTries   = 600
	// victoryTries are enough for an attacker who always wins.
	victoryTries = 20
)

// wantLuck fails unless the attacker did as well as blind guessing. The bounds are
// five standard deviations from the mean, which happens by accident less than
// once in a million runs.
func wantLuck(t *testing.T, wins, tries int) {
	t.Helper()
	mean := float64(tries) / luckModulus
	bound := 5 * math.Sqrt(mean*(1-1./luckModulus))
	t.Logf("%d of %d tries; by luck it would be %.0f ± %.0f", wins, tries, mean, bound)
	if math.Abs(float64(wins)-mean) > bound {
		t.Fatal("the attacker did not win as often as by luck")
	}
}

// wantVictory fails unless the attacker always won: the same attack must beat a
// protocol that is broken, or else the test proves nothing.
func wantVictory(t *testing.T, wins, tries int) {
	t.Helper()
	if wins < tries-1 {
		t.Fatalf("the attacker won %d of %d tries against a broken variant; it is no attacker", wins, tries)
	}
}

// victim is the App of a pairing, with a genuine handshake.
type victim struct {
	t         *testing.T
	handshake *noiseconn.PairInitiator
	key       ed25519.PrivateKey
	payload   noiseconn.P3Payload
	h         [32]byte
	c         [32]byte
	// opens checks the commitment; a broken App checks less.
	opens func(commitment [32]byte, p4 *noiseconn.P4) bool
}

func opensAll(commitment [32]byte, p4 *noiseconn.P4) bool {
	return commitment == noiseconn.Commit(p4.RB, p4.StateKey, p4.Role)
}

// opensRB is the check of an earlier form of the protocol, whose commitment did
// not cover K_state and the role.
func opensRB(commitment [32]byte, p4 *noiseconn.P4) bool { return commitment == commitRB(p4.RB) }

func commitRB(rb [32]byte) [32]byte {
	return sha256.Sum256(slices.Concat([]byte("bitbox-base commit v1"), rb[:]))
}

// opensNothing is the check of a protocol without commitment.
func opensNothing([32]byte, *noiseconn.P4) bool { return true }

func newStatic(t *testing.T) noiseconn.StaticKey {
	t.Helper()
	static, err := noiseconn.GenerateStatic(nil)
	if err != nil {
		t.Fatal(err)
	}
	return static
}

func newVictim(t *testing.T, opens func([32]byte, *noiseconn.P4) bool) *victim {
	t.Helper()
	handshake, err := noiseconn.NewPairInitiator(nil, newStatic(t))
	if err != nil {
		t.Fatal(err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &victim{t: t, handshake: handshake, key: key, opens: opens,
		payload: noiseconn.P3Payload{RA: random32(), SigningKey: public, Name: "phone"}}
}

func random32() (b [32]byte) {
	_, _ = rand.Read(b[:])
	return b
}

// randomKey is a canonical X25519 key whose private half nobody has.
func randomKey() (b noiseconn.PublicKey) {
	b = random32()
	b[31] &= 0x7f
	return b
}

// readP2 is answered with P3.
func (v *victim) readP2(p2 []byte) (p3 []byte) {
	v.t.Helper()
	var err error
	if v.c, err = v.handshake.ReadP2(p2); err != nil {
		v.t.Fatal(err)
	}
	p3, transport, err := v.handshake.WriteP3(&v.payload)
	if err != nil {
		v.t.Fatal(err)
	}
	v.h = transport.HandshakeHash
	return p3
}

// code is what the App shows, if it takes P4.
func (v *victim) code(p4 *noiseconn.P4) (code uint32, shown bool) {
	v.t.Helper()
	return codeOf(v.t, &v.payload, p4, v.h), v.opens(v.c, p4)
}

func codeOf(t *testing.T, p3 *noiseconn.P3Payload, p4 *noiseconn.P4, h [32]byte) uint32 {
	t.Helper()
	code, err := noiseconn.CodeDigits(p3.RA, p4.RB, h, p3.SigningKey, p4.StateKey, p4.Role, luckModulus)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// baseLeg is the attacker's own pairing with the Base, for which it plays App.
// The human at the Base accepts it: its P1 was ground until it had the number that
// the victim's App shows, a million tries.
type baseLeg struct {
	w         *world
	handshake *noiseconn.PairInitiator
	responder *noiseconn.PairResponder
	id        CeremonyID
}

func (w *world) beginLeg(t *testing.T) *baseLeg {
	t.Helper()
	w.now += ActsTime // the owner tries again and again
	handshake, err := noiseconn.NewPairInitiator(nil, newStatic(t))
	if err != nil {
		t.Fatal(err)
	}
	leg := &baseLeg{w: w, handshake: handshake}
	p1 := handshake.P1()
	if err := w.console.Accept(t.Context(), noiseconn.RequestNumber(p1), noRole); err != nil {
		t.Fatal(err)
	}
	granted, id, c, err := w.middleware.Hear(t.Context(), p1, addressOf(p1))
	if !granted || err != nil {
		t.Fatalf("%v, %v", granted, err)
	}
	leg.id = id
	if leg.responder, err = noiseconn.NewPairResponder(nil, newStatic(t), p1); err != nil {
		t.Fatal(err)
	}
	p2, err := leg.responder.WriteP2(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := handshake.ReadP2(p2); err != nil {
		t.Fatal(err)
	}
	return leg
}

// finish reveals payload to the Base. It returns the Base's P4, and the code that
// the Base shows.
func (leg *baseLeg) finish(t *testing.T, payload *noiseconn.P3Payload) (p4 *noiseconn.P4, h [32]byte, code uint32) {
	t.Helper()
	p3, transport, err := leg.handshake.WriteP3(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, base, err := leg.responder.ReadP3(p3)
	if err != nil {
		t.Fatal(err)
	}
	record, _, err := leg.w.middleware.Reveal(t.Context(), leg.id, base.HandshakeHash, raw, base.PeerStatic)
	if err != nil {
		t.Fatal(err)
	}
	if p4, err = noiseconn.ParseP4(record); err != nil {
		t.Fatal(err)
	}
	code = codeOf(t, payload, p4, transport.HandshakeHash)
	if shown := leg.w.see(leg.w.console).GetCeremony().GetCode(); shown != noiseconn.FormatNumber(code) {
		t.Fatalf("the Base shows %s, not %d", shown, code)
	}
	return p4, transport.HandshakeHash, code
}

// appLeg is the attacker's pairing with the victim's App, for which it plays Base.
func appLeg(t *testing.T, v *victim, commitment [32]byte) (revealed *noiseconn.P3Payload, h [32]byte) {
	t.Helper()
	responder, err := noiseconn.NewPairResponder(nil, newStatic(t), v.handshake.P1())
	if err != nil {
		t.Fatal(err)
	}
	p2, err := responder.WriteP2(commitment)
	if err != nil {
		t.Fatal(err)
	}
	payload, transport, err := responder.ReadP3(v.readP2(p2))
	if err != nil {
		t.Fatal(err)
	}
	if revealed, err = noiseconn.ParseP3Payload(payload); err != nil {
		t.Fatal(err)
	}
	return revealed, transport.HandshakeHash
}

// attackerPayload is a P3 of the attacker's.
func attackerPayload(t *testing.T, counter uint64) (*noiseconn.P3Payload, ed25519.PrivateKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &noiseconn.P3Payload{SigningKey: public, Name: "phone"}
	binary.BigEndian.PutUint64(p.RA[:], counter)
	return p, key
}

const grinds = 30 * luckModulus

// baseFirst finishes with the Base, and so knows the code it shows. Then it makes
// the victim reveal, and grinds whatever of P4 the victim's check leaves free.
func baseFirst(t *testing.T, w *world, opens func([32]byte, *noiseconn.P4) bool) (won bool) {
	t.Helper()
	v := newVictim(t, opens)
	mine, key := attackerPayload(t, 0)
	leg := w.beginLeg(t)
	genuine, baseHash, target := leg.finish(t, mine)

	// The commitment is made for the first candidate, in the form that is checked.
	p4 := &noiseconn.P4{RB: random32(), StateKey: genuine.StateKey, Role: genuine.Role, Name: genuine.Name}
	commitment := noiseconn.Commit(p4.RB, p4.StateKey, p4.Role)
	if !opens(commitment, p4) {
		commitment = commitRB(p4.RB)
	}
	revealed, h := appLeg(t, v, commitment)
	for i := range uint64(grinds) {
		if codeOf(t, revealed, p4, h) == target && opens(commitment, p4) {
			break
		}
		// K_state, role, and r_B, one after the other. Whatever opens the
		// commitment may be sent.
		candidate := *p4
		switch i % 3 {
		case 0:
			state := random32()
			candidate.StateKey = state[:]
		case 1:
			candidate.Role = byte(1 + i%2)
		case 2:
			candidate.RB = random32()
		}
		if opens(commitment, &candidate) {
			p4 = &candidate
		}
	}
	code, shown := v.code(p4)
	if !shown {
		t.Fatal("the App refused P4; the attacker is clumsy")
	}
	w.decide(t, leg, code == target)
	if code != target {
		return false
	}
	// Both people see equal codes and say yes: the attacker is enrolled.
	signature := ed25519.Sign(key, noiseconn.EnrolMessage(baseHash, mine.SigningKey, mine.RA, genuine.RB))
	if _, _, err := w.middleware.Enrol(t.Context(), leg.id, signature); err != nil {
		t.Fatal(err)
	}
	if err := w.middleware.Abort(t.Context(), leg.id, false); err != nil {
		t.Fatal(err)
	}
	return true
}

// decide is the human at the Base, who compares. A wrong code is turned down.
func (w *world) decide(t *testing.T, leg *baseLeg, equal bool) {
	t.Helper()
	if err := w.console.Answer(t.Context(), leg.id, equal); err != nil {
		t.Fatal(err)
	}
}

// appFirst lets the victim reveal, and knows the code that its App will show. Then
// it grinds what it reveals to the Base, by whatever r_B it can get hold of.
func appFirst(t *testing.T, w *world, peek func(*world) (rb [32]byte)) (won bool) {
	t.Helper()
	v := newVictim(t, opensAll)
	p4 := &noiseconn.P4{RB: random32(), StateKey: w.machine.StateKey(), Role: byte(owner), Name: "Base"}
	revealed, h := appLeg(t, v, noiseconn.Commit(p4.RB, p4.StateKey, p4.Role))
	target := codeOf(t, revealed, p4, h)

	leg := w.beginLeg(t)
	guess := &noiseconn.P4{RB: peek(w), StateKey: w.machine.StateKey(), Role: byte(owner)}
	mine, _ := attackerPayload(t, 0)
	for i := range uint64(grinds) {
		// P3 goes into the handshake hash, so the hash has to be known as well. A
		// Middleware that was taken over may give any.
		if codeOf(t, mine, guess, h) == target {
			break
		}
		binary.BigEndian.PutUint64(mine.RA[:], i+1)
	}
	record, err := mine.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.middleware.Reveal(t.Context(), leg.id, h, record, randomKey()); err != nil {
		t.Fatal(err)
	}
	shownAtBase := w.see(w.console).GetCeremony().GetCode()
	code, shown := v.code(p4)
	if !shown {
		t.Fatal("the App refused P4; the attacker is clumsy")
	}
	won = shownAtBase == noiseconn.FormatNumber(code)
	w.decide(t, leg, won)
	if won {
		w.machine.wipe()
	}
	return won
}

// TestManInTheMiddleWinsByBlindLuckOnly: he ends both sides' channels, and grinds
// whatever he may choose.
func TestManInTheMiddleWinsByBlindLuckOnly(t *testing.T) {
	blind := func(*world) [32]byte { return random32() }
	peek := func(w *world) [32]byte { return [32]byte(w.machine.ceremony.rb.Expose()) }
	for _, c := range []struct {
		name   string
		tries  int
		attack func(t *testing.T, w *world) bool
		want   func(t *testing.T, wins, tries int)
	}{
		{"who knows the Base's code first", luckTries,
			func(t *testing.T, w *world) bool { return baseFirst(t, w, opensAll) }, wantLuck},
		{"who knows the App's code first", luckTries,
			func(t *testing.T, w *world) bool { return appFirst(t, w, blind) }, wantLuck},
		{"and always without a commitment", victoryTries,
			func(t *testing.T, w *world) bool { return baseFirst(t, w, opensNothing) }, wantVictory},
		{"and always when K_state is not committed to", victoryTries,
			func(t *testing.T, w *world) bool { return baseFirst(t, w, opensRB) }, wantVictory},
		{"and always against an authority that lets r_B out first", victoryTries,
			func(t *testing.T, w *world) bool { return appFirst(t, w, peek) }, wantVictory},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, wins := newWorld(t, luckModulus), 0
			for range c.tries {
				if c.attack(t, w) {
					wins++
				}
			}
			c.want(t, wins, c.tries)
		})
	}
}

// liar is a Middleware that was taken over, and a human who accepts what they
// think is their App. It tries for as many r_B as it can get.
type liar struct {
	w        *world
	acts     int
	revealed int // times r_B was got hold of
}

// tryReveal reveals, and counts what comes back.
func (l *liar) tryReveal(t *testing.T, id CeremonyID, h [32]byte, payload []byte) {
	t.Helper()
	if p4, _, err := l.w.middleware.Reveal(t.Context(), id, h, payload, randomKey()); err == nil && len(p4) != 0 {
		l.revealed++
	}
}

// TestLyingMiddlewareGetsOneBlindGuessPerReveal plays every trick that the verbs
// allow, in an open window.
func TestLyingMiddlewareGetsOneBlindGuessPerReveal(t *testing.T) {
	play := func(t *testing.T, tries int, peek bool) (wins, reveals int) {
		t.Helper()
		w := newWorld(t, luckModulus)
		w.pair(newApp(t, "owner"), noRole)
		l := &liar{w: w}
		for range tries {
			w.now += ActsTime
			if l.attack(t, peek) {
				wins++
			}
		}
		if l.revealed > l.acts {
			t.Fatalf("%d times r_B for %d acts", l.revealed, l.acts)
		}
		return wins, l.revealed
	}
	t.Run("honest authority", func(t *testing.T) {
		wins, reveals := play(t, luckTries, false)
		wantLuck(t, wins, reveals)
	})
	t.Run("authority that lets r_B out first", func(t *testing.T) {
		wins, reveals := play(t, victoryTries, true)
		wantVictory(t, wins, reveals)
	})
}

// attack is one act. The victim's App has revealed to the liar already (App
// first: the liar knows which code the App shows) and waits with it on its screen.
func (l *liar) attack(t *testing.T, peek bool) (won bool) {
	t.Helper()
	w, ctx := l.w, t.Context()
	target := noiseconn.FormatNumber(uint32(random32()[0]) % luckModulus)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.middleware.OpenWindow(ctx)) // it may: a window lets nobody in
	app, other := newApp(t, "phone"), newApp(t, "other")

	// Without an act there is nothing, whatever is sent.
	if w.hear(app) {
		t.Fatal("granted without an act")
	}
	l.tryReveal(t, CeremonyID{}, random32(), app.payload)
	wantError(t, w.middleware.Accept(ctx, app.number(), owner), ErrPermission)

	w.accept(app, owner)
	l.acts++
	if id, ok := CeremonyIDOf(w.see(w.middleware)); ok {
		t.Fatalf("the id %v is out before P1", id)
	}
	if w.hear(other) {
		t.Fatal("another request was granted")
	}
	if !w.hear(app) {
		t.Fatal("the accepted request was not granted")
	}
	if w.hear(app) || w.hear(other) {
		t.Fatal("one act was granted twice")
	}
	wantError(t, w.middleware.Accept(ctx, other.number(), owner), ErrPermission)
	wantError(t, w.middleware.Answer(ctx, app.id, true), ErrPermission)
	wantError(t, w.console.Answer(ctx, app.id, true), ErrNoCeremony) // nothing is shown yet
	if _, _, err := w.middleware.Enrol(ctx, app.id, make([]byte, 64)); !errors.Is(err, ErrNoCeremony) {
		t.Fatal(err)
	}

	// Some tricks cost the ceremony. The act is spent all the same.
	switch trick := random32()[0] % 16; trick {
	case 0:
		must(w.middleware.Abort(ctx, app.id, trick%2 == 0))
	case 1:
		must(w.middleware.CloseWindow(ctx))
	case 2:
		_, _, err := w.middleware.Reconcile(ctx, nil)
		must(err)
	case 3:
		now := w.now
		w.restart()
		w.now = now
	case 4:
		l.tryReveal(t, app.id, random32(), app.payload[:100])
	}
	guess := *app
	for i := uint64(0); i < grinds && peek && w.machine.ceremony != nil; i++ {
		// A broken authority has let r_B out already.
		p4 := &noiseconn.P4{RB: [32]byte(w.machine.ceremony.rb.Expose()), StateKey: w.machine.StateKey(), Role: byte(owner)}
		if noiseconn.FormatNumber(codeOf(t, &noiseconn.P3Payload{RA: guess.ra, SigningKey: guess.public()}, p4, guess.h)) == target {
			break
		}
		binary.BigEndian.PutUint64(guess.ra[:], i)
	}
	payload, err := (&noiseconn.P3Payload{RA: guess.ra, SigningKey: guess.public(), Name: guess.name}).Marshal()
	must(err)
	// It tries often; one counts.
	before := l.revealed
	for range 3 {
		l.tryReveal(t, app.id, guess.h, payload)
	}
	if l.revealed > before+1 {
		t.Fatal("one ceremony gave r_B out twice")
	}
	if c := w.see(w.middleware).GetCeremony(); c.GetCode() != "" {
		t.Fatal("the Middleware was told the code")
	}
	c := w.see(w.console).GetCeremony()
	won = c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN && c.GetCode() == target
	if c != nil {
		must(w.middleware.Abort(ctx, app.id, false))
	}
	return won
}

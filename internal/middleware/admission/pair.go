package admission

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Authority decides about pairing; pairing.Client is one. This package only relays between it and
// the App, and nothing here can override its no.
type Authority interface {
	Hear(ctx context.Context, p1 []byte, from netip.Addr) (granted bool, id pairing.CeremonyID, commitment [32]byte, err error)
	Claim(ctx context.Context, mark, p1 []byte) (granted bool, id pairing.CeremonyID, commitment [32]byte, err error)
	Reveal(ctx context.Context, id pairing.CeremonyID, h [32]byte, payload []byte, appKey [32]byte) (p4 []byte, role basev1.Role, err error)
	Enrol(ctx context.Context, id pairing.CeremonyID, signature []byte) (role basev1.Role, appName string, err error)
	Abort(ctx context.Context, id pairing.CeremonyID, rejectedByApp bool) error
	Watch(ctx context.Context, seen uint64) (*systemv1.Snapshot, error)
}

// Pairing is a pairing that two people have confirmed.
type Pairing struct {
	Peer       noiseconn.PublicKey
	SigningKey ed25519.PublicKey
	Name       string
	Role       basev1.Role
}

// maxHearing is how many requests are passed to the authority at once. Each takes it
// microseconds; a flood of them queues here.
const maxHearing = 8

// abortTime bounds telling the authority that a ceremony is over.
const abortTime = 5 * time.Second

// pair passes a P1 on, with the mark of a claim or without, and conducts the ceremony if the authority grants it. It
// never returns nil: a pairing ends with the connection, and the App connects again.
func (l *Listener) pair(v *visitor, mark, p1 []byte) error {
	granted, id, commitment, err := l.hear(v, mark, p1)
	if err != nil {
		return err
	}
	if !granted {
		return &Refusal{Reason: PairingRequest}
	}
	// Somebody at the Base accepted this request, or its App has signed it: no stranger displaces it.
	l.parking.unpark(v)
	l.sources.vouch(v)
	c := ceremony{Listener: l, v: v, id: id}
	rejectedByApp, err := c.conduct(p1, commitment)
	if err == nil {
		return errPaired
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), abortTime)
	defer cancel()
	if abortErr := l.Authority.Abort(ctx, id, rejectedByApp); abortErr != nil {
		l.Logger.Warn("tell the authority that a pairing ended", "error", abortErr)
	}
	return &Refusal{Reason: PairingFailed, Err: err}
}

// errPaired ends a connection whose pairing is stored.
var errPaired = reason.New("paired")

func (l *Listener) hear(v *visitor, mark, p1 []byte) (granted bool, id pairing.CeremonyID, commitment [32]byte, err error) {
	ctx, cancel := context.WithDeadline(l.ctx, v.deadline)
	defer cancel()
	select {
	case l.hearing <- struct{}{}:
		defer func() { <-l.hearing }()
	case <-ctx.Done():
		return false, id, commitment, &Refusal{Reason: Busy}
	}
	if mark != nil {
		granted, id, commitment, err = l.Authority.Claim(ctx, mark, p1)
	} else {
		granted, id, commitment, err = l.Authority.Hear(ctx, p1, v.addr)
	}
	if refused := new(pairing.Error); errors.As(err, &refused) {
		err = &Refusal{Reason: PairingRequest, Err: err}
	}
	return granted, id, commitment, err
}

// ceremony is the path of one accepted request to a pending pairing.
type ceremony struct {
	*Listener
	v       *visitor
	id      pairing.CeremonyID
	channel *noiseconn.Conn
}

// conduct returns nil once the pairing is stored as pending and its keys are on the way to the
// App. rejectedByApp comes with an error.
func (c *ceremony) conduct(p1 []byte, commitment [32]byte) (rejectedByApp bool, err error) {
	payload, transport, err := c.shakeHands(p1, commitment)
	if err != nil {
		return false, err
	}
	if err := c.Registry.MayPair(transport.PeerStatic); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.Limits.Answers)
	defer cancel()
	p4, _, err := c.Authority.Reveal(ctx, c.id, transport.HandshakeHash, payload, transport.PeerStatic)
	if err != nil {
		return false, err
	}
	deadline, _ := ctx.Deadline()
	if err := c.v.conn.SetDeadline(deadline); err != nil {
		return false, err
	}
	c.channel = noiseconn.NewConn(c.v.conn, transport)
	if err := c.channel.WriteRecord(p4); err != nil {
		return false, reason.Errorf("send P4: %w", err)
	}
	role, err := c.awaitAnswers(ctx)
	if err != nil {
		rejectedByApp = errors.Is(err, errRejectedByApp)
		if !rejectedByApp {
			c.reject()
		}
		return rejectedByApp, err
	}
	return false, c.store(payload, transport.PeerStatic, role)
}

// shakeHands does P2 and P3, within the handshake's deadline and one place.
func (c *ceremony) shakeHands(p1 []byte, commitment [32]byte) (payload []byte, t *noiseconn.Transport, err error) {
	giveBack, err := c.takePlace(c.v)
	if err != nil {
		return nil, nil, err
	}
	defer giveBack()
	responder, err := noiseconn.NewPairResponder(c.Random, c.Static, p1)
	if err != nil {
		return nil, nil, err
	}
	p2, err := responder.WriteP2(commitment)
	if err != nil {
		return nil, nil, err
	}
	if err := noiseconn.WriteFrame(c.v.conn, noiseconn.TypePair, p2); err != nil {
		return nil, nil, err
	}
	typ, p3, err := noiseconn.ReadFrame(c.v.conn)
	if err != nil {
		return nil, nil, reason.Errorf("await P3: %w", err)
	}
	if typ != noiseconn.TypePair {
		return nil, nil, reason.Errorf("await P3: a frame of type %d came", typ)
	}
	return responder.ReadP3(p3)
}

var (
	errRejectedByApp = reason.New("the App's user said no")
	errEndedAtBase   = reason.New("the pairing was ended at the Base")
	errAfterAnswer   = reason.New("the App sent something after its answer")
)

// answer is what came from the App.
type answer struct {
	record []byte
	err    error
}

// awaitAnswers returns once both people have said yes and the authority has enrolled the App's
// key. Anything else that happens first ends the ceremony: a no on either side, a lost
// connection, the deadline.
func (c *ceremony) awaitAnswers(ctx context.Context) (basev1.Role, error) {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer)
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		c.readAnswers(ctx, answers)
	}()
	// Reading has ended before another reader uses the connection.
	defer func() {
		cancel()
		_ = c.v.conn.SetReadDeadline(time.Unix(1, 0))
		<-reading
	}()

	ended := make(chan error, 1)
	go func() { ended <- c.watchEnd(ctx) }()
	var signature []byte
	select {
	case first := <-answers:
		if first.err != nil {
			return 0, reason.Errorf("await the App's answer: %w", first.err)
		}
		var err error
		if signature, err = noiseconn.ParseAppConfirm(first.record); errors.Is(err, noiseconn.ErrRejected) {
			return 0, errRejectedByApp
		} else if err != nil {
			return 0, reason.Errorf("read the App's answer: %w", err)
		}
	case err := <-ended:
		return 0, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}

	type enrolment struct {
		role basev1.Role
		err  error
	}
	enrolled := make(chan enrolment, 1)
	go func() {
		role, _, err := c.Authority.Enrol(ctx, c.id, signature)
		enrolled <- enrolment{role, err}
	}()
	select {
	case e := <-enrolled:
		return e.role, e.err
	case second := <-answers:
		if second.err != nil {
			return 0, reason.Errorf("await the Base's answer: %w", second.err)
		}
		return 0, errAfterAnswer
	}
}

// readAnswers passes on what the App sends, until the connection fails or ctx ends.
func (c *ceremony) readAnswers(ctx context.Context, answers chan<- answer) {
	for {
		record, err := c.channel.ReadRecord()
		select {
		case answers <- answer{record, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// watchStep is the least time between two checks of the ceremony: a flood of requests changes the
// snapshot each time.
const watchStep = 100 * time.Millisecond

// watchEnd returns when the authority no longer knows the ceremony.
func (c *ceremony) watchEnd(ctx context.Context) error {
	for seen := uint64(0); ; {
		snapshot, err := c.Authority.Watch(ctx, seen)
		if err != nil {
			return reason.Errorf("watch the ceremony: %w", err)
		}
		if id, on := pairing.CeremonyIDOf(snapshot); !on || id != c.id {
			return errEndedAtBase
		}
		seen = snapshot.GetVersion()
		select {
		case <-time.After(watchStep):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// store makes the pairing pending, on disk, and then hands out its keys.
func (c *ceremony) store(payload []byte, peer noiseconn.PublicKey, role basev1.Role) error {
	revealed, err := noiseconn.ParseP3Payload(payload)
	if err != nil {
		return err
	}
	pair, discovery, err := c.Registry.Pend(Pairing{Peer: peer, SigningKey: revealed.SigningKey, Name: revealed.Name, Role: role})
	if err != nil {
		c.reject()
		return reason.Errorf("store the pairing: %w", err)
	}
	confirm, err := noiseconn.MarshalBaseConfirm(pair, discovery)
	if err != nil {
		return err
	}
	defer clear(confirm)
	if err := c.channel.WriteRecord(confirm); err != nil {
		// It may have arrived or not. Either the App connects before the pending pairing lapses,
		// or it never had the keys and the pairing lapses.
		c.Logger.Warn("send the confirmation of a pairing; its App will connect soon, or must pair again", "error", err)
	}
	c.linger()
	return nil
}

// reject tells the App that it is over, if it can still be told.
func (c *ceremony) reject() {
	_ = c.v.conn.SetWriteDeadline(time.Now().Add(c.Limits.Handshake))
	if c.channel.WriteRecord(noiseconn.MarshalReject()) == nil {
		c.linger()
	}
}

// linger ends the sending direction, and gives the App the time of a handshake to read: closing
// with unread bytes could destroy what was sent.
func (c *ceremony) linger() {
	_ = c.channel.End()
	c.v.deadline = time.Now().Add(c.Limits.Handshake)
}

package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// PairOptions are what Pair needs from its user.
type PairOptions struct {
	// Name is the App's name for the Base, by default the Base's own name.
	Name string
	// Words: the Base has no display, so an owner's App accepts and confirms the pairing, by
	// words that this App shows in place of the six digits.
	Words bool
	// Requested is called once with the request number, such as "123 456". A person at the Base
	// has to accept it. Requested must not block.
	Requested func(number string)
	// Confirm asks the user whether the Base shows the same code or, with Words, whether the
	// owner's App says that the words match. It must not answer by itself: see Code. Its context
	// ends when the answer is no longer needed. The pairing continues only if Confirm returns
	// true and no error.
	Confirm func(ctx context.Context, code Code) (bool, error)

	claim *claim // in the place of the two people who compare a code
}

// Code is what two people compare.
type Code struct {
	// Digits are the code, such as "123 456". The person who confirms it has seen the same code
	// at the Base, directly or through something equally trustworthy.
	Digits string
	// Words replace Digits if PairOptions.Words is set, such as
	// "lusab-babad-gutih-tugad-gutuk-bisog". The person who confirms them has typed them into the
	// owner's App, and has read there that they match.
	// the owner's App, and read there that they match.
	Words string
	// BaseName and AppName are the names that both sides give themselves. The Base's is untrusted
	// text, checked for control and format characters.
	BaseName, AppName string
	// Role is what the App will be allowed to do.
	Role basev1.Role
}

// earlyClose: a Base never ends a connection so early, because it makes a refused one wait for 5
// s. earlyCloses of them in a row mean that something else listens there.
const (
	earlyClose  = time.Second
	earlyCloses = 5
)

// Pair pairs with the Base at one of the given addresses ("host:port" or "host"). It repeats its
// request until a person at the Base accepts the number, the context ends, or ten minutes have
// passed. Then it asks both people to compare the code, and returns when the Base has answered a
// first call.
//
// One call of Pair reveals the App's half at most once, and must follow from one action of the
// user. A failure after the reveal is ErrInterference or ErrRejected, and counts
// (ErrTooManyReveals). A pairing that both people have confirmed is stored even if the Base
// cannot be called right now: then it is returned as Pending, and the next call makes it active.
func (a *App) Pair(ctx context.Context, addresses []string, o PairOptions) (Base, error) {
	if o.Confirm == nil || len(addresses) == 0 {
		return Base{}, fail(ErrInvalid, nil, "a pairing needs an address and somebody who compares the code")
	}
	if o.Name != "" {
		if err := noiseconn.CheckName(o.Name); err != nil {
			return Base{}, fail(ErrInvalid, err, "the name %q cannot be used: %v", Printable(o.Name), err)
		}
	}
	var targets []string
	for _, address := range addresses[:min(len(addresses), maxCandidates)] {
		target, err := withPort(address)
		if err != nil {
			return Base{}, err
		}
		targets = append(targets, target)
	}
	// Nobody at the Base should accept a request that cannot succeed.
	if err := a.store.checkReveals(a.now()); err != nil {
		return Base{}, err
	}

	static, err := noiseconn.GenerateStatic(a.random)
	if err != nil {
		return Base{}, fmt.Errorf("start a pairing: %w", err)
	}
	handshake, err := noiseconn.NewPairInitiator(a.random, static)
	if err != nil {
		return Base{}, err
	}
	if o.Requested != nil {
		o.Requested(noiseconn.FormatNumber(noiseconn.RequestNumber(handshake.P1())))
	}
	conn, p2, err := a.request(ctx, targets, handshake.P1())
	if err != nil {
		return Base{}, err
	}
	id, err := a.ceremony(ctx, conn, p2, handshake, static, o)
	_ = conn.Close() // it is no longer needed
	if err != nil {
		return Base{}, err
	}
	return a.firstCall(ctx, id)
}

// request sends P1 on a new connection every 2 s, and returns the first answered one. It gives up
// after ten minutes, because an answer that was lost on its way is never repeated.
func (a *App) request(ctx context.Context, targets []string, p1 []byte) (net.Conn, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timing.giveUp)
	type answer struct {
		conn  net.Conn
		p2    []byte
		took  time.Duration
		err   error
		first bool
	}
	answers := make(chan answer)
	var reached atomic.Bool
	attempt := func(first bool) {
		begun := time.Now()
		conn, p2, err := a.requestOnce(ctx, targets, p1, &reached)
		select {
		case answers <- answer{conn, p2, time.Since(begun), err, first}:
		case <-ctx.Done():
			if conn != nil {
				conn.Close()
			}
		}
	}
	defer cancel()

	again := time.NewTicker(a.timing.requestEvery)
	defer again.Stop()
	go attempt(true)
	early := 0
	for {
		select {
		case <-ctx.Done():
			if !reached.Load() {
				return nil, nil, fail(ErrUnreachable, ctx.Err(),
					"could not connect to %s in time; check the address, and that the Base is on and on this network", list(targets))
			}
			return nil, nil, fail(ErrNotAccepted, ctx.Err(), "nobody accepted the request number at %s; check the address;  "+
				"a Base that is already paired listens only while an owner has opened pairing", list(targets))
		case <-again.C:
			go attempt(false)
		case got := <-answers:
			switch {
			case got.err == nil:
				return got.conn, got.p2, nil
			case errors.Is(got.err, ErrUnreachable):
				// The Base may be restarting, unless it was never there.
				if got.first {
					return nil, nil, got.err
				}
			case errors.Is(got.err, ErrNotABase):
				return nil, nil, got.err
			default: // silence
				if early++; got.took >= earlyClose {
					early = 0
				}
				if early >= earlyCloses {
					return nil, nil, fail(ErrNotABase, got.err,
						"the server at %s ends each connection at once, so it is not a Base that can be paired with; check the address and port", list(
							targets))
				}
			}
		}
	}
}

// requestOnce sends P1 on one connection and waits for P2.
func (a *App) requestOnce(ctx context.Context, targets []string, p1 []byte, reached *atomic.Bool) (net.Conn, []byte, error) {
	conn, err := a.dialAny(ctx, targets)
	if err != nil {
		return nil, nil, err
	}
	reached.Store(true)
	defer cutOff(ctx, conn)()
	body, err := exchange(conn, noiseconn.TypePair, p1, noiseconn.P2Size, a.timing.requestAnswer)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, body, nil
}

// dialAny connects to the first address that takes a connection.
func (a *App) dialAny(ctx context.Context, targets []string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timing.tcp)
	defer cancel()
	source := make(chan string, len(targets))
	for _, target := range targets {
		source <- target
	}
	close(source)
	conn, _, err := race(ctx, source, a.timing.stagger, func(ctx context.Context, target string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", target)
	})
	if err != nil {
		return nil, fail(ErrUnreachable, err, "could not connect to %s: %v; check the address, and that the Base is on and on this network",
			list(targets), reason(err))
	}
	return conn, nil
}

// ceremony is the pairing from P2 on. It returns the id of the stored pairing.
func (a *App) ceremony(ctx context.Context, conn net.Conn, p2 []byte, handshake *noiseconn.PairInitiator, static noiseconn.StaticKey,
	o PairOptions) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.timing.ceremony)
	defer cancel()
	defer cutOff(ctx, conn)()

	commitment, err := handshake.ReadP2(p2)
	if err != nil {
		return "", fail(ErrNotABase, err, "the answer to the pairing request is invalid (%v); nothing was revealed to the other side, so it is safe to pair again", err)
	}
	signing, err := newSigningKey(a.random)
	if err != nil {
		return "", err
	}
	reveal := noiseconn.P3Payload{SigningKey: signing.Public().(ed25519.PublicKey), Name: a.name}
	if _, err := io.ReadFull(a.random, reveal.RA[:]); err != nil {
		return "", fmt.Errorf("read random bytes for a pairing: %w", err)
	}

	// From here on there is no way back: the reveal counts before it is sent.
	revealedAt := a.now().Round(0)
	if err := a.store.addReveal(revealedAt); err != nil {
		return "", err
	}
	p3, transport, err := handshake.WriteP3(&reveal)
	if err != nil {
		return "", err
	}
	record, err := a.afterReveal(ctx, conn, p3, transport, commitment, &reveal, signing, o)
	if err != nil {
		return "", explainReveal(ctx, err)
	}
	record.Static = static.Expose()
	public, err := noiseconn.PublicOf(static)
	if err != nil {
		return "", err
	}
	id = public.AppID()
	return id, a.store.addPending(id, record, revealedAt)
}

var (
	errSaidNo     = errors.New("this App's user answered no")
	errNoProof    = errors.New("it does not have the secret of the claim")
	errCommitment = errors.New("the other side's half does not match its commitment")
)

// afterReveal sends P3, asks for the comparison of the code and exchanges the Confirms.
func (a *App) afterReveal(ctx context.Context, conn net.Conn, p3 []byte, transport *noiseconn.Transport, commitment [32]byte,
	reveal *noiseconn.P3Payload, signing ed25519.PrivateKey, o PairOptions) (*stored, error) {
	if err := conn.SetDeadline(time.Now().Add(a.timing.handshake)); err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(conn, noiseconn.TypePair, p3); err != nil {
		return nil, err
	}
	base, h := transport.PeerStatic, transport.HandshakeHash
	secure := noiseconn.NewConn(conn, transport)
	plain, err := secure.ReadRecord()
	if err != nil {
		return nil, fmt.Errorf("read P4: %w", err)
	}
	var proof []byte
	if o.claim != nil && len(plain) == noiseconn.P4Size+noiseconn.ClaimProofSize {
		plain, proof = plain[:noiseconn.P4Size], plain[noiseconn.P4Size:]
	}
	p4, err := noiseconn.ParseP4(plain)
	if err != nil {
		return nil, err
	}
	if !a.opens(commitment, p4) {
		return nil, errCommitment
	}
	role, err := roleOf(p4.Role)
	if err != nil {
		return nil, err
	}
	code := Code{BaseName: p4.Name, AppName: a.name, Role: role}
	switch {
	case o.claim != nil:
		want, err := noiseconn.ClaimProof(o.claim.secret, reveal.RA, p4.RB, h, reveal.SigningKey, p4.StateKey, p4.Role)
		if err != nil {
			return nil, err
		}
		if role != basev1.Role_ROLE_OWNER || !a.proves(proof, want) {
			return nil, errNoProof
		}
		o.Confirm = func(context.Context, Code) (bool, error) { return true, nil }
	case o.Words:
		// The digits are not shown too: they would be worthless if compared through the Base's
		// Middleware.
		words, err := noiseconn.ComputeWords(reveal.RA, p4.RB, h, reveal.SigningKey, p4.StateKey, p4.Role)
		if err != nil {
			return nil, err
		}
		code.Words = words.String()
	default:
		number, err := noiseconn.CodeDigits(reveal.RA, p4.RB, h, reveal.SigningKey, p4.StateKey, p4.Role, a.codeModulus)
		if err != nil {
			return nil, err
		}
		code.Digits = noiseconn.FormatNumber(number)
	}

	// Both people are asked at the same time, in two places; the Base's answer may come first.
	both, _ := ctx.Deadline() // ceremony has set it
	if err := conn.SetDeadline(both); err != nil {
		return nil, err
	}
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	type answer struct {
		yes bool
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		yes, err := o.Confirm(asking, code)
		answered <- answer{yes, err}
	}()
	type confirm struct {
		pair      noiseconn.PairKey
		discovery noiseconn.DiscoveryKey
		err       error
	}
	confirmed := make(chan confirm, 1)
	go func() {
		var c confirm
		plain, err := secure.ReadRecord()
		if err == nil {
			c.pair, c.discovery, err = noiseconn.ParseBaseConfirm(plain)
		}
		c.err = err
		confirmed <- c
	}()
	var theirs *confirm
	for ours := false; !ours || theirs == nil; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case c := <-confirmed:
			if c.err != nil {
				return nil, c.err
			}
			theirs = &c
		case got := <-answered:
			if got.err != nil || !got.yes {
				_ = secure.WriteRecord(noiseconn.MarshalReject()) // the Base also notices a lost connection
				_ = secure.Close()
				return nil, errors.Join(errSaidNo, got.err)
			}
			ours, answered = true, nil
			signature := ed25519.Sign(signing, noiseconn.EnrolMessage(h, reveal.SigningKey, reveal.RA, p4.RB))
			record, err := noiseconn.MarshalAppConfirm(signature)
			if err != nil {
				return nil, err
			}
			if err := secure.WriteRecord(record); err != nil {
				return nil, err
			}
		}
	}

	name := o.Name
	if name == "" {
		name = p4.Name
	}
	return &stored{
		Name:      name,
		State:     Pending,
		BaseKey:   base[:],
		StateKey:  p4.StateKey,
		BaseName:  p4.Name,
		AppName:   a.name,
		Role:      role,
		PairedAt:  a.now().UTC().Round(0),
		Addresses: []string{conn.RemoteAddr().String()},
		Signing:   signing.Seed(),
		Pair:      theirs.pair.Expose(),
		Discovery: theirs.discovery.Expose(),
	}, nil
}

// explainReveal turns a failure after the reveal into a sentence.
func explainReveal(ctx context.Context, err error) error {
	const advice = "nothing was stored, and this App does not try again by itself; before you do, make sure that this is your Base"
	switch {
	case errors.Is(err, noiseconn.ErrRejected):
		return fail(ErrRejected, errors.Join(ErrInterference, err),
			`the Base ended the pairing: somebody answered "no" there, or nobody answered in time; if its code was different, somebody may have interfered; %s`, advice)
	case errors.Is(err, errSaidNo):
		return fail(ErrInterference, err, "the code was not confirmed in this App; if the Base showed a different one, somebody may have interfered; %s", advice)
	case ctx.Err() != nil:
		return fail(ErrInterference, err, "the pairing was cancelled or not confirmed in time, after this App had revealed its half; somebody may have interfered; %s", advice)
	}
	return fail(ErrInterference, err, "the pairing broke off after this App had revealed its half (%v); somebody may have interfered; %s",
		reason(err), advice)
}

// firstCall calls the Base with the new pairing, which makes it active on both sides. It tries
// for a while, because the Base stores its side at the same time.
func (a *App) firstCall(ctx context.Context, id string) (Base, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timing.activate)
	defer cancel()
	session := a.session(id)
	defer session.Close()
	_, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	for err != nil && ctx.Err() == nil && !errors.Is(err, ErrRevoked) && !errors.Is(err, ErrStorage) {
		select {
		case <-time.After(a.timing.stagger):
			_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		case <-ctx.Done():
		}
	}
	p, failed := a.store.pairing(id)
	if failed != nil {
		return Base{}, failed
	}
	if errors.Is(err, ErrRevoked) || errors.Is(err, ErrStorage) {
		return p.Base, err
	}
	return p.Base, nil
}

func newSigningKey(random io.Reader) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("generate a signing key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// exchange sends a handshake message and reads the answer, which must have exactly this size.
// A claim is answered as a request is.
func exchange(conn net.Conn, typ byte, message []byte, size int, wait time.Duration) ([]byte, error) {
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(conn, typ, message); err != nil {
		return nil, fail(ErrSilent, nil, "%s does not accept a message: %v", conn.RemoteAddr(), reason(err))
	}
	if typ == noiseconn.TypeClaim {
		typ = noiseconn.TypePair
	}
	got, body, err := noiseconn.ReadFrame(conn)
	switch {
	case errors.Is(err, noiseconn.ErrFrame), err == nil && (got != typ || len(body) != size):
		return nil, fail(ErrNotABase, err, "the server at %s speaks another protocol, so it is not a Base; check the address and port",
			conn.RemoteAddr())
	case err != nil:
		// Not as a cause: an error that wraps io.EOF would look like the end of a stream.
		return nil, fail(ErrSilent, nil, "%s does not answer: %v", conn.RemoteAddr(), reason(err))
	}
	return body, nil
}

// cutOff closes a connection when the context ends, until the returned function is called.
func cutOff(ctx context.Context, conn net.Conn) (stop func()) {
	undo := context.AfterFunc(ctx, func() { conn.Close() })
	return func() { undo() }
}

// list names at most three addresses, to keep a sentence short.
func list(targets []string) string {
	const most = 3
	if more := len(targets) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(targets[:most], ", "), more)
	}
	return strings.Join(targets, ", ")
}

// reason is the short part of a network error, for a sentence.
func reason(err error) string {
	var operation *net.OpError
	switch {
	case err == nil:
		return "the reason is unknown"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "it took too long"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case errors.As(err, &operation) && operation.Err != nil:
		text := operation.Err.Error()
		for _, prefix := range []string{"connect: ", "read: ", "write: "} {
			text = strings.TrimPrefix(text, prefix)
		}
		return text
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

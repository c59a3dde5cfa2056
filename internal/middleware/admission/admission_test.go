package admission

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/netutil"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// testTime bounds every wait of a test. Only a failing test reaches it.
const testTime = 30 * time.Second

// must returns a value whose creation cannot fail in a test.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// fakeRegistry knows one App.
type fakeRegistry struct {
	app       noiseconn.StaticKey
	peer      noiseconn.PublicKey
	pair      noiseconn.PairKey
	status    noiseconn.Status
	forgetful bool // accepts a seq twice
	// acquainted is the address from which the App has recently come.
	acquainted netip.Addr

	mu       sync.Mutex
	seen     map[uint64]bool
	sessions atomic.Int32
	pended   atomic.Int32
}

func newFakeRegistry() *fakeRegistry {
	r := &fakeRegistry{app: must(noiseconn.GenerateStatic(nil)), pair: must(noiseconn.GeneratePairKey(nil)), seen: map[uint64]bool{}}
	r.peer = must(noiseconn.PublicOf(r.app))
	return r
}

func (r *fakeRegistry) Recognise(r1 []byte) (Recognised, bool) {
	return Recognised{Peer: r.peer, Pair: r.pair}, noiseconn.CheckMAC1(must(noiseconn.MAC1KeyOf(r.pair)), r1)
}

func (r *fakeRegistry) Arrive(_ noiseconn.PublicKey, seq uint64) (noiseconn.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[seq] && !r.forgetful {
		return 0, &Refusal{Reason: Replayed}
	}
	r.seen[seq] = true
	return r.status, nil
}

func (r *fakeRegistry) Begin(context.Context, noiseconn.PublicKey, netip.Addr, func()) (Session, error) {
	r.sessions.Add(1)
	return r, nil
}

func (r *fakeRegistry) Acquainted(addr netip.Addr) bool { return addr == r.acquainted }

func (r *fakeRegistry) End() { r.sessions.Add(-1) }

func (r *fakeRegistry) MayPair(noiseconn.PublicKey) error { return nil }

func (r *fakeRegistry) Pend(Pairing) (noiseconn.PairKey, noiseconn.DiscoveryKey, error) {
	r.pended.Add(1)
	return r.pair, must(noiseconn.GenerateDiscoveryKey(nil)), nil
}

// fakeAuthority has granted nothing.
type fakeAuthority struct{}

func (fakeAuthority) Hear(context.Context, []byte, netip.Addr) (bool, pairing.CeremonyID, [32]byte, error) {
	return false, pairing.CeremonyID{}, [32]byte{}, nil
}

func (fakeAuthority) Claim(context.Context, []byte, []byte) (bool, pairing.CeremonyID, [32]byte, error) {
	return false, pairing.CeremonyID{}, [32]byte{}, nil
}

func (fakeAuthority) Reveal(context.Context, pairing.CeremonyID, [32]byte, []byte, [32]byte) ([]byte, basev1.Role, error) {
	return nil, 0, errors.New("not in this test")
}

func (fakeAuthority) Enrol(context.Context, pairing.CeremonyID, []byte) (basev1.Role, string, error) {
	return 0, "", errors.New("not in this test")
}

func (fakeAuthority) Abort(context.Context, pairing.CeremonyID, bool) error { return nil }

func (fakeAuthority) Watch(context.Context, uint64) (*systemv1.Snapshot, error) {
	return nil, errors.New("not in this test")
}

// port is a Listener on loopback, with what it logs.
type port struct {
	*Listener
	t        testing.TB
	registry *fakeRegistry
	base     noiseconn.PublicKey
	seq      atomic.Uint64
	logMu    sync.Mutex
	log      bytes.Buffer
}

func (p *port) Write(b []byte) (int, error) {
	p.logMu.Lock()
	defer p.logMu.Unlock()
	return p.log.Write(b)
}

// logged counts the refusals with a reason.
func (p *port) logged(reason Reason) int {
	p.logMu.Lock()
	defer p.logMu.Unlock()
	return strings.Count(p.log.String(), "reason="+string(reason)+"\n") + strings.Count(p.log.String(), "reason="+string(reason)+" ")
}

// testLimits are the protocol's, except for a shorter handshake and higher limits per address:
// all tests share a few addresses.
func testLimits() Limits {
	limits := DefaultLimits()
	limits.Handshake = 500 * time.Millisecond
	limits.ParkedPerAddress = 1000
	limits.PerSecond, limits.Burst = 1e6, 1e6
	limits.SlowAfter = 1e6
	return limits
}

// open starts a Listener; inner may wrap the socket, and change the configuration.
func open(t testing.TB, limits Limits, inner func(net.Listener) net.Listener) *port {
	t.Helper()
	p := &port{t: t, registry: newFakeRegistry()}
	socket := must(net.Listen("tcp", "127.0.0.1:0"))
	if inner != nil {
		socket = inner(socket)
	}
	static := must(noiseconn.GenerateStatic(nil))
	p.base = must(noiseconn.PublicOf(static))
	p.Listener = must(Listen(socket, Config{
		Limits: limits, Static: static, Registry: p.registry, Authority: fakeAuthority{},
		Logger: slog.New(slog.NewTextHandler(p, nil)),
	}))
	go p.acceptAll()
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// acceptAll answers each session with the bytes it receives, record by record.
func (p *port) acceptAll() {
	for {
		conn, err := p.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			for {
				record, err := conn.(*Conn).ReadRecord()
				if err != nil {
					return
				}
				if _, err := conn.Write(record); err != nil {
					return
				}
			}
		}()
	}
}

func (p *port) dialFrom(source string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: testTime, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := dialer.Dial("tcp", p.Addr().String())
	if err == nil {
		p.t.Cleanup(func() { _ = c.Close() })
		err = c.SetDeadline(time.Now().Add(testTime))
	}
	return c, err
}

func (p *port) dial() net.Conn {
	p.t.Helper()
	return must(p.dialFrom("127.0.0.1"))
}

// r1 is a connect frame's body of the App.
func (p *port) r1() *noiseconn.ConnectInitiator {
	return must(noiseconn.NewConnectInitiator(nil, p.registry.app, p.base, p.registry.pair, p.seq.Add(1)))
}

func frame(typ byte, body []byte) []byte {
	var b bytes.Buffer
	if err := noiseconn.WriteFrame(&b, typ, body); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// enter does what a paired App does: it connects, and gets an answer inside the channel.
func (p *port) enter(c net.Conn) error {
	initiator := p.r1()
	if _, err := c.Write(frame(noiseconn.TypeConnect, initiator.R1())); err != nil {
		return err
	}
	_, r2, err := noiseconn.ReadFrame(c)
	if err != nil {
		return err
	}
	_, transport, err := initiator.ReadR2(r2)
	if err != nil {
		return err
	}
	channel := noiseconn.NewConn(c, transport)
	if _, err := channel.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(channel, make([]byte, 5))
	return err
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTime); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// ending is what a stranger can observe.
type ending struct {
	bytes int
	reset bool
	early bool // before the deadline of the handshake
}

// observe sends something and watches until the end.
func observe(c net.Conn, limit time.Duration, send []byte) ending {
	return observeAfter(c, limit, send, func() {})
}

func observeAfter(c net.Conn, limit time.Duration, send []byte, then func()) ending {
	// The Base counts from its accept, which is after this.
	begun := time.Now()
	_, _ = c.Write(send)
	then()
	received, err := io.ReadAll(c)
	return ending{
		bytes: len(received),
		reset: errors.Is(err, syscall.ECONNRESET),
		early: time.Since(begun) < limit*9/10,
	}
}

// strangersSend is what an unpaired peer sends.
func strangersSend(p *port) map[string][]byte {
	stranger := must(noiseconn.GenerateStatic(nil))
	unknown := must(noiseconn.NewConnectInitiator(nil, stranger, p.base, must(noiseconn.GeneratePairKey(nil)), 1))
	request := must(noiseconn.NewPairInitiator(nil, stranger))
	changed := p.r1().R1()
	changed[len(changed)-1] ^= 1
	return map[string][]byte{
		"nothing":                           nil,
		"random bytes":                      bytes.Repeat([]byte{0xa7, 0x00, 0x13}, 1000),
		"HTTP":                              []byte("GET / HTTP/1.1\r\nHost: base\r\n\r\n"),
		"HTTP/2":                            []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"a TLS ClientHello":                 append([]byte{0x16, 3, 1, 0, 0xf8, 1, 0, 0, 0xf4, 3, 3}, make([]byte, 242)...),
		"an Electrum wallet without TLS":    []byte(`{"jsonrpc": "2.0", "method": "server.version"}`),
		"an SSH banner":                     []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		"a PROXY header":                    []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
		"half a header":                     {noiseconn.TypeConnect, 5},
		"half a frame":                      frame(noiseconn.TypeConnect, unknown.R1())[:700],
		"an unknown key":                    frame(noiseconn.TypeConnect, unknown.R1()),
		"a known key's frame, one bit off":  frame(noiseconn.TypeConnect, changed),
		"an unknown key, and more":          append(frame(noiseconn.TypeConnect, unknown.R1()), make([]byte, 2000)...),
		"a pairing request":                 frame(noiseconn.TypePair, request.P1()),
		"a frame that only the Base sends":  frame(noiseconn.TypeConnect, make([]byte, noiseconn.R2Size)),
		"a frame that comes later":          frame(noiseconn.TypePair, make([]byte, noiseconn.P3Size)),
		"a frame of a size that is not one": {noiseconn.TypePair, 0xff, 0xff, 1, 2, 3},
	}
}

// scan sends each of these on its own connection, and returns what a stranger learns: which of
// his connections differ from a silent one.
func scan(p *port) (learned []string) {
	return scanAnd(p, func(net.Conn) {}, ending{})
}

// scanAnd does something after sending; silent is how a silent connection then ends.
func scanAnd(p *port, then func(net.Conn), silent ending) (learned []string) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, send := range strangersSend(p) {
		c := p.dial()
		all.Go(func() {
			got := observeAfter(c, p.Limits.Handshake, send, func() { then(c) })
			if got != silent {
				mu.Lock()
				defer mu.Unlock()
				learned = append(learned, name)
			}
		})
	}
	all.Wait()
	slices.Sort(learned)
	return learned
}

func TestAStrangerGetsNoByteAndLearnsNothingFromTheEnd(t *testing.T) {
	p := open(t, testLimits(), nil)
	if learned := scan(p); len(learned) != 0 {
		t.Errorf("these are not answered like silence: %q", learned)
	}
	// Nor does the stranger learn anything from the Base's reaction to a half close.
	patient := testLimits()
	patient.Handshake = testTime
	halfClose := func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() }
	if learned := scanAnd(open(t, patient, nil), halfClose, ending{early: true}); len(learned) != 0 {
		t.Errorf("after a half close these are not answered like silence: %q", learned)
	}
	// The same measurement detects a refused connection that ends at once.
	broken := open(t, testLimits(), nil)
	broken.drain = func(*visitor) {}
	if learned := scan(broken); len(learned) < 8 {
		t.Errorf("without draining, the scan should learn of every frame that is refused at once, but learned only of %q", learned)
	}
}

func TestEachRefusalIsLoggedWithItsReason(t *testing.T) {
	p := open(t, testLimits(), nil)
	scan(p)
	for reason, want := range map[Reason]int{
		MalformedFrame: 4, // random bytes, and frames that do not open a connection
		OtherProtocol:  6, // texts, and TLS
		WrongMAC1:      3, // the unknown key, twice, and the flipped bit
		PairingRequest: 1,
		Silent:         3, // nothing, and the two halves
	} {
		if got := p.logged(reason); got != want {
			t.Errorf("%d refusals for %s were logged, not %d:\n%s", got, reason, want, p.log.String())
		}
	}
	if !strings.Contains(p.log.String(), `msg="handshake refused" against=127.0.0.1 addr=127.0.0.1 reason=wrong_mac1`) {
		t.Errorf("the line that fail2ban looks for is not in the log:\n%s", p.log.String())
	}
}

func TestARequestToBePairedIsNotLoggedAsARefusal(t *testing.T) {
	p := open(t, testLimits(), nil)
	scan(p)
	log := p.log.String()
	if !strings.Contains(log, `msg="pairing request came" addr=127.0.0.1 reason=pairing_request`) ||
		strings.Contains(log, `refused" addr=127.0.0.1 reason=pairing_request`) {
		t.Errorf("the log says:\n%s", log)
	}
}

// replay records an App's R1 and its answer, and sends it again. It returns the reaction to the
// replay.
func replay(t *testing.T, p *port) ending {
	t.Helper()
	recorded := frame(noiseconn.TypeConnect, p.r1().R1())
	first := p.dial()
	if _, err := first.Write(recorded); err != nil {
		t.Fatal(err)
	}
	if _, _, err := noiseconn.ReadFrame(first); err != nil {
		t.Fatalf("the App itself is not answered: %v", err)
	}
	return observe(p.dial(), p.Limits.Handshake, recorded)
}

func TestAReplayedConnectFrameGetsNoAnswer(t *testing.T) {
	if got := replay(t, open(t, testLimits(), nil)); got != (ending{}) {
		t.Errorf("the replay is not answered like silence: %+v", got)
	}
	onlyFrames := open(t, testLimits(), nil)
	onlyFrames.registry.forgetful = true
	if got := replay(t, onlyFrames); got != (ending{}) {
		t.Errorf("the memory of mac1 alone does not hold: %+v", got)
	}
	onlySequence := open(t, testLimits(), nil)
	onlySequence.firstSeen = func([16]byte) bool { return true }
	if got := replay(t, onlySequence); got != (ending{}) {
		t.Errorf("the memory of seq alone does not hold: %+v", got)
	}
	neither := open(t, testLimits(), nil)
	neither.registry.forgetful = true
	neither.firstSeen = func([16]byte) bool { return true }
	if got := replay(t, neither); got.bytes == 0 {
		t.Error("without any memory the replay should be answered; this attack proves nothing")
	}
}

// slidingListener is what the protocol must not have: a deadline that each byte moves.
type slidingListener struct {
	net.Listener
	limit time.Duration
}

func (l slidingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return slidingConn{c, l.limit}, err
}

type slidingConn struct {
	net.Conn
	limit time.Duration
}

func (c slidingConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// dripFeed sends a byte of a frame from time to time, for at most this long. It tells whether the
// Base ended the connection.
func dripFeed(t *testing.T, p *port, atMost time.Duration) (ended bool) {
	t.Helper()
	c := p.dial()
	drips := frame(noiseconn.TypeConnect, make([]byte, noiseconn.R1Size))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, c)
	}()
	end := time.After(atMost)
	for _, b := range drips {
		_, _ = c.Write([]byte{b})
		select {
		case <-closed:
			return true
		case <-end:
			return false
		case <-time.After(p.Limits.Handshake / 20):
		}
	}
	return false
}

func TestADripFeedEndsAtTheDeadline(t *testing.T) {
	limits := testLimits()
	if !dripFeed(t, open(t, limits, nil), testTime) {
		t.Error("a byte now and then keeps the connection open")
	}
	broken := open(t, limits, func(inner net.Listener) net.Listener { return slidingListener{inner, limits.Handshake} })
	// On a busy machine a byte may come after the deadline.
	eventually(t, "with a deadline that slides, the drip feed goes on, or this attack proves nothing", func() bool {
		return !dripFeed(t, broken, 4*limits.Handshake)
	})
}

// hold opens silent connections from many addresses, 4 from each, and keeps them.
func hold(t *testing.T, p *port, count int) {
	t.Helper()
	for i := range count {
		source := net.IPv4(127, 1+byte(i/4/250), 1, 1+byte(i/4%250)).String()
		if _, err := p.dialFrom(source); err != nil {
			t.Fatalf("silent connection %d: %v", i, err)
		}
	}
}

func TestTwoThousandSilentConnectionsDoNotBlockAnApp(t *testing.T) {
	const silent = 2000
	limits := DefaultLimits()
	limits.Handshake = testTime // they must still be there when the App comes
	p := open(t, limits, nil)
	hold(t, p, silent)
	eventually(t, "all silent connections wait", func() bool { return p.Waiting() == silent })
	if err := p.enter(p.dial()); err != nil {
		t.Errorf("the App is kept out: %v", err)
	}
	if p.Waiting() != silent {
		t.Errorf("%d silent connections were there, not %d: the App did not come in beside them", p.Waiting(), silent)
	}

	// The broken variant gives its 50 places to every connection.
	broken := open(t, limits, func(inner net.Listener) net.Listener { return netutil.LimitListener(inner, limits.Computing) })
	hold(t, broken, limits.Computing)
	c := broken.dial()
	if err := c.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := broken.enter(c); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a place for each connection the App should be kept out; this attack proves nothing (%v)", err)
	}
}

func TestTheOldestSilentConnectionMakesRoom(t *testing.T) {
	limits := testLimits()
	limits.Handshake, limits.Parked = testTime, 8
	p := open(t, limits, nil)
	oldest := p.dial()
	eventually(t, "the first waits", func() bool { return p.Waiting() == 1 })
	// An App that has shown its mac1 is not displaced.
	app := p.dial()
	initiator := p.r1()
	if _, err := app.Write(frame(noiseconn.TypeConnect, initiator.R1())); err != nil {
		t.Fatal(err)
	}
	_, r2, err := noiseconn.ReadFrame(app)
	if err != nil {
		t.Fatal(err)
	}
	for range limits.Parked {
		p.dial()
	}
	if got := observe(oldest, 0, nil); got.bytes != 0 {
		t.Errorf("the oldest got %d bytes", got.bytes)
	}
	eventually(t, "the log says so", func() bool { return p.logged(Displaced) == 1 })
	_, transport, err := initiator.ReadR2(r2)
	if err != nil {
		t.Fatal(err)
	}
	channel := noiseconn.NewConn(app, transport)
	if _, err := channel.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(channel, make([]byte, 5)); err != nil {
		t.Errorf("the App had to make room for strangers: %v", err)
	}
}

func TestOneAddressGetsNoMoreThanItsShare(t *testing.T) {
	limits := testLimits()
	limits.Handshake, limits.ParkedPerAddress = testTime, 3
	p := open(t, limits, nil)
	for range limits.ParkedPerAddress {
		p.dial()
	}
	if got := observe(p.dial(), testTime, nil); got.bytes != 0 || !got.early {
		t.Errorf("one connection too many: %+v", got)
	}
	eventually(t, "the log says so", func() bool { return p.logged(TooMany) == 1 })
	if err := p.enter(must(p.dialFrom("127.0.0.2"))); err != nil {
		t.Errorf("another address suffers from it: %v", err)
	}
}

func TestAnAddressThatConnectsTooFastIsRefused(t *testing.T) {
	limits := testLimits()
	limits.PerSecond, limits.Burst = 1e-6, 3
	p := open(t, limits, nil)
	for range limits.Burst {
		if err := p.enter(p.dial()); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.enter(p.dial()); err == nil {
		t.Error("the burst is not bounded")
	}
	if err := p.enter(must(p.dialFrom("127.0.0.2"))); err != nil {
		t.Errorf("another address suffers from it: %v", err)
	}
}

// besiege does what an old App, or a neighbour behind the same NAT, does from an owner's address:
// it sends a wrong mac1, again and again. It returns how many refusals count against somebody,
// and why the owner's App cannot connect meanwhile.
func besiege(t *testing.T, p *port) (counted int, app error) {
	t.Helper()
	const tries = 60
	var end []net.Conn
	for range tries {
		c := p.dial()
		must(c.Write(strangersSend(p)["an unknown key"]))
		end = append(end, c)
	}
	eventually(t, "all are refused", func() bool { return p.logged(WrongMAC1)+p.logged(Displaced)+p.logged(TooMany) == tries })
	app = p.enter(p.dial())
	for _, c := range end {
		_ = c.Close()
	}
	p.logMu.Lock()
	defer p.logMu.Unlock()
	return strings.Count(p.log.String(), " against="), app
}

func TestAnAcquaintedAddressIsSlowedDownAndNeverBanned(t *testing.T) {
	limits := DefaultLimits()
	limits.Handshake = testTime // nothing ends by itself
	limits.PerSecond, limits.Burst = 1e6, 1e6
	acquainted := func(p *port) *port {
		p.registry.acquainted = netip.MustParseAddr("127.0.0.1")
		return p
	}
	p := acquainted(open(t, limits, nil))
	if counted, err := besiege(t, p); counted != 0 || err != nil {
		t.Errorf("%d refusals count for a ban, and the App comes in: %v", counted, err)
	}
	if waiting := p.Waiting(); waiting > limits.SlowedPlaces {
		t.Errorf("%d of its connections wait", waiting)
	}
	// If no address were acquainted, fail2ban would ban the owner after five of them.
	if counted, _ := besiege(t, open(t, limits, nil)); counted < limits.SlowAfter {
		t.Errorf("without acquaintance only %d refusals count; this attack proves nothing", counted)
	}
	// If the address were not slowed down, its 16 places would be taken.
	hasty := limits
	hasty.SlowAfter = 1e6
	q := acquainted(open(t, hasty, nil))
	for range hasty.ParkedPerAddress {
		must(q.dial().Write(strangersSend(q)["an unknown key"]))
	}
	eventually(t, "all are refused", func() bool { return q.logged(WrongMAC1) == hasty.ParkedPerAddress })
	if q.enter(q.dial()) == nil {
		t.Error("an address that is not slowed down has a place left; this attack proves nothing")
	}
}

// An owner's wallet, browser and router connect to the entry, again and again.
func TestOtherProtocolsCountAgainstNobody(t *testing.T) {
	foreign := []string{"HTTP", "HTTP/2", "a TLS ClientHello", "an Electrum wallet without TLS", "an SSH banner"}
	knock := func(p *port) (counted int) {
		for _, name := range foreign {
			must(p.dial().Write(strangersSend(p)[name]))
		}
		eventually(t, "all are refused", func() bool { return p.logged(OtherProtocol)+p.logged(MalformedFrame) == len(foreign) })
		p.logMu.Lock()
		defer p.logMu.Unlock()
		return strings.Count(p.log.String(), " against=")
	}
	if counted := knock(open(t, testLimits(), nil)); counted != 0 {
		t.Errorf("%d of them count for a ban", counted)
	}
	broken := open(t, testLimits(), nil)
	broken.foreign = func(byte) bool { return false }
	if counted := knock(broken); counted < DefaultLimits().SlowAfter {
		t.Errorf("taken for malformed frames only %d of them count; this attack proves nothing", counted)
	}
}

func TestARevokedAppLearnsOnlyThatItWasRevoked(t *testing.T) {
	p := open(t, testLimits(), nil)
	p.registry.status = noiseconn.StatusRevoked
	c := p.dial()
	initiator := p.r1()
	if _, err := c.Write(frame(noiseconn.TypeConnect, initiator.R1())); err != nil {
		t.Fatal(err)
	}
	_, r2, err := noiseconn.ReadFrame(c)
	if err != nil {
		t.Fatal(err)
	}
	if status, transport, err := initiator.ReadR2(r2); status != noiseconn.StatusRevoked || transport != nil || err != nil {
		t.Errorf("R2 says %d, %v, %v", status, transport, err)
	}
	if rest, err := io.ReadAll(c); len(rest) != 0 || err != nil {
		t.Errorf("after R2 came %d bytes, %v", len(rest), err)
	}
	if p.registry.sessions.Load() != 0 || p.logged(Revoked) != 1 {
		t.Errorf("%d sessions, %d lines", p.registry.sessions.Load(), p.logged(Revoked))
	}
}

func TestNoSessionBeginsBeforeTheFirstRecord(t *testing.T) {
	p := open(t, testLimits(), nil)
	for _, after := range [][]byte{nil, append([]byte{0, 20}, make([]byte, 20)...), {0, 1, 2}} {
		c := p.dial()
		if _, err := c.Write(frame(noiseconn.TypeConnect, p.r1().R1())); err != nil {
			t.Fatal(err)
		}
		if _, _, err := noiseconn.ReadFrame(c); err != nil {
			t.Fatal(err)
		}
		if got := observe(c, 0, after); got.bytes != 0 {
			t.Errorf("after %x: %d bytes came", after, got.bytes)
		}
	}
	if p.registry.seen[1] == false || p.registry.sessions.Load() != 0 {
		t.Errorf("%d sessions began for somebody who only had recorded an R1", p.registry.sessions.Load())
	}
}

func TestAProxyHeaderIsTrustedOnlyOnAUnixSocket(t *testing.T) {
	tcp := must(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = tcp.Close() }()
	if _, err := Listen(tcp, Config{Limits: DefaultLimits(), Proxied: true, Logger: slog.Default()}); err == nil {
		t.Fatal("a TCP listener takes PROXY headers")
	}

	unix := must(net.Listen("unix", t.TempDir()+"/entry.sock"))
	limits := testLimits()
	limits.Handshake, limits.ParkedPerAddress = testTime, 1
	p := &port{t: t, registry: newFakeRegistry()}
	static := must(noiseconn.GenerateStatic(nil))
	p.base = must(noiseconn.PublicOf(static))
	p.Listener = must(Listen(unix, Config{
		Limits: limits, Static: static, Registry: p.registry, Authority: fakeAuthority{},
		Logger: slog.New(slog.NewTextHandler(p, nil)), Proxied: true,
	}))
	defer func() { _ = p.Close() }()
	go p.acceptAll()
	dial := func(header string) net.Conn {
		c := must(net.Dial("unix", unix.Addr().String()))
		t.Cleanup(func() { _ = c.Close() })
		must(io.WriteString(c, header))
		return c
	}
	if err := p.enter(dial("PROXY TCP4 192.0.2.7 198.51.100.1 5 8845\r\n")); err != nil {
		t.Fatalf("through NGINX: %v", err)
	}
	// The limits and the log use the client's address.
	dial("PROXY TCP4 192.0.2.8 198.51.100.1 5 8845\r\n")
	eventually(t, "one waits", func() bool { return p.Waiting() == 1 })
	observe(dial("PROXY TCP4 192.0.2.8 198.51.100.1 6 8845\r\n"), 0, nil)
	eventually(t, "the second of one address is refused", func() bool { return p.logged(TooMany) == 1 })
	if got := observe(dial("PROXY UNKNOWN\r\n"), 0, nil); got.bytes != 0 {
		t.Errorf("an unknown client got %d bytes", got.bytes)
	}
	eventually(t, "an unknown client is refused", func() bool { return p.logged(NoAddress) == 1 })
	p.logMu.Lock()
	defer p.logMu.Unlock()
	if log := p.log.String(); !strings.Contains(log, "addr=192.0.2.8 reason=too_many") ||
		!strings.Contains(log, "addr=unknown reason=no_address") {
		t.Errorf("the log does not name the clients:\n%s", log)
	}
}

func TestClosingEndsEveryConnectionAndGoroutine(t *testing.T) {
	limits := testLimits()
	limits.Handshake = testTime
	p := open(t, limits, nil)
	var all []net.Conn
	for _, send := range strangersSend(p) {
		c := p.dial()
		must(c.Write(send))
		all = append(all, c)
	}
	eventually(t, "all wait", func() bool { return p.Waiting() == len(all) })
	if err := p.Close(); err != nil { // returns when all goroutines have ended
		t.Error(err)
	}
	for _, c := range all {
		if got, _ := io.ReadAll(c); len(got) != 0 {
			t.Errorf("%d bytes at the end", len(got))
		}
	}
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// scripted is a connection without a network: the bytes that a peer sends, and those that it
// gets.
type scripted struct {
	net.Conn
	send     *bytes.Reader
	received bytes.Buffer
}

func (c *scripted) Read(p []byte) (int, error)  { return c.send.Read(p) }
func (c *scripted) Write(p []byte) (int, error) { return c.received.Write(p) }
func (c *scripted) SetDeadline(time.Time) error { return nil }
func (c *scripted) Close() error                { return nil }
func (c *scripted) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }

func FuzzBeforeAuthentication(f *testing.F) {
	p := open(f, testLimits(), nil)
	for _, send := range strangersSend(p) {
		f.Add(send)
	}
	f.Fuzz(func(t *testing.T, send []byte) {
		c := &scripted{send: bytes.NewReader(send)}
		v := newVisitor(c, time.Now().Add(testTime))
		conn, err := p.admit(v)
		if err == nil || conn != nil {
			t.Fatalf("a stranger was let in with %x", send)
		}
		if c.received.Len() != 0 {
			t.Fatalf("a stranger got %d bytes for %x", c.received.Len(), send)
		}
		if refusal := new(Refusal); !errors.As(err, &refusal) {
			t.Fatalf("no reason to refuse %x, but %v", send, err)
		}
	})
}

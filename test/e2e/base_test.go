//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

const helperUnit = "bitbox-base-system.service"

// base is a booted Base with an owner's App. Its Middleware only holds
// connections; what it would ask of the helper, the test asks as its user.
type base struct {
	*stage.Stage
	t          *testing.T
	middleware helperclient.Client
	console    helperclient.Client
	root       helperclient.Client
	stateKey   posture.SigningKey
	seed       posture.AppSeed
	memory     posture.Memory
	whyEnded   sync.Map // of chan struct{} to error: what ended the streams of watch
}

// boot boots with the real helper, and this binary as the Middleware.
func boot(t *testing.T) *base {
	t.Helper()
	s := stage.Boot(t, stage.Config{Real: true, Prepare: installHold})
	b := &base{Stage: s, t: t}
	b.middleware = helperclient.Client{Port: userPort{s, firewall.MiddlewareUser}}
	b.console = helperclient.Client{Port: userPort{s, caller.ConsoleUser}}
	b.root = helperclient.Client{Port: userPort{s, "root"}}
	for _, unit := range []string{helperUnit, generation.ProxyUnit, generation.FirewallUnit} {
		s.WaitActive(unit)
	}
	b.pair()
	return b
}

// installHold puts this binary in, as the Middleware.
func installHold(t *testing.T, root string) {
	t.Helper()
	dropIn := filepath.Join(root, "etc/systemd/system", generation.MiddlewareUnit+".d")
	relay, err := os.ReadFile("/proc/self/exe")
	err = errors.Join(err,
		os.MkdirAll(dropIn, 0o755),
		os.WriteFile(filepath.Join(dropIn, "hold.conf"),
			[]byte("[Service]\nExecStart=\nExecStart=/usr/bin/e2e-relay hold\nExecPaths=/usr/bin/e2e-relay\n"), 0o644),
		os.WriteFile(filepath.Join(root, "usr/bin/e2e-relay"), relay, 0o755))
	if err != nil {
		t.Fatal(err)
	}
}

// userPort speaks to the helper as a user of the Base.
type userPort struct {
	stage *stage.Stage
	user  string
}

func (p userPort) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	message, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	out, err := p.stage.ExecContext(ctx, fmt.Sprintf("%d %x\n", helperclient.Kind(request), message),
		"setpriv", "--reuid="+p.user, "--regid="+p.user, "--init-groups", "/usr/bin/e2e-relay", "relay")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for line := range strings.Lines(out) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind != "reply" {
			return errors.New(rest)
		}
		b, err := hex.DecodeString(rest)
		reply := &systemv1.SystemReply{}
		if err := errors.Join(err, proto.Unmarshal(b, reply)); err != nil {
			return err
		}
		if err := receive(reply); err != nil {
			return err
		}
	}
	return nil
}

var generateSeed func(io.Reader) (posture.AppSeed, error) = secret.Generate

// pair runs a whole ceremony: Middleware and console by their users, the App here.
func (b *base) pair() {
	b.t.Helper()
	// The Base ends a pairing whose next step does not come within seconds. Each takes a process here.
	b.Until("an App is paired", func() (err error) {
		if b.seed, err = generateSeed(rand.Reader); err != nil {
			return err
		}
		return b.ceremony()
	})
}

func (b *base) ceremony() error {
	ctx := b.t.Context()
	middleware, console := b.middleware.Authority(), b.console.Authority()
	p1 := make([]byte, noiseconn.P1Size)
	appKey, h, ra := [32]byte{}, [32]byte{}, [32]byte{}
	for _, random := range [][]byte{p1, appKey[:], h[:], ra[:]} {
		_, _ = rand.Read(random)
	}
	appKey[31] &= 0x7f // canonical
	private := ed25519.NewKeyFromSeed(b.seed.Expose())
	public := private.Public().(ed25519.PublicKey)
	if _, _, _, err := middleware.Hear(ctx, p1, netip.AddrFrom16([16]byte(p1))); err != nil {
		return err
	}
	if err := console.Accept(ctx, noiseconn.RequestNumber(p1), basev1.Role_ROLE_OWNER); err != nil {
		return err
	}
	_, id, _, err := middleware.Hear(ctx, p1, netip.AddrFrom16([16]byte(p1)))
	if err != nil {
		return err
	}
	payload, err := (&noiseconn.P3Payload{RA: ra, SigningKey: public, Name: "phone"}).Marshal()
	if err != nil {
		return err
	}
	record, _, err := middleware.Reveal(ctx, id, h, payload, appKey)
	if err != nil {
		return err
	}
	p4, err := noiseconn.ParseP4(record)
	if err != nil {
		return err
	}
	b.stateKey = posture.SigningKey(p4.StateKey)
	if err := console.Answer(ctx, id, true); err != nil {
		return err
	}
	if _, _, err := middleware.Enrol(ctx, id, ed25519.Sign(private, noiseconn.EnrolMessage(h, public, ra, p4.RB))); err != nil {
		return err
	}
	return middleware.Activate(ctx, public)
}

// look is the App's look at the Base.
func (b *base) look() *posture.View {
	b.t.Helper()
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	signed := b.getPosture(nonce)
	view, err := posture.VerifyChain(posture.Expectation{Base: b.stateKey, Memory: b.memory, Nonce: nonce}, signed.GetChain(),
		signed.GetReport())
	if err != nil {
		b.t.Fatalf("the App does not believe the Base: %v", err)
	}
	b.memory = view.Memory()
	return view
}

func (b *base) challenge() []byte {
	b.t.Helper()
	return b.getPosture(make([]byte, 32)).GetChallenge()
}

func (b *base) getPosture(nonce []byte) *basev1.SignedPosture {
	b.t.Helper()
	reply, err := b.middleware.Do(b.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetPosture{
		GetPosture: &systemv1.GetPosture{Nonce: nonce, Challenge: true}}}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply.GetPosture()
}

// submit has the App sign a change and the Middleware carry it.
func (b *base) submit(try bool, change func(p *posture.Posture, next uint64)) error {
	b.t.Helper()
	view := b.look()
	p, revision := view.Posture()
	change(&p, revision+1)
	var lifts []uint64
	for _, r := range view.Liftable() {
		lifts = append(lifts, r.Number)
	}
	doc, err := view.Draft(p, lifts, b.challenge(), try, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	begun := time.Now()
	_, err = b.middleware.Do(b.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Submit{
		Submit: &systemv1.Submit{Document: posture.SignDocument(doc, b.seed)}}}, nil)
	b.t.Logf("revision %d was applied, or refused, in %v", revision+1, time.Since(begun).Round(time.Millisecond))
	return err
}

func (b *base) mustSubmit(change func(p *posture.Posture, next uint64)) {
	b.t.Helper()
	if err := b.submit(false, change); err != nil {
		b.t.Fatalf("submit: %v", err)
	}
}

func (b *base) restrict(r *systemv1.Restrict) {
	b.t.Helper()
	begun := time.Now()
	if _, err := b.middleware.Do(b.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}},
		nil); err != nil {
		b.t.Fatalf("restrict: %v", err)
	}
	b.t.Logf("a restriction was applied in %v", time.Since(begun).Round(time.Millisecond))
}

func endLease(kind posture.Kind) *systemv1.Restrict {
	return &systemv1.Restrict{What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{Kind: string(kind)}}}
}

// electrum stands in for electrs, behind NGINX on loopback: it answers each line with
// the same line.
func (b *base) electrum() {
	b.t.Helper()
	listener, err := b.Listen("tcp", "127.0.0.1:50001")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

// answerTime is how long a wallet waits for an answer.
const answerTime = 5 * time.Second

// wallet connects to the Electrum API as a wallet does.
func (b *base) wallet(to netip.AddrPort) (*tls.Conn, error) {
	raw, err := b.Attacker(1).Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // self-signed; pinning is tested elsewhere
	err = errors.Join(conn.SetDeadline(time.Now().Add(answerTime)), conn.Handshake(), echoes(conn))
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	b.t.Cleanup(func() { _ = raw.Close() })
	return conn, nil
}

func echoes(conn net.Conn) error {
	if _, err := fmt.Fprintln(conn, "server.ping"); err != nil {
		return err
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "server.ping\n" {
		return fmt.Errorf("answer %q, %v", line, err)
	}
	return nil
}

func (b *base) mustWallet(to netip.AddrPort) *tls.Conn {
	b.t.Helper()
	var conn *tls.Conn
	b.Until(fmt.Sprintf("the wallet connects to %s", to), func() (err error) {
		conn, err = b.wallet(to)
		return err
	})
	return conn
}

// closed fails the test if somebody can connect.
func (b *base) closed(to netip.AddrPort) {
	b.t.Helper()
	if conn, err := b.Attacker(1).Dial("tcp", to); err == nil {
		_ = conn.Close()
		b.t.Errorf("%s can be reached", to)
	}
}

// cutTime is how long a test waits for the end of what was closed. It takes a moment, or two on a
// busy machine; by itself no connection ends within less than minutes (NGINX's proxy_timeout,
// the owner's lease). How quick the Base is measures TestClosingDoesNotDependOnLoad.
const cutTime = 30 * time.Second

// ends returns a channel that is closed when the connection ends.
func ends(conn net.Conn) chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = conn.SetReadDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, conn)
	}()
	return ended
}

// cutOff closes something, and fails the test unless all that is concerned ends.
func (b *base) cutOff(concerned map[string]chan struct{}, closing func()) {
	b.t.Helper()
	begun := time.Now()
	after := map[string]chan time.Duration{}
	for what, ended := range concerned {
		after[what] = make(chan time.Duration, 1)
		go func() {
			<-ended
			after[what] <- time.Since(begun)
		}()
	}
	closing()
	answered := time.Since(begun)
	deadline := time.After(cutTime)
	for what := range concerned {
		select {
		case took := <-after[what]:
			b.t.Logf("%s was ended after %v; the answer came after %v", what, took.Round(time.Millisecond), answered.Round(time.Millisecond))
		case <-deadline:
			b.t.Fatalf("%s lives on", what)
		}
	}
}

// lives fails the test if the connection was ended.
func (b *base) lives(what string, conn net.Conn) {
	b.t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		b.t.Errorf("%s was ended: %v", what, err)
	}
}

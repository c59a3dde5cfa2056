// Package dev_test connects the App and a developer's Base over real TCP and real mDNS, in their
// own network.
package dev_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// testTime bounds what a test waits for. Only one that fails reaches it.
const testTime = time.Minute

// house is a Base and the person at it.
type house struct {
	*devbase.Base
	t      *testing.T
	config devbase.Config
}

func newHouse(t *testing.T, name string) *house {
	t.Helper()
	// A test is quicker than a person, and all from one address.
	limits := admission.DefaultLimits()
	limits.PerSecond, limits.Burst = 1000, 1000
	h := &house{t: t, config: devbase.Config{
		StateDir: t.TempDir() + "/state",
		Limits:   limits,
		Listen:   ":0",
		Name:     name,
		Announce: true,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}}
	h.start()
	t.Cleanup(func() { _ = h.Stop() })
	return h
}

func (h *house) start() {
	h.t.Helper()
	var err error
	if h.Base, err = devbase.Start(h.config); err != nil {
		h.t.Fatal(err)
	}
}

// await waits until what the display shows satisfies condition.
func (h *house) await(what string, condition func(*systemv1.Snapshot) bool) *systemv1.Snapshot {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), testTime)
	defer cancel()
	for seen := uint64(0); ; {
		snapshot, err := h.Console().Watch(ctx, seen)
		if err != nil {
			h.t.Errorf("the display never shows %s: %v", what, err)
			return &systemv1.Snapshot{}
		}
		if condition(snapshot) {
			return snapshot
		}
		seen = snapshot.GetVersion()
	}
}

// human is what the two people do: accept the number that the App shows, and say
// yes if the codes are the same.
func (h *house) human(role basev1.Role) client.PairOptions {
	return client.PairOptions{
		Requested: func(number string) {
			go func() {
				h.await("the request "+number, func(s *systemv1.Snapshot) bool {
					for _, heard := range s.GetRequests() {
						if noiseconn.FormatNumber(heard) == number {
							return h.Console().Accept(h.t.Context(), heard, role) == nil
						}
					}
					return false
				})
			}()
		},
		Confirm: func(_ context.Context, code client.Code) (bool, error) {
			shown := h.shown()
			id, _ := pairing.CeremonyIDOf(shown)
			equal := shown.GetCeremony().GetCode() == code.Digits
			return equal, h.Console().Answer(h.t.Context(), id, equal)
		},
	}
}

func (h *house) shown() *systemv1.Snapshot {
	return h.await("a code", func(s *systemv1.Snapshot) bool { return s.GetCeremony().GetCode() != "" })
}

func newApp(t *testing.T, name string) *client.App {
	t.Helper()
	app, err := client.New(client.Options{Dir: t.TempDir() + "/app", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// find waits until a Base of this name is announced, and returns its addresses.
func find(t *testing.T, app *client.App, name string) []string {
	t.Helper()
	for deadline := time.Now().Add(testTime); time.Now().Before(deadline); {
		bases, err := app.Discover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bases {
			if b.Name == name {
				return b.Addresses
			}
		}
	}
	t.Fatalf("%s was never announced", name)
	return nil
}

func TestAnAppFindsPairsUsesLosesAndFindsItsBaseAgain(t *testing.T) {
	netnstest.Require(t)
	h := newHouse(t, "kitchen")
	phone, tablet := newApp(t, "phone"), newApp(t, "tablet")
	paired, err := phone.Pair(t.Context(), find(t, phone, "kitchen"), h.human(basev1.Role_ROLE_UNSPECIFIED))
	if err != nil {
		t.Fatal(err)
	}
	if paired.Role != basev1.Role_ROLE_OWNER || paired.State != client.Active || paired.PublicKey != h.PublicKey() {
		t.Errorf("paired: %+v", paired)
	}
	session, err := phone.Open("kitchen")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()

	// A second App, let in by the first.
	if _, err := session.Pairing.OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := tablet.Pair(t.Context(), find(t, tablet, "kitchen"), h.human(basev1.Role_ROLE_VIEWER)); err != nil {
		t.Fatal(err)
	}
	watching, err := tablet.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Close()
	stream, err := watching.Events.WatchEvents(t.Context(), &basev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Receive(); err != nil || first.GetSubscribed() == nil {
		t.Fatalf("the stream begins with %v, %v", first, err)
	}

	// It is thrown out in the middle of its stream, and for good.
	list, err := session.Apps.ListApps(t.Context(), &basev1.ListAppsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range list.GetApps() {
		if app.GetName() == "tablet" {
			if _, err := session.Apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: app.GetId()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range stream.All() {
	}
	if _, err := watching.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{}); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("the revoked App reads %v", err)
	}

	// The Base comes back elsewhere, and is found.
	before := h.Addr().String()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	h.start()
	if h.Addr().String() == before {
		t.Fatal("the Base is where it was; this test proves nothing")
	}
	info, err := session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if errors.Is(err, client.ErrLost) {
		// The App had not heard yet that its old connection has ended, and the call was lost with it.
		info, err = session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	}
	if err != nil || info.GetName() != "kitchen" {
		t.Errorf("after it has moved: %v, %v", info, err)
	}
}

// middle terminates a pairing on both sides with keys of his own, and tells each
// human of nothing.
type middle struct {
	t        *testing.T
	listener net.Listener
	base     string // the address of the true Base
	toBase   *noiseconn.PairInitiator
	signing  ed25519.PrivateKey
	result   chan error // nil: he was let in
}

func newMiddle(t *testing.T, base string) *middle {
	t.Helper()
	m := &middle{t: t, base: base, result: make(chan error, 1)}
	var err error
	if m.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.listener.Close() })
	static, err := noiseconn.GenerateStatic(nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.toBase, err = noiseconn.NewPairInitiator(nil, static); err != nil {
		t.Fatal(err)
	}
	_, m.signing, _ = ed25519.GenerateKey(nil)
	go func() { m.result <- m.stand() }()
	return m
}

// stand waits for the App, and conducts one pairing on each side.
func (m *middle) stand() error {
	toApp, err := m.listener.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = toApp.Close() }()
	_, p1, err := noiseconn.ReadFrame(toApp)
	if err != nil {
		return err
	}
	// The true Base first, as long as the App waits.
	toBase, err := net.Dial("tcp", m.base)
	if err != nil {
		return err
	}
	defer func() { _ = toBase.Close() }()
	if err := noiseconn.WriteFrame(toBase, noiseconn.TypePair, m.toBase.P1()); err != nil {
		return err
	}
	_, p2, err := noiseconn.ReadFrame(toBase)
	if err != nil {
		return err
	}
	if _, err := m.toBase.ReadP2(p2); err != nil {
		return err
	}
	// Then the App, with an opening that he has chosen.
	static, err := noiseconn.GenerateStatic(nil)
	if err != nil {
		return err
	}
	fromApp, err := noiseconn.NewPairResponder(nil, static, p1)
	if err != nil {
		return err
	}
	opening := &noiseconn.P4{RB: [32]byte{1}, StateKey: m.signing.Public().(ed25519.PublicKey), Role: byte(basev1.Role_ROLE_OWNER),
		Name: "kitchen"}
	answer, err := fromApp.WriteP2(noiseconn.Commit(opening.RB, opening.StateKey, opening.Role))
	if err != nil {
		return err
	}
	if err := noiseconn.WriteFrame(toApp, noiseconn.TypePair, answer); err != nil {
		return err
	}
	_, p3, err := noiseconn.ReadFrame(toApp)
	if err != nil {
		return err
	}
	payload, appTransport, err := fromApp.ReadP3(p3)
	if err != nil {
		return err
	}
	revealed, err := noiseconn.ParseP3Payload(payload)
	if err != nil {
		return err
	}
	// He passes the App's half on, but must enrol a key that is his.
	mine := *revealed
	mine.SigningKey = m.signing.Public().(ed25519.PublicKey)
	p3, baseTransport, err := m.toBase.WriteP3(&mine)
	if err != nil {
		return err
	}
	if err := noiseconn.WriteFrame(toBase, noiseconn.TypePair, p3); err != nil {
		return err
	}
	baseChannel, appChannel := noiseconn.NewConn(toBase, baseTransport), noiseconn.NewConn(toApp, appTransport)
	record, err := baseChannel.ReadRecord()
	if err != nil {
		return err
	}
	p4, err := noiseconn.ParseP4(record)
	if err != nil {
		return err
	}
	record, err = opening.Marshal()
	if err != nil {
		return err
	}
	if err := appChannel.WriteRecord(record); err != nil {
		return err
	}
	// Both see a code. He says yes to the Base, and waits for its human.
	signature := ed25519.Sign(m.signing, noiseconn.EnrolMessage(baseTransport.HandshakeHash, mine.SigningKey, mine.RA, p4.RB))
	confirm, err := noiseconn.MarshalAppConfirm(signature)
	if err != nil {
		return err
	}
	if err := baseChannel.WriteRecord(confirm); err != nil {
		return err
	}
	record, err = baseChannel.ReadRecord()
	if err != nil {
		return err
	}
	_, _, err = noiseconn.ParseBaseConfirm(record)
	return err
}

// pairThrough pairs an App through somebody in the middle. compares tells what
// the humans do: compare, or say yes blindly. It returns whether he was let in.
func pairThrough(t *testing.T, compares bool) (letIn bool) {
	t.Helper()
	h := newHouse(t, "kitchen")
	m := newMiddle(t, strings.Replace(h.Addr().String(), "[::]", "127.0.0.1", 1))
	// He has ground a request with the App's number, so the human accepts it.
	if err := h.Console().Accept(t.Context(), noiseconn.RequestNumber(m.toBase.P1()), basev1.Role_ROLE_UNSPECIFIED); err != nil {
		t.Fatal(err)
	}
	people := h.human(basev1.Role_ROLE_UNSPECIFIED)
	options := client.PairOptions{Confirm: people.Confirm}
	if !compares {
		options.Confirm = func(ctx context.Context, code client.Code) (bool, error) {
			id, _ := pairing.CeremonyIDOf(h.shown())
			return true, h.Console().Answer(ctx, id, true)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	if _, err := newApp(t, "phone").Pair(ctx, []string{m.listener.Addr().String()}, options); err == nil {
		t.Error("the App believes that it is paired")
	}
	select {
	case err := <-m.result:
		return err == nil
	case <-ctx.Done():
		t.Error("the man in the middle is still waiting")
		return false
	}
}

func TestPeopleWhoCompareTheCodeSeeAManInTheMiddle(t *testing.T) {
	netnstest.Require(t)
	if pairThrough(t, true) {
		t.Error("he was let in")
	}
	if !pairThrough(t, false) {
		t.Error("people who do not compare should let him in; this attack proves nothing")
	}
}

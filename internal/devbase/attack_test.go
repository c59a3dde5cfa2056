package devbase_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/mlkem"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flynn/noise"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// relaxed lets the tests' few addresses connect as often as they like.
func relaxed(config *devbase.Config) {
	config.Limits = admission.DefaultLimits()
	config.Limits.PerSecond, config.Limits.Burst, config.Limits.ParkedPerAddress = 1e6, 1e6, 1e4
}

// impatient makes refused connections end soon.
func impatient(config *devbase.Config) {
	relaxed(config)
	config.Limits.Handshake = time.Second
}

// heard returns how many bytes arrive on a connection until it ends.
func heard(c net.Conn) int {
	b, _ := io.ReadAll(c)
	return len(b)
}

// say opens a connection and sends something.
func say(t *testing.T, address string, send []byte) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, testTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(testTime)); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(send)
	return c
}

func frame(t *testing.T, typ byte, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := noiseconn.WriteFrame(&b, typ, body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAStrangerGetsNotOneByteFromAPairedBase(t *testing.T) {
	b := startBase(t, impatient)
	owner := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	stranger := b.newApp("stranger")
	stranger.base, stranger.pair = b.PublicKey(), owner.pair // even with a stolen K_pair
	stolen, err := stranger.r1()
	if err != nil {
		t.Fatal(err)
	}
	stranger.pair, _ = noiseconn.GeneratePairKey(nil)
	unknown, err := stranger.r1()
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]net.Conn{
		"nothing":               say(t, b.Addr().String(), nil),
		"HTTP":                  say(t, b.Addr().String(), []byte("GET / HTTP/1.1\r\nHost: base\r\n\r\n")),
		"TLS":                   say(t, b.Addr().String(), append([]byte{0x16, 3, 1, 0, 100}, make([]byte, 100)...)),
		"SSH":                   say(t, b.Addr().String(), []byte("SSH-2.0-Go\r\n")),
		"an unknown key":        say(t, b.Addr().String(), frame(t, noiseconn.TypeConnect, unknown.R1())),
		"a stolen K_pair":       say(t, b.Addr().String(), frame(t, noiseconn.TypeConnect, stolen.R1())),
		"a request, no window":  say(t, b.Addr().String(), frame(t, noiseconn.TypePair, stranger.pairing.P1())),
		"random bytes, a frame": say(t, b.Addr().String(), frame(t, noiseconn.TypeConnect, bytes.Repeat([]byte{0xa5}, noiseconn.R1Size))),
	}
	for what, c := range sent {
		if n := heard(c); n != 0 {
			t.Errorf("%s was answered with %d bytes", what, n)
		}
	}
	// The attack detects an answer where there is one.
	known, err := owner.r1()
	if err != nil {
		t.Fatal(err)
	}
	if n := heard(say(t, b.Addr().String(), frame(t, noiseconn.TypeConnect, known.R1()))); n != noiseconn.FrameHeaderSize+noiseconn.R2Size {
		t.Errorf("an App's own frame was answered with %d bytes; this attack proves nothing", n)
	}
}

func TestAReplayedConnectFrameGetsNoAnswerEvenAfterARestart(t *testing.T) {
	b := startBase(t, impatient)
	a := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	initiator, err := a.r1()
	if err != nil {
		t.Fatal(err)
	}
	recorded := frame(t, noiseconn.TypeConnect, initiator.R1())
	first := say(t, b.Addr().String(), recorded)
	if _, _, err := noiseconn.ReadFrame(first); err != nil {
		t.Fatalf("the App's own frame: %v", err)
	}
	_ = first.Close() // no first record follows
	if n := heard(say(t, b.Addr().String(), recorded)); n != 0 {
		t.Errorf("the replay got %d bytes", n)
	}
	b.restart()
	if n := heard(say(t, b.Addr().String(), recorded)); n != 0 {
		t.Errorf("after a restart the replay got %d bytes", n)
	}
	if _, err := a.info(t.Context()); err != nil {
		t.Errorf("the App itself suffers: %v", err)
	}
}

func TestAnOwnerConnectsAtOnceBesideTwoThousandSilentConnections(t *testing.T) {
	const silent = 2000
	b := startBase(t, func(config *devbase.Config) {
		config.Limits = admission.DefaultLimits()
		config.Limits.Handshake = testTime
	})
	a := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	for i := range silent {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 2, byte(i/4/250), 1+byte(i/4%250))}}
		c, err := dialer.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatalf("silent connection %d: %v", i, err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	if _, err := a.info(t.Context()); err != nil {
		t.Errorf("the owner is kept out: %v", err)
	}
}

func TestAFloodOfRequestsUsesNoActAndDoesNotBlockTheCeremony(t *testing.T) {
	b := startBase(t, func(config *devbase.Config) {
		relaxed(config)
		config.Limits.Handshake = testTime
	})
	for i := range 50 {
		stranger := b.newApp(fmt.Sprintf("stranger %d", i))
		say(t, b.Addr().String(), frame(t, noiseconn.TypePair, stranger.pairing.P1()))
	}
	b.awaitSnapshot("requests were heard", func(s *systemv1.Snapshot) bool { return len(s.GetRequests()) > 0 })
	if left := b.awaitSnapshot("", func(*systemv1.Snapshot) bool { return true }).GetActsLeft(); left != 3 {
		t.Errorf("%d acts are left after the flood, not 3", left)
	}
	a := b.pair("phone", basev1.Role_ROLE_OWNER)
	if _, err := a.info(t.Context()); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

func TestASecondClientDisturbsNeitherACeremonyNorASession(t *testing.T) {
	b := startBase(t, relaxed)
	a := b.newApp("phone")
	s := b.show(a, basev1.Role_ROLE_UNSPECIFIED)
	disturb := func() {
		for range 3 {
			other := b.newApp("other")
			say(t, b.Addr().String(), frame(t, noiseconn.TypePair, other.pairing.P1()))
			say(t, b.Addr().String(), frame(t, noiseconn.TypePair, a.pairing.P1())) // the very request, again
			say(t, b.Addr().String(), frame(t, noiseconn.TypeConnect, make([]byte, noiseconn.R1Size)))
			say(t, b.Addr().String(), []byte("GET / HTTP/1.1\r\n\r\n"))
		}
	}
	disturb()
	b.answer(true)
	disturb()
	if err := s.confirm(); err != nil {
		t.Fatal(err)
	}
	if err := s.confirmed(); err != nil {
		t.Fatalf("the ceremony was disturbed: %v", err)
	}
	client := a.client()
	defer client.close()
	info := baserpc.NewInfoServiceClient(client)
	for range 3 {
		if _, err := info.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil {
			t.Errorf("the session was disturbed: %v", err)
		}
		disturb()
	}
	// A second session of the same App is welcome.
	if _, err := a.info(t.Context()); err != nil {
		t.Error(err)
	}
}

// The test speaks the patterns with a psk of zeros, like a library that was never given one.
func TestAPeerWithoutThePSKIsRefused(t *testing.T) {
	b := startBase(t, impatient)
	a := b.newApp("phone")
	suite := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)
	static, err := suite.GenerateKeypair(nil)
	if err != nil {
		t.Fatal(err)
	}
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeXX, Initiator: true, Prologue: []byte("bitbox-base/1 pair"),
		StaticKeypair: static, PresharedKey: make([]byte, 32), PresharedKeyPlacement: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	p1, _, _, err := state.WriteMessage(nil, kem.EncapsulationKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Console().Accept(t.Context(), noiseconn.RequestNumber(p1), basev1.Role_ROLE_UNSPECIFIED); err != nil {
		t.Fatal(err)
	}
	c := say(t, b.Addr().String(), frame(t, noiseconn.TypePair, p1))
	_, p2, err := noiseconn.ReadFrame(c)
	if err != nil {
		t.Fatalf("no P2: %v", err)
	}
	if _, _, _, err := state.ReadMessage(nil, p2); err != nil {
		t.Fatal(err)
	}
	signing, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := (&noiseconn.P3Payload{SigningKey: signing, Name: "phone"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	p3, _, _, err := state.WriteMessage(nil, payload)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(frame(t, noiseconn.TypePair, p3)); err != nil {
		t.Fatal(err)
	}
	if n := heard(c); n != 0 {
		t.Errorf("without the psk %d bytes came after P3", n)
	}
	b.awaitSnapshot("the ceremony has ended", func(s *systemv1.Snapshot) bool { return s.GetCeremony() == nil })
	if b.awaitSnapshot("", func(*systemv1.Snapshot) bool { return true }).GetPaired() {
		t.Error("it is paired")
	}
	// The same steps with the psk lead to a code.
	b.show(a, basev1.Role_ROLE_UNSPECIFIED)
}

func TestARejectedOrLostPairingLeavesNothingBehind(t *testing.T) {
	for name, end := range map[string]func(b *testBase, s *shown){
		"the Base's human says no": func(b *testBase, s *shown) {
			b.answer(false)
			if err := s.confirmed(); !errors.Is(err, noiseconn.ErrRejected) {
				b.t.Errorf("the App reads %v", err)
			}
		},
		"the Base's human says no after the App's yes": func(b *testBase, s *shown) {
			if err := s.confirm(); err != nil {
				b.t.Error(err)
			}
			b.awaitSnapshot("the App has confirmed", func(s *systemv1.Snapshot) bool { return s.GetCeremony().GetAppConfirmed() })
			b.answer(false)
			if err := s.confirmed(); !errors.Is(err, noiseconn.ErrRejected) {
				b.t.Errorf("the App reads %v", err)
			}
		},
		"the App's human says no": func(b *testBase, s *shown) {
			if err := s.channel.WriteRecord(noiseconn.MarshalReject()); err != nil {
				b.t.Error(err)
			}
			b.awaitSnapshot("it has ended", func(s *systemv1.Snapshot) bool {
				return s.GetLast().GetOutcome() == systemv1.LastCeremony_OUTCOME_REJECTED_BY_APP
			})
		},
		"the App's human says no after the Base's yes": func(b *testBase, s *shown) {
			b.answer(true)
			if err := s.channel.WriteRecord(noiseconn.MarshalReject()); err != nil {
				b.t.Error(err)
			}
		},
		"the App's Confirm is lost": func(b *testBase, s *shown) {
			b.answer(true)
			_ = s.channel.NetConn().Close()
		},
		"the connection is lost while the Base's human thinks": func(b *testBase, s *shown) {
			if err := s.confirm(); err != nil {
				b.t.Error(err)
			}
			b.awaitSnapshot("the App has confirmed", func(s *systemv1.Snapshot) bool { return s.GetCeremony().GetAppConfirmed() })
			_ = s.channel.NetConn().Close()
		},
		"the App confirms twice": func(b *testBase, s *shown) {
			if err := errors.Join(s.confirm(), s.confirm()); err != nil {
				b.t.Error(err)
			}
			if err := s.confirmed(); !errors.Is(err, noiseconn.ErrRejected) {
				b.t.Errorf("the App reads %v", err)
			}
		},
		"the App signs something else": func(b *testBase, s *shown) {
			s.hash[0] ^= 1
			if err := s.confirm(); err != nil {
				b.t.Error(err)
			}
			if err := s.confirmed(); !errors.Is(err, noiseconn.ErrRejected) {
				b.t.Errorf("the App reads %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBase(t, relaxed)
			end(b, b.show(b.newApp("phone"), basev1.Role_ROLE_UNSPECIFIED))
			b.awaitSnapshot("the ceremony has ended", func(s *systemv1.Snapshot) bool { return s.GetCeremony() == nil })
			if len(b.log.lines("audit=true", "confirmed an App")) != 0 {
				t.Error("a pairing was stored")
			}
			eventually(t, "the failure is in the log", func() bool { return len(b.log.lines("reason=pairing_failed")) == 1 })
			// Pair again.
			if _, err := b.pair("phone again", basev1.Role_ROLE_OWNER).info(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestALostConfirmOfTheBaseLapsesAndPairingAgainWorks(t *testing.T) {
	clock := newClock()
	b := startBase(t, func(config *devbase.Config) {
		relaxed(config)
		config.PendingTime = 50 * time.Millisecond
		config.Now = clock.now
	})
	s := b.show(b.newApp("phone"), basev1.Role_ROLE_UNSPECIFIED)
	b.answer(true)
	if err := s.confirm(); err != nil {
		t.Fatal(err)
	}
	// It was sent, and the App never reads it.
	eventually(t, "the Base has stored its half", func() bool { return len(b.log.lines("audit=true", "both sides have confirmed")) == 1 })
	_ = s.channel.NetConn().Close()
	eventually(t, "the Base's half has died", func() bool { return len(b.log.lines("audit=true", "did not connect in time")) == 1 })
	clock.advance(200 * time.Second) // the authority's half dies as well
	b.awaitSnapshot("the Base listens again", func(s *systemv1.Snapshot) bool { return s.GetListening() })
	b.pair("phone again", basev1.Role_ROLE_OWNER)
}

// clock is the authority's; a test can move it forward.
type clock struct {
	mu      sync.Mutex
	started time.Time
	added   time.Duration
}

func newClock() *clock { return &clock{started: time.Now()} }

func (c *clock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.started) + c.added
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added += d
}

func TestRevokedAppIsCutOffWithinASecond(t *testing.T) {
	b := startBase(t, relaxed)
	owner := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	viewer := b.pairActive("display", basev1.Role_ROLE_VIEWER)
	watching := viewer.client()
	defer watching.close()
	stream, err := baserpc.NewEventsServiceClient(watching).WatchEvents(t.Context(), &basev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	client := owner.client()
	defer client.close()
	apps := baserpc.NewAppsServiceClient(client)
	id := b.idOf(t, apps, "display")
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	// The Base has cut the connection before it answered the owner; only the network may still
	// take time.
	if err := endOf(stream); err == nil {
		t.Error("the stream ended as if it were complete")
	}
	for range 2 {
		if _, err := viewer.info(t.Context()); !errors.Is(err, errRevoked) {
			t.Errorf("the revoked App is told %v", err)
		}
		b.restart()
	}
	if _, err := owner.info(t.Context()); err != nil {
		t.Errorf("the owner suffers: %v", err)
	}
}

// endOf reads a stream to its end, and returns the final error.
func endOf(stream *baserpc.Stream[basev1.Event]) error {
	for _, err := range stream.All() {
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *testBase) idOf(t *testing.T, apps baserpc.AppsServiceClient, name string) string {
	t.Helper()
	list, err := apps.ListApps(t.Context(), &basev1.ListAppsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.GetApps(), func(app *basev1.App) bool { return app.GetName() == name })
	if i < 0 {
		t.Fatalf("no App is called %q: %v", name, list)
	}
	return list.GetApps()[i].GetId()
}

// openFrame is the frame that opens a call (docs/protocol.md), with a piece of its request, which
// is the last one or not.
func openFrame(method string, whole bool, piece []byte) []byte {
	const kindOpen, callOne, last, more = 1, 1, 0, 1
	state := byte(more)
	if whole {
		state = last
	}
	frame := []byte{kindOpen, 0, 0, 0, callOne, state, 0, 0, 0, 0, byte(len(method))}
	return append(append(frame, method...), piece...)
}

// truncate sends the beginning of a request to rename an App to "gone", with only this much of
// its body, and cuts the connection. It returns the name afterwards.
func truncate(t *testing.T, missing int) string {
	t.Helper()
	b := startBase(t, relaxed)
	a := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	client := a.client()
	defer client.close()
	apps := baserpc.NewAppsServiceClient(client)
	id := b.idOf(t, apps, "phone")
	body := append([]byte{0x0a, byte(len(id))}, id...)
	body = append(body, 0x12, 4, 'g', 'o', 'n', 'e')

	channel, err := a.connect()
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.WriteRecord(openFrame(baserpc.AppsServiceRenameApp, missing == 0, body[:len(body)-missing])); err != nil {
		t.Fatal(err)
	}
	if missing == 0 {
		// Wait until it has been done before the cut.
		eventually(t, "the request is done", func() bool { return len(b.log.lines("an App was renamed")) == 1 })
	}
	_ = channel.NetConn().Close() // no close record, no end of the request
	eventually(t, "the session has ended", func() bool {
		list, err := apps.ListApps(t.Context(), &basev1.ListAppsRequest{})
		return err == nil && list.GetApps()[0].GetSessions() == 1
	})
	list, err := apps.ListApps(t.Context(), &basev1.ListAppsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetApps()[0].GetName()
}

func TestATruncatedRequestIsNotActedOn(t *testing.T) {
	for _, missing := range []int{1, 6, 10} {
		if name := truncate(t, missing); name != "phone" {
			t.Errorf("without its last %d bytes and its end the request was done: the App is called %q", missing, name)
		}
	}
	if name := truncate(t, 0); name != "gone" {
		t.Errorf("whole, the request is not done (%q); this attack proves nothing", name)
	}
}

func TestConnectionsLeaveNoGoroutineBehind(t *testing.T) {
	b := startBase(t, relaxed)
	a := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	connectOften := func() {
		for range 100 {
			if _, err := a.info(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	connectOften()
	settled := func(atMost int) bool {
		for range 500 {
			if runtime.NumGoroutine() <= atMost {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	runtime.GC()
	before := runtime.NumGoroutine()
	connectOften()
	connectOften()
	if !settled(before) {
		t.Errorf("%d goroutines before 200 connections, %d after", before, runtime.NumGoroutine())
	}
	// A session that still runs is visible.
	left := a.client()
	if _, err := baserpc.NewInfoServiceClient(left).GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a live session has goroutines", func() bool { return runtime.NumGoroutine() > before })
	left.close()
}

func TestAPairedBaseHearsNoRequestWhileTheWindowIsClosed(t *testing.T) {
	b := startBase(t, impatient)
	owner := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	late := b.newApp("late")
	if n := heard(say(t, b.Addr().String(), frame(t, noiseconn.TypePair, late.pairing.P1()))); n != 0 {
		t.Errorf("%d bytes", n)
	}
	if err := b.Console().Accept(t.Context(), late.number(), basev1.Role_ROLE_OWNER); err == nil {
		t.Error("a request can be accepted while no window is open")
	}
	// An owner's App opens the window.
	client := owner.client()
	defer client.close()
	window := baserpc.NewPairingServiceClient(client)
	if _, err := window.OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
		t.Fatal(err)
	}
	paired := b.pair("tablet", basev1.Role_ROLE_VIEWER)
	info, err := paired.info(t.Context())
	if err != nil || info.GetCaller().GetRole() != basev1.Role_ROLE_VIEWER {
		t.Errorf("the second App: %v, %v", info.GetCaller(), err)
	}
	if _, err := baserpc.NewPairingServiceClient(paired.client()).OpenWindow(t.Context(),
		&basev1.OpenWindowRequest{}); rpc.CodeOf(err) != rpc.Denied {
		t.Errorf("a viewer opens the window: %v", err)
	}
	got, err := window.GetWindow(t.Context(), &basev1.GetWindowRequest{})
	if err != nil || got.GetWindow().GetOpen() {
		t.Errorf("after one App the window is still open: %v, %v", got, err)
	}
}

func TestStoppingEndsSessionsAndIsQuick(t *testing.T) {
	b := startBase(t, relaxed)
	a := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	client := a.client()
	defer client.close()
	stream, err := baserpc.NewEventsServiceClient(client).WatchEvents(t.Context(), &basev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	s := b.newApp("other")
	if err := b.Console().OpenWindow(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.show(s, basev1.Role_ROLE_VIEWER) // in the middle of a ceremony
	b.stop()
	if err := endOf(stream); rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
}

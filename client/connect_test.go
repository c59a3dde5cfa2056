package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

// open returns a session that ends with the test.
func open(t *testing.T, a *App, addresses ...string) *Session {
	t.Helper()
	session, err := a.Open("", addresses...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

func getInfo(t *testing.T, s *Session) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	return err
}

// eventually waits for a condition on a slow machine.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
	}
}

func TestRevokedAppReportsItAndKeepsItsRecord(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	session := open(t, a)
	if err := getInfo(t, session); err != nil {
		t.Fatal(err)
	}
	b.revokeAll()
	// The call in which the connection breaks may be lost; the next one reports it.
	var err error
	eventually(t, "being told", func() bool { err = getInfo(t, session); return errors.Is(err, ErrRevoked) })
	wantKind(t, err, ErrRevoked)
	if list := bases(t, a); len(list) != 1 || list[0].State != Revoked {
		t.Errorf("%+v", list)
	}
	// From now on nothing is sent.
	before := len(b.connections())
	_, err = a.Open("")
	wantKind(t, err, ErrRevoked)
	wantKind(t, getInfo(t, session), ErrRevoked)
	if len(b.connections()) != before {
		t.Error("the Base was asked again")
	}
	if err := a.Forget("Fake Base"); err != nil || len(bases(t, a)) != 0 {
		t.Errorf("forget: %v, left %v", err, bases(t, a))
	}
}

func TestNewPairingReplacesARevokedOneOfTheSameBase(t *testing.T) {
	a, b, unrelated := testApp(t), newFakeBase(t), newFakeBase(t)
	unrelated.name = "Other"
	mustPair(t, a, unrelated)
	mustPair(t, a, b)
	session, err := a.Open("Fake Base")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	b.revokeAll()
	eventually(t, "being told", func() bool { return errors.Is(getInfo(t, session), ErrRevoked) })

	base := mustPair(t, a, b)
	if base.Name != "Fake Base" {
		t.Errorf("the new pairing is named %q", base.Name)
	}
	if list := bases(t, a); len(list) != 2 || list[0].State != Active || list[1].Name != "Other" {
		t.Errorf("%+v", list)
	}
}

func TestCallsToAnotherServerReportIt(t *testing.T) {
	for what, c := range map[string]struct {
		serve func(net.Conn) // nil: nothing listens
		kind  error
	}{
		"off":            {nil, ErrUnreachable},
		"silent":         {func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, ErrSilent},
		"hangs up":       {func(net.Conn) {}, ErrSilent},
		"another server": {func(conn net.Conn) { _, _ = io.WriteString(conn, "220 mail ready\r\n") }, ErrSilent},
		"a forged answer": {func(conn net.Conn) {
			_, _, _ = noiseconn.ReadFrame(conn)
			_ = noiseconn.WriteFrame(conn, noiseconn.TypeConnect, make([]byte, noiseconn.R2Size))
		}, ErrSilent},
	} {
		t.Run(what, func(t *testing.T) {
			a, b := testApp(t), newFakeBase(t)
			mustPair(t, a, b)
			address := b.address()
			b.off()
			if c.serve != nil {
				a.timing.handshake = 300 * time.Millisecond // in vain
				listener, err := net.Listen("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer listener.Close()
				go func() {
					for {
						conn, err := listener.Accept()
						if err != nil {
							return
						}
						go func() { c.serve(conn); conn.Close() }()
					}
				}()
			}
			wantKind(t, getInfo(t, open(t, a)), c.kind)
			if list := bases(t, a); len(list) != 1 || list[0].State != Active {
				t.Errorf("the pairing is gone or changed: %+v", list)
			}
			// The Base is back, and with it everything else.
			if c.serve == nil {
				b.listen(address)
				if err := getInfo(t, open(t, a)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestAddressThatSwallowsEverythingCountsAsUnreachable(t *testing.T) {
	netnstest.Require(t)
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	b.off()
	a.timing.tcp = 200 * time.Millisecond
	if err := a.store.change(bases(t, a)[0].AppID, "move", func(r *stored) { r.sawAt("10.77.0.99:8845") }); err != nil {
		t.Fatal(err)
	}
	wantKind(t, getInfo(t, open(t, a)), ErrUnreachable)
}

func TestMovedBaseIsFoundAtAGivenAddressWhichIsKept(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	old := b.address()
	b.off()
	b.listen("127.0.0.2:0")
	wantKind(t, getInfo(t, open(t, a)), ErrUnreachable)
	if err := getInfo(t, open(t, a, b.address())); err != nil {
		t.Fatal(err)
	}
	if got := bases(t, a)[0].Addresses; !slices.Equal(got, []string{b.address(), old}) {
		t.Errorf("addresses %v", got)
	}
	if err := getInfo(t, open(t, a)); err != nil {
		t.Error(err)
	}
}

func TestSessionSurvivesARestartOfTheBase(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	session := open(t, a)
	if err := getInfo(t, session); err != nil {
		t.Fatal(err)
	}
	address := b.address()
	b.off()
	b.listen(address)
	eventually(t, "a call after the restart", func() bool { return getInfo(t, session) == nil })
}

// announceFor announces a Base as its own daemon would.
func announceFor(t *testing.T, name string, key noiseconn.DiscoveryKey, port uint16) {
	t.Helper()
	txt := announcement.TXT{Version: 1, Nonce: [16]byte{1, 2, 3}}
	txt.ID = noiseconn.DiscoveryID(key, txt.Nonce[:])
	handle, err := discovery.Announce(t.Context(), discovery.Announcement{Instance: name, Port: port, TXT: txt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
}

func portOf(t *testing.T, b *fakeBase) uint16 {
	t.Helper()
	return uint16(b.listener.Addr().(*net.TCPAddr).Port)
}

func TestBaseWhoseAddressChangedIsFoundByMDNS(t *testing.T) {
	netnstest.Require(t)
	a, b := testApp(t), newFakeBase(t)
	a.noDiscovery = false
	mustPair(t, a, b)
	b.off()
	b.listen(netnstest.IPv4.Addr().String() + ":0")
	announceFor(t, "Whatever It Is Called", b.discovery, portOf(t, b))
	if err := getInfo(t, open(t, a)); err != nil {
		t.Fatal(err)
	}
	if got := bases(t, a)[0].Addresses[0]; got != b.address() {
		t.Errorf("kept %s, want %s", got, b.address())
	}
}

// An attacker repeats the TXT record of the Base with other addresses. The App tries them,
// reveals nothing there, and still reaches its Base.
func TestRepeatedTXTRecordDoesNotMisleadTheApp(t *testing.T) {
	netnstest.Require(t)
	a, b := testApp(t), newFakeBase(t)
	a.noDiscovery = false
	mustPair(t, a, b)
	b.off()
	trap := newFakeBase(t) // another Base, without the keys of the first
	trap.off()
	trap.listen(netnstest.IPv4.Addr().String() + ":0")
	for n := range 5 {
		announceFor(t, fmt.Sprintf("Trap %d", n), b.discovery, portOf(t, trap))
	}
	b.listen(netnstest.IPv4.Addr().String() + ":0")
	announceFor(t, "Genuine", b.discovery, portOf(t, b))
	if err := getInfo(t, open(t, a)); err != nil {
		t.Fatal(err)
	}
	if got := bases(t, a)[0].Addresses[0]; got != b.address() {
		t.Errorf("kept %s, want %s", got, b.address())
	}
}

func TestOnlyTheOwnBaseIsRecognised(t *testing.T) {
	netnstest.Require(t)
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	announceFor(t, "Genuine", b.discovery, 1001)
	// One has the name of the pairing, and some mean nothing.
	for n, name := range []string{"Fake Base", "Fake Base", "Stranger"} {
		key, err := noiseconn.GenerateDiscoveryKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		announceFor(t, name, key, uint16(2001+n))
	}
	var list []Nearby
	eventually(t, "all four are found", func() bool {
		var err error
		if list, err = a.Discover(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(list) == 4
	})
	if list[0].Name != "Genuine" || list[0].Known != "Fake Base" {
		t.Errorf("first is %+v", list[0])
	}
	byName := 0
	for _, n := range list[1:] {
		if n.Known != "" {
			t.Errorf("recognised: %+v", n)
		}
		// An App that relied on the name would accept these.
		if n.Name == list[0].Known {
			byName++
		}
	}
	if byName != 2 {
		t.Errorf("%d of the forged answers have the name of the pairing; this test shows nothing", byName)
	}
}

func TestCounterOfConnectionsOnlyGrows(t *testing.T) {
	dir := t.TempDir()
	a, b := appIn(t, dir), newFakeBase(t)
	mustPair(t, a, b)
	call := func(clock time.Time) {
		t.Helper()
		again := appIn(t, dir) // a process that knows only the file
		again.now = func() time.Time { return clock }
		if err := getInfo(t, open(t, again)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for _, clock := range []time.Time{now, now, now.Add(-time.Hour), time.Unix(-5, 0), now.Add(time.Hour), now} {
		call(clock)
	}
	seqs := b.connections()
	if len(seqs) != 7 || !slices.IsSorted(seqs) || len(slices.Compact(slices.Clone(seqs))) != 7 {
		t.Fatalf("%v", seqs)
	}
	if highest := seqs[5]; highest < uint64(now.Add(time.Hour).UnixMilli()) {
		t.Errorf("%d is below the clock", highest)
	}
}

func TestProcessesShareTheFileAndNeverACounter(t *testing.T) {
	dir := t.TempDir()
	b := newFakeBase(t)
	mustPair(t, appIn(t, dir), b)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				session, err := appIn(t, dir).Open("")
				if err != nil {
					t.Error(err)
					return
				}
				if err := getInfo(t, session); err != nil {
					t.Error(err)
				}
				session.Close()
			}
		})
	}
	all.Wait()
	seqs := b.connections()
	slices.Sort(seqs)
	if different := len(slices.Compact(slices.Clone(seqs))); len(seqs) != 21 || different != 21 {
		t.Errorf("%d connections with %d numbers", len(seqs), different)
	}
}

func TestNewCallsGoOverAFreshHandshakeAndOldOnesGoOn(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	before := b.handshakes.Load()
	a.timing.rehandshake = time.Nanosecond // the connection is already too old
	session := open(t, a)
	stream, err := session.Events.WatchEvents(t.Context(), &basev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := getInfo(t, session); err != nil {
			t.Fatal(err)
		}
	}
	if made := b.handshakes.Load() - before; made != 4 {
		t.Errorf("%d handshakes for 4 calls", made)
	}
	b.nextEvent <- struct{}{}
	if _, err := stream.Receive(); err != nil {
		t.Errorf("the stream that was there before has ended: %v", err)
	}

	// While it is young, a connection serves many calls.
	a.timing.rehandshake = time.Hour
	if err := getInfo(t, session); err != nil {
		t.Fatal(err)
	}
	before = b.handshakes.Load()
	for range 10 {
		if err := getInfo(t, session); err != nil {
			t.Fatal(err)
		}
	}
	if made := b.handshakes.Load() - before; made > 1 {
		t.Errorf("%d handshakes for 10 calls", made)
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

func TestCutStreamIsAnErrorNotAnEnd(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	watch := func(end func()) error {
		stream, err := open(t, a).Events.WatchEvents(t.Context(), &basev1.WatchEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		end()
		return endOf(stream)
	}
	// The same error comes when another App revokes this one, or locks the Base down.
	if err := watch(b.cut); !errors.Is(err, ErrLost) || Explain(err) != "the connection to the Base was lost; try again" {
		t.Errorf("a cut stream: %v", err)
	}
	if err := watch(func() { b.nextEvent <- struct{}{} }); err != nil {
		t.Errorf("an end looks like a cut: %v", err)
	}
}

func TestClosedSessionNeverConnectsAgain(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	session := open(t, a)
	if err := getInfo(t, session); err != nil {
		t.Fatal(err)
	}
	session.Close()
	session.Close()
	if err := getInfo(t, session); err == nil {
		t.Error("a closed session answered")
	}
}

func TestBaseIsChosenByName(t *testing.T) {
	a, one, two := testApp(t), newFakeBase(t), newFakeBase(t)
	two.name = "Second"
	_, err := a.Base("")
	wantKind(t, err, ErrNoSuchBase)
	mustPair(t, a, one)
	if base, err := a.Base(""); err != nil || base.Name != "Fake Base" {
		t.Errorf("%+v, %v", base, err)
	}
	mustPair(t, a, two)
	_, err = a.Base("")
	wantKind(t, err, ErrSeveralBases)
	_, err = a.Base("Third\x1b")
	if known := wantKind(t, err, ErrNoSuchBase); !strings.Contains(known.Text, `"Fake Base", "Second"`) ||
		strings.Contains(known.Text, "\x1b") {
		t.Errorf("%q", known.Text)
	}
	wantKind(t, a.Forget(""), ErrInvalid)
	wantKind(t, a.Forget("Third"), ErrNoSuchBase)
	if err := a.Forget("Second"); err != nil {
		t.Fatal(err)
	}
	if base, err := a.Base(""); err != nil || base.Name != "Fake Base" {
		t.Errorf("%+v, %v", base, err)
	}
}

func TestDamagedFileIsRefusedAndNotChanged(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"truncated":  func(path string) error { return os.Truncate(path, 5000) },
		"empty":      func(path string) error { return os.Truncate(path, 0) },
		"gone":       func(path string) error { return os.Remove(path) },
		"wrong mode": func(path string) error { return os.Chmod(path, 0o644) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			a, b := appIn(t, dir), newFakeBase(t)
			mustPair(t, a, b)
			path := filepath.Join(dir, storeFile)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			_, err := a.Bases()
			wantKind(t, err, ErrStorage)
			_, err = a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: neverAsked(t)})
			wantKind(t, err, ErrStorage)
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestAddressesAreCompleted(t *testing.T) {
	for in, want := range map[string]string{
		"192.168.1.20":        "192.168.1.20:8845",
		"192.168.1.20:99":     "192.168.1.20:99",
		"base.local":          "base.local:8845",
		"fd77::1":             "[fd77::1]:8845",
		"[fd77::1]":           "[fd77::1]:8845",
		"[fe80::1%eth0]:8846": "[fe80::1%eth0]:8846",
	} {
		if got, err := withPort(in); err != nil || got != want {
			t.Errorf("%q became %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", ":", ":1", "a:b", "a:65536", "a:-1", "a b", "a\n:1", "user@host", "http://a", "[::1", "::1]", "a:1:2:3"} {
		if got, err := withPort(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q became %q, %v", in, got, err)
		}
	}
}

func TestPrintableLeavesNoControls(t *testing.T) {
	if got := Printable("a\x1b[2J\u202e\u200bß\xff\n"); got != "a?[2J??ß\ufffd?" && got != "a?[2J??ß??" {
		t.Errorf("%q", got)
	}
}

func TestThousandsOfStrangersAreNeverRecognised(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	pairings, err := a.store.pairings()
	if err != nil {
		t.Fatal(err)
	}
	var txt announcement.TXT
	for range 5000 {
		rand.Read(txt.Nonce[:])
		rand.Read(txt.ID[:])
		if recognise(pairings, txt) != nil {
			t.Fatal("a stranger was recognised")
		}
	}
	txt.ID = noiseconn.DiscoveryID(b.discovery, txt.Nonce[:])
	if p := recognise(pairings, txt); p == nil || p.Name != "Fake Base" {
		t.Error("the own Base was not recognised")
	}
}

func TestSessionsLeaveNothingBehind(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	connect := func() {
		t.Helper()
		session, err := a.Open("")
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if err := getInfo(t, session); err != nil {
			t.Fatal(err)
		}
	}
	connect()
	before := runtime.NumGoroutine()
	for range 50 {
		connect()
	}
	// Both ends are in this process; the last ones are still ending.
	eventually(t, "an end of all goroutines", func() bool { return runtime.NumGoroutine() <= before+2 })
}

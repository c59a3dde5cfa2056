//go:build linux

package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// askAll has a Base ask on all its sessions for new connections.
func (b *fakeBase) askAll(ctx context.Context) {
	b.calls.Redial(ctx, func(context.Context) bool { return true }, func() time.Duration { return 0 })
}

// now returns the present connection of a session.
func (t *transport) now() *rpc.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: %s", what)
		}
	}
}

// The entry reads a new configuration, and an App that watches and follows a log moves to a
// new connection. Nothing is missed, nothing comes twice, and nobody sees anything of it.
func TestAnAppMovesAfterAReloadOfTheEntryAndMissesNothing(t *testing.T) {
	h := newHouse(t)
	laptop := h.session
	_, phone := h.pair("Phone", basev1.Role_ROLE_OWNER)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var sequences []uint64
	var banned, lines []string
	subscribed, ready := 0, make(chan struct{}, 2)
	const last, final = "192.0.2.200", "line 200"
	watched, followed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := collected(ctx, laptop, Watch{Lost: func(err error) { t.Errorf("lost: %v", err) }}, func(e *basev1.Event) bool {
			if e.GetSubscribed() != nil {
				subscribed++
				ready <- struct{}{}
			}
			if e.GetSequence() != 0 {
				sequences = append(sequences, e.GetSequence())
			}
			for _, b := range e.GetBansChanged().GetBanned() {
				banned = append(banned, b.GetAddress())
			}
			return slices.Contains(banned, last)
		})
		watched <- err
	}()
	if err := h.Services.Log("nginx", "line 0", 6); err != nil {
		t.Fatal(err)
	}
	go func() {
		for entry, err := range laptop.ReadLogs(ctx, &basev1.ReadLogsRequest{Services: []string{"nginx"}, Follow: true}) {
			if err != nil {
				followed <- err
				return
			}
			if lines = append(lines, entry.GetText()); len(lines) == 1 {
				ready <- struct{}{}
			}
			if entry.GetText() == final {
				break
			}
		}
		followed <- nil
	}()
	<-ready
	<-ready
	old := laptop.transport.now()
	if _, err := phone.Apply(ctx, expose); err != nil {
		t.Fatal(err)
	}
	happen := func(address, line string) {
		h.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr(address), Since: time.Now(), Until: time.Now().Add(time.Hour)})
		if _, err := phone.Bans(ctx); err != nil {
			t.Error(err)
		}
		if err := h.Services.Log("nginx", line, 6); err != nil {
			t.Error(err)
		}
	}
	var want, wantLines []string
	wantLines = append(wantLines, "line 0")
	var next time.Time
	until(t, "the App is still on its old connection", func() bool {
		if n := len(want) + 1; time.Now().After(next) && n < 18 { // more would be merged
			next = time.Now().Add(time.Second)
			want, wantLines = append(want, fmt.Sprintf("192.0.2.%d", n)), append(wantLines, fmt.Sprintf("line %d", n))
			happen(want[n-1], wantLines[n])
		}
		return laptop.transport.now() != old
	})
	happen(last, final)
	if err := errors.Join(<-watched, <-followed); err != nil {
		t.Fatal(err)
	}
	if want, wantLines = append(want, last), append(wantLines, final); !slices.Equal(banned, want) || !slices.Equal(lines, wantLines) {
		t.Errorf("told:\n%q\n%q", banned, lines)
	}
	for i := 1; i < len(sequences); i++ {
		if sequences[i] != sequences[i-1]+1 {
			t.Fatalf("the sequences are %v", sequences)
		}
	}
	if subscribed != 1 {
		t.Errorf("%d times it was told that the stream is live", subscribed)
	}
	select {
	case <-old.Done():
	case <-time.After(patience):
		t.Error("the old connection is still there")
	}
	if silences := must(h.owner.store.record(laptop.transport.id)).Silences; len(silences) != 0 {
		t.Errorf("moving counted as silence: %v", silences)
	}
}

// A call that cannot be resumed ends on its old connection.
func TestACallUnderWayIsNotCutByARedial(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	session := open(t, a)
	stream := must(session.Events.WatchEvents(t.Context(), &basev1.WatchEventsRequest{}))
	defer stream.Close()
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	old := session.transport.now()
	b.askAll(t.Context())
	<-stream.Retired()
	if session.transport.now() == old {
		t.Error("the stream was told to move, and there is nowhere to go")
	}
	b.nextEvent <- struct{}{}
	if _, err := stream.Receive(); err != nil {
		t.Errorf("a call of the old connection was cut: %v", err)
	}
}

// While no new connection can be made the old one serves.
func TestTheOldConnectionServesUntilThereIsANewOne(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	a.timing.redial = 50 * time.Millisecond
	mustPair(t, a, b)
	session := open(t, a)
	if err := getInfo(t, session); err != nil {
		t.Fatal(err)
	}
	old, address := session.transport.now(), b.address()
	_ = b.listener.Close()
	b.askAll(t.Context())
	for range 20 {
		if err := getInfo(t, session); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if session.transport.now() != old {
		t.Fatal("there is another connection, although none could be made")
	}
	b.listen(address)
	until(t, "the App did not move when it could", func() bool { return session.transport.now() != old })
	if err := getInfo(t, session); err != nil {
		t.Error(err)
	}
}

// The attack: a Base asks for a new connection on each connection, at once. That would make
// its App compute handshakes without end.
func TestABaseThatAsksInALoopGetsOneConnectionInAWhile(t *testing.T) {
	const enough = 20
	attack := func(t *testing.T, every time.Duration) (made int) {
		a, b := testApp(t), newFakeBase(t)
		mustPair(t, a, b)
		a.timing.redial = every
		session := open(t, a)
		if err := getInfo(t, session); err != nil {
			t.Fatal(err)
		}
		before := b.handshakes.Load()
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && made < enough; time.Sleep(time.Millisecond) {
			b.askAll(t.Context())
			made = int(b.handshakes.Load() - before)
		}
		if err := getInfo(t, session); err != nil {
			t.Error(err)
		}
		return made
	}
	page := string(must(os.ReadFile("../docs/protocol.md")))
	if defaultTiming.redial != time.Minute || !strings.Contains(page, "| new connections of an App because of redials | 1 a minute |") {
		t.Errorf("the limit is %v, or the specification says something else", defaultTiming.redial)
	}
	if made := attack(t, defaultTiming.redial); made != 1 {
		t.Errorf("the App made %d connections", made)
	}
	if made := attack(t, 0); made < enough {
		t.Errorf("without the limit the App made only %d connections; this attack proves nothing", made)
	}
}

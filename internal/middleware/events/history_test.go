package events

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"github.com/BitBoxSwiss/bitbox-base/internal/state/killtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func openEvents(path string) (*state.DB, *Hub, error) {
	db, err := state.Open(path, state.Options{Kind: HistoryKind, Schema: HistorySchema, Create: true})
	if err != nil {
		return nil, nil, err
	}
	h, err := openHistory(db)
	return db, newHub(h, slog.New(slog.DiscardHandler)), err
}

func eventsIn(t *testing.T) *Hub {
	t.Helper()
	db, h, err := openEvents(filepath.Join(t.TempDir(), "events.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return h
}

// add keeps an event.
func add(h *Hub, e *basev1.Event) error {
	added, err := h.history.write(e)
	h.history.take(added)
	return err
}

func banOf(address string) *basev1.Event {
	return &basev1.Event{Event: &basev1.Event_BansChanged{
		BansChanged: &basev1.BansChangedEvent{Banned: []*basev1.Ban{{Jail: "sshd", Address: address}}}}}
}

func revokedOf(name string) *basev1.Event {
	return &basev1.Event{Event: &basev1.Event_AppRevoked{AppRevoked: &basev1.AppRevokedEvent{App: &basev1.App{Id: name, Name: name}}}}
}

// kind makes events of a kind that have nothing in them.
func kind(field protoreflect.FieldDescriptor) *basev1.Event {
	event := &basev1.Event{}
	m := event.ProtoReflect()
	m.Set(field, m.NewField(field))
	return event
}

func kinds() protoreflect.FieldDescriptors {
	return (&basev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
}

func TestEachPolicyIsOfAKind(t *testing.T) {
	for name := range policies {
		if kinds().ByName(protoreflect.Name(name)) == nil {
			t.Errorf("there is no kind %s", name)
		}
	}
	// An empty event must not crash the Middleware.
	for i := range kinds().Len() {
		field := kinds().Get(i)
		of := policies[string(field.Name())]
		_ = of.subjectOf(kind(field))
		if of.merge != nil {
			of.merge(kind(field), kind(field))
		}
		shrink(kind(field))
	}
}

// A hundred events of each kind come at once. Each one is in a stream that is read at once, or a
// later event says that it was left out, or includes it in its lists. Long lists are cut before they
// wait and after they are merged. The broken variant says nothing of what is missing.
func TestEachEventArrivesOrTheStreamSaysHowManyAreMissing(t *testing.T) {
	const events = 100
	// accounted is for how many events, or entries of their lists, a reported one stands.
	accounted := func(e *basev1.Event, silent bool) int {
		missing := int(e.GetLeftOut() + e.GetCut())
		if silent {
			missing = 0
		}
		switch {
		case e.GetBansChanged() != nil:
			return len(e.GetBansChanged().GetBanned()) + len(e.GetBansChanged().GetLifted()) + missing
		case e.GetDriftFound() != nil:
			return len(e.GetDriftFound().GetFindings()) + missing
		case e.GetPairingAttempt() != nil:
			return int(e.GetPairingAttempt().GetRequests())
		case e.GetEventsMissed() != nil:
			return int(e.GetEventsMissed().GetCount())
		case e.GetNodeEventsMissed() != nil:
			return int(e.GetNodeEventsMissed().GetCount())
		}
		return 1 + missing
	}
	told := func(field protoreflect.FieldDescriptor, entries int, silent bool) (sum int) {
		synctest.Test(t, func(t *testing.T) {
			h := eventsIn(t)
			s, err := h.Subscribe(false, 0)
			if err != nil {
				t.Fatal(err)
			}
			var reading sync.WaitGroup
			reading.Go(func() {
				for e := range s.Events {
					sum += accounted(e, silent)
				}
			})
			for n := range events {
				event := kind(field)
				if event.GetPairingAttempt() != nil {
					event.GetPairingAttempt().Requests = 1
				}
				if event.GetEventsMissed() != nil {
					event.GetEventsMissed().Count = proto.Uint64(1)
				}
				if event.GetNodeEventsMissed() != nil {
					event.GetNodeEventsMissed().Count = proto.Uint64(1)
				}
				for i := range entries {
					ban := &basev1.Ban{Jail: "sshd", Address: fmt.Sprintf("2001:db8:%x:%x::", n, i)}
					switch bans, drift := event.GetBansChanged(), event.GetDriftFound(); {
					case bans != nil && i%2 == 0:
						bans.Banned = append(bans.Banned, ban)
					case bans != nil:
						bans.Lifted = append(bans.Lifted, ban)
					case drift != nil:
						drift.Findings = append(drift.Findings, &basev1.Finding{Id: fmt.Sprintf("listener-unexpected-%d-%d", n, i)})
					}
				}
				h.Publish(event)
				synctest.Wait()
			}
			time.Sleep(time.Hour) // what waits is told
			h.Close()
			synctest.Wait()
			h.mu.Lock()
			delete(h.subscribers, s)
			close(s.Events)
			h.mu.Unlock()
			reading.Wait()
		})
		return sum
	}
	for i := range kinds().Len() {
		field := kinds().Get(i)
		lengths := []int{1}
		if m := kind(field); m.GetBansChanged() != nil || m.GetDriftFound() != nil {
			lengths = []int{1, 100} // the longer one does not fit into one event
		}
		for _, entries := range lengths {
			if sum := told(field, entries, false); sum != events*entries {
				t.Errorf("%s: the stream accounts for %d of %d", field.Name(), sum, events*entries)
			}
		}
	}
	if told(kinds().ByName("apply_failed"), 1, true) == events || told(kinds().ByName("bans_changed"), 100, true) == 100*events {
		t.Error("without the number of those left out it should account for fewer; this test proves nothing")
	}
}

// A subscriber gets each event once, in order, whenever it begins.
func TestBetweenPastAndPresentNothingIsLostOrComesTwice(t *testing.T) {
	h := eventsIn(t)
	const events, watchers = 150, 8
	var running sync.WaitGroup
	running.Go(func() {
		for n := range events {
			// There are many kinds, so none has to wait.
			kind := []func(string) *basev1.Event{banOf, revokedOf}[n%2]
			h.mu.Lock()
			clear(h.paces)
			h.mu.Unlock()
			h.Publish(kind(fmt.Sprint(n)))
		}
	})
	for range watchers {
		running.Go(func() {
			s, err := h.Subscribe(true, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			want := uint64(1)
			got := func(e *basev1.Event) {
				if e.GetSequence() != want {
					t.Errorf("event %d came, %d was due", e.GetSequence(), want)
				}
				want = e.GetSequence() + 1
			}
			for _, e := range s.Past {
				got(e)
			}
			if s.Last != want-1 || s.Gap {
				t.Errorf("the past ends with %d, and the last is said to be %d; gap: %v", want-1, s.Last, s.Gap)
			}
			for want <= events {
				e, open := <-s.Events
				if !open {
					// It fell behind, and asks for what it missed.
					if s, err = h.Subscribe(true, want-1); err != nil {
						t.Error(err)
						return
					}
					for _, e := range s.Past {
						got(e)
					}
					continue
				}
				got(e)
			}
		})
	}
	running.Wait()
}

// The attack: a stranger with many addresses gets banned again and again. The broken variant has
// one quota for all kinds.
func TestOneKindOfEventDoesNotDisplaceAnother(t *testing.T) {
	for name, oneQuota := range map[string]bool{"a quota for each kind": false, "one quota for all": true} {
		h := eventsIn(t)
		if oneQuota {
			h.history.kindOf = func(*basev1.Event) string { return "" }
		}
		if err := add(h, revokedOf("Laptop")); err != nil {
			t.Fatal(err)
		}
		for n := range 2 * keptOfAKind {
			if err := add(h, banOf(fmt.Sprintf("2001:db8::%x", n))); err != nil {
				t.Fatal(err)
			}
		}
		kept, gap := h.history.since(0)
		there := slices.ContainsFunc(kept, func(e *basev1.Event) bool { return e.GetAppRevoked() != nil })
		if there == oneQuota || !gap || len(kept) > keptOfAKind+1 {
			t.Errorf("%s: the revoked App is there: %v; gap: %v; %d events", name, there, gap, len(kept))
		}
		last := h.history.last
		if _, gap := h.history.since(last - keptOfAKind); gap {
			t.Errorf("%s: there is a gap for an App that has seen all forgotten events", name)
		}
	}
}

// The attack: a thousand bans an hour, for a day.
func TestAFloodOfEventsIsMergedAndDoesNotWearOutTheDisk(t *testing.T) {
	flood := func(t *testing.T, paced bool) (writes int, told map[string]bool) {
		t.Helper()
		told = map[string]bool{}
		synctest.Test(t, func(t *testing.T) {
			h := eventsIn(t)
			s, err := h.Subscribe(false, 0)
			if err != nil {
				t.Fatal(err)
			}
			drain := func() {
				for len(s.Events) > 0 {
					e := <-s.Events
					writes++
					for _, ban := range e.GetBansChanged().GetBanned() {
						told[ban.GetAddress()] = true
					}
				}
			}
			for n := range 500 {
				if !paced {
					clear(h.paces)
				}
				h.Publish(banOf(fmt.Sprintf("192.0.2.%d", n%250)))
				drain()
				time.Sleep(4 * time.Second)
				synctest.Wait()
				drain()
			}
			h.Close() // what waits is not lost
			drain()
		})
		return writes, told
	}
	writes, told := flood(t, true)
	if most := eventPlaces + int(500*4*time.Second/eventPlaceBack) + 2; writes > most {
		t.Errorf("%d events were written, more than %d", writes, most)
	}
	if len(told) < eventPlaces {
		t.Errorf("%d addresses were told", len(told))
	}
	if writes, _ := flood(t, false); writes != 500 {
		t.Errorf("without a pace %d events are written; this attack proves nothing", writes)
	}
}

func TestAnEventThatIsTooLongIsCut(t *testing.T) {
	long := banOf("192.0.2.1")
	for n := range 500 {
		long.GetBansChanged().Banned = append(long.GetBansChanged().Banned, &basev1.Ban{Address: fmt.Sprintf("2001:db8::%x", n)})
	}
	drift := &basev1.Event{Event: &basev1.Event_DriftFound{DriftFound: &basev1.DriftFoundEvent{}}}
	for range 40 {
		drift.GetDriftFound().Findings = append(drift.GetDriftFound().Findings,
			&basev1.Finding{Id: "x", Title: strings.Repeat("t", 100), Found: strings.Repeat("f", 5000)})
	}
	for _, event := range []*basev1.Event{long, drift} {
		if shrink(event); proto.Size(event) > maxKept || proto.Size(event) < maxKept/2 {
			t.Errorf("%s has %d bytes", KindOf(event), proto.Size(event))
		}
	}
}

const eventsRole = "BITBOX_MIDDLEWARE_EVENTS"

// TestMain runs the program that TestKillAtEveryWriteLosesNoEventThatWasTold kills.
func TestMain(m *testing.M) {
	if os.Getenv(eventsRole) == "" {
		os.Exit(leaktest.Run(m))
	}
	db, h, err := openEvents(os.Args[1])
	if err == nil {
		var s *Subscription
		if s, err = h.Subscribe(false, 0); err == nil {
			for n := range 4 {
				h.Publish(revokedOf(fmt.Sprint(n)))
				fmt.Println((<-s.Events).GetSequence())
			}
			err = db.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestKillAtEveryWriteLosesNoEventThatWasTold(t *testing.T) {
	path := ""
	command := func(int) *exec.Cmd {
		dir := t.TempDir()
		path = filepath.Join(dir, "events.db")
		output := must(os.Create(filepath.Join(dir, "output")))
		t.Cleanup(func() { _ = output.Close() })
		c := exec.Command(os.Args[0], path)
		c.Env = append(os.Environ(), eventsRole+"=yes", "GOMAXPROCS=1")
		c.Stdout, c.Stderr = output, os.Stderr
		return c
	}
	kills := killtest.AtEachWrite(t, command, func(n int) {
		told := strings.Count(string(must(os.ReadFile(filepath.Join(filepath.Dir(path), "output")))), "\n")
		db, h, err := openEvents(path)
		if err != nil {
			t.Fatalf("killed at write %d: %v", n, err)
		}
		defer db.Close()
		events, gap := h.history.since(0)
		if len(events) < told || len(events) > told+1 || gap {
			t.Fatalf("killed at write %d, having told %d: there are %d; gap: %v", n, told, len(events), gap)
		}
	})
	if kills < 8 {
		t.Errorf("%d kills prove nothing", kills)
	}
}

// heardAuthority hears requests, and nothing else.
type heardAuthority struct{ admission.Authority }

func (heardAuthority) Hear(context.Context, []byte, netip.Addr) (bool, pairing.CeremonyID, [32]byte, error) {
	return false, pairing.CeremonyID{}, [32]byte{}, nil
}

// The attack: a stranger asks to be paired, without end. The broken variant reports each request.
func TestOneEventStandsForAllPairingRequestsOfTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventsIn(t)
		s, err := h.Subscribe(false, 0)
		if err != nil {
			t.Fatal(err)
		}
		attempts := h.Attempts(heardAuthority{})
		ask := func(n int) {
			if _, _, _, err := attempts.Hear(t.Context(), []byte(fmt.Sprint(n)), netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
		told := func() (all []*basev1.PairingAttemptEvent) {
			synctest.Wait()
			for len(s.Events) > 0 {
				all = append(all, (<-s.Events).GetPairingAttempt())
			}
			return all
		}
		attempts.Listening(true)
		ask(-1)
		ask(-1) // an App repeats its request
		if got := told(); len(got) != 1 || got[0].GetRequests() != 1 || got[0].GetIgnored() {
			t.Errorf("the first: %v", got)
		}
		attempts.Listening(false)
		for n := range 3630 {
			ask(n)
			time.Sleep(time.Second)
		}
		got := told()
		sum := uint32(0)
		for _, e := range got {
			sum += e.GetRequests()
			if !e.GetIgnored() {
				t.Errorf("somebody is said to have listened: %v", e)
			}
		}
		time.Sleep(2 * attemptInterval)
		rest := told()
		if len(got) != 6 || len(rest) != 1 || sum+rest[0].GetRequests() != 3630 {
			t.Errorf("%d events of %d requests, and then %v", len(got), sum, rest)
		}
		time.Sleep(2 * attemptInterval)
		ask(0)
		if got := told(); len(got) != 1 || got[0].GetRequests() != 1 {
			t.Errorf("after a while the next is told at once: %v", got)
		}
		time.Sleep(2 * attemptInterval) // no timer outlives the test
	})
}

func TestWithoutAnIntervalEachRequestWouldBeAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventsIn(t)
		attempts := h.Attempts(heardAuthority{})
		attempts.interval = 0
		const requests = 50
		for n := range requests {
			h.mu.Lock()
			clear(h.paces)
			h.mu.Unlock()
			if _, _, _, err := attempts.Hear(t.Context(), []byte(fmt.Sprint(n)), netip.Addr{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if events, _ := h.history.since(0); len(events) != requests {
			t.Errorf("%d events of %d requests; the attack on the interval proves nothing", len(events), requests)
		}
	})
}

// The attack: a stranger with many IPv6 networks has all of them banned. When the helper restarts
// it reports them in one event, which fits into one of its messages.
func TestAnEventWithThousandsOfBansIsCutAtOnce(t *testing.T) {
	many := banOf("192.0.2.1")
	for n := 0; proto.Size(many) < ipc.MaxMessageSize-100; n += 100 {
		for i := range 100 {
			many.GetBansChanged().Banned = append(many.GetBansChanged().Banned,
				&basev1.Ban{Jail: "bitbox-base-handshake", Address: fmt.Sprintf("2001:db8:%x:%x::1", (n+i)/65536, (n+i)%65536)})
		}
	}
	many.GetBansChanged().Lifted = slices.Clone(many.GetBansChanged().Banned)
	// The time of one measurement of the whole list is the reference; one per ban would be
	// thousands.
	began := time.Now()
	for range 10 {
		if proto.Size(many) < ipc.MaxMessageSize {
			t.Fatal("it is short")
		}
	}
	look := time.Since(began) / 10
	began = time.Now()
	shrink(many)
	if took := time.Since(began); took > 500*look {
		t.Errorf("it took %v, and a look at it takes %v", took, look)
	}
	if size := proto.Size(many); size > maxKept || size < maxKept/2 {
		t.Errorf("%d bytes are left", size)
	}
}

// There are too many to wait: even the dropped ones are counted.
func TestDroppedEventsAreCounted(t *testing.T) {
	h := eventsIn(t)
	const services = 500
	for n := range services {
		h.Publish(&basev1.Event{Event: &basev1.Event_ServiceFailed{
			ServiceFailed: &basev1.ServiceFailedEvent{Service: &basev1.Service{Name: fmt.Sprint("service-", n)}}}})
	}
	h.Close()
	sum := 0
	past, _ := h.history.since(0)
	for _, e := range past {
		sum += 1 + int(e.GetLeftOut())
	}
	if sum != services {
		t.Errorf("%d events account for %d of %d", len(past), sum, services)
	}
}

// All services that a Base may have fail at once, as when memory runs out.
func TestNoEventAboutAServiceIsDroppedHoweverManyFail(t *testing.T) {
	h := eventsIn(t)
	const services = 42
	for n := range services {
		h.Publish(&basev1.Event{Event: &basev1.Event_ServiceFailed{
			ServiceFailed: &basev1.ServiceFailedEvent{Service: &basev1.Service{Name: fmt.Sprint("service-", n)}}}})
	}
	h.Close()
	if past, gap := h.history.since(0); len(past) != services || gap {
		t.Errorf("%d of %d events are kept, and that some are missing is told: %v", len(past), services, gap)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

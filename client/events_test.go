//go:build linux

package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
)

// collected is what an App hears, until it has enough.
func collected(ctx context.Context, s *Session, watch Watch, enough func(*basev1.Event) bool) ([]*basev1.Event, error) {
	var events []*basev1.Event
	for event, err := range s.WatchEvents(ctx, watch) {
		if err != nil {
			return events, err
		}
		events = append(events, event)
		if enough(event) {
			break
		}
	}
	return events, nil
}

func TestAReturningAppHearsOfBanDriftAndPairingAttempt(t *testing.T) {
	h := newHouse(t)
	seen := uint64(0)
	if _, err := collected(t.Context(), h.session, Watch{Replay: true, PastOnly: true}, func(e *basev1.Event) bool {
		seen = max(seen, e.GetSequence())
		return false
	}); err != nil {
		t.Fatal(err)
	}
	h.session.Close()
	_, other := h.pair("Phone", basev1.Role_ROLE_OPERATOR)
	h.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	if _, err := other.Bans(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Machine.Drift(&basev1.Finding{Id: "open-port", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "A port is open"})
	h.Advance(time.Minute)
	if _, err := other.Audit.RunAudit(t.Context(), &basev1.RunAuditRequest{}); err != nil {
		t.Fatal(err)
	}
	back := open(t, h.owner)
	missing := map[string]func(*basev1.Event) bool{
		"the App that was paired": func(e *basev1.Event) bool { return e.GetAppPaired().GetApp().GetName() == "Phone" },
		"the ban": func(e *basev1.Event) bool {
			return len(e.GetBansChanged().GetBanned()) == 1 && e.GetBansChanged().GetBanned()[0].GetAddress() == "192.0.2.7"
		},
		"the drift": func(e *basev1.Event) bool {
			return len(e.GetDriftFound().GetFindings()) == 1 && e.GetDriftFound().GetFindings()[0].GetId() == "open-port"
		},
	}
	for deadline := time.Now().Add(time.Minute); len(missing) > 0; { // the Middleware hears it from the helper
		events, err := collected(t.Context(), back, Watch{Replay: true, After: seen, PastOnly: true}, func(*basev1.Event) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.GetSequence() != 0 && e.GetSequence() <= seen {
				t.Errorf("what was seen comes again: %v", e)
			}
			for name, is := range missing {
				if is(e) {
					delete(missing, name)
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not told: %v", missing)
		}
	}
	// The first request came from the owner's own App, before it was away.
	events, err := collected(t.Context(), back, Watch{Replay: true, PastOnly: true}, func(*basev1.Event) bool { return false })
	if err != nil || !slices.ContainsFunc(events, func(e *basev1.Event) bool { return e.GetPairingAttempt().GetRequests() == 1 }) {
		t.Errorf("the pairing attempt is not told: %v", err)
	}
}

// cutAgainAndAgain cuts the connection three times while events come, and returns the addresses
// reported as banned, in order, with the sequences.
func cutAgainAndAgain(t *testing.T, h *house, watch Watch, last int) (addresses []string, sequences []uint64, lost int) {
	t.Helper()
	next := 0
	ban := func() {
		next++
		h.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", next)), Since: time.Now(),
			Until: time.Now().Add(time.Hour)})
		if _, err := open(t, h.owner).Bans(t.Context()); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	watch.Lost = func(error) {
		lost++
		h.Open()
		ban() // while nobody is connected
	}
	live := 0
	for event, err := range h.session.WatchEvents(ctx, watch) {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetSequence() != 0 {
			sequences = append(sequences, event.GetSequence())
		}
		for _, b := range event.GetBansChanged().GetBanned() {
			addresses = append(addresses, b.GetAddress())
		}
		if event.GetSubscribed() != nil {
			if live++; live <= 3 {
				ban()
				h.Shut()
			} else {
				for next < last {
					ban()
				}
			}
		}
		if len(addresses) > 0 && addresses[len(addresses)-1] == fmt.Sprintf("192.0.2.%d", last) {
			break
		}
	}
	return addresses, sequences, lost
}

func TestACutStreamGoesOnWithoutLossOrRepetition(t *testing.T) {
	const last = 12
	addresses, sequences, lost := cutAgainAndAgain(t, newHouse(t), Watch{}, last)
	var want []string
	for n := range last {
		want = append(want, fmt.Sprintf("192.0.2.%d", n+1))
	}
	if !slices.Equal(addresses, want) || lost != 3 {
		t.Errorf("after %d cuts these were told: %q", lost, addresses)
	}
	for i := 1; i < len(sequences); i++ {
		if sequences[i] != sequences[i-1]+1 {
			t.Errorf("the sequences are %v", sequences)
			break
		}
	}
	if addresses, _, _ := cutAgainAndAgain(t, newHouse(t), Watch{forgetful: true}, last); slices.Equal(addresses, want) {
		t.Error("a client that does not say what it has seen loses nothing, so these cuts prove nothing")
	}
}

func TestARevokedAppsStreamEndsWithTheReason(t *testing.T) {
	h := newHouse(t)
	_, phone := h.pair("Phone", basev1.Role_ROLE_OPERATOR)
	id := ""
	for _, app := range must(h.session.Apps.ListApps(t.Context(), &basev1.ListAppsRequest{})).GetApps() {
		if app.GetName() == "Phone" {
			id = app.GetId()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := collected(ctx, phone, Watch{}, func(e *basev1.Event) bool {
		if e.GetSubscribed() != nil {
			if _, err := h.session.Apps.RevokeApp(ctx, &basev1.RevokeAppRequest{Id: id}); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	wantKind(t, err, ErrRevoked)
}

func TestAnUnreachableBaseIsAnErrorAtOnce(t *testing.T) {
	h := newHouse(t)
	h.session.Close()
	h.Shut()
	_, err := collected(t.Context(), open(t, h.owner), Watch{}, func(*basev1.Event) bool { return true })
	if err == nil {
		t.Error("no error")
	}
}

func TestShownEventsAreRememberedAndANewHistoryIsNoticed(t *testing.T) {
	h := newHouse(t)
	if seen, err := h.session.EventsSeen(); err != nil || seen != 0 {
		t.Errorf("%d, %v", seen, err)
	}
	if err := h.session.SawEvents(99); err != nil {
		t.Fatal(err)
	}
	if seen, err := h.session.EventsSeen(); err != nil || seen != 99 {
		t.Errorf("%d, %v", seen, err)
	}
	// The Base does not have that many.
	lost := errors.New("not told")
	events, err := collected(t.Context(), h.session, Watch{Replay: true, After: 99, PastOnly: true, Lost: func(err error) { lost = err }},
		func(*basev1.Event) bool { return false })
	if err != nil || len(events) < 2 || events[0].GetSequence() != 1 || !strings.Contains(lost.Error(), "started over") {
		t.Errorf("%v, %v, %v", events, err, lost)
	}
}

//go:build linux

package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
)

// changed is the content of the log, in words.
func changed(t *testing.T, s *Session) []string {
	t.Helper()
	view, err := s.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range view.Entries {
		text := strings.ToLower(strings.TrimPrefix(e.GetActor().String(), "ACTOR_")) + " " + e.GetAppName() + ": " + e.GetWhat() + " " +
			e.GetDetail()
		if e.GetFailure() != "" {
			text += " FAILED"
		}
		all = append(all, text)
	}
	return all
}

func TestTheLogNamesTheOwnerAndTheResultOfEachChange(t *testing.T) {
	h := newHouse(t)
	_, phone := h.pair("Phone", basev1.Role_ROLE_OPERATOR)
	before := len(changed(t, h.session))
	if _, err := h.session.Apply(t.Context(), expose); err != nil {
		t.Fatal(err)
	}
	h.Machine.Break(errors.New("it does not work"))
	shared := Expose("electrum", Opening{For: time.Hour, ShareEntry: true})
	if _, err := h.session.Apply(t.Context(), Change{Edit: shared, Approve: approve}); err == nil {
		t.Fatal("it was applied")
	}
	h.Machine.Break(nil)
	if _, err := h.session.LiftBan(t.Context(), "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.session.Pairing.CloseWindow(t.Context(), &basev1.CloseWindowRequest{}); err != nil {
		t.Fatal(err)
	}
	got := changed(t, phone)[before:]
	want := []string{
		"owner Laptop: posture revision 3, on trial: The Electrum API will be reachable for 1 day on port 50002.",
		"owner Laptop: posture-confirm revision 3",
		"base : posture-undone revision 4: it could not be applied",
		"owner Laptop: posture revision 4, on trial: The Electrum API will be reachable for 1 hour on port 8845, beside the encrypted channel. The Electrum API will be closed on port 50002, and its connections ended. FAILED",
		"owner Laptop: lift-ban 192.0.2.1, which was not banned", "app Laptop: close-window ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log has\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheEndOfAnUpdateIsRecordedAndToldOnce(t *testing.T) {
	h := newHouse(t)
	if err := h.session.Install(t.Context(), aRelease(t, "2.0"), nil); err != nil {
		t.Fatal(Explain(err))
	}
	count := func() (logged, told int) {
		for _, text := range changed(t, h.session) {
			if strings.Contains(text, ": update-ended 1.0 to 2.0, update ") {
				logged++
			}
		}
		for event, err := range h.session.WatchEvents(t.Context(), Watch{Replay: true, PastOnly: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.GetUpdateEnded().GetToVersion() == "2.0" && event.GetUpdateEnded().GetInstalled() {
				told++
			}
		}
		return logged, told
	}
	for deadline, again := time.Now().Add(patience), false; ; time.Sleep(100 * time.Millisecond) {
		logged, told := count()
		if logged > 1 || told > 1 || time.Now().After(deadline) {
			t.Fatalf("recorded %d times, told %d times", logged, told)
		}
		if logged == 1 && told == 1 && again {
			break
		}
		again = logged == 1 && told == 1 && h.middleware.count("WatchUpdate") > 3 // it asked once more
	}
}

// trusting takes what it should verify with from the answer itself, like a client that verifies
// only the signature and the chain.
func trusting(_ changelog.Expectation, first, last *systemv1.ChangesHead, entries [][]byte) (*ChangeLog, error) {
	if n := uint64(len(entries)) + changelog.Before(first); n < last.GetLastNumber() { // it does not notice what was held back
		last = proto.CloneOf(last)
		last.LastNumber = n
		if n == 0 {
			return &ChangeLog{}, nil
		}
		hash := posture.HashOf("bitbox-base change v1", entries[len(entries)-1])
		last.LastHash = hash[:]
	}
	return changelog.Verify(changelog.Expectation{Base: posture.SigningKey(last.GetBaseId()), Nonce: last.GetNonce()}, first, last, entries)
}

func TestAMiddlewareThatLiesAboutTheLogIsNoticed(t *testing.T) {
	type act = func(*systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port)
	h := newHouse(t)
	helper := func(from *appliancetest.Helper) *appliancetest.Helper {
		other := must(appliancetest.StartHelper(from))
		t.Cleanup(func() {
			if err := other.Stop(); err != nil {
				t.Errorf("stop a helper: %v", err)
			}
		})
		return other
	}
	ask := func(of *appliancetest.Helper, request *systemv1.SystemRequest) *systemv1.SystemReply {
		return must(helperclient.Client{Port: of.Port(caller.Middleware)}.Do(t.Context(), request, nil))
	}
	list := func(nonce []byte) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListChanges{ListChanges: &systemv1.ListChanges{Nonce: nonce}}}
	}
	record := func(of *appliancetest.Helper, what string) {
		ask(of, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RecordChange{RecordChange: &systemv1.RecordChange{
			What: changelog.RenameApp, Detail: what}}})
	}
	old := ask(h.Helper, list(make([]byte, nonceSize)))
	// The old disk is put back. The copy goes on as far as the real one, but with other entries.
	rolledBack, rewritten := helper(h.Helper), helper(h.Helper)
	record(h.Helper, "what somebody wants to hide")
	record(h.Helper, "the last")
	record(rewritten, "nothing")
	record(rewritten, "the last")
	at := func(other *appliancetest.Helper) act {
		return func(*systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			return nil, other.Port(caller.Middleware)
		}
	}
	change := func(change func(*systemv1.ChangesResult)) act {
		return func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			if request.GetListChanges() == nil || request.GetListChanges().GetAfter() > 0 {
				return nil, nil
			}
			reply := ask(h.Helper, proto.CloneOf(request))
			change(reply.GetChanges())
			return reply, nil
		}
	}
	// hold holds back the newest n entries, however often they are asked for.
	hold := func(n int) act {
		return func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			if request.GetListChanges() == nil {
				return nil, nil
			}
			reply := ask(h.Helper, proto.CloneOf(request))
			r := reply.GetChanges()
			r.Entries = r.Entries[:max(len(r.Entries)-n, 0)]
			return reply, nil
		}
	}
	if _, err := h.session.Changes(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, seen, err := h.owner.store.changesSeen(h.session.transport.id)
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]struct {
		act act
		// chained says whether the attack fools even a client that verifies the signature and the
		// chain.
		chained bool
	}{
		"an old answer":            {act: func(*systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) { return old, nil }},
		"an older disk":            {act: at(rolledBack)},
		"a rewritten log":          {act: at(rewritten)},
		"the newest held back":     {act: hold(1)},
		"everything held back":     {act: hold(1000)},
		"another Base":             {act: at(helper(nil)), chained: true},
		"one taken out":            {act: change(func(r *systemv1.ChangesResult) { r.Entries = slices.Delete(r.Entries, 1, 2) }), chained: true},
		"another name":             {act: change(func(r *systemv1.ChangesResult) { r.Entries[2] = rename(r.Entries[2]) }), chained: true},
		"a head that is not whole": {act: change(func(r *systemv1.ChangesResult) { r.Head = r.Head[:len(r.Head)-1] }), chained: true},
		"one put in at the end":    {act: change(func(r *systemv1.ChangesResult) { r.Entries = append(r.Entries, r.Entries[0]) }), chained: true},
	} {
		t.Run(name, func(t *testing.T) {
			h.middleware.does(lie.act)
			defer h.middleware.does(nil)
			_, err := h.session.Changes(t.Context())
			wantKind(t, err, ErrLyingBase)

			h.session.verifyChanges = trusting
			defer func() { h.session.verifyChanges = changelog.Verify }()
			_, err = h.session.Changes(t.Context())
			if (err != nil) != lie.chained {
				t.Errorf("a client that trusts any signer: %v", err)
			}
			// It has stored the lie, too.
			if err := h.owner.store.change(h.session.transport.id, "mend the test", func(r *stored) { r.Changes = seen }); err != nil {
				t.Fatal(err)
			}
		})
	}
	// The truth is still believed, and the lies were not stored.
	if _, err := h.session.Changes(t.Context()); err != nil {
		t.Error(err)
	}
}

// rename changes the name in an entry.
func rename(b []byte) []byte {
	e := &systemv1.ChangeEntry{}
	if err := proto.Unmarshal(b, e); err != nil {
		panic(err)
	}
	e.AppName = "Somebody"
	return must(proto.Marshal(e))
}

func TestAResetBaseIsReportedAsReset(t *testing.T) {
	h := newHouse(t)
	if _, err := h.session.Changes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.owner.store.change(h.session.transport.id, "be an App from before the reset",
		func(r *stored) { r.Changes.Epoch[0] ^= 1 }); err != nil {
		t.Fatal(err)
	}
	_, err := h.session.Changes(t.Context())
	if wantKind(t, err, ErrLyingBase); !errors.Is(err, changelog.ErrNewEpoch) || !strings.Contains(Explain(err), "factory reset") {
		t.Errorf("%v", err)
	}
}

func TestALogOfManyStretchesIsReadWhole(t *testing.T) {
	h := newHouse(t)
	const more = 2*changelog.MaxStretch + 7
	console := helperclient.Client{Port: h.Port(caller.Console)}.Authority()
	for range more {
		if err := console.CloseWindow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	view, err := h.session.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(view.Entries); n < more || view.Entries[n-1].GetNumber() != view.Last || h.middleware.count("ListChanges") != 3 {
		t.Errorf("%d entries in %d stretches: %s", n, h.middleware.count("ListChanges"), fmt.Sprint(view.Last))
	}
}

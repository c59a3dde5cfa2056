package system

import (
	"errors"
	"strings"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// The table of permissions, written down a second time.
func TestUpdatesAreBroughtByTheMiddlewareAndJudgedByRoot(t *testing.T) {
	bring, look, judge := []caller.Who{caller.Middleware, caller.Root},
		[]caller.Who{caller.Middleware, caller.Console, caller.Root}, []caller.Who{caller.Root}
	for _, c := range []struct {
		request *systemv1.SystemRequest
		may     []caller.Who
	}{
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginUpdate{}}, bring},
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_UpdatePiece{}}, bring},
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishUpdate{}}, bring},
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_AbortUpdate{}}, bring},
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchUpdate{}}, bring},
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetUpdate{}}, look},
		{&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetHealth{}}, judge},
	} {
		for _, who := range []caller.Who{0, caller.Middleware, caller.Console, caller.Root} {
			want := false
			for _, may := range c.may {
				want = want || may == who
			}
			if got := verbs[helperclient.Kind(c.request)].May.Has(who); got != want {
				t.Errorf("%v may ask for %T: %v, want %v", who, c.request.GetVerb(), got, want)
			}
		}
	}
}

func (b *base) health() *systemv1.Health {
	b.t.Helper()
	reply, err := b.as(caller.Root).Do(b.t.Context(),
		&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetHealth{GetHealth: &systemv1.GetHealth{}}}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply.GetHealth()
}

// The end of an update repeats to the owner what the helper's health says.
func TestHealthSaysInOurOwnWordsWhatIsNotInForce(t *testing.T) {
	b := newBase(t)
	b.start()
	b.pair(b.as(caller.Middleware), "phone", owner).mustSubmit(open)
	b.settled()
	b.world.Fail("reload "+generation.ProxyUnit, errors.New("nginx: exit status 1"))
	if err := b.restrict(caller.Console, lockdown()); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotYet}) {
		t.Fatal(err)
	}
	text := b.health().GetNotApplied()
	if !strings.Contains(text, "it failed; the Base's log says why") || strings.Contains(text, "exit status") {
		t.Errorf("it says %q", text)
	}
}

// A new version must not be judged healthy while its Middleware does not serve Apps.
func TestHealthTellsWhetherTheMiddlewareIsThere(t *testing.T) {
	b := newBase(t)
	b.start()
	b.settled()
	health := b.health
	watch := &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}}
	if h := health(); h.GetMiddleware() || h.GetApplying() || h.GetNotApplied() != "" {
		t.Errorf("without a Middleware: %v", h)
	}
	for who, want := range map[caller.Who]bool{caller.Console: false, caller.Middleware: true} {
		_ = b.as(who).Each(t.Context(), watch, func(*systemv1.SystemReply) error {
			if h := health(); h.GetMiddleware() != want {
				t.Errorf("while %v watches: %v", who, h)
			}
			return errPlayed
		})
		until(t, "who has hung up is forgotten", func() error {
			if health().GetMiddleware() {
				return errPlayed
			}
			return nil
		})
	}
}

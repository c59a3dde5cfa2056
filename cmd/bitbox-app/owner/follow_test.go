package owner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// fakeSource is a house whose Bases behave as the test says.
type fakeSource struct {
	look  func() (Look, error)
	watch func(ctx context.Context, after uint64, tell func(*basev1.Event)) error
	pair  func(ctx context.Context, o client.PairOptions) (client.Base, error)
	do    func(ctx context.Context, deed Deed, hand Hand) (words.Said, error)
	found []client.Nearby
	logs  func(ctx context.Context, service string, tell func(*basev1.LogEntry)) error

	mu    sync.Mutex
	opens int
	asks  int
}

func (f *fakeSource) Bases() ([]client.Base, error) {
	return []client.Base{{Name: "kitchen", State: client.Active}}, nil
}

func (f *fakeSource) Browse(ctx context.Context) (<-chan client.Nearby, error) {
	found := make(chan client.Nearby)
	go func() {
		defer close(found)
		for _, n := range f.found {
			select {
			case found <- n:
			case <-ctx.Done():
			}
		}
		<-ctx.Done()
	}()
	return found, nil
}

func (f *fakeSource) Forget(string) error { return nil }

func (f *fakeSource) Pair(ctx context.Context, _ []string, o client.PairOptions) (client.Base, error) {
	return f.pair(ctx, o)
}

func (f *fakeSource) Open(string) (Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens++
	return f, nil
}

func (f *fakeSource) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens--
}

// locked changes a Base, so that its other goroutines see all of the change or nothing.
func (f *fakeSource) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeSource) Health(context.Context) (*basev1.GetInfoResponse, error) {
	look, err := f.look()
	return look.Info, err
}
func (f *fakeSource) Look(context.Context) (Look, error) { return f.look() }
func (f *fakeSource) Audit(context.Context) ([]*basev1.Finding, bool, error) {
	return nil, false, nil
}

func (f *fakeSource) Watch(ctx context.Context, after uint64, tell func(*basev1.Event), _ func(error)) error {
	watch := func(ctx context.Context, _ uint64, _ func(*basev1.Event)) error {
		<-ctx.Done()
		return ctx.Err()
	}
	f.locked(func() {
		if f.watch != nil {
			watch = f.watch
		}
	})
	return watch(ctx, after, tell)
}

func (f *fakeSource) Do(ctx context.Context, deed Deed, hand Hand) (words.Said, error) {
	return f.do(ctx, deed, hand)
}

func (f *fakeSource) Follow(ctx context.Context, service string, tell func(*basev1.LogEntry)) error {
	if f.logs != nil {
		return f.logs(ctx, service, tell)
	}
	return errors.New("this Base's logs cannot be followed")
}

func (f *fakeSource) Ask(context.Context, Want) (Answered, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asks++
	return Answered{Lines: []*basev1.LogEntry{{Text: fmt.Sprint(f.asks)}}}, nil
}

// desk follows, and remembers the news.
type desk struct {
	*Follower
	ctx    context.Context
	cancel context.CancelFunc
	ran    sync.WaitGroup
	mu     sync.Mutex
	told   []any
}

func newDesk(source *fakeSource) *desk {
	d := &desk{}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.Follower = NewFollower(source, 20*time.Second, func(news any) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.told = append(d.told, news)
	})
	return d
}

func (d *desk) follow() {
	d.Follow(d.ctx, []client.Base{{Name: "kitchen"}}, func(do func()) { d.ran.Go(do) })
}

func (d *desk) leave() {
	d.cancel()
	d.ran.Wait()
}

func hears[T any](d *desk) (list []T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, news := range d.told {
		if n, ok := news.(T); ok {
			list = append(list, n)
		}
	}
	return list
}

func TestASilentBaseIsAskedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var asked []time.Duration
		down := true
		source := &fakeSource{}
		source.look = func() (Look, error) {
			source.mu.Lock()
			defer source.mu.Unlock()
			asked = append(asked, time.Since(begun))
			if down {
				return Look{}, &client.Error{Kind: client.ErrUnreachable, Text: "it is off"}
			}
			return Look{Info: &basev1.GetInfoResponse{}}, nil
		}
		d := newDesk(source)
		d.follow()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		seconds := []time.Duration{0, 2, 6, 14, 30, 62, 122, 182, 242}
		for n, want := range seconds {
			if n >= len(asked) || asked[n] != want*time.Second {
				t.Fatalf("it was asked after %v", asked)
			}
		}
		if lost := hears[Silence](d); len(lost) != len(asked) || lost[0].Again != 2*time.Second || lost[0].Final {
			t.Errorf("told: %+v", lost)
		}
		// The user presses r, and the Base is back: from then on the pauses are short.
		source.locked(func() { down = false })
		d.Ask("kitchen", false)
		synctest.Wait()
		if len(hears[Looked](d)) != 1 {
			t.Error("it was not asked at once")
		}
		source.locked(func() { down = true })
		time.Sleep(healthEvery)
		synctest.Wait()
		if all := hears[Silence](d); all[len(all)-1].Again != firstPause {
			t.Errorf("after an answer the pause is %v", all[len(all)-1].Again)
		}
		d.leave()
		if source.opens != 0 {
			t.Errorf("%d sessions are left open", source.opens)
		}
	})
}

func TestARevokedAppStopsAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		d := newDesk(&fakeSource{look: func() (Look, error) {
			asked++
			return Look{}, &client.Error{Kind: client.ErrRevoked, Text: "revoked"}
		}})
		d.follow()
		time.Sleep(time.Hour)
		synctest.Wait()
		if lost := hears[Silence](d); asked != 1 || len(lost) != 1 || !lost[0].Final {
			t.Errorf("it asked %d times: %+v", asked, lost)
		}
		d.leave()
	})
}

// A Base that was paired again is asked at once: the conversation of the revoked pairing would wait for its
// owner.
func TestABaseThatIsPairedAgainIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		revoked := true
		source := &fakeSource{}
		source.look = func() (l Look, err error) {
			source.locked(func() {
				if l.Info = (&basev1.GetInfoResponse{}); revoked {
					err = &client.Error{Kind: client.ErrRevoked, Text: "revoked"}
				}
			})
			return l, err
		}
		d := newDesk(source)
		d.follow()
		synctest.Wait()
		source.locked(func() { revoked = false })
		d.follow()
		synctest.Wait()
		if n := len(hears[Looked](d)); n != 0 {
			t.Errorf("the revoked pairing is asked %d times", n)
		}
		d.Follow(d.ctx, []client.Base{{Name: "kitchen", AppID: "new"}}, func(do func()) { d.ran.Go(do) })
		synctest.Wait()
		if n := len(hears[Looked](d)); n != 1 {
			t.Errorf("the new one is asked %d times", n)
		}
		d.leave()
	})
}

func TestALostStreamOfEventsGoesOnWhereItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var from []uint64
		source := &fakeSource{look: func() (Look, error) { return Look{Info: &basev1.GetInfoResponse{}}, nil }}
		source.watch = func(_ context.Context, after uint64, tell func(*basev1.Event)) error {
			source.locked(func() { from = append(from, after) })
			for n := range uint64(3) {
				tell(&basev1.Event{Sequence: after + n + 1, Past: n == 0})
			}
			return errors.New("the connection was ended")
		}
		d := newDesk(source)
		d.follow()
		time.Sleep(3*firstPause + 4*lookAgain)
		synctest.Wait()
		source.locked(func() {
			// It continues where it was, and not at once, however much the Base says.
			if len(from) < 3 || len(from) > 6 || !slices.Equal(from[:3], []uint64{0, 3, 6}) {
				t.Errorf("it listened from %v on", from)
			}
		})
		// After a reset a Base counts from 1 again.
		reset := func(ctx context.Context, after uint64, tell func(*basev1.Event)) error {
			source.locked(func() { from = append(from, after) })
			tell(&basev1.Event{Event: &basev1.Event_Subscribed{Subscribed: &basev1.SubscribedEvent{LastSequence: 1}}})
			if after > 1 {
				return errors.New("the connection was ended")
			}
			<-ctx.Done()
			return ctx.Err()
		}
		source.locked(func() { source.watch = reset })
		time.Sleep(3*firstPause + 4*lookAgain)
		synctest.Wait()
		source.locked(func() {
			if last := from[len(from)-1]; last != 1 {
				t.Errorf("after a reset it listens from %d on", last)
			}
		})
		d.leave()
	})
}

func TestAFloodOfEventsAsksTheBaseOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		source := &fakeSource{look: func() (Look, error) { looks++; return Look{Info: &basev1.GetInfoResponse{}}, nil }}
		source.watch = func(ctx context.Context, _ uint64, tell func(*basev1.Event)) error {
			for ctx.Err() == nil {
				tell(&basev1.Event{Event: &basev1.Event_BansChanged{}})
				pause(ctx, 10*time.Millisecond)
			}
			return ctx.Err()
		}
		d := newDesk(source)
		d.follow()
		time.Sleep(time.Minute)
		synctest.Wait()
		if looks < 30 || looks > 90 {
			t.Errorf("%d questions in a minute", looks)
		}
		d.leave()
	})
}

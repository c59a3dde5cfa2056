package dashboard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// fakeSource is a house whose Bases behave as the test says.
type fakeSource struct {
	look  func() (Look, error)
	watch func(ctx context.Context, after uint64, tell func(*basev1.Event)) error
	pair  func(ctx context.Context, o client.PairOptions) (client.Base, error)
	do    func(ctx context.Context, approve client.Approve) (string, error)
	found []client.Nearby

	mu    sync.Mutex
	opens int
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

func (f *fakeSource) Do(ctx context.Context, _ Deed, hand owner.Hand) (words.Said, error) {
	text, err := f.do(ctx, hand.Approve)
	return words.Plain(text), err
}

func (f *fakeSource) Ask(context.Context, owner.Want) (owner.Answered, error) {
	return owner.Answered{}, nil
}

// desk runs an agent, and remembers its messages.
type desk struct {
	*agent
	mu   sync.Mutex
	told []any
}

func newDesk(source *fakeSource) *desk {
	d := &desk{agent: newAgent(Options{Source: source, CallTime: 20 * time.Second, PairTime: 3 * time.Minute, EventText: asText})}
	d.tell = func(message any) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.told = append(d.told, message)
	}
	return d
}

// orders carries out orders as Bubble Tea would.
func (d *desk) orders(orders ...any) {
	var run func(command tea.Cmd)
	run = func(command tea.Cmd) {
		if command == nil {
			return
		}
		if batch, ok := command().(tea.BatchMsg); ok {
			for _, each := range batch {
				go run(each)
			}
		}
	}
	go run(d.carry(orders))
}

func hears[T any](d *desk) (list []T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, message := range d.told {
		if m, ok := message.(T); ok {
			list = append(list, m)
		}
	}
	return list
}

func TestQuittingAtACodeAnswersNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answered := "nothing"
		d := newDesk(&fakeSource{pair: func(ctx context.Context, o client.PairOptions) (client.Base, error) {
			o.Requested("123 456")
			yes, err := o.Confirm(ctx, code)
			answered = fmt.Sprint(yes, err, ctx.Err())
			return client.Base{}, errors.New("ended")
		}})
		d.orders(orderPair{[]string{"192.0.2.1"}})
		synctest.Wait()
		if len(hears[compare](d)) != 1 {
			t.Fatal("no code is shown")
		}
		d.leave()
		if want := "false <nil> <nil>"; answered != want { // in time to tell the Base
			t.Errorf("the answer was %s, not %s", answered, want)
		}
	})
}

func TestAnAnswerCountsOnlyForItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(&fakeSource{do: func(_ context.Context, approve client.Approve) (string, error) {
			first, _ := approve(nil)
			second, _ := approve(nil)
			return fmt.Sprint(first, second), nil
		}})
		d.orders(orderDo{"kitchen", Deed{Kind: OpenWindow}})
		synctest.Wait()
		first := hears[asked](d)[0].id
		d.orders(orderAnswer{first + 1, true}, orderAnswer{first, true}, orderAnswer{first, false})
		synctest.Wait()
		d.orders(orderAnswer{first, true}, orderAnswer{hears[asked](d)[1].id, false})
		synctest.Wait()
		if got := hears[done](d); len(got) != 1 || got[0].text != "true false" {
			t.Errorf("done: %+v", got)
		}
		d.leave()
	})
}

func TestEscEndsThePairingOrChangeUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(&fakeSource{do: func(ctx context.Context, _ client.Approve) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}})
		d.orders(orderDo{"kitchen", Deed{Kind: Unlock}})
		synctest.Wait()
		d.orders(orderGiveUp{})
		synctest.Wait()
		if got := hears[done](d); len(got) != 1 || !errors.Is(got[0].err, context.Canceled) {
			t.Errorf("done: %+v", got)
		}
		d.leave()
	})
}

func TestQuittingIsQuickWhateverHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := newDesk(&fakeSource{look: func() (Look, error) { <-release; return Look{}, nil }})
		d.orders(orderStart{}, orderFollow{[]string{"kitchen"}})
		synctest.Wait()
		begun := time.Now()
		d.leave()
		if took := time.Since(begun); took > leaveTime {
			t.Errorf("it took %v", took)
		}
		close(release)
	})
}

func TestTheUserDecidesAboutColours(t *testing.T) {
	for environment, want := range map[string]string{
		"TERM=xterm": "ANSI", "TERM=xterm,NO_COLOR=1": "Ascii", "TERM=xterm,NO_COLOR=": "ANSI", "TERM=vt100": "Ascii", "TERM=xterm-mono": "Ascii",
		"TERM=xterm,NO_COLOR=yes": "Ascii",
	} {
		if got := profile(strings.Split(environment, ",")).String(); got != want {
			t.Errorf("%s: %s", environment, got)
		}
	}
}

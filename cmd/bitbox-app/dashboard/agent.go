package dashboard

import (
	"context"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// deedTime bounds a deed: a person reads and decides, the Base applies the change, and the App
// confirms it.
const deedTime = 10 * time.Minute

// orderStart begins the work that never ends.
type orderStart struct{}

// agent carries out orders, and reports the results to the model. leave ends everything it has
// begun.
type agent struct {
	Options
	*owner.Follower
	tell    func(any)
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	leaving chan struct{} // closed when the user has quit

	mu      sync.Mutex // guards what follows
	left    bool       // nothing may begin
	answers map[int]chan bool
	asked   int
	under   context.CancelFunc // ends the pairing or the deed that is under way
	made    *client.Base       // the result of the last pairing; nil: none
}

func newAgent(o Options) *agent {
	a := &agent{Options: o, leaving: make(chan struct{}), answers: map[int]chan bool{}}
	a.Follower = owner.NewFollower(o.Source, o.CallTime, func(news any) { a.tell(news) })
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// carry makes commands of orders. Each command runs on its own and may send many messages. A
// panic in one ends the dashboard, with the terminal restored.
func (a *agent) carry(orders []any) tea.Cmd {
	var commands []tea.Cmd
	begin := func(do func()) {
		commands = append(commands, func() tea.Msg {
			if a.enter() {
				defer a.running.Done()
				do()
			}
			return nil
		})
	}
	for _, order := range orders {
		switch o := order.(type) {
		case orderStart:
			begin(a.tick)
			begin(func() { a.Search(a.ctx) })
			begin(func() { a.KeepReading(a.ctx) })
		case orderBases:
			begin(a.ReadBases)
		case orderFollow:
			a.Follow(a.ctx, o.bases, begin)
		case orderLook:
			a.Ask(o.base, o.audit)
		case orderPair:
			ctx := a.begin(a.PairTime)
			begin(func() { a.pair(ctx, o.addresses) })
		case orderDo:
			ctx := a.begin(deedTime)
			begin(func() { a.do(ctx, o) })
		case orderAnswer:
			a.answer(o)
		case orderGiveUp:
			a.giveUp()
		case orderQuit:
			commands = append(commands, tea.Quit)
		}
	}
	return tea.Batch(commands...)
}

// enter counts one more running command, unless the user has quit.
func (a *agent) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.left {
		a.running.Add(1)
	}
	return !a.left
}

// leave ends everything, and waits a moment for it. Before that, a code that waits for an answer
// is answered with no.
func (a *agent) leave() {
	close(a.leaving)
	a.mu.Lock()
	a.left = true
	open := len(a.answers) > 0
	a.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		a.running.Wait()
		close(ended)
	}()
	if open {
		a.awaitAnswers(leaveTime / 2)
	}
	a.cancel()
	select {
	case <-ended:
	case <-time.After(leaveTime):
	}
}

// pairingMade is the result of the last pairing, nil if there is none.
func (a *agent) pairingMade() *client.Base {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.made
}

// awaitAnswers waits until no question is open, and until refused pairings have told the Base.
func (a *agent) awaitAnswers(most time.Duration) {
	until := time.After(most)
	for {
		a.mu.Lock()
		under := a.under
		a.mu.Unlock()
		if under == nil {
			return
		}
		select {
		case <-until:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (a *agent) tick() {
	for a.ctx.Err() == nil {
		select {
		case <-a.ctx.Done():
		case <-time.After(time.Second):
		}
		a.tell(tick{})
	}
}

// begin returns the context of a pairing or a deed; only one is under way at a time.
func (a *agent) begin(most time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(a.ctx, most)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under != nil {
		a.under()
	}
	a.under = cancel
	return ctx
}

func (a *agent) ended() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under != nil {
		a.under()
		a.under = nil
	}
}

func (a *agent) giveUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under != nil {
		a.under()
	}
}

// ask shows a question with show, and waits for the answer. A user who quits has answered no.
func (a *agent) ask(ctx context.Context, show func(id int)) (bool, error) {
	a.mu.Lock()
	a.asked++
	id, answer := a.asked, make(chan bool, 1)
	a.answers[id] = answer
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.answers, id)
	}()
	show(id)
	select {
	case yes := <-answer:
		return yes, nil
	case <-a.leaving:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (a *agent) answer(o orderAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if answer := a.answers[o.id]; answer != nil {
		select {
		case answer <- o.yes:
		default: // it was answered already
		}
	}
}

func (a *agent) pair(ctx context.Context, addresses []string) {
	defer a.ended()
	a.mu.Lock()
	a.made = nil
	a.mu.Unlock()
	base, err := a.Source.Pair(ctx, addresses, client.PairOptions{
		Requested: func(number string) { a.tell(requested{number}) },
		Confirm: func(ctx context.Context, code client.Code) (bool, error) {
			return a.ask(ctx, func(id int) { a.tell(compare{id, code}) })
		},
	})
	if err == nil {
		a.mu.Lock()
		a.made = &base
		a.mu.Unlock()
	}
	a.tell(paired{base, err})
}

func (a *agent) do(ctx context.Context, o orderDo) {
	defer a.ended()
	session, err := a.Source.Open(o.base)
	if err != nil {
		a.tell(done{err: err})
		return
	}
	defer session.Close()
	text, err := session.Do(ctx, o.deed, owner.Hand{
		Approve: func(changes []client.PostureChange) (bool, error) {
			return a.ask(ctx, func(id int) { a.tell(asked{id, changes}) })
		},
		Progress: func(step words.Said) { a.tell(progressed{step.String()}) },
	})
	a.tell(done{text.String(), err})
}

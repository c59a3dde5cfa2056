package dashboard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

// How often a Base is asked. After an event it is asked at once.
const (
	healthEvery = 5 * time.Second
	lookEvery   = 30 * time.Second
	auditEvery  = 15 * time.Minute
	// lookAgain is the shortest pause between two looks, or audits, however much happens.
	lookAgain = time.Second
	// firstPause and longestPause bound the pause after a Base did not answer; it doubles each
	// time.
	firstPause   = 2 * time.Second
	longestPause = time.Minute
	// basesEvery is how often to check which Bases other processes of the App have paired.
	basesEvery = 30 * time.Second
	// searchTime is the length of one search; searchPause follows a search that failed.
	searchTime  = 15 * time.Second
	searchPause = 30 * time.Second
	// auditTime and deedTime bound what may take long. In an audit the Base asks all of its
	// servers. In a deed a person reads and decides, the Base applies the change, and the App
	// confirms it.
	auditTime = 4 * time.Minute
	deedTime  = 10 * time.Minute
)

// orderStart begins the work that never ends.
type orderStart struct{}

// agent carries out orders, and reports the results to the model. leave ends everything it has
// begun.
type agent struct {
	Options
	tell    func(any)
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	leaving chan struct{} // closed when the user has quit

	mu       sync.Mutex // guards what follows
	left     bool       // nothing may begin
	answers  map[int]chan bool
	asked    int
	followed map[string]*follower
	under    context.CancelFunc // ends the pairing or the deed that is under way
	made     *client.Base       // the result of the last pairing; nil: none
}

// follower is the conversation with one Base.
type follower struct {
	cancel context.CancelFunc
	look   chan struct{} // the user wants it asked now
	audit  chan struct{}
}

func newAgent(o Options) *agent {
	a := &agent{Options: o, leaving: make(chan struct{}), answers: map[int]chan bool{}, followed: map[string]*follower{}}
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
			begin(a.search)
			begin(a.readBases)
		case orderBases:
			begin(a.readBasesNow)
		case orderFollow:
			a.follow(o.bases, begin)
		case orderLook:
			a.poke(o)
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

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (a *agent) tick() {
	for a.ctx.Err() == nil {
		pause(a.ctx, time.Second)
		a.tell(tick{})
	}
}

func (a *agent) readBasesNow() {
	bases, err := a.Source.Bases()
	a.tell(knows{bases, err})
}

func (a *agent) readBases() {
	for a.ctx.Err() == nil {
		pause(a.ctx, basesEvery)
		a.readBasesNow()
	}
}

// heard is an announced Base, with the number that stands for it.
type heard struct {
	client.Nearby
	id, round int
}

// search looks for Bases, round after round, so that Bases that have gone are noticed. A Base
// keeps its number while it is announced.
func (a *agent) search() {
	var known []heard
	next := 0
	for round := 0; a.ctx.Err() == nil; round++ {
		ctx, cancel := context.WithTimeout(a.ctx, searchTime)
		found, err := a.Source.Browse(ctx)
		if err == nil {
			for f := range found { // at most client.MaxNearby
				at := slices.IndexFunc(known, func(h heard) bool { return h.SameAs(f) })
				if at < 0 {
					at, known = len(known), append(known, heard{id: next})
					next++
				}
				known[at] = heard{f, known[at].id, round}
				a.tell(nearby{known[at].id, f})
			}
		}
		cancel()
		if a.ctx.Err() != nil {
			return
		}
		a.tell(searched{err})
		known = slices.DeleteFunc(known, func(h heard) bool { return h.round <= round-roundsKept })
		if err != nil {
			pause(a.ctx, searchPause)
		}
	}
}

// follow begins conversations with these Bases, and ends all others.
func (a *agent) follow(names []string, begin func(func())) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, f := range a.followed {
		if !slices.Contains(names, name) {
			f.cancel()
			delete(a.followed, name)
		}
	}
	for _, name := range names {
		if a.followed[name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(a.ctx)
		f := &follower{cancel: cancel, look: make(chan struct{}, 1), audit: make(chan struct{}, 1)}
		a.followed[name] = f
		begin(func() { a.converse(ctx, name, f) })
	}
}

// want asks a follower to do something soon, however often it is called.
func want(what chan<- struct{}) {
	select {
	case what <- struct{}{}:
	default:
	}
}

func (a *agent) poke(o orderLook) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.followed[o.base]; f != nil {
		want(f.look)
		if o.audit {
			want(f.audit)
		}
	}
}

// isFinal tells that asking again is useless until the user does something.
func isFinal(err error) bool {
	for _, kind := range []error{client.ErrRevoked, client.ErrPairAgain, client.ErrNoSuchBase, client.ErrSecondBoard} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// converse asks a Base, and listens to it, until ctx ends. After a failure it tries again, after
// a growing pause.
func (a *agent) converse(ctx context.Context, name string, f *follower) {
	wait, last := firstPause, uint64(0)
	for {
		answered, err := a.converseOnce(ctx, name, f, &last)
		if ctx.Err() != nil {
			return
		}
		if answered {
			wait = firstPause
		}
		if !errors.Is(err, errOnlyStream) {
			a.tell(lost{name, err, wait, isFinal(err)})
		}
		again := time.After(wait)
		if isFinal(err) {
			again = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-f.look: // the user wants it now
		}
		wait = min(2*wait, longestPause)
	}
}

// errOnlyStream: the stream of events was cut, but the Base answers.
var errOnlyStream = errors.New("the stream of events was cut")

// converseOnce is one conversation, until it fails. last is the last event that was heard.
func (a *agent) converseOnce(ctx context.Context, name string, f *follower, last *uint64) (answered bool, err error) {
	session, err := a.Source.Open(name)
	if err != nil {
		return false, err
	}
	defer session.Close()
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()

	if err := a.look(ctx, session, name); err != nil {
		return false, err
	}
	ended, changed := make(chan error, 1), make(chan struct{}, 1)
	parts.Go(func() { ended <- a.listen(ctx, session, name, f.audit, changed, last) })
	parts.Go(func() { a.audits(ctx, session, name, f) })
	health, full := time.NewTicker(healthEvery), time.NewTicker(lookEvery)
	defer health.Stop()
	defer full.Stop()
	for {
		err = nil
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-ended:
			// The Base says why when it is asked.
			a.tell(doubted{name})
			if err = a.look(ctx, session, name); err == nil {
				err = errOnlyStream
			}
			return true, err
		case <-health.C:
			err = a.health(ctx, session, name)
		case <-full.C:
			err = a.look(ctx, session, name)
		case <-f.look:
			err = a.look(ctx, session, name)
		case <-changed:
			err = a.look(ctx, session, name)
			pause(ctx, lookAgain)
		}
		if err != nil {
			return true, err
		}
	}
}

func (a *agent) look(ctx context.Context, session Session, name string) error {
	ctx, cancel := context.WithTimeout(ctx, a.CallTime)
	defer cancel()
	look, err := session.Look(ctx)
	if err == nil {
		a.tell(looked{name, look})
	}
	return err
}

func (a *agent) health(ctx context.Context, session Session, name string) error {
	ctx, cancel := context.WithTimeout(ctx, a.CallTime)
	defer cancel()
	info, err := session.Health(ctx)
	if err == nil {
		a.tell(healthy{name, info})
	}
	return err
}

// listen reports events, and has the Base asked for what has changed. Nothing that a Base says
// shortens a pause; only the user can (follower.look).
func (a *agent) listen(ctx context.Context, session Session, name string, audit, changed chan<- struct{}, last *uint64) error {
	return session.Watch(ctx, *last, func(e *basev1.Event) {
		if s := e.GetSubscribed(); s != nil {
			*last = min(*last, s.GetLastSequence()) // after a reset a Base counts from 1 again
		}
		*last = max(*last, e.GetSequence())
		a.tell(happened{name, e})
		if e.GetPast() || e.GetSubscribed() != nil {
			return
		}
		want(changed)
		if e.GetDriftFound() != nil {
			want(audit)
		}
	}, func(error) {
		// The Base says why when it is asked.
		a.tell(doubted{name})
		want(changed)
	})
}

func (a *agent) audits(ctx context.Context, session Session, name string, f *follower) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, auditTime)
		findings, known, err := session.Audit(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		a.tell(audited{name, findings, known, err})
		pause(ctx, lookAgain)
		select {
		case <-ctx.Done():
		case <-f.audit:
		case <-time.After(auditEvery):
		}
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
	text, err := session.Do(ctx, o.deed,
		func(changes []client.PostureChange) (bool, error) {
			return a.ask(ctx, func(id int) { a.tell(asked{id, changes}) })
		},
		func(step string) { a.tell(progressed{step}) })
	a.tell(done{text, err})
}

package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

const (
	// deedTime bounds a deed: a person reads and decides, the Base applies the change, and the App
	// confirms it. Updates have UpdateTime.
	deedTime = 10 * time.Minute
	// maxUnderWay is how many deeds may be under way at a time.
	maxUnderWay = 8
	// maxLockdowns is how many lockdowns of a Base may be under way at a time: one that hangs must not
	// keep its owner from another.
	maxLockdowns = 3
	// readTime is how long a question is shown before a yes counts: a yes that comes sooner was
	// meant for something else. The Base's console has the same rule.
	readTime = time.Second
	// leaveTime is how long Run waits at its end for what is under way.
	leaveTime = 3 * time.Second
	// maxSteps is how many steps of a deed are kept, the newest. A Base decides how many there are.
	maxSteps = 50
	// wantTime is how long a part is asked for after it was wanted last; maxWants is how many are.
	wantTime = time.Minute
	maxWants = 16
	// partEvery is how often a part is asked for, and linesEvery how often new lines of a log are taken.
	partEvery  = 5 * time.Second
	linesEvery = 200 * time.Millisecond
)

// Options are what New needs.
type Options struct {
	Source Source
	// CallTime bounds one conversation with a Base, PairTime the wait for a person at the Base.
	CallTime, PairTime time.Duration
}

// Owner follows the Bases of an App and carries out deeds. Its methods may be called by several
// goroutines.
type Owner struct {
	Options
	follower *Follower
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	leaving  chan struct{} // closed when Run ends: open questions are answered with no
	broken   chan any      // what the first panic at the side has said

	mu        sync.Mutex // guards what follows
	left      bool       // nothing may begin
	book      book
	wakes     map[chan struct{}]struct{}
	deeds     map[uint64]*underWay
	wanted    map[wantedPart]time.Time // until when
	tails     map[string]tail          // by the id of the Base
	lastDeed  uint64
	lastAsked uint64
}

// underWay is what answers and ends a deed.
type underWay struct {
	cancel context.CancelFunc
	agreed bool // the owner has said yes to the changes
	opens  bool // one of the changes opens something, so the Base tries it
	answer chan Answer
}

type wantedPart struct {
	base string
	Want
}

// tail is the one log of a Base that is followed, because a Base lets an App follow two, and a command may
// follow the other. It is the one that was asked for last; any other is asked for again and again.
type tail struct {
	part wantedPart
	end  context.CancelFunc // nil before it is followed
}

// New returns an Owner. It does nothing before Run.
func New(o Options) *Owner {
	w := &Owner{Options: o, leaving: make(chan struct{}), broken: make(chan any, 1), wakes: map[chan struct{}]struct{}{},
		deeds: map[uint64]*underWay{}, wanted: map[wantedPart]time.Time{}, tails: map[string]tail{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.follower = NewFollower(o.Source, o.CallTime, w.tell)
	w.follower.guard = w.guard
	return w
}

// Run follows the Bases until ctx ends. Then it answers open questions with no, ends all deeds, and
// waits a moment for them. It may be called once. A panic in anything that runs at the side ends it too,
// with an error, so that the full screen can put the terminal in order and say so.
func (o *Owner) Run(ctx context.Context) (err error) {
	o.begin(func() { o.follower.Search(o.ctx) })
	o.begin(func() { o.follower.KeepReading(o.ctx) })
	o.begin(o.follower.ReadBases)
	select {
	case <-ctx.Done():
	case said := <-o.broken:
		err = Bug(said)
	}
	close(o.leaving)
	o.mu.Lock()
	o.left = true
	open := slices.ContainsFunc(o.book.state.Deeds, func(d DeedState) bool { return d.Question != nil })
	o.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		o.running.Wait()
		close(ended)
	}()
	if open {
		o.awaitDeeds(leaveTime / 2)
	}
	o.cancel()
	select {
	case <-ended:
	case <-time.After(leaveTime):
	}
	return err
}

// Bug is the error of a panic, in one sentence.
func Bug(said any) error {
	return fmt.Errorf("the App has ended because of a bug in it (%s); look at what was under way before you do it again", client.Printable(fmt.Sprint(said)))
}

// guard makes a panic of something that runs at the side end Run.
func (o *Owner) guard(do func()) func() {
	return func() {
		defer func() {
			if said := recover(); said != nil {
				select {
				case o.broken <- said:
				default:
				}
			}
		}()
		do()
	}
}

// awaitDeeds waits until refused pairings have told the Base.
func (o *Owner) awaitDeeds(most time.Duration) {
	wake, done := o.Subscribe()
	defer done()
	until := time.After(most)
	for {
		o.mu.Lock()
		n := o.book.underWay("")
		o.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-until:
			return
		case <-wake:
		}
	}
}

// begin runs something at the side, unless Run has ended.
func (o *Owner) begin(do func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.beginLocked(do)
}

func (o *Owner) beginLocked(do func()) bool {
	if o.left {
		return false
	}
	o.running.Go(o.guard(do))
	return true
}

// State returns what is known now.
func (o *Owner) State() State {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.book.given()
}

// Subscribe returns a channel that gets a value after the state has changed, one for many changes,
// and a function that ends that.
func (o *Owner) Subscribe() (<-chan struct{}, func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wake := make(chan struct{}, 1)
	o.wakes[wake] = struct{}{}
	return wake, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.wakes, wake)
	}
}

// change changes the book, and wakes all who follow it.
func (o *Owner) change(do func(b *book)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	do(&o.book)
	for wake := range o.wakes {
		want(wake)
	}
}

// tell takes the news of the follower.
func (o *Owner) tell(news any) {
	o.change(func(b *book) { b.take(news, time.Now()) })
	_, pairings := news.(Knows)
	silence, lost := news.(Silence)
	if pairings {
		o.mu.Lock()
		bases := o.book.follow()
		o.mu.Unlock()
		o.follower.Follow(o.ctx, bases, func(do func()) { o.begin(do) })
	}
	if lost && silence.Final {
		o.begin(o.follower.ReadBases) // it may be revoked, or deleted
	}
}

// Unstored takes what client.Options.Unstored is called with.
func (o *Owner) Unstored(err error) { o.change(func(b *book) { b.state.UnstoredErr = err }) }

// Refresh has the pairings read and a Base asked now, and has it inspect itself if audit. Without a Base
// (base is empty) only the pairings are read.
func (o *Owner) Refresh(base string, audit bool) {
	o.mu.Lock()
	known, is := o.book.state.Base(base)
	o.mu.Unlock()
	o.begin(o.follower.ReadBases)
	if !is {
		return
	}
	if audit {
		o.change(func(b *book) {
			if one := b.base(known.Name); one != nil {
				one.Auditing = true
			}
		})
	}
	o.follower.Ask(known.Name, audit)
}

// Do begins a deed, and returns its number. base is the id of a Base; it is empty for Pair. One
// deed of a Base can be under way at a time, but a lockdown waits for nothing.
func (o *Owner) Do(base string, d Deed) (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, is := o.book.state.Base(base)
	switch {
	case d.Kind != Pair && !is:
		return 0, errNotPaired
	case d.Kind == Pair && base != "", d.Kind != Pair && deeds[d.Kind].name == "":
		return 0, &client.Error{Kind: client.ErrInvalid, Text: "that cannot be done to a Base"}
	case d.Kind != Lockdown && o.book.underWay("") >= maxUnderWay:
		return 0, &client.Error{Kind: client.ErrNotNow, Text: "too much is under way; wait for it, or stop something"}
	case d.Kind == Pair && slices.ContainsFunc(o.book.state.Deeds, func(s DeedState) bool { return s.Deed.Kind == Pair && s.Ended.IsZero() }):
		return 0, &client.Error{Kind: client.ErrNotNow, Text: "another pairing is under way; finish it, or stop it"}
	case d.Kind != Lockdown && is && o.book.underWay(base) > 0:
		return 0, &client.Error{Kind: client.ErrNotNow, Text: "another change of this Base is under way; finish it, or stop it"}
	case d.Kind == Lockdown && o.book.lockdowns(base) >= maxLockdowns:
		return 0, &client.Error{Kind: client.ErrNotNow, Text: "lockdowns of this Base are under way already; answer them, or stop one"}
	case o.left:
		return 0, &client.Error{Kind: client.ErrNotNow, Text: "the App is ending"}
	}
	most := deedTime
	switch d.Kind {
	case Pair:
		most = o.PairTime
	case Install, PreviousVersion, DebianUpdates:
		most = UpdateTime
	case InstallNewer:
		most = newerTime
	case InstallCore:
		most = NodeInstallTime
	case Reboot:
		most = RebootTime
	}
	ctx, cancel := context.WithTimeout(o.ctx, most)
	o.lastDeed++
	number, w := o.lastDeed, &underWay{cancel: cancel}
	o.deeds[number] = w
	o.book.begin(DeedState{Number: number, Base: base, Deed: d, Began: time.Now()})
	o.beginLocked(func() {
		defer cancel()
		o.carryOut(ctx, number, w, known.Name, d)
	})
	for wake := range o.wakes {
		want(wake)
	}
	return number, nil
}

func (o *Owner) carryOut(ctx context.Context, number uint64, w *underWay, name string, d Deed) {
	var result words.Said
	var made *client.Base
	var err error
	if d.Kind == Pair {
		var paired client.Base
		if paired, err = o.pair(ctx, number, w, d); err == nil {
			made, result = &paired, words.Saying("done.pair")
		}
	} else {
		result, err = o.act(ctx, number, w, name, d)
	}
	if made != nil || d.Kind == Rename || d.Kind == Forget || d.Kind == FactoryReset {
		o.follower.ReadBases() // the next deed finds the Base by its new name
	}
	o.change(func(b *book) {
		delete(o.deeds, number)
		s := b.deed(number)
		if s == nil {
			return
		}
		s.Ended, s.Question, s.Made = time.Now(), nil, made
		if err == nil {
			s.Result = result
			return
		}
		s.Err, s.Leaves = err, leaves(d, w, err)
	})
	if name != "" && d.Kind != Rename && d.Kind != Forget {
		o.follower.Ask(name, d.Kind == Fix)
	}
}

// leaves says in which state a deed that did not succeed leaves the Base; empty where its error
// says so.
func leaves(d Deed, w *underWay, err error) words.Said {
	cut := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case !cut || errors.Is(err, client.ErrNotApproved):
		return words.Said{}
	case d.Kind == Pair:
		return words.Saying("leaves.pair")
	case d.Kind == Install || d.Kind == InstallNewer || d.Kind == InstallCore:
		return words.Saying("leaves.install")
	case !w.agreed:
		return words.Saying("leaves.nothing")
	case d.Kind.Tried(), d.Kind == SetRole && w.opens: // a lower role holds at once
		return words.Saying("leaves.tried")
	}
	return words.Saying("leaves.unknown")
}

func (o *Owner) act(ctx context.Context, number uint64, w *underWay, name string, d Deed) (words.Said, error) {
	h := o.hand(ctx, number, w)
	if d.Kind == Forget {
		if err := h.consent(d.Change()); err != nil {
			return words.Said{}, err
		}
		return words.Saying("done.forget"), o.Source.Forget(name)
	}
	session, err := o.Source.Open(name)
	if err != nil {
		return words.Said{}, err
	}
	defer session.Close()
	return session.Do(ctx, d, h)
}

// hand is how a deed asks and tells.
func (o *Owner) hand(ctx context.Context, number uint64, w *underWay) Hand {
	return Hand{
		Approve: func(changes []client.PostureChange) (bool, error) {
			answer, err := o.ask(ctx, number, w, Question{Kind: Consent, Changes: changes})
			if answer.Yes {
				o.change(func(*book) {
					w.agreed, w.opens = true, slices.ContainsFunc(changes, func(c client.PostureChange) bool { return c.Opens })
				})
			}
			return answer.Yes, err
		},
		Progress: func(step words.Said) {
			o.change(func(b *book) {
				if s := b.deed(number); s != nil {
					s.Steps = append(s.Steps[max(0, len(s.Steps)-maxSteps+1):], cutStep(step))
				}
			})
		},
		Sent: func(sent, total uint64) {
			o.change(func(b *book) {
				if s := b.deed(number); s != nil {
					s.Sent, s.Total = sent, total
				}
			})
		},
		Ask: func(ctx context.Context, q Question) (Answer, error) {
			answer, err := o.ask(ctx, number, w, q)
			if answer.Yes {
				o.change(func(*book) { w.agreed = true })
			}
			return answer, err
		},
	}
}

// cutStep is what is kept of a step, whose words may be the Base's.
func cutStep(step words.Said) words.Said {
	if text := step.String(); len(text) > longestLine {
		return words.ByBase(cutLine(text))
	}
	return step
}

func (o *Owner) pair(ctx context.Context, number uint64, w *underWay, d Deed) (client.Base, error) {
	kind := Compare
	if d.Words {
		kind = TellWords
	}
	return o.Source.Pair(ctx, d.Addresses, client.PairOptions{
		Name: d.Text, Words: d.Words,
		Requested: func(request string) {
			o.change(func(b *book) {
				if s := b.deed(number); s != nil {
					s.RequestNumber = request
				}
			})
		},
		Confirm: func(ctx context.Context, code client.Code) (bool, error) {
			answer, err := o.ask(ctx, number, w, Question{Kind: kind, Code: code})
			return answer.Yes, err
		},
	})
}

// ask shows a question, and waits for its answer. When Run ends, it is no.
func (o *Owner) ask(ctx context.Context, number uint64, w *underWay, q Question) (Answer, error) {
	answers := make(chan Answer, 1)
	o.change(func(b *book) {
		o.lastAsked++
		q.ID, q.Since = o.lastAsked, time.Now()
		q.Ready = q.Since.Add(readTime)
		w.answer = answers
		if s := b.deed(number); s != nil {
			s.Question, s.Agreed = &q, false
		}
	})
	defer o.change(func(b *book) {
		if s := b.deed(number); s != nil && s.Question != nil && s.Question.ID == q.ID {
			s.Question = nil
		}
	})
	select {
	case answer := <-answers:
		return answer, nil
	case <-o.leaving:
		return Answer{}, nil
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// The reasons why an answer does not count.
var (
	ErrVoid  error = &client.Error{Kind: client.ErrConflict, Text: "the question is no longer the one that was shown"}
	ErrEarly error = &client.Error{Kind: client.ErrNotNow, Text: "a yes within the first second does not count: read the question, and answer again"}
)

// Answer answers a question of a deed. It is void, with ErrVoid, if the deed asks something else by
// now; a yes that comes too soon is ErrEarly, and the question stays.
func (o *Owner) Answer(deed, question uint64, a Answer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, w := o.book.deed(deed), o.deeds[deed]
	switch {
	case s == nil || w == nil || s.Question == nil || s.Question.ID != question:
		return ErrVoid
	case a.Yes && time.Now().Before(s.Question.Ready):
		return ErrEarly
	}
	if a.Yes && (s.Question.Kind == Compare || s.Question.Kind == TellWords) {
		s.Compared = s.Question
	}
	s.Question, s.Agreed = nil, a.Yes
	w.answer <- a // it has room: the question is gone with its first answer
	for wake := range o.wakes {
		want(wake)
	}
	return nil
}

// Stop ends a deed. Its state says what that leaves.
func (o *Owner) Stop(deed uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.deeds[deed]; w != nil {
		w.cancel()
	}
}

// Want has a part of a Base asked for, again and again for a minute, or a log followed. Its answer stands
// in the Base's Parts.
func (o *Owner) Want(base string, what Want) {
	o.mu.Lock()
	defer o.mu.Unlock()
	part := wantedPart{base, what}
	_, asked := o.wanted[part]
	if o.book.byID(base) == nil || !asked && len(o.wanted) >= maxWants {
		return
	}
	o.wanted[part] = time.Now().Add(wantTime)
	if !asked && what.Part == Logs {
		if last := o.tails[base]; last.end != nil {
			last.end()
		}
		o.tails[base] = tail{part: part}
	}
	if !asked && !o.beginLocked(func() { o.askFor(part) }) {
		delete(o.wanted, part)
	}
}

func (o *Owner) askFor(part wantedPart) {
	for o.isWanted(part) {
		answered, err := o.askOnce(part)
		o.answered(part, answered, err)
		if err == nil {
			if err = o.followLog(part); err != nil {
				o.answered(part, Answered{}, err)
			}
		}
		pause(o.ctx, partEvery)
	}
}

// answered keeps an answer, or an error beside the last answer.
func (o *Owner) answered(part wantedPart, answered Answered, err error) {
	if o.ctx.Err() != nil {
		return
	}
	o.change(func(b *book) {
		base := b.byID(part.base)
		if base == nil {
			return
		}
		if err != nil {
			answered = base.Parts[part.Want]
			answered.Err = err
		} else {
			answered.At = time.Now()
		}
		if base.Parts == nil {
			base.Parts = map[Want]Answered{}
		}
		base.Parts[part.Want] = answered
	})
}

// beginTail returns the context in which a log is followed, and how to end it; nil: it is not the one that is.
func (o *Owner) beginTail(part wantedPart) (context.Context, context.CancelFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, taken := o.tails[part.base]; part.Part != Logs || taken && last.part != part {
		return nil, nil
	}
	ctx, end := context.WithCancel(o.ctx)
	o.tails[part.base] = tail{part, end}
	return ctx, end
}

// followLog keeps the newest lines of a log, until nobody looks, another log takes its place, or the stream
// ends with an error.
func (o *Owner) followLog(part wantedPart) error {
	tail, end := o.beginTail(part)
	if tail == nil {
		return nil
	}
	defer end()
	session, err := o.openByID(part.base)
	if err != nil {
		return err
	}
	defer session.Close()
	var mu sync.Mutex // guards lines
	var lines []*basev1.LogEntry
	come, ended := make(chan struct{}, 1), make(chan error, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer end()
	reading.Go(o.guard(func() {
		ended <- session.Follow(tail, part.Subject, func(e *basev1.LogEntry) {
			mu.Lock()
			defer mu.Unlock()
			if lines = append(lines, e); len(lines) >= 2*logLines {
				lines = slices.Clone(lines[logLines:])
			}
			want(come)
		})
	}))
	looks := time.NewTicker(partEvery)
	defer looks.Stop()
	for {
		select {
		case <-tail.Done():
			return nil
		case err := <-ended:
			if tail.Err() != nil {
				return nil
			}
			return err
		case <-looks.C:
			if !o.isLookedAt(part) {
				return nil
			}
		case <-come:
			pause(tail, linesEvery) // those that come together are one change
			mu.Lock()
			newest := lines[max(0, len(lines)-logLines):]
			mu.Unlock()
			o.answered(part, Answered{Lines: newest}, nil)
		}
	}
}

func (o *Owner) isLookedAt(part wantedPart) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Before(o.wanted[part])
}

// isWanted tells whether a part is still wanted. If not, it is forgotten with its answer: a Base names
// its services, so it could have this App keep any number of answers.
func (o *Owner) isWanted(part wantedPart) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	wanted := o.ctx.Err() == nil && time.Now().Before(o.wanted[part])
	if !wanted {
		delete(o.wanted, part)
		o.book.forget(part)
		if last := o.tails[part.base]; last.part == part {
			delete(o.tails, part.base)
		}
	}
	return wanted
}

// openByID opens a session with a Base by the name that it has now.
func (o *Owner) openByID(base string) (Session, error) {
	o.mu.Lock()
	known, is := o.book.state.Base(base)
	o.mu.Unlock()
	if !is {
		return nil, errNotPaired
	}
	return o.Source.Open(known.Name)
}

// errNotPaired: the pairing is gone.
var errNotPaired error = &client.Error{Kind: client.ErrNoSuchBase, Text: "this App is no longer paired with that Base"}

func (o *Owner) askOnce(part wantedPart) (Answered, error) {
	ctx, cancel := context.WithTimeout(o.ctx, o.CallTime)
	defer cancel()
	session, err := o.openByID(part.base)
	if err != nil {
		return Answered{}, err
	}
	defer session.Close()
	return session.Ask(ctx, part.Want)
}

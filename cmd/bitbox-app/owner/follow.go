package owner

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

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
	// auditTime bounds an audit, in which the Base asks all of its servers.
	auditTime = 4 * time.Minute
	// RoundsKept is for how many rounds of searching a Base is kept after its last announcement.
	RoundsKept = 2
)

// The news of a Follower. A Base is named as the App names it.
type (
	// Knows are the pairings of this App.
	Knows struct {
		Bases []client.Base
		Err   error
	}
	// Heard is an announced Base. Two with the same ID are the same Base.
	Heard struct {
		ID    int
		Found client.Nearby
	}
	// Searched: one round of searching is over.
	Searched struct{ Err error }
	// Healthy and Looked are answers of a Base.
	Healthy struct {
		Base string
		Info *basev1.GetInfoResponse
	}
	Looked struct {
		Base string
		Look Look
	}
	Audited struct {
		Base     string
		Findings []*basev1.Finding
		Known    bool
		Err      error
	}
	Happened struct {
		Base  string
		Event *basev1.Event
	}
	// Doubt: a Base may have stopped answering, and is being asked.
	Doubt struct{ Base string }
	// Silence: a Base does not answer, and is asked again after a while; never, if Final.
	Silence struct {
		Base  string
		Err   error
		Again time.Duration
		Final bool
	}
)

// Follower asks Bases, listens to them, and searches for new ones. It reports what it hears, one
// of the types above, by tell, which may be called by several goroutines.
type Follower struct {
	source   Source
	callTime time.Duration
	tell     func(any)
	// guard is put around what runs at the side of a conversation.
	guard func(func()) func()

	mu       sync.Mutex // guards what follows
	followed map[string]*conversation
}

// NewFollower returns a follower. callTime bounds one question to a Base.
func NewFollower(source Source, callTime time.Duration, tell func(any)) *Follower {
	return &Follower{source: source, callTime: callTime, tell: tell, guard: func(do func()) func() { return do },
		followed: map[string]*conversation{}}
}

// conversation is the one with a Base.
type conversation struct {
	with   client.Base
	cancel context.CancelFunc
	look   chan struct{} // the user wants it asked now
	audit  chan struct{}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// ReadBases reports the pairings now.
func (f *Follower) ReadBases() {
	bases, err := f.source.Bases()
	f.tell(Knows{bases, err})
}

// KeepReading reports them again and again, until ctx ends: other processes of the App pair too.
func (f *Follower) KeepReading(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, basesEvery)
		f.ReadBases()
	}
}

// heard is an announced Base, with the number that stands for it.
type heard struct {
	client.Nearby
	id, round int
}

// Search looks for Bases, round after round, so that Bases that have gone are noticed. A Base
// keeps its number while it is announced.
func (f *Follower) Search(ctx context.Context) {
	var known []heard
	next := 0
	for round := 0; ctx.Err() == nil; round++ {
		bounded, cancel := context.WithTimeout(ctx, searchTime)
		found, err := f.source.Browse(bounded)
		if err == nil {
			for n := range found { // at most client.MaxNearby
				at := slices.IndexFunc(known, func(h heard) bool { return h.SameAs(n) })
				if at < 0 {
					at, known = len(known), append(known, heard{id: next})
					next++
				}
				known[at] = heard{n, known[at].id, round}
				f.tell(Heard{known[at].id, n})
			}
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.tell(Searched{err})
		known = slices.DeleteFunc(known, func(h heard) bool { return h.round <= round-RoundsKept })
		if err != nil {
			pause(ctx, searchPause)
		}
	}
}

// Follow begins conversations with these Bases, and ends all others: also that of a pairing whose name
// now stands for another one. begin runs a conversation at the side.
func (f *Follower) Follow(ctx context.Context, bases []client.Base, begin func(func())) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, c := range f.followed {
		if !slices.ContainsFunc(bases, func(b client.Base) bool { return b.Name == name && b.AppID == c.with.AppID }) {
			c.cancel()
			delete(f.followed, name)
		}
	}
	for _, base := range bases {
		if f.followed[base.Name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		c := &conversation{with: base, cancel: cancel, look: make(chan struct{}, 1), audit: make(chan struct{}, 1)}
		f.followed[base.Name] = c
		begin(func() { f.converse(ctx, base.Name, c) })
	}
}

// want asks a follower to do something soon, however often it is called.
func want(what chan<- struct{}) {
	select {
	case what <- struct{}{}:
	default:
	}
}

// Ask has a Base asked now, and inspect itself if audit.
func (f *Follower) Ask(base string, audit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.followed[base]; c != nil {
		want(c.look)
		if audit {
			want(c.audit)
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
func (f *Follower) converse(ctx context.Context, name string, c *conversation) {
	wait, last := firstPause, uint64(0)
	for {
		answered, err := f.converseOnce(ctx, name, c, &last)
		if ctx.Err() != nil {
			return
		}
		if answered {
			wait = firstPause
		}
		if !errors.Is(err, errOnlyStream) {
			f.tell(Silence{name, err, wait, isFinal(err)})
		}
		again := time.After(wait)
		if isFinal(err) {
			again = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-c.look: // the user wants it now
		}
		wait = min(2*wait, longestPause)
	}
}

// errOnlyStream: the stream of events was cut, but the Base answers.
var errOnlyStream = errors.New("the stream of events was cut")

// converseOnce is one conversation, until it fails. last is the last event that was heard.
func (f *Follower) converseOnce(ctx context.Context, name string, c *conversation, last *uint64) (answered bool, err error) {
	session, err := f.source.Open(name)
	if err != nil {
		return false, err
	}
	defer session.Close()
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()

	if err := f.look(ctx, session, name); err != nil {
		return false, err
	}
	ended, changed := make(chan error, 1), make(chan struct{}, 1)
	parts.Go(f.guard(func() { ended <- f.listen(ctx, session, name, c.audit, changed, last) }))
	parts.Go(f.guard(func() { f.audits(ctx, session, name, c) }))
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
			f.tell(Doubt{name})
			if err = f.look(ctx, session, name); err == nil {
				err = errOnlyStream
			}
			return true, err
		case <-health.C:
			err = f.health(ctx, session, name)
		case <-full.C:
			err = f.look(ctx, session, name)
		case <-c.look:
			err = f.look(ctx, session, name)
		case <-changed:
			err = f.look(ctx, session, name)
			pause(ctx, lookAgain)
		}
		if err != nil {
			return true, err
		}
	}
}

func (f *Follower) look(ctx context.Context, session Session, name string) error {
	ctx, cancel := context.WithTimeout(ctx, f.callTime)
	defer cancel()
	look, err := session.Look(ctx)
	if err == nil {
		f.tell(Looked{name, look})
	}
	return err
}

func (f *Follower) health(ctx context.Context, session Session, name string) error {
	ctx, cancel := context.WithTimeout(ctx, f.callTime)
	defer cancel()
	info, err := session.Health(ctx)
	if err == nil {
		f.tell(Healthy{name, info})
	}
	return err
}

// listen reports events, and has the Base asked for what has changed. Nothing that a Base says
// shortens a pause; only the user can (conversation.look).
func (f *Follower) listen(ctx context.Context, session Session, name string, audit, changed chan<- struct{}, last *uint64) error {
	return session.Watch(ctx, *last, func(e *basev1.Event) {
		if s := e.GetSubscribed(); s != nil {
			*last = min(*last, s.GetLastSequence()) // after a reset a Base counts from 1 again
		}
		*last = max(*last, e.GetSequence())
		f.tell(Happened{name, e})
		if e.GetPast() || e.GetSubscribed() != nil {
			return
		}
		want(changed)
		if e.GetDriftFound() != nil {
			want(audit)
		}
	}, func(error) {
		// The Base says why when it is asked.
		f.tell(Doubt{name})
		want(changed)
	})
}

func (f *Follower) audits(ctx context.Context, session Session, name string, c *conversation) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, auditTime)
		findings, known, err := session.Audit(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		f.tell(Audited{name, findings, known, err})
		pause(ctx, lookAgain)
		select {
		case <-ctx.Done():
		case <-c.audit:
		case <-time.After(auditEvery):
		}
	}
}

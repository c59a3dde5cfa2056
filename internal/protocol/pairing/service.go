package pairing

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// WatchTime is how long a Watch waits for a change at most.
const WatchTime = 25 * time.Second

// ServiceConfig is what a Service is made of.
type ServiceConfig struct {
	// Machine decides. The Service owns it from now on.
	Machine *Machine
	// Save writes the registry so that it survives a power cut (fsync). It is
	// called with the lock held, and must not call the Service.
	Save func(registry []byte) error
	// Now is a clock that never goes back; nil: the process's monotonic clock.
	Now func() time.Duration
}

// Service gives a Machine what it lacks: a clock, timers, storage, and callers
// that come at the same time.
type Service struct {
	save func([]byte) error
	now  func() time.Duration

	mu      sync.Mutex
	machine *Machine
	timer   *time.Timer   // runs the Machine's next deadline
	changed chan struct{} // closed and replaced when the version changes
	version uint64        // the version that changed was last made for
	closed  bool
}

// NewService starts to serve the Machine. Close ends it.
func NewService(config ServiceConfig) *Service {
	s := &Service{
		save:    config.Save,
		now:     config.Now,
		machine: config.Machine,
		changed: make(chan struct{}),
		version: config.Machine.Version(),
	}
	if s.now == nil {
		start := time.Now()
		s.now = func() time.Duration { return time.Since(start) }
	}
	return s
}

// Close stops the timer, and ends the ceremony that is on: its secrets are wiped.
// Every later Call fails.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.machine.wipe()
	if s.timer != nil {
		s.timer.Stop()
	}
	close(s.changed)
}

// Port returns the way to the Service for one kind of caller in this process.
func (s *Service) Port(caller Caller) Port { return port{s, caller} }

type port struct {
	service *Service
	caller  Caller
}

func (p port) Call(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	return p.service.Call(ctx, p.caller, request)
}

// ErrClosed is returned by a Call to a Service that was closed.
var ErrClosed = reason.New("the ceremony authority has been shut down")

// Call answers one request. A Watch waits until something changes, for at most
// WatchTime, and as long as ctx lives.
func (s *Service) Call(ctx context.Context, caller Caller, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	reply, changed, err := s.handle(caller, request)
	if err != nil || changed == nil {
		return reply, err
	}
	timer := time.NewTimer(WatchTime)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	reply, _, err = s.handle(caller, request)
	return reply, err
}

// With runs do on the Machine, with the lock held and the time brought up to date. It is
// for the holder of the Service, never for a Caller: do acts on something that no Caller can
// make up, such as an owner's signature. do stores what must be stored. It must not keep the
// Machine, nor call the Service.
func (s *Service) With(do func(*Machine) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.machine.Tick(s.now())
	err := do(s.machine)
	s.machine.publish()
	s.afterLocked()
	return err
}

// handle runs the Machine once. For a Watch that has seen the present version it
// also returns what to wait for.
func (s *Service) handle(caller Caller,
	request *systemv1.AuthorityRequest) (reply *systemv1.AuthorityReply, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	output := s.machine.Handle(s.now(), caller, proto.CloneOf(request))
	if output.Save != nil {
		if err := s.save(output.Save); err != nil {
			output = s.machine.Unsaved(output, err)
		}
	}
	s.afterLocked()
	if output.Unchanged {
		changed = s.changed
	}
	return output.Reply, changed, nil
}

// afterLocked wakes the watchers, and sets the timer to the next deadline.
func (s *Service) afterLocked() {
	if v := s.machine.Version(); v != s.version {
		s.version = v
		close(s.changed)
		s.changed = make(chan struct{})
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	if deadline, ok := s.machine.Deadline(); ok {
		s.timer = time.AfterFunc(max(0, deadline-s.now()), s.tick)
	}
}

// tick runs a deadline, so that a code is wiped even if nobody asks about it again.
func (s *Service) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.machine.Tick(s.now())
	s.afterLocked()
}

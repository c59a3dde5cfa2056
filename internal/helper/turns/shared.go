package turns

import (
	"context"
	"sync"
	"time"
)

// AskTime bounds the wait of a caller that only asks.
const AskTime = 30 * time.Second

// SharePause is how long after the beginning of one question the next one begins.
const SharePause = 200 * time.Millisecond

// Shared runs a question that takes programs once for all callers that ask it at the same time.
// Each answer is to a question that began after its caller asked, so none is old. However many
// callers ask, and however often, five questions a second are run.
type Shared[T any] struct {
	ask func(ctx context.Context) (T, error)

	asking sync.Mutex // held while one is asked; guards began
	began  time.Time

	mu   sync.Mutex
	next *question[T] // not begun yet; nil: nobody waits
}

type question[T any] struct {
	answered chan struct{}
	answer   T
	err      error
}

// NewShared returns a Shared of a question.
func NewShared[T any](ask func(ctx context.Context) (T, error)) *Shared[T] {
	return &Shared[T]{ask: ask}
}

// Get waits for an answer.
func (s *Shared[T]) Get(ctx context.Context) (answer T, err error) {
	s.mu.Lock()
	if s.next == nil {
		s.next = &question[T]{answered: make(chan struct{})}
		go s.answer()
	}
	q := s.next
	s.mu.Unlock()
	select {
	case <-q.answered:
		return q.answer, q.err
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

func (s *Shared[T]) answer() {
	s.asking.Lock()
	defer s.asking.Unlock()
	time.Sleep(SharePause - time.Since(s.began))
	s.began = time.Now()
	s.mu.Lock()
	q := s.next
	s.next = nil // who comes now wants a later one
	s.mu.Unlock()
	defer close(q.answered)
	ctx, cancel := context.WithTimeout(context.Background(), AskTime)
	defer cancel()
	q.answer, q.err = s.ask(ctx)
}

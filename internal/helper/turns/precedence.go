package turns

import (
	"context"
	"sync"
)

// Precedence is for what is more urgent than all else: while anybody has it, the others wait. The
// zero value is ready.
type Precedence struct {
	mu    sync.Mutex
	had   int
	ended chan struct{} // closed once nobody has it; nil: nobody has it
}

// Take takes it at once, even if somebody has it already. end gives it back.
func (p *Precedence) Take() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.had++; p.had == 1 {
		p.ended = make(chan struct{})
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.had--; p.had == 0 {
			close(p.ended)
			p.ended = nil
		}
	})
}

// Await waits until nobody has it, or ctx ends.
func (p *Precedence) Await(ctx context.Context) error {
	for {
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		if ended == nil {
			return nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

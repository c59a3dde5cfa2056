package client

import "sync"

// background is work that goes on while its caller continues. Sessions wait for it when they close, and
// others start more of it meanwhile; a sync.WaitGroup panics then.
type background struct {
	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when nothing runs; nil: nothing has run yet
}

// Go does something in the background.
func (b *background) Go(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == 0 {
		b.idle = make(chan struct{})
	}
	b.running++
	go func() {
		defer b.ended()
		do()
	}()
}

func (b *background) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running--; b.running == 0 {
		close(b.idle)
	}
}

// Wait waits until nothing runs.
func (b *background) Wait() {
	b.mu.Lock()
	idle := b.idle
	b.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

package client

import (
	"sync"
	"sync/atomic"
	"testing"
)

// One session closes, and waits for what it has started, while another one connects.
func TestASessionClosesWhileAnotherStoresSomething(t *testing.T) {
	var saving background
	var sessions sync.WaitGroup
	for range 8 {
		sessions.Go(func() {
			for range 2000 {
				var stored atomic.Bool
				saving.Go(func() { stored.Store(true) })
				if saving.Wait(); !stored.Load() {
					t.Error("it closed before its results were stored")
				}
			}
		})
	}
	sessions.Wait()
}

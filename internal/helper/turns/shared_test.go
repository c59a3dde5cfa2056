package turns

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// However many ask at once, few questions are asked, and each answer is to one that began
// after it was wanted.
func TestManyWhoAskShareFreshAnswers(t *testing.T) {
	var asked atomic.Int64
	s := NewShared(func(context.Context) (int64, error) { return asked.Add(1), nil })
	began := time.Now()
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			for range 4 {
				before := asked.Load()
				if answer, err := s.Get(t.Context()); err != nil || answer <= before {
					t.Errorf("after %d questions the answer is to number %d, %v", before, answer, err)
				}
			}
		})
	}
	asking.Wait()
	if n, most := asked.Load(), int64(time.Since(began)/SharePause)+1; n > most {
		t.Errorf("%d questions were asked, and not %d", n, most)
	}
}

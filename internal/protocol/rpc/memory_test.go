package rpc

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// held attacks a Base with some Apps that have all the sessions and calls that they may have,
// and returns how many bytes the process then has in use for them.
func held(t *testing.T, apps int, method string, size int, change func(*base)) int64 {
	const sessions = 8
	b := newBase(t)
	noRate(b) // it only takes longer with
	change(b)
	request, err := proto.Marshal(&data{Value: make([]byte, size)})
	if err != nil {
		t.Fatal(err)
	}
	used := func() int64 {
		runtime.GC()
		runtime.GC()
		return memoryNow()
	}
	before := used()
	var sending sync.WaitGroup
	for range apps {
		peer := new(Peer)
		for range sessions {
			conn := b.serve(t.Context(), peer) // a pipe: no socket holds anything
			sending.Go(func() {
				for call := range uint32(MaxCalls) {
					f := frame{kind: kindOpen, call: call + 1, state: stateLast, name: []byte(method), piece: request}
					if conn.WriteRecord(f.append(nil)) != nil {
						return
					}
				}
			})
		}
	}
	sending.Wait()
	most := int64(0)
	for range 10 { // all of it has arrived by then
		time.Sleep(50 * time.Millisecond)
		most = max(most, used()-before)
	}
	return most
}

// The attack: Apps open all the calls that they can, each with a request that fills a frame,
// and read no answer. Requests that wait for their turn, and answers that wait to
// leave, belong to no more calls than an App may have under way. The broken Base counts the calls of each session only.
func TestMessagesOfOneFrameHoldNoMoreThanTheCallsOfAnApp(t *testing.T) {
	const apps = 4
	// A call that is refused, and a session, take something as well.
	const limit = apps * (MaxAppCalls*MaxRecord + 8*(MaxCalls*8<<10+64<<10))
	uncounted := func(b *base) { b.limits.appCalls = 1 << 40 }
	for name, method := range map[string]string{"requests that wait for their turn": "Turns", "answers that nobody reads": "Echo"} {
		as, broken := held(t, apps, method, 15_900, func(*base) {}), held(t, apps, method, 15_900, uncounted)
		t.Logf("%s: %d KiB, and %d KiB if only the calls of a session are counted", name, as>>10, broken>>10)
		if as > limit || broken <= limit {
			t.Errorf("%s: %d bytes are held, %d without the limit; at most %d are allowed", name, as, broken, limit)
		}
	}
}

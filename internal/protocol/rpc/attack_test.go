package rpc

import (
	"context"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/rpcattack"
)

const (
	// attackTime is how long each attack lasts.
	attackTime = 700 * time.Millisecond
	// attackMemory is how many bytes more than in peace one hostile App may cost the
	// process: its budget twice, for what waits for the collector, and what its own sessions
	// and sockets take in this process.
	attackMemory = 4*PeerBuffer + 8<<20
)

// fared is how a Base and another App fared under an attack.
type fared struct {
	p50, p99 time.Duration
	calls    int64 // of the attacker that were served
	memory   int64 // the most bytes above those in peace
	after    int64 // calls that were still counted a moment after the end
}

// under attacks a Base on loopback while another App makes calls.
func under(t *testing.T, attack *rpcattack.Attack, broken bool) fared {
	var served atomic.Int64
	b := newBase(t, func(c *Config) {
		c.Methods = append(c.Methods, Method{Name: "Attacked", Allow: func(context.Context) error { return nil }, MaxRequest: MaxRequest,
			Deadline: time.Minute, Handler: Unary(func(_ context.Context, m *data) (*data, error) { served.Add(1); return m, nil })})
	})
	if broken {
		noRate(b)
		b.limits.calls, b.limits.buffer, b.limits.peerBuffer, b.budget.limit = 1<<30, 1<<40, 1<<40, 1<<40
	}
	other := b.overTCP(new(Peer))
	ctx, cancel := context.WithTimeout(t.Context(), attackTime)
	defer cancel()
	var f fared
	before := memory()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if attack == nil {
			<-ctx.Done()
			return
		}
		attack.Run(ctx, rpcattack.Target{
			Dial: func(context.Context) (rpcattack.Conn, error) {
				app, raw := tcpPair(t)
				return b.serveOn(t.Context(), &b.peer, app, raw), nil
			},
			Call: "Attacked", Request: must(proto.Marshal(&data{Value: make([]byte, 100)})),
			Stream: "Pour", StreamRequest: must(proto.Marshal(&number{Value: 1000})),
		})
	}()
	var times []time.Duration
	request := &data{Value: make([]byte, 1024)}
	for ctx.Err() == nil {
		began := time.Now()
		if _, err := Call[data](t.Context(), other, "Echo", request); err != nil {
			t.Fatalf("another App's call: %v", err)
		}
		times = append(times, time.Since(began))
		held := memoryNow() - before
		if held > attackMemory && !broken {
			held = memory() - before // when the collector is late, what is dead does not count
		}
		f.memory = max(f.memory, held)
		time.Sleep(3 * time.Millisecond) // within the rate
	}
	<-done
	slices.Sort(times)
	f.p50, f.p99, f.calls = times[len(times)/2], times[len(times)*99/100], served.Load()
	for range 500 {
		if f.after = b.peer.running.Load(); f.after == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return f
}

// memoryNow returns the bytes of objects and stacks, dead ones included.
func memoryNow() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}

// One hostile App costs no more than its share, whatever it does. The test also
// prints its gain without the limits. Each limit has a test of its own that proves the gain,
// on a clock that no slow machine holds up. How long another App's calls take is printed as well; how
// long they may is the bench's.
func TestAttacksOfAPairedAppCostNoMoreThanItsShare(t *testing.T) {
	t.Logf("%-40s %10s %10s %12s %10s", "", "p50", "p99", "served", "memory")
	print := func(name string, f fared) {
		t.Logf("%-40s %10s %10s %10d/s %6d KiB", name, f.p50.Round(time.Microsecond), f.p99.Round(time.Microsecond),
			f.calls*int64(time.Second)/int64(attackTime), f.memory>>10)
	}
	print("in peace", under(t, nil, false))
	for _, attack := range rpcattack.Attacks {
		f := under(t, &attack, false)
		print(attack.Name, f)
		print("… without limits", under(t, &attack, true))
		if f.calls > int64(FrameBurst+FrameRate*(attackTime+time.Second)/time.Second) {
			t.Errorf("%s: %d calls were served", attack.Name, f.calls)
		}
		if f.memory > attackMemory || f.after != 0 {
			t.Errorf("%s: %d bytes were held; %d calls run on", attack.Name, f.memory, f.after)
		}
	}
}

package rpc

import (
	"bytes"
	"net"
	"runtime"
	"testing"
)

// tcpPair returns the two ends of a connection over loopback.
func tcpPair(t testing.TB) (app, base net.Conn) {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	app = must(net.Dial("tcp", listener.Addr().String()))
	base = must(listener.Accept())
	t.Cleanup(func() { _, _ = app.Close(), base.Close() })
	return app, base
}

// overTCP returns a session over loopback, for a peer with no rate of frames.
func (b *base) overTCP(peer *Peer) *Session {
	app, raw := tcpPair(b.t)
	s := NewSession(b.serveOn(b.t.Context(), peer, app, raw))
	b.t.Cleanup(func() { _ = s.Close() })
	return s
}

// One call with an answer of 1 KiB, both ends.
func BenchmarkCall(b *testing.B) {
	base := newBase(b)
	noRate(base)
	s := base.overTCP(&base.peer)
	request := &data{Value: bytes.Repeat([]byte{1}, 1024)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Call[data](b.Context(), s, "Echo", request); err != nil {
			b.Fatal(err)
		}
	}
}

// One message of a stream, both ends.
func BenchmarkStream(b *testing.B) {
	base := newBase(b)
	noRate(base)
	s := base.overTCP(&base.peer)
	stream := must(Watch[data](b.Context(), s, "Pour", &number{Value: 100}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := stream.Receive(); err != nil {
			b.Fatal(err)
		}
	}
}

// Idle sessions that have made one call, both ends: memory with stacks.
func BenchmarkIdleSession(b *testing.B) {
	base := newBase(b)
	const sessions = 500
	for b.Loop() {
		before := memory()
		for range sessions {
			s := base.overTCP(new(Peer))
			if _, err := Call[data](b.Context(), s, "Echo", &data{Value: make([]byte, 1000)}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(memory()-before)/sessions/1024, "KiB/session")
	}
}

// memory returns the bytes that the process uses after a collection, stacks included.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

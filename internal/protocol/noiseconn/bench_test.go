package noiseconn

import (
	"io"
	"net"
	"testing"
)

// The comparison with crypto/tls is in /bench; these are for profiling.

func BenchmarkConnectHandshake(b *testing.B) {
	k := newConnectKeys(b)
	b.ReportAllocs()
	for b.Loop() {
		k.connect(b)
	}
}

func BenchmarkPairHandshake(b *testing.B) {
	app, base := mustStatic(b), mustStatic(b)
	b.ReportAllocs()
	for b.Loop() {
		runPairing(b, app, base)
	}
}

// BenchmarkMatchMAC1 is what a stranger costs a Base with every place taken.
func BenchmarkMatchMAC1(b *testing.B) {
	const active, tombstones = 32, 64
	var keys []MAC1Key
	for range active + tombstones {
		keys = append(keys, must(MAC1KeyOf(must(GeneratePairKey(nil)))))
	}
	r1 := make([]byte, R1Size)
	b.ReportAllocs()
	for b.Loop() {
		if MatchMAC1(keys, r1) != -1 {
			b.Fatal("zeros were accepted")
		}
	}
}

func BenchmarkRecords(b *testing.B) {
	left, right := connPair(b)
	go func() { _, _ = io.Copy(io.Discard, right) }()
	chunk := make([]byte, 4*MaxPlaintext)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := left.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
}

// connPair returns both ends of a session over net.Pipe.
func connPair(t testing.TB) (app, base *Conn) {
	t.Helper()
	a, b := net.Pipe()
	ta, tb := newConnectKeys(t).connect(t)
	app, base = NewConn(a, ta), NewConn(b, tb)
	t.Cleanup(func() { a.Close(); b.Close() })
	return app, base
}

package main

import (
	"net"
	"runtime"
)

// measureHandshake counts handshakes a second of one core, both ends: hybrid
// IKpsk2 against mutual TLS. Connecting by TCP is not counted.
func measureHandshake() ([]row, error) {
	const rounds, handshakes = 9, 100
	our, rival, err := contestants()
	if err != nil {
		return nil, err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	o, r, err := alternate(rounds,
		func() (float64, error) { return handshakesPerSecond(our, handshakes) },
		func() (float64, error) { return handshakesPerSecond(rival, handshakes) })
	return []row{{what: "handshake, both ends on one core", unit: "1/s", ours: o, rival: r}}, err
}

func handshakesPerSecond(c channel, handshakes int) (float64, error) {
	type pair struct{ client, server net.Conn }
	var pairs []pair
	defer func() {
		for _, p := range pairs {
			p.client.Close()
			p.server.Close()
		}
	}()
	for range handshakes {
		client, server, err := plainPair()
		if err != nil {
			return 0, err
		}
		pairs = append(pairs, pair{client, server})
	}
	runtime.GC()
	start := cpuTime()
	for _, p := range pairs {
		if _, _, err := c.handshake(p.client, p.server); err != nil {
			return 0, err
		}
	}
	return float64(handshakes) / (cpuTime() - start).Seconds(), nil
}

package main

import (
	"net"
	"runtime"
)

// measureHandshake counts handshakes a second of one core, both ends: hybrid
// IKpsk2 against mutual TLS. Connecting by TCP is not counted.
//
// Package noiseconn keeps the Diffie-Hellman between the two static keys, which
// is the same each time. The second row is without that: a process that makes
// one connection, as both ends.
func measureHandshake() ([]row, error) {
	const rounds, handshakes = 9, 100
	our, rival, err := contestants()
	if err != nil {
		return nil, err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rows := []row{
		{what: "handshake, both ends on one core", unit: "1/s"},
		{what: "handshake, the first of both ends", unit: "1/s"},
	}
	rows[0].ours, rows[0].rival, err = alternate(rounds,
		func() (float64, error) { return handshakesPerSecond(handshakes, always(our)) },
		func() (float64, error) { return handshakesPerSecond(handshakes, always(rival)) })
	if err != nil {
		return nil, err
	}
	rows[1].ours, rows[1].rival, err = alternate(rounds,
		func() (float64, error) { return handshakesPerSecond(handshakes, firstOfOurs) },
		func() (float64, error) { return handshakesPerSecond(handshakes, always(rival)) })
	return rows, err
}

func always(c channel) func() (channel, error) { return func() (channel, error) { return c, nil } }

func firstOfOurs() (channel, error) { return newOurs() }

// handshakesPerSecond makes all connections and channels before it measures.
func handshakesPerSecond(handshakes int, newChannel func() (channel, error)) (float64, error) {
	type attempt struct {
		channel        channel
		client, server net.Conn
	}
	var attempts []attempt
	defer func() {
		for _, a := range attempts {
			a.client.Close()
			a.server.Close()
		}
	}()
	for range handshakes {
		channel, err := newChannel()
		if err != nil {
			return 0, err
		}
		client, server, err := plainPair()
		if err != nil {
			return 0, err
		}
		attempts = append(attempts, attempt{channel, client, server})
	}
	runtime.GC()
	start := cpuTime()
	for _, a := range attempts {
		if _, _, err := a.channel.handshake(a.client, a.server); err != nil {
			return 0, err
		}
	}
	return float64(handshakes) / (cpuTime() - start).Seconds(), nil
}

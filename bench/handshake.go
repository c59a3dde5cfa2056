package main

import (
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// measureHandshake counts handshakes a second of one core, both ends: hybrid
// IKpsk2 against mutual TLS. Connecting by TCP is not counted.
func measureHandshake(r *report) error {
	const rounds, handshakes = 9, 100
	our, rival, err := contestants()
	if err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f := figure{what: "handshakes, both ends on one core", unit: "1/s", rival: "hybrid TLS 1.3, mutual Ed25519", least: 1.1, more: true}
	f.ours, f.their, err = alternateFigures(rounds,
		func() (float64, error) { return handshakesPerSecond(handshakes, our) },
		func() (float64, error) { return handshakesPerSecond(handshakes, rival) })
	r.add(f)
	return err
}

// handshakesPerSecond makes all connections before it measures.
func handshakesPerSecond(handshakes int, c channel) (float64, error) {
	type attempt struct{ client, server net.Conn }
	var attempts []attempt
	defer func() {
		for _, a := range attempts {
			a.client.Close()
			a.server.Close()
		}
	}()
	for range handshakes {
		client, server, err := plainPair()
		if err != nil {
			return 0, err
		}
		attempts = append(attempts, attempt{client, server})
	}
	runtime.GC()
	start := cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	for _, a := range attempts {
		if _, _, err := c.handshake(a.client, a.server); err != nil {
			return 0, err
		}
	}
	return float64(handshakes) / (cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID) - start).Seconds(), nil
}

// cpuTime is what this process (unix.CLOCK_PROCESS_CPUTIME_ID) or thread has used of the
// processor so far. Unlike the clock it does not count what others use.
func cpuTime(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		fail(err)
	}
	return time.Duration(t.Nano())
}

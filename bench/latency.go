package main

import (
	"io"
	"net"
	"slices"
	"time"
)

// measureLatency sends 1 KiB to and fro over loopback.
func measureLatency() ([]row, error) {
	const rounds, trips = 7, 4000
	our, rival, err := contestants()
	if err != nil {
		return nil, err
	}
	rows := []row{
		{what: "latency of 1 KiB to and fro, p50", unit: "µs", lessIsBetter: true},
		{what: "latency of 1 KiB to and fro, p99", unit: "µs", lessIsBetter: true},
	}
	quantiles := []float64{0.50, 0.99}
	for i, quantile := range quantiles {
		rows[i].ours, rows[i].rival, err = alternate(rounds,
			func() (float64, error) { return pingPong(our, trips, quantile) },
			func() (float64, error) { return pingPong(rival, trips, quantile) })
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// pingPong returns a quantile of the round trips in microseconds.
func pingPong(c channel, trips int, quantile float64) (float64, error) {
	client, server, err := securePair(c)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	echoed := make(chan error, 1)
	go func() {
		defer server.Close()
		echoed <- echo(server, trips)
	}()
	message := make([]byte, 1<<10)
	times := make([]time.Duration, trips)
	for i := range times {
		start := time.Now()
		if _, err := client.Write(message); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(client, message); err != nil {
			return 0, err
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return float64(times[int(float64(trips)*quantile)].Nanoseconds()) / 1e3, <-echoed
}

func echo(c net.Conn, trips int) error {
	message := make([]byte, 1<<10)
	for range trips {
		if _, err := io.ReadFull(c, message); err != nil {
			return err
		}
		if _, err := c.Write(message); err != nil {
			return err
		}
	}
	return nil
}

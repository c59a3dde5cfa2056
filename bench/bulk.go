package main

import (
	"errors"
	"io"
	"net"
	"time"
)

// measureBulk sends a stream over loopback, in writes of 64 KiB.
func measureBulk() ([]row, error) {
	const rounds, size, chunk = 7, 256 << 20, 64 << 10
	our, rival, err := contestants()
	if err != nil {
		return nil, err
	}
	o, r, err := alternate(rounds,
		func() (float64, error) { return throughput(our, size, chunk) },
		func() (float64, error) { return throughput(rival, size, chunk) })
	return []row{{what: "bulk, ChaCha20-Poly1305 over loopback", unit: "MB/s", ours: o, rival: r}}, err
}

func throughput(c channel, size, chunk int) (float64, error) {
	client, server, err := securePair(c)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	defer server.Close()
	start := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- writeChunks(client, size, chunk) }()
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(server, int64(size)), make([]byte, chunk)); err != nil {
		return 0, err
	}
	seconds := time.Since(start).Seconds()
	return float64(size) / 1e6 / seconds, <-sent
}

func writeChunks(c net.Conn, size, chunk int) error {
	b := make([]byte, chunk)
	var errs []error
	for sent := 0; sent < size && errs == nil; sent += chunk {
		if _, err := c.Write(b); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

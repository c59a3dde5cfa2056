package main

import (
	"context"
	"errors"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// measureCalls is what somebody waits for: a first call, with everything that
// comes before it, and a call on a connection that is there.
//
// In a first call of ours is what the rival does not do: the App writes its
// counter to disk before it connects, and the Base the highest it has seen, so that a
// recorded handshake is worth nothing. The disk decides how long that takes.
func measureCalls() (rows []row, err error) {
	const rounds, connects, calls = 5, 20, 2000
	w, rival, err := both()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(), rival.close()) }()

	first := row{what: "connect, handshake, first call (ours: with 2 counters on disk)", unit: "ms", lessIsBetter: true}
	first.ours, first.rival, err = alternate(rounds,
		func() (float64, error) {
			return millisecondsEach(connects, func() error {
				session, err := w.call()
				if session != nil {
					session.Close()
				}
				return err
			})
		},
		func() (float64, error) {
			return millisecondsEach(connects, func() error {
				httpClient, _, err := rival.call()
				httpClient.CloseIdleConnections()
				return err
			})
		})
	if err != nil {
		return nil, err
	}
	rows = append(rows, first)

	session, err := w.call()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	httpClient, service, err := rival.call()
	if err != nil {
		return nil, err
	}
	defer httpClient.CloseIdleConnections()
	for _, q := range []struct {
		name     string
		quantile float64
	}{{"p50", 0.50}, {"p99", 0.99}} {
		r := row{what: "call on an open connection, " + q.name, unit: "µs", lessIsBetter: true}
		r.ours, r.rival, err = alternate(rounds,
			func() (float64, error) { return callQuantile(session.Info, calls, q.quantile) },
			func() (float64, error) { return callQuantile(service, calls, q.quantile) })
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func millisecondsEach(times int, do func() error) (float64, error) {
	start := time.Now()
	for range times {
		if err := do(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start).Microseconds()) / 1e3 / float64(times), nil
}

// informer is a client of the one method that is measured.
type informer interface {
	GetInfo(context.Context, *basev1.GetInfoRequest) (*basev1.GetInfoResponse, error)
}

// callQuantile returns a quantile of the time of a call in microseconds.
func callQuantile(service informer, calls int, quantile float64) (float64, error) {
	return quantileOf(calls, quantile, func() error {
		_, err := service.GetInfo(context.Background(), &basev1.GetInfoRequest{})
		return err
	})
}

// quantileOf returns a quantile of the time that something takes, in microseconds.
func quantileOf(times int, quantile float64, do func() error) (float64, error) {
	took := make([]time.Duration, times)
	for i := range took {
		start := time.Now()
		if err := do(); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return float64(took[int(float64(times)*quantile)].Nanoseconds()) / 1e3, nil
}

package main

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// measureIdle is the memory of a session that waits, both ends: heap and stacks
// after a collection. A Base keeps 8 sessions of an App at most, so the figure is of
// those.
func measureIdle() (rows []row, err error) {
	const rounds, sessions = 5, 8
	w, rival, err := both()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(), rival.close()) }()
	r := row{what: "an idle session, both ends", unit: "KiB", lessIsBetter: true}
	r.ours, r.rival, err = alternate(rounds,
		func() (float64, error) {
			var open []*client.Session
			defer func() {
				for _, session := range open {
					session.Close()
				}
			}()
			return kibibytesEach(sessions, func() error {
				session, err := w.call()
				open = append(open, session)
				return err
			})
		},
		func() (float64, error) {
			var open []*http.Client
			defer func() {
				for _, c := range open {
					c.CloseIdleConnections()
				}
			}()
			return kibibytesEach(sessions, func() error {
				c, _, err := rival.call()
				open = append(open, c)
				return err
			})
		})
	return []row{r}, err
}

func kibibytesEach(times int, open func() error) (float64, error) {
	before := inUse()
	for range times {
		if err := open(); err != nil {
			return 0, err
		}
	}
	return max(0, float64(inUse())-float64(before)) / 1024 / float64(times), nil
}

// inUse returns the bytes of heap and stacks, after what is garbage is gone.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// settleTime bounds how long goroutines may take to end after their connection.
const settleTime = 10 * time.Second

// measureLeak counts the goroutines that 10,000 connections leave behind at the Base and
// in the App together. There is nothing to compare with: it has to be 0.
func measureLeak() (rows []row, err error) {
	const connects = 10_000
	w, err := newWhole()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	connect := func() error {
		session, err := w.call()
		if session != nil {
			session.Close()
		}
		return err
	}
	if err := connect(); err != nil { // starts what stays
		return nil, err
	}
	before := settled(0)
	for range connects {
		if err := connect(); err != nil {
			return nil, err
		}
	}
	return []row{{what: fmt.Sprintf("goroutines left by %d connections", connects), unit: "1", ours: float64(settled(before) - before)}}, nil
}

// settled returns the number of goroutines once it is at most enough, or does not
// change any more.
func settled(enough int) int {
	least := runtime.NumGoroutine()
	for deadline := time.Now().Add(settleTime); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		least = min(least, runtime.NumGoroutine())
		if enough > 0 && least <= enough {
			break
		}
	}
	return least
}

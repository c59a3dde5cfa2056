package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// callRounds and callsEach are how many calls are timed.
const (
	callRounds = 9
	callsEach  = 200
)

// measureEntry is a call on a connection that is there, through NGINX as on the appliance,
// beside gRPC-Go through the same NGINX.
func measureEntry(r *report) error {
	return r.measureCall("through NGINX", func() (*entrance, error) { return newEntrance() })
}

// measureDirect is the same without NGINX.
func measureDirect(r *report) error { return r.measureCall("direct", newDirect) }

func (r *report) measureCall(way string, start func() (*entrance, error)) (err error) {
	e, err := start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	session, err := e.call()
	if err != nil {
		return err
	}
	defer session.Close()
	conn, err := grpcDial(e.their, e.rival.tls.client)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx := context.Background()
	ours, theirs, err := alternate(callRounds,
		func() (sample, error) {
			return paced(callsEach, func() error {
				_, err := session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
				return err
			})
		},
		func() (sample, error) {
			return paced(callsEach, func() error {
				_, err := grpcCall(ctx, conn)
				return err
			})
		})
	if err != nil {
		return err
	}
	for _, q := range []struct {
		name            string
		quantile, least float64
	}{{"p50", 0.50, 1.3}, {"p99", 0.99, 1.1}} {
		r.add(figure{what: fmt.Sprintf("call %s, answer of %d B, %s", way, proto.Size(e.apps), q.name), unit: "µs",
			rival: "gRPC-Go, mutual TLS 1.3, " + way, ours: ours.quantile(q.quantile), their: theirs.quantile(q.quantile), least: q.least})
	}
	r.plots = append(r.plots, plot{file: "call-" + map[bool]string{true: "direct", false: "nginx"}[way == "direct"],
		title: "A call " + way + ": the time within which this share of the calls was answered", x: "share of calls, %", y: "µs",
		series: []series{{"ours", ours.quantiles()}, {"gRPC-Go", theirs.quantiles()}}})
	return nil
}

// measureConnect is what somebody waits for at first: everything up to the answer of a first
// call, of an App that runs, and of one that is started for it.
func measureConnect(r *report) (err error) {
	const times, connects = 7, 20
	e, err := newDirect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	ctx := context.Background()
	ours, theirs, err := alternate(times,
		func() (sample, error) {
			return paced(connects, func() error {
				session, err := e.call()
				if session != nil {
					session.Close()
				}
				return err
			})
		},
		func() (sample, error) {
			return paced(connects, func() error {
				conn, err := grpcDial(e.their, e.rival.tls.client)
				if err != nil {
					return err
				}
				_, err = grpcCall(ctx, conn)
				return errors.Join(err, conn.Close())
			})
		})
	if err != nil {
		return err
	}
	r.add(figure{what: "connect, handshake, first call, a running App, p50", unit: "ms", rival: "gRPC-Go, hybrid TLS 1.3, no resumption",
		ours: ours.quantile(0.5) / 1e3, their: theirs.quantile(0.5) / 1e3, least: 1})

	program, err := e.buildApp()
	if err != nil {
		return err
	}
	var s sample
	for range 20 {
		began := time.Now()
		if out, err := exec.Command(program, "--dir", filepath.Join(e.dir, "app"), "apps", "list").CombinedOutput(); err != nil {
			return fmt.Errorf("run the App: %w: %s", err, out)
		}
		s = append(s, time.Since(began))
	}
	r.add(figure{what: "the same, a fresh process of the App, to its end", unit: "ms", ours: s.quantile(0.5) / 1e3})
	return nil
}

// buildApp builds the App.
func (e *entrance) buildApp() (program string, err error) {
	program = filepath.Join(e.files, "bitbox-app")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/bitbox-app").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the App: %w: %s", err, out)
	}
	return program, nil
}

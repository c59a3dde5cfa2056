package main

import (
	"context"
	"errors"
	"runtime"

	"google.golang.org/grpc"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
)

// tuned makes gRPC-Go as small as its options allow.
var (
	tunedServer = []grpc.ServerOption{grpc.ReadBufferSize(1 << 10), grpc.WriteBufferSize(1 << 10)}
	tunedClient = []grpc.DialOption{grpc.WithReadBufferSize(1 << 10), grpc.WithWriteBufferSize(1 << 10)}
)

// measureMemory is what a session takes at both ends together: heap and stacks after a
// collection, with all that stands around the channel.
func measureMemory(r *report) (err error) {
	const rounds = 3
	// Many sessions, so that odds and ends do not count, and fewer live streams than the Base has for
	// viewers: of its 256 it keeps some for owners.
	const manyApps = 24
	e, err := newDirect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	for len(e.known) < manyApps {
		if err := e.know(); err != nil {
			return err
		}
	}
	small, err := newGRPC(e.apps, e.subscribe, tunedServer...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, small.close()) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	ours := func(use func(*client.Session) error) func() (float64, error) {
		return func() (float64, error) {
			var open []*client.Session
			defer func() {
				for _, session := range open {
					session.Close()
				}
			}()
			return kibibytesEach(registry.MaxSessions*manyApps, func(n int) error {
				session, err := e.known[n%manyApps].Open("")
				if err != nil {
					return err
				}
				open = append(open, session)
				return use(session)
			})
		}
	}
	theirs := func(service *grpcService, options []grpc.DialOption, use func(*grpc.ClientConn) error) func() (float64, error) {
		return func() (float64, error) {
			var open []*grpc.ClientConn
			defer func() {
				for _, conn := range open {
					_ = conn.Close()
				}
			}()
			return kibibytesEach(registry.MaxSessions*manyApps, func(int) error {
				conn, err := grpcDial(service.addr, service.tls.client, options...)
				if err != nil {
					return err
				}
				open = append(open, conn)
				return use(conn)
			})
		}
	}
	call := func(session *client.Session) error {
		_, err := session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
		return err
	}
	theirCall := func(conn *grpc.ClientConn) error {
		_, err := grpcCall(ctx, conn)
		return err
	}
	watch := func(session *client.Session) error {
		stream, err := session.Events.WatchEvents(ctx, &basev1.WatchEventsRequest{})
		if err != nil {
			return err
		}
		if _, err = stream.Receive(); err != nil {
			return err
		}
		go func() { // an App reads its events: here those of the other sessions
			for err := error(nil); err == nil; _, err = stream.Receive() {
			}
		}()
		return nil
	}
	theirWatch := func(conn *grpc.ClientConn) error {
		stream, err := grpcFollow(ctx, conn)
		if err != nil {
			return err
		}
		go func() { _ = stream.RecvMsg(&basev1.Event{}) }()
		return nil
	}
	for _, f := range []struct {
		figure
		ours, theirs func() (float64, error)
	}{
		{figure{what: "idle session, both ends, memory", rival: "gRPC-Go as it comes", least: 4}, ours(call), theirs(e.rival, nil, theirCall)},
		{figure{what: "idle session, both ends, memory", rival: "gRPC-Go, tuned", least: 2}, ours(call), theirs(small, tunedClient, theirCall)},
		{figure{what: "session with a live stream, both ends, memory", rival: "gRPC-Go", least: 2},
			ours(watch), theirs(e.rival, nil, theirWatch)},
	} {
		f.unit = "KiB"
		if f.figure.ours, f.figure.their, err = alternateFigures(rounds, f.ours, f.theirs); err != nil {
			return err
		}
		r.add(f.figure)
	}
	return nil
}

func kibibytesEach(times int, open func(n int) error) (float64, error) {
	before := inUse()
	for n := range times {
		if err := open(n); err != nil {
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

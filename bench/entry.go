package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
)

// answerSize is how long the answer of a call is, about, in bytes.
const answerSize = 1 << 10

// entrance is a whole Base behind Debian's NGINX, as on the appliance, and gRPC-Go behind
// the same NGINX.
type entrance struct {
	*whole
	nginx *nginx
	rival *grpcService
	// our and their are where NGINX listens.
	our, their string
	apps       *basev1.ListAppsResponse // what a call answers

	mu      sync.Mutex
	streams map[chan *basev1.WatchEventsResponse]bool // of the rival
}

// newEntrance needs root, for Debian's NGINX.
func newEntrance() (e *entrance, err error) {
	e = &entrance{whole: &whole{}, streams: map[chan *basev1.WatchEventsResponse]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	dir, err := os.MkdirTemp("", "bitbox-base-bench-")
	if err != nil {
		return e, err
	}
	socket, err := ipc.Listen(filepath.Join(dir, "middleware.sock"), 0o600)
	if err != nil {
		return e, err
	}
	if e.whole, err = newWholeBehind(socket); err != nil {
		return e, err
	}
	e.files = dir
	if e.rival, err = newGRPC(nil, e.subscribe); err != nil {
		return e, err
	}
	if e.our, err = freePort(); err != nil {
		return e, err
	}
	if e.their, err = freePort(); err != nil {
		return e, err
	}
	if e.nginx, err = startNGINX(dir, e.our, socket.Addr().String(), e.their, e.rival.addr); err != nil {
		return e, err
	}
	return e, e.fill()
}

// fill pairs Apps until the list of them is as long as it shall be.
func (e *entrance) fill() error {
	if err := e.pair(e.app, e.our); err != nil {
		return err
	}
	session, err := e.call()
	if err != nil {
		return err
	}
	defer session.Close()
	for n := 0; ; n++ {
		if e.apps, err = session.Apps.ListApps(context.Background(), &basev1.ListAppsRequest{}); err != nil {
			return err
		}
		e.rival.apps = e.apps
		if proto.Size(e.apps) >= answerSize {
			return nil
		}
		app, err := client.New(client.Options{Dir: filepath.Join(e.files, fmt.Sprint("app", n)), Name: strings.Repeat("x", 60), NoDiscovery: true})
		if err != nil {
			return err
		}
		if err := e.pair(app, e.our); err != nil {
			return err
		}
	}
}

// freePort returns an address on loopback that nobody listens on.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// subscribe is what the rival's streams get their events from.
func (e *entrance) subscribe() (<-chan *basev1.WatchEventsResponse, func()) {
	events := make(chan *basev1.WatchEventsResponse, 64)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams[events] = true
	return events, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.streams, events)
	}
}

// publish hands an event to the rival's streams.
func (e *entrance) publish(event *basev1.WatchEventsResponse) {
	event.Time = timestamppb.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream := range e.streams {
		stream <- event
	}
}

func (e *entrance) close() error {
	var errs []error
	if e.nginx != nil {
		errs = append(errs, e.nginx.stop())
	}
	if e.rival != nil {
		errs = append(errs, e.rival.close())
	}
	if e.whole.base != nil {
		errs = append(errs, e.whole.close())
	}
	if e.files != "" {
		errs = append(errs, os.RemoveAll(e.files))
	}
	return errors.Join(errs...)
}

// needsRoot tells who has no root what is not measured.
func needsRoot(what string) bool {
	if os.Geteuid() == 0 {
		return false
	}
	fmt.Fprintf(os.Stderr, "%s is not measured: Debian's NGINX comes from a root file system that only root can make\n", what)
	return true
}

// measureEntry is a call on a connection that is there, through NGINX as on the appliance,
// beside gRPC-Go over mutual TLS 1.3: through the same NGINX, and without.
func measureEntry() (rows []row, err error) {
	const rounds, calls = 7, 2000
	if needsRoot("a call through NGINX") {
		return nil, nil
	}
	e, err := newEntrance()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	session, err := e.call()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	ctx := context.Background()
	ours := func() error {
		_, err := session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
		return err
	}
	for _, way := range []struct{ name, address string }{{"too", e.their}, {"without it", e.rival.addr}} {
		conn, err := grpcDial(way.address, e.rival.tls.client)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		theirs := func() error {
			_, err := grpcCall(ctx, conn)
			return err
		}
		for _, q := range []struct {
			name     string
			quantile float64
		}{{"p50", 0.50}, {"p99", 0.99}} {
			r := row{what: fmt.Sprintf("call through NGINX, answer of %d B, %s (rival: gRPC-Go, %s)", proto.Size(e.apps), q.name, way.name), unit: "µs", lessIsBetter: true}
			r.ours, r.rival, err = alternate(rounds,
				func() (float64, error) { return quantileOf(calls, q.quantile, ours) },
				func() (float64, error) { return quantileOf(calls, q.quantile, theirs) })
			if err != nil {
				return nil, err
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// measureStream is the memory of a session with a live stream of events, both ends, NGINX
// not counted.
func measureStream() (rows []row, err error) {
	const rounds, sessions = 5, 8
	if needsRoot("a session with a stream through NGINX") {
		return nil, nil
	}
	e, err := newEntrance()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := row{what: "a session with a live stream, both ends (rival: gRPC-Go)", unit: "KiB", lessIsBetter: true}
	r.ours, r.rival, err = alternate(rounds,
		func() (float64, error) {
			var open []*client.Session
			defer func() {
				for _, session := range open {
					session.Close()
				}
			}()
			return kibibytesEach(sessions, func() error {
				session, err := e.call()
				if err != nil {
					return err
				}
				open = append(open, session)
				stream, err := session.Events.WatchEvents(ctx, &basev1.WatchEventsRequest{})
				if err != nil {
					return err
				}
				_, err = stream.Receive()
				return err
			})
		},
		func() (float64, error) {
			var open []*grpc.ClientConn
			defer func() {
				for _, conn := range open {
					_ = conn.Close()
				}
			}()
			return kibibytesEach(sessions, func() error {
				conn, err := grpcDial(e.their, e.rival.tls.client)
				if err != nil {
					return err
				}
				open = append(open, conn)
				_, err = grpcFollow(ctx, conn)
				return err
			})
		})
	return []row{r}, err
}

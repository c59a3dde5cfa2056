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

// entrance is a whole Base and gRPC-Go beside it: behind Debian's NGINX, as on the
// appliance, or without.
type entrance struct {
	*whole
	nginx *nginx
	rival *grpcService
	// our and their are where the App and the rival's client connect.
	our, their string
	apps       *basev1.ListAppsResponse // what a call answers
	known      []*client.App            // that are paired

	mu      sync.Mutex
	streams map[chan *basev1.Event]bool // of the rival
}

// newDirect is a Base and gRPC-Go without NGINX.
func newDirect() (e *entrance, err error) {
	e = &entrance{whole: &whole{}, streams: map[chan *basev1.Event]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if e.whole, err = newWhole(nil); err != nil {
		return e, err
	}
	if e.files, err = os.MkdirTemp("", "bitbox-base-bench-"); err != nil {
		return e, err
	}
	if e.rival, err = newGRPC(nil, e.subscribe); err != nil {
		return e, err
	}
	e.our, e.their = e.base.Addr().String(), e.rival.addr
	return e, e.fill()
}

// newEntrance needs root, for Debian's NGINX.
func newEntrance(options ...grpc.ServerOption) (e *entrance, err error) {
	e = &entrance{whole: &whole{}, streams: map[chan *basev1.Event]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if os.Geteuid() != 0 {
		return e, errors.New("this needs root: NGINX comes from a root file system of Debian's that only root can make")
	}
	dir, err := os.MkdirTemp("", "bitbox-base-bench-")
	if err != nil {
		return e, err
	}
	socket, err := ipc.Listen(filepath.Join(dir, "middleware.sock"), 0o600)
	if err != nil {
		return e, err
	}
	if e.whole, err = newWhole(socket); err != nil {
		return e, err
	}
	e.files = dir
	if e.rival, err = newGRPC(nil, e.subscribe, options...); err != nil {
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
	e.known = append(e.known, e.app)
	session, err := e.call()
	if err != nil {
		return err
	}
	defer session.Close()
	for {
		if e.apps, err = session.Apps.ListApps(context.Background(), &basev1.ListAppsRequest{}); err != nil {
			return err
		}
		e.rival.apps = e.apps
		if proto.Size(e.apps) >= answerSize {
			return nil
		}
		if err := e.know(); err != nil {
			return err
		}
	}
}

// know pairs one more App.
func (e *entrance) know() error {
	dir := filepath.Join(e.files, fmt.Sprint("app", len(e.known)))
	app, err := client.New(client.Options{Dir: dir, Name: strings.Repeat("x", 60), NoDiscovery: true})
	if err != nil {
		return err
	}
	e.known = append(e.known, app)
	return e.pair(app, e.our)
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
func (e *entrance) subscribe() (<-chan *basev1.Event, func()) {
	events := make(chan *basev1.Event, 64)
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
func (e *entrance) publish(event *basev1.Event) {
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

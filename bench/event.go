package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/encoding/protojson"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// eventTime bounds how long one event may take.
const eventTime = 30 * time.Second

// measureEvent is the time from an event at the Base to the line that an App's process
// has printed of it, through NGINX. The event is the end of another connection: it is not
// kept, so that no disk is measured. The rival's server tells the same of its own.
func measureEvent(r *report) (err error) {
	const rounds, events = 5, 100
	ends := &connectionEnds{}
	e, err := newEntrance(grpc.StatsHandler(ends))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	caller := e.apps.GetApps()[0]
	told := func() {
		e.publish(&basev1.Event{Event: &basev1.Event_SessionEnded{
			SessionEnded: &basev1.SessionEndedEvent{App: caller}}})
	}
	ends.tell.Store(&told)
	program, err := e.buildApp()
	if err != nil {
		return err
	}
	ours, err := follow(exec.Command(program, "--dir", filepath.Join(e.dir, "app"), "watch", "--json"))
	if err != nil {
		return err
	}
	defer ours.end()
	keys := filepath.Join(e.files, "rival.pem")
	if err := e.rival.tls.save(keys); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	theirs, err := follow(exec.Command(self, "-follow", e.their, "-keys", keys))
	if err != nil {
		return err
	}
	defer theirs.end()
	f := figure{what: "from an event to the App's printed line, p50", unit: "µs", rival: "gRPC-Go stream, printed the same way", least: 1}
	f.ours, f.their, err = alternateFigures(rounds,
		func() (float64, error) {
			return ours.median(events, func() error {
				session, err := e.call()
				if err != nil {
					return err
				}
				if _, err := ours.until("sessionStarted"); err != nil {
					return err
				}
				session.Close()
				return nil
			})
		},
		func() (float64, error) {
			return theirs.median(events, func() error {
				conn, err := grpcDial(e.their, e.rival.tls.client)
				if err != nil {
					return err
				}
				_, err = grpcCall(context.Background(), conn)
				return errors.Join(err, conn.Close())
			})
		})
	ends.tell.Store(nil)
	r.add(f)
	return err
}

// connectionEnds tells of each connection of the rival's that has ended.
type connectionEnds struct{ tell atomic.Pointer[func()] }

func (c *connectionEnds) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ended := s.(*stats.ConnEnd); !ended {
		return
	}
	if tell := c.tell.Load(); tell != nil {
		(*tell)()
	}
}

func (*connectionEnds) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*connectionEnds) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*connectionEnds) HandleRPC(context.Context, stats.RPCStats)                         {}

// follower is a process that prints a line of JSON for each event.
type follower struct {
	process *exec.Cmd
	lines   chan line
}

type line struct {
	text string
	at   time.Time
}

// follow starts a process, and returns when its first line says that it is live.
func follow(process *exec.Cmd) (*follower, error) {
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", process.Path, err)
	}
	f := &follower{process: process, lines: make(chan line, 256)}
	go func() {
		defer close(f.lines)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			f.lines <- line{scanner.Text(), time.Now()}
		}
	}()
	if _, err := f.until("subscribed"); err != nil {
		return nil, errors.Join(err, f.end())
	}
	return f, nil
}

// until returns the first line with a text in it.
func (f *follower) until(text string) (line, error) {
	timeout := time.After(eventTime)
	for {
		select {
		case l, ok := <-f.lines:
			if !ok {
				return line{}, fmt.Errorf("%s has ended", f.process.Path)
			}
			if strings.Contains(l.text, text) {
				return l, nil
			}
		case <-timeout:
			return line{}, fmt.Errorf("%s printed no %q in %v", f.process.Path, text, eventTime)
		}
	}
}

// median makes events one after another, and returns the median of the microseconds from
// the time that stands in an event to the arrival of its line.
func (f *follower) median(events int, happen func() error) (float64, error) {
	took := make([]time.Duration, events)
	for n := range took {
		if err := happen(); err != nil {
			return 0, err
		}
		l, err := f.until("sessionEnded")
		if err != nil {
			return 0, err
		}
		event := &basev1.Event{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(l.text), event); err != nil {
			return 0, err
		}
		took[n] = l.at.Sub(event.GetTime().AsTime())
	}
	slices.Sort(took)
	return float64(took[events/2].Nanoseconds()) / 1e3, nil
}

// end ends the process, whose exit code says then only that it was ended.
func (f *follower) end() error {
	err := f.process.Process.Kill()
	for range f.lines {
	}
	_ = f.process.Wait()
	return err
}

// followGRPC is the rival's App: it prints what it gets.
func followGRPC(address, keys string, out io.Writer) error {
	rival, err := loadRivalTLS(keys)
	if err != nil {
		return err
	}
	conn, err := grpcDial(address, rival.client)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := grpcFollow(context.Background(), conn)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "subscribed")
	for {
		event := &basev1.Event{}
		if err := stream.RecvMsg(event); err != nil {
			return err
		}
		text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(event)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", text); err != nil {
			return err
		}
	}
}

// save writes what the client of this run needs; it is worth nothing afterwards.
func (r *rivalTLS) save(path string) error {
	key, err := x509.MarshalPKCS8PrivateKey(r.client.Certificates[0].PrivateKey)
	if err != nil {
		return err
	}
	var text []byte
	for _, block := range []*pem.Block{
		{Type: "PRIVATE KEY", Bytes: key},
		{Type: "CERTIFICATE", Bytes: r.client.Certificates[0].Certificate[0]},
		{Type: "CERTIFICATE", Bytes: r.server.Certificates[0].Certificate[0]},
	} {
		text = append(text, pem.EncodeToMemory(block)...)
	}
	return os.WriteFile(path, text, 0o600)
}

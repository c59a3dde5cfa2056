package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/rpcattack"
)

// bareBase is the RPC and the channel of a Base, without what stands around them: one App
// has 8 sessions at most, which would measure nothing here.
type bareBase struct {
	keys     *ours
	listener net.Listener
	server   *rpc.Server
}

// The methods of a bareBase: one with an answer as long as its request, and a stream.
const (
	bareEcho   = "bench.Bare.Echo"
	bareStream = "bench.Bare.Stream"
)

// bareStreams is how many streams one App has, as at a Base (events).
const bareStreams = 16

func newBareBase(keys *ours) (*bareBase, error) {
	allow := func(context.Context) error { return nil }
	server, err := rpc.NewServer(rpc.Config{Logger: slog.New(slog.DiscardHandler), Methods: []rpc.Method{
		{Name: bareEcho, Allow: allow, MaxRequest: rpc.MaxRequest, Deadline: time.Minute,
			Handler: rpc.Unary(func(_ context.Context, m *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) { return m, nil })},
		{Name: bareStream, Allow: allow, Class: &rpc.Class{PerPeer: bareStreams, Full: "too many streams are open"},
			Handler: rpc.ServerStream(func(ctx context.Context, _ *emptypb.Empty, s *rpc.Sender[wrapperspb.BytesValue]) error {
				for ctx.Err() == nil {
					if err := s.Send(&wrapperspb.BytesValue{Value: make([]byte, answerSize)}); err != nil {
						return err
					}
				}
				return ctx.Err()
			})},
	}})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	return &bareBase{keys, listener, server}, err
}

// serve serves all that connect, each as peer says.
func (b *bareBase) serve(peer func() *rpc.Peer) {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			conn, err := b.keys.accept(c)
			if err != nil {
				c.Close()
				return
			}
			// As in a Base, the goroutine whose stack grew by the handshake ends with it.
			go func() { _ = b.server.Serve(context.Background(), conn.(*noiseconn.Conn), peer()) }()
		}()
	}
}

func (b *bareBase) close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // at once
	return errors.Join(b.listener.Close(), ignore(b.server.Shutdown(ctx), context.Canceled))
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// connectBare returns an App's session with a bareBase.
func connectBare(keys *ours, address string, seq uint64) (*noiseconn.Conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	conn, err := keys.connect(c, seq)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return conn.(*noiseconn.Conn), nil
}

func bareCall(session *rpc.Session) error {
	_, err := rpc.Call[wrapperspb.BytesValue](context.Background(), session, bareEcho, &wrapperspb.BytesValue{Value: make([]byte, answerSize)})
	return err
}

// attackerSeed makes the same worthless keys in the process that attacks as in this one.
var attackerSeed = [32]byte{1}

func attackerKeys() (*ours, error) { return newOursFrom(rand.NewChaCha8(attackerSeed)) }

// measureAttacks is what another App's calls take while one attacks, beside what they take
// in peace. The attacker is a process of its own.
func measureAttacks(r *report) (err error) {
	const times, calls = 7, 200
	keys, err := newOurs()
	if err != nil {
		return err
	}
	hostile, err := attackerKeys()
	if err != nil {
		return err
	}
	b, err := newBareBase(hostile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	attacker := new(rpc.Peer)
	go b.serve(func() *rpc.Peer { return attacker })
	client, server, err := securePair(keys)
	if err != nil {
		return err
	}
	go func() { _ = b.server.Serve(context.Background(), server.(*noiseconn.Conn), new(rpc.Peer)) }()
	session := rpc.NewSession(client.(*noiseconn.Conn))
	defer session.Close()
	measure := func() (sample, error) { return paced(calls, func() error { return bareCall(session) }) }
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := plot{file: "attacks", title: "Another App's call while one App attacks", x: "share of calls, %", y: "µs"}
	var peace rounds
	for _, attack := range rpcattack.Attacks {
		under, quiet, err := alternate(times,
			func() (s sample, err error) {
				process := exec.Command(self, "-attack", attack.Name, "-at", b.listener.Addr().String())
				process.Stderr = os.Stderr
				process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				if err := process.Start(); err != nil {
					return nil, err
				}
				defer func() {
					err = errors.Join(err, process.Process.Kill())
					_ = process.Wait()
				}()
				time.Sleep(200 * time.Millisecond) // until it attacks
				return measure()
			}, measure)
		if err != nil {
			return err
		}
		r.add(figure{what: fmt.Sprintf("another App's call p99 under %q", attack.Name), unit: "µs", rival: "itself in peace",
			ours: under.quantile(0.99), their: quiet.quantile(0.99), least: 0.5})
		p.series = append(p.series, series{attack.Name, under.quantiles()})
		peace = append(peace, quiet...)
	}
	p.series = append(p.series, series{"in peace", peace.quantiles()})
	r.plots = append(r.plots, p)
	return nil
}

// attackTime ends the process that attacks if nobody kills it. It also keeps the runtime from
// taking a process that only holds its connections for a deadlock.
const attackTime = time.Minute

// attack is the process that attacks, until it is killed.
func attack(name, address string) error {
	keys, err := attackerKeys()
	if err != nil {
		return err
	}
	request, err := proto.Marshal(&wrapperspb.BytesValue{Value: make([]byte, 100)})
	if err != nil {
		return err
	}
	at := slices.IndexFunc(rpcattack.Attacks, func(a rpcattack.Attack) bool { return a.Name == name })
	if at < 0 {
		return fmt.Errorf("there is no attack %q", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), attackTime)
	defer cancel()
	rpcattack.Attacks[at].Run(ctx, rpcattack.Target{
		Dial: func(context.Context) (rpcattack.Conn, error) {
			return connectBare(keys, address, 1)
		},
		Call: bareEcho, Request: request, Stream: bareStream,
	})
	return nil
}

// descriptors is how many files this process should be able to have open for measureSessions.
const descriptors = 24_000

// measureSessions is what a session takes, and a call on one, beside many others that are idle.
func measureSessions(r *report) (err error) {
	// More only with the right to it; without, the last step is a smaller one.
	limit := syscall.Rlimit{Cur: descriptors, Max: descriptors}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
	}
	most := min(10_000, (int(limit.Cur)-500)/2)
	keys, err := newOurs()
	if err != nil {
		return err
	}
	b, err := newBareBase(keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	go b.serve(func() *rpc.Peer { return new(rpc.Peer) })
	var open []*rpc.Session
	defer func() {
		for _, session := range open {
			session.Close()
		}
	}()
	memory, p50 := series{name: "memory of a session, KiB"}, series{name: "call p50, µs"}
	before, first := inUse(), 0.0
	for _, n := range []int{1, 10, 100, 1000, most} {
		for len(open) < n {
			conn, err := connectBare(keys, b.listener.Addr().String(), uint64(len(open)+1))
			if err != nil {
				return err
			}
			open = append(open, rpc.NewSession(conn))
			if err := bareCall(open[len(open)-1]); err != nil {
				return err
			}
		}
		each := max(0, float64(inUse())-float64(before)) / 1024 / float64(n)
		s, err := paced(1000, func() error { return bareCall(open[0]) })
		if err != nil {
			return err
		}
		if n == 1 {
			first = s.quantile(0.5)
		}
		memory.points, p50.points = append(memory.points, point{float64(n), each}), append(p50.points, point{float64(n), s.quantile(0.5)})
		r.add(figure{what: fmt.Sprintf("call p50 beside %d sessions", n), unit: "µs",
			rival: "itself beside 1", ours: s.quantile(0.5), their: first, least: 0.77})
		if n >= 100 { // of few the collector's granularity is most
			r.add(figure{what: fmt.Sprintf("memory of a session, both ends, beside %d", n), unit: "KiB",
				rival: "itself beside 100", ours: each, their: memory.points[2].y, least: 0.77})
		}
	}
	memory.points = memory.points[2:]
	r.plots = append(r.plots, plot{file: "sessions", title: "A session beside others: the channel and the RPC, both ends",
		x: "sessions", y: "KiB, µs", logX: true, series: []series{p50, memory}})
	return nil
}

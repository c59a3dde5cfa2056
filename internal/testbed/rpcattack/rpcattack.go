// Package rpcattack simulates paired Apps that are hostile. Each attack uses the sessions of one
// App to do what the specification of the RPC (docs/protocol.md, section 11) forbids, or only
// just allows. The package makes its frames itself, from the specification. Tests and the bench
// run the attacks and measure their effect on other Apps.
package rpcattack

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// Conn is the App's end of an authenticated channel.
type Conn interface {
	ReadRecord() ([]byte, error)
	WriteRecord([]byte) error
	Close() error
}

// Target is what is attacked.
type Target struct {
	// Dial connects the attacking App once more.
	Dial func(context.Context) (Conn, error)
	// Call names a method with one request and one answer, and Request is a request for it.
	Call    string
	Request []byte
	// Stream names a method with a stream of answers that does not end by itself.
	Stream        string
	StreamRequest []byte
}

// Attack is one attack.
type Attack struct {
	Name string
	// Sessions is how many sessions attack at once, at most the 8 that an App may have.
	Sessions int
	// run does its worst on one session, until the session or the context ends.
	run func(ctx context.Context, s *session)
}

// Attacks are those of this package.
var Attacks = []Attack{
	{"flood", 8, flood},
	{"never reading", 8, neverReading},
	{"waiting calls", 8, waitingCalls},
	{"half requests", 8, halfRequests},
	{"odd frames", 4, oddFrames},
	{"data for ended calls", 8, dataForEndedCalls},
	{"8 sessions of 32 polite calls", 8, politeCalls},
}

// again is the pause before an ended session is opened again: 8 sessions then connect 20 times
// a second, the rate that the Base's entry allows to an address.
const again = 400 * time.Millisecond

// Run attacks until ctx ends, and returns when all sessions of the attack have ended.
func (a Attack) Run(ctx context.Context, target Target) {
	var sessions sync.WaitGroup
	for range a.Sessions {
		sessions.Go(func() {
			for ctx.Err() == nil {
				conn, err := target.Dial(ctx)
				if err == nil {
					stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
					a.run(ctx, &session{Conn: conn, target: target})
					stop()
					_ = conn.Close()
				}
				select {
				case <-time.After(again):
				case <-ctx.Done():
				}
			}
		})
	}
	sessions.Wait()
}

// session is one hostile session.
type session struct {
	Conn
	target Target
	calls  uint32
}

// The frames of the specification.
const (
	open   = 1
	data   = 2
	end    = 3
	cancel = 4
	ping   = 6
	pong   = 7

	last = 0
	more = 1
	none = 2
)

func frame(kind byte, call uint32, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, call), body...)
}

func openFrame(call uint32, state byte, method string, piece []byte) []byte {
	body := append([]byte{state, 0, 0, 0, 0, byte(len(method))}, method...)
	return frame(open, call, append(body, piece...)...)
}

// begin opens the next call.
func (s *session) begin(state byte, method string, piece []byte) error {
	s.calls++
	return s.WriteRecord(openFrame(s.calls, state, method, piece))
}

// read reads, answers pings, and tells of each end, until the session is over.
func (s *session) read(ended chan<- uint32) {
	for {
		record, err := s.ReadRecord()
		if err != nil {
			if ended != nil {
				close(ended)
			}
			return
		}
		switch {
		case record[0] == ping:
			go func() { _ = s.WriteRecord(append([]byte{pong}, record[1:]...)) }()
		case record[0] == end && ended != nil:
			ended <- binary.BigEndian.Uint32(record[1:])
		}
	}
}

// flood opens calls as fast as its socket takes them, and reads whatever comes.
func flood(ctx context.Context, s *session) {
	go s.read(nil)
	for ctx.Err() == nil && s.begin(last, s.target.Call, s.target.Request) == nil {
	}
}

// neverReading has all its calls answered, and reads nothing.
func neverReading(ctx context.Context, s *session) {
	for range 16 {
		if s.begin(last, s.target.Stream, s.target.StreamRequest) != nil || s.begin(last, s.target.Call, s.target.Request) != nil {
			return
		}
	}
	<-ctx.Done()
}

// waitingCalls keeps all its places taken by streams.
func waitingCalls(ctx context.Context, s *session) {
	go s.read(nil)
	for range 32 {
		if s.begin(last, s.target.Stream, s.target.StreamRequest) != nil {
			return
		}
	}
	<-ctx.Done()
}

// halfRequests sends requests but for their ends.
func halfRequests(ctx context.Context, s *session) {
	go s.read(nil)
	piece := make([]byte, 16000)
	for range 32 {
		if s.begin(more, s.target.Call, piece) != nil {
			return
		}
	}
	for range 3 {
		for call := range uint32(32) {
			if s.WriteRecord(frame(data, call+1, append([]byte{more}, piece...)...)) != nil {
				return
			}
		}
	}
	<-ctx.Done()
}

// oddFrames breaks the rules, in a different way each time.
func oddFrames(_ context.Context, s *session) {
	for _, odd := range [][]byte{
		{0}, frame(9, 1), frame(end, 1, 0), frame(data, 7, last), frame(open, 5, 0, 0, 0, 0, 0, 200), frame(cancel, 1, 1),
	} {
		if s.begin(last, s.target.Call, s.target.Request) != nil || s.WriteRecord(odd) != nil {
			return
		}
	}
	s.read(nil)
}

// dataForEndedCalls sends full frames for a call that has ended.
func dataForEndedCalls(ctx context.Context, s *session) {
	ended := make(chan uint32, 1)
	go s.read(ended)
	if s.begin(last, s.target.Call, s.target.Request) != nil {
		return
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
	late := frame(data, 1, append([]byte{more}, make([]byte, 16000)...)...)
	for ctx.Err() == nil && s.WriteRecord(late) == nil {
	}
}

// politeCalls breaks no rule: it has 32 calls under way, and opens one when one has ended.
func politeCalls(ctx context.Context, s *session) {
	ended := make(chan uint32, 64)
	go s.read(ended)
	for range 32 {
		if s.begin(last, s.target.Call, s.target.Request) != nil {
			return
		}
	}
	for range ended {
		if ctx.Err() != nil || s.begin(last, s.target.Call, s.target.Request) != nil {
			return
		}
	}
}

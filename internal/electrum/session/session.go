// Package session carries JSON-RPC between wallets and a handler, one line for each message. It
// knows nothing of Bitcoin. Wallets are strangers: what each may send, keep waiting and cost is
// bounded, and one that reads slowly keeps nobody else waiting.
package session

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Bounds. Those with a name in ElectrumX have its value.
const (
	// MaxReceive is the longest line in bytes (MAX_RECV).
	MaxReceive = 1_000_000
	// MaxSend is the longest answer in bytes; that of a batch counts as one.
	MaxSend = 8_000_000
	// MaxBatch is how many requests one line may have.
	MaxBatch = 1000
	// MaxParams is how many parameters a request may have. Each takes 24 bytes, and its text: a line
	// that were decoded without a limit would take twenty times its length.
	MaxParams = 32
	// IdleTime is how long a session may be silent (SESSION_TIMEOUT).
	IdleTime = 600 * time.Second
	// MaxSessions is how many sessions there may be.
	MaxSessions = 2000

	// enough is how many bytes may wait before the next request is read.
	enough    = 1 << 20
	writeTime = 30 * time.Second
	greetTime = 5 * time.Second

	// A request costs 1, and what its handler charges; a line costs 1 more for each perUnit bytes.
	// One address may spend burst at once, and perSecond from then on. A wallet that wants more
	// waits, at most for maxWait at a time.
	perUnit   = 1000
	perSecond = 500
	burst     = 20_000
	maxWait   = 20 * time.Second
)

// bounds are how many bytes one answer has, how many wait to be read by one wallet and by all, how
// many bytes of a line cost 1, and how many parameters a request has.
type bounds struct{ send, queue, queues, perUnit, params int }

var standard = bounds{send: MaxSend, queue: MaxSend + MaxReceive, queues: 64 << 20, perUnit: perUnit, params: MaxParams}

// Codes of errors: those of JSON-RPC 2.0, and those of ElectrumX.
const (
	parseError     = -32700
	invalidRequest = -32600
	methodNotFound = -32601
	invalidParams  = -32602
	internalError  = -32603
	tooMuch        = -101
	badRequest     = 1
	nodeRefused    = 2
)

// Error is an error that a wallet is told.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errors that handlers return. Each makes a message for a wallet.
func BadParams(form string, args ...any) error {
	return &Error{invalidParams, fmt.Sprintf(form, args...)}
}

// Refused is a request that cannot be answered.
func Refused(form string, args ...any) error { return &Error{badRequest, fmt.Sprintf(form, args...)} }

// NodeRefused is a request that the node does not accept.
func NodeRefused(form string, args ...any) error {
	return &Error{nodeRefused, fmt.Sprintf(form, args...)}
}

// ErrUnknown is returned for a method that there is not.
var ErrUnknown = &Error{methodNotFound, "unknown method"}

// Handler answers requests. Each session calls it from one goroutine.
type Handler interface {
	// Call returns what the answer has. An error that is no *Error is logged, and the wallet
	// is told that something went wrong.
	Call(ctx context.Context, s *Session, method string, params []json.RawMessage) (any, error)
	// Names are the parameters of a method in their order, for wallets that name them; nil: they
	// cannot be named.
	Names(method string) []string
	// Closed is called once, after the last Call.
	Closed(s *Session)
}

// Server serves wallets.
type Server struct {
	Handler Handler
	// Proxy: each connection begins with a PROXY line (version 1) that names the wallet's address.
	Proxy bool
	// Log is called for what a handler could not answer.
	Log func(message string, args ...any)

	bounds   bounds // the zero value: standard
	mu       sync.Mutex
	sessions int
	budgets  map[netip.Prefix]*budget
	queued   atomic.Int64
	running  sync.WaitGroup
}

// budget is what an address may spend.
type budget struct {
	*rate.Limiter
	sessions int
}

// Serve serves connections until the listener is closed, and ends the sessions when ctx ends.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if s.bounds == (bounds{}) {
		s.bounds = standard
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer s.running.Wait()
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept the connection of a wallet: %w", err)
		}
		s.mu.Lock()
		full := s.sessions >= MaxSessions
		if !full {
			s.sessions++
		}
		s.mu.Unlock()
		if full {
			_ = conn.Close()
			continue
		}
		s.running.Go(func() { s.serve(ctx, conn) })
	}
}

func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		_ = conn.Close()
		s.mu.Lock()
		s.sessions--
		s.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	session := &Session{server: s, conn: conn, cancel: cancel, read: bufio.NewReader(conn), wake: make(chan struct{}, 1),
		room: make(chan struct{}, 1), Since: time.Now()}
	if err := session.greet(); err != nil {
		return
	}
	session.budget = s.budgetOf(session.From)
	defer s.leave(session.From)
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		defer cancel()
		session.write(ctx)
	}()
	session.receive(ctx)
	cancel()
	<-writing
	s.Handler.Closed(session)
}

// subscriber is what one subscriber of an access network has: an IPv4 address or an IPv6 /64.
func subscriber(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

func (s *Server) budgetOf(a netip.Addr) *budget {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budgets == nil {
		s.budgets = map[netip.Prefix]*budget{}
	}
	b := s.budgets[subscriber(a)]
	if b == nil {
		b = &budget{Limiter: rate.NewLimiter(perSecond, burst)}
		s.budgets[subscriber(a)] = b
	}
	b.sessions++
	return b
}

// leave forgets an address that has no session and has not spent anything lately. The others stay
// until some session of theirs ends later; an address that comes back finds what it has left.
func (s *Server) leave(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets[subscriber(a)].sessions--
	for at, b := range s.budgets {
		if b.sessions == 0 && b.Tokens() >= burst {
			delete(s.budgets, at)
		}
	}
}

// Session is one wallet's connection.
type Session struct {
	// From is the wallet's address; the zero Addr if nobody said.
	From netip.Addr
	// Since is when it connected.
	Since time.Time
	// State is the handler's own.
	State any

	server *Server
	conn   net.Conn
	cancel context.CancelFunc
	read   *bufio.Reader
	budget *budget

	mu     sync.Mutex
	queue  [][]byte
	queued int
	closed bool
	wake   chan struct{} // there is something to write
	room   chan struct{} // something was written
}

// Subscriber is whose connection it is: the address that shares a budget with its other sessions.
func (s *Session) Subscriber() netip.Prefix { return subscriber(s.From) }

// End ends the session soon.
func (s *Session) End() {
	if s.cancel != nil { // it has begun
		s.cancel()
	}
}

// greet reads the PROXY line: PROXY TCP4 source destination port port.
func (s *Session) greet() error {
	if !s.server.Proxy {
		return nil
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(greetTime)); err != nil {
		return err
	}
	const longest = 107 // bytes, of the PROXY protocol's version 1
	var line []byte
	for len(line) < longest {
		b, err := s.read.ReadByte()
		if err != nil {
			return err
		}
		if line = append(line, b); b == '\n' {
			break
		}
	}
	var err error
	s.From, err = ParseProxy(string(line))
	return err
}

// ParseProxy reads the address of the client from a PROXY line.
func ParseProxy(line string) (netip.Addr, error) {
	wrong := errors.New("the connection does not begin with a PROXY line")
	text, whole := strings.CutSuffix(line, "\r\n")
	fields := strings.Split(text, " ")
	if !whole || len(fields) != 6 || fields[0] != "PROXY" || (fields[1] != "TCP4" && fields[1] != "TCP6") {
		return netip.Addr{}, wrong
	}
	a, err := netip.ParseAddr(fields[2])
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, wrong
	}
	return a.Unmap(), nil
}

// receive answers requests until the wallet leaves, is silent for too long or sends what is none.
func (s *Session) receive(ctx context.Context) {
	for {
		if !s.waitForRoom(ctx) || s.conn.SetReadDeadline(time.Now().Add(IdleTime)) != nil {
			return
		}
		line, err := s.line()
		if err != nil {
			return
		}
		if !s.answer(ctx, line) {
			return
		}
	}
}

// line reads one line.
func (s *Session) line() ([]byte, error) {
	var line []byte
	for {
		part, err := s.read.ReadSlice('\n')
		if len(line)+len(part) > MaxReceive {
			return nil, errors.New("a line is too long")
		}
		line = append(line, part...)
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// request is a request or, without an ID, a notification.
type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	params []json.RawMessage
}

// reply is an answer. One of Result and Error is there.
type reply struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

var null = json.RawMessage("null")

// answer answers a line; false: the session ends. The line is paid before it is parsed: one that
// waits in memory has been paid for, and an address that cannot pay sends in vain.
func (s *Session) answer(ctx context.Context, line []byte) bool {
	if s.Charge(ctx, 1+len(line)/s.server.bounds.perUnit) != nil {
		return false
	}
	requests, batch, err := parse(line, s.server.bounds.params, s.server.Handler.Names)
	if err != nil {
		return s.push(append(encode(reply{"2.0", null, nil, err}), '\n'))
	}
	if s.Charge(ctx, len(requests)-1) != nil {
		return false
	}
	size := 0
	var replies [][]byte
	for _, r := range requests {
		answer := s.call(ctx, r)
		if ctx.Err() != nil {
			return false
		}
		if len(r.ID) == 0 {
			continue
		}
		text := encode(answer)
		if size+len(text) > s.server.bounds.send {
			// By this code BlueWallet knows that it must ask for less (BlueElectrum.ts).
			text = encode(reply{"2.0", r.ID, nil, &Error{invalidRequest, "response too large"}})
		}
		size += len(text)
		replies = append(replies, text)
	}
	switch {
	case len(replies) == 0:
		return true
	case !batch:
		return s.push(append(replies[0], '\n'))
	}
	text := make([]byte, 0, size+len(replies)+2)
	for i, r := range replies {
		text = append(append(text, "[,"[min(i, 1)]), r...)
	}
	return s.push(append(text, ']', '\n'))
}

// parse reads a request, or a batch of them. Each request has at most so many parameters, in a list
// or named.
func parse(line []byte, params int, names func(string) []string) (requests []request, batch bool, problem *Error) {
	line = bytes.TrimSpace(line)
	if !json.Valid(line) {
		return nil, false, &Error{parseError, "this is no JSON"}
	}
	all := []json.RawMessage{line}
	if batch = line[0] == '['; batch {
		var err error
		if all, err = list(line, MaxBatch); err != nil {
			return nil, false, &Error{invalidRequest, fmt.Sprintf("a batch has at most %d requests", MaxBatch)}
		}
	}
	if len(all) == 0 {
		return nil, false, &Error{invalidRequest, "this is no request"}
	}
	for _, text := range all {
		var r request
		err := json.Unmarshal(text, &r)
		switch {
		case err != nil || len(r.Params) == 0:
		case r.Params[0] == '{':
			r.params, err = named(r.Params, names(r.Method))
		default:
			r.params, err = list(r.Params, params)
		}
		if err != nil || r.Method == "" || !plainID(r.ID) {
			return nil, false, &Error{invalidRequest,
				fmt.Sprintf("a request needs a method, a list of at most %d params and an id", MaxParams)}
		}
		r.Params = nil
		requests = append(requests, r)
	}
	return requests, batch, nil
}

// list reads a list, and no further than it may be long. JSON's null is an empty one.
func list(text []byte, most int) (items []json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	switch first, err := d.Token(); {
	case err != nil:
		return nil, err
	case first == nil:
		return nil, nil
	case first != json.Delim('['):
		return nil, errors.New("this is no list")
	}
	for items = []json.RawMessage{}; d.More(); {
		if len(items) == most {
			return nil, errors.New("the list is too long")
		}
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// named reads parameters with names, in the order of names. One that is missing is JSON's null,
// unless nothing follows it.
func named(text []byte, names []string) ([]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	items := slices.Repeat([]json.RawMessage{null}, len(names))
	end := 0
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		at := slices.Index(names, fmt.Sprint(name))
		if at < 0 || !bytes.Equal(items[at], null) {
			return nil, errors.New("a parameter has another name")
		}
		var item json.RawMessage // of its own: decoding writes into what is there
		if err := d.Decode(&item); err != nil {
			return nil, err
		}
		items[at], end = item, max(end, at+1)
	}
	return items[:end], nil
}

// plainID tells whether an ID is a number or a text that is not long.
func plainID(id json.RawMessage) bool {
	const longest = 256
	return len(id) == 0 || (len(id) < longest && id[0] != '{' && id[0] != '[')
}

func encode(r reply) []byte {
	if len(r.ID) == 0 {
		r.ID = null
	}
	text, err := json.Marshal(r)
	if err != nil { // the result is JSON already
		panic(err)
	}
	return text
}

// call has the handler answer.
func (s *Session) call(ctx context.Context, r request) reply {
	answer := reply{Version: "2.0", ID: r.ID}
	result, err := s.server.Handler.Call(ctx, s, r.Method, r.params)
	if err == nil {
		answer.Result, err = json.Marshal(result)
	}
	if err != nil {
		answer.Result = nil
		if !errors.As(err, &answer.Error) {
			if ctx.Err() == nil {
				s.server.Log("a wallet's request could not be answered", "method", r.Method, "error", err)
			}
			answer.Error = &Error{internalError, "the server could not do that now; try again"}
		}
	}
	return answer
}

// Charge takes from what the wallet's address may spend, and waits while that is used up.
func (s *Session) Charge(ctx context.Context, cost int) error {
	if cost <= 0 {
		return nil
	}
	reserved := s.budget.ReserveN(time.Now(), min(cost, burst))
	wait := reserved.Delay()
	if wait > maxWait {
		reserved.Cancel()
		return &Error{tooMuch, "excessive resource usage"}
	}
	return pause(ctx, wait)
}

// Spend is Charge for what is done already: it is paid in any case, and later requests wait.
func (s *Session) Spend(ctx context.Context, cost int) error {
	return pause(ctx, min(s.budget.ReserveN(time.Now(), min(cost, burst)).Delay(), maxWait))
}

func pause(ctx context.Context, wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Notify sends a notification. One that finds no room ends the session: its wallet reads too
// slowly.
func (s *Session) Notify(method string, params ...any) {
	text, err := json.Marshal(struct {
		Version string `json:"jsonrpc"`
		Method  string `json:"method"`
		Params  []any  `json:"params"`
	}{"2.0", method, params})
	if err != nil {
		panic(err)
	}
	s.push(append(text, '\n'))
}

// push has something written; false: there is no room, and the session ends.
func (s *Session) push(text []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.queued+len(text) > s.server.bounds.queue || s.server.queued.Load()+int64(len(text)) > int64(s.server.bounds.queues) {
		s.cancel()
		return false
	}
	s.queue = append(s.queue, text)
	s.queued += len(text)
	s.server.queued.Add(int64(len(text)))
	signal(s.wake)
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// waitForRoom waits until the wallet has read most of what it was sent.
func (s *Session) waitForRoom(ctx context.Context) bool {
	for {
		s.mu.Lock()
		waiting := s.queued
		s.mu.Unlock()
		if waiting < enough {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-s.room:
		}
	}
}

// write writes what is pushed until ctx ends or the wallet does not read.
func (s *Session) write(ctx context.Context) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		s.server.queued.Add(-int64(s.queued))
		s.queue, s.queued = nil, 0
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for {
			s.mu.Lock()
			if len(s.queue) == 0 {
				s.mu.Unlock()
				break
			}
			text := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			if s.conn.SetWriteDeadline(time.Now().Add(writeTime)) != nil {
				return
			}
			_, err := s.conn.Write(text)
			s.mu.Lock()
			s.queued -= len(text)
			s.mu.Unlock()
			s.server.queued.Add(-int64(len(text)))
			if err != nil {
				return
			}
			signal(s.room)
		}
	}
}

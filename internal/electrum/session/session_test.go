package session_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/session"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// echo answers with what it got. The method "big" answers with n bytes, "dear" charges n, "done" spends n.
type echo struct {
	mu       sync.Mutex
	sessions map[*session.Session]bool
}

func (e *echo) Call(ctx context.Context, s *session.Session, method string, params []json.RawMessage) (any, error) {
	e.mu.Lock()
	e.sessions[s] = true
	e.mu.Unlock()
	n := 0
	if len(params) > 0 {
		_ = json.Unmarshal(params[0], &n)
	}
	switch method {
	case "big":
		return strings.Repeat("x", n), nil
	case "dear":
		return s.From, s.Charge(ctx, n)
	case "done":
		return nil, s.Spend(ctx, n)
	case "broken":
		return nil, io.ErrUnexpectedEOF
	}
	if method != "echo" && method != "named" {
		return nil, session.ErrUnknown
	}
	return params, nil
}

// Names has the parameters of one method.
func (e *echo) Names(method string) []string {
	if method == "named" {
		return []string{"first", "second", "third"}
	}
	return nil
}

func (e *echo) Closed(s *session.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions, s)
}

func (e *echo) all() (all []*session.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.sessions {
		all = append(all, s)
	}
	return all
}

// serve returns how to connect, and the handler.
func serve(t *testing.T, proxy bool) (dial func(first string) (net.Conn, *bufio.Reader), handler *echo) {
	t.Helper()
	return start(t, &session.Server{Proxy: proxy})
}

// start is serve for a server that a test has made.
func start(t *testing.T, server *session.Server) (dial func(first string) (net.Conn, *bufio.Reader), handler *echo) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler = &echo{sessions: map[*session.Session]bool{}}
	server.Handler, server.Log = handler, func(string, ...any) {}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(first string) (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := net.Dial("tcp4", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, first); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		return conn, bufio.NewReaderSize(conn, 64<<10)
	}, handler
}

func TestRequestsAndBatchesAreAnswered(t *testing.T) {
	dial, _ := serve(t, false)
	const two = `[{"jsonrpc":"2.0","id":1,"result":[1]},{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"unknown method"}}]`
	for request, want := range map[string]string{
		`{"id":1,"method":"echo","params":["a",2]}`:                     `{"jsonrpc":"2.0","id":1,"result":["a",2]}`,
		`{"jsonrpc":"2.0","id":"x","method":"echo","params":[]}`:        `{"jsonrpc":"2.0","id":"x","result":[]}`,
		`[{"id":1,"method":"echo","params":[1]},{"id":2,"method":"?"}]`: two,
		`[{"method":"echo"},{"id":7,"method":"echo","params":[7]}]`:     `[{"jsonrpc":"2.0","id":7,"result":[7]}]`,
		`{"id":1,"method":"broken"}`:                                    `{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"the server could not do that now; try again"}}`,
		`{"id":1}`:                                                      `"code":-32600`,
		`[]`:                                                            `"code":-32600`,
		`{"id":{},"method":"echo"}`:                                     `"code":-32600`,
		`{"id":1,"method":"echo","params":{"by":"name"}}`:               `"code":-32600`,
		`{"id":1,"method":"echo","params":null}`:                        `"result":null`,
		`{`:                                                             `"code":-32700`,
		`[` + strings.Repeat(`{"id":1,"method":"echo"},`, session.MaxBatch) + `{"id":1,"method":"echo"}]`: `"code":-32600`,
	} {
		_, read := dial(request + "\n")
		if got, err := read.ReadString('\n'); err != nil || !strings.Contains(got, want) {
			t.Errorf("%.100s: %.200s, %v", request, got, err)
		}
	}
}

// Sparrow names the parameters of its first request.
func TestParametersMayHaveNames(t *testing.T) {
	dial, _ := serve(t, false)
	for params, want := range map[string]string{
		`{"second":2,"first":1}`:       `"result":[1,2]`,
		`{"third":[3]}`:                `"result":[null,null,[3]]`,
		`{}`:                           `"result":[]`,
		`{"fourth":4}`:                 `"code":-32600`,
		`{"first":1,"first":2}`:        `"code":-32600`,
		`{"first":1,"second":2,"x":1}`: `"code":-32600`,
	} {
		_, read := dial(`{"id":1,"method":"named","params":` + params + "}\n")
		if got, err := read.ReadString('\n'); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %.200s, %v", params, got, err)
		}
	}
}

func TestTheAddressOfAWalletComesFromTheProxyLine(t *testing.T) {
	dial, _ := serve(t, true)
	for line, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 192.0.2.1 999 50002\r\n": `"192.0.2.7"`, "PROXY TCP6 2001:db8::7 2001:db8::1 999 50002\r\n": `"2001:db8::7"`,
		"PROXY TCP6 ::ffff:192.0.2.7 ::1 999 50002\r\n": `"192.0.2.7"`,
		"PROXY UNKNOWN\r\n":                             "", "PROXY TCP4 nobody 192.0.2.1 999 50002\r\n": "",
		"PROXY TCP4 192.0.2.7 192.0.2.1 999 50002\n": "",
		strings.Repeat("x", 200):                     "",
	} {
		_, read := dial(line + `{"id":1,"method":"dear","params":[0]}` + "\n")
		if got, err := read.ReadString('\n'); (err == nil) != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

// The attack: a line without an end.
func TestALineThatIsTooLongEndsTheSession(t *testing.T) {
	dial, _ := serve(t, false)
	conn, read := dial("")
	go func() { _, _ = io.WriteString(conn, strings.Repeat("x", session.MaxReceive+8192)) }()
	if _, err := read.ReadString('\n'); err == nil {
		t.Error("it was answered")
	}
	// A line that fits is answered.
	conn, read = dial("")
	fits := fmt.Sprintf(`{"id":1,"method":"echo","params":["%s"]}`, strings.Repeat("x", session.MaxReceive-100))
	go func() { _, _ = io.WriteString(conn, fits+"\n") }()
	if _, err := read.ReadString('\n'); err != nil {
		t.Error(err)
	}
}

// boundless is the broken variant.
func boundless() *session.Server {
	s := &session.Server{}
	s.Boundless()
	return s
}

// The attack: a batch whose answer would fill the memory.
func TestTheAnswerOfABatchIsBounded(t *testing.T) {
	one := fmt.Sprintf(`{"id":1,"method":"big","params":[%d]}`, session.MaxSend/4)
	attack := func(server *session.Server, times int) (size, refused int) {
		dial, _ := start(t, server)
		_, read := dial("[" + strings.Repeat(one+",", times-1) + one + "]\n")
		got, err := read.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		return len(got), strings.Count(got, `{"code":-32600,"message":"response too large"}`) // as BlueWallet reads it
	}
	if size, refused := attack(&session.Server{}, 100); size > session.MaxSend+100*200 || refused != 97 {
		t.Errorf("%d bytes, %d refused", size, refused)
	}
	if size, refused := attack(boundless(), 8); size < 2*session.MaxSend || refused != 0 {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: %d bytes, %d refused", size, refused)
	}
}

// The attack: wallets that ask for much and read nothing. Each holds a bounded amount, and others
// are answered meanwhile.
func TestSlowReadersKeepNobodyWaiting(t *testing.T) {
	server := &session.Server{}
	dial, _ := start(t, server)
	const slow, each = 20, 500_000
	for range slow {
		conn, _ := dial("")
		go func() {
			for {
				if _, err := fmt.Fprintf(conn, `{"id":1,"method":"big","params":[%d]}`+"\n", each); err != nil {
					return
				}
			}
		}()
	}
	for range 10 {
		_, read := dial(`{"id":1,"method":"echo"}` + "\n")
		if got, err := read.ReadString('\n'); err != nil {
			t.Errorf("%q, %v", got, err)
		}
		// No further request is read while a megabyte waits.
		if waits := server.Queued(); waits > slow*(1<<20+each+1000) {
			t.Errorf("%d bytes wait", waits)
		}
	}
}

// The attack: a wallet does not read its notifications. It is let go, and only that.
func TestAWalletThatDoesNotReadIsLetGo(t *testing.T) {
	const news, most = 300_000, 3 * 30 // three times what may wait; a kernel holds some megabytes besides
	attack := func(server *session.Server) (letGo bool, waits int64) {
		dial, handler := start(t, server)
		slow, read := dial(`{"id":1,"method":"echo"}` + "\n")
		if _, err := read.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		its := handler.all()[0]
		for range most {
			its.Notify("news", strings.Repeat("x", news))
			waits = max(waits, server.Queued())
		}
		// Others are served, and what the wallet has not read by now tells whether it was let go:
		// the rest either comes to an end or is all there.
		_, other := dial(`{"id":1,"method":"echo"}` + "\n")
		if got, err := other.ReadString('\n'); err != nil {
			t.Errorf("%q, %v", got, err)
		}
		for range most {
			if _, err := read.ReadString('\n'); err != nil {
				return !errors.Is(err, os.ErrDeadlineExceeded), waits
			}
		}
		_ = slow.Close()
		return false, waits
	}
	if letGo, waits := attack(&session.Server{}); !letGo || waits > int64(session.MaxQueue) {
		t.Errorf("let go: %v; %d bytes waited", letGo, waits)
	}
	if letGo, waits := attack(boundless()); letGo || waits <= int64(session.MaxQueue) {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: let go: %v; %d bytes waited", letGo, waits)
	}
}

// The attack: one address asks for dear things, over several connections. It is refused, and
// another address is not.
func TestAnAddressThatSpendsTooMuchIsRefused(t *testing.T) {
	dial, _ := serve(t, true)
	const dear = `{"id":1,"method":"dear","params":[20000]}` + "\n"
	from := func(a string) string { return "PROXY TCP4 " + a + " 192.0.2.1 999 50002\r\n" }
	_, read := dial(from("192.0.2.66") + dear + dear)
	got, err := read.ReadString('\n')
	if err != nil || strings.Contains(got, "error") {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err = read.ReadString('\n'); err != nil || !strings.Contains(got, `"code":-101`) {
		t.Errorf("%q, %v", got, err)
	}
	_, read = dial(from("192.0.2.66") + dear)
	if got, err = read.ReadString('\n'); err != nil || !strings.Contains(got, `"code":-101`) {
		t.Errorf("by another connection: %q, %v", got, err)
	}
	if _, err := netip.ParseAddr("192.0.2.7"); err != nil {
		t.Fatal(err)
	}
	_, read = dial(from("192.0.2.7") + dear)
	if got, err = read.ReadString('\n'); err != nil || strings.Contains(got, "error") {
		t.Errorf("another address: %q, %v", got, err)
	}
}

// The attack: a line with half a million parameters. It is refused before they are decoded.
func TestALineWithManyParamsTakesNoMemory(t *testing.T) {
	line := []byte(`{"id":1,"method":"echo","params":[0` + strings.Repeat(",0", session.MaxReceive/2-100) + `]}`)
	taken := func(line []byte, params int) (bytes uint64, answered bool) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		answered = session.Parse(line, params)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, answered
	}
	list := []byte(`[0` + strings.Repeat(",0", session.MaxReceive/2-100) + `]`)
	for _, attack := range [][]byte{line, list} {
		if bytes, answered := taken(attack, session.MaxParams); answered || bytes > 4*session.MaxReceive {
			t.Errorf("%.40s: answered: %v; it took %d bytes", attack, answered, bytes)
		}
	}
	if bytes, answered := taken(line, session.MaxReceive); !answered || bytes < 12*session.MaxReceive {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: %v, %d bytes", answered, bytes)
	}
	most := `{"id":1,"method":"echo","params":[0` + strings.Repeat(",0", session.MaxParams-1)
	if !session.Parse([]byte(most+"]}"), session.MaxParams) || session.Parse([]byte(most+",0]}"), session.MaxParams) {
		t.Errorf("the limit is not %d", session.MaxParams)
	}
}

// The attack: one address sends long lines over several connections when it has spent all. Few of
// them wait, and the sessions of the others end. Another address is answered.
func TestLongLinesArePaidBeforeTheyAreParsed(t *testing.T) {
	const sessions = 64
	long := fmt.Sprintf(`{"id":1,"method":"dear","params":[0,"%s"]}`, strings.Repeat("x", session.MaxReceive-100)) + "\n"
	from := func(a string) string { return "PROXY TCP4 " + a + " 192.0.2.1 999 50002\r\n" }
	attack := func(server *session.Server, wanted bool) {
		server.Proxy = true
		dial, _ := start(t, server)
		_, read := dial(from("192.0.2.66") + `{"id":1,"method":"dear","params":[20000]}` + "\n")
		if _, err := read.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		ends := make(chan bool, sessions)
		for range sessions {
			conn, read := dial(from("192.0.2.66"))
			go func() { _, _ = io.WriteString(conn, long) }()
			go func() {
				_, err := read.ReadString('\n')
				ends <- err != nil
			}()
		}
		// The first to end is refused; in the broken variant all are answered.
		for at := range sessions {
			if <-ends {
				if !wanted {
					t.Error("the broken variant withstands the attack, so this test shows nothing")
				}
				break
			} else if wanted && at == sessions-1 {
				t.Error("all lines were answered")
			}
		}
		_, read = dial(from("192.0.2.7") + `{"id":1,"method":"echo"}` + "\n")
		if got, err := read.ReadString('\n'); err != nil {
			t.Errorf("another address: %q, %v", got, err)
		}
	}
	attack(&session.Server{}, true)
	attack(boundless(), false)
}

// The attack: an address that has spent all has dear things done. They are paid although they are
// more than it may spend.
func TestWhatIsDoneIsPaid(t *testing.T) {
	attack := func(method string) (paid bool) {
		dial, _ := serve(t, false)
		_, read := dial(`{"id":1,"method":"dear","params":[20000]}` + "\n")
		if _, err := read.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		_, read = dial(fmt.Sprintf(`{"id":1,"method":%q,"params":[20000]}`, method) + "\n")
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _ = read.ReadString('\n')
		}()
		for {
			_, read := dial(`{"id":1,"method":"echo"}` + "\n")
			if _, err := read.ReadString('\n'); err != nil {
				return true
			}
			select {
			case <-answered:
				return false
			default:
			}
		}
	}
	if !attack("done") {
		t.Error("it was not paid")
	}
	if attack("dear") {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}

func FuzzProxyLine(f *testing.F) {
	f.Add("PROXY TCP4 192.0.2.7 192.0.2.1 999 50002\r\n")
	f.Fuzz(func(t *testing.T, line string) {
		if a, err := session.ParseProxy(line); err == nil && (!a.IsValid() || a.Zone() != "") {
			t.Errorf("%q is %v", line, a)
		}
	})
}

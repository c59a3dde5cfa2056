package rpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
)

var update = flag.Bool("update", false, "rewrite docs/rpc.vectors.json")

var docs = filepath.Join("..", "..", "..", "docs")

// vector is one frame of docs/rpc.vectors.json. Numbers that a kind does not have are absent.
type vector struct {
	Name     string `json:"name"`
	From     string `json:"from,omitempty"`
	Frame    string `json:"frame"`
	Kind     byte   `json:"kind,omitempty"`
	Call     uint32 `json:"call,omitempty"`
	State    *byte  `json:"state,omitempty"`
	Deadline uint32 `json:"deadline_ms,omitempty"`
	Method   string `json:"method,omitempty"`
	Code     *byte  `json:"code,omitempty"`
	Credit   uint32 `json:"credit,omitempty"`
	Piece    string `json:"piece_or_text,omitempty"`
}

func vectorOf(name, from string, f frame) vector {
	v := vector{Name: name, From: from, Frame: hex.EncodeToString(f.append(nil)), Kind: byte(f.kind), Call: f.call,
		Deadline: f.deadline, Method: string(f.name), Credit: f.credit, Piece: hex.EncodeToString(f.piece)}
	if f.kind == kindOpen || f.kind == kindData {
		v.State = (*byte)(&f.state)
	}
	if f.kind == kindEnd {
		v.Code = (*byte)(&f.code)
	}
	return v
}

// transcript is what both sides send in one session.
type transcript struct {
	Name   string   `json:"name"`
	Frames []vector `json:"frames"`
}

type vectorFile struct {
	Comment  []string     `json:"comment"`
	Frames   []vector     `json:"frames"`
	Sessions []transcript `json:"sessions"`
	Rejected []vector     `json:"rejected"`
}

// vectors makes the file again. The sessions are what the two ends really send.
func vectors(t *testing.T) vectorFile {
	piece, method := []byte{0x0a, 0x01, 0x78}, []byte("bitbox.base.v1.InfoService.GetInfo")
	file := vectorFile{
		Comment: []string{
			"Frames of the RPC, section 11 of protocol.md. Bytes are hexadecimal; a frame is the plaintext of a record.",
			"frames: one of each form. sessions: all that the two ends send, without pings. rejected: frames that end the session.",
			"Written by go test ./internal/protocol/rpc -run Vectors -update.",
		},
		Frames: []vector{
			vectorOf("open with a whole request", "App",
				frame{kind: kindOpen, call: 1, state: stateLast, deadline: 30_000, name: method, piece: piece}),
			vectorOf("open with the first piece of a request, no deadline", "App",
				frame{kind: kindOpen, call: 2, state: stateMore, name: method, piece: piece}),
			vectorOf("open of a stream of requests", "App", frame{kind: kindOpen, call: 3, state: stateNone, name: method}),
			vectorOf("a piece", "both", frame{kind: kindData, call: 2, state: stateMore, piece: piece}),
			vectorOf("the last piece", "both", frame{kind: kindData, call: 2, state: stateLast, piece: piece}),
			vectorOf("an empty message", "both", frame{kind: kindData, call: 2, state: stateLast}),
			vectorOf("no further message", "App", frame{kind: kindData, call: 3, state: stateNone}),
			vectorOf("end with an answer", "Base", frame{kind: kindEnd, call: 1, code: OK, piece: piece}),
			vectorOf("end with an error", "Base", frame{kind: kindEnd, call: 2, code: NotFound, piece: []byte("no such App")}),
			vectorOf("cancel", "App", frame{kind: kindCancel, call: 3}),
			vectorOf("credit", "both", frame{kind: kindCredit, call: 3, credit: 40_000}),
			vectorOf("ping", "both", frame{kind: kindPing, call: 0xfedcba98}),
			vectorOf("pong", "both", frame{kind: kindPong, call: 0xfedcba98}),
			vectorOf("redial", "Base", frame{kind: kindRedial}),
		},
	}
	for _, c := range []struct {
		name string
		app  func(context.Context, *Session) error
	}{
		{"one request, one answer", func(ctx context.Context, s *Session) error {
			_, err := Call[data](ctx, s, "Echo", &data{Value: []byte("hello")})
			return err
		}},
		{"an error", func(ctx context.Context, s *Session) error {
			if _, err := Call[data](ctx, s, "Nothing", &empty{}); CodeOf(err) != Unimplemented {
				return err
			}
			return nil
		}},
		{"a stream of answers", func(ctx context.Context, s *Session) error {
			stream, err := Watch[number](ctx, s, "Count", &number{Value: 3})
			for err == nil {
				_, err = stream.Receive()
			}
			return nil
		}},
		{"a stream of requests", func(ctx context.Context, s *Session) error {
			upload, err := Upload[number](ctx, s, "Sum")
			if err != nil {
				return err
			}
			for range 2 {
				if err := upload.Send(&data{Value: []byte("hello")}); err != nil {
					return err
				}
			}
			_, err = upload.Finish()
			return err
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBase(t)
			tap := &tapConn{Conn: b.serve(t.Context(), &b.peer)}
			s := NewSession(tap)
			defer s.Close()
			if err := c.app(t.Context(), s); err != nil {
				t.Error(err)
			}
			file.Sessions = append(file.Sessions, transcript{c.name, tap.frames})
		})
	}
	for _, c := range oddFrames {
		if len(c.records) == 1 && len(c.records[0]) < 40 {
			file.Rejected = append(file.Rejected, vector{Name: c.name, From: "App", Frame: hex.EncodeToString(c.records[0])})
		}
	}
	return file
}

// tapConn keeps the frames of both directions.
type tapConn struct {
	Conn
	frames []vector
}

func (c *tapConn) keep(from string, record []byte) {
	if f := must(parse(bytes.Clone(record))); f.kind != kindPing && f.kind != kindPong {
		v := vectorOf("", from, f)
		v.Name = fmt.Sprintf("%d", len(c.frames)+1)
		c.frames = append(c.frames, v)
	}
}

func (c *tapConn) ReadRecord() ([]byte, error) {
	record, err := c.Conn.ReadRecord()
	if err == nil {
		c.keep("Base", record)
	}
	return record, err
}

func (c *tapConn) WriteRecord(record []byte) error {
	c.keep("App", record)
	return c.Conn.WriteRecord(record)
}

func TestVectorsOfTheRPCHold(t *testing.T) {
	path := filepath.Join(docs, "rpc.vectors.json")
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(vectors(t)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := must(os.ReadFile(path)); !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/rpc.vectors.json is not what the two ends send; go test ./internal/protocol/rpc -run Vectors -update rewrites it")
	}
}

// The specification names each kind, each code and each limit as the code has them.
func TestTheSpecificationOfTheRPCIsTheCodes(t *testing.T) {
	page := string(must(os.ReadFile(filepath.Join(docs, "protocol.md"))))
	_, section, found := strings.Cut(page, "\n## 11. The RPC\n")
	if !found {
		t.Fatal("protocol.md has no section 11")
	}
	for code := range codes {
		if !strings.Contains(section, fmt.Sprintf("| %d | %s |", code, code)) {
			t.Errorf("code %d, %s, is not in the table", code, code)
		}
	}
	kinds := map[string]kind{"open": kindOpen, "data": kindData, "end": kindEnd, "cancel": kindCancel, "credit": kindCredit,
		"ping": kindPing, "pong": kindPong, "redial": kindRedial}
	for name, k := range kinds {
		if !strings.Contains(section, fmt.Sprintf("\n| %d %s |", k, name)) {
			t.Errorf("kind %d, %s, is not in the table", k, name)
		}
	}
	for limit, value := range map[string]int{
		"frame": MaxRecord, "calls under way in a session": MaxCalls, "window of a call, each direction": Window,
		"message of a request": MaxRequest, "message of an answer": MaxAnswer,
		"messages under way in the Base's memory, of a session": SessionBuffer, "… of an App": PeerBuffer,
		"… of all Apps (a request or answer within one frame is not counted)": TotalBuffer, "messages under way in the App's memory": appBuffer,
		"calls of an App under way, those without their caller included": MaxAppCalls,
		"frames of all sessions of an App":                               FrameRate,
		"next message of a request, and a message that waits for credit": int(SendTime.Seconds()),
	} {
		row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(limit) + ` \| ([^|]+) \|`).FindStringSubmatch(section)
		if row == nil || !strings.Contains(strings.ReplaceAll(row[1], ",", ""), fmt.Sprint(value)) {
			t.Errorf("the row %q says %q, and the code %d", limit, row, value)
		}
	}
	if !strings.Contains(section, fmt.Sprintf("Base %d s, App %d s", int(PingAfter.Seconds()), int(appPingAfter.Seconds()))) ||
		!strings.Contains(section, fmt.Sprintf("within %d ms", FirstPing.Milliseconds())) || SendTime != ReceiveTime {
		t.Error("the times of the keep-alive are others")
	}
}

// A frame that is parsed is written again as it was; any other is a violation.
func FuzzFrame(f *testing.F) {
	for _, v := range must(readVectors()).Frames {
		f.Add(must(hex.DecodeString(v.Frame)))
	}
	for _, c := range oddFrames {
		f.Add(c.records[0])
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		frame, err := parse(record)
		if err == nil && !bytes.Equal(frame.append(nil), record) {
			t.Errorf("%x became %x", record, frame.append(nil))
		}
	})
}

func readVectors() (file vectorFile, err error) {
	b, err := os.ReadFile(filepath.Join(docs, "rpc.vectors.json"))
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	return file, err
}

// split cuts the bytes of a fuzzer into records: a length (1), and that many bytes.
func split(input []byte) (records [][]byte) {
	for len(input) > 1 && len(records) < 200 {
		n := min(int(input[0])+1, len(input)-1)
		records = append(records, input[1:1+n])
		input = input[1+n:]
	}
	return records
}

func join(records ...[]byte) (input []byte) {
	for _, r := range records {
		if len(r) <= 256 {
			input = append(append(input, byte(len(r)-1)), r...)
		}
	}
	return input
}

// Whatever an App sends, the Base ends the session or goes on, holds no more than its
// budget, and nothing is left behind.
func FuzzBase(f *testing.F) {
	for _, c := range oddFrames {
		f.Add(join(c.records...))
	}
	for _, session := range must(readVectors()).Sessions {
		var records [][]byte
		for _, v := range session.Frames {
			if v.From == "App" {
				records = append(records, must(hex.DecodeString(v.Frame)))
			}
		}
		f.Add(join(records...))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			b := newBase(t)
			noRate(b)
			conn := b.serve(t.Context(), &b.peer)
			p := newReader(conn)
			for _, record := range split(input) {
				if conn.WriteRecord(record) != nil {
					break
				}
			}
			synctest.Wait()
			b.mustHold(t)
			_ = conn.Close()
			<-p
			b.serving.Wait()
			_ = b.Shutdown(t.Context())
			if held := b.budget.used.Load(); held != 0 || b.peer.running.Load() != 0 {
				t.Errorf("%d bytes are held, %d calls run", held, b.peer.running.Load())
			}
		})
	})
}

func (b *base) mustHold(t *testing.T) {
	if held := b.budget.used.Load(); held < 0 || held > SessionBuffer {
		t.Errorf("%d bytes are held", held)
	}
	if calls := b.calls.Load(); calls > MaxCalls {
		t.Errorf("%d handlers run", calls)
	}
}

// newReader throws away what comes; the channel is closed at the end.
func newReader(conn Conn) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		for {
			if _, err := conn.ReadRecord(); err != nil {
				return
			}
		}
	}()
	return end
}

// Whatever a Base sends, the App's calls end when their context does, and it holds no
// more than its budget.
func FuzzApp(f *testing.F) {
	for _, session := range must(readVectors()).Sessions {
		var records [][]byte
		for _, v := range session.Frames {
			if v.From == "Base" {
				records = append(records, must(hex.DecodeString(v.Frame)))
			}
		}
		f.Add(join(records...))
	}
	for _, c := range oddFrames {
		f.Add(join(c.records...))
	}
	f.Add(join(frame{kind: kindRedial}.append(nil), frame{kind: kindPing, call: 1}.append(nil)))
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			p, s := rawBaseConn(t)
			s.OnRedial(s.Retire)
			read := newReader(p)
			calls := make(chan struct{}, 3)
			go func() { _, _ = Call[data](t.Context(), s, "x", &empty{}); calls <- struct{}{} }()
			synctest.Wait()
			go func() {
				stream, err := Watch[data](t.Context(), s, "x", &empty{})
				for err == nil {
					_, err = stream.Receive()
				}
				calls <- struct{}{}
			}()
			synctest.Wait()
			go func() {
				upload, err := Upload[data](t.Context(), s, "x")
				for i := 0; i < 3 && err == nil; i++ {
					err = upload.Send(&data{Value: make([]byte, 100)})
				}
				if err == nil {
					_, _ = upload.Finish()
				}
				calls <- struct{}{}
			}()
			synctest.Wait()
			for _, record := range split(input) {
				if p.WriteRecord(record) != nil {
					break
				}
			}
			synctest.Wait()
			if held := s.budget.used.Load(); held < 0 || held > appBuffer {
				t.Errorf("the App holds %d bytes", held)
			}
			_ = s.Close()
			for range 3 {
				<-calls
			}
			_ = p.Close()
			<-read
		})
	})
}

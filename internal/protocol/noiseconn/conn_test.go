package noiseconn

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// streamConn is a connection out of a Reader and a Writer.
type streamConn struct {
	io.Reader
	io.Writer
	closed bool
}

func (c *streamConn) Close() error                     { c.closed = true; return nil }
func (c *streamConn) LocalAddr() net.Addr              { return nil }
func (c *streamConn) RemoteAddr() net.Addr             { return nil }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

// fixedSession is the App's end of the fixed connect handshake, and the keys of
// the two directions, so that a test can be the Base byte by byte.
func fixedSession() (app *Transport, toBase, toApp []byte) {
	s := fixedSecrets("connecting")
	c := referenceConnect(s, 1, 0, rightPSK)
	_, app, err := s.connectInitiator(1).ReadR2(c.r2)
	if err != nil {
		panic(err)
	}
	return app, c.toBase, c.toApp
}

// receive is an App that is sent these bytes.
func receive(wire []byte) (*Conn, *streamConn) {
	app, _, _ := fixedSession()
	raw := &streamConn{Reader: bytes.NewReader(wire), Writer: io.Discard}
	return NewConn(raw, app), raw
}

// stream is records 0, 1, … with these plaintexts; an empty one closes.
func stream(key []byte, plaintexts ...string) (wire []byte) {
	for n, plaintext := range plaintexts {
		wire = append(wire, referenceRecord(key, uint64(n), []byte(plaintext))...)
	}
	return wire
}

// recordsOf cuts a stream into records with their headers.
func recordsOf(t *testing.T, wire []byte) (records [][]byte) {
	t.Helper()
	for len(wire) > 0 {
		size := recordHeaderSize + int(binary.BigEndian.Uint16(wire))
		if size > len(wire) {
			t.Fatalf("a record of %d bytes in %d", size, len(wire))
		}
		records = append(records, wire[:size])
		wire = wire[size:]
	}
	return records
}

func TestWritesOfEverySizeArriveWhole(t *testing.T) {
	for _, size := range []int{1, 2, readAhead, MaxPlaintext - 1, MaxPlaintext, MaxPlaintext + 1, 2 * MaxPlaintext, 2*MaxPlaintext + 1,
		10*MaxPlaintext + 7} {
		app, base := connPair(t)
		sent := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		errs := make(chan error, 1)
		go func() {
			n, err := app.Write(sent)
			if n != size && err == nil {
				err = fmt.Errorf("Write returned %d of %d", n, size)
			}
			errs <- errors.Join(err, app.Close())
		}()
		got, err := io.ReadAll(base)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes arrived: %v", len(got), size, err)
		}
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestALargeWriteIsSplitIntoFullRecords(t *testing.T) {
	app, toBase, _ := fixedSession()
	var wire bytes.Buffer
	conn := NewConn(&streamConn{Writer: &wire}, app)
	text := make([]byte, 5*MaxPlaintext+9)
	if n, err := conn.Write(text); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
	records := recordsOf(t, wire.Bytes())
	if len(records) != 6 || len(records[5]) != recordHeaderSize+9+16 {
		t.Fatalf("%d records, the last of %d bytes", len(records), len(records[len(records)-1]))
	}
	for n, record := range records {
		size := min(MaxPlaintext, len(text)-n*MaxPlaintext)
		if !bytes.Equal(record, referenceRecord(toBase, uint64(n), text[:size])) {
			t.Errorf("record %d is another one", n)
		}
	}
}

func TestAnEmptyWriteSendsNothing(t *testing.T) {
	app, _, _ := fixedSession()
	var wire bytes.Buffer
	conn := NewConn(&streamConn{Writer: &wire}, app)
	if n, err := conn.Write(nil); n != 0 || err != nil || wire.Len() != 0 {
		t.Errorf("%d, %v, %d bytes were sent", n, err, wire.Len())
	}
	for _, size := range []int{0, MaxPlaintext + 1} {
		if err := conn.WriteRecord(make([]byte, size)); !errors.Is(err, ErrRecordSize) || wire.Len() != 0 {
			t.Errorf("a record of %d bytes: %v, %d bytes were sent", size, err, wire.Len())
		}
	}
	if err := conn.WriteRecord(make([]byte, MaxPlaintext)); err != nil {
		t.Errorf("the connection did not survive a mistake of its user: %v", err)
	}
}

// The key changes after record 4095 and 8191, in each direction by itself.
func TestTheKeyChangesAfterEvery4096Records(t *testing.T) {
	const last = 2*RekeyInterval + 2
	s := fixedSecrets("connecting")
	c := referenceConnect(s, 1, 0, rightPSK)
	initiator := s.connectInitiator(1)
	_, base, err := must(s.connectResponder(initiator.R1())).WriteR2(StatusOK)
	if err != nil {
		t.Fatal(err)
	}
	_, app, err := initiator.ReadR2(c.r2)
	if err != nil {
		t.Fatal(err)
	}
	var toBase, toApp bytes.Buffer
	appConn := NewConn(&streamConn{Reader: &toApp, Writer: &toBase}, app)
	baseConn := NewConn(&streamConn{Reader: &toBase, Writer: &toApp}, base)
	for _, direction := range []struct {
		from, to *Conn
		wire     *bytes.Buffer
		key      []byte
	}{{appConn, baseConn, &toBase, c.toBase}, {baseConn, appConn, &toApp, c.toApp}} {
		for n := range uint64(last + 1) {
			text := fmt.Appendf(nil, "record %d", n)
			if err := direction.from.WriteRecord(text); err != nil {
				t.Fatal(err)
			}
			if n%RekeyInterval < 2 || n%RekeyInterval > RekeyInterval-3 {
				if want := referenceRecord(direction.key, n, text); !bytes.Equal(direction.wire.Bytes(), want) {
					t.Fatalf("record %d is %x, expected %x", n, direction.wire.Bytes(), want)
				}
			}
			if got, err := direction.to.ReadRecord(); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("record %d was read as %q, %v", n, got, err)
			}
		}
	}
}

// A peer that changes its key at another record is not understood; the right one
// is the control.
func TestAPeerThatChangesItsKeyElsewhereIsRefused(t *testing.T) {
	for rekeyAfter := RekeyInterval - 2; rekeyAfter <= RekeyInterval+1; rekeyAfter++ {
		_, _, toApp := fixedSession()
		key := toApp
		var wire []byte
		for n := range RekeyInterval + 2 {
			wire = append(wire, wireRecord(referenceSeal(key, uint64(n), nil, []byte("x")))...)
			if n+1 == rekeyAfter {
				key = referenceSeal(key, 1<<64-1, nil, make([]byte, 32))[:32]
			}
		}
		conn, _ := receive(wire)
		got, err := io.ReadAll(conn)
		right := rekeyAfter == RekeyInterval
		if right && (len(got) != RekeyInterval+2 || !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("the right peer: %d records, %v", len(got), err)
		}
		if !right && (len(got) != min(rekeyAfter, RekeyInterval) || !errors.Is(err, ErrRecord)) {
			t.Errorf("a change after %d records: %d were read, %v", rekeyAfter, len(got), err)
		}
	}
}

// The close record has a number like any other, also the one that ends a key.
func TestTheCloseRecordCounts(t *testing.T) {
	app, toBase, _ := fixedSession()
	var wire bytes.Buffer
	conn := NewConn(&streamConn{Writer: &wire}, app)
	for range RekeyInterval {
		if err := conn.WriteRecord([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	wire.Reset()
	if err := conn.End(); err != nil {
		t.Fatal(err)
	}
	equal(t, "the close record", wire.Bytes(), referenceRecord(toBase, RekeyInterval, nil))
}

func wireRecord(ciphertext []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(ciphertext))), ciphertext...)
}

// Wherever a stream is cut, its reader learns that it was.
func TestATruncatedStreamIsNeverACleanEnd(t *testing.T) {
	_, _, toApp := fixedSession()
	whole := stream(toApp, "one", "two", "")
	for cut := range whole {
		conn, _ := receive(whole[:cut])
		got, err := io.ReadAll(conn)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d of %d bytes: %q, %v", cut, len(whole), got, err)
		}
		for range 2 {
			if _, err := conn.Read(make([]byte, 1)); err != io.ErrUnexpectedEOF {
				t.Fatalf("cut after %d bytes, and read again: %v", cut, err)
			}
		}
	}
	conn, _ := receive(whole)
	if got, err := io.ReadAll(conn); string(got) != "onetwo" || err != nil {
		t.Errorf("the whole stream (control): %q, %v", got, err)
	}
}

func TestBytesAfterTheCloseRecordAreAnError(t *testing.T) {
	_, _, toApp := fixedSession()
	closed := stream(toApp, "one", "")
	for name, after := range map[string][]byte{
		"a byte":          {0},
		"a valid record":  referenceRecord(toApp, 2, []byte("more")),
		"a second close":  referenceRecord(toApp, 2, nil),
		"the same record": closed[:len(stream(toApp, "one"))],
	} {
		conn, raw := receive(slices.Concat(closed, after))
		got, err := io.ReadAll(conn)
		if string(got) != "one" || !errors.Is(err, ErrAfterClose) || !raw.closed {
			t.Errorf("%s: %q, %v; closed: %t", name, got, err, raw.closed)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrAfterClose) {
			t.Errorf("%s, and read again: %v", name, err)
		}
	}
	// Bytes that arrive later are not read.
	conn, _ := receive(nil)
	conn.in().raw = &streamConn{Reader: iotest.OneByteReader(bytes.NewReader(append(closed, "garbage"...)))}
	for range 2 {
		if got, err := io.ReadAll(conn); err != nil || (string(got) != "one" && len(got) > 0) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// The length of a record is refused when it is known, before anything of the
// record arrives: on a net.Pipe nothing more ever does.
func TestARecordOfAForbiddenSizeIsRefusedBeforeItIsRead(t *testing.T) {
	for _, length := range []int{0, 1, 15, MaxCiphertext + 1, 1<<16 - 1} {
		local, remote := net.Pipe()
		transport, _, _ := fixedSession()
		conn := NewConn(local, transport)
		go func() { _, _ = remote.Write(binary.BigEndian.AppendUint16(nil, uint16(length))) }()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrRecordSize) {
			t.Errorf("%d bytes: %v", length, err)
		}
		if _, err := remote.Write([]byte{0}); err == nil {
			t.Errorf("%d bytes: the connection is still open", length)
		}
		remote.Close()
	}
	// The control: the allowed extremes are read.
	_, _, toApp := fixedSession()
	conn, _ := receive(referenceRecord(toApp, 0, make([]byte, MaxPlaintext)))
	if record, err := conn.ReadRecord(); len(record) != MaxPlaintext || err != nil {
		t.Errorf("a full record: %d bytes, %v", len(record), err)
	}
}

// attacksOnRecords changes a stream of three records and a close record.
var attacksOnRecords = map[string]func(r [][]byte) [][]byte{
	"flipped bit in the text": func(r [][]byte) [][]byte { r[1][recordHeaderSize] ^= 1; return r },
	"flipped bit in the tag":  func(r [][]byte) [][]byte { r[1][len(r[1])-1] ^= 0x80; return r },
	"dropped":                 func(r [][]byte) [][]byte { return [][]byte{r[0], r[2], r[3]} },
	"repeated":                func(r [][]byte) [][]byte { return [][]byte{r[0], r[0], r[1], r[2], r[3]} },
	"swapped":                 func(r [][]byte) [][]byte { return [][]byte{r[0], r[2], r[1], r[3]} },
	"closed early":            func(r [][]byte) [][]byte { return [][]byte{r[0], r[3]} },
	"shorter by a byte": func(r [][]byte) [][]byte {
		r[1] = wireRecord(r[1][recordHeaderSize : len(r[1])-1])
		return r
	},
	"sent back to its writer": func(r [][]byte) [][]byte {
		_, toBase, _ := fixedSession()
		r[1] = referenceRecord(toBase, 1, []byte("two"))
		return r
	},
	"of another session": func(r [][]byte) [][]byte {
		r[1] = referenceRecord(fixed("another key", 32), 1, []byte("two"))
		return r
	},
}

func TestAChangedRecordEndsTheConnectionForGood(t *testing.T) {
	_, _, toApp := fixedSession()
	records := func() [][]byte {
		return recordsOf(t, stream(toApp, "one", "two", "three", ""))
	}
	for name, attack := range attacksOnRecords {
		conn, raw := receive(slices.Concat(attack(records())...))
		got, err := io.ReadAll(conn)
		if string(got) != "one" || !errors.Is(err, ErrRecord) || !raw.closed {
			t.Errorf("%s: %q, %v; closed: %t", name, got, err, raw.closed)
		}
		// The right record does not repair it.
		conn.in().raw = &streamConn{Reader: bytes.NewReader(slices.Concat(records()[1:]...))}
		if _, err := conn.ReadRecord(); !errors.Is(err, ErrRecord) {
			t.Errorf("%s, and then the right record: %v", name, err)
		}
	}
	conn, _ := receive(slices.Concat(records()...))
	if got, err := io.ReadAll(conn); string(got) != "onetwothree" || err != nil {
		t.Errorf("unchanged (control): %q, %v", got, err)
	}
}

// After a write that failed part of a record may be gone. A further record would
// be misread, so there is none.
func TestAFailedWriteIsFinal(t *testing.T) {
	app, _, _ := fixedSession()
	w := &shortWriter{failAt: 1}
	conn := NewConn(&streamConn{Writer: w}, app)
	if err := conn.WriteRecord([]byte("one")); err != nil {
		t.Fatal(err)
	}
	first := conn.WriteRecord([]byte("two"))
	if !errors.Is(first, errWire) {
		t.Fatalf("the write that fails: %v", first)
	}
	if _, err := conn.Write([]byte("three")); !errors.Is(err, errWire) {
		t.Errorf("the next write: %v", err)
	}
	if err := conn.End(); !errors.Is(err, errWire) {
		t.Errorf("End: %v", err)
	}
	if err := conn.Close(); err != nil || w.calls != 2 {
		t.Errorf("Close: %v; %d writes", err, w.calls)
	}
}

var errWire = errors.New("the wire broke")

// shortWriter writes half of what it is given in one call, and says so.
type shortWriter struct {
	failAt, calls int
}

func (w *shortWriter) Write(p []byte) (int, error) {
	w.calls++
	if w.calls-1 == w.failAt {
		return len(p) / 2, errWire
	}
	return len(p), nil
}

func TestWriteCountsOnlyWhatIsHandedOn(t *testing.T) {
	app, _, _ := fixedSession()
	conn := NewConn(&streamConn{Writer: &shortWriter{failAt: 1}}, app)
	perCall := bufferSize / (recordHeaderSize + MaxCiphertext) * MaxPlaintext
	if n, err := conn.Write(make([]byte, 3*perCall)); n != perCall || !errors.Is(err, errWire) {
		t.Errorf("%d bytes, %v; expected %d", n, err, perCall)
	}
}

// A deadline that passes while a record arrives byte by byte loses nothing.
func TestAReadTimeoutIsNoHarm(t *testing.T) {
	_, _, toApp := fixedSession()
	wire := stream(toApp, "one", string(make([]byte, MaxPlaintext)), "three", "")
	timeouts := 0
	conn, _ := receive(nil)
	conn.in().raw = &streamConn{Reader: &hesitantReader{r: iotest.HalfReader(bytes.NewReader(wire))}}
	var got []byte
	for {
		b := make([]byte, 1000)
		n, err := conn.Read(b)
		got = append(got, b[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			timeouts++
			continue
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := "one" + string(make([]byte, MaxPlaintext)) + "three"; string(got) != want || timeouts == 0 {
		t.Errorf("%d of %d bytes came through %d timeouts", len(got), len(want), timeouts)
	}
}

// hesitantReader times out before each read.
type hesitantReader struct {
	r     io.Reader
	ready bool
}

func (h *hesitantReader) Read(p []byte) (int, error) {
	h.ready = !h.ready
	if h.ready {
		return 0, os.ErrDeadlineExceeded
	}
	return h.r.Read(p)
}

// The same over a real connection: the deadlines are those of the socket.
func TestDeadlinesAreThoseOfTheConnectionBelow(t *testing.T) {
	app, base := connPair(t)
	past := time.Now().Add(-time.Second)
	if err := app.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a read past its deadline: %v", err)
	}
	if err := app.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = base.Write([]byte("late")) }()
	if record, err := app.ReadRecord(); string(record) != "late" || err != nil {
		t.Errorf("the next read: %q, %v", record, err)
	}
	if err := app.SetWriteDeadline(past); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write past its deadline: %v", err)
	}
}

// A stream that comes in pieces of any size is the same stream.
func TestAStreamInPiecesIsTheSameStream(t *testing.T) {
	_, _, toApp := fixedSession()
	var texts []string
	var want string
	for i := range 40 {
		text := string(bytes.Repeat([]byte{byte('a' + i%26)}, 1+(i*i*37)%MaxPlaintext))
		texts = append(texts, text)
		want += text
	}
	wire := stream(toApp, append(texts, "")...)
	for name, cut := range map[string]func(io.Reader) io.Reader{
		"single bytes":     iotest.OneByteReader,
		"halves":           iotest.HalfReader,
		"data with error":  iotest.DataErrReader,
		"pieces of primes": func(r io.Reader) io.Reader { return &primesReader{r: r} },
	} {
		conn, _ := receive(nil)
		conn.in().raw = &streamConn{Reader: cut(bytes.NewReader(wire))}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != want {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(want), err)
		}
	}
}

type primesReader struct {
	r io.Reader
	n int
}

func (p *primesReader) Read(b []byte) (int, error) {
	sizes := []int{1, 2, 3, 17, 499, 509, 2039, 2053, 16381, 16411, 32801}
	p.n++
	return p.r.Read(b[:min(len(b), sizes[p.n%len(sizes)])])
}

func TestAReaderThatNeverAdvancesIsGivenUp(t *testing.T) {
	conn, _ := receive(nil)
	conn.in().raw = &streamConn{Reader: idleReader{}}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%v", err)
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

// A record is a record for ReadRecord, and Read may take it in pieces.
func TestReadRecordReturnsWhatReadHasLeft(t *testing.T) {
	_, _, toApp := fixedSession()
	conn, _ := receive(stream(toApp, "hello", "world", ""))
	if n, err := conn.Read(make([]byte, 2)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for _, want := range []string{"llo", "world"} {
		if record, err := conn.ReadRecord(); string(record) != want || err != nil {
			t.Errorf("%q, %v; expected %q", record, err, want)
		}
	}
	if _, err := conn.ReadRecord(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if n, err := conn.Read(nil); n != 0 || err != nil {
		t.Errorf("a read of nothing: %d, %v", n, err)
	}
}

// To use the keys of a Transport twice would be a catastrophe, so it is a panic.
func TestATransportCarriesOneConn(t *testing.T) {
	transport, _, _ := fixedSession()
	conn := NewConn(&streamConn{}, transport)
	if conn.HandshakeHash() != transport.HandshakeHash || conn.PeerStatic() != transport.PeerStatic {
		t.Error("the Conn has another handshake hash or peer than its Transport")
	}
	for name, again := range map[string]*Transport{"used": transport, "nil": nil, "zero": {}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			NewConn(&streamConn{}, again)
		}()
	}
}

// Many writers and readers at once: each record arrives whole, once, and in the
// order of its writer. With the race detector this also tries the locks.
func TestRecordsOfManyWritersArriveWholeAndInOrder(t *testing.T) {
	const writers, readers, perWriter = 6, 3, 400
	app, base := connPair(t)
	var all sync.WaitGroup
	for _, d := range []struct{ from, to *Conn }{{app, base}, {base, app}} {
		for w := range writers {
			all.Go(func() {
				for i := range perWriter {
					// The sum shows that the record is whole.
					record := binary.BigEndian.AppendUint32([]byte{byte(w)}, uint32(i))
					record = append(record, bytes.Repeat([]byte{byte(i)}, i*40)...)
					sum := sha256.Sum256(record)
					if err := d.from.WriteRecord(append(record, sum[:]...)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		var mu sync.Mutex // holds reading and checking together
		next, expected := make([]int, writers), writers*perWriter
		read := func() bool {
			mu.Lock()
			defer mu.Unlock()
			if expected == 0 {
				return false
			}
			record, err := d.to.ReadRecord()
			if err != nil {
				t.Error(err)
				return false
			}
			checkRecord(t, record, next)
			expected--
			return true
		}
		for range readers {
			all.Go(func() {
				for read() {
				}
			})
		}
	}
	all.Wait()
	// A close record ends both directions, so the session ends when both have arrived.
	all.Go(func() {
		if err := app.End(); err != nil {
			t.Error(err)
		}
	})
	if record, err := base.ReadRecord(); err != io.EOF {
		t.Errorf("after the last record came %d bytes, %v", len(record), err)
	}
	all.Wait()
}

func checkRecord(t *testing.T, record []byte, next []int) {
	body, sum := record[:len(record)-sha256.Size], record[len(record)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		t.Error("a record is not whole")
	}
	writer, number := body[0], int(binary.BigEndian.Uint32(body[1:]))
	if number != next[writer] {
		t.Errorf("record %d of writer %d came, expected %d", number, writer, next[writer])
	}
	next[writer] = number + 1
}

// Reads without the lock of the test around them, for the race detector.
func TestReadersMayCompete(t *testing.T) {
	app, base := connPair(t)
	const size, readers = 1 << 20, 4
	go func() {
		_, _ = app.Write(make([]byte, size))
		_ = app.End()
	}()
	var total int64
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range readers {
		wait.Go(func() {
			n, err := io.Copy(io.Discard, base)
			mu.Lock()
			defer mu.Unlock()
			total += n
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if total != size {
		t.Errorf("%d of %d bytes arrived", total, size)
	}
}

// A peer that does not read cannot keep Close waiting, nor a blocked write or
// read behind it.
func TestCloseEndsBlockedCalls(t *testing.T) {
	app, _ := connPair(t)
	ended := make(chan error, 2)
	writing := make(chan struct{})
	go func() {
		close(writing)
		_, err := app.Write(make([]byte, 1<<20)) // nobody reads: net.Pipe has no buffer
		ended <- err
	}()
	go func() {
		_, err := app.Read(make([]byte, 1))
		ended <- err
	}()
	<-writing
	for app.out().mu.TryLock() { // until the write has the lock
		app.out().mu.Unlock()
		runtime.Gosched()
	}
	if err := app.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a blocked call succeeded")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call is still blocked")
		}
	}
}

func TestACloseRecordEndsTheSession(t *testing.T) {
	app, base := connPair(t)
	sent := make(chan error, 1)
	go func() {
		_, err := app.Write([]byte("hello"))
		sent <- errors.Join(err, app.End())
	}()
	if got, err := io.ReadAll(base); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	for who, c := range map[string]*Conn{"the side that ended the session": app, "the side that read that": base} {
		if _, err := c.Write([]byte("more")); !errors.Is(err, ErrWriteClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write by %s: %v", who, err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close after the end: %v", err)
		}
	}
}

func TestAStreamCostsNoAllocation(t *testing.T) {
	if underRace {
		t.Log("the race detector makes sync.Pool forget; nothing to count")
		return
	}
	app, base := fixedEnds(t)
	text, into := make([]byte, 3000), make([]byte, 3000)
	exchange := func() {
		if _, err := app.Write(text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(base, into); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	if n := testing.AllocsPerRun(500, exchange); n >= 1 {
		t.Errorf("%v allocations for a record to and fro", n)
	}
}

// fixedEnds returns both ends over buffers, without goroutines.
func fixedEnds(t *testing.T) (app, base *Conn) {
	t.Helper()
	ta, tb := newConnectKeys(t).connect(t)
	var toBase, toApp bytes.Buffer
	toBase.Grow(1 << 16)
	return NewConn(&streamConn{Reader: &toApp, Writer: &toBase}, ta), NewConn(&streamConn{Reader: &toBase, Writer: &toApp}, tb)
}

func TestAnIdleConnectionHoldsNoLargeBuffer(t *testing.T) {
	app, base := fixedEnds(t)
	for _, size := range []int{10, readAhead, MaxPlaintext, 5 * MaxPlaintext} {
		text := make([]byte, size)
		if _, err := app.Write(text); err != nil {
			t.Fatal(err)
		}
		if size > readAhead {
			if _, err := base.Read(text[:1]); err != nil || base.in().big == nil {
				t.Fatalf("%v; this test does not look where the buffer is", err)
			}
			text = text[1:]
		}
		if _, err := io.ReadFull(base, text); err != nil {
			t.Fatal(err)
		}
		if base.in().big != nil {
			t.Errorf("after %d bytes a large buffer is still held", size)
		}
	}
}

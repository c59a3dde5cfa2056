package noiseconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// tripwire notices a reader that goes on after its bytes.
type tripwire struct {
	left    []byte
	touched bool
}

func (r *tripwire) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		r.touched = true
		return 0, io.EOF
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func frameHeader(typ byte, length int) []byte {
	return binary.BigEndian.AppendUint16([]byte{typ}, uint16(length))
}

func TestOnlyTheSixMessagesPassAsFrames(t *testing.T) {
	allowed := map[byte][]int{TypePair: {1232, 1216, 192}, TypeConnect: {1304, 1137}, TypeClaim: {1312}}
	passed := 0
	for typ := range 256 {
		for length := range 1 << 16 {
			want := false
			for _, size := range allowed[byte(typ)] {
				want = want || size == length
			}
			if FrameSizeAllowed(byte(typ), length) != want {
				t.Fatalf("type %d with %d bytes: %v", typ, length, !want)
			}
			if want {
				passed++
			}
		}
	}
	if passed != 6 {
		t.Errorf("%d kinds of frames pass", passed)
	}
}

func TestAForbiddenFrameIsRefusedBeforeItsBodyIsRead(t *testing.T) {
	for typ := range 256 {
		for _, length := range []int{0, 1, 191, 193, P1Size - 1, P1Size, P2Size, P3Size, R1Size, R1Size + 1, R2Size, 1<<16 - 1} {
			if FrameSizeAllowed(byte(typ), length) {
				continue
			}
			r := &tripwire{left: frameHeader(byte(typ), length)}
			if _, _, err := ReadFrame(r); !errors.Is(err, ErrFrame) || r.touched {
				t.Fatalf("type %d with %d bytes: %v; read on: %t", typ, length, err, r.touched)
			}
			if err := WriteFrame(io.Discard, byte(typ), make([]byte, length)); !errors.Is(err, ErrFrame) {
				t.Fatalf("writing type %d with %d bytes: %v", typ, length, err)
			}
		}
	}
}

// The control of the test above: what is allowed is read on.
func TestAnAllowedFrameIsReadOn(t *testing.T) {
	r := &tripwire{left: frameHeader(TypePair, P1Size)}
	if _, _, err := ReadFrame(r); !r.touched || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v; read on: %t", err, r.touched)
	}
}

// countWrites counts calls of Write.
type countWrites struct {
	bytes.Buffer
	calls int
}

func (w *countWrites) Write(p []byte) (int, error) {
	w.calls++
	return w.Buffer.Write(p)
}

func TestAFrameIsReadBackAndNothingAfterIt(t *testing.T) {
	var w countWrites
	body := fixed("body", 64)
	body = bytes.Repeat(body, 3)
	if err := WriteFrame(&w, TypePair, body); err != nil || w.calls != 1 {
		t.Fatalf("WriteFrame: %v, %d calls of Write", err, w.calls)
	}
	w.WriteString("rest")
	typ, read, err := ReadFrame(&w)
	if err != nil || typ != TypePair || !bytes.Equal(read, body) {
		t.Fatalf("ReadFrame: %d, %x, %v", typ, read, err)
	}
	if w.String() != "rest" {
		t.Errorf("what follows the frame is %q", w.String())
	}
}

func TestATruncatedFrameIsAnUnexpectedEnd(t *testing.T) {
	whole := append(frameHeader(TypePair, P3Size), make([]byte, P3Size)...)
	for cut := range whole {
		_, _, err := ReadFrame(bytes.NewReader(whole[:cut]))
		want := io.ErrUnexpectedEOF
		if cut == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Fatalf("cut after %d bytes: %v", cut, err)
		}
	}
}

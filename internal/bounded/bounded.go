// Package bounded keeps the beginning of what a program prints, and on demand the end. A program
// that was led astray may print without end.
package bounded

import (
	"bytes"
	"strings"
)

// Buffer keeps the first Most bytes that are written to it, and takes the rest without keeping it,
// so that the program is not held up. It has no ReadFrom, which would ignore the bound.
type Buffer struct {
	// Most is how many bytes of the beginning are kept.
	Most int
	// Last is how many bytes of the end End returns at most; up to twice as many more are kept.
	Last int

	buffer bytes.Buffer
	full   bool
	last   []byte // the end of what did not fit
}

// Write implements io.Writer. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	room := b.Most - b.buffer.Len()
	b.full = b.full || len(p) > room
	b.buffer.Write(p[:min(room, len(p))])
	b.keepEnd(p[min(room, len(p)):])
	return len(p), nil
}

func (b *Buffer) keepEnd(p []byte) {
	p = p[max(0, len(p)-b.Last):]
	if over := len(b.last) + len(p) - 2*b.Last; over > 0 {
		b.last = append(b.last[:0], b.last[len(b.last)-min(len(b.last), b.Last):]...)
	}
	b.last = append(b.last, p...)
}

// End returns the last bytes that were written, at most Last, whether the buffer is full or not.
func (b *Buffer) End() []byte {
	beginning := b.Bytes()
	missing := max(0, b.Last-len(b.last))
	end := append(bytes.Clone(beginning[max(0, len(beginning)-missing):]), b.last...)
	return end[max(0, len(end)-b.Last):]
}

// Full tells whether more was written than is kept.
func (b *Buffer) Full() bool { return b.full }

// Bytes returns what was kept.
func (b *Buffer) Bytes() []byte { return b.buffer.Bytes() }

// String returns what was kept.
func (b *Buffer) String() string { return b.buffer.String() }

// LastWords is the end of what was kept, in one line of about 400 bytes: a program's complaint ends
// with the reason.
func (b *Buffer) LastWords() string {
	const most = 400
	text := strings.Join(strings.Fields(strings.ToValidUTF8(b.String(), "?")), " ")
	if len(text) > most {
		text = "… " + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return text
}

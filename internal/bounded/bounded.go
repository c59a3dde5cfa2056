// Package bounded keeps the beginning of what a program prints. A program that was led astray may
// print without end.
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

	buffer bytes.Buffer
	full   bool
}

// Write implements io.Writer. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	room := b.Most - b.buffer.Len()
	b.full = b.full || len(p) > room
	b.buffer.Write(p[:min(room, len(p))])
	return len(p), nil
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

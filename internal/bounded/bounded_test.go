package bounded

import (
	"slices"
	"strings"
	"testing"
)

func TestABufferKeepsTheBeginningAndTakesAll(t *testing.T) {
	b := &Buffer{Most: 5}
	for _, part := range []string{"abc", "de"} {
		if n, err := b.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%q: %d, %v", part, n, err)
		}
	}
	if b.Full() || b.String() != "abcde" {
		t.Errorf("with exactly as much as fits it has %q, full: %v", b, b.Full())
	}
	for _, part := range []string{"", "fgh", "i"} {
		if n, err := b.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%q: %d, %v", part, n, err)
		}
	}
	if !b.Full() || string(b.Bytes()) != "abcde" {
		t.Errorf("it has %q, full: %v", b, b.Full())
	}
}

func TestABufferKeepsTheEndWhateverItsPiecesAre(t *testing.T) {
	const most, last = 5, 3
	text := "0123456789abcdefghijklmnopqrstuvwxyz"
	for length := range len(text) + 1 {
		for piece := 1; piece <= max(1, length); piece++ {
			b := &Buffer{Most: most, Last: last}
			for part := range slices.Chunk([]byte(text[:length]), piece) {
				_, _ = b.Write(part)
				if cap(b.last) > 16*last {
					t.Fatalf("it keeps %d bytes of the end", cap(b.last))
				}
			}
			if got, want := string(b.End()), text[max(0, length-last):length]; got != want || b.String() != text[:min(most, length)] {
				t.Errorf("%d bytes in pieces of %d: it has %q and %q", length, piece, b, got)
			}
		}
	}
	b := &Buffer{Most: most}
	if _, _ = b.Write([]byte(text)); len(b.End()) != 0 {
		t.Errorf("of no bytes it keeps %q", b.End())
	}
}

func TestTheLastWordsAreOneLine(t *testing.T) {
	b := &Buffer{Most: 10_000}
	if got := b.LastWords(); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	_, _ = b.Write([]byte(strings.Repeat("noise\n", 200) + "the disk\tis \xff full\n"))
	if got := b.LastWords(); !strings.HasPrefix(got, "… ") || !strings.HasSuffix(got, "the disk is ? full") || len(got) > 410 {
		t.Errorf("%q", got)
	}
}

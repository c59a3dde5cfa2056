package bounded

import (
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

package harmless

import (
	"strings"
	"testing"
	"unicode"
)

func TestATextIsOneShortLineWithNothingHiddenInIt(t *testing.T) {
	const most = 4 << 10
	for _, text := range []string{"a\nb", "a\x1b]0;title\x07", "\u202eevil", "\u0000", "é" + strings.Repeat("ü", 4096),
		strings.Repeat("x", 1<<16), "\xff\xfe", "\u2028"} {
		got := Cut(Line(strings.ToValidUTF8(text, "?")), most)
		if len(got) > most || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%.20q became %.40q, %d bytes", text, got, len(got))
		}
	}
}

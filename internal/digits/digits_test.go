package digits

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLargeDigitsFillTheWidth(t *testing.T) {
	for _, text := range []string{"012 345", "678 9__", "888 888"} {
		for wide, rows := range map[int][Rows]string{72: Large(text), 36: Narrow(text)} {
			for _, row := range rows {
				if n := utf8.RuneCountInString(row); n != wide {
					t.Errorf("%q is %d columns wide, not %d", text, n, wide)
				}
			}
		}
	}
}

func TestNoDigitLooksLikeAnother(t *testing.T) {
	seen := map[string]rune{}
	for r := '0'; r <= '9'; r++ {
		rows := Large(string(r))
		text := strings.Join(rows[:], "\n")
		if other, ok := seen[text]; ok {
			t.Errorf("%c looks like %c", r, other)
		}
		seen[text] = r
	}
}

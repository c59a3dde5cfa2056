// Package harmless makes text from others safe to show and to log: one line, without control
// characters for terminals and without hidden text.
package harmless

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes text one line that is harmless in a terminal: characters that control it, are
// invisible, or change the direction of text become a space or a question mark.
func Line(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}

const mark = "…"

// Cut shortens text to at most this many bytes, which must be 3 or more, and marks the cut. It
// does not cut through a character.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[:most-len(mark)]
	for len(text) > 0 && !utf8.ValidString(text[max(0, len(text)-utf8.UTFMax):]) {
		text = text[:len(text)-1]
	}
	return text + mark
}

// Word bounds what is repeated of a request, at 64 bytes.
func Word(text string) string {
	const most = 64
	if len(text) > most {
		text = text[:most] + mark
	}
	return text
}

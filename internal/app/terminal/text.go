package terminal

import (
	"strings"

	"github.com/rivo/uniseg"
)

// ellipsis marks a cut; it is one column wide.
const ellipsis = "…"

// Width returns how many columns text takes: 2 for most characters of East Asia and for emoji, 0
// for combining marks.
func Width(text string) int { return uniseg.StringWidth(text) }

// Cut returns text of at most n columns, with … in place of what was cut off. A character that a
// person sees as one stays whole.
func Cut(text string, columns int) string {
	if Width(text) <= columns {
		return text
	}
	if columns < 1 {
		return ""
	}
	var kept strings.Builder
	left := columns - 1
	for state := -1; text != ""; {
		var character string
		var width int
		character, text, width, state = uniseg.FirstGraphemeClusterInString(text, state)
		if width > left {
			break
		}
		kept.WriteString(character)
		left -= width
	}
	return kept.String() + ellipsis
}

// pad adds spaces to text, up to this many columns.
func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-Width(text)))
}

// Fold breaks text between words so that it fits the terminal, and indents its second and further
// lines. In a pipe it returns the text unchanged.
func (o *Output) Fold(indent, text string) string {
	width := o.Width()
	if width == 0 {
		return text
	}
	return strings.Join(fold(text, max(width-Width(indent), foldable)), "\n"+indent)
}

// fold returns text as lines of at most this many columns, broken between words. A longer word
// stays whole: it may be a command or an address to be copied.
func fold(text string, columns int) []string {
	if columns < 1 || Width(text) <= columns {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= columns:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

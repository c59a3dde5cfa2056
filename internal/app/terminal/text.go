package terminal

import (
	"strings"

	"github.com/rivo/uniseg"
)

// ellipsis stands for what was cut off; it is one column wide.
const ellipsis = "…"

// Width returns how many columns text takes: 2 for most of East Asia's characters and
// for emoji, 0 for marks that are put on the character before.
func Width(text string) int { return uniseg.StringWidth(text) }

// Cut returns text that takes at most so many columns, with … for what was cut off. What
// a person sees as one character stays whole.
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

// pad fills text up to so many columns with spaces.
func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-Width(text)))
}

// Fold breaks text between words so that it fits the terminal, and begins its second and
// further lines with an indent. In a pipe it returns the text as it is.
func (o *Output) Fold(indent, text string) string {
	width := o.Width()
	if width == 0 {
		return text
	}
	return strings.Join(fold(text, max(width-Width(indent), foldable)), "\n"+indent)
}

// fold returns text as lines of at most so many columns, broken between words. A word that
// is longer stays whole: it may be a command or an address to be copied.
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

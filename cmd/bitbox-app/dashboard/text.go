package dashboard

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// style is how text looks. No style carries meaning of its own: the text says the same without
// it.
type style uint8

const (
	bold style = 1 << iota
	faint
	reverse
	red
	green
	yellow
)

// sgr are the parameters of ECMA-48's SGR for each style. The colours are those of the user's
// terminal.
var sgr = []struct {
	style style
	code  string
}{{bold, "1"}, {faint, "2"}, {reverse, "7"}, {red, "31"}, {green, "32"}, {yellow, "33"}}

func (s style) begin() string {
	var codes []string
	for _, each := range sgr {
		if s&each.style != 0 {
			codes = append(codes, each.code)
		}
	}
	return "\x1b[" + strings.Join(codes, ";") + "m"
}

// span is text of one style, line is a row of the screen.
type span struct {
	text  string
	style style
}
type line []span

func plain(text string) line           { return line{{text: text}} }
func styled(text string, s style) line { return line{{text, s}} }

// inASCII replaces the dashboard's own symbols by ASCII.
var inASCII = map[rune]string{
	'│': "|", '─': "-", '┼': "+", '┬': "+", '┴': "+", '●': "*", '○': "o", '▲': "!", '…': "~", '°': "",
	'█': "#", '▁': "_", '▂': ".", '▃': ".", '▄': "-", '▅': "-", '▆': "=", '▇': "#", '·': "-", '×': "x",
}

// maxText is how much of one text is used, in bytes: a Base may send much more, and no screen
// shows it.
const maxText = 4 << 10

// bounded cuts text longer than maxText, between characters.
func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + " ..."
}

// maxCombining is how many combining marks stay on one character. Some languages need two.
const maxCombining = 2

// harmless makes text of any author safe for the screen: it replaces or drops characters that
// move the cursor, change the direction of text, or take no cell or an unknown number of cells.
// In ASCII mode, any other character becomes a question mark.
func harmless(text string, ascii bool) string {
	var b strings.Builder
	marks := maxCombining // none at the beginning
	for _, r := range bounded(text) {
		mark := unicode.In(r, unicode.Mn, unicode.Me)
		switch {
		// Variation selectors make emoji wide in one terminal and narrow in another.
		case mark && (ascii || marks >= maxCombining || r >= 0xFE00 && r <= 0xFE0F):
			continue
		case mark:
			marks++
		default:
			marks = 0
		}
		drawn, known := inASCII[r]
		switch {
		case r == utf8.RuneError || !unicode.IsPrint(r):
			b.WriteByte('?')
			marks = maxCombining
		case ascii && known:
			b.WriteString(drawn)
		case ascii && r > '~':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// widthOf is how many cells harmless text takes.
func widthOf(text string) int { return ansi.StringWidthWc(text) }

// cut shortens text to a width, and marks the cut.
func cut(text string, width int, ascii bool) string {
	if widthOf(text) <= width {
		return text
	}
	if short := strings.TrimRight(text, " "); widthOf(short) <= width {
		return short + strings.Repeat(" ", width-widthOf(short))
	}
	end := "…"
	if ascii {
		end = inASCII['…']
	}
	if width <= 1 {
		return strings.Repeat(end, max(0, width))
	}
	return ansi.TruncateWc(text, width, end)
}

// fit makes a line harmless, and exactly this wide.
func (l line) fit(width int, ascii bool) line {
	var fitted line
	left := width
	for n, s := range l {
		text := harmless(s.text, ascii)
		if n < len(l)-1 && widthOf(text) == left && restIsText(l[n+1:]) {
			text += "." // so that the end shows that something is missing
		}
		shown := cut(text, left, ascii)
		fitted = append(fitted, span{shown, s.style})
		if left -= widthOf(shown); left <= 0 || shown != text {
			break
		}
	}
	if left > 0 {
		fitted = append(fitted, span{text: strings.Repeat(" ", left)})
	}
	return fitted
}

func restIsText(rest line) bool {
	for _, s := range rest {
		if strings.TrimSpace(s.text) != "" {
			return true
		}
	}
	return false
}

func (l line) text() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return b.String()
}

// render writes the rows of a screen, with or without styles.
func render(lines []line, withStyles bool) string {
	var b strings.Builder
	for n, l := range lines {
		if n > 0 {
			b.WriteByte('\n')
		}
		for _, s := range l {
			if !withStyles || s.style == 0 || s.text == "" {
				b.WriteString(s.text)
				continue
			}
			b.WriteString(s.style.begin() + s.text + "\x1b[0m")
		}
	}
	return b.String()
}

// wrap breaks text into lines of at most a width, between words where that is possible.
func wrap(text string, width int, s style) []line {
	if width < 1 {
		return nil
	}
	var lines []line
	for _, paragraph := range strings.Split(bounded(text), "\n") {
		row := ""
		for _, word := range strings.Fields(harmless(paragraph, false)) {
			for widthOf(word) > width { // not a word, but a key or an attack
				head := ansi.TruncateWc(word, width, "")
				if head == "" {
					break
				}
				if row != "" {
					lines = append(lines, styled(row, s))
					row = ""
				}
				lines = append(lines, styled(head, s))
				word = word[len(head):]
			}
			switch {
			case row == "":
				row = word
			case widthOf(row)+1+widthOf(word) <= width:
				row += " " + word
			default:
				lines = append(lines, styled(row, s))
				row = word
			}
		}
		lines = append(lines, styled(row, s))
	}
	return lines
}

// indented puts text before each line: first before the first, spaces before the others.
func indented(first string, lines []line) []line {
	for n := range lines {
		before := first
		if n > 0 {
			before = strings.Repeat(" ", widthOf(first))
		}
		lines[n] = append(line{{text: before}}, lines[n]...)
	}
	return lines
}

// Package picture draws SVG for the pages of the window: measurements as curves, a QR code, what a
// stranger sees of a Base, the Base's screen, and how far something is. A picture is a function of
// its values. It has a title and a description for screen readers, text is escaped, and colours
// come from the classes of the style sheet alone:
//
//	picture            every picture
//	picture-line       the line of a curve, and picture-area below it
//	picture-paper      the light modules of a QR code, and picture-ink the dark ones
//	picture-brick      a wall
//	picture-open       a door that is open, and picture-closed one that is closed
//	picture-screen     the glass of a screen, and picture-glyph what is on it
//	picture-track      all that there is to do, and picture-done the part that is done
//	picture-text       letters
package picture

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// Words are what a screen reader says of a picture: a title of a few words, and a sentence that
// tells what the picture shows. The sentence may be empty.
type Words struct{ Title, Description string }

// drawing is an SVG that is being made.
type drawing struct{ strings.Builder }

// begin begins a picture with its own units.
func begin(w Words, class string, width, height int) *drawing {
	d := &drawing{}
	d.add(`<svg class="picture %s" role="img" viewBox="0 0 %d %d" focusable="false">`, class, width, height)
	d.add("<title>%s</title>", escape(w.Title))
	if w.Description != "" {
		d.add("<desc>%s</desc>", escape(w.Description))
	}
	return d
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format, args...) }

func (d *drawing) box(class string, x, y, width, height float64) {
	d.add(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`, class, number(x), number(y), number(width), number(height))
}

// text writes a line; anchor is "start", "middle" or "end" (SVG, text-anchor).
func (d *drawing) text(class, anchor string, x, y, size float64, text string) {
	d.add(`<text class="%s" x="%s" y="%s" font-size="%s" text-anchor="%s">%s</text>`, class, number(x), number(y), number(size), anchor,
		escape(text))
}

func (d *drawing) end() template.HTML {
	d.WriteString("</svg>")
	return template.HTML(d.String())
}

func escape(text string) string { return template.HTMLEscapeString(text) }

// number writes a coordinate. NaN and infinity become 0, because a Base can send any number.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		v = 0
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// cut bounds a text that has to fit into a picture, in letters.
func cut(text string, most int) string {
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-1]) + "…"
	}
	return text
}

package picture

import (
	"html/template"
	"strings"
)

// The size of a screen in its own units: 48 letters wide, as much of the Base's 80 columns as its
// questions take.
const (
	screenWidth, screenHeight   = 320, 170
	screenLetters               = 46
	screenText, screenLeft      = 11.0, 20.0
	figures                     = 6
	figureWide, figureHigh      = 30.0, 44.0
	figureTop, figureGap, apart = 60.0, 8.0, 14.0
)

// Screen draws the Base's own screen during a pairing, with a question, an answer and six places
// for digits. The places are empty: a code that the page shows at the Base's place would be compared
// with itself.
func Screen(w Words, question, answers string) template.HTML {
	d := begin(w, "picture-base", screenWidth, screenHeight)
	d.add(`<rect class="picture-frame" x="0" y="0" width="%d" height="%d" rx="10"/>`, screenWidth, screenHeight)
	d.box("picture-screen", 10, 10, screenWidth-20, screenHeight-20)
	d.text("picture-glyph", "start", screenLeft, 42, screenText, withoutDigits(cut(question, screenLetters)))
	const row = figures*figureWide + (figures-2)*figureGap + figureGap + apart
	x := (screenWidth - row) / 2.0
	for n := range figures {
		d.add(`<rect class="picture-figure" x="%s" y="%s" width="%s" height="%s" rx="3"/>`, number(x), number(figureTop), number(figureWide),
			number(figureHigh))
		x += figureWide + figureGap
		if n == figures/2-1 {
			x += apart
		}
	}
	d.text("picture-glyph", "start", screenLeft, 138, screenText, withoutDigits(cut(answers, screenLetters)))
	return d.end()
}

// withoutDigits makes sure that no digit of a code gets into the picture.
func withoutDigits(text string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return '·'
		}
		return r
	}, text)
}

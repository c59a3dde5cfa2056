package picture

import (
	"html/template"
	"strings"
)

// The size of a screen in its own units: 56 letters wide, as much of the Base's 80 columns as its
// questions take.
const (
	screenWidth, screenHeight   = 320, 170
	screenLetters               = 56
	screenText, screenLeft      = 8.6, 18.0
	figures                     = 6
	figureWide, figureHigh      = 30.0, 44.0
	figureTop, figureGap, apart = 60.0, 8.0, 14.0
)

// Asked is what the Base's own screen asks, and the keys that answer.
type Asked struct{ Question, Answers string }

// The questions of a pairing, as the console of the Base has them (internal/console): it is in English,
// whatever the language of the page.
var (
	AskedForNumber = Asked{"An App asks to be paired. Does yours show this number?", "Y  yes, it is mine      N  no"}
	AskedForCode   = Asked{"Does the App show exactly this code?", "Y  yes, the same      N  no, a different one"}
)

// Screen draws the Base's own screen during a pairing, with six places for digits. The places are empty: a
// code that the page shows at the Base's place would be compared with itself.
func Screen(w Words, asked Asked) template.HTML {
	d := begin(w, "picture-base", screenWidth, screenHeight)
	d.add(`<g lang="en">`)
	d.add(`<rect class="picture-frame" x="0" y="0" width="%d" height="%d" rx="10"/>`, screenWidth, screenHeight)
	d.box("picture-screen", 10, 10, screenWidth-20, screenHeight-20)
	d.text("picture-glyph", "start", screenLeft, 42, screenText, withoutDigits(cut(asked.Question, screenLetters)))
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
	d.text("picture-glyph", "start", screenLeft, 138, screenText, withoutDigits(cut(asked.Answers, screenLetters)))
	d.add("</g>")
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

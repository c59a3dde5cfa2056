// Package qrcode draws a QR code in a terminal, for the camera of a phone.
package qrcode

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the light frame that a reader needs around a code, in modules (ISO/IEC 18004, 6.3.8).
const quiet = 4

// glyphs are how a terminal shows two modules, one above the other: light ones are drawn, since most
// terminals are dark.
type glyphs struct{ dark, upper, lower, light string }

var (
	halves = glyphs{dark: " ", upper: "▀", lower: "▄", light: "█"}
	// A terminal without UTF-8 has no half blocks, so one row has one row of modules, two columns each.
	whole = glyphs{dark: "  ", light: "##"}
)

// Draw returns the rows of the code of a text. The error is for a text that is too long, which takes
// more than 2,000 bytes.
func Draw(text string, utf8 bool) ([]string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, fmt.Errorf("draw a QR code of %d bytes: %w", len(text), err)
	}
	g, step := whole, 1
	if utf8 {
		g, step = halves, 2
	}
	var rows []string
	for y := -quiet; y < code.Size+quiet; y += step {
		var row strings.Builder
		for x := -quiet; x < code.Size+quiet; x++ {
			upper := !code.Black(x, y) // outside of the code it is light
			lower := step == 1 && upper || step == 2 && !code.Black(x, y+1)
			switch {
			case upper && lower:
				row.WriteString(g.light)
			case upper:
				row.WriteString(g.upper)
			case lower:
				row.WriteString(g.lower)
			default:
				row.WriteString(g.dark)
			}
		}
		rows = append(rows, row.String())
	}
	return rows, nil
}

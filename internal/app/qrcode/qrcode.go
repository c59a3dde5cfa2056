// Package qrcode makes QR codes for the camera of a phone, and draws them in a terminal.
package qrcode

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// Quiet is the light frame that a reader needs around a code, in modules (ISO/IEC 18004, 6.3.8).
const Quiet = 4

// Code is a QR code without its light frame.
type Code struct {
	// Size is how many modules a side has.
	Size    int
	modules *qr.Code
}

// Make makes the code of a text. The error is for a text that is too long, which takes more than
// 2,000 bytes.
func Make(text string) (*Code, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, fmt.Errorf("draw a QR code of %d bytes: %w", len(text), err)
	}
	return &Code{code.Size, code}, nil
}

// Dark tells whether the module in column x and row y is dark. Outside of the code all are light.
func (c *Code) Dark(x, y int) bool { return c.modules.Black(x, y) }

// glyphs are how a terminal shows two modules, one above the other: light ones are drawn, since most
// terminals are dark.
type glyphs struct{ dark, upper, lower, light string }

var (
	halves = glyphs{dark: " ", upper: "▀", lower: "▄", light: "█"}
	// A terminal without UTF-8 has no half blocks, so one row has one row of modules, two columns each.
	whole = glyphs{dark: "  ", light: "##"}
)

// Draw returns the rows of the code of a text, for a terminal. The error is that of Make.
func Draw(text string, utf8 bool) ([]string, error) {
	code, err := Make(text)
	if err != nil {
		return nil, err
	}
	g, step := whole, 1
	if utf8 {
		g, step = halves, 2
	}
	var rows []string
	for y := -Quiet; y < code.Size+Quiet; y += step {
		var row strings.Builder
		for x := -Quiet; x < code.Size+Quiet; x++ {
			upper := !code.Dark(x, y)
			lower := step == 1 && upper || step == 2 && !code.Dark(x, y+1)
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

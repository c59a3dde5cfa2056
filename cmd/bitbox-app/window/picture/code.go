package picture

import (
	"html/template"

	"github.com/BitBoxSwiss/bitbox-base/internal/app/qrcode"
)

// Code draws the QR code of a text, dark on light with the quiet frame that readers need. The error
// is for a text that is too long, which takes more than 2,000 bytes.
func Code(w Words, text string) (template.HTML, error) {
	code, err := qrcode.Make(text)
	if err != nil {
		return "", err
	}
	side := code.Size + 2*qrcode.Quiet
	d := begin(w, "picture-code", side, side)
	d.box("picture-paper", 0, 0, float64(side), float64(side))
	d.add(`<path class="picture-ink" shape-rendering="crispEdges" d="%s"/>`, modules(code))
	return d.end(), nil
}

// modules is the path of the dark modules: each run of a row is one box.
func modules(code *qrcode.Code) string {
	path := &drawing{}
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			from := x
			for code.Dark(x, y) { // outside of the code it is light
				x++
			}
			if x > from {
				path.add("M%d %dh%dv1h-%dz", from+qrcode.Quiet, y+qrcode.Quiet, x-from, x-from)
			}
		}
	}
	return path.String()
}

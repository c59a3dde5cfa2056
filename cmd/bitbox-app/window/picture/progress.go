package picture

import (
	"html/template"
	"math"
)

// Ring draws how much of something is done, from 0 to 1, as a ring with a short text in it.
func Ring(w Words, part float64, text string) template.HTML {
	const (
		side, middle, radius = 100, 50, 42
		around               = 2 * math.Pi * radius
	)
	part = bounded(part)
	d := begin(w, "picture-ring", side, side)
	d.add(`<circle class="picture-track" cx="%d" cy="%d" r="%d" fill="none" stroke-width="10"/>`, middle, middle, radius)
	d.add(`<circle class="picture-done" cx="%d" cy="%d" r="%d" fill="none" stroke-width="10" stroke-dasharray="%s %s" transform="rotate(-90 %d %d)"/>`,
		middle, middle, radius, number(part*around), number(around), middle, middle)
	d.text("picture-text", "middle", middle, middle+6, 18, cut(text, 7))
	return d.end()
}

// Bar draws the same as a bar without text.
func Bar(w Words, part float64) template.HTML {
	const width, height = 240, 10
	d := begin(w, "picture-bar", width, height)
	d.box("picture-track", 0, 0, width, height)
	d.box("picture-done", 0, 0, width*bounded(part), height)
	return d.end()
}

// bounded keeps a part between nothing and all.
func bounded(part float64) float64 {
	if math.IsNaN(part) {
		return 0
	}
	return min(max(part, 0), 1)
}

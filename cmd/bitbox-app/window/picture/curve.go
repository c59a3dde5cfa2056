package picture

import (
	"html/template"
	"math"
)

// The size of a curve in its own units. A column has the highest of its values.
const (
	curveWidth, curveHeight = 240, 48
	curveColumns            = curveWidth / 2
	curveEdge               = 3 // between the curve and the frame
)

// Curve draws values, the oldest first, between two bounds. It draws one value as a dot, and none
// as an empty frame.
func Curve(w Words, values []float64, low, high float64) template.HTML {
	d := begin(w, "picture-curve", curveWidth, curveHeight)
	points := columns(values, curveColumns)
	if len(points) == 0 {
		return d.end()
	}
	step := float64(curveWidth)
	if len(points) > 1 {
		step = float64(curveWidth-2*curveEdge) / float64(len(points)-1)
	}
	line, last := "", 0.0
	for n, v := range points {
		last = level(v, low, high)
		line += number(curveEdge+float64(n)*step) + "," + number(last) + " "
	}
	end := curveEdge + float64(len(points)-1)*step
	if len(points) > 1 {
		d.add(`<polygon class="picture-area" points="%d,%d %s%s,%d"/>`, curveEdge, curveHeight, line, number(end), curveHeight)
		d.add(`<polyline class="picture-line" points="%s"/>`, line)
	}
	d.add(`<circle class="picture-dot" cx="%s" cy="%s" r="2.5"/>`, number(end), number(last))
	return d.end()
}

// level is how far a value is below the upper edge.
func level(v, low, high float64) float64 {
	part := 0.0
	if high > low {
		part = (v - low) / (high - low)
	}
	if math.IsNaN(part) {
		part = 0
	}
	return curveEdge + (1-min(max(part, 0), 1))*(curveHeight-2*curveEdge)
}

// columns takes the highest of each group of values if there are more than fit.
func columns(values []float64, most int) []float64 {
	if len(values) <= most {
		return values
	}
	fit := make([]float64, most)
	for n := range fit {
		from, to := n*len(values)/most, (n+1)*len(values)/most
		fit[n] = values[from]
		for _, v := range values[from:to] {
			fit[n] = max(fit[n], v)
		}
	}
	return fit
}

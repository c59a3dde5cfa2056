package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// plot is a drawing with lines. Its vertical axis is logarithmic.
type plot struct {
	file, title string
	x, y        string // what the axes say
	logX        bool
	series      []series
}

type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// The drawing's size, and the room for what stands around it, in pixels.
const (
	width, height           = 780, 360
	left, right, top, under = 70, 240, 40, 50
)

// colours tell lines apart for the colour-blind, too; so do their dashes.
var (
	colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"}
	dashes  = []string{"", "6 3", "2 2", "8 3 2 3", "", "6 3", "2 2", "8 3 2 3"}
)

func (p plot) svg() []byte {
	minX, maxX, minY, maxY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range p.series {
		for _, at := range s.points {
			minX, maxX = min(minX, at.x), max(maxX, at.x)
			minY, maxY = min(minY, at.y), max(maxY, at.y)
		}
	}
	minY, maxY = math.Pow(10, math.Floor(math.Log10(minY))), math.Pow(10, math.Ceil(math.Log10(maxY)))
	x := func(v float64) float64 {
		if p.logX {
			return left + (width-left-right)*math.Log(v/minX)/math.Log(maxX/minX)
		}
		return left + (width-left-right)*(v-minX)/(maxX-minX)
	}
	y := func(v float64) float64 {
		return height - under - (height-top-under)*math.Log(v/minY)/math.Log(maxY/minY)
	}
	var b bytes.Buffer
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	text(left, top-16, "start", p.title)
	for v := minY; v <= maxY*1.01; v *= 10 {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%[3]f" stroke="#ccc"/>`+"\n", left, width-right, y(v))
		text(left-6, y(v)+4, "end", fmt.Sprintf("%g", v))
	}
	for _, at := range p.series[0].points {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%[1]f" y1="%d" y2="%d" stroke="#ccc"/>`+"\n", x(at.x), height-under, height-under+4)
	}
	for _, v := range p.ticks(minX, maxX) {
		text(x(v), height-under+18, "middle", fmt.Sprintf("%g", v))
	}
	text((left+width-right)/2, height-12, "middle", p.x)
	text(8, top-16, "start", p.y)
	for n, s := range p.series {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s" points="`,
			colours[n%len(colours)], dashes[n%len(dashes)])
		for _, at := range s.points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(at.x), y(at.y))
		}
		fmt.Fprintln(&b, `"/>`)
		row := float64(top + 10 + 20*n)
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.0f" y2="%[3]f" stroke="%s" stroke-width="2" stroke-dasharray="%s"/>`+"\n",
			width-right+10, width-right+34, row, colours[n%len(colours)], dashes[n%len(dashes)])
		text(width-right+40, row+4, "start", s.name)
	}
	fmt.Fprintln(&b, "</svg>")
	return b.Bytes()
}

func (p plot) ticks(least, most float64) (at []float64) {
	if p.logX {
		for v := least; v <= most*1.01; v *= 10 {
			at = append(at, v)
		}
		return at
	}
	return []float64{least, 25, 50, 75, 90, 99}
}

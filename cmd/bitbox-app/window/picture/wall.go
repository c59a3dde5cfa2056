package picture

import (
	"html/template"
)

// Door is a port of a Base, as a stranger finds it.
type Door struct {
	// Name is what is behind it, such as "SSH"; Note is how long it stays so. They should be
	// short: about 12 letters fit.
	Name, Note string
	Port       uint16
	// Open: it answers. A closed port does not answer at all.
	Open bool
	// Locked: it answers, and lets nobody in whose key it does not know.
	Locked bool
}

// The size of a wall in its own units, and how many doors are in one row. More doors than maxDoors
// are left out of the picture.
const (
	wallWidth             = 320
	doorsInRow, maxDoors  = 4, 16
	rowHeight             = 124
	brickWide, brickHigh  = 32.0, 13.0
	doorWide, doorHigh    = 42.0, 65.0
	doorTop, doorLetters  = 13.0, 13
	firstLine, nextLine   = 92.0, 14.0
	letterSize, smallSize = 12, 10
)

// Wall draws what a stranger sees of a Base: its ports as doors in a wall, with a name, a number
// and how long it stays so below each.
func Wall(w Words, doors []Door) template.HTML {
	doors = doors[:min(len(doors), maxDoors)]
	rows := max(1, (len(doors)+doorsInRow-1)/doorsInRow)
	d := begin(w, "picture-wall", wallWidth, rows*rowHeight)
	for row := range rows {
		top := float64(row * rowHeight)
		d.bricks(top)
		here := doors[min(len(doors), row*doorsInRow):min(len(doors), (row+1)*doorsInRow)]
		for n, door := range here {
			middle := wallWidth * (float64(n) + 0.5) / float64(len(here))
			d.door(door, middle, top)
		}
	}
	return d.end()
}

// bricks draws one row's part of the wall.
func (d *drawing) bricks(top float64) {
	const courses = 6
	for course := range courses {
		from := 0.0
		if course%2 == 1 {
			from = -brickWide / 2
		}
		for x := from; x < wallWidth; x += brickWide {
			left, right := max(x+1, 0), min(x+brickWide-1, wallWidth)
			d.box("picture-brick", left, top+float64(course)*brickHigh+1, right-left, brickHigh-2)
		}
	}
}

func (d *drawing) door(door Door, middle, top float64) {
	class := "picture-closed"
	if door.Open {
		class = "picture-open"
	}
	left, head := middle-doorWide/2, top+doorTop
	d.box("picture-frame", left-3, head-3, doorWide+6, doorHigh+3)
	d.box(class, left, head, doorWide, doorHigh)
	switch {
	case door.Open && door.Locked:
		// A keyhole.
		d.add(`<circle class="picture-mark" cx="%s" cy="%s" r="5"/>`, number(middle), number(head+28))
		d.box("picture-mark", middle-2, head+30, 4, 13)
	case door.Open:
		// A leaf that stands open.
		d.add(`<polygon class="picture-mark" points="%s,%s %s,%s %s,%s %s,%s"/>`, number(left), number(head), number(left+14), number(head+8),
			number(left+14), number(head+doorHigh-4), number(left), number(head+doorHigh))
	default:
		// Boards across it.
		for _, at := range []float64{14, 32, 50} {
			d.box("picture-mark", left, head+at, doorWide, 4)
		}
	}
	d.text("picture-text", "middle", middle, top+firstLine, letterSize, cut(door.Name, doorLetters))
	d.text("picture-text", "middle", middle, top+firstLine+nextLine, smallSize, portText(door.Port))
	d.text("picture-text", "middle", middle, top+firstLine+2*nextLine-2, smallSize, cut(door.Note, doorLetters+3))
}

// portText is empty for a door that is no port.
func portText(port uint16) string {
	if port == 0 {
		return ""
	}
	return number(float64(port))
}

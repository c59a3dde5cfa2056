// Package digits draws the digits of a code in large type, so that two people can compare
// them across a room. The Base's screen and the App's dashboard use it.
package digits

import "strings"

// Solid is one filled cell of the screen.
const Solid = '█'

// Rows is the height of a large digit, in rows. At 80x25 that is more than a quarter of the
// screen, and can be read from two metres.
const Rows = 7

// shapes are 5 by 7 cells.
var shapes = [10][Rows]string{
	{" ### ", "#   #", "#   #", "#   #", "#   #", "#   #", " ### "},
	{"  #  ", " ##  ", "  #  ", "  #  ", "  #  ", "  #  ", " ### "},
	{" ### ", "#   #", "    #", "  ## ", " #   ", "#    ", "#####"},
	{" ### ", "#   #", "    #", "  ## ", "    #", "#   #", " ### "},
	{"#   #", "#   #", "#   #", "#####", "    #", "    #", "    #"},
	{"#####", "#    ", "#### ", "    #", "    #", "#   #", " ### "},
	{" ### ", "#    ", "#    ", "#### ", "#   #", "#   #", " ### "},
	{"#####", "    #", "   # ", "   # ", "  #  ", "  #  ", "  #  "},
	{" ### ", "#   #", "#   #", " ### ", "#   #", "#   #", " ### "},
	{" ### ", "#   #", "#   #", " ####", "    #", "    #", " ### "},
}

// Large draws "123 456" with each cell two columns wide, because a column is half as wide as a
// row is high: 72 columns. An underscore is a digit that is still to come; any other character is
// a gap.
func Large(text string) [Rows]string { return draw(text, 2) }

// Narrow draws the same with each cell one column wide, for small screens: 36 columns.
func Narrow(text string) [Rows]string { return draw(text, 1) }

func draw(text string, wide int) [Rows]string {
	var rows [Rows]string
	for i, r := range text {
		for row := range rows {
			cells := ""
			switch {
			case r >= '0' && r <= '9':
				cells = shapes[r-'0'][row]
			case r == '_' && row == Rows-1:
				cells = "#####"
			case r == '_':
				cells = "     "
			default:
				cells = "  "
			}
			if i > 0 && r != ' ' && text[i-1] != ' ' {
				rows[row] += strings.Repeat(" ", wide)
			}
			for _, cell := range cells {
				filled := " "
				if cell == '#' {
					filled = string(Solid)
				}
				rows[row] += strings.Repeat(filled, wide)
			}
		}
	}
	return rows
}

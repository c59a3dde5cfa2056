package console

import "strings"

// solid is one filled cell of the screen.
const solid = '█'

// digitRows is how high a large digit is, in rows. At 80x25 that is more than a
// quarter of the screen's height, to be read from two metres.
const digitRows = 7

// largeDigits are 5 by 7 cells; each cell is drawn two columns wide, for a column is
// half as wide as a row is high.
var largeDigits = [10][digitRows]string{
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

// large draws "123 456", 74 columns wide. What is no digit is a gap; an underscore
// is a digit that is still to come.
func large(text string) [digitRows]string {
	var rows [digitRows]string
	for i, r := range text {
		for row := range rows {
			cells := ""
			switch {
			case r >= '0' && r <= '9':
				cells = largeDigits[r-'0'][row]
			case r == '_' && row == digitRows-1:
				cells = "#####"
			case r == '_':
				cells = "     "
			default:
				cells = "  "
			}
			if i > 0 && r != ' ' && text[i-1] != ' ' {
				rows[row] += "  "
			}
			for _, cell := range cells {
				if cell == '#' {
					rows[row] += strings.Repeat(string(solid), 2)
				} else {
					rows[row] += "  "
				}
			}
		}
	}
	return rows
}

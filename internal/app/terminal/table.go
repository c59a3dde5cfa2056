package terminal

import (
	"io"
	"slices"
	"strings"
)

const (
	gap = 3 // spaces between two columns
	// narrowest is the least width of a column of a table, in columns of the terminal: less would
	// say nothing.
	narrowest = 8
	// foldable is the least width for folded text.
	foldable = 20
)

// Table is text in columns. With a header its cells are shortened until a line fits the terminal;
// where they would be too short, each row becomes a list of its own. Without a header it is a
// list of names and values, of which nothing is cut: the last cell of a row continues in the next
// line.
type Table struct {
	output *Output
	header []string
	rows   []row
	whole  map[int]bool
	styles map[int]func(string) Style
}

type row struct {
	cells   []string
	reaches bool // the last cell reaches to the end of the line
}

// Table returns an empty table.
func (o *Output) Table(header ...string) *Table {
	return &Table{output: o, header: header, whole: map[int]bool{}, styles: map[int]func(string) Style{}}
}

// Whole keeps columns, named by the header, from being shortened: text that a user types again,
// such as an id.
func (t *Table) Whole(columns ...string) *Table {
	for _, name := range columns {
		t.whole[slices.Index(t.header, name)] = true
	}
	return t
}

// Styled makes cells of a column, named by the header, stand out, depending on their text.
func (t *Table) Styled(column string, of func(cell string) Style) *Table {
	t.styles[slices.Index(t.header, column)] = of
	return t
}

// Row adds a row.
func (t *Table) Row(cells ...string) {
	t.rows = append(t.rows, row{slices.Clone(cells), len(t.header) == 0})
}

// Sentence adds a row whose last cell reaches to the end of the line, and continues in the next.
func (t *Table) Sentence(cells ...string) {
	t.rows = append(t.rows, row{slices.Clone(cells), true})
}

// Print writes the table.
func (t *Table) Print() error {
	header := row{cells: t.header}
	widths, fits := t.widths()
	if !fits {
		return t.printLists()
	}
	var text strings.Builder
	if len(t.header) > 0 {
		t.line(&text, header, widths, func(int, string) Style { return Bold })
	}
	for _, row := range t.rows {
		t.line(&text, row, widths, t.style)
	}
	_, err := io.WriteString(t.output, text.String())
	return err
}

func (t *Table) style(column int, cell string) Style {
	if of := t.styles[column]; of != nil {
		return of(cell)
	}
	return Plain
}

// printLists writes each row as a list: the words of the header, each with the row's text beside
// it.
func (t *Table) printLists() error {
	for n, row := range t.rows {
		list := t.output.Table()
		for column, cell := range row.cells {
			if cell != "" && column < len(t.header) {
				list.Row(t.header[column], cell)
			}
		}
		if n > 0 {
			if _, err := io.WriteString(t.output, "\n"); err != nil {
				return err
			}
		}
		if err := list.Print(); err != nil {
			return err
		}
	}
	return nil
}

// widths are the widths of the columns; fits is false if there is no room for them.
func (t *Table) widths() (widths []int, fits bool) {
	for _, row := range append([]row{{cells: t.header}}, t.rows...) {
		cells := row.cells
		if row.reaches {
			cells = cells[:max(0, len(cells)-1)]
		}
		for n, cell := range cells {
			if n == len(widths) {
				widths = append(widths, 0)
			}
			widths[n] = max(widths[n], Width(cell))
		}
	}
	room := t.output.Width()
	if room == 0 {
		return widths, true
	}
	total := gap * (len(widths) - 1)
	for _, width := range widths {
		total += width
	}
	// The widest column shrinks first.
	for ; len(t.header) > 0 && total > room; total-- {
		widest := -1
		for n, width := range widths {
			if !t.whole[n] && width > narrowest && (widest < 0 || width > widths[widest]) {
				widest = n
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths, len(t.header) == 0 || total <= room
}

func (t *Table) line(to *strings.Builder, row row, widths []int, style func(int, string) Style) {
	cells := row.cells
	// No spaces at the end of a line.
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	indent := 0
	for n, cell := range cells {
		if row.reaches && n == len(row.cells)-1 {
			room := 0
			if width := t.output.Width(); width > 0 {
				room = max(width-indent, foldable)
			}
			for k, line := range fold(cell, room) {
				if k > 0 {
					to.WriteString("\n" + strings.Repeat(" ", indent))
				}
				to.WriteString(t.output.Paint(style(n, cell), line))
			}
			break
		}
		cut := Cut(cell, widths[n])
		to.WriteString(t.output.Paint(style(n, cell), cut))
		if n < len(cells)-1 {
			to.WriteString(pad("", widths[n]-Width(cut)+gap))
		}
		indent += widths[n] + gap
	}
	to.WriteString("\n")
}

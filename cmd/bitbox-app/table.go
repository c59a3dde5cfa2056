package main

import (
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
)

// table prints columns. Its content comes from elsewhere, so each cell is made printable.
type table struct{ table *terminal.Table }

func (p *program) table(header ...string) *table { return &table{p.out.Table(header...)} }

func (t *table) row(cells ...string) { t.table.Row(printable(cells)...) }

// sentence adds a row whose last cell is never shortened.
func (t *table) sentence(cells ...string) { t.table.Sentence(printable(cells)...) }

// whole keeps columns, named by their headers, from being shortened.
func (t *table) whole(columns ...string) *table {
	t.table.Whole(columns...)
	return t
}

// styled makes cells of a column stand out, depending on their text.
func (t *table) styled(column string, of func(cell string) terminal.Style) *table {
	t.table.Styled(column, of)
	return t
}

func (t *table) print() error { return t.table.Print() }

func printable(cells []string) []string {
	for n := range cells {
		cells[n] = client.Printable(cells[n])
	}
	return cells
}

// The dashboard uses the same words.
var (
	roleName = words.English.Role
	when     = words.English.When
	duration = words.English.Duration
	size     = words.English.Size

	severity   = words.English.Severity
	isSerious  = words.IsSerious
	worstFirst = words.WorstFirst
)

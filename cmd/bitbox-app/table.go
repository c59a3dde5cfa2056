package main

import (
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/terminal"
)

// table prints columns. What it prints came from somewhere else, so each cell is
// made printable.
type table struct{ table *terminal.Table }

func (p *program) table(header ...string) *table { return &table{p.out.Table(header...)} }

func (t *table) row(cells ...string) { t.table.Row(printable(cells)...) }

// sentence adds a row whose last cell is not shortened.
func (t *table) sentence(cells ...string) { t.table.Sentence(printable(cells)...) }

// whole keeps columns, by their words in the header, from being shortened.
func (t *table) whole(columns ...string) *table {
	t.table.Whole(columns...)
	return t
}

// styled has a column stand out by what its cells say.
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

func roleName(role basev1.Role) string {
	return strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
}

// when writes a time for people: today without the date.
func when(t, now time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// duration writes seconds for people, with the two largest units.
func duration(seconds uint64) string {
	days, hours, minutes := seconds/86400, seconds/3600%24, seconds/60%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds%60)
	}
	return fmt.Sprintf("%d s", seconds)
}

// size writes bytes for people.
func size(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefixes := float64(bytes)/unit, "KMGTPE"
	for value >= unit && len(prefixes) > 1 {
		value, prefixes = value/unit, prefixes[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, prefixes[0])
}

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// table prints columns. What it prints came from somewhere else, so each cell is
// made printable.
type table struct {
	to   *tabwriter.Writer
	errs error
}

func (p *program) table(header ...string) *table {
	t := &table{to: tabwriter.NewWriter(p.out, 0, 0, 3, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for n := range cells {
		cells[n] = client.Printable(cells[n])
	}
	// No spaces at the end of a line.
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	if _, err := fmt.Fprintln(t.to, strings.Join(cells, "\t")); err != nil && t.errs == nil {
		t.errs = err
	}
}

func (t *table) print() error {
	if err := t.to.Flush(); err != nil {
		return err
	}
	return t.errs
}

// What the dashboard says too, it says in the same words.
var (
	roleName = words.Role
	when     = words.When
	duration = words.Duration
	size     = words.Size

	severity   = words.Severity
	isSerious  = words.IsSerious
	worstFirst = words.WorstFirst
)

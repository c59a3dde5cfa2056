package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// row is one line of the table.
type row struct {
	what string
	unit string
	// ours and rival are figures in that unit. A rival of 0 means that there is
	// none to compare with.
	ours, rival float64
	// lessIsBetter is set where a smaller figure is the better one.
	lessIsBetter bool
}

// ratio is above 1 when we do better than the rival.
func (r row) ratio() string {
	if r.rival == 0 || r.ours == 0 {
		return "-"
	}
	if r.lessIsBetter {
		return fmt.Sprintf("%.2f", r.rival/r.ours)
	}
	return fmt.Sprintf("%.2f", r.ours/r.rival)
}

func printTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tunit\tours\trival\tratio")
	for _, r := range rows {
		rival := "-"
		if r.rival != 0 {
			rival = fmt.Sprintf("%.1f", r.rival)
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\t%s\n", r.what, r.unit, r.ours, rival, r.ratio())
	}
	return t.Flush()
}

// median of the rounds of one figure.
func median(figures []float64) float64 {
	figures = slices.Sorted(slices.Values(figures))
	return figures[len(figures)/2]
}

// alternate runs rounds of ours and of the rival's by turns, one of each first
// to warm up, and returns the median of each.
func alternate(rounds int, ours, rival func() (float64, error)) (our, their float64, err error) {
	var figures [2][]float64
	for round := range rounds + 1 {
		for side, measure := range []func() (float64, error){ours, rival} {
			figure, err := measure()
			if err != nil {
				return 0, 0, err
			}
			if round > 0 {
				figures[side] = append(figures[side], figure)
			}
		}
	}
	return median(figures[0]), median(figures[1]), nil
}

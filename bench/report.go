package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the table.
type figure struct {
	what, unit string
	rival      string // against whom
	// ours and their are in the unit. their 0: there is nobody to compare with.
	ours, their float64
	// least is the ratio that we want to reach at least; 0: it is only printed.
	least float64
	// more is set where a larger figure is the better one.
	more bool
}

// ratio is above 1 when we do better than the rival; 0: there is none.
func (f figure) ratio() float64 {
	switch {
	case f.their == 0 || f.ours == 0:
		return 0
	case f.more:
		return f.ours / f.their
	}
	return f.their / f.ours
}

func (f figure) cells() []string {
	cells := []string{f.what, f.unit, number(f.ours), "-", "-", "-", "printed"}
	if f.their != 0 {
		cells[3], cells[4], cells[5] = f.rival, number(f.their), fmt.Sprintf("%.2f", f.ratio())
	}
	if f.least != 0 {
		cells[6] = fmt.Sprintf("%.3g", f.least)
		if f.ratio() < f.least {
			cells[6] += ", missed"
		}
	}
	return cells
}

// number has three digits that count.
func number(x float64) string {
	if x >= 100 || x == 0 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(x)))), x)
}

var heads = []string{"figure", "unit", "ours", "rival", "theirs", "ratio", "at least"}

// report is what a run has measured.
type report struct {
	machine string
	figures []figure
	plots   []plot
}

// add adds a figure.
func (r *report) add(f figure) { r.figures = append(r.figures, f) }

func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, f := range r.figures {
		fmt.Fprintln(t, strings.Join(f.cells(), "\t"))
	}
	return t.Flush()
}

// Between these lines of docs/performance.md stands what the bench has written.
const (
	tableBegins = "<!-- written by make bench: begin -->\n"
	tableEnds   = "<!-- written by make bench: end -->\n"
)

// write puts the figures into performance.md of a folder, and the plots beside it.
func (r *report) write(docs string) error {
	path := filepath.Join(docs, "performance.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(page), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table", path)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Measured on %s with %s.\n\n", time.Now().UTC().Format(time.DateOnly), r.machine)
	fmt.Fprintf(&text, "| %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat(" --- |", len(heads)))
	for _, f := range r.figures {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(f.cells(), " | "))
	}
	if err := os.MkdirAll(filepath.Join(docs, "performance"), 0o755); err != nil {
		return err
	}
	var errs []error
	for _, p := range r.plots {
		fmt.Fprintf(&text, "\n![%s](performance/%s.svg)\n", p.title, p.file)
		errs = append(errs, os.WriteFile(filepath.Join(docs, "performance", p.file+".svg"), p.svg(), 0o644))
	}
	return errors.Join(append(errs, os.WriteFile(path, []byte(before+tableBegins+"\n"+text.String()+"\n"+tableEnds+after), 0o644))...)
}

// rounds are the samples of one side.
type rounds []sample

// quantile is the median of that quantile in each round: what disturbs one round, on a busy
// machine, does not count.
func (r rounds) quantile(q float64) float64 {
	var figures []float64
	for _, s := range r {
		figures = append(figures, s.quantile(q))
	}
	return median(figures)
}

// sample is how long each of many calls took.
type sample []time.Duration

// quantile returns a quantile in microseconds.
func (s sample) quantile(q float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return float64(s[min(int(float64(len(s))*q), len(s)-1)].Nanoseconds()) / 1e3
}

// quantiles returns the points of a plot: the share of calls in percent, and their time.
func (r rounds) quantiles() (points []point) {
	for _, q := range []float64{1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5} {
		points = append(points, point{q, r.quantile(q / 100)})
	}
	return points
}

// The pace of calls: a Base lets an App make 500 a second, 64 of them at once. The rival
// is called at the same pace.
const (
	paceCalls = 40
	pacePause = 100 * time.Millisecond
)

// paced makes calls and times each.
func paced(calls int, call func() error) (sample, error) {
	var s sample
	for n := range calls {
		if n%paceCalls == 0 {
			time.Sleep(pacePause)
		}
		began := time.Now()
		if err := call(); err != nil {
			return nil, err
		}
		s = append(s, time.Since(began))
	}
	return s, nil
}

// alternate takes samples of ours and of the rival's by turns, and a first one of each to warm
// up.
func alternate(times int, ours, rival func() (sample, error)) (our, their rounds, err error) {
	for round := range times + 1 {
		for side, measure := range []func() (sample, error){ours, rival} {
			s, err := measure()
			if err != nil {
				return nil, nil, err
			}
			switch {
			case round == 0:
			case side == 0:
				our = append(our, s)
			default:
				their = append(their, s)
			}
		}
	}
	return our, their, nil
}

// alternateFigures is alternate for one figure a round; the median counts.
func alternateFigures(rounds int, ours, rival func() (float64, error)) (our, their float64, err error) {
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

func median(figures []float64) float64 {
	figures = slices.Sorted(slices.Values(figures))
	return figures[len(figures)/2]
}

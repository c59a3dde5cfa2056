// Package terminal writes the output of a program for a person at a terminal: with a few
// colours, lines that fit, and a line that says what the program waits for. Into a pipe or a
// file it writes the complete plain text.
package terminal

import (
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Style is how text stands out. No meaning depends on it alone: the words say it as well.
type Style string

// The styles: parameters of SGR (ECMA-48, 8.3.117). The colours are those of the eight
// that each terminal has, in the shades that its owner chose.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
)

const (
	escape   = "\x1b["
	reset    = escape + "0m"
	eraseAll = "\r" + escape + "K" // the line that the cursor is in (EL, ECMA-48 8.3.41)
)

// Output is where a program writes. The zero value, with To set, is a pipe.
type Output struct {
	// To receives the output.
	To io.Writer
	// Color tells whether text may be styled.
	Color bool
	// Moves tells whether a line can be erased and rewritten.
	Moves bool
	// columns returns the width of the terminal; nil is a pipe.
	columns func() int

	mu      sync.Mutex
	waiting *waiting
}

// UTF8 tells whether a terminal shows UTF-8, by locale(7): the first of its variables that is set
// counts. On macOS, and on systems other than Unix (by runtime.GOOS), each terminal does.
func UTF8(system string, environment func(string) string) bool {
	if system == "windows" || system == "darwin" {
		return true
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToUpper(environment(name)); value != "" {
			return strings.Contains(value, "UTF-8") || strings.Contains(value, "UTF8")
		}
	}
	return false
}

// Open returns the output for a file. NO_COLOR with any value means no colours (no-color.org),
// and TERM=dumb neither colours nor erased lines. Nothing forces colours into a pipe, whose
// reader would have to remove them again.
func Open(file *os.File, environment func(string) string) *Output {
	o := &Output{To: file}
	fd := int(file.Fd())
	if !term.IsTerminal(fd) {
		return o
	}
	o.columns = func() int {
		width, _, err := term.GetSize(fd)
		if err != nil {
			return 0
		}
		return width
	}
	o.Moves = environment("TERM") != "dumb" && understandsEscapes(fd)
	o.Color = o.Moves && environment("NO_COLOR") == ""
	return o
}

// Width returns how many columns the terminal has now, 0 if there is no limit or it is not known.
func (o *Output) Width() int {
	if o.columns == nil {
		return 0
	}
	return o.columns()
}

// Paint returns text in a style.
func (o *Output) Paint(style Style, text string) string {
	if !o.Color || style == Plain || text == "" {
		return text
	}
	return escape + string(style) + "m" + text + reset
}

// Write writes text, and replaces the line that says what the program waits for.
func (o *Output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wait("")
	return o.To.Write(text)
}

const (
	// waitQuietly is how long nothing is shown: most answers come sooner.
	waitQuietly = 300 * time.Millisecond
	// spinEvery is how often the line shows a waiting user that the program is running.
	spinEvery = 120 * time.Millisecond
)

// waiting is the line that says what the program waits for.
type waiting struct {
	stop, done chan struct{}

	mu   sync.Mutex
	text string
}

// Wait tells the user in one line what the program waits for, until something is written or Wait
// is called again; an empty text erases the line. In a pipe it does nothing.
func (o *Output) Wait(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wait(text)
}

// wait is Wait with the lock held.
func (o *Output) wait(text string) {
	switch {
	case !o.Moves, text == "" && o.waiting == nil:
	case text == "":
		close(o.waiting.stop)
		<-o.waiting.done
		o.waiting = nil
	case o.waiting == nil:
		o.waiting = &waiting{text: text, stop: make(chan struct{}), done: make(chan struct{})}
		go o.spin(o.waiting)
	default:
		o.waiting.mu.Lock()
		o.waiting.text = text
		o.waiting.mu.Unlock()
	}
}

// spin updates the line until it is erased.
func (o *Output) spin(w *waiting) {
	defer close(w.done)
	ticks := time.NewTimer(waitQuietly)
	defer ticks.Stop()
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			if n > 0 {
				_, _ = io.WriteString(o.To, eraseAll)
			}
			return
		case <-ticks.C:
			ticks.Reset(spinEvery)
		}
		w.mu.Lock()
		line := `|/-\`[n%4:n%4+1] + " " + w.text
		w.mu.Unlock()
		if width := o.Width(); width > 0 {
			line = Cut(line, width-1) // text in the last column would begin a new line
		}
		_, _ = io.WriteString(o.To, eraseAll+line)
	}
}

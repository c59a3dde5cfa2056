package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/digits"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// ErrResetting is what a Helper answers from the order of a factory reset on.
var ErrResetting = errors.New("the Base is being reset")

// ErrQuit: somebody has pressed Ctrl-C.
var ErrQuit = errors.New("the console was ended at its keyboard")

// Helper is what the console asks of the system helper, beside the ceremony
// authority.
type Helper interface {
	// Summary is how open the Base is.
	Summary(ctx context.Context) (*systemv1.Summary, error)
	// Reset orders a factory reset.
	Reset(ctx context.Context) error
}

// Screen is a whole screen with what stands before it.
type Screen struct {
	Authority pairing.Client
	Helper    Helper
	// Keys is the terminal's input in raw mode. When it ends, the screen goes on.
	Keys io.Reader
	Out  io.Writer
	// Size returns how many columns and rows the terminal has; nil: 80 and 25.
	Size func() (columns, rows int)
	// Buttons, if not nil, reads buttons until ctx ends. It is told when a question is
	// asked, and when no longer.
	Buttons func(ctx context.Context, asking <-chan bool, pressed func(keyKind))
}

const (
	// askTime bounds one request to the helper.
	askTime = 10 * time.Second
	// lookEvery is how often the summary is asked for, tickEvery how often
	// the screen looks at the clock.
	lookEvery = 2 * time.Second
	tickEvery = 250 * time.Millisecond
	// watchTime is how long one look at the authority waits for something new.
	watchTime = 5 * time.Second
	// reachAgain is how soon a helper that did not answer is asked again.
	reachAgain = time.Second
	// redrawEvery is how often all of the screen is written, in case somebody else,
	// such as the kernel, wrote there.
	redrawEvery = 10 * time.Second
)

// news is what the helper says.
type news struct {
	snapshot *systemv1.Snapshot
	summary  *systemv1.Summary
	err      error
}

// Run shows the screen and takes answers until ctx ends, or the terminal fails.
//
// A read from a terminal cannot be called off: the goroutine that reads Keys ends
// with the process, or with the next key.
func (s *Screen) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said, keys, asking := make(chan news), make(chan key, maxTypedAhead), make(chan bool, 1)
	tell := func(n news) {
		select {
		case said <- n:
		case <-ctx.Done():
		}
	}
	go s.followAuthority(ctx, tell)
	go s.followSummary(ctx, tell)
	go readKeys(ctx, s.Keys, keys)
	if s.Buttons != nil {
		go s.Buttons(ctx, asking, func(kind keyKind) { enqueue(keys, key{kind: kind, at: time.Now()}) })
	}
	d, painter := &desk{}, &painter{out: s.Out, size: s.Size}
	defer painter.end()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		if err := painter.paint(d.draw(time.Now()), time.Now()); err != nil {
			return fmt.Errorf("show the console: %w", err)
		}
		d.wasDrawn(time.Now())
		tellAsking(asking, d.subject() != subject{})
		select {
		case <-ctx.Done():
			return fmt.Errorf("show the console: %w", ctx.Err())
		case n := <-said:
			d.hear(n, time.Now())
		case k := <-keys:
			o := d.press(k)
			if o.what == orderQuit {
				return ErrQuit
			}
			s.carry(ctx, d, o)
		case <-ticker.C:
			d.tick(time.Now())
		}
	}
}

// hear takes what the helper says.
func (d *desk) hear(n news, now time.Time) {
	switch {
	case errors.Is(n.err, ErrResetting):
		d.resetting = true
	case n.err != nil:
		d.lost()
	case n.snapshot != nil:
		d.see(n.snapshot, now)
	default:
		d.summary = n.summary
	}
}

// tellAsking replaces what the buttons were told last.
func tellAsking(asking chan bool, now bool) {
	select {
	case <-asking:
	default:
	}
	asking <- now
}

// followAuthority tells what the authority says. It asks anew at times, for a helper
// that was restarted counts its versions from the beginning, and one that hangs
// does not hang up.
func (s *Screen) followAuthority(ctx context.Context, tell func(news)) {
	for seen := uint64(0); ctx.Err() == nil; {
		asked, cancel := context.WithTimeout(ctx, watchTime)
		snapshot, err := s.Authority.Watch(asked, seen)
		expired := asked.Err() != nil
		cancel()
		switch {
		case err == nil:
			tell(news{snapshot: snapshot})
			seen = snapshot.GetVersion()
			pause(ctx, refresh)
		case expired && seen != 0:
			seen = 0
		default:
			seen = 0
			tell(news{err: err})
			pause(ctx, reachAgain)
		}
	}
}

// followSummary tells of a reset as well. That the helper does not answer, the
// authority's stream tells.
func (s *Screen) followSummary(ctx context.Context, tell func(news)) {
	for ctx.Err() == nil {
		asked, cancel := context.WithTimeout(ctx, askTime)
		summary, err := s.Helper.Summary(asked)
		cancel()
		switch {
		case errors.Is(err, ErrResetting):
			tell(news{err: err})
		case err == nil:
			tell(news{summary: summary})
		}
		pause(ctx, lookEvery)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// carry brings an order to the helper, which decides.
func (s *Screen) carry(ctx context.Context, d *desk, o order) {
	if o.what == orderNothing {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var err error
	switch o.what {
	case orderAccept:
		err = s.Authority.Accept(ctx, o.number, o.role)
	case orderYes, orderNo:
		err = s.Authority.Answer(ctx, o.ceremony, o.what == orderYes)
	case orderOpen:
		err = s.Authority.OpenWindow(ctx)
	case orderClose:
		err = s.Authority.CloseWindow(ctx)
	case orderReset:
		err = s.Helper.Reset(ctx)
	}
	if errors.Is(err, pairing.ErrRoleRequired) {
		d.carried(o, "", true)
		return
	}
	text := ""
	if err != nil {
		text = refusal(err)
	}
	d.carried(o, text, false)
}

// enqueue drops keys that nobody looks at: they must not wait in the reader, or
// they would seem to be later than they were.
func enqueue(keys chan<- key, k key) {
	select {
	case keys <- k:
	default:
	}
}

func readKeys(ctx context.Context, in io.Reader, keys chan<- key) {
	b := make([]byte, 256)
	for ctx.Err() == nil {
		n, err := in.Read(b)
		now := time.Now()
		for _, k := range parseKeys(b[:n]) {
			k.at = now
			enqueue(keys, k)
		}
		if err != nil {
			return
		}
	}
}

// parseKeys reads what a terminal in raw mode sends. A sequence of a special key
// comes in one piece; Escape comes alone.
func parseKeys(b []byte) []key {
	var keys []key
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == 0x1b && len(b) == 1:
			keys = append(keys, key{kind: keyEscape})
		case r == 0x1b:
			size = escapeSize(b)
			keys = append(keys, key{kind: keyOtherThing})
		case r == '\r' || r == '\n':
			keys = append(keys, key{kind: keyEnter})
		case r == 0x7f || r == '\b':
			keys = append(keys, key{kind: keyBackspace})
		case r == 0x03:
			keys = append(keys, key{kind: keyQuit})
		case r < ' ' || r == utf8.RuneError:
			keys = append(keys, key{kind: keyOtherThing})
		default:
			keys = append(keys, key{kind: keyRune, r: r})
		}
		b = b[size:]
	}
	return keys
}

// escapeSize is how long the sequence is that b begins with (ECMA-48): ESC [, then
// parameters, then a letter; or ESC and one character (two after O).
func escapeSize(b []byte) int {
	switch b[1] {
	case '[':
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e && !(i == 2 && b[i] == '[') { // the Linux console sends ESC [ [ A
				return i + 1
			}
		}
		return len(b)
	case 'O':
		return min(3, len(b))
	}
	return 2
}

// painter writes frames to a terminal: what has changed, in one write.
type painter struct {
	out  io.Writer
	size func() (columns, rows int)

	shown  *frame // nil: nothing is known of what stands there
	at     time.Time
	width  int
	height int
}

func (p *painter) paint(f frame, now time.Time) error {
	width, height := columns, rows+1
	if p.size != nil {
		if w, h := p.size(); w > 0 && h > 0 {
			width, height = w, h
		}
	}
	var b bytes.Buffer
	if p.shown == nil || width != p.width || height != p.height {
		// No cursor, no wrapping, an empty screen.
		b.WriteString("\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J")
		p.shown, p.width, p.height = nil, width, height
	}
	all := p.shown == nil || now.Sub(p.at) >= redrawEvery
	left, top := max(0, (width-columns)/2), max(0, (height-rows-1)/2)
	for row, text := range f {
		if (all || p.shown[row] != text) && top+row < height {
			// All of the row, for what stood there: erasing to the end of the line would
			// take the last column, where the cursor stays, with it.
			fmt.Fprintf(&b, "\x1b[%d;%dH%s", top+row+1, left+1, reverse(wide(text, min(columns, width))))
		}
	}
	if all {
		p.at = now
	}
	p.shown = &f
	if b.Len() == 0 {
		return nil
	}
	_, err := p.out.Write(b.Bytes())
	return err
}

// wide fills text with spaces, or cuts it, to a width.
func wide(text string, width int) string {
	cells := []rune(text)
	for len(cells) < width {
		cells = append(cells, ' ')
	}
	return string(cells[:width])
}

// reverse draws solid cells as spaces in reverse video, which needs no character
// of the font.
func reverse(text string) string {
	if !strings.ContainsRune(text, digits.Solid) {
		return text
	}
	var b strings.Builder
	on := false
	for _, r := range text {
		if (r == digits.Solid) != on {
			on = !on
			if on {
				b.WriteString("\x1b[7m")
			} else {
				b.WriteString("\x1b[0m")
			}
		}
		if r == digits.Solid {
			r = ' '
		}
		b.WriteRune(r)
	}
	if on {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// end leaves the terminal as it is expected to be.
func (p *painter) end() {
	_, _ = io.WriteString(p.out, "\x1b[0m\x1b[?7h\x1b[?25h\x1b[2J\x1b[H")
}

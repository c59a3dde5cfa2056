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

// ErrResetting is the answer of a Helper once a factory reset was ordered.
var ErrResetting = errors.New("the Base is being reset")

// ErrQuit: a user has pressed Ctrl-C.
var ErrQuit = errors.New("the console was ended at its keyboard")

// Helper is what the console needs from the system helper, in addition to the ceremony authority.
type Helper interface {
	// Summary is how open the Base is.
	Summary(ctx context.Context) (*systemv1.Summary, error)
	// Reset orders a factory reset.
	Reset(ctx context.Context) error
}

// Screen is a full screen with its keyboard and buttons.
type Screen struct {
	Authority pairing.Client
	Helper    Helper
	// Keys is the terminal's input in raw mode. When it ends, the screen stays on.
	Keys io.Reader
	Out  io.Writer
	// Size returns how many columns and rows the terminal has; nil: 80 and 25.
	Size func() (columns, rows int)
	// Buttons, if not nil, reads buttons until ctx ends. It is told when a question begins and
	// when it ends.
	Buttons func(ctx context.Context, asking <-chan bool, pressed func(keyKind))
}

const (
	// askTime bounds one request to the helper.
	askTime = 10 * time.Second
	// lookEvery is how often to ask for the summary; tickEvery is how often the screen checks the
	// clock.
	lookEvery = 2 * time.Second
	tickEvery = 250 * time.Millisecond
	// watchTime is how long one request to the authority waits for something new.
	watchTime = 5 * time.Second
	// reachAgain is how soon to ask a helper again that did not answer.
	reachAgain = time.Second
	// redrawEvery is how often to redraw the whole screen, in case something else, such as the
	// kernel, has written to it.
	redrawEvery = 10 * time.Second
)

// news is a report of the helper.
type news struct {
	snapshot *systemv1.Snapshot
	summary  *systemv1.Summary
	err      error
}

// Run shows the screen and takes answers until ctx ends, or the terminal fails.
//
// A read from a terminal cannot be cancelled: the goroutine that reads Keys ends with the
// process, or with the next key.
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

// hear takes a report of the helper.
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

// tellAsking replaces the last message to the buttons.
func tellAsking(asking chan bool, now bool) {
	select {
	case <-asking:
	default:
	}
	asking <- now
}

// followAuthority passes on the authority's reports. It starts again from time to time, because a
// restarted helper counts its versions from the beginning, and a helper that hangs does not close
// the connection.
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

// followSummary reports a reset as well. The authority's stream reports when the helper does not
// answer.
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

// enqueue drops keys that nothing reads: if they waited in the reader, they would seem to be
// later than they were.
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

// escapeSize is the length of the escape sequence at the start of b (ECMA-48): ESC [, then
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

// painter writes frames to a terminal: only what has changed, in one write.
type painter struct {
	out  io.Writer
	size func() (columns, rows int)

	shown  *frame // nil: the content of the terminal is not known
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
		// Hide the cursor, do not wrap, clear the screen.
		b.WriteString("\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J")
		p.shown, p.width, p.height = nil, width, height
	}
	all := p.shown == nil || now.Sub(p.at) >= redrawEvery
	left, top := max(0, (width-columns)/2), max(0, (height-rows-1)/2)
	for row, text := range f {
		if (all || p.shown[row] != text) && top+row < height {
			// Write the whole row, to replace its old content: erasing to the end of the line
			// would also erase the last column, where the cursor stays.
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

// reverse draws solid cells as spaces in reverse video, which needs no character of the font.
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

// end leaves the terminal as other programs expect it.
func (p *painter) end() {
	_, _ = io.WriteString(p.out, "\x1b[0m\x1b[?7h\x1b[?25h\x1b[2J\x1b[H")
}

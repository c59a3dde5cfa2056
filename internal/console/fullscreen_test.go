package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/digits"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// tube is a terminal of 80 by 25, as far as the screen uses one. Anything that it does not know
// is a fault.
type tube struct {
	mu      sync.Mutex
	cells   [rows + 1][columns]rune
	x, y    int
	reverse bool
	writes  int
	faults  []string
	broken  bool // writing fails
}

func (s *tube) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return 0, errors.New("the terminal was hung up")
	}
	s.writes++
	for rest := string(b); rest != ""; {
		switch r := []rune(rest)[0]; {
		case r == 0x1b:
			rest = s.sequence(rest)
		case r < ' ' || r == 0x7f:
			s.faults = append(s.faults, fmt.Sprintf("the control character %q", r))
			rest = rest[1:]
		default:
			if s.x >= columns || s.y > rows { // it would be drawn over the last column
				s.faults = append(s.faults, fmt.Sprintf("%q beyond the edge", r))
			} else {
				if s.reverse && r == ' ' {
					r = digits.Solid
				}
				s.cells[s.y][s.x] = r
				s.x++
			}
			rest = rest[len(string([]rune(rest)[0])):]
		}
	}
	return len(b), nil
}

// sequence takes one escape sequence, and returns the rest.
func (s *tube) sequence(text string) string {
	end := strings.IndexAny(text, "HJmhl")
	if !strings.HasPrefix(text, "\x1b[") || end < 0 {
		s.faults = append(s.faults, fmt.Sprintf("the sequence %.10q", text))
		return text[1:]
	}
	switch sequence := text[2 : end+1]; sequence {
	case "2J":
		for y := range s.cells {
			for x := range s.cells[y] {
				s.cells[y][x] = ' '
			}
		}
	case "0m", "7m":
		s.reverse = sequence == "7m"
	case "H":
		s.x, s.y = 0, 0
	case "?25l", "?25h", "?7l", "?7h":
	default:
		if n, err := fmt.Sscanf(sequence, "%d;%dH", &s.y, &s.x); n != 2 || err != nil {
			s.faults = append(s.faults, fmt.Sprintf("the sequence %q", sequence))
			break
		}
		s.x, s.y = s.x-1, s.y-1
	}
	return text[end+1:]
}

// text is the content of the screen.
func (s *tube) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, row := range s.cells {
		b.WriteString(strings.TrimRight(strings.ReplaceAll(string(row[:]), "\x00", " "), " ") + "\n")
	}
	return b.String()
}

// desktop is a Base with a full screen, and a user in front of it.
type desktop struct {
	*base
	tube   *tube
	helper *fakeHelper
	port   *cuttable
}

// fakeHelper is the helper except for the ceremony authority, which is the real one.
type fakeHelper struct {
	resets    atomic.Int32
	resetting atomic.Bool
	refuse    atomic.Bool
}

func (h *fakeHelper) Summary(context.Context) (*systemv1.Summary, error) {
	if h.resetting.Load() {
		return nil, ErrResetting
	}
	return openBase(), nil
}

func (h *fakeHelper) Reset(context.Context) error {
	h.resets.Add(1)
	if h.refuse.Load() {
		return errors.New("the disk is full")
	}
	return nil
}

// cuttable is a connection to the authority that ends when the helper does.
type cuttable struct {
	pairing.Port
	mu   sync.Mutex
	down chan struct{} // closed: it is down
}

func (c *cuttable) Call(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	select {
	case <-down:
		return nil, context.Canceled
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-down:
			cancel()
		case <-ctx.Done():
		}
	}()
	return c.Port.Call(ctx, request)
}

func (c *cuttable) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if down {
		close(c.down)
	} else {
		c.down = make(chan struct{})
	}
}

func startScreen(t *testing.T) *desktop {
	t.Helper()
	d := &desktop{tube: &tube{}, helper: &fakeHelper{}, port: &cuttable{down: make(chan struct{})}}
	d.base = start(t, func(ctx context.Context, authority pairing.Client, in io.Reader, _ io.Writer) error {
		d.port.Port = authority.Port
		return (&Screen{Authority: pairing.Client{Port: d.port}, Helper: d.helper, Keys: in, Out: d.tube}).Run(ctx)
	})
	return d
}

// rest lets everything come to rest, and fails the test for any fault of the screen.
func (d *desktop) rest() string {
	d.t.Helper()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	d.tube.mu.Lock()
	faults := d.tube.faults
	d.tube.mu.Unlock()
	if len(faults) > 0 {
		d.t.Fatalf("the terminal was sent %v", faults)
	}
	return d.tube.text()
}

func (d *desktop) shows(texts ...string) string {
	d.t.Helper()
	got := d.rest()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			d.t.Fatalf("the screen does not show %q, but:\n%s", text, got)
		}
	}
	return got
}

// showsLarge fails the test unless the digits are shown in large type.
func (d *desktop) showsLarge(code string) {
	d.t.Helper()
	var all []string
	for _, row := range digits.Large(code) {
		all = append(all, strings.TrimRight(row, " "))
	}
	d.shows(all...)
}

func screenTest(test func(t *testing.T, d *desktop)) func(*testing.T) {
	return bubble(func(t *testing.T) { test(t, startScreen(t)) })
}

func TestAppsArePairedAtTheScreen(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		d.shows("no owner yet", "192.168.1.17", "kitchen")
		a := newApp()
		d.hear(a)
		d.showsLarge(a.number())
		d.types("y")
		d.shows("Waiting for its App")
		code := d.reveal(a, "phone")
		d.showsLarge(code)
		d.shows(`It calls itself "phone"`, "As owner")
		d.types("y")
		d.shows("Now say yes in the App")
		if err := d.enrol(a); err != nil {
			t.Fatal(err)
		}
		d.shows(`"phone" is paired as owner`, "O  let another App in")

		second := newApp()
		d.types("o")
		d.shows("Let another App in?")
		d.types("y")
		d.shows("open for another")
		d.hear(second)
		d.showsLarge(second.number())
		d.types("y")
		d.shows("What may the App with number "+second.number(), "operator")
		d.types("1")
		d.shows("is accepted")
		code = d.reveal(second, strings.Repeat("\u6f22", 21))
		d.shows("As viewer", `"?????????????????????"`)
		d.types(strings.ReplaceAll(code, " ", "") + "\r")
		d.shows("Now say yes in the App")
		if err := d.enrol(second); err != nil {
			t.Fatal(err)
		}
		d.shows("is paired as viewer")
	})(t)
}

func TestKeysPressedTooEarlyConfirmNoCodeOnTheScreen(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		a := newApp()
		d.hear(a)
		d.rest()
		d.types("yyyy")
		time.Sleep(time.Second)
		synctest.Wait()
		d.reveal(a, "phone")
		d.types("yyyyyy")
		d.rest()
		snapshot, err := d.console.Watch(t.Context(), 0)
		if err != nil || snapshot.GetCeremony() == nil || snapshot.GetCeremony().GetBaseConfirmed() ||
			snapshot.GetActsLeft() != pairing.MaxActs-1 {
			t.Fatalf("after typing ahead: %v, %v", snapshot, err)
		}
		d.types("y") // and it continues as if nothing had happened
		d.shows("Now say yes in the App")
	})(t)
}

func TestTheRealRequestGetsThroughAFloodAtTheScreen(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		a := newApp()
		d.hear(a)
		flood := func() {
			for range 200 {
				d.hear(newApp())
			}
		}
		flood()
		d.shows("Type the number that yours shows")
		for _, digit := range strings.ReplaceAll(a.number(), " ", "") {
			flood()
			d.types(string(digit))
			d.rest()
		}
		d.types("\r")
		d.shows("Request " + a.number() + " is accepted")
		code := d.reveal(a, "phone")
		d.showsLarge(code)
		before := d.rest()
		flood()
		if after := d.rest(); after != before {
			t.Errorf("while a code is compared, the flood has changed the screen:\n%s", after)
		}
	})(t)
}

func TestTheScreenSurvivesARestartOfTheHelper(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		a := newApp()
		d.hear(a)
		d.rest()
		d.types("y")
		d.rest()
		code := d.reveal(a, "phone")
		d.showsLarge(code)
		d.port.set(true)
		if got := d.shows("Waiting for the system helper"); strings.ContainsRune(got, digits.Solid) {
			t.Errorf("an old code is still on the screen:\n%s", got)
		}
		d.types("y")
		d.shows("Waiting for the system helper")
		d.port.set(false)
		d.showsLarge(code) // here only the connection was cut
		d.types("n")
		d.shows("rejected here")
	})(t)
}

func TestTheBaseIsResetByItsTypedName(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		d.shows("F  factory reset")
		d.types("f")
		d.shows("FACTORY RESET", "type this and press Enter:   kitchen")
		d.types("kitche\r")
		d.shows("not the requested text")
		d.types("\x1b")
		d.shows("was not reset")
		if d.helper.resets.Load() != 0 {
			t.Fatal("it was reset")
		}
		d.helper.refuse.Store(true)
		d.types("fkitchen\r")
		d.shows("Not done: the disk is full")
		d.helper.refuse.Store(false)
		d.types("fkitchen\r")
		d.shows("This Base is being wiped")
		if n := d.helper.resets.Load(); n != 2 {
			t.Errorf("%d orders", n)
		}
		d.types("fkitchen\ry")
		d.shows("This Base is being wiped")
		if n := d.helper.resets.Load(); n != 2 {
			t.Errorf("%d orders", n)
		}
	})(t)
}

// An owner's App has ordered it.
func TestTheScreenReportsAResetUnderWay(t *testing.T) {
	screenTest(func(_ *testing.T, d *desktop) {
		d.rest()
		d.helper.resetting.Store(true)
		d.shows("This Base is being wiped")
	})(t)
}

// The screen is written in one piece when something has changed, and from time to time in case
// something else has written to it.
func TestTheScreenIsWrittenWhenSomethingChanges(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		want := d.rest()
		count := func() int {
			d.tube.mu.Lock()
			defer d.tube.mu.Unlock()
			return d.tube.writes
		}
		before := count()
		time.Sleep(redrawEvery * 10)
		synctest.Wait()
		if n := count() - before; n > 11 || n < 9 {
			t.Errorf("in %v without news it was written %d times", redrawEvery*10, n)
		}
		_, _ = io.WriteString(d.tube, "\x1b[3;1Hkernel: something happened")
		time.Sleep(redrawEvery)
		if got := d.rest(); got != want {
			t.Errorf("what the kernel wrote stays:\n%s", got)
		}
		before = count()
		d.hear(newApp())
		d.rest()
		if n := count() - before; n == 0 || n > 3 {
			t.Errorf("for one request it was written %d times", n)
		}
	})(t)
}

func TestTheScreenEndsOnRequest(t *testing.T) {
	screenTest(func(t *testing.T, d *desktop) {
		d.rest()
		d.types("\x03")
		if err := <-d.ended; !errors.Is(err, ErrQuit) {
			t.Errorf("Ctrl-C: %v", err)
		}
	})(t)
	screenTest(func(t *testing.T, d *desktop) {
		d.rest()
		d.stop()
		if err := <-d.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("asked to end: %v", err)
		}
	})(t)
	screenTest(func(t *testing.T, d *desktop) {
		d.rest()
		_ = d.keyboard.Close() // nobody can type; it still shows
		a := newApp()
		d.hear(a)
		d.showsLarge(a.number())
		d.tube.mu.Lock()
		d.tube.broken = true
		d.tube.mu.Unlock()
		d.hear(newApp())
		if err := <-d.ended; err == nil {
			t.Error("without a terminal it goes on")
		}
	})(t)
}

// On a larger terminal the screen is in the middle; on a smaller one it does not wrap.
func TestTheScreenFitsOtherTerminals(t *testing.T) {
	f := screens()["code"].draw(noon)
	whole := &tube{}
	if err := (&painter{out: whole}).paint(f, noon); err != nil {
		t.Fatal(err)
	}
	if got := whole.text(); got != strings.Join(f[:], "\n")+"\n\n" || len(whole.faults) > 0 {
		t.Errorf("on 80x25 it looks like\n%s%v", got, whole.faults)
	}
	for _, size := range [][2]int{{80, 25}, {80, 24}, {240, 67}, {40, 10}, {0, 0}} {
		var b strings.Builder
		p := &painter{out: &b, size: func() (int, int) { return size[0], size[1] }}
		if err := p.paint(f, noon); err != nil {
			t.Fatal(err)
		}
		for _, place := range strings.Split(b.String(), "\x1b[") {
			var y, x int
			if n, _ := fmt.Sscanf(place, "%d;%dH", &y, &x); n == 2 && size[0] > 0 &&
				(y < 1 || y > size[1] || x < 1 || x > max(1, size[0]-columns+1)) {
				t.Errorf("on %v it writes at %d;%d", size, y, x)
			}
		}
		if !strings.Contains(b.String(), "\x1b[?7l") {
			t.Errorf("on %v it may wrap", size)
		}
	}
	if noiseconn.FormatNumber(482913) != "482 913" {
		t.Error("the codes have another form")
	}
}

package terminal

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func screen(columns int, color bool) (*Output, *bytes.Buffer) {
	to := new(bytes.Buffer)
	return &Output{To: to, Color: color, columns: func() int { return columns }}, to
}

func fill(t *Table) *Table {
	t.Row("0123456789abcdef", "東京の家のとても長い名前です", "critical")
	t.Row("fedcba9876543210", "e\u0301", "info")
	t.Sentence("1", "the Base cannot be reached, so this sentence is longer than its line")
	return t
}

func TestATableFitsItsTerminal(t *testing.T) {
	o, to := screen(50, false)
	if err := fill(o.Table("ID", "NAME", "HOW").Whole("ID")).Print(); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"ID                 NAME                   HOW\n" +
		"0123456789abcdef   東京の家のとても長…    critical\n" +
		"fedcba9876543210   e\u0301                      info\n" +
		"1                  the Base cannot be reached, so\n" +
		"                   this sentence is longer than\n" +
		"                   its line\n"
	if to.String() != want {
		t.Errorf("got\n%swant\n%s", to, want)
	}
}

func TestAPipeGetsEverythingAndNoColour(t *testing.T) {
	to := new(bytes.Buffer)
	table := fill((&Output{To: to}).Table("ID", "NAME", "HOW")).Styled("HOW", func(string) Style { return Red })
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	for _, whole := range []string{"東京の家のとても長い名前です   critical\n", "longer than its line\n"} {
		if !strings.Contains(to.String(), whole) {
			t.Errorf("%q is not in\n%s", whole, to)
		}
	}
	if strings.Contains(to.String(), "\x1b") || strings.Contains(to.String(), ellipsis) {
		t.Errorf("%q", to)
	}
}

func TestAColourIsEndedInItsCell(t *testing.T) {
	o, to := screen(80, true)
	table := o.Table("HOW", "WHAT").Styled("HOW", func(string) Style { return Red })
	table.Row("bad", "x")
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[1mHOW\x1b[0m   \x1b[1mWHAT\x1b[0m\n\x1b[31mbad\x1b[0m   x\n"; to.String() != want {
		t.Errorf("%q, not %q", to, want)
	}
}

func TestNoLineOfATableIsTooLong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.IntRange(40, 200).Draw(t, "columns")
		o, to := screen(columns, false)
		table := o.Table("A", "B", "C")
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			table.Row(rapid.StringMatching(`[a-z東é]{1,90}`).Draw(t, "a"), rapid.StringMatching(`[a-z東]{1,90}`).Draw(t, "b"),
				rapid.StringMatching(`[a-z👩‍🚀]{1,90}`).Draw(t, "c"))
		}
		if err := table.Print(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(to.String()) {
			if got := Width(strings.TrimSuffix(line, "\n")); got > columns {
				t.Fatalf("%d of %d columns: %q", got, columns, line)
			}
		}
	})
}

func TestCutTextFitsAndKeepsWholeCharacters(t *testing.T) {
	for text, want := range map[string]string{
		"short":               "short",
		"longer than":         "longe…",
		"東京都庁":                "東京…",
		"ee\u0301e\u0301eeee": "ee\u0301e\u0301ee…",
		"👩‍🚀👩‍🚀👩‍🚀👩‍🚀": "👩‍🚀👩‍🚀…",
	} {
		if got := Cut(text, 6); got != want || Width(got) > 6 {
			t.Errorf("%q became %q, not %q", text, got, want)
		}
	}
	if got := Cut("x", 0); got != "" {
		t.Errorf("%q", got)
	}
}

func TestAFileIsNeverATerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	o := Open(file, func(name string) string {
		return map[string]string{"TERM": "xterm-256color", "CLICOLOR_FORCE": "1", "COLUMNS": "20"}[name]
	})
	if o.Color || o.Moves || o.Width() != 0 {
		t.Errorf("%+v", o)
	}
	o.Wait("something")
	if _, err := io.WriteString(o, o.Paint(Red, "text")); err != nil {
		t.Fatal(err)
	}
	if content, _ := os.ReadFile(file.Name()); string(content) != "text" {
		t.Errorf("%q", content)
	}
}

// recorder is a terminal that remembers its output, and tells when a text has come.
type recorder struct {
	mu   sync.Mutex
	text string
	come *sync.Cond
}

func newRecorder() *recorder {
	r := &recorder{}
	r.come = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text += string(b)
	r.come.Broadcast()
	return len(b), nil
}

func (r *recorder) await(text string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !strings.Contains(r.text, text) {
		r.come.Wait()
	}
	return r.text
}

// The waiting line is erased before anything else is written.
func TestTheWaitingLineIsErased(t *testing.T) {
	to := newRecorder()
	o := &Output{To: to, Moves: true}
	o.Wait("the Base")
	to.await(eraseAll + "| the Base")
	o.Wait("something else")
	to.await(" something else")
	_, _ = io.WriteString(o, "answer\n")
	o.Wait("nothing that is seen")
	o.Wait("")
	if got := to.await("answer"); !strings.HasSuffix(got, " something else"+eraseAll+"answer\n") {
		t.Errorf("%q", got)
	}
}

func TestTheLocaleDecidesAboutUTF8(t *testing.T) {
	for _, c := range []struct {
		system, all, ctype, lang string
		want                     bool
	}{
		{"linux", "", "", "de_CH.UTF-8", true}, {"linux", "", "de_CH.utf8", "C", true}, {"linux", "C.UTF-8", "C", "C", true},
		{"linux", "", "", "", false}, {"linux", "", "", "C", false}, {"linux", "POSIX", "", "", false}, {"linux", "C", "", "en_US.UTF-8", false},
		{"linux", "", "", "en_US.ISO-8859-1", false}, {"darwin", "", "", "", true}, {"windows", "", "", "C", true},
	} {
		environment := map[string]string{"LC_ALL": c.all, "LC_CTYPE": c.ctype, "LANG": c.lang}
		if got := UTF8(c.system, func(name string) string { return environment[name] }); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// At 40 columns each row of a wide table is a list, and nothing is cut.
func TestATableWithoutRoomBecomesLists(t *testing.T) {
	o, to := screen(40, false)
	table := o.Table("ID", "NAME", "ROLE", "PAIRED", "LAST SEEN", "FROM").Whole("ID")
	table.Row("0123456789abcdef", "Anna's telephone", "operator", "2026-11-26 20:21", "", "192.168.1.20")
	table.Row("fedcba9876543210", "Laptop", "owner", "20:21", "20:22", "192.168.1.21")
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"ID       0123456789abcdef\n" +
		"NAME     Anna's telephone\n" +
		"ROLE     operator\n" +
		"PAIRED   2026-11-26 20:21\n" +
		"FROM     192.168.1.20\n" +
		"\n" +
		"ID          fedcba9876543210\n" +
		"NAME        Laptop\n" +
		"ROLE        owner\n" +
		"PAIRED      20:21\n" +
		"LAST SEEN   20:22\n" +
		"FROM        192.168.1.21\n"
	if to.String() != want {
		t.Errorf("got\n%swant\n%s", to, want)
	}
}

func TestLongSentencesBreakBetweenWords(t *testing.T) {
	o, _ := screen(40, false)
	got := o.Fold("  ", "bitbox-app: the Base was not reached (connection refused) at 127.0.0.1:8845 nor found; check that it is on")
	want := "bitbox-app: the Base was not reached\n  (connection refused) at 127.0.0.1:8845\n  nor found; check that it is on"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if pipe := (&Output{}).Fold("  ", want); pipe != want {
		t.Errorf("a pipe gets\n%s", pipe)
	}
}

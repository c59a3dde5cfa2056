package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
)

// onSeveral is the annotation of commands that may run on several Bases at once. All others
// refuse that.
var onSeveral = map[string]string{"bases": "several"}

// atOnce is how many Bases are called at the same time.
const atOnce = 16

// chosenBases returns the names of the Bases that the flags choose; none without such a flag.
// This App knows each of them.
func (p *program) chosenBases(app *client.App) ([]string, error) {
	if p.all && len(p.bases) > 0 {
		return nil, usageError{errors.New("--all and --base cannot be combined")}
	}
	known, err := app.Bases()
	if err != nil {
		return nil, err
	}
	names := []string{}
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if p.all {
		for _, base := range known {
			if base.State.Usable() {
				add(base.Name)
			}
		}
		if len(names) == 0 {
			return nil, &client.Error{Kind: client.ErrNoSuchBase, Text: "this App has no usable pairing; pair with a Base first"}
		}
		return names, nil
	}
	for _, typed := range p.bases {
		parts := strings.Split(typed, ",")
		// A name may have a comma in it.
		if slices.ContainsFunc(known, func(b client.Base) bool { return b.Name == typed }) {
			parts = []string{typed}
		}
		for _, part := range parts {
			base, err := app.Base(strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			add(base.Name)
		}
	}
	return names, nil
}

// severalBases returns the names of the Bases that a command runs on side by side; none if it
// runs on one.
func (p *program) severalBases() ([]string, error) {
	if !p.all && len(p.bases) == 0 {
		return nil, nil
	}
	app, err := p.app(client.Options{})
	if err != nil {
		return nil, err
	}
	names, err := p.chosenBases(app)
	if err != nil || len(names) == 1 && !p.all {
		return nil, err
	}
	return names, nil
}

// checkSeveral refuses several Bases for a command that works on one.
func (p *program) checkSeveral(c *cobra.Command) error {
	several, err := p.severalBases()
	switch {
	case err != nil || several == nil:
		return err
	case c.Annotations["bases"] != onSeveral["bases"]:
		return oneAtATime(c)
	case p.address != "":
		return usageError{errors.New("--address is for one Base, and several are named")}
	}
	return nil
}

func oneAtATime(c *cobra.Command) error {
	return usageError{fmt.Errorf("'%s' works on one Base at a time; name it with --base", c.CommandPath())}
}

// oneBase refuses several Bases for the part of a command that works on one only.
func (p *program) oneBase(c *cobra.Command) error {
	if several, err := p.severalBases(); err != nil || several != nil {
		return cmp.Or(err, oneAtATime(c))
	}
	return nil
}

// query is a command that asks a Base something and shows the answer.
type query[T any] struct {
	// ask may run for several Bases at the same time.
	ask func(context.Context, *client.Session) (T, error)
	// doing, if set, tells the user what the command waits for at one Base.
	doing string
	// json is the JSON form of the answer, by default all of it.
	json func(T) any
	// show prints the answer of one Base.
	show func(T) error
	// With several Bases there is one table. These are its columns after the Base's name, and its
	// rows for one Base. empty is the text for no rows.
	columns []string
	rows    func(T) [][]string
	empty   string
	// table, if set, chooses which cells stand out or are never shortened.
	table func(*table)
	// verdict, if set, turns an answer that was shown into a failure.
	verdict func(T) error
}

// tableOf makes a query for one Base show the table of several, without the names.
func tableOf[T any](p *program, q query[T]) query[T] {
	q.show = func(answer T) error {
		t := p.table(q.columns...)
		if q.table != nil {
			q.table(t)
		}
		for _, cells := range q.rows(answer) {
			t.row(cells...)
		}
		return t.print()
	}
	return q
}

// ofSeveral is the JSON line of each of several Bases.
type ofSeveral struct {
	Base string `json:"base"`
	// Answer is what the command prints for this Base alone.
	Answer json.RawMessage `json:"answer,omitempty"`
	// Error is the sentence, and Code the exit code, with which the command would have ended for
	// this Base alone; absent if the code is 0.
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// ask runs a query on the chosen Base, or side by side on each of several.
func ask[T any](p *program, c *cobra.Command, usual time.Duration, q query[T]) error {
	several, err := p.severalBases()
	if err != nil {
		return err
	}
	verdict := func(answer T) error {
		if q.verdict == nil {
			return nil
		}
		return q.verdict(answer)
	}
	value := func(answer T) any {
		if q.json == nil {
			return answer
		}
		return q.json(answer)
	}
	if several == nil {
		return p.call(c.Context(), usual, func(ctx context.Context, session *client.Session) error {
			if q.doing != "" {
				p.waiting("%s", q.doing)
			}
			answer, err := q.ask(ctx, session)
			switch {
			case err != nil:
				return err
			case p.json:
				err = p.printJSON(value(answer))
			default:
				err = q.show(answer)
			}
			if err != nil {
				return err
			}
			return verdict(answer)
		})
	}
	answers, rows := make([]T, len(several)), make([]func(*table), len(several))
	err = p.sideBySide(c.Context(), usual, several, func(ctx context.Context, n int, session *client.Session) error {
		var err error
		answers[n], err = q.ask(ctx, session)
		return err
	}, func(n int, failed error) (error, error) {
		line := ofSeveral{Base: several[n]}
		shown := [][]string{}
		if failed == nil {
			shown, failed = q.rows(answers[n]), verdict(answers[n])
			if len(shown) == 0 && failed == nil {
				shown = [][]string{nil}
			}
			text, err := marshal(value(answers[n]))
			if err != nil {
				return failed, err
			}
			line.Answer = text
		}
		if failed != nil {
			line.Error, line.Code = p.sentence(c.Context(), failed), exitCode(c.Context(), failed)
		}
		if p.json {
			return failed, p.printJSON(line)
		}
		rows[n] = func(t *table) {
			for _, cells := range shown {
				if len(cells) == 0 {
					t.sentence(several[n], q.empty)
					continue
				}
				t.row(append([]string{several[n]}, cells...)...)
			}
			if len(shown) == 0 {
				t.sentence(several[n], line.Error)
			}
		}
		return failed, nil
	})
	if p.json || err != nil && !isSeveral(err) {
		return err
	}
	t := p.table(append([]string{"BASE"}, q.columns...)...)
	if q.table != nil {
		q.table(t)
	}
	for _, add := range rows {
		add(t)
	}
	return errors.Join(t.print(), err)
}

// stream runs a conversation that prints lines as it goes. With several Bases each line begins
// with the name of its Base, and the conversations run at the same time.
func (p *program) stream(c *cobra.Command, usual time.Duration, conversation func(*program, context.Context, *client.Session) error) error {
	several, err := p.severalBases()
	if err != nil {
		return err
	}
	if several == nil {
		return p.call(c.Context(), usual, func(ctx context.Context, session *client.Session) error {
			return conversation(p, ctx, session)
		})
	}
	widest := 0
	for _, name := range several {
		widest = max(widest, terminal.Width(client.Printable(name)))
	}
	printed := func(n int, line ofSeveral, text string) error {
		line.Base = several[n]
		if p.json {
			return p.printJSON(line)
		}
		name := client.Printable(several[n])
		return p.printf("%s  %s\n", p.out.Paint(terminal.Bold, name)+strings.Repeat(" ", widest-terminal.Width(name)), text)
	}
	return p.sideBySide(c.Context(), usual, several, func(ctx context.Context, n int, session *client.Session) error {
		own := *p
		own.out = &terminal.Output{Color: p.out.Color, To: &lines{emit: func(text string) error {
			return printed(n, ofSeveral{Answer: json.RawMessage(text)}, text)
		}}}
		return conversation(&own, ctx, session)
	}, func(n int, failed error) (error, error) {
		if failed == nil {
			return nil, nil
		}
		text := p.sentence(c.Context(), failed)
		return failed, printed(n, ofSeveral{Error: text, Code: exitCode(c.Context(), failed)}, text)
	})
}

// lines passes on each whole line that is written.
type lines struct {
	emit func(line string) error
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		l.rest = rest
		if err := l.emit(string(line)); err != nil {
			return 0, err
		}
	}
}

// sideBySide runs a conversation with each of several Bases, some at the same time, and calls
// ended for one at a time as they end. ended returns the failure that counts, and another one if
// printing failed, which ends all. One Base that does not answer does not delay the others.
func (p *program) sideBySide(ctx context.Context, usual time.Duration, bases []string,
	conversation func(ctx context.Context, n int, session *client.Session) error, ended func(n int, err error) (failed,
		unprinted error)) error {
	app, err := p.app(client.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	type result struct {
		n   int
		err error
	}
	results, free := make(chan result, len(bases)), make(chan struct{}, atOnce)
	for n, name := range bases {
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			err := p.talk(ctx, app, name, usual, func(ctx context.Context, session *client.Session) error {
				return conversation(ctx, n, session)
			})
			results <- result{n, err}
		})
	}
	failures := make([]error, 0, len(bases))
	waiting := slices.Clone(bases)
	for range bases {
		p.waiting("Waiting for %s", strings.Join(waiting, ", "))
		r := <-results
		waiting = slices.DeleteFunc(waiting, func(name string) bool { return name == bases[r.n] })
		failed, unprinted := ended(r.n, r.err)
		if unprinted != nil {
			return unprinted
		}
		if failed != nil {
			failures = append(failures, failed)
		}
	}
	if len(failures) == 0 {
		return nil
	}
	code := func(err error) int { return exitCode(context.Background(), err) }
	differ := slices.ContainsFunc(failures, func(err error) bool { return code(err) != code(failures[0]) })
	return severalError{failures, len(bases), differ}
}

// severalError means that a command failed on some of several Bases. If all of these have the
// same exit code, it has that code.
type severalError struct {
	failures []error
	of       int
	differ   bool // there is no code that all share
}

func isSeveral(err error) bool { return errors.As(err, new(severalError)) }

func (e severalError) Error() string {
	return fmt.Sprintf("%d of %d Bases failed; see their lines", len(e.failures), e.of)
}

func (e severalError) Unwrap() []error { return e.failures[:1] }

// marshal makes JSON on one line that is harmless in a terminal. A message of the API shows every field.
func marshal(value any) ([]byte, error) {
	message, ok := value.(proto.Message)
	if !ok {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("print JSON: %w", err)
		}
		return escapeHidden(text), nil
	}
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("print JSON: %w", err)
	}
	// The package varies its spaces on purpose.
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return nil, fmt.Errorf("print JSON: %w", err)
	}
	return escapeHidden(line.Bytes()), nil
}

// escapeHidden writes characters of strings that control a terminal, are invisible, or change the
// direction of text as JSON escapes. JSON itself only wants this for those below U+0020, but
// terminals also take U+009B for the beginning of a command.
func escapeHidden(text []byte) []byte {
	safe := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if unicode.IsPrint(r) {
			safe = utf8.AppendRune(safe, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			safe = fmt.Appendf(safe, `\u%04x`, unit)
		}
	}
	return safe
}

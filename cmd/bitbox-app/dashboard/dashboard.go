// Package dashboard implements the App's full screen. It shows the Bases that are paired or
// announced, their state, how open they are, and their events. Keys pair Apps and change
// settings.
//
// It is a view of [owner.State]. The model adds what only a terminal has: what is chosen, the page,
// the text being typed. It does no I/O: it takes states and keys, and returns what the owner is asked
// for. Bubble Tea reads the keys and writes the screen.
package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
)

// Options are what Run needs.
type Options struct {
	// Owner is run, and ended, by Run.
	Owner *owner.Owner
	// Base is the one to show first; empty: any.
	Base string
	// In and Out are the terminal, Environment its user's ("NAME=value").
	In, Out     *os.File
	Environment []string
}

const (
	// framesPerSecond is enough for a countdown.
	framesPerSecond = 30
	// gather is the shortest pause between two looks at what has changed.
	gather = time.Second / framesPerSecond
)

// Run shows the dashboard until the user quits or ctx ends, and leaves the terminal as it was, also after a
// panic in what the owner runs. It returns the error of ctx, of the owner, or of the terminal.
func Run(ctx context.Context, o Options) error {
	// The standard library may log text that a Base has chosen: it must not get on the screen.
	defer log.SetOutput(log.Writer())
	log.SetOutput(io.Discard)

	m := newModel(time.Now(), o.Base, !terminal.UTF8(runtime.GOOS, func(name string) string { return variable(o.Environment, name) }))
	program := tea.NewProgram(&screen{m, o.Owner},
		tea.WithContext(ctx), tea.WithoutSignalHandler(), tea.WithInput(o.In), tea.WithOutput(o.Out),
		tea.WithEnvironment(o.Environment), tea.WithColorProfile(profile(o.Environment)), tea.WithFPS(framesPerSecond),
		tea.WithFilter(func(_ tea.Model, message tea.Msg) tea.Msg { return believable(message) }))
	running, leave := context.WithCancel(context.Background())
	var ran sync.WaitGroup
	var broken error
	ran.Go(func() {
		if broken = o.Owner.Run(running); broken != nil {
			program.Quit()
		}
	})
	ran.Go(func() { stir(running, o.Owner, program) })
	_, err := program.Run()
	leave()
	ran.Wait()
	made, _ := o.Owner.State().Deed(m.paired().Number)
	if text := m.farewell(made.Made); text != "" {
		_, _ = fmt.Fprintln(o.Out, text)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case broken != nil:
		return broken
	case errors.Is(err, tea.ErrProgramPanic):
		return owner.Bug("the full screen")
	case err != nil:
		return fmt.Errorf("show the dashboard in this terminal: %w", err)
	}
	return nil
}

// Fits tells whether a terminal of this environment can show the dashboard.
func Fits(environment []string) bool {
	term := variable(environment, "TERM")
	return term != "dumb" && (term != "" || runtime.GOOS == "windows")
}

func variable(environment []string, name string) string {
	for _, each := range slices.Backward(environment) {
		if key, value, _ := strings.Cut(each, "="); key == name {
			return value
		}
	}
	return ""
}

// profile is the colours that the terminal shows: its 16, or none if it has none or its user
// wants none (https://no-color.org). Bubble Tea would run programs to find out.
func profile(environment []string) colorprofile.Profile {
	term := variable(environment, "TERM")
	if variable(environment, "NO_COLOR") != "" || strings.HasPrefix(term, "vt") || strings.HasSuffix(term, "-m") ||
		strings.HasSuffix(term, "-mono") {
		return colorprofile.ASCII
	}
	return colorprofile.ANSI
}

// The size of a terminal that does not know its own: a serial line or a plain pseudo-terminal
// reports 0 by 0.
const usualWidth, usualHeight = 80, 24

func believable(message tea.Msg) tea.Msg {
	if s, ok := message.(tea.WindowSizeMsg); ok {
		if s.Width <= 0 || s.Height <= 0 {
			return tea.WindowSizeMsg{Width: usualWidth, Height: usualHeight}
		}
	}
	return message
}

// screen is the model in the form that Bubble Tea needs.
type screen struct {
	model *model
	owner *owner.Owner
}

// stirred: something has changed, or a second has passed.
type stirred struct{}

// stir has the screen drawn again after each change, and each second because of the countdowns.
func stir(ctx context.Context, o *owner.Owner, program *tea.Program) {
	wake, done := o.Subscribe()
	defer done()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			time.Sleep(gather)
		case <-second.C:
		}
		program.Send(stirred{})
	}
}

func (s *screen) Init() tea.Cmd { return nil }

func (s *screen) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	var again tea.Cmd
	switch e := message.(type) {
	case tea.KeyPressMsg:
		message = press{key: e.String(), text: e.Key().Text}
	case tea.PasteMsg:
		message = pasted(e.Content)
	case tea.WindowSizeMsg:
		message = size{e.Width, e.Height}
		// A terminal may break its lines differently after that, so all of them are drawn again.
		again = tea.ClearScreen
	}
	s.model.update(time.Now(), s.owner.State()) // a key is for what is there now
	command := s.carry(s.model.update(time.Now(), message))
	s.model.update(time.Now(), s.owner.State())
	return s, tea.Batch(again, command)
}

// carry asks the owner for what a key has asked for.
func (s *screen) carry(orders []any) tea.Cmd {
	for _, order := range orders {
		switch o := order.(type) {
		case refresh:
			s.owner.Refresh(o.base, o.audit)
		case do:
			number, err := s.owner.Do(o.base, o.deed)
			s.model.begun(o, number, err)
		case answer:
			if err := s.owner.Answer(o.deed, o.question, owner.Answer{Yes: o.yes}); err != nil {
				s.model.say(explain(err), true)
			}
		case stop:
			s.owner.Stop(o.deed)
		case quit:
			return tea.Quit
		}
	}
	return nil
}

func (s *screen) View() tea.View {
	view := tea.NewView(render(s.model.view(), true))
	view.AltScreen = true
	return view
}

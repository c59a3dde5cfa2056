// Package dashboard implements the App's full screen. It shows the Bases that are paired or
// announced, their state, how open they are, and their events. Keys pair Apps and change
// settings.
//
// The model decides what the screen shows and what a key means. It does no I/O: it takes
// messages and returns orders. An agent carries out the orders, through a [Source]. Bubble
// Tea reads the keys and writes the screen.
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
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
)

// Options are what Run needs.
type Options struct {
	Source Source
	// Base is the one to show first; empty: any.
	Base string
	// In and Out are the terminal, Environment its user's ("NAME=value").
	In, Out     *os.File
	Environment []string
	// CallTime bounds one conversation with a Base. PairTime bounds the wait for a person at the
	// Base to accept a pairing.
	CallTime, PairTime time.Duration
	// EventText describes an event in words.
	EventText func(*basev1.Event) string
}

const (
	// leaveTime is how long to wait at the end for running work to stop.
	leaveTime = 3 * time.Second
	// framesPerSecond is enough for a countdown.
	framesPerSecond = 30
)

// Run shows the dashboard until the user quits or ctx ends, and leaves the terminal as it was. It
// returns the error of ctx, or of the terminal.
func Run(ctx context.Context, o Options) error {
	// The standard library may log text that a Base has chosen: it must not get on the screen.
	defer log.SetOutput(log.Writer())
	log.SetOutput(io.Discard)

	m := newModel(time.Now(), o.Base, !terminal.UTF8(runtime.GOOS, func(name string) string { return variable(o.Environment, name) }),
		o.EventText)
	a := newAgent(o)
	program := tea.NewProgram(&screen{m, a},
		tea.WithContext(ctx), tea.WithoutSignalHandler(), tea.WithInput(o.In), tea.WithOutput(o.Out),
		tea.WithEnvironment(o.Environment), tea.WithColorProfile(profile(o.Environment)), tea.WithFPS(framesPerSecond),
		tea.WithFilter(func(_ tea.Model, message tea.Msg) tea.Msg { return believable(message) }))
	a.tell = func(message any) { program.Send(message) }
	_, err := program.Run()
	a.leave()
	if text := m.farewell(a.pairingMade()); text != "" {
		_, _ = fmt.Fprintln(o.Out, text)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, tea.ErrProgramPanic):
		return errors.New("the dashboard failed because of a bug; nothing was changed at any Base")
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
	agent *agent
}

func (s *screen) Init() tea.Cmd {
	return s.agent.carry([]any{orderStart{}, orderBases{}})
}

func (s *screen) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch e := message.(type) {
	case tea.KeyPressMsg:
		message = press{key: e.String(), text: e.Key().Text}
	case tea.PasteMsg:
		message = pasted(e.Content)
	case tea.WindowSizeMsg:
		message = size{e.Width, e.Height}
	}
	return s, s.agent.carry(s.model.update(time.Now(), message))
}

func (s *screen) View() tea.View {
	view := tea.NewView(render(s.model.view(), true))
	view.AltScreen = true
	return view
}

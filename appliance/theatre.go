//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// theatre is the stage.T of a program that is no test: it clears up when the play is
// over, however it ends.
type theatre struct {
	failed   bool
	cleanups []func()
}

// curtain is what ends a play from within.
type curtain struct{ error }

// ending is said before the first thing is cleared up, which takes seconds.
const ending = "Ending the appliance ..."

// noticeTime is how long a step that failed waits for a Ctrl-C. The terminal sends it to the program of the
// step too, whose end may be noticed first.
const noticeTime = 2 * time.Second

// onStage runs a play, and clears up. The context ends when somebody ends the play; what falls over
// by that, such as dpkg by the same Ctrl-C, is no error.
func onStage(ctx context.Context, play func(*theatre) error) (err error) {
	t := &theatre{}
	defer func() {
		if over, fell := recover().(curtain); fell {
			err = over.error
			select {
			case <-ctx.Done():
				t.failed, err = false, ctx.Err()
			case <-time.After(noticeTime):
			}
		}
		if len(t.cleanups) > 0 {
			fmt.Println(ending)
		}
		// The Base's output is shown when a step went wrong.
		t.failed = t.failed || err != nil && !errors.Is(err, context.Canceled)
		for _, clear := range slices.Backward(t.cleanups) {
			clear()
		}
		err = errors.Join(err, stage.Clear())
		if errors.Is(err, context.Canceled) {
			err = nil // somebody has ended it
		}
		if err == nil && t.failed {
			err = errors.New("not all could be cleared up, see above; the next start tries again")
		}
	}()
	return play(t)
}

// Helper implements stage.T, as do all that follow.
func (t *theatre) Helper() {}

// Failed tells whether something was wrong.
func (t *theatre) Failed() bool { return t.failed }

// Cleanup has something done at the end.
func (t *theatre) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Logf prints.
func (t *theatre) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, strings.TrimSuffix(format, "\n")+"\n", args...)
}

// Errorf prints what is wrong, and goes on.
func (t *theatre) Errorf(format string, args ...any) {
	t.failed = true
	t.Logf(format, args...)
}

// Fatal ends the play.
func (t *theatre) Fatal(args ...any) { t.Fatalf("%s", strings.TrimSpace(fmt.Sprintln(args...))) }

// Fatalf ends the play.
func (t *theatre) Fatalf(format string, args ...any) {
	t.failed = true
	panic(curtain{fmt.Errorf(format, args...)})
}

// Skipf ends the play, too: what would be skipped cannot be shown.
func (t *theatre) Skipf(format string, args ...any) {
	panic(curtain{fmt.Errorf(format, args...)})
}

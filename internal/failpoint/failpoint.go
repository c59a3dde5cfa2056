// Package failpoint names the steps that reach the disk or the machine, so that a test can fail
// each of them, or kill the process there. Outside of tests a step is a name and nothing else.
package failpoint

import "sync/atomic"

var hook atomic.Pointer[func(step string) error]

// Reach is called before a step, or after it. An error fails the step.
func Reach(step string) error {
	if reached := hook.Load(); reached != nil {
		return (*reached)(step)
	}
	return nil
}

// Around has both moments of a write reached: before it, and after it.
func Around(what string, write func() error) error {
	if err := Reach("before: " + what); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return Reach("after: " + what)
}

// Set has each step of this process call reached, until clear is called. Only tests do.
func Set(reached func(step string) error) (clear func()) {
	hook.Store(&reached)
	return func() { hook.Store(nil) }
}

package programs

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Failure says that a program did not do what it was run for.
type Failure struct {
	Argv []string
	Err  error
	// Said is the end of its error output; it may be empty.
	Said string
}

// Error is the text for engineers, with all that is known.
func (f *Failure) Error() string {
	text := fmt.Sprintf("run %s: %v", strings.Join(f.Argv, " "), f.Err)
	if f.Said != "" {
		text += ": " + f.Said
	}
	return text
}

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }

// Reason implements reason.Teller: an owner can do nothing with the arguments and the output.
func (f *Failure) Reason() string {
	err := f.Err
	if errors.Is(err, exec.ErrWaitDelay) {
		err = context.DeadlineExceeded
	}
	return filepath.Base(f.Argv[0]) + ": " + reason.Of(err)
}

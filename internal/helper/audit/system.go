package audit

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// System is the machine that is asked. Host is the real one.
type System interface {
	// Run runs a program, given by its absolute path, gives it input to read, and
	// returns what it printed. A program that ran and failed is no error here, see
	// Output.Code.
	Run(ctx context.Context, input string, argv ...string) (Output, error)
	// ReadFile returns a file of at most 1 MiB.
	ReadFile(path string) ([]byte, error)
	// Lstat returns what is at a path; a link is not followed. The error wraps
	// fs.ErrNotExist if nothing is there.
	Lstat(path string) (File, error)
	// ReadDir returns the names in a directory; none if there is no such directory.
	ReadDir(path string) ([]string, error)
	// Walk visits everything below the roots, on their own file systems and without
	// following links. A root that lies in another is visited once. What it leaves out, since
	// there is too much of it or ctx has ended, it says in a line for each such place.
	Walk(ctx context.Context, roots []string, visit func(path string, f File)) (leftOut []string, err error)
	// Generation returns the number of the generation in force, and where its
	// files differ from those given.
	Generation(files generation.Files) (number uint64, drift []generation.Drift, err error)
	// Now returns the time by the clock on the wall.
	Now() time.Time
	// Reapply puts the posture in force again, whole.
	Reapply(ctx context.Context) error
}

// Output is what a program said.
type Output struct {
	Stdout, Stderr string
	// Code is 0 if it said that it succeeded.
	Code int
}

// File is what is at a path.
type File struct {
	// Mode has the kind, the permissions and the set-ID bits.
	Mode     fs.FileMode
	UID, GID int
	Modified time.Time
}

// ask runs a program that should succeed, and returns what it printed.
func ask(ctx context.Context, system System, argv ...string) (string, error) {
	out, err := system.Run(ctx, "", argv...)
	if err != nil {
		return "", err
	}
	if out.Code != 0 {
		complaint := strings.TrimSpace(out.Stderr)
		if complaint == "" {
			complaint = strings.TrimSpace(out.Stdout)
		}
		return "", fmt.Errorf("run %s: it ended with code %d: %s", strings.Join(argv, " "), out.Code, printable(complaint))
	}
	return out.Stdout, nil
}

// hasLine and hasPrefixLine tell whether a line of text is, or begins, so.
func hasLine(text, want string) bool {
	return slices.Contains(strings.Split(text, "\n"), want)
}

func hasPrefixLine(text, prefix string) bool {
	return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, prefix) })
}

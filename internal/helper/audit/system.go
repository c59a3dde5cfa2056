package audit

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// System is the audited machine. Host is the real one.
type System interface {
	// Run runs a program, given by its absolute path, with the given input, and returns its
	// output. A program that ran and failed is not an error here; see Output.Code.
	Run(ctx context.Context, input string, argv ...string) (Output, error)
	// ReadFile returns a file of at most 1 MiB.
	ReadFile(path string) ([]byte, error)
	// Lstat returns what is at a path; a link is not followed. The error wraps
	// fs.ErrNotExist if nothing is there.
	Lstat(path string) (File, error)
	// ReadDir returns the names in a directory; none if there is no such directory.
	ReadDir(path string) ([]string, error)
	// Walk visits everything below the roots, on their own file systems and without following
	// links. A root inside another is visited once. If there is too much, if something cannot be
	// read, or if ctx ends, Walk leaves files out and returns a line for each such place.
	Walk(ctx context.Context, roots []string, visit func(path string, f File)) (leftOut []string)
	// CloseFile takes the permission to write from other users, if path is still a loose file or
	// directory. Everybody may have put a link there: nothing outside root is changed.
	CloseFile(root, path string) error
	// Generation returns the number of the generation in force, and where its files differ from
	// those given.
	Generation(files generation.Files) (number uint64, drift []generation.Drift, err error)
	// Now returns the time of the wall clock.
	Now() time.Time
	// Reapply puts the whole posture in force again.
	Reapply(ctx context.Context) error
}

// Output is the output of a program.
type Output struct {
	Stdout, Stderr string
	// Code is the exit code; 0 means success.
	Code int
}

// File describes what is at a path.
type File struct {
	// Mode has the kind, the permissions and the set-ID bits.
	Mode     fs.FileMode
	UID, GID int
	Modified time.Time
}

// ask runs a program that should succeed, and returns its output.
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
		return "", reason.Errorf("run %s: it ended with code %d: %s", strings.Join(argv, " "), out.Code, printable(complaint))
	}
	return out.Stdout, nil
}

// hasLine and hasPrefixLine tell whether a text has a line that is, or begins with, the given
// one.
func hasLine(text, want string) bool {
	return slices.Contains(strings.Split(text, "\n"), want)
}

func hasPrefixLine(text, prefix string) bool {
	return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool { return strings.HasPrefix(line, prefix) })
}

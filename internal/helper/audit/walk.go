package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Limits of a walk below one root. An attacker who has taken over a daemon may own a root, so
// each root has its own limits: nobody can hide files elsewhere behind a flood of files.
const (
	// maxEntries is how many files are visited; a whole Base has 20,000.
	maxEntries = 200_000
	// maxInDirectory is how many files of one directory are visited; dpkg's own has 3,000.
	maxInDirectory = 50_000
	// maxDepth is how many levels are visited; a Base has 15.
	maxDepth = 40
	// maxLeftOut bounds the lines of one root that say what was left out.
	maxLeftOut = 5
	// readAtOnce is how many names are read at once.
	readAtOnce = 256
)

// Walk implements System.
func (Host) Walk(ctx context.Context, roots []string, visit func(path string, f File)) []string {
	var leftOut []string
	for _, root := range roots {
		w := walk{roots: roots, root: root, visit: visit}
		w.whole(ctx)
		leftOut = append(leftOut, w.leftOut...)
	}
	return leftOut
}

// walk is that of one root.
type walk struct {
	roots   []string
	root    string
	inside  *os.Root // the root: no link that somebody puts below it leads the walk out
	visit   func(string, File)
	device  uint64 // of the root's file system
	entries int    // visited below the root
	leftOut []string
}

func (w *walk) leave(format string, arguments ...any) {
	line := fmt.Sprintf(format, arguments...)
	if len(w.leftOut) < maxLeftOut && !slices.Contains(w.leftOut, line) {
		w.leftOut = append(w.leftOut, line)
	}
}

// missed says that a path could not be looked at. The owner of a folder can remove what was listed
// in it, or put something else into its place, before the walk gets there. That is no error, and
// must not end the walk.
func (w *walk) missed(path string, err error) {
	switch {
	case replaced(err):
	case errors.Is(err, syscall.ENAMETOOLONG):
		w.leave("%s: a path in it is longer than the kernel takes", w.root)
	default:
		w.leave("%s cannot be read", path)
	}
}

// replaced tells whether something below an os.Root was removed, or something else has taken its
// place. The error of a link that leads out of the root has no number.
func replaced(err error) bool {
	var number syscall.Errno
	return err != nil && (!errors.As(err, &number) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP))
}

func (w *walk) whole(ctx context.Context) {
	info, err := os.Lstat(w.root)
	if err != nil {
		w.missed(w.root, err)
		return
	}
	stat, known := info.Sys().(*syscall.Stat_t)
	if !known || !info.IsDir() {
		return
	}
	if w.inside, err = os.OpenRoot(w.root); err != nil {
		w.missed(w.root, err)
		return
	}
	defer w.inside.Close()
	w.device = stat.Dev
	w.visit(w.root, fileOf(info))
	w.below(ctx)
}

// directory is one that is still to be read. It has its own name only: whole paths of a flood of
// folders would need as much memory as the helper may have.
type directory struct {
	in    *directory // nil: it is the root
	name  string
	depth int
}

// path is the path below the root.
func (d *directory) path() string {
	names := make([]string, d.depth)
	for at := d; at != nil; at = at.in {
		names[at.depth-1] = at.name
	}
	return filepath.Join(names...)
}

// below visits everything below the root. It holds one directory open, and the names of those still
// to be read, fewer than maxEntries.
func (w *walk) below(ctx context.Context) {
	for pending := []*directory{{name: ".", depth: 1}}; len(pending) > 0; {
		next := pending[len(pending)-1]
		inner := w.read(ctx, next)
		if w.entries > maxEntries {
			w.leave("%s: there are more than %d files", w.root, maxEntries)
			return
		}
		if ctx.Err() != nil {
			w.leave("%s: the time ran out", w.root)
			return
		}
		pending = append(pending[:len(pending)-1], inner...)
	}
}

// read visits the entries of one directory, and returns the directories among them.
func (w *walk) read(ctx context.Context, d *directory) (inner []*directory) {
	below := d.path()
	whole := filepath.Join(w.root, below)
	file, err := w.inside.OpenFile(below, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		w.missed(whole, err)
		return nil
	}
	defer file.Close()
	for count := 0; ; {
		entries, err := file.ReadDir(readAtOnce)
		for _, entry := range entries {
			if count++; count > maxInDirectory {
				w.leave("%s: there are more than %d files in it", whole, maxInDirectory)
				return inner
			}
			if w.entries++; w.entries > maxEntries || ctx.Err() != nil {
				return inner
			}
			path := filepath.Join(whole, entry.Name())
			info, err := entry.Info()
			if err != nil {
				w.missed(path, err)
				continue
			}
			stat, known := info.Sys().(*syscall.Stat_t)
			elsewhere := known && stat.Dev != w.device || slices.Contains(w.roots, path)
			if info.IsDir() && elsewhere {
				continue
			}
			w.visit(path, fileOf(info))
			if !info.IsDir() {
				continue
			}
			if d.depth == maxDepth {
				w.leave("%s: there are folders more than %d levels deep", w.root, maxDepth)
				continue
			}
			inner = append(inner, &directory{d, entry.Name(), d.depth + 1})
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.missed(whole, err)
			}
			return inner
		}
	}
}

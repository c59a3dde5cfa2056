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
	// maxLeftOut bounds the lines that say what was left out.
	maxLeftOut = 20
	// readAtOnce is how many names are read at once.
	readAtOnce = 256
)

// Walk implements System.
func (Host) Walk(ctx context.Context, roots []string, visit func(path string, f File)) ([]string, error) {
	w := walk{roots: roots, visit: visit}
	for _, root := range roots {
		info, err := os.Lstat(root)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return w.leftOut, err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return w.leftOut, fmt.Errorf("look at %s: its file system is unknown", root)
		}
		if !info.IsDir() {
			continue
		}
		visit(root, fileOf(info))
		w.device, w.entries = stat.Dev, 0
		if err := w.below(ctx, root); err != nil {
			return w.leftOut, fmt.Errorf("look at the files below %s: %w", root, err)
		}
	}
	return w.leftOut, nil
}

type walk struct {
	roots   []string
	visit   func(string, File)
	device  uint64 // of the root's file system
	entries int    // visited below the root
	leftOut []string
}

func (w *walk) leave(format string, arguments ...any) {
	if len(w.leftOut) < maxLeftOut {
		w.leftOut = append(w.leftOut, fmt.Sprintf(format, arguments...))
	}
}

// directory is one that is still to be read.
type directory struct {
	path  string
	depth int
}

// below visits everything below a root. It holds one directory open, and the paths of those still
// to be read, fewer than maxEntries.
func (w *walk) below(ctx context.Context, root string) error {
	for pending := []directory{{root, 1}}; len(pending) > 0; {
		next := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		inner, err := w.read(ctx, next, root)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was removed meanwhile
		case errors.Is(err, syscall.ENAMETOOLONG):
			w.leave("%s: a path in it is longer than the kernel takes", root)
		case err != nil:
			return err
		}
		if w.entries > maxEntries {
			w.leave("%s: there are more than %d files", root, maxEntries)
			return nil
		}
		if ctx.Err() != nil {
			w.leave("%s: the time ran out", root)
			return nil
		}
		pending = append(pending, inner...)
	}
	return nil
}

// read visits the entries of one directory, and returns the directories among them.
func (w *walk) read(ctx context.Context, d directory, root string) (inner []directory, err error) {
	file, err := os.OpenFile(d.path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for count := 0; ; {
		entries, err := file.ReadDir(readAtOnce)
		for _, entry := range entries {
			if count++; count > maxInDirectory {
				w.leave("%s: there are more than %d files in it", d.path, maxInDirectory)
				return inner, nil
			}
			if w.entries++; w.entries > maxEntries || ctx.Err() != nil {
				return inner, nil
			}
			path := filepath.Join(d.path, entry.Name())
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return inner, err
			}
			stat, known := info.Sys().(*syscall.Stat_t)
			elsewhere := known && stat.Dev != w.device || slices.Contains(w.roots, path)
			if entry.IsDir() && elsewhere {
				continue
			}
			w.visit(path, fileOf(info))
			if !entry.IsDir() {
				continue
			}
			if d.depth == maxDepth {
				w.leave("%s: there are folders more than %d levels deep", root, maxDepth)
				continue
			}
			inner = append(inner, directory{path, d.depth + 1})
		}
		if errors.Is(err, io.EOF) {
			return inner, nil
		}
		if err != nil {
			return inner, err
		}
	}
}

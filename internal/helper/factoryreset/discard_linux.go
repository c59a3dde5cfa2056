//go:build linux

package factoryreset

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// A folder of an untrusted daemon may be nested a hundred thousand levels deep, or have millions
// of files. So a whole folder is renamed aside, which costs the same whatever is in it. Discard
// takes it apart later, with three descriptors and the memory of one batch of names.

// asidePrefix begins the names of folders that were renamed aside. Each is beside its former
// place, in a directory that only root can write to.
const asidePrefix = ".bitbox-base-discarded-"

// maxAside is how many folders may wait to be discarded beside one place.
const maxAside = 1000

// batch is how many names are read at once.
const batch = 256

// roomTime is how long to remove entries in place if no inode is left for the empty folder that
// replaces a folder.
const roomTime = 5 * time.Second

// renameAside replaces a folder by an empty one with the same owner and mode, and moves the old
// one aside, in one step. Anything that is not a folder is unlinked. A mount point, and a folder
// on a file system that cannot do that, is emptied in place. It follows no link.
func renameAside(folder string) error {
	parent, name := filepath.Dir(folder), filepath.Base(folder)
	directory, err := openDirectory(unix.AT_FDCWD, parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return pathError("open", parent, err)
	}
	defer unix.Close(directory)
	var info unix.Stat_t
	switch err := unix.Fstatat(directory, name, &info, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return pathError("look at", folder, err)
	case info.Mode&unix.S_IFMT != unix.S_IFDIR:
		return pathError("remove", folder, unix.Unlinkat(directory, name, 0))
	}
	aside, err := makeLike(directory, info)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		ctx, cancel := context.WithTimeout(context.Background(), roomTime)
		defer cancel()
		if err := emptyInPlace(ctx, folder); err != nil && ctx.Err() == nil {
			return err
		}
		aside, err = makeLike(directory, info)
	}
	if err != nil {
		return pathError("make an empty folder for", folder, err)
	}
	err = unix.Renameat2(directory, aside, directory, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) {
		return emptyInPlace(context.Background(), folder)
	}
	if err != nil {
		return pathError("rename aside", folder, err)
	}
	return atomicfile.SyncDir(parent)
}

// makeLike makes an empty folder with the owner and mode of another, under a name that is not
// used in the directory.
func makeLike(directory int, info unix.Stat_t) (name string, err error) {
	for n := range maxAside {
		name = asidePrefix + strconv.Itoa(n)
		if err = unix.Mkdirat(directory, name, 0o700); !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err == nil {
		// The owner comes first: changing it clears set-ID bits.
		err = unix.Fchownat(directory, name, int(info.Uid), int(info.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Fchmodat(directory, name, info.Mode&0o7777, 0)
	}
	return name, err
}

// emptyInPlace removes the contents of a folder, except for the names in stays.
func emptyInPlace(ctx context.Context, folder string, stays ...string) error {
	directory, err := openDirectory(unix.AT_FDCWD, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return pathError("open", folder, err)
	}
	defer unix.Close(directory)
	err = takeApart(ctx, directory, func(name string) bool {
		for _, stay := range stays {
			if name == stay {
				return false
			}
		}
		return true
	})
	if err != nil {
		return pathError("empty", folder, err)
	}
	return atomicfile.SyncDir(folder)
}

// Discard removes what resets have renamed aside, until it is done or ctx ends. It can be ended
// at any moment and continues the next time. Done tells whether nothing is left.
func Discard(ctx context.Context, p Plan) (done bool, err error) {
	var errs []error
	for _, parent := range p.parents() {
		directory, err := openDirectory(unix.AT_FDCWD, parent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, pathError("open", parent, err))
			continue
		}
		err = takeApart(ctx, directory, func(name string) bool { return strings.HasPrefix(name, asidePrefix) })
		_ = unix.Close(directory)
		if err != nil {
			errs = append(errs, pathError("discard what lies in", parent, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		if ctx.Err() != nil {
			return false, nil
		}
		return false, reason.Errorf("remove what the factory reset left: %w", err)
	}
	return true, nil
}

// takeApart removes the wanted entries of a directory. It never descends: it first moves a folder
// inside a folder up into the directory. So a tree of any depth becomes a row of flat folders,
// and no more than two are open at once.
func takeApart(ctx context.Context, directory int, wanted func(string) bool) error {
	next := 0
	for {
		found := false
		err := eachName(ctx, directory, func(name string) error {
			if !wanted(name) {
				return nil
			}
			found = true
			return removeFlat(ctx, directory, name, &next)
		})
		if err != nil || !found {
			return err
		}
	}
}

// removeFlat removes one entry of a directory. Folders inside it are moved up into the directory,
// under new names.
func removeFlat(ctx context.Context, directory int, name string, next *int) error {
	err := unix.Unlinkat(directory, name, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err := unix.Unlinkat(directory, name, unix.AT_REMOVEDIR); err == nil {
		return nil
	}
	folder, err := openDirectory(directory, name)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	for {
		found := false
		err := eachName(ctx, folder, func(inner string) error {
			found = true
			err := unix.Unlinkat(folder, inner, 0)
			if errors.Is(err, unix.EISDIR) {
				if err = unix.Unlinkat(folder, inner, unix.AT_REMOVEDIR); err != nil {
					err = moveUp(folder, inner, directory, next)
				}
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if !found {
			return unix.Unlinkat(directory, name, unix.AT_REMOVEDIR)
		}
	}
}

// moveUp renames a folder into a directory, under a name that is not used there.
func moveUp(from int, name string, directory int, next *int) error {
	for {
		*next++
		err := unix.Renameat2(from, name, directory, asidePrefix+"part-"+strconv.Itoa(*next), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}

// eachName calls do with the names in a directory, as they are when they are read. A caller who
// changes the directory meanwhile calls eachName again.
func eachName(ctx context.Context, directory int, do func(name string) error) error {
	again, err := openDirectory(directory, ".")
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(again), ".")
	defer file.Close()
	for {
		names, err := file.Readdirnames(batch)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(name); err != nil {
				return reason.Errorf("%.40q: %w", name, err)
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func openDirectory(at int, path string) (int, error) {
	return unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

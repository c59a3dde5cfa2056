// Package rootfile reads the files by which the builder or the owner of a machine sets it up:
// those of root, that no other user may write to.
package rootfile

import (
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Read returns the content of a file of root, or of the user of this process, which has at most
// most bytes. It does not follow a link in its last part. An error that wraps fs.ErrNotExist means that
// there is none.
func Read(path string, most int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, reason.New("it is a link, and not a regular file")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return nil, reason.Errorf("it is not a regular file, or users other than root may write to it (mode %04o)", info.Mode().Perm())
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return nil, reason.Errorf("it belongs to user %d, not to root", owner.Uid)
	}
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = reason.Errorf("it is larger than %d bytes", most)
	}
	return text, err
}

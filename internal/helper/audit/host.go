package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Bounds of what is read.
const (
	// maxFileSize and maxOutputSize are in bytes. The output of systemctl show for all our units
	// is a tenth of that.
	maxFileSize   = 1 << 20
	maxOutputSize = 4 << 20
)

// Host is the machine that this program runs on.
type Host struct {
	// Apply puts the posture in force again; nil where that is not possible.
	Apply func(context.Context) error
	// Wait waits until no program that it runs is in the way of something more urgent; nil where
	// there is no such thing.
	Wait func(context.Context) error
}

// Run implements System. The program's environment has only the language and the time zone of its
// output. The program ends with ctx.
func (h Host) Run(ctx context.Context, input string, argv ...string) (Output, error) {
	failed := func(err error) (Output, error) {
		return Output{}, reason.Errorf("run %s: %w", argv[0], err)
	}
	if !filepath.IsAbs(argv[0]) {
		return failed(reason.New("its path is not absolute"))
	}
	if h.Wait != nil {
		if err := h.Wait(ctx); err != nil {
			return failed(err)
		}
	}
	var stdout, stderr limitedBuffer
	command := programs.Command(ctx, argv...)
	command.Env = []string{"LC_ALL=C.UTF-8", "TZ=UTC", "PATH=/usr/sbin:/usr/bin"}
	command.Stdin = strings.NewReader(input)
	command.Stdout, command.Stderr = &stdout, &stderr
	command.WaitDelay = time.Second // for a child of it that holds the output open
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return failed(reason.Errorf("it took too long: %w", ctx.Err()))
	case stdout.full || stderr.full:
		return failed(reason.Errorf("it printed more than %d bytes", maxOutputSize))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return failed(err)
	}
	return Output{Stdout: stdout.content.String(), Stderr: stderr.content.String(), Code: command.ProcessState.ExitCode()}, nil
}

// limitedBuffer refuses more than its limit, which ends the program that writes. Write is its
// only method, so io.Copy cannot bypass the limit.
type limitedBuffer struct {
	content bytes.Buffer
	full    bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.content.Len()+len(p) > maxOutputSize {
		b.full = true
		return 0, io.ErrShortWrite
	}
	return b.content.Write(p)
}

// ReadFile implements System.
func (Host) ReadFile(path string) ([]byte, error) {
	// A pipe in the place of the file must not make this wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err == nil && len(content) > maxFileSize {
		err = reason.Errorf("read %s: it is longer than %d bytes", path, maxFileSize)
	}
	return content, err
}

// Lstat implements System.
func (Host) Lstat(path string) (File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return File{}, err
	}
	return fileOf(info), nil
}

func fileOf(info fs.FileInfo) File {
	f := File{Mode: info.Mode(), UID: -1, GID: -1, Modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = int(stat.Uid), int(stat.Gid)
	}
	return f
}

// ReadDir implements System.
func (Host) ReadDir(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// CloseFile implements System. It looks at what it has opened and changes that, and no path.
func (Host) CloseFile(root, path string) error {
	below, err := filepath.Rel(root, path)
	if err != nil {
		return reason.Errorf("close %q: %w", printable(path), err)
	}
	inside, err := os.OpenRoot(root)
	if err != nil {
		return reason.Errorf("close %q: %w", printable(path), err)
	}
	defer inside.Close()
	file, err := inside.OpenFile(below, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no pipe makes it wait
	if replaced(err) {
		return nil
	}
	if err != nil {
		return reason.Errorf("close %q: %w", printable(path), err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && isLoose(fileOf(info)) {
		err = file.Chmod(info.Mode() &^ 0o002)
	}
	if err != nil {
		return reason.Errorf("close %q: %w", printable(path), err)
	}
	return nil
}

// Generation implements System.
func (Host) Generation(files generation.Files) (uint64, []generation.Drift, error) {
	store := generation.NewStore(generation.StateDirectory)
	number, err := store.Current()
	if err != nil {
		return 0, nil, err
	}
	drift, err := store.Verify(files)
	return number, drift, err
}

// Now implements System.
func (Host) Now() time.Time { return time.Now() }

// Reapply implements System.
func (h Host) Reapply(ctx context.Context) error {
	if h.Apply == nil {
		return reason.New("put the posture in force again: the system helper does that, but it is not running; type `systemctl start " +
			systemUnit + "`")
	}
	return h.Apply(ctx)
}

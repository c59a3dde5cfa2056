package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
)

func (o Options) progress(format string, arguments ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, arguments...))
	}
}

// Build makes the image.
func Build(ctx context.Context, o Options) (info Info, err error) {
	if err := o.Ready(); err != nil {
		return Info{}, err
	}
	fields, err := packageFields(ctx, o)
	if err != nil {
		return Info{}, err
	}
	info = Info{Version: fields["Version"], Architecture: o.Architecture, Signed: o.Keys != ""}
	toolRoot, err := tools(ctx, o)
	if err != nil {
		return Info{}, err
	}
	defer toolRoot.Close()
	debian, err := debian(ctx, o)
	if err != nil {
		return Info{}, err
	}
	defer debian.Close()
	archive, err := archiveTime(debian.path)
	if err != nil {
		return Info{}, err
	}
	info.Archive = archive.Format("2006-01-02T15:04:05Z")
	work, err := os.MkdirTemp(o.Cache, "work-")
	if err != nil {
		return Info{}, fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, removeRoot(work)) }()
	b := &builder{Options: o, tools: toolRoot.path, work: work, root: filepath.Join(work, "root"), out: filepath.Join(work, "out"),
		time: archive, info: &info}
	if err := os.Mkdir(b.out, 0o755); err != nil {
		return Info{}, err
	}
	for _, step := range []struct {
		what string
		do   func(ctx context.Context) error
	}{
		{"copying Debian", func(ctx context.Context) error {
			return run(ctx, "cp", "--archive", "--reflink=auto", debian.path, b.root)
		}},
		{"taking the kernel and the boot loader apart", b.takeDownloads},
		{"installing the Base", func(ctx context.Context) error { return Configure(ctx, b.root, o) }},
		{"sealing the root", b.seal},
		{"making the initrd", b.makeInitrd},
		{"making what the firmware starts", b.makeEntry},
		{"writing the disk", b.writeDisk},
	} {
		o.progress("%s", step.what)
		if err := step.do(ctx); err != nil {
			return Info{}, err
		}
	}
	text, err := json.MarshalIndent(info, "", "\t")
	if err == nil {
		err = os.WriteFile(filepath.Join(b.out, InfoFile), append(text, '\n'), 0o644)
	}
	if err != nil {
		return Info{}, err
	}
	return info, o.replace(ctx, b.out)
}

// replace puts the directory that was made in the place of Out.
func (o Options) replace(ctx context.Context, made string) error {
	if err := os.MkdirAll(filepath.Dir(o.Out), 0o755); err != nil {
		return err
	}
	// Beside it, since the cache may be on another disk.
	next, err := os.MkdirTemp(filepath.Dir(o.Out), "."+filepath.Base(o.Out)+".")
	if err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	defer os.RemoveAll(next)
	files := filepath.Join(next, "new")
	if err := run(ctx, "cp", "--archive", "--sparse=always", "--reflink=auto", made, files); err != nil {
		return err
	}
	if err := run(ctx, "sync", "--file-system", files); err != nil {
		return err
	}
	if err := os.Rename(o.Out, filepath.Join(next, "old")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put the image in its place: %w", err)
	}
	if err := os.Rename(files, o.Out); err != nil {
		return fmt.Errorf("put the image in its place: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(o.Out))
}

// environment is what programs see: nothing of the building machine's.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "TZ=UTC", "DEBIAN_FRONTEND=noninteractive",
	"SOURCE_DATE_EPOCH=" + epoch}

// runInside runs a program of a root, in a view of its own with /proc and without a
// network: nothing stays mounted, whatever happens.
func runInside(ctx context.Context, root string, argv ...string) error {
	return run(ctx, append([]string{"unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--root=" + root, "--mount-proc", "--"},
		argv...)...)
}

// run runs a program; an error has the end of what it printed.
func run(ctx context.Context, argv ...string) error {
	_, err := output(ctx, nil, argv...)
	return err
}

// output runs a program, and returns what it printed.
func output(ctx context.Context, input io.Reader, argv ...string) (string, error) {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env, command.Stdin = environment, input
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	return string(out), nil
}

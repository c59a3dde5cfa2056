// Package setup turns a Debian on which the package is installed into a Base, and back.
//
// Installing the package only puts files below /usr; they have no effect yet. The directory
// /usr/lib/bitbox-base/setup contains the settings that make the machine a Base, laid out as
// below /: links that replace Debian's own units, links that start ours at boot, settings of
// the kernel and of other programs. Setup links all of it into /etc, edits the few files that
// support no drop-ins (login.defs, the banners), and keeps the previous state in a [Record].
// Undo restores that state.
//
// Files are changed below any root ([Plan]), so the builder of an image and the tests
// run the same code as an owner's machine. [Machine] does the rest on a running systemd: it
// stops Debian's servers, starts ours, checks whether they run, and undoes everything if they
// do not.
package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// Tree is linked into the machine, laid out as below /.
	Tree = "/usr/lib/bitbox-base/setup"
	// NoUSBInputTree is linked as well where nobody may type at the machine.
	NoUSBInputTree = "/usr/lib/bitbox-base/setup-no-usb-input"
	// RecordFile says what was changed. It is beside what it describes: the state in /var may be
	// on another disk, or be reset.
	RecordFile = "/etc/bitbox-base/setup.json"
	// recordVersion changes with the format of the record.
	recordVersion = 1
	// maxRecord is far more than a record with its files needs.
	maxRecord = 1 << 20
)

// Options are the user's choices.
type Options struct {
	// NoUSBInput switches USB keyboards and mice off, for a machine whose display is elsewhere.
	NoUSBInput bool `json:"no_usb_input,omitempty"`
	// NoDisplay says that nobody can compare a code at the machine. In a Record it is the change
	// of that file: the previous version has no field for it.
	NoDisplay bool `json:"-"`
}

// State is the state of a path.
type State struct {
	// Kind is "" for nothing, "link" or "file".
	Kind string `json:"kind,omitempty"`
	// Content is the target of a link, or what the file contains.
	Content string `json:"content,omitempty"`
	// Mode is the mode of a file.
	Mode fs.FileMode `json:"mode,omitempty"`
}

// Change is one path that setup changes.
type Change struct {
	Path   string `json:"path"`
	Before State  `json:"before"`
	After  State  `json:"after"`
}

// Record is what setup has changed, for Undo. It is written before the first change.
type Record struct {
	Version int      `json:"version"`
	Options Options  `json:"options"`
	Changes []Change `json:"changes"`
	// Directories are those that were created, the outer ones first.
	Directories []string `json:"directories,omitempty"`
	// Machine is what was changed besides files.
	Machine MachineRecord `json:"machine"`

	// zone is the target of /etc/localtime on a machine that becomes a Base.
	zone string
}

// ErrNotSetUp is the error of undoing when nothing was done.
var ErrNotSetUp = reason.New("this machine was not set up as a Base; there is nothing to undo")

// displayFile is read by the system helper at its start.
var displayFile = filepath.Join(provision.Directory, provision.DisplayFile)

var noDisplay = State{Kind: kindFile, Content: provision.NoDisplay + "\n", Mode: 0o644}

// edits are the files that setup edits. An edit may leave a file unchanged; text is "" for a
// missing file.
var edits = []struct {
	path string
	edit func(text string) string
	mode fs.FileMode
}{
	{"/etc/login.defs", loginDefs, 0o644},
	{"/etc/issue", func(string) string { return banner }, 0o644},
	{"/etc/issue.net", func(string) string { return banner }, 0o644},
}

// modes are files and directories that other users need not access. Missing ones are skipped.
var modes = map[string]fs.FileMode{
	"/etc/cron.d":          0o700,
	"/etc/cron.daily":      0o700,
	"/etc/cron.hourly":     0o700,
	"/etc/cron.monthly":    0o700,
	"/etc/cron.weekly":     0o700,
	"/etc/crontab":         0o600,
	"/etc/ssh/sshd_config": 0o600,
}

// Plan compares the wanted state below root with the present one, and returns the changes.
// Earlier is the record of an earlier setup, or nil: its changes are undone to the state before
// it, not after it.
func Plan(root string, o Options, earlier *Record) (*Record, error) {
	wanted, err := wantedLinks(root, o)
	if err != nil {
		return nil, err
	}
	before := map[string]State{}
	record := &Record{Version: recordVersion, Options: o}
	if earlier != nil {
		for _, c := range earlier.Changes {
			before[c.Path] = c.Before
		}
		record.Machine = earlier.Machine
		record.Directories = slices.Clone(earlier.Directories)
	}
	add := func(path string, present, after State) {
		was, changedEarlier := before[path]
		if !changedEarlier {
			was = present
		}
		if was != after {
			record.Changes = append(record.Changes, Change{Path: path, Before: was, After: after})
		}
	}
	for _, link := range wanted {
		present, err := look(root, link.path)
		if err != nil {
			return nil, err
		}
		if link.path == timezone.Localtime && earlier == nil {
			if present.Kind == kindFile {
				return nil, reason.Errorf("plan the change of %s: it is a file, and setup changes links only; type: timedatectl set-timezone with the name of the time zone", link.path)
			}
			record.zone = present.Content
		}
		add(link.path, present, State{Kind: kindLink, Content: link.target})
	}
	for _, e := range edits {
		present, err := look(root, e.path)
		if err != nil {
			return nil, err
		}
		if present.Kind == kindLink {
			return nil, reason.Errorf("plan the change of %s: it is a link, and setup changes files only; put the file itself there", e.path)
		}
		after := State{Kind: kindFile, Content: e.edit(present.Content), Mode: e.mode}
		if present.Kind == kindFile {
			after.Mode = present.Mode
		}
		add(e.path, present, after)
	}
	if o.NoDisplay {
		present, err := look(root, displayFile)
		if err != nil {
			return nil, err
		}
		add(displayFile, present, noDisplay)
	}
	for _, path := range slices.Sorted(maps.Keys(modes)) {
		info, err := os.Lstat(filepath.Join(root, path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, reason.Errorf("look at %s: %w", path, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			add(path, State{Kind: kindMode, Mode: info.Mode().Perm()}, State{Kind: kindMode, Mode: modes[path] & info.Mode().Perm()})
		}
	}
	return record, nil
}

type link struct{ path, target string }

// wantedLinks lists the links for the trees: a link in a tree is copied, and each file becomes a
// link to it.
func wantedLinks(root string, o Options) ([]link, error) {
	trees := []string{Tree}
	if o.NoUSBInput {
		trees = append(trees, NoUSBInputTree)
	}
	var links []link
	for _, tree := range trees {
		top := filepath.Join(root, tree)
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			name := strings.TrimPrefix(path, top)
			target := tree + name
			if entry.Type()&fs.ModeSymlink != 0 {
				if target, err = os.Readlink(path); err != nil {
					return err
				}
			}
			links = append(links, link{name, target})
			return nil
		})
		if err != nil {
			return nil, reason.Errorf("read what is to be set up in %s: %w; install the package bitbox-base", tree, err)
		}
	}
	return links, nil
}

const (
	kindLink = "link"
	kindFile = "file"
	kindMode = "mode"
)

// maxFile is far more than any file that setup changes needs.
const maxFile = 256 << 10

// look returns the state of a path below root.
func look(root, path string) (State, error) {
	full := filepath.Join(root, path)
	info, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, reason.Errorf("look at %s: %w", path, err)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(full)
		return State{Kind: kindLink, Content: target}, err
	case info.Mode().IsRegular() && info.Size() <= maxFile:
		content, err := os.ReadFile(full)
		return State{Kind: kindFile, Content: string(content), Mode: info.Mode().Perm()}, err
	default:
		return State{}, reason.Errorf("look at %s: it is neither a small file nor a link; move it away first", path)
	}
}

// lookLike is look as far as a change is concerned: for some changes only the mode.
func lookLike(root string, c Change) (State, error) {
	if c.After.Kind != kindMode {
		return look(root, c.Path)
	}
	info, err := os.Lstat(filepath.Join(root, c.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, reason.Errorf("look at %s: %w", c.Path, err)
	}
	return State{Kind: kindMode, Mode: info.Mode().Perm()}, nil
}

// put brings a path into a state, in one step.
func put(root, path string, s State) error {
	full := filepath.Join(root, path)
	switch s.Kind {
	case "":
		if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return atomicfile.SyncDir(filepath.Dir(full))
	case kindLink:
		temporary := full + ".bitbox-base-new"
		if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(s.Content, temporary); err != nil {
			return err
		}
		if err := os.Rename(temporary, full); err != nil {
			return errors.Join(err, os.Remove(temporary))
		}
		return atomicfile.SyncDir(filepath.Dir(full))
	case kindFile:
		return atomicfile.WriteFileAtomic(full, []byte(s.Content), s.Mode)
	case kindMode:
		return os.Chmod(full, s.Mode)
	default:
		return reason.Errorf("%q is not a kind of file; somebody has changed the record", s.Kind)
	}
}

// Apply writes the record and then makes every change. It can be repeated. If it fails, Undo
// restores what was changed.
func (r *Record) Apply(root string) error {
	for _, c := range r.Changes {
		if err := r.noteDirectories(root, filepath.Dir(c.Path)); err != nil {
			return err
		}
	}
	if err := r.Write(root); err != nil {
		return err
	}
	for _, c := range r.Changes {
		present, err := lookLike(root, c)
		if err == nil && present == c.After {
			continue
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(root, filepath.Dir(c.Path)), 0o755)
		}
		if err == nil {
			err = put(root, c.Path, c.After)
		}
		if err != nil {
			return reason.Errorf("set up %s: %w", c.Path, err)
		}
	}
	return timezone.At(root).Keep(r.zone)
}

// noteDirectories adds those that do not exist yet.
func (r *Record) noteDirectories(root, directory string) error {
	if directory == "/" || slices.Contains(r.Directories, directory) {
		return nil
	}
	_, err := os.Stat(filepath.Join(root, directory))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return reason.Errorf("look at %s: %w", directory, err)
	}
	if err := r.noteDirectories(root, filepath.Dir(directory)); err != nil {
		return err
	}
	r.Directories = append(r.Directories, directory)
	return nil
}

// Write puts the record on disk.
func (r *Record) Write(root string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(root, RecordFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return reason.Errorf("keep what setup changes in %s: %w", RecordFile, err)
	}
	if err := atomicfile.WriteFileAtomic(path, append(text, '\n'), 0o600); err != nil {
		return reason.Errorf("keep what setup changes in %s: %w", RecordFile, err)
	}
	return nil
}

// ReadRecord returns the record below root; ErrNotSetUp if there is none.
func ReadRecord(root string) (*Record, error) {
	text, err := os.ReadFile(filepath.Join(root, RecordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotSetUp
	}
	if err != nil {
		return nil, reason.Errorf("read what setup has changed: %w", err)
	}
	if len(text) > maxRecord {
		return nil, reason.Errorf("read what setup has changed from %s: it is too large to be a record", RecordFile)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	r := &Record{}
	if err := decoder.Decode(r); err != nil {
		return nil, reason.Errorf("read what setup has changed from %s: %w; restore the file from a backup, or restore by hand what it names",
			RecordFile, err)
	}
	if r.Version != recordVersion {
		return nil, reason.Errorf("read what setup has changed from %s: it has version %d, not %d; install the package that wrote it", RecordFile,
			r.Version, recordVersion)
	}
	r.Options.NoDisplay = slices.ContainsFunc(r.Changes, func(c Change) bool { return c.Path == displayFile })
	return r, nil
}

// Undo restores the previous state below root, the last change first. A file that somebody has edited
// since stays, and is returned. It can be repeated.
func (r *Record) Undo(root string) (left []string, err error) {
	for _, c := range slices.Backward(r.Changes) {
		present, err := lookLike(root, c)
		switch {
		case err != nil:
			return left, err
		case present == c.Before, present.Kind == "" && c.After.Kind == kindMode:
			continue
		case present != c.After:
			left = append(left, c.Path)
			continue
		}
		if err := put(root, c.Path, c.Before); err != nil {
			return left, reason.Errorf("put %s back: %w", c.Path, err)
		}
	}
	for _, directory := range slices.Backward(r.Directories) {
		// A folder in which somebody has put something stays.
		_ = os.Remove(filepath.Join(root, directory))
	}
	return left, nil
}

// Forget removes the record: everything was undone.
func Forget(root string) error {
	path := filepath.Join(root, RecordFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return reason.Errorf("remove %s: %w", RecordFile, err)
	}
	directory := filepath.Dir(path)
	if err := os.Remove(directory); err == nil || errors.Is(err, fs.ErrNotExist) {
		directory = filepath.Dir(directory)
	} // otherwise it contains somebody's files
	return atomicfile.SyncDir(directory)
}

// Choose adds options to those of an earlier setup; Renew then applies them. Only Undo removes
// one.
func Choose(root string, o Options) error {
	record, err := ReadRecord(root)
	if err != nil {
		return err
	}
	chosen := o.NoUSBInput && !record.Options.NoUSBInput
	record.Options.NoUSBInput = record.Options.NoUSBInput || o.NoUSBInput
	if o.NoDisplay && !record.Options.NoDisplay {
		present, err := look(root, displayFile)
		if err != nil {
			return err
		}
		if present != noDisplay {
			chosen = true
			record.Changes = append(record.Changes, Change{Path: displayFile, Before: present, After: noDisplay})
		}
	}
	if !chosen {
		return nil
	}
	return record.Write(root)
}

// Renew brings the changes of an earlier setup in line with the present package: an upgrade adds
// links and removes others.
func Renew(root string) (*Record, error) {
	earlier, err := ReadRecord(root)
	if err != nil {
		return nil, err
	}
	record, err := Plan(root, earlier.Options, earlier)
	if err != nil {
		return nil, err
	}
	// After an interruption the record must contain everything to undo: both.
	both := *record
	for _, c := range earlier.Changes {
		if !slices.ContainsFunc(record.Changes, func(n Change) bool { return n.Path == c.Path }) {
			both.Changes = append(both.Changes, c)
		}
	}
	dropped := &Record{Changes: both.Changes[len(record.Changes):]}
	if err := both.Write(root); err != nil {
		return nil, err
	}
	if _, err := dropped.Undo(root); err != nil {
		return nil, err
	}
	return record, record.Apply(root)
}

package system

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// world is a machine whose servers keep what they have read in files, so that it
// outlives a helper that is killed, as real servers do.
type world struct {
	directory string // the helper's; the servers' is below it

	mu     sync.Mutex
	fail   map[string]error // by the action, such as "reload UNIT"
	late   bool             // a reload that fails has done its work nevertheless
	lie    bool             // a reload says that it has worked and does nothing
	hangs  string           // an action that ends when its last waiter has left
	cut    []uint16
	lifted []netip.Addr
	bans   []bruteforce.Ban
	told   []generation.Announcement
	held   hold // of callers that ask for bans
	// examined is called once, when something is examined.
	examined func()
}

func newWorld(directory string) *world {
	w := &world{directory: directory, fail: map[string]error{}}
	if err := os.MkdirAll(w.path(""), 0o755); err != nil {
		panic(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.directory, "servers", name) }

func (w *world) set(action string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail[action] = err
}

func (w *world) failure(action string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail[action]
}

func (w *world) Provide(context.Context, posture.Effective) error { return w.failure("provide") }

// hang does not return for an action that hangs, until its time is up.
func (w *world) hang(ctx context.Context, action string) error {
	w.mu.Lock()
	hangs := w.hangs == action
	w.mu.Unlock()
	if !hangs {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// onExamine has something done once, in the middle of the next change.
func (w *world) onExamine(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.examined = do
}

func (w *world) Examine(ctx context.Context, unit string) error {
	w.mu.Lock()
	examined := w.examined
	w.examined = nil
	w.mu.Unlock()
	if examined != nil {
		examined()
	}
	return errors.Join(w.hang(ctx, "examine "+unit), w.failure("examine "+unit))
}

func (w *world) Reload(ctx context.Context, unit string) error {
	if err := w.hang(ctx, "reload "+unit); err != nil {
		return err
	}
	failure := w.failure("reload " + unit)
	if w.lie || failure != nil && !w.late {
		return failure
	}
	read := map[string]string{}
	for name, content := range readTree(filepath.Join(w.directory, "current")) {
		if p := apply.Parts[slices.IndexFunc(apply.Parts, func(p apply.Part) bool { return p.Unit == unit })]; p.Has(name) {
			read[name] = content
		}
	}
	w.replace(unit, read)
	if unit == generation.FirewallUnit {
		w.replace("blocked", nil)
	}
	return failure
}

// replace makes the folder hold files, each whole.
func (w *world) replace(folder string, files map[string]string) {
	for name := range readTree(w.path(folder)) {
		if _, stays := files[name]; !stays {
			_ = os.Remove(filepath.Join(w.path(folder), name))
		}
	}
	for name, content := range files {
		path := filepath.Join(w.path(folder), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+"~", []byte(content), 0o644),
			os.Rename(path+"~", path)); err != nil {
			panic(err)
		}
	}
}

func (w *world) StartSSH(_ context.Context, keys []sshkey.Key) error {
	if err := w.failure("start ssh"); err != nil {
		return err
	}
	w.replace("ssh", map[string]string{"keys": sshaccess.RenderAuthorizedKeys(keys)})
	return nil
}

func (w *world) StopSSH(context.Context) error {
	if err := w.failure("stop ssh"); err != nil {
		return err
	}
	w.replace("ssh", nil)
	return nil
}

func (w *world) Cut(_ context.Context, port uint16) error {
	if err := w.failure("cut"); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = append(w.cut, port)
	return nil
}

func (w *world) wasCut(port uint16) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.cut, port)
}

func (w *world) Block(_ context.Context, port uint16) error {
	blocked := readTree(w.path("blocked"))
	blocked[fmt.Sprint(port)] = ""
	w.replace("blocked", blocked)
	return nil
}

func (w *world) isBlocked(port uint16) bool {
	_, blocked := readTree(w.path("blocked"))[fmt.Sprint(port)]
	return blocked
}

func (w *world) Differences(_ context.Context, e posture.Effective, files generation.Files) ([]string, error) {
	if err := w.failure("verify"); err != nil {
		return []string{err.Error()}, nil
	}
	return w.differences(e, files), nil
}

// differences says how the servers differ from e.
func (w *world) differences(e posture.Effective, files generation.Files) []string {
	var list []string
	for _, p := range apply.Parts {
		if p.Unit == "" {
			continue
		}
		want := map[string]string{}
		for name, content := range files {
			if p.Has(name) {
				want[name] = content
			}
		}
		if !maps.Equal(want, readTree(w.path(p.Unit))) {
			list = append(list, p.Unit+" has read something else")
		}
	}
	keys, on := readTree(w.path("ssh"))["keys"]
	switch {
	case on != (e.SSH != nil):
		list = append(list, fmt.Sprintf("ssh is on: %v", on))
	case on && keys != sshaccess.RenderAuthorizedKeys(e.SSH.Keys):
		list = append(list, "ssh takes other keys")
	}
	return list
}

// is tells whether the servers are wholly as e says; nil: they are.
func (w *world) is(e posture.Effective) error {
	files, err := generation.Render(e)
	if err != nil {
		return err
	}
	if differences := w.differences(e, files); len(differences) > 0 {
		return errors.New(strings.Join(differences, "; "))
	}
	return nil
}

// between tells whether each server is as one of two says, so that none is more
// open than both; nil: each is.
func (w *world) between(a, b posture.Effective) error {
	filesA, errA := generation.Render(a)
	filesB, errB := generation.Render(b)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	other := w.differences(b, filesB)
	for _, difference := range w.differences(a, filesA) {
		if slices.Contains(other, difference) {
			return fmt.Errorf("neither as before nor as after: %s", difference)
		}
	}
	return nil
}

func (w *world) Bans(context.Context) (bruteforce.Bans, error) {
	w.held.pass()
	w.mu.Lock()
	defer w.mu.Unlock()
	return bruteforce.Bans{List: slices.Clone(w.bans), Current: len(w.bans), Total: len(w.bans)}, w.fail["bans"]
}

func (w *world) Lift(_ context.Context, addr netip.Addr) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := len(w.bans)
	w.bans = slices.DeleteFunc(w.bans, func(b bruteforce.Ban) bool { return b.Addr == addr })
	w.lifted = append(w.lifted, addr)
	return len(w.bans) < before, nil
}

func (w *world) Announce(_ context.Context, a generation.Announcement) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, a)
	return w.fail["announce"]
}

// hold is a place at which a test can hold one goroutine.
type hold struct {
	mu                sync.Mutex
	entered, released chan struct{} // nil: nobody is held
}

// hold holds the next one. entered is closed when it is there.
func (h *hold) hold() (entered <-chan struct{}, release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entered, h.released = make(chan struct{}), make(chan struct{})
	return h.entered, sync.OnceFunc(func() { close(h.released) })
}

func (h *hold) pass() {
	h.mu.Lock()
	entered, released := h.entered, h.released
	h.entered = nil
	h.mu.Unlock()
	if entered != nil {
		close(entered)
		<-released
	}
}

// readTree reads all files below a directory; none if there is none.
func readTree(root string) map[string]string {
	files := map[string]string{}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return files
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "~") {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		files[name] = string(content)
		return err
	})
	if err != nil {
		panic(err)
	}
	return files
}

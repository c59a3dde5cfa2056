package update

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// patience is far more than anything here takes.
const patience = 3 * time.Minute

func seedOf(b byte) release.SigningSeed {
	seed, err := release.ParseSigningSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	if err != nil {
		panic(err)
	}
	return seed
}

var theSeed = seedOf(1)

// In these tests a package is a text: its name, version and architecture, then whatever
// makes it long. The installed version stands in a file, so that it outlives a
// process that is killed, as dpkg's work does.
func packageOf(version, architecture string, size int) []byte {
	text := PackageName + " " + version + " " + architecture + " "
	return append([]byte(text), bytes.Repeat([]byte{'.'}, max(0, size-len(text)))...)
}

// releaseOf signs a package.
func releaseOf(seed release.SigningSeed, version, architecture string, deb []byte) []byte {
	header, err := release.Sign(release.Header{
		Version: version, Architecture: architecture, Size: uint64(len(deb)), Hash: sha256.Sum256(deb)}, seed)
	if err != nil {
		panic(err)
	}
	return append(header, deb...)
}

// goodRelease is what version 1 should take.
func goodRelease() []byte { return releaseOf(theSeed, "2", "amd64", packageOf("2", "amd64", 2000)) }

// machine is a machine whose disk is a directory. It implements Host.
type machine struct {
	directory string
	started   int
	// broken makes the package of a version bad: its Base is not well.
	broken string
	// failing: installing a version fails halfway.
	failing string
	// occupied fails Occupy.
	occupied error
}

func (m *machine) path(name string) string { return filepath.Join(m.directory, name) }

func (m *machine) set(name, text string) {
	if err := os.WriteFile(m.path(name), []byte(text), 0o600); err != nil {
		panic(err)
	}
}

func (m *machine) get(name string) string {
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return string(b)
}

func (m *machine) Architecture(context.Context) (string, error) { return "amd64", nil }
func (m *machine) Installed(context.Context) (string, error)    { return m.get("installed"), nil }
func (m *machine) IsImage() bool                                { return false }

func (m *machine) Describe(_ context.Context, path string) (Package, error) {
	b, err := os.ReadFile(path)
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 3 {
		return Package{}, errors.Join(errors.New("no package"), err)
	}
	return Package{fields[0], fields[1], fields[2]}, nil
}

func (m *machine) Start(context.Context) error { m.started++; return nil }

func (m *machine) Occupy(context.Context) (func(), error) { return func() {}, m.occupied }

func (m *machine) ReadOnly() (bool, error) { return m.get("root") == "read-only", nil }

func (m *machine) Remount(_ context.Context, writable bool) error {
	m.set("root", map[bool]string{true: "writable", false: "read-only"}[writable])
	return nil
}

func (m *machine) Pack(_ context.Context, path string) error {
	if m.get("installed") != m.get("files") {
		return errors.New("what is installed is not whole")
	}
	return os.WriteFile(path, packageOf(m.get("installed"), "amd64", 0), 0o600)
}

// Install changes the files first, then what dpkg says of them.
func (m *machine) Install(ctx context.Context, path string) error {
	if m.get("root") != "writable" {
		return errors.New("the root file system is read-only")
	}
	is, err := m.Describe(ctx, path)
	if err != nil {
		return err
	}
	m.set("files", "half of "+is.Version)
	if err := m.point("unpack " + is.Version); err != nil {
		return err
	}
	if is.Version == m.failing {
		// As if a script of the package had failed.
		return &programs.Failure{Argv: []string{"/usr/bin/dpkg", "--install", path}, Err: exec.Command("/bin/false").Run(), Said: "dpkg: error"}
	}
	m.set("files", is.Version)
	m.set("installed", is.Version)
	return m.point("configure " + is.Version)
}

// point is replaced by tests that kill in the middle of dpkg's work.
func (m *machine) point(step string) error {
	if os.Getenv(killVariable) == step {
		kill()
	}
	return nil
}

func (m *machine) Restart(context.Context) error {
	if m.get("files") != m.get("installed") {
		return errors.New("the program does not start")
	}
	m.set("runs", m.get("files"))
	return nil
}

func (m *machine) Reread(context.Context) error { return nil }

func (m *machine) Look(context.Context) (Condition, error) {
	c := Condition{Processes: m.get("runs"), Odd: []string{"fail2ban is failed"}}
	if m.get("runs") == m.broken {
		c.Down = append(c.Down, "the Middleware is failed")
	}
	return c, nil
}

// fixture is a Base with version 1.
type fixture struct {
	t        *testing.T
	store    Store
	machine  *machine
	receiver *Receiver
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, store: NewStore(t.TempDir()), machine: &machine{directory: t.TempDir()}}
	for _, name := range []string{"installed", "files", "runs"} {
		f.machine.set(name, "1")
	}
	f.machine.set("root", "read-only")
	f.receive()
	return f
}

// receive starts a Receiver, as a helper that is started does.
func (f *fixture) receive() {
	f.t.Helper()
	var err error
	if f.receiver, err = NewReceiver(f.store, f.machine, release.PublicKey(theSeed)); err != nil {
		f.t.Fatal(err)
	}
	f.receiver.program = f.machine.path("installed") // any small file
}

// bring uploads a file in pieces.
func bring(r *Receiver, file []byte, size int) error {
	n := min(len(file), release.HeaderSize)
	ctx := context.Background()
	id, err := r.Begin(ctx, file[:n], 0)
	if err != nil {
		return err
	}
	for offset := n; offset < len(file); offset += size {
		if err := r.Piece(id, uint64(offset-n), file[offset:min(offset+size, len(file))]); err != nil {
			return err
		}
	}
	_, err = r.Finish(ctx, id)
	if err != nil {
		r.Abort(id)
	}
	return err
}

func (f *fixture) stage() {
	f.t.Helper()
	if err := bring(f.receiver, goodRelease(), 700); err != nil {
		f.t.Fatalf("bring a release: %v", err)
	}
}

// names lists the directory of updates, without what is always there.
func (f *fixture) names() string {
	f.t.Helper()
	entries, err := os.ReadDir(f.store.directory)
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		if entry.Name() != lockFile {
			names = append(names, entry.Name())
		}
	}
	return strings.Join(names, " ")
}

func (f *fixture) journal() Journal {
	f.t.Helper()
	j, err := f.store.Journal()
	if err != nil {
		f.t.Fatal(err)
	}
	return j
}

func (f *fixture) installer() *Installer {
	return &Installer{
		Store: f.store, Host: f.machine, Key: release.PublicKey(theSeed),
		Prove: 50 * time.Millisecond, Calm: 4 * time.Millisecond, Look: time.Millisecond,
	}
}

func (f *fixture) run() {
	f.t.Helper()
	if err := f.installer().Run(f.t.Context()); err != nil {
		f.t.Fatalf("install: %v", err)
	}
}

// is fails the test unless the Base runs a version, whole.
func (f *fixture) is(version string) {
	f.t.Helper()
	for _, name := range []string{"installed", "files", "runs"} {
		if got := f.machine.get(name); got != version {
			f.t.Errorf("%s is version %q, not %q", name, got, version)
		}
	}
	if got := f.machine.get("root"); got != "read-only" {
		f.t.Errorf("the root file system is %s", got)
	}
}

func (j Journal) String() string {
	b, _ := json.Marshal(j)
	return string(b)
}

func sha256Of(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// filesOf lists what is in a Store.
func filesOf(t *testing.T, s Store) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.directory)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

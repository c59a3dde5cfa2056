//go:build linux

package stage

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Guest is a Debian of its own on an attacker's machine, with what it installs there:
// the software of an owner, say.
type Guest struct {
	attacker *Attacker
	root     string
}

// Guest returns a Debian with packages, and what they depend on, on the attacker's
// machine. Its files are gone with the stage.
func (s *Stage) Guest(a *Attacker, packages ...string) *Guest {
	s.t.Helper()
	debian, err := cachedRoot(packages, `--aptopt=APT::Install-Recommends "false"`)
	if err != nil {
		s.t.Fatalf("make a root with %v: %v", packages, err)
	}
	return s.GuestOf(a, debian)
}

// GuestOf is Guest with a root that is there. It stays as it is.
func (s *Stage) GuestOf(a *Attacker, debian string) *Guest {
	s.t.Helper()
	s.guests++
	r, err := newRun(fmt.Sprintf("%s-guest%d", s.run.name[len(prefix):], s.guests))
	if err != nil {
		s.t.Fatalf("prepare a guest: %v", err)
	}
	s.t.Cleanup(func() {
		if err := r.clear(); err != nil {
			s.t.Errorf("clear a guest up: %v", err)
		}
	})
	if err := r.mountRoot([]string{debian}); err != nil {
		s.t.Fatal(err)
	}
	// Only what any program needs: no device of the host but these.
	if err := unix.Mount("/dev/null", filepath.Join(r.root(), "dev/null"), "", unix.MS_BIND, ""); err != nil {
		s.t.Fatalf("give a guest /dev/null: %v", err)
	}
	return &Guest{attacker: a, root: r.root()}
}

// Root is where its files are.
func (g *Guest) Root() string { return g.root }

// Command returns a command that will run in the guest, as root there. Its processes end
// with it.
func (g *Guest) Command(ctx context.Context, argv ...string) *exec.Cmd {
	inside := append([]string{"unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--root=" + g.root, "--mount-proc"}, argv...)
	command := g.attacker.Command(ctx, inside...)
	command.Env = environment
	return command
}

// Exec runs a command in the guest and returns what it printed.
func (g *Guest) Exec(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := g.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %q in a guest: %w", argv, err)
	}
	return string(out), err
}

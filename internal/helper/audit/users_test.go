package audit

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func edit(file, old, new string) func(*testing.T, *fake) {
	return func(t *testing.T, f *fake) {
		changed := strings.Replace(f.files[file], old, new, 1)
		if changed == f.files[file] {
			t.Fatalf("%q is not in %s", old, file)
		}
		f.files[file] = changed
	}
}

func TestWaysToLogInWithoutAKeyAreFound(t *testing.T) {
	find(t, map[string]attack{
		"a password":           {edit("/etc/shadow", "root:*:", "root:$y$j9T$x$y:"), []string{idPassword}},
		"an old password":      {edit("/etc/shadow", "root:*:", "root:aaSjM9n:"), []string{idPassword}},
		"no password":          {edit("/etc/shadow", "root:*:", "root::"), []string{idPassword}},
		"none in passwd":       {edit("/etc/passwd", "root:x:", "root::"), []string{idPassword}},
		"one in passwd":        {edit("/etc/passwd", "games:x:", "games:aaSjM9n:"), []string{idPassword}},
		"locked with password": {edit("/etc/shadow", "root:*:", "root:!$y$j9T$x$y:"), []string{}},
		"a second root":        {edit("/etc/passwd", "games:x:5:", "games:x:0:"), []string{idSecondRoot}},
		"a second root, added": {edit("/etc/passwd", "games:", "toor:x:0:0::/:/bin/sh\ngames:"), []string{idSecondRoot}},
		"written otherwise":    {edit("/etc/passwd", "games:x:5:", "games:x:00:"), []string{idSecondRoot}},
		"not understood": {edit("/etc/passwd", "games:x:5:", "games:x:x:"),
			[]string{"unchecked-files", "unchecked-firewall", "unchecked-sockets", "unchecked-units", "unchecked-users"}},
	})
}

func TestPasswordsAreRemovedFromOrdinaryNamesOnly(t *testing.T) {
	f := base(t)
	f.obeys = func(string) bool { return true }
	edit("/etc/shadow", "root:*:", "root:$y$x:")(t, f)
	if err := Repair(context.Background(), f, idPassword); err != nil || !slices.Equal(f.ran, []string{usermod + " -p * root"}) {
		t.Errorf("%v; ran %q", err, f.ran)
	}
	f.ran = nil
	edit("/etc/shadow", "root:", "--root=/tmp:")(t, f)
	if err := Repair(context.Background(), f, idPassword); err == nil || len(f.ran) > 0 {
		t.Errorf("%v; ran %q", err, f.ran)
	}
}

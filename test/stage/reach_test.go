//go:build linux

package stage_test

import (
	_ "embed"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
	"github.com/google/go-cmp/cmp"
)

var updateReach = flag.Bool("update", false, "rewrite what each unit reaches")

//go:embed testdata/reach.py
var reachProgram string

// reachList is what each unit may reach, reviewed by a person.
const reachList = "testdata/reach.txt"

// templates are the instances that are looked at.
var templates = map[string]string{"legacy-rules@": "legacy-rules@iptables", "repair@": "repair@file-modes"}

// ownLines are the directives of a unit that say what it runs and when. A probe has its
// own; all the others, the sandbox, it has from the unit.
var ownLines = []string{
	"Type", "Exec", "Restart", "RemainAfterExit", "Standard", "TTY", "NoExecPaths", "RuntimeMaxSec", "TimeoutStartSec", "KillMode",
	"KillSignal", "SuccessExitStatus",
}

// probe returns a unit with the sandbox of another, which runs reachProgram. change is
// given each line of the sandbox; what it returns stands in its place.
func probe(unit string, change func(line string) string) string {
	b := &strings.Builder{}
	section := ""
	for line := range strings.Lines(unit) {
		if strings.HasPrefix(line, "[") {
			section = strings.TrimSpace(line)
		}
		own := slices.ContainsFunc(ownLines, func(prefix string) bool { return strings.HasPrefix(line, prefix) })
		if section != "[Service]" || own || strings.HasPrefix(line, "#") {
			continue
		}
		b.WriteString(change(line))
	}
	return b.String() + "Type=oneshot\nExecPaths=/\nRuntimeDirectoryPreserve=yes\nStandardInput=null\nStandardOutput=journal\nExecStart=/usr/bin/python3 /usr/lib/reach.py\n"
}

// unchanged leaves the sandbox as it is, but for a group of the console's that a container
// does not have.
func unchanged(line string) string {
	if strings.HasPrefix(line, "SupplementaryGroups=") {
		return strings.ReplaceAll(line, " input", "")
	}
	return line
}

// reaches runs a probe in a booted Base and returns the sorted lines that it printed.
func runProbe(t *testing.T, s *stage.Stage, name, unit string) []string {
	t.Helper()
	if _, err := s.ExecInput(unit, "tee", "/run/systemd/system/"+name); err != nil {
		t.Fatal(err)
	}
	s.MustExec("systemctl", "daemon-reload")
	if out, err := s.Exec("systemctl", "start", name); err != nil {
		t.Errorf("%s: %v %s\n%s", name, err, out, s.Journal(name))
		return nil
	}
	var lines []string
	complete := false
	for line := range strings.Lines(s.Printed(name)) {
		if line, found := strings.CutPrefix(strings.TrimSpace(line), "REACHES "); found {
			lines = append(lines, line)
			complete = complete || line == "everything was tried"
		}
	}
	if !complete {
		t.Errorf("%s did not come to its end:\n%s", name, s.Journal(name))
	}
	return slices.DeleteFunc(lines, func(line string) bool { return line == "everything was tried" })
}

// services returns the text of each of our services, by its name.
func services(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../packaging/root/usr/lib/systemd/system/*.service")
	if err != nil || len(files) == 0 {
		t.Fatalf("no units: %v", err)
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(text)
	}
	return all
}

func bootToReach(t *testing.T) *stage.Stage {
	t.Helper()
	s := stage.Boot(t, stage.Config{Prepare: func(t *testing.T, root string) {
		if err := os.WriteFile(filepath.Join(root, "usr/lib/reach.py"), []byte(reachProgram), 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	for _, unit := range append([]string{generation.MiddlewareUnit, "systemd-resolved.service", "dbus.service"}, listening...) {
		s.WaitActive(unit)
	}
	// An image has it from its initrd.
	s.MustExec("mkdir", bootdisk.Directory)
	return s
}

// Each unit reaches what testdata/reach.txt says: sockets, names on D-Bus, listeners on
// loopback, resolvers, and what it can write to. Nothing else, and all of it.
func TestEachUnitReachesWhatTheListSaysAndNothingElse(t *testing.T) {
	t.Parallel()
	s := bootToReach(t)
	b := &strings.Builder{}
	b.WriteString("What each unit reaches from inside its sandbox (testdata/reach.py says how to read it).\n")
	all := services(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		instance := name
		for template, looked := range templates {
			instance = strings.Replace(instance, template, looked, 1)
		}
		fmt.Fprintf(b, "\n%s\n", name)
		for _, line := range runProbe(t, s, "probe-"+instance, probe(all[name], unchanged)) {
			fmt.Fprintf(b, "    %s\n", line)
		}
	}
	// Beside them, users without a sandbox: one who logs in, and one who may go out.
	for _, user := range []string{"base", "_apt"} {
		fmt.Fprintf(b, "\nuser %s\n", user)
		for _, line := range runProbe(t, s, "probe-user-"+user+".service", "[Service]\nUser="+user+"\n"+probe("", unchanged)) {
			fmt.Fprintf(b, "    %s\n", line)
		}
	}
	if *updateReach {
		if err := os.WriteFile(reachList, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reachList)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("units reach something else than %s says; if that is meant, run go test -update and review it:\n%s", reachList, d)
	}
}

// The look must be able to find something: without its empty /run the Middleware's sandbox
// reaches what lies there. The resolver's own sockets are in a folder of the resolver's, which is
// a second lock. If that is open too, names leave.
func TestAUnitWithoutItsEmptyRunReachesTheResolver(t *testing.T) {
	t.Parallel()
	s := bootToReach(t)
	unit := probe(services(t)[generation.MiddlewareUnit], func(line string) string {
		if strings.HasPrefix(line, "TemporaryFileSystem=") || strings.HasPrefix(line, "InaccessiblePaths=") {
			return ""
		}
		return line
	})
	const folder, resolver = "/run/bitbox-base-resolver", "socket /run/bitbox-base-resolver/io.systemd.Resolve"
	lines := runProbe(t, s, "probe-bare.service", unit)
	for _, want := range []string{"socket /run/dbus/system_bus_socket", "socket /run/systemd/journal/socket"} {
		if !slices.Contains(lines, want) {
			t.Errorf("it does not find %q; it found %q", want, lines)
		}
	}
	if slices.Contains(lines, resolver) {
		t.Errorf("it reaches the resolver, though %s is closed", folder)
	}
	s.MustExec("chmod", "0755", folder)
	if lines = runProbe(t, s, "probe-barer.service", unit); !slices.Contains(lines, resolver) {
		t.Errorf("it does not find the resolver, though %s is open; it found %q", folder, lines)
	}
}

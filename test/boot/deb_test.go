//go:build linux

package boot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// Two versions of the package, of the same source.
const (
	oldVersion = "1.0.0"
	newVersion = "1.1.0"
)

// sourceDate is when the packages of tests were made, as they say.
const sourceDate = "SOURCE_DATE_EPOCH=1700000000"

// quickly leaves out the compression, which takes half a minute. The files in a package stay the
// same; TestThePackageIsReproducible makes packages as they are shipped.
const quickly = "COMPRESSION=none"

// packages keeps those that were made, for all tests.
var packages struct {
	sync.Mutex
	directory string
	made      map[string]string
}

// deb makes our package, once for each version, and returns its path.
func deb(t *testing.T, version string) string {
	t.Helper()
	packages.Lock()
	defer packages.Unlock()
	if path, made := packages.made[version]; made {
		return path
	}
	if packages.directory == "" {
		directory, err := os.MkdirTemp("", "packages")
		if err != nil {
			t.Fatal(err)
		}
		packages.directory, packages.made = directory, map[string]string{}
	}
	path := makePackage(t, "bitbox-base", "../..", version, packages.directory, sourceDate, quickly)
	packages.made[version] = path
	return path
}

// makePackage runs scripts/package of a source tree, for the package of that name.
func makePackage(t *testing.T, name, source, version, directory string, environment ...string) string {
	t.Helper()
	script, err := filepath.Abs(filepath.Join(source, "scripts", "package"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(script, version, runtime.GOARCH, directory, name)
	command.Env = append(os.Environ(), environment...)
	out, err := command.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("make the package: %v: %s", err, failed.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// rebuilt changes a package: edit gets a directory with what is in it, and its
// control files in DEBIAN.
func rebuilt(t *testing.T, path string, edit func(root string)) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "package")
	host(t, "dpkg-deb", "--raw-extract", path, root)
	edit(root)
	changed := filepath.Join(filepath.Dir(root), filepath.Base(path))
	host(t, "dpkg-deb", "--root-owner-group", "-Znone", "--build", root, changed)
	return changed
}

// repacked makes a package again from its files that are installed in a root.
func repacked(t *testing.T, root, name, directory string) string {
	t.Helper()
	top := filepath.Join(t.TempDir(), name)
	control := filepath.Join(top, "DEBIAN")
	if err := os.MkdirAll(control, 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/info", name+".list"))
	if err != nil {
		t.Fatal(err)
	}
	files := filepath.Join(t.TempDir(), "files")
	var present []string
	for line := range strings.Lines(string(list)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "/")
		// Not the root itself, nor what lies in it, which is a link or there anyway.
		if _, err := os.Lstat(filepath.Join(root, line)); err == nil && strings.Contains(line, "/") {
			present = append(present, line)
		}
	}
	if err := os.WriteFile(files, []byte(strings.Join(present, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "files.tar")
	host(t, "tar", "-C", root, "--no-recursion", "-cf", archive, "-T", files)
	host(t, "tar", "-C", top, "-xf", archive)
	scripts, err := filepath.Glob(filepath.Join(root, "var/lib/dpkg/info", name+".*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		kind := strings.TrimPrefix(filepath.Ext(script), ".")
		if kind == "list" || kind == "md5sums" {
			continue
		}
		host(t, "cp", script, filepath.Join(control, kind))
	}
	status := host(t, "dpkg-query", "--admindir="+filepath.Join(root, "var/lib/dpkg"), "--status", name)
	var kept []string
	skip := false
	for line := range strings.Lines(status) {
		field, _, _ := strings.Cut(line, ":")
		if !strings.HasPrefix(line, " ") {
			skip = field == "Status" || field == "Conffiles"
		}
		if !skip {
			kept = append(kept, line)
		}
	}
	if err := os.WriteFile(filepath.Join(control, "control"), []byte(strings.Join(kept, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory, name+".deb")
	host(t, "dpkg-deb", "--root-owner-group", "-Znone", "--build", top, path)
	return path
}

// host runs a command on the host.
func host(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// debian boots a Debian without our package. The booted system has files in
// /var/packages, and the test binary as /usr/bin/attacker.
func debian(t *testing.T, prepare func(root string), files ...string) *stage.Stage {
	t.Helper()
	s := stage.Install(t, stage.Config{Bare: true, Prepare: func(t *testing.T, root string) {
		if err := os.MkdirAll(filepath.Join(root, "var/packages"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			host(t, "cp", file, filepath.Join(root, "var/packages", filepath.Base(file)))
		}
		if prepare != nil {
			prepare(root)
		}
	}})
	s.Start()
	return s
}

// random are the ports that Debian's Avahi chooses at each start, of those that Linux gives away: 32768
// to 60999.
var random = regexp.MustCompile(`:(3[2-9]|[45]\d|60)\d{3}$`)

// longTime is the patience with dpkg and apt, which wait for the disk at each step.
const longTime = 10 * time.Minute

// long runs a command in the booted system that may take longer than stage.Exec waits,
// and returns what it printed.
func long(t *testing.T, s *stage.Stage, argv ...string) (string, error) {
	t.Helper()
	const unit, output = "long.service", "/run/long"
	_, _ = s.Exec("rm", "-f", output)
	s.MustExec(append([]string{"systemd-run", "--quiet", "--remain-after-exit", "--unit=" + unit, "--setenv=DEBIAN_FRONTEND=noninteractive",
		"--property=StandardOutput=append:" + output, "--property=StandardError=append:" + output, "--"}, argv...)...)
	defer func() {
		_, _ = s.Exec("systemctl", "stop", unit)
		_, _ = s.Exec("systemctl", "reset-failed", unit)
	}()
	for deadline := time.Now().Add(longTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		switch state := s.MustExec("systemctl", "show", "--property=SubState", "--value", unit); strings.TrimSpace(state) {
		case "exited":
			return s.MustExec("cat", output), nil
		case "failed":
			return s.MustExec("cat", output), fmt.Errorf("%q failed", argv)
		}
	}
	return s.MustExec("cat", output), fmt.Errorf("%q has not ended within %v", argv, longTime)
}

// mustLong is long for what cannot fail.
func mustLong(t *testing.T, s *stage.Stage, argv ...string) string {
	t.Helper()
	out, err := long(t, s, argv...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// listens lists what listens to the network, by protocol and address; what only
// loopback reaches is left out.
func listens(s *stage.Stage) []string {
	var list []string
	for line := range strings.Lines(s.MustExec("ss", "-Htuln")) {
		fields := strings.Fields(line)
		if address := fields[4]; !strings.HasPrefix(address, "127.") && !strings.HasPrefix(address, "[::1]") {
			list = append(list, fields[0]+" "+random.ReplaceAllString(address, ":(random)"))
		}
	}
	return unique(list)
}

// everywhere is where a file of the host is in a booted Debian.
func everywhere(file string) string { return "/var/packages/" + filepath.Base(file) }

// etc tells what is in /etc: each path with its mode, owner and content.
func etc(s *stage.Stage) map[string]string {
	tree := map[string]string{}
	out := s.MustExec("find", "/etc", "-printf", "%p\\t%y %m %u:%g %l\\n")
	for line := range strings.Lines(out) {
		path, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		tree[path] = rest
	}
	for line := range strings.Lines(s.MustExec("find", "/etc", "-type", "f", "-exec", "sha256sum", "{}", "+")) {
		sum, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		tree[path] += " " + sum
	}
	return tree
}

// changes tells where two trees differ; paths that begin with one of these do not count.
func changes(before, after map[string]string, but ...string) []string {
	var list []string
	counts := func(path string) bool {
		for _, prefix := range but {
			if strings.HasPrefix(path, prefix) {
				return false
			}
		}
		return true
	}
	for path, is := range after {
		if was, there := before[path]; counts(path) && !there {
			list = append(list, "new: "+path+" "+is)
		} else if counts(path) && was != is {
			list = append(list, fmt.Sprintf("changed: %s from %s to %s", path, was, is))
		}
	}
	for path := range before {
		if _, there := after[path]; counts(path) && !there {
			list = append(list, "gone: "+path)
		}
	}
	return unique(list)
}

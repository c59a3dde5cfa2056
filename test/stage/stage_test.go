//go:build linux

package stage_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// childVariable makes the test binary a process that boots a stage and waits to
// be killed; see TestAKilledRunIsClearedUp.
const childVariable = "BITBOX_BASE_STAGE_CHILD"

func TestMain(m *testing.M) { os.Exit(stage.Main(m)) }

// listening are the units that the network reaches, or that act on it.
var listening = []string{generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit}

// entry is where the Base listens.
func entry(s *stage.Stage) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(s.V4, posture.EntryPort), netip.AddrPortFrom(s.V6, posture.EntryPort)}
}

// reaches tells whether a connection comes to be.
func reaches(a *stage.Attacker, to netip.AddrPort) error {
	conn, err := a.Dial("tcp", to)
	if err != nil {
		return err
	}
	return conn.Close()
}

// refused fails the test if a connection comes to be.
func refused(t *testing.T, a *stage.Attacker, to netip.AddrPort) {
	t.Helper()
	if reaches(a, to) == nil {
		t.Errorf("%s can be reached", to)
	}
}

func TestBaseBoots(t *testing.T) {
	s := stage.Install(t, stage.Config{Real: true})
	begun := time.Now()
	s.Start()
	t.Logf("booted in %v", time.Since(begun).Round(10*time.Millisecond))
	for _, unit := range append([]string{generation.FirewallUnit, generation.MiddlewareUnit, "bitbox-base-system.service"}, listening...) {
		s.WaitActive(unit)
	}
	if failed := s.MustExec("systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units:\n%s", failed)
	}
	for _, to := range entry(s) {
		if err := reaches(s.Attacker(1), to); err != nil {
			t.Errorf("the entry: %v", err)
		}
	}
	for _, unit := range append([]string{generation.MiddlewareUnit, "bitbox-base-system.service"}, listening...) {
		t.Logf("memory of %s: %s", unit, residentMemory(t, s, unit))
	}
}

// residentMemory sums what the processes of a unit have in memory.
func residentMemory(t *testing.T, s *stage.Stage, unit string) string {
	t.Helper()
	group := strings.TrimSpace(s.MustExec("systemctl", "show", "--property=ControlGroup", "--value", unit))
	total := 0
	for pid := range strings.FieldsSeq(s.MustExec("cat", "/sys/fs/cgroup/systemd"+group+"/cgroup.procs")) {
		var kilobytes int
		// A worker that NGINX has replaced meanwhile is gone.
		out, _ := s.Exec("ps", "-o", "rss=", "-p", pid)
		_, _ = fmt.Sscanf(strings.TrimSpace(out), "%d", &kilobytes)
		total += kilobytes
	}
	return fmt.Sprintf("%.1f MiB", float64(total)/1024)
}

// A stage that ended, in whatever way, leaves nothing of itself on the host.
func TestAKilledRunIsClearedUp(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		s := stage.Boot(t, stage.Config{})
		s.Attacker(1)
		fmt.Println("booted")
		time.Sleep(10 * time.Minute)
		return
	}
	stage.NeedRoot(t)
	child := exec.Command(os.Args[0], "-test.run=^TestAKilledRunIsClearedUp$", "-test.v")
	child.Env = append(os.Environ(), childVariable+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	seen := ""
	for buffer := make([]byte, 4096); !strings.Contains(seen, "booted"); {
		n, err := out.Read(buffer)
		seen += string(buffer[:n])
		if err != nil {
			t.Fatalf("the other run did not boot: %v\n%s", err, seen)
		}
	}
	name := fmt.Sprintf("bbstage-%d-", child.Process.Pid)
	if !slices.ContainsFunc(leftovers(t, name), func(left string) bool { return strings.HasPrefix(left, "process ") }) {
		t.Fatal("a run has no processes: this test would not see them")
	}
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	// The container ends with the process, and not only when somebody clears up.
	stage.Until(t, "no process of the killed run is left", func() error {
		for _, left := range leftovers(t, name) {
			if strings.HasPrefix(left, "process ") {
				return errors.New(left)
			}
		}
		return nil
	})
	if left := leftovers(t, name); left == nil {
		t.Fatal("a killed run left nothing: this test would not see it")
	}
	stage.Install(t, stage.Config{})
	if left := leftovers(t, name); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

// leftovers lists what exists on the host under a name.
func leftovers(t *testing.T, name string) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{"/run/netns/", "/run/bitbox-base-stage/", "/sys/fs/cgroup/", "/sys/fs/cgroup/systemd/",
		"/sys/fs/cgroup/unified/"} {
		found, err := filepath.Glob(pattern + name + "*")
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, name) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	for _, root := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"} {
		groups, err := filepath.Glob(filepath.Join(root, name+"*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range groups {
			_ = filepath.WalkDir(group, func(path string, _ os.DirEntry, err error) error {
				if filepath.Base(path) == "cgroup.procs" {
					content, _ := os.ReadFile(path) // it may vanish meanwhile
					for pid := range strings.FieldsSeq(string(content)) {
						left = append(left, "process "+pid+" in "+path)
					}
				}
				return err
			})
		}
	}
	return left
}

// serve answers each connection to listener with a line, until the test ends.
func serve(t *testing.T, listener net.Listener, line string) {
	t.Helper()
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(line))
			_ = conn.Close()
		}
	}()
}

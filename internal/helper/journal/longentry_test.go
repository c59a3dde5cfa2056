package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

const (
	// hugeText is the size of one log entry of a service, in bytes. It costs the writer nothing:
	// the journal compresses it.
	hugeText = 8 << 20
	runPlace = "/run/log/journal"
	// patience is far more than anything here takes.
	patience = 3 * time.Minute
	// roleVariable is set in the process that runs a journald.
	roleVariable = "BITBOX_BASE_JOURNAL_TEST_ROLE"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "huge" {
		hugeEntry()
		return
	}
	os.Exit(leaktest.Run(m))
}

// hugeEntry runs its own real journald, logs an entry with a huge text and a small one, as any
// service may (systemd's native protocol), and reads them with journalctl, as the helper does and
// with complete texts. It prints the memory used.
func hugeEntry() {
	used, err := readHugeEntry()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(used)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type journalUse struct {
	Helper, Whole int64 // at most this many KiB of memory
	Lines         []string
}

func readHugeEntry() (used journalUse, err error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return used, err
	}
	const settings = "/run/systemd/journald.conf.d"
	if err := errors.Join(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""), os.MkdirAll("/run/systemd/journal", 0o755),
		os.MkdirAll(settings, 0o755),
		os.MkdirAll(filepath.Join(runPlace, strings.TrimSpace(string(id))), 0o755),
		os.WriteFile(settings+"/test.conf", []byte("[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n"), 0o644)); err != nil {
		return used, err
	}
	journald := exec.Command("/lib/systemd/systemd-journald")
	if err := journald.Start(); err != nil {
		return used, err
	}
	defer func() { _ = journald.Process.Kill(); _ = journald.Wait() }()
	huge := binary.LittleEndian.AppendUint64([]byte("PRIORITY=6\nMESSAGE\n"), hugeText)
	huge = append(append(huge, make([]byte, hugeText)...), '\n')
	for _, entry := range [][]byte{huge, []byte("PRIORITY=6\nMESSAGE=small\n")} {
		if err := retry(func() error { return logNatively(entry) }); err != nil {
			return used, err
		}
	}
	err = retry(func() error {
		if used.Lines, used.Helper, err = readJournal(); err == nil && !strings.Contains(strings.Join(used.Lines, ""), "small") {
			err = errors.New("the entries are not in the journal")
		}
		return err
	})
	if err == nil {
		_, used.Whole, err = readJournal("--all")
	}
	return used, err
}

func retry(do func() error) (err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

func logNatively(entry []byte) error {
	file, err := unix.MemfdCreate("entry", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(file) }()
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	if _, err := unix.Write(file, entry); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(file), unix.F_ADD_SEALS,
		unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return err
	}
	return unix.Sendmsg(socket, nil, unix.UnixRights(file), &unix.SockaddrUnix{Name: "/run/systemd/journal/socket"}, 0)
}

// readJournal returns the lines of journalctl, and its memory.
func readJournal(more ...string) (lines []string, memory int64, err error) {
	command := exec.Command("/usr/bin/journalctl", slices.Concat(format, []string{"--directory=" + runPlace}, more)...)
	output, err := command.Output()
	if err != nil {
		return nil, 0, err
	}
	for line := range bytes.Lines(output) {
		lines = append(lines, string(line[:min(len(line), 4096)]))
	}
	return lines, command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss, nil
}

// Any service may log a text of up to 768 MiB. As JSON each of its bytes takes 40 in the memory
// of journalctl, a child of the helper: a compromised Middleware could log such a text, ask for
// its log, and make the kernel kill the helper.
func TestAHugeTextInTheJournalTakesNoMemory(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(executable)
	command.Env = append(os.Environ(), roleVariable+"=huge")
	command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var used journalUse
	if err := json.Unmarshal(output, &used); err != nil {
		t.Fatal(err)
	}
	if used.Helper > used.Whole/3 {
		t.Errorf("reading it takes %d KiB; with the text whole it takes %d KiB", used.Helper, used.Whole)
	}
	var all []string
	for _, line := range used.Lines {
		e, _, err := Query{}.entry([]byte(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, e.GetText())
	}
	if !slices.Contains(all, noText) || !slices.Contains(all, "small") {
		t.Errorf("%q", all)
	}
}

//go:build linux && image

// Package image_test boots the image in QEMU and attacks it from outside; `make
// test-image` runs it. It takes minutes, so `make test` leaves it out.
//
// The machine has no accelerator: it is slow, and the same everywhere. QEMU translates for both of its processors in
// one thread. With one thread for each, on a host that had much else to do, one of some sixty starts ended in a panic:
// a processor had run an instruction that the kernel had replaced on the other one meanwhile.
package image_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/gpt"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

const (
	// patience is how long a machine in software may take to boot, on a host that
	// has much else to do.
	patience = 15 * time.Minute
	// diskSize is that of the disk, in bytes: both slots, and a little data.
	diskSize = 8 << 30
	// asked is how long it may take to answer a question.
	asked = 10 * time.Minute
	// memory is that of a small board, in MiB.
	memory = "1024"
)

// hardware is a kind of machine.
type hardware struct {
	program   string
	arguments []string
	// code is its firmware, and variables are those of a firmware without keys.
	code, variables string
}

var (
	amd64 = hardware{"qemu-system-x86_64", []string{"-cpu", "Nehalem", "-M", "q35", "-vga", "std"},
		"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"}
	arm64 = hardware{"qemu-system-aarch64", []string{"-cpu", "cortex-a72", "-M", "virt", "-device", "virtio-gpu-pci"},
		"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"}
)

// machine is the image in QEMU.
type machine struct {
	*stage.Stage
	hardware
	t         *testing.T
	directory string
	disk      string
	record    string   // where each write to the disk is recorded; "": nowhere
	extra     []string // more of QEMU's arguments
	command   *exec.Cmd
	ended     <-chan struct{}
	probe     net.Conn
	reader    *bufio.Reader
}

// newMachine puts a copy of a disk into a machine with the variables of a firmware.
func newMachine(t *testing.T, image, firmware string) *machine {
	t.Helper()
	return newMachineOf(t, amd64, image, firmware)
}

func newMachineOf(t *testing.T, kind hardware, image, firmware string) *machine {
	t.Helper()
	m := &machine{Stage: stage.Network(t, kind.program, "mcopy", "mke2fs"), hardware: kind, t: t, directory: t.TempDir()}
	m.disk = filepath.Join(m.directory, "disk")
	m.host("cp", "--sparse=always", image, m.disk)
	if err := os.Truncate(m.disk, diskSize); err != nil {
		t.Fatal(err)
	}
	m.host("cp", firmware, filepath.Join(m.directory, "firmware"))
	t.Cleanup(m.cutPower)
	return m
}

// host runs one of the host's programs.
func (m *machine) host(argv ...string) string {
	m.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// switchOn starts the machine.
func (m *machine) switchOn() {
	m.t.Helper()
	// The words of an earlier start must not be taken for those of this one.
	if err := os.Remove(m.serial()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	ours, theirs := m.line()
	// The file has everything that the machine has flushed; a disk promises no more.
	disk := []string{"-drive", "file=" + m.disk + ",format=raw,if=virtio,cache=writeback"}
	if m.record != "" {
		disk = recorded(m.disk, m.record)
	}
	m.command = exec.Command(m.program, slices.Concat(m.arguments, []string{
		"-accel", "tcg,thread=single", "-smp", "2", "-m", memory,
		// This process ends when the machine restarts, see reboots; before that lastWords keeps its screen. QEMU has no
		// way to do both by itself: it stops the machine, and waits for lastWords. So nothing runs before that listens.
		"-nodefaults", "-display", "none", "-action", "reboot=shutdown,shutdown=pause", "-S",
		"-chardev", "socket,id=events,fd=3", "-mon", "chardev=events,mode=control",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + m.code,
		"-drive", "if=pflash,format=raw,file=" + filepath.Join(m.directory, "firmware"),
		"-qmp", "unix:" + filepath.Join(m.directory, "qmp") + ",server=on,wait=off",
		"-serial", "file:" + m.serial(),
		"-device", "virtio-serial", "-chardev", "socket,id=probe,server=on,wait=off,path=" + filepath.Join(m.directory, "probe"),
		"-device", "virtserialport,chardev=probe,name=probe",
	}, disk, m.Device(), m.extra)...)
	m.command.Stderr = os.Stderr
	m.command.ExtraFiles = []*os.File{theirs} // the first has number 3
	ended, err := m.RunBeside(m.command)
	if err = errors.Join(err, theirs.Close()); err != nil {
		m.t.Fatalf("start QEMU: %v", errors.Join(err, ours.Close()))
	}
	m.ended = ended
	go m.lastWords(ours)
}

// line returns both ends of a connection.
func (m *machine) line() (ours net.Conn, theirs *os.File) {
	m.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	end := os.NewFile(uintptr(pair[0]), "events")
	ours, err = net.FileConn(end)
	if err = errors.Join(err, end.Close()); err != nil {
		m.t.Fatal(err)
	}
	return ours, os.NewFile(uintptr(pair[1]), "events")
}

// lastWords has the machine begin. It keeps a picture of the screen when the machine shuts down or restarts, and ends
// QEMU. A kernel that panics says why nowhere else.
func (m *machine) lastWords(conn net.Conn) {
	defer conn.Close()
	decoder := json.NewDecoder(conn)
	say := func(command string) bool {
		_, err := conn.Write([]byte(command))
		return err == nil
	}
	if !say(`{"execute":"qmp_capabilities"}{"execute":"cont"}`) {
		return
	}
	for {
		var message struct{ Event string }
		if err := decoder.Decode(&message); err != nil {
			return // QEMU was killed
		}
		if message.Event == "SHUTDOWN" {
			say(fmt.Sprintf(`{"execute":"screendump","arguments":{"filename":%q,"format":"png"}}{"execute":"quit"}`, m.picture()))
		}
	}
}

// picture is the file of the screen that lastWords keeps.
func (m *machine) picture() string { return filepath.Join(m.directory, "screen.png") }

// keepPicture copies the last screen to where it outlives the test, and returns its place.
func (m *machine) keepPicture() string {
	content, err := os.ReadFile(m.picture())
	to := filepath.Join(os.TempDir(), strings.ReplaceAll(m.t.Name(), "/", "-")+".png")
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		return fmt.Sprintf("(no picture of its screen: %v)", err)
	}
	return to
}

// serial is the file of the serial line, where the firmware, the boot loader and the initrd say what goes wrong.
func (m *machine) serial() string { return filepath.Join(m.directory, "serial") }

// says waits until one of some words stands on the serial line, and returns all that stands there.
func (m *machine) says(words ...string) (text string) {
	m.t.Helper()
	m.until(fmt.Sprintf("the serial line says one of %q", words), func() error {
		content, err := os.ReadFile(m.serial())
		if err != nil {
			return err
		}
		text = string(content)
		for _, word := range words {
			if strings.Contains(text, word) {
				return nil
			}
		}
		return fmt.Errorf("it says %q", text[max(0, len(text)-500):])
	})
	return text
}

// ends waits until the machine shuts down or restarts.
func (m *machine) ends(why string) {
	m.t.Helper()
	select {
	case <-m.ended:
		m.cutPower()
	case <-time.After(patience):
		m.t.Fatalf("the machine has not ended in %v: %s", patience, why)
	}
}

// partitions reads the partition table of the disk.
func (m *machine) partitions() map[int]gpt.Partition {
	m.t.Helper()
	f, err := os.Open(m.disk)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		m.t.Fatal(err)
	}
	table, err := gpt.Read(f, uint64(info.Size()))
	if err != nil {
		m.t.Fatal(err)
	}
	partitions := map[int]gpt.Partition{}
	for _, p := range table.Partitions() {
		partitions[p.Number] = p
	}
	return partitions
}

// esp is how mtools call the EFI partition.
func (m *machine) esp() string {
	return fmt.Sprintf("%s@@%d", m.disk, m.partitions()[bootdisk.ESP].First)
}

// entry is the file of the version on the EFI partition.
func (m *machine) entry() string {
	m.t.Helper()
	for line := range strings.Lines(m.host("mdir", "-b", "-i", m.esp(), "::"+bootdisk.EntryDirectory)) {
		if name := strings.TrimSpace(line); strings.HasSuffix(name, ".efi") {
			return name
		}
	}
	m.t.Fatal("no version is on the EFI partition")
	return ""
}

// cutPower ends the machine at once.
func (m *machine) cutPower() {
	if m.ended == nil {
		return
	}
	if m.probe != nil {
		_ = m.probe.Close()
		m.probe = nil
	}
	_ = m.command.Process.Kill() // gone is as good
	<-m.ended
	m.ended = nil
}

// reboots waits until the machine has shut down to restart, and starts it in a new process.
// In the same process, QEMU's translations of the previous system made the next one hundreds
// of times slower: its boot loader took a quarter of an hour.
func (m *machine) reboots() {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(patience):
		m.t.Fatalf("the machine has not shut down to restart in %v", patience)
	}
	m.cutPower()
	m.switchOn()
}

// until waits for a slow machine, as long as it runs.
func (m *machine) until(what string, condition func() error) {
	m.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
		select {
		case <-m.ended:
			said, _ := os.ReadFile(m.serial()) // the failure is told in any case
			m.t.Fatalf("the machine has ended before %s: %v\non its serial line: %s\nits last screen: %s", what, err,
				said[max(0, len(said)-1000):], m.keepPicture())
		default:
		}
	}
	m.t.Fatalf("waited %v until %s: %v", patience, what, err)
}

// answers waits until the entry takes connections.
func (m *machine) answers(from *stage.Attacker) {
	m.t.Helper()
	m.until("the entry takes a connection", func() error {
		conn, err := from.Dial("tcp", netip.AddrPortFrom(m.V4, posture.EntryPort))
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// The way into a copy of the image that no image has: a shell at the other end of a
// device of the virtual machine.
const probeUnit = `[Unit]
Description=Shell of the test
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/bash -c 'exec bash <>/dev/virtio-ports/probe >&0 2>&1'
Restart=always
RestartSec=1
`

// probe puts the shell into the root of an image.
func probe(root string) error {
	units := filepath.Join(root, "etc/systemd/system")
	return errors.Join(os.WriteFile(filepath.Join(units, "probe.service"), []byte(probeUnit), 0o644),
		os.Symlink("/etc/systemd/system/probe.service", filepath.Join(units, "multi-user.target.wants/probe.service")))
}

// addDisk gives the machine a second disk, which it can only read.
func (m *machine) addDisk(path string) {
	m.extra = append(m.extra, "-drive", "file="+path+",format=raw,if=virtio,readonly=on")
}

// reach connects to the shell in the machine.
func (m *machine) reach() {
	m.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(m.directory, "probe"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.probe, m.reader = conn, bufio.NewReader(conn)
	// Asked before the shell is there, nobody answers.
	m.until("the shell in the machine answers", func() error {
		_, _, err := m.ask(5*time.Second, "true")
		return err
	})
}

var question int

// ask has the shell in the machine do something, and returns what it printed.
func (m *machine) ask(limit time.Duration, script string) (out string, code int, err error) {
	question++
	mark := fmt.Sprintf("probe-%d-ends", question)
	if err := m.probe.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", 0, err
	}
	// The mark is taken apart, so that no echo is taken for the end.
	if _, err := fmt.Fprintf(m.probe, "{ %s\n} </dev/null 2>&1; printf '\\n%%s%%s %%d\\n' probe- %d-ends $?\n", script, question); err != nil {
		return "", 0, err
	}
	for {
		line, err := m.reader.ReadString('\n')
		if err != nil {
			return out, 0, fmt.Errorf("ask the machine %q: %w; so far it said: %s", script, err, out)
		}
		if rest, found := strings.CutPrefix(strings.TrimSpace(line), mark+" "); found {
			code, err := strconv.Atoi(rest)
			return strings.TrimSpace(out), code, err
		}
		out += line
	}
}

// inside is ask for a command that has to succeed.
func (m *machine) inside(script string) string {
	m.t.Helper()
	out, code, err := m.ask(asked, script)
	if err != nil || code != 0 {
		m.t.Fatalf("in the machine, %q ended with %d: %v\n%s", script, code, err, out)
	}
	return out
}

// press types on the machine's keyboard.
func (m *machine) press(keys ...string) {
	m.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(m.directory, "qmp"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	decoder := json.NewDecoder(conn)
	say := func(command string) {
		if command != "" {
			if _, err := conn.Write([]byte(command)); err != nil {
				m.t.Fatal(err)
			}
		}
		var reply map[string]any
		if err := decoder.Decode(&reply); err != nil || reply["error"] != nil {
			m.t.Fatalf("QEMU answers %v to %s: %v", reply, command, err)
		}
	}
	say("") // its greeting
	say(`{"execute":"qmp_capabilities"}`)
	for _, key := range keys {
		say(fmt.Sprintf(`{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":%q}],"hold-time":50}}`, key))
		time.Sleep(300 * time.Millisecond) // the next key of a slow typist
	}
}

// screen is what stands on the machine's first screen.
func (m *machine) screen() string {
	m.t.Helper()
	return m.inside("fold -w $(stty -F /dev/tty1 size | cut -d' ' -f2) /dev/vcs1")
}

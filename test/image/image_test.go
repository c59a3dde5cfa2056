//go:build linux && image

package image_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// images are made once for all tests: they take minutes.
var images struct {
	sync.Mutex
	directory string
	made      map[string]string
	firmware  string // its variables, with the builder's keys
}

func TestMain(m *testing.M) {
	var err error
	if images.directory, err = os.MkdirTemp("", "bitbox-base-image-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	images.made = map[string]string{}
	code := stage.Main(m)
	_ = os.RemoveAll(images.directory) // a try
	os.Exit(code)
}

// minLynis is the least hardening index that the image may have.
const minLynis = 85

// keys are the Secure Boot keys of the tests.
func keys(t *testing.T) string {
	t.Helper()
	directory := filepath.Join(images.directory, "keys")
	if _, err := os.Stat(directory); err == nil {
		return directory
	}
	if err := secureboot.Make(directory, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	return directory
}

// made builds an image of the package that the Makefile has made, once; the name tells images with other options apart.
// It returns the directory of the image.
func made(t *testing.T, name string, options build.Options) string {
	t.Helper()
	stage.NeedRoot(t)
	images.Lock()
	defer images.Unlock()
	if directory := images.made[name]; directory != "" {
		return directory
	}
	options.Architecture, options.Keys = "amd64", keys(t)
	if options.Package == "" {
		options.Package = os.Getenv("BITBOX_BASE_PACKAGE")
	}
	options.Out = filepath.Join(images.directory, name)
	options.Cache = build.CacheDirectory(os.Getenv)
	options.Progress = func(what string) { t.Log(what) }
	begun := time.Now()
	var err error
	if options.Init, err = build.MakeInit(t.Context(), options.Architecture, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	// The programs that sudo has: root may have no Go.
	path := os.Getenv("PATH")
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		t.Fatal(err)
	}
	info, err := build.Build(t.Context(), options)
	_ = os.Setenv("PATH", path) // it could be set before
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("FIGURE build of the image: %.0f s; root %d MiB, hash tree %d MiB, UKI %d MiB; Debian's archive of %s, kernel %s",
		time.Since(begun).Seconds(), info.RootSize>>20, info.VeritySize>>20, info.EntrySize>>20, info.Archive, info.Kernel)
	images.made[name] = options.Out
	return options.Out
}

// shipped puts the image as it is shipped into a machine.
func shipped(t *testing.T) *machine {
	t.Helper()
	return newMachine(t, filepath.Join(made(t, "shipped", build.Options{}), build.DiskFile), firmware(t))
}

// probed puts an image into a machine that is the same but for a way in for the test.
func probed(t *testing.T) *machine {
	t.Helper()
	return newMachine(t, filepath.Join(made(t, "probed", build.Options{Change: probe}), build.DiskFile), firmware(t))
}

// firmware returns the variables of a firmware that knows the builder's keys. The first machine gets them from the image
// itself: its boot loader enrols them, since the firmware has none.
func firmware(t *testing.T) string {
	t.Helper()
	image := filepath.Join(made(t, "shipped", build.Options{}), build.DiskFile)
	images.Lock()
	defer images.Unlock()
	if images.firmware != "" {
		return images.firmware
	}
	m := newMachine(t, image, amd64.variables)
	m.switchOn()
	m.ends("the boot loader enrols the keys, and restarts the machine")
	if text := m.says("Enrolling"); !strings.Contains(text, "successfully enrolled") {
		t.Fatalf("the boot loader has not enrolled the keys: %s", text)
	}
	images.firmware = filepath.Join(images.directory, "firmware")
	m.host("cp", filepath.Join(m.directory, "firmware"), images.firmware)
	return images.firmware
}

// found is a Base that the App sees.
type found struct {
	Name        string   `json:"name"`
	Addresses   []string `json:"addresses"`
	PairingOpen bool     `json:"pairingOpen"`
}

// discover looks for Bases with the App's program, on the attacker's machine.
func (m *machine) discover(a *stage.Attacker) found {
	m.t.Helper()
	app := filepath.Join(m.directory, "bitbox-app")
	if _, err := os.Stat(app); err != nil {
		build := exec.Command("go", "build", "-o", app, "github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			m.t.Fatalf("%v\n%s", err, out)
		}
	}
	var base found
	m.until("the App sees the Base by mDNS", func() error {
		out, err := a.Exec(app, "--dir", filepath.Join(m.directory, "app"), "discover", "--json", "--timeout", "5s")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var bases []found
		if err := json.Unmarshal([]byte(out), &bases); err != nil || len(bases) != 1 {
			return fmt.Errorf("it saw %s: %v", out, err)
		}
		base = bases[0]
		return nil
	})
	return base
}

// outside attacks what everybody on the network can reach.
func (m *machine) outside(a *stage.Attacker) {
	m.t.Helper()
	entry := []string{fmt.Sprintf("tcp %d open", posture.EntryPort)}
	// A machine as slow as this one loses answers: a scan may miss the entry, but never finds more than is there.
	scan := func(target netip.Addr, arguments ...string) (found []string) {
		for tries := 0; found == nil && tries < 5; tries++ {
			found = a.Scan(m.t, target, arguments...)
		}
		return found
	}
	for _, target := range []netip.Addr{m.V4, m.V6} {
		if found := scan(target, "-sS", "-p-", "--min-rate", "1500"); !slices.Equal(found, entry) {
			m.t.Errorf("of all TCP ports of %v these answer: %q", target, found)
		}
		for _, source := range []string{"53", "67", "123", "443", "9001"} {
			if found := scan(target, "-sS", "-g", source, "-p", "1-1024,5353,8840-8850,9001,50001,50002", "--min-rate",
				"1000"); !slices.Equal(found, entry) {
				m.t.Errorf("from source port %s these TCP ports of %v answer: %q", source, target, found)
			}
		}
		if found := a.Scan(m.t, target, "-sU", "--top-ports", "100", "--min-rate", "1000"); found != nil {
			m.t.Errorf("of the UDP ports of %v these answer: %q", target, found)
		}
	}
	for _, words := range []string{"GET / HTTP/1.0\r\n\r\n", "SSH-2.0-x\r\n", strings.Repeat("\x00", 2000), "\x16\x03\x01\x00\x05hello"} {
		conn, err := a.Dial("tcp", netip.AddrPortFrom(m.V4, posture.EntryPort))
		if err != nil {
			m.t.Error(err)
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = conn.Write([]byte(words))
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			m.t.Errorf("a stranger who said %.10q was told %q", words, got)
		}
		_ = conn.Close()
	}
}

// pair pairs an App with what the machine's screen shows and its keyboard takes.
func (m *machine) pair(a *client.App, address string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), asked)
	defer cancel()
	// typed waits until the screen asks for something, and types an answer.
	typed := func(question, answer string) error {
		for {
			screen, _, err := m.ask(asked, "cat /dev/vcs1")
			if err != nil || ctx.Err() != nil {
				return fmt.Errorf("the screen never asked %q: %w; it showed %s", question, err, screen)
			}
			if strings.Contains(screen, question) {
				break
			}
			time.Sleep(time.Second)
		}
		m.press(append(strings.Split(answer, ""), "ret")...)
		return nil
	}
	accepted := make(chan error, 1)
	paired, err := a.Pair(ctx, []string{address}, client.PairOptions{
		Requested: func(number string) {
			go func() { accepted <- typed("asks to be paired", strings.ReplaceAll(number, " ", "")) }()
		},
		Confirm: func(_ context.Context, code client.Code) (bool, error) {
			if err := <-accepted; err != nil {
				return false, err
			}
			digits := regexp.MustCompile(`\D`).ReplaceAllString(code.Digits, "")
			return true, typed("Does the App show exactly this code?", digits)
		},
	})
	if err != nil || paired.State != client.Active {
		m.t.Fatalf("pair at the machine's own screen and keyboard: it is %q: %s\nthe screen:\n%s", paired.State, client.Explain(err), m.screen())
	}
}

// works connects as an App does, and has a call answered.
func (m *machine) works(a *client.App, when string) {
	m.t.Helper()
	m.worksAt(a, "", when)
}

// worksAt is works with an address for the App, which it may not know yet.
func (m *machine) worksAt(a *client.App, way, when string) {
	m.t.Helper()
	var ways []string
	if way != "" {
		ways = append(ways, way)
	}
	m.until("the App has an answer "+when, func() error { return call(a, ways...) })
}

// call has a call of an App answered.
func call(a *client.App, ways ...string) error {
	session, err := a.Open("", ways...)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	return err
}

// The image as it is shipped, to the last byte.
func TestTheImageFromOutside(t *testing.T) {
	m := shipped(t)
	a := m.Attacker(1)
	begun := time.Now()
	m.switchOn()
	m.answers(a)
	t.Logf("FIGURE from power on to the first connection, in software: %.0f s", time.Since(begun).Seconds())
	base := m.discover(a)
	t.Logf("by mDNS: %+v", base)
	m.outside(a)

	m.cutPower()
	begun = time.Now()
	m.switchOn()
	m.answers(a)
	t.Logf("FIGURE from power on to the first connection after a power cut, in software: %.0f s", time.Since(begun).Seconds())
	if again := m.discover(a); again.Name != base.Name || !again.PairingOpen {
		t.Errorf("after a power cut the Base is %+v", again)
	}
}

// A copy of the image with a way in for the test, which the image has not.
func TestTheImageFromInside(t *testing.T) {
	m := probed(t)
	a := m.Attacker(1)
	m.switchOn()
	m.answers(a)
	m.reach()
	m.started()
	m.settled()
	m.wholeInside()
	m.verified()
	m.readOnly()

	app, err := client.New(client.Options{Dir: filepath.Join(m.directory, "paired"), Name: "laptop", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	m.pair(app, a.Way(m.t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address)
	m.works(app, "after the pairing")
	identity, boot := m.inside("cat /etc/machine-id"), m.inside("cat /proc/sys/kernel/random/boot_id")
	m.measure()

	// A reboot: asked for, and orderly.
	if _, _, err := m.ask(asked, "systemctl reboot"); err != nil {
		t.Log(err) // the shell may end before it answers
	}
	m.reboots()
	m.works(app, "after a reboot")
	m.reach()
	if now := m.inside("cat /etc/machine-id"); now != identity {
		t.Errorf("the machine's id was %s and is %s after a reboot", identity, now)
	}
	if now := m.inside("cat /proc/sys/kernel/random/boot_id"); now == boot {
		t.Errorf("it is still the boot %s", now)
	}
	// The power goes while it writes.
	if _, _, err := m.ask(asked, "(while :; do dd if=/dev/zero of=/var/tmp/cut bs=64k count=100 conv=fsync; done) >/dev/null 2>&1 &"); err != nil {
		t.Fatal(err)
	}
	m.works(app, "while it writes")
	m.cutPower()
	m.switchOn()
	m.works(app, "after a power cut")
	m.reach()
	if out := m.inside("systemctl --failed --no-legend --plain"); out != "" {
		t.Errorf("after a power cut these units have failed:\n%s", out)
	}
	m.outside(a)
}

// Lynis of Debian knows nothing of the Base. It runs without the tests that docs/image.md names.
func TestLynisJudgesTheImage(t *testing.T) {
	m := probed(t)
	tools := filepath.Join(m.directory, "tools")
	m.host("mke2fs", "-q", "-F", "-t", "ext4", "-d", lynis(t), tools, "32M")
	m.addDisk(tools)
	m.switchOn()
	m.answers(m.Attacker(1))
	m.reach()
	m.started()
	m.settled()
	m.lynis()
}

// started waits until systemd has started all that starts with the machine.
func (m *machine) started() {
	m.t.Helper()
	m.until("everything has started", func() error {
		out, _, err := m.ask(asked, "systemctl is-system-running")
		if err == nil && out != "running" && out != "degraded" {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
}

// settled waits until the posture is in force: on a machine as slow as this one the
// first tries may take too long.
func (m *machine) settled() {
	m.t.Helper()
	m.until("the audit finds nothing grave", func() error {
		out, code, err := m.ask(asked, "bitbox-base audit")
		if err == nil && (code != 0 && strings.Contains(out, "critical")) {
			err = fmt.Errorf("it finds:\n%s", out)
		}
		return err
	})
}

// wholeInside looks at the system from inside.
func (m *machine) wholeInside() {
	m.t.Helper()
	// A pre-flight that took too long on this slow machine was done again.
	m.inside("systemctl reset-failed 'bitbox-base-preflight-*'")
	if out := m.inside("systemctl --failed --no-legend --plain"); out != "" {
		m.t.Errorf("these units have failed:\n%s", out)
	}
	if out := m.inside("cat /proc/sys/kernel/tainted"); out != "0" {
		m.t.Errorf("the kernel is tainted: %s", out)
	}
	if out := m.inside("journalctl -b --no-pager | grep -i 'ordering cycle' || true"); out != "" {
		m.t.Errorf("units wait for each other in a ring:\n%s", out)
	}
	if out := m.inside("systemctl list-units --type=service --no-legend --plain '*getty*'"); out != "" {
		m.t.Errorf("there is a login prompt:\n%s", out)
	}
	if out := m.inside("getent shadow root base | cut -d: -f1,2"); !regexp.MustCompile(`^root:[!*][^\n]*\nbase:\*$`).MatchString(out) {
		m.t.Errorf("root or base has a password: %s", out)
	}
	// The audit cannot see this, since the kernel hides it from a helper without privileges.
	if out := m.inside("cat /proc/sys/net/core/bpf_jit_harden"); out != "2" {
		m.t.Errorf("net.core.bpf_jit_harden is %s", out)
	}
	// The data partition has the rest of the disk.
	if size, err := strconv.ParseInt(m.inside("findmnt -bno SIZE /var"), 10, 64); err != nil || size < 2<<30 {
		m.t.Errorf("the data partition has %d bytes: %v", size, err)
	}
	if out := m.inside("ls /etc/ssh/ssh_host_* /etc/apt/apt.conf.d/99mmdebstrap 2>/dev/null || true"); out != "" {
		m.t.Errorf("the image holds files of the machine that built it: %s", out)
	}
}

// verified looks at what the machine was started with.
func (m *machine) verified() {
	m.t.Helper()
	if out := m.inside("cat /sys/kernel/security/lockdown"); !strings.Contains(out, "[integrity]") {
		m.t.Errorf("the kernel is not locked down: %s", out)
	}
	// Four bytes of attributes, then the value.
	out := m.inside("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
	if strings.TrimSpace(out) != "1" {
		m.t.Errorf("Secure Boot is %s", out)
	}
	if out := m.inside("findmnt -no FSTYPE /"); out != "erofs" {
		m.t.Errorf("the root is %s", out)
	}
	if slot := m.inside("cat " + bootdisk.Directory + "/" + bootdisk.SlotFile); slot != "a" {
		m.t.Errorf("slot %s runs", slot)
	}
	data := m.inside("readlink " + bootdisk.Directory + "/" + bootdisk.DataLink)
	if out := m.inside("findmnt -no SOURCE /var"); out != data || out != "/dev/vda6" {
		m.t.Errorf("the data are on %s, and ours are on %s", out, data)
	}
	if out := m.inside("grep -c ' /boot\\| /efi' /proc/mounts || true"); strings.TrimSpace(out) != "0" {
		m.t.Error("the EFI partition is mounted")
	}
	out = m.inside("grep -E 'IMAGE_|ARCHIVE' /etc/os-release")
	if !strings.Contains(out, "IMAGE_ID=bitbox-base\nIMAGE_VERSION=") {
		m.t.Errorf("the image says of itself %s", out)
	}
}

// readOnly tries to write where nobody may.
func (m *machine) readOnly() {
	m.t.Helper()
	for _, path := range []string{"/attack", "/etc/attack", "/usr/bin/attack", "/root/attack", "/home/base/attack", "/boot/attack",
		"/opt/attack"} {
		if out, code, err := m.ask(asked, "touch "+path); err != nil || code == 0 || !strings.Contains(out, "Read-only file system") {
			m.t.Errorf("root wrote %s: %s (%v)", path, out, err)
		}
	}
	for _, path := range []string{"/var/tmp/may", "/tmp/may", "/run/may"} {
		m.inside("touch " + path + " && rm " + path)
	}
	// Nor does anybody run what he has written to memory that programs share.
	if out, code, err := m.ask(asked, "cp /bin/true /dev/shm/attack && /dev/shm/attack; code=$?; rm -f /dev/shm/attack; (exit $code)"); err != nil || code == 0 || !strings.Contains(out, "Permission denied") {
		m.t.Errorf("root ran a program from /dev/shm: %s (%v)", out, err)
	}
	// There is no way to write to it, in whatever view.
	if out, code, err := m.ask(asked, "unshare --mount sh -c 'mount -o remount,rw / && touch /attack'"); err != nil || code == 0 {
		m.t.Errorf("the root was made writable: %s (%v)", out, err)
	}
	if out := m.inside("findmnt -no OPTIONS /"); !slices.Contains(strings.Split(out, ","), "ro") {
		m.t.Errorf("the root is mounted %s", out)
	}
}

// measure prints what the Base needs at rest.
func (m *machine) measure() {
	m.t.Helper()
	m.t.Logf("FIGURE start: %s", strings.ReplaceAll(m.inside("systemd-analyze time"), "\n", "; "))
	m.t.Logf("FIGURE memory in use: %s", m.inside("free -m | awk '/^Mem/ { print $3 \" of \" $2 \" MiB\" }'"))
	m.t.Logf("FIGURE memory by service:\n%s", m.inside(`for unit in $(systemctl list-units --type=service --state=running --no-legend --plain | cut -d" " -f1); do `+
		// One that has ended meanwhile has none.
		`bytes=$(systemctl show -P MemoryCurrent $unit); case $bytes in *[!0-9]*) continue;; esac; `+
		`printf "%7.1f MiB  %s\n" $((bytes / 10486))e-2 $unit; done | sort -rn`))
}

// lynis returns a directory with Lynis as Debian packages it, for a disk beside the
// image's. Its profile leaves out what cannot apply to the image.
func lynis(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	download := exec.Command("apt-get", "download", "--quiet", "--option=APT::Sandbox::User=root", "lynis")
	download.Dir = directory
	if out, err := download.CombinedOutput(); err != nil {
		t.Fatalf("download Lynis: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(directory, "lynis_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("apt-get downloaded %q: %v", debs, err)
	}
	root := filepath.Join(directory, "root")
	if out, err := exec.Command("dpkg-deb", "--extract", debs[0], root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	profile, err := os.ReadFile("lynis.prf")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "etc", "lynis", "custom.prf"), profile, 0o644)
	}
	if err != nil {
		t.Fatalf("give Lynis the profile of the image: %v", err)
	}
	return root
}

// lynisRests is how long Lynis may work without a word in its log. Emulation makes it some thirty times slower, so
// that no limit of the whole would tell a slow run from one that hangs.
const lynisRests = 15 * time.Minute

// lynis has Lynis judge the running system.
func (m *machine) lynis() {
	m.t.Helper()
	// It looks for its parts beside itself.
	m.inside("mkdir -p /run/tools && mount -o ro /dev/vdb /run/tools && mkdir -p /tmp/lynis && cp -r /run/tools/usr/share/lynis/* /tmp/lynis/ && " +
		"cp /run/tools/usr/sbin/lynis /tmp/lynis/ && cp -r /run/tools/etc/lynis/*.prf /run/tools/etc/lynis/plugins /tmp/lynis/ && chown -R root:root /tmp/lynis && umount /run/tools")
	m.inside("cd /tmp/lynis && (sh ./lynis audit system --no-colors --quick --logfile /tmp/lynis.log --report-file /tmp/lynis.dat >/tmp/lynis.out 2>&1; " +
		"touch /tmp/lynis.ended) >/dev/null 2>&1 &")
	began, word, since := time.Now(), "", time.Now()
	for m.inside("ls /tmp | grep -c lynis.ended || true") == "0" {
		now := m.inside("tail -n 1 /tmp/lynis.log 2>/dev/null || true")
		if now != word {
			word, since = now, time.Now()
		}
		if time.Since(since) > lynisRests {
			m.t.Fatalf("Lynis has said nothing new for %v; its last words: %s", lynisRests, word)
		}
		time.Sleep(10 * time.Second)
	}
	m.t.Logf("FIGURE Lynis took %v", time.Since(began).Round(time.Second))
	out := m.inside("grep -E '^(hardening_index|warning\\[\\]|suggestion\\[\\])=?' /tmp/lynis.dat || tail -n 30 /tmp/lynis.out")
	index := regexp.MustCompile(`(?m)^hardening_index=(\d+)`).FindStringSubmatch(out)
	if index == nil {
		m.t.Fatalf("Lynis gave no index:\n%s", out)
	}
	m.t.Logf("FIGURE Lynis: index %s\n%s", index[1], out)
	if points, err := strconv.Atoi(index[1]); err != nil || points < minLynis {
		m.t.Errorf("Lynis gives the image %s points, not %d", index[1], minLynis)
	}
	if strings.Contains(out, "warning[]") {
		m.t.Error("Lynis warns")
	}
	m.inside("rm -rf /tmp/lynis*")
}

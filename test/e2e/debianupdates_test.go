//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// listsStamp is touched by Debian's apt.systemd.daily when it has fetched the package lists.
const listsStamp = "/var/lib/apt/periodic/update-stamp"

func installDebian() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_InstallDebianUpdates{InstallDebianUpdates: &systemv1.InstallDebianUpdates{}}}
}

// The real systemd refuses to start Debian's updates because of one condition. The helper names this
// one, and says no word of another or of a start. An installation that ends at once is no refusal,
// although systemd may have forgotten it by then.
func TestTheConditionThatSystemdRefusedIsTold(t *testing.T) {
	t.Parallel()
	b := boot(t)
	directory := b.Path(filepath.Join("etc/systemd/system", services.DebianUpdatesUnit+".d"))
	change := func(dropIn string) {
		if err := errors.Join(os.MkdirAll(directory, 0o755),
			os.WriteFile(filepath.Join(directory, "test.conf"), []byte(dropIn), 0o644)); err != nil {
			t.Fatal(err)
		}
		b.MustExec("systemctl", "daemon-reload")
	}
	const condition, assertion = "ConditionPathExists=/no/such/file", "AssertPathExists=/no/such/directory"
	for _, c := range []struct{ dropIn, told string }{
		{"[Unit]\n" + condition + "\n", condition},
		{"[Unit]\n" + assertion + "\n", assertion},
		{"[Service]\nExecCondition=/bin/false\n", "its log (debian-updates) says which"},
		{"[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/touch /var/lib/apt/periodic/upgrade-stamp\n", ""},
	} {
		change(c.dropIn)
		var progress []string
		_, err := b.root.Do(t.Context(), installDebian(), func(p *systemv1.Progress) { progress = append(progress, p.GetStep()) })
		told := ""
		if err != nil {
			told = err.Error()
		}
		t.Logf("%q, %s", progress, told)
		refused := strings.Contains(told, "Debian's updates were not installed: ")
		switch {
		case strings.Contains(told, "mains power"), refused != (c.told != ""), !strings.Contains(told, c.told):
			t.Errorf("%s: it says %q, %s", c.dropIn, progress, told)
		case strings.HasPrefix(c.dropIn, "[Unit]") && len(progress) != 0, !refused && (len(progress) == 0 || progress[0] != "started"):
			t.Errorf("%s: progress %q", c.dropIn, progress)
		}
	}
	// An installation fetches the package lists first, as the audit's advice says, also for the second time in a day. An apt
	// without sources does so without a network.
	change("[Service]\nExecStart=\nExecStart=/bin/touch /var/lib/apt/periodic/upgrade-stamp\n")
	b.MustExec("sh", "-c", "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d && touch -d '2 hours ago' "+listsStamp)
	before := b.MustExec("stat", "-c", "%Y", listsStamp)
	if _, err := b.root.Do(t.Context(), installDebian(), nil); err != nil {
		t.Errorf("without sources it says %v", err)
	}
	if b.MustExec("stat", "-c", "%Y", listsStamp) == before {
		t.Error("no package lists were fetched")
	}
	// The helper's unit refers to Debian's. An update of our package restarts the helper from within
	// Debian's unit, and neither waits for the other.
	change("[Service]\nExecStartPre=\nExecStart=\nExecStart=systemctl restart " + helperUnit + "\n")
	b.MustExec("timeout", fmt.Sprint(stage.Patience.Seconds()/2), "systemctl", "start", services.DebianUpdatesUnit)
	b.WaitActive(helperUnit)
}

// slowMirror is a mirror of Debian that sends a byte a second.
const slowMirror = `
import socket, threading, time
def serve(c):
    c.recv(4096)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    open("/run/asked", "w").close()
    while True:
        c.sendall(b"x")
        time.sleep(1)
l = socket.socket()
l.bind(("127.0.0.1", 80))
l.listen(50)
while True:
    threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
`

// The attack: somebody on the path to Debian's mirror answers so slowly that the package lists never arrive, and never so
// slowly that apt gives up. Until the installation ends, the machine is neither restarted nor switched off. The broken variant
// fetches without a bound.
func TestASlowMirrorDoesNotHoldUpTheMachine(t *testing.T) {
	t.Parallel()
	b := boot(t)
	const own, bound = "/etc/systemd/system/" + services.DebianUpdatesUnit + ".d/60-bitbox-base.conf", "/usr/bin/timeout --kill-after=10 600 "
	unit := b.MustExec("cat", own)
	if !strings.Contains(unit, bound) {
		t.Fatalf("%s has no bound: %s", own, unit)
	}
	b.MustExec("sh", "-c", "rm -rf /etc/apt/sources.list.d; echo 'deb http://127.0.0.1/debian trixie main' > /etc/apt/sources.list")
	if _, err := b.ExecInput(slowMirror, "dd", "status=none", "of=/run/mirror.py"); err != nil {
		t.Fatal(err)
	}
	b.MustExec("systemd-run", "--quiet", "--unit=mirror", "python3", "/run/mirror.py")
	install := func(bounded string) {
		lines := strings.Replace(unit, bound, bounded, 1) + "ExecStart=\nExecStart=/bin/touch /var/lib/apt/periodic/upgrade-stamp\n"
		if _, err := b.ExecInput(lines, "dd", "status=none", "of="+own); err != nil {
			t.Fatal(err)
		}
		b.MustExec("systemctl", "daemon-reload")
		b.MustExec("systemctl", "--no-block", "start", services.DebianUpdatesUnit)
	}
	ends := func() bool {
		_, err := b.Exec("timeout", "60", "sh", "-c",
			"while systemctl show --property=ActiveState "+services.DebianUpdatesUnit+" | grep -q activating; do sleep 1; done")
		return err == nil
	}
	install("")
	b.Until("the mirror is asked", func() error {
		_, err := b.Exec("test", "-e", "/run/asked")
		return err
	})
	_, refused := b.root.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Reboot{Reboot: &systemv1.Reboot{}}}, nil)
	if refused == nil || !strings.Contains(refused.Error(), "Debian's updates are being installed") || ends() {
		t.Errorf("without a bound it ends, and a restart of the machine says %v: so this test shows nothing", refused)
	}
	// Its processes go on, and hold apt's lock: the bound is also for the wait for that.
	b.MustExec("systemctl", "stop", services.DebianUpdatesUnit)
	install(strings.Replace(bound, "600", "5", 1))
	if !ends() {
		t.Error("the installation does not end")
	}
}

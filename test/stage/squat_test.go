//go:build linux

package stage_test

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

//go:embed testdata/squat.py
var squatProgram string

// squat tries 28 times to take a port of NGINX's as the user who may log in, and returns
// how often that succeeded.
func squat(t *testing.T, s *stage.Stage) int {
	t.Helper()
	out, err := s.ExecInput(squatProgram, "setpriv", "--reuid="+sshaccess.User, "--regid="+sshaccess.User, "--clear-groups", "python3", "-")
	var tries, won int
	if _, scanErr := fmt.Sscanf(out, "tries %d won %d", &tries, &won); err != nil || scanErr != nil || tries != 28 {
		t.Fatalf("the attack did not run: %v %q", err, out)
	}
	return won
}

// A local user cannot take a port of NGINX: not while it restarts, not while it is down, and
// not before an owner has opened one.
func TestNobodyElseTakesAPortOfNginx(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.PortsUnit)
	s.WaitActive(generation.ProxyUnit)
	check := func(when string) {
		t.Helper()
		if won := squat(t, s); won != 0 {
			t.Errorf("%s: %d tries succeeded", when, won)
		}
	}
	check("NGINX runs")
	s.MustExec("systemctl", "kill", "--signal=KILL", generation.ProxyUnit)
	check("NGINX was killed")
	s.MustExec("systemctl", "stop", generation.ProxyUnit)
	check("NGINX is down")
	s.MustExec("systemctl", "start", generation.ProxyUnit)
	for _, to := range entry(s) {
		s.Until("the entry answers again", func() error { return reaches(s.Attacker(1), to) })
	}
	check("NGINX has restarted")

	// It was held before anything that a user can do.
	for _, unit := range []string{"systemd-user-sessions.service", "sysinit.target"} {
		before := s.MustExec("systemctl", "show", "--value", "--property=ActiveEnterTimestampMonotonic", generation.PortsUnit)
		after := s.MustExec("systemctl", "show", "--value", "--property=ActiveEnterTimestampMonotonic", unit)
		var held, reached int
		if _, err := fmt.Sscan(before+" "+after, &held, &reached); err != nil || held == 0 || reached != 0 && held > reached {
			t.Errorf("the ports were held at %s us, and %s was reached at %s us: %v", strings.TrimSpace(before), unit, strings.TrimSpace(after), err)
		}
	}

	// While an update restarts what holds the ports, systemd holds them. The pause is what an
	// intruder wishes for.
	restarts := func(more string) (won int) {
		t.Helper()
		dropIn := s.Path(filepath.Join("etc/systemd/system", generation.PortsUnit+".d"))
		if err := errors.Join(os.MkdirAll(dropIn, 0o755), os.WriteFile(filepath.Join(dropIn, "slow.conf"),
			[]byte("[Service]\nExecStartPre=+/usr/bin/sleep 3\nTimeoutStartSec=90\n"+more), 0o644)); err != nil {
			t.Fatal(err)
		}
		s.MustExec("systemctl", "daemon-reload")
		s.MustExec("systemctl", "restart", "--no-block", generation.PortsUnit)
		s.Until("it restarts", func() error {
			state := s.State(generation.PortsUnit)
			if state != "activating" {
				return errors.New(state)
			}
			return nil
		})
		won = squat(t, s)
		s.WaitActive(generation.PortsUnit)
		return won
	}
	s.MustExec("systemctl", "stop", generation.ProxyUnit)
	for range 2 {
		if won := restarts(""); won != 0 {
			t.Errorf("while what holds the ports restarts %d tries succeeded", won)
		}
	}
	restarts("FileDescriptorStoreMax=0\n") // systemd may have kept earlier ones
	if restarts("FileDescriptorStoreMax=0\n") == 0 {
		t.Error("without what systemd keeps nobody takes a port during a restart: this test shows nothing")
	}

	// The attack can win: without what holds the ports each that is free is taken.
	s.MustExec("systemctl", "stop", generation.PortsUnit)
	if squat(t, s) == 0 {
		t.Error("without the unit that holds the ports nobody takes one: this test shows nothing")
	}
}

// A squatter who came first is found out: what an owner opens is not in force while another
// user listens there, and the audit names the user.
func TestAnotherUsersListenerIsNotTakenForNginx(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true})
	s.WaitActive(generation.ProxyUnit)
	s.MustExec("systemctl", "stop", generation.PortsUnit)
	s.MustExec("systemd-run", "--quiet", "--unit=squatter", "--uid="+sshaccess.User, "python3", "-c",
		fmt.Sprintf("import socket, time\ns = socket.create_server(('0.0.0.0', %d))\ntime.sleep(3600)", posture.Extras[0].Port))
	s.Until("somebody squats the port", func() error {
		_, err := s.Exec("bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", posture.Extras[0].Port))
		return err
	})
	out, _ := s.Exec("bitbox-base", "audit")
	if !strings.Contains(out, "listener-unexpected") || !strings.Contains(out, fmt.Sprintf("tcp 0.0.0.0:%d", posture.Extras[0].Port)) {
		t.Errorf("the audit does not find the squatter:\n%s", out)
	}
}

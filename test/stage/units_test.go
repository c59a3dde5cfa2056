//go:build linux

package stage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	managed "github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// systemctl asks the systemd of a stage.
type systemctl struct{ *stage.Stage }

func (s systemctl) Systemctl(_ context.Context, arguments ...string) (string, error) {
	return s.Exec(append([]string{"systemctl"}, arguments...)...)
}

// The real systemd brings a unit into each state. The helper reads it as what it is.
func TestTheStatesOfSystemdAreToldAsTheyAre(t *testing.T) {
	t.Parallel()
	const (
		service = "[Service]\nType="
		stays   = "\nExecStart=/bin/sleep infinity\n"
		shell   = "\nExecStart=/bin/sh -c "
		ends    = "oneshot\nExecStart=/bin/true\n"
	)
	start, queue := []string{"start"}, []string{"--no-block start"}
	tests := []struct {
		name    string
		unit    string   // the unit's file; empty: there is none
		do      []string // what systemctl is told, before the unit's name
		state   basev1.Service_State
		reason  string
		refused bool
	}{
		{"running", service + "exec" + stays, start, basev1.Service_STATE_RUNNING, "", false},
		{"exited", service + ends + "RemainAfterExit=yes\n", start, basev1.Service_STATE_DONE, "", false},
		{"done", service + ends, start, basev1.Service_STATE_DONE, "", false},
		{"never", service + ends, nil, basev1.Service_STATE_STOPPED, "", false},
		{"stopped", service + "exec" + stays, []string{"start", "stop"}, basev1.Service_STATE_STOPPED, "", false},
		{"starting", service + "notify" + stays, queue, basev1.Service_STATE_STARTING, "", false},
		{"stopping", service + "exec" + stays + "ExecStop=/bin/sleep infinity\n", []string{"start", "--no-block stop"},
			basev1.Service_STATE_STOPPING, "", false},
		{"again", service + "exec" + shell + "'exit 4'\nRestart=always\nRestartSec=1h\n", queue, basev1.Service_STATE_STARTING,
			"it ended with status 4", false},
		{"status", service + "oneshot" + shell + "'exit 3'\n", start, basev1.Service_STATE_FAILED, "it ended with status 3", false},
		{"killed", service + "oneshot" + shell + "'kill -KILL $$$$'\n", start, basev1.Service_STATE_FAILED, "a signal ended it", false},
		{"late", service + "notify" + stays + "TimeoutStartSec=100ms\n", start, basev1.Service_STATE_FAILED, "it took too long", false},
		{"silent", service + "notify\nExecStart=/bin/true\n", start, basev1.Service_STATE_FAILED, "it did not say that it is ready", false},
		{"hangs", service + "exec" + stays + "WatchdogSec=100ms\nWatchdogSignal=SIGKILL\n", queue, basev1.Service_STATE_FAILED,
			"it stopped answering", false},
		{"often", "[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1d\n" + service + ends, []string{"start", "start"},
			basev1.Service_STATE_FAILED, "it was started too often in a short time", false},
		{"lacks", service + ends + "EnvironmentFile=/no/such/file\n", start, basev1.Service_STATE_FAILED,
			"systemd could not provide a resource that it needs", false},
		{"condition", "[Unit]\nConditionPathExists=/no/such/file\n" + service + ends, start, basev1.Service_STATE_STOPPED, "", true},
		{"assertion", "[Unit]\nAssertPathExists=/no/such/file\n" + service + ends, start, basev1.Service_STATE_STOPPED, "", true},
		{"own", service + ends + "ExecCondition=/bin/false\n", start, basev1.Service_STATE_STOPPED, "", true},
		// Nothing refers to this one, so systemd forgets why it did not start it.
		{forgotten, "[Unit]\nConditionPathExists=/no/such/file\n" + service + ends, start, basev1.Service_STATE_STOPPED, "", false},
		{"missing", "", nil, basev1.Service_STATE_STOPPED, "its unit is not installed", false},
		{"masked", "/dev/null", nil, basev1.Service_STATE_STOPPED, "its unit cannot be used (masked)", false},
		{"wrong", service + "oneshot\nExecStart=true and false\nRestart=always\n", nil, basev1.Service_STATE_STOPPED,
			"its unit cannot be used (bad-setting)", false},
	}
	unitOf := func(name string) string { return "test-" + name + ".service" }
	s := stage.Boot(t, stage.Config{Prepare: func(t *testing.T, root string) {
		directory := filepath.Join(root, "etc/systemd/system")
		var names []string
		for _, test := range tests {
			path := filepath.Join(directory, unitOf(test.name))
			var err error
			switch test.unit {
			case "":
			case "/dev/null":
				err = os.Symlink(test.unit, path)
			default:
				err = os.WriteFile(path, []byte(test.unit), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.name != forgotten {
				names = append(names, unitOf(test.name))
			}
		}
		refers := "[Unit]\nBefore=" + strings.Join(names, " ") + "\n" + service + ends + "RemainAfterExit=yes\n"
		if err := os.WriteFile(filepath.Join(directory, unitOf("refers")), []byte(refers), 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	s.MustExec("systemctl", "start", unitOf("refers"))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			unit := unitOf(test.name)
			for _, words := range test.do {
				_, _ = s.Exec(append(append([]string{"systemctl"}, strings.Fields(words)...), unit)...) // what came of it is asked next
			}
			stage.Until(t, "the state is the right one", func() error {
				shown, err := units.Show(t.Context(), systemctl{s}, unit)
				if err != nil {
					return err
				}
				told := units.Describe(managed.Service{}, shown[0], false)
				if told.GetState() != test.state || told.GetReason() != test.reason || shown[0].Refused() != test.refused {
					return errors.Join(fmt.Errorf("it is %v (%s), refused %v", told.GetState(), told.GetReason(), shown[0].Refused()),
						fmt.Errorf("systemd: %v", shown[0]))
				}
				return nil
			})
		})
	}
}

// forgotten is the unit that no other one refers to.
const forgotten = "forgotten"

//go:build linux

package boot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// image boots the root file system of the image, but for its kernel.
func image(t *testing.T, readOnly bool) *stage.Stage {
	t.Helper()
	stage.NeedRoot(t)
	file := deb(t, newVersion)
	return stage.Boot(t, stage.Config{Bare: true, ReadOnly: readOnly, Prepare: func(t *testing.T, root string) {
		if err := build.Configure(t.Context(), root, build.Options{Package: file}); err != nil {
			t.Fatal(err)
		}
		// The container's network was made for it.
		if err := os.Remove(filepath.Join(root, "usr/lib/systemd/network/80-bitbox-base.network")); err != nil {
			t.Fatal(err)
		}
	}})
}

// Where an intruder who is root would like to leave something behind.
var coveted = []string{"/attack", "/etc/attack", "/etc/systemd/system/attack.service", "/usr/bin/attack", "/usr/lib/attack", "/root/attack",
	"/home/base/attack", "/boot/attack"}

// written tries to write everywhere, and returns where that went well.
func written(s *stage.Stage) []string {
	var paths []string
	for _, path := range coveted {
		if _, err := s.Exec("touch", path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

func TestTheImageWorksFromARootThatNobodyCanWriteTo(t *testing.T) {
	t.Parallel()
	s := image(t, true)
	whole := func(when string) {
		t.Helper()
		for _, unit := range []string{generation.FirewallUnit, generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit,
			"bitbox-base-system.service"} {
			s.WaitActive(unit)
		}
		if failed := s.MustExec("systemctl", "list-units", "--failed", "--no-legend", "--plain"); failed != "" {
			t.Errorf("%s these units have failed:\n%s", when, failed)
		}
		if log := s.Journal(); strings.Contains(strings.ToLower(log), "ordering cycle") {
			t.Errorf("%s units wait for each other in a ring:\n%s", when, log)
		}
		if paths := written(s); paths != nil {
			t.Errorf("%s root has written %q", when, paths)
		}
	}
	whole("after the first boot")
	before := etc(s)
	app := pair(t, s, s.Attacker(1))
	answers(t, s, app, "after the pairing")
	s.Reboot()
	whole("after a reboot")
	answers(t, s, app, "after a reboot")
	s.Kill()
	s.Start()
	whole("after a power cut")
	answers(t, s, app, "after a power cut")
	// systemd mounts another file over it at each boot of a container.
	if changed := changes(before, etc(s), "/etc/machine-id"); len(changed) != 0 {
		t.Errorf("something has changed /etc: %q", changed)
	}
	for _, path := range []string{"/var/may", "/tmp/may", "/run/may"} {
		s.MustExec("touch", path)
	}
}

// The attack above has a target: on a root that can be written to it wins.
func TestARootThatIsNotReadOnlyIsFoundOut(t *testing.T) {
	t.Parallel()
	if paths := written(image(t, false)); len(paths) != len(coveted) {
		t.Errorf("root could write only %q of %q", paths, coveted)
	}
}

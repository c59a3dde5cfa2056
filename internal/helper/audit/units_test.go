package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
)

const avahi = generation.MDNSUnit

func TestAUnitThatWasChangedIsFound(t *testing.T) {
	live := func(property, value string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			if f.units[avahi][property] == value {
				t.Fatalf("%s is %q already", property, value)
			}
			f.units[avahi][property] = value
		}
	}
	process := func(old, new string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			path := fmt.Sprintf("/proc/%d/status", f.units[avahi].Number("MainPID"))
			changed := strings.Replace(f.files[path], old, new, 1)
			if changed == f.files[path] {
				t.Fatalf("%q is not in the status", old)
			}
			f.files[path] = changed
		}
	}
	changed := []string{idUnitChanged}
	find(t, map[string]attack{
		"an addition":         {live("DropInPaths", "/etc/systemd/system/x.d/evil.conf"), changed},
		"another file":        {live("FragmentPath", "/etc/systemd/system/"+avahi), changed},
		"edited, not read":    {live("NeedDaemonReload", "yes"), changed},
		"may gain privileges": {live("NoNewPrivileges", "no"), changed},
		"a capability":        {live("CapabilityBoundingSet", "cap_sys_admin"), changed},
		"all capabilities":    {live("CapabilityBoundingSet", "cap_chown cap_sys_admin cap_net_admin"), changed},
		"more sockets":        {live("RestrictAddressFamilies", "af_inet af_inet6 af_netlink af_packet af_unix"), changed},
		"any sockets":         {live("RestrictAddressFamilies", "~"), changed},
		"root":                {live("User", "root"), changed},
		"writable system":     {live("ProtectSystem", "no"), changed},
		"no filter":           {live("SystemCallFilter", "~"), changed},
		"less hidden":         {live("InaccessiblePaths", "-/run/dbus"), changed},
		"all of /run":         {live("TemporaryFileSystem", ""), changed},
		"more of /run":        {live("BindPaths", "/run/avahi-daemon:/run/avahi-daemon:rbind /run/dbus:/run/dbus:rbind"), changed},
		"another place":       {live("BindReadOnlyPaths", "/run/systemd:/run/bitbox-base/announcement:rbind"), changed},
		"runs as root":        {process("Uid:\t101", "Uid:\t0"), changed},
		"has a capability":    {process("CapBnd:\t0000000000000000", "CapBnd:\t0000000000200000"), changed},
		"has no filter":       {process("Seccomp:\t2", "Seccomp:\t0"), changed},
		"can gain":            {process("NoNewPrivs:\t1", "NoNewPrivs:\t0"), changed},
		"the file":            {func(_ *testing.T, f *fake) { f.files[unitDirectory+avahi] += "\n" }, changed},
		"the file is gone":    {func(_ *testing.T, f *fake) { delete(f.files, unitDirectory+avahi) }, changed},
		"a template's file":   {func(_ *testing.T, f *fake) { f.files[unitDirectory+"bitbox-base-repair@.service"] = "" }, changed},
		"the unit is gone":    {func(_ *testing.T, f *fake) { delete(f.units, avahi) }, []string{idUnitChanged, idUnitStopped}},
		"stopped":             {live("ActiveState", "inactive"), []string{idUnitStopped}},
		"failed":              {live("ActiveState", "failed"), []string{idUnitStopped}},
	})
}

// systemd prints nothing where a unit may have no sockets, and "~" where it may have all.
func TestAUnitWithoutSocketsIsCompared(t *testing.T) {
	d := parseDefinition("[Service]\nRestrictAddressFamilies=none\n")
	for printed, same := range map[string]bool{"": true, "~": false, "AF_UNIX": false} {
		if found := d.compare(units.State{"RestrictAddressFamilies": printed}); (len(found) == 0) != same {
			t.Errorf("systemd prints %q: %q", printed, found)
		}
	}
}

// All units that have the Base's sandboxes are compared.
func TestEachServiceIsCompared(t *testing.T) {
	files, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Errorf("only %d units are known", len(files))
	}
	for name, text := range files {
		d := parseDefinition(text)
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		if d["NoNewPrivileges"] == nil || d["CapabilityBoundingSet"] == nil {
			t.Errorf("%s: its file was not understood: %v", name, d)
		}
		for property := range d {
			for _, prefix := range []string{"Protect", "Private", "Restrict", "Lock", "NoNew", "MemoryDeny"} {
				if strings.HasPrefix(property, prefix) && property != "RestartSec" &&
					!slices.Contains(plainProperties, property) && !slices.Contains(setProperties, property) {
					t.Errorf("%s sets %s, which the audit does not compare", name, property)
				}
			}
		}
	}
	for _, name := range alwaysActive {
		if files[name] == "" {
			t.Errorf("%s should always run and is none of ours", name)
		}
	}
}

func TestRepairsNameOnlyOurOwnUnits(t *testing.T) {
	f := base(t)
	f.units[avahi]["DropInPaths"] = "/etc/systemd/system/x.d/--help.conf"
	f.obeys = func(string) bool {
		f.units[avahi]["DropInPaths"] = ""
		return true
	}
	if err := Fix(context.Background(), f, factory(), idUnitChanged); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{systemctl + " revert " + avahi, systemctl + " daemon-reload", systemctl + " try-restart " + avahi} {
		if !slices.Contains(f.ran, command) {
			t.Errorf("%q was not run", command)
		}
	}
	for _, command := range f.ran {
		if strings.Contains(command, "--help") {
			t.Errorf("ran %q", command)
		}
	}
}

// A unit that an owner switched off by the table of services is no fault. A unit that nobody may
// switch off is one, even with a marker beside it.
func TestOnlyAServiceThatMayBeSwitchedOffMayBeStopped(t *testing.T) {
	off := func(unit, marker string) func(*testing.T, *fake) {
		return func(_ *testing.T, f *fake) {
			f.units[unit]["ActiveState"] = "inactive"
			f.stat[services.DisabledDirectory+"/"+marker] = File{}
		}
	}
	find(t, map[string]attack{
		"mdns is switched off": {off(generation.MDNSUnit, "mdns"), []string{}},
		"mdns has stopped": {func(_ *testing.T, f *fake) { f.units[generation.MDNSUnit]["ActiveState"] = "inactive" },
			[]string{idUnitStopped}},
		"a marker for the bans":  {off(generation.BansUnit, "fail2ban"), []string{idUnitStopped}},
		"a marker for the entry": {off(generation.ProxyUnit, "nginx"), []string{idUnitStopped}},
	})
}

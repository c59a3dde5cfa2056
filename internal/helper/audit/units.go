package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

// unitDirectory is where the package puts units. Debian's /lib is a link to /usr/lib, and systemd
// uses either name.
const unitDirectory = "/usr/lib/systemd/system/"

// Units beside those of internal/helper/generation.
const (
	systemUnit       = "bitbox-base-system.service"
	systemSocket     = "bitbox-base-system.socket"
	middlewareSocket = "bitbox-base-middleware.socket"
)

// alwaysActive are the units that must run. The Middleware is not among them: its socket starts
// it. The posture decides about SSH, and a machine may have no screen for the console.
var alwaysActive = []string{
	generation.FirewallUnit, systemSocket, systemUnit, middlewareSocket, generation.PortsUnit, generation.ProxyUnit, generation.BansUnit,
	generation.MDNSUnit,
}

// value is what a property of a unit's file is set to.
func value(u units.State, property string) string {
	if name, is := extended[property]; is {
		return u[name]
	}
	return u[property]
}

// Properties that are compared with a unit's file. In each, the file has the same text as systemd
// prints, except for the spelling of yes and no, and for sets.
var (
	plainProperties = []string{
		"DevicePolicy", "DynamicUser", "Group", "KeyringMode", "KillMode", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges",
		"PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateNetwork", "PrivatePIDs", "PrivateTmp", "PrivateUsers", "ProcSubset",
		"ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
		"ProtectKernelTunables", "ProtectProc", "ProtectSystem", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime",
		"RestrictSUIDSGID", "SystemCallArchitectures", "Type", "UMask", "User",
	}
	// extended are those of them that take more than yes and no. systemd prints their whole text
	// under another name, with "connected" for a private /tmp of the ordinary kind.
	extended      = map[string]string{"PrivateTmp": "PrivateTmpEx", "ProtectControlGroups": "ProtectControlGroupsEx"}
	setProperties = []string{
		"AmbientCapabilities", "CapabilityBoundingSet", "ExecPaths", "InaccessiblePaths", "NoExecPaths", "ReadOnlyPaths", "ReadWritePaths",
		"RestrictAddressFamilies", "SupplementaryGroups",
	}
	// mountProperties say what is mounted in the place of /run and others. systemd prints more
	// about each than a file says, see mounts.
	mountProperties = []string{"BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem"}
	// stateProperties are asked for as well.
	stateProperties = []string{"ActiveState", "DropInPaths", "FragmentPath", "LoadState", "MainPID", "NeedDaemonReload", "SystemCallFilter"}
)

// showUnits asks systemd for units, and returns them in the given order.
func showUnits(ctx context.Context, system System, names ...string) ([]units.State, error) {
	properties := strings.Join(slices.Concat(stateProperties, plainProperties, slices.Collect(maps.Values(extended)), setProperties,
		mountProperties), ",")
	output, err := ask(ctx, system, append([]string{systemctl, "show", "--no-pager", "-p", properties}, names...)...)
	if err != nil {
		return nil, err
	}
	states := units.Parse(output)
	if len(states) != len(names) {
		return nil, reason.Errorf("read the output of systemctl show: %d units instead of %d", len(states), len(names))
	}
	for i, u := range states {
		if u["LoadState"] == "" {
			return nil, reason.Errorf("read the output of systemctl show: it says nothing about %s", names[i])
		}
	}
	return states, nil
}

// definition is a unit's file: the values of its [Service] section, in order.
type definition map[string][]string

func parseDefinition(text string) definition {
	d := definition{}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if section != "[Service]" || !found || strings.HasPrefix(line, "#") {
			continue
		}
		if value == "" {
			d[key] = []string{} // an empty value empties a list
			continue
		}
		d[key] = append(d[key], value)
	}
	return d
}

// compare returns where the live unit differs from its definition.
func (d definition) compare(live units.State) []string {
	var found []string
	differs := func(property, want string) {
		found = append(found, fmt.Sprintf("%s is %q, not %q", property, value(live, property), want))
	}
	for _, property := range plainProperties {
		values, set := d[property]
		if !set || len(values) == 0 {
			continue
		}
		if want := values[len(values)-1]; yes(value(live, property)) != yes(want) {
			differs(property, want)
		}
	}
	for _, property := range setProperties {
		values, set := d[property]
		if !set {
			continue
		}
		want := strings.Join(values, " ")
		allowed := want
		if property == "RestrictAddressFamilies" && want == "none" {
			allowed = "" // as systemd prints it; "~" is what it prints when all are allowed
		}
		if !slices.Equal(members(live[property]), members(allowed)) {
			differs(property, want)
		}
	}
	for _, property := range mountProperties {
		if want := strings.Join(d[property], " "); !slices.Equal(mounts(live[property]), mounts(want)) {
			differs(property, want)
		}
	}
	// systemd prints the expanded list. A "~" at its beginning would mean a list of denied calls;
	// "~" alone means that nothing is denied.
	if filter := live["SystemCallFilter"]; len(d["SystemCallFilter"]) > 0 && (filter == "" || strings.HasPrefix(filter, "~")) {
		differs("SystemCallFilter", strings.Join(d["SystemCallFilter"], " "))
	}
	return found
}

func yes(value string) string {
	switch value {
	case "true", "on", "1", "connected":
		return "yes"
	case "false", "off", "0":
		return "no"
	}
	return value
}

func members(list string) []string {
	fields := strings.Fields(strings.ToLower(list))
	slices.Sort(fields)
	return slices.Compact(fields)
}

// mounts reads a list of mounts. A file says "/run" where systemd prints "/run:/run:rbind", and
// "/run" for "/run:".
func mounts(list string) []string {
	fields := strings.Fields(list)
	for i, field := range fields {
		field = strings.TrimSuffix(strings.TrimSuffix(field, ":rbind"), ":")
		if source, target, found := strings.Cut(field, ":"); found && strings.TrimPrefix(source, "-") == target {
			field = source
		}
		fields[i] = field
	}
	slices.Sort(fields)
	return fields
}

// compareProcess returns where the running process has more than its definition gives. A process
// that was started under another definition keeps those privileges.
func (d definition) compareProcess(s status, a accounts) []string {
	var found []string
	if names, set := d["CapabilityBoundingSet"]; set {
		extra := s.capabilities["CapBnd"] &^ capabilityMask(strings.Join(names, " "))
		if extra != 0 {
			found = append(found, fmt.Sprintf("its process has capabilities beyond those (%x)", extra))
		}
	}
	if v := d["NoNewPrivileges"]; len(v) > 0 && yes(v[len(v)-1]) == "yes" && !s.noNewPrivs {
		found = append(found, "its process may gain privileges")
	}
	if len(d["SystemCallFilter"]) > 0 && !s.seccomp {
		found = append(found, "its process has no filter of system calls")
	}
	user := "root"
	if v := d["User"]; len(v) > 0 {
		user = v[len(v)-1]
	}
	if uid, err := a.uid(user); err != nil || len(s.uids) != 4 ||
		slices.ContainsFunc(s.uids, func(u string) bool { return u != strconv.Itoa(uid) }) {
		found = append(found, fmt.Sprintf("its process runs as user %s, not %s", strings.Join(slices.Compact(s.uids), ","), user))
	}
	return found
}

// capabilities are those of linux/capability.h, by their number.
var capabilities = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
	net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource
	sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon
	bpf checkpoint_restore`)

func capabilityMask(names string) uint64 {
	var mask uint64
	for _, name := range members(names) {
		if i := slices.Index(capabilities, strings.TrimPrefix(name, "cap_")); i >= 0 {
			mask |= 1 << i
		}
	}
	return mask
}

// definitions returns the files of all our units by name, as they were built in.
func definitions() (map[string]string, error) {
	files := map[string]string{}
	err := fs.WalkDir(packaging.Units, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := packaging.Units.ReadFile(name)
		files[path.Base(name)] = string(content)
		return err
	})
	return files, err
}

// checkUnits compares our units with those built into this program: their files, what systemd
// read from them, and what their processes have. It also checks that they run.
func checkUnits(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	changed, err := changedUnits(ctx, system)
	if err != nil {
		return nil, err
	}
	stopped, err := stoppedUnits(ctx, system)
	if err != nil {
		return nil, err
	}
	var differences []difference
	if len(changed) > 0 {
		var found []string
		for _, name := range slices.Sorted(maps.Keys(changed)) {
			for _, line := range changed[name] {
				found = append(found, name+": "+line)
			}
		}
		differences = append(differences, difference{id: idUnitChanged, found: found})
	}
	if len(stopped) > 0 {
		differences = append(differences, difference{id: idUnitStopped, found: stopped})
	}
	return differences, nil
}

// changedUnits returns what is wrong, by unit.
func changedUnits(ctx context.Context, system System) (map[string][]string, error) {
	files, err := definitions()
	if err != nil {
		return nil, err
	}
	accounts, err := readAccounts(system)
	if err != nil {
		return nil, err
	}
	changed := map[string][]string{}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, err := system.ReadFile(unitDirectory + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			changed[name] = append(changed[name], "its file is missing")
		case err != nil:
			return nil, err
		case string(content) != files[name]:
			changed[name] = append(changed[name], "its file was changed")
		}
		// A template has no state of its own.
		if !strings.Contains(name, "@.") {
			names = append(names, name)
		}
	}
	states, err := showUnits(ctx, system, names...)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		live, d := states[i], parseDefinition(files[name])
		changed[name] = append(changed[name], compareOrigin(live, name)...)
		if strings.HasSuffix(name, ".service") {
			changed[name] = append(changed[name], d.compare(live)...)
		}
		if pid := live.Number("MainPID"); pid != 0 {
			text, err := system.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it has just ended
			}
			if err != nil {
				return nil, err
			}
			changed[name] = append(changed[name], d.compareProcess(parseStatus(string(text)), accounts)...)
		}
	}
	maps.DeleteFunc(changed, func(_ string, lines []string) bool { return len(lines) == 0 })
	return changed, nil
}

// compareOrigin tells whether systemd reads the unit from its file alone.
func compareOrigin(live units.State, name string) []string {
	var found []string
	if fragment := live["FragmentPath"]; fragment != unitDirectory+name && fragment != strings.TrimPrefix(unitDirectory, "/usr")+name {
		found = append(found, fmt.Sprintf("it is %s and comes from %q", live["LoadState"], fragment))
	}
	if dropIns := live["DropInPaths"]; dropIns != "" {
		found = append(found, "it has additions: "+dropIns)
	}
	if live["NeedDaemonReload"] == "yes" {
		found = append(found, "its file differs from what systemd has read")
	}
	return found
}

func stoppedUnits(ctx context.Context, system System) ([]string, error) {
	states, err := showUnits(ctx, system, alwaysActive...)
	if err != nil {
		return nil, err
	}
	var stopped []string
	for i, name := range alwaysActive {
		off, err := switchedOff(system, name)
		if err != nil {
			return nil, err
		}
		if state := states[i]["ActiveState"]; !off && state != "active" && state != "reloading" {
			stopped = append(stopped, name+" is "+printable(state))
		}
	}
	return stopped, nil
}

// switchedOff tells whether an App has switched a unit off for good, where the table of services
// allows that.
func switchedOff(system System, unit string) (bool, error) {
	service, managed := services.BuiltIn().OfUnit(unit)
	if !managed || !service.May(basev1.ServiceAction_SERVICE_ACTION_DISABLE) {
		return false, nil
	}
	_, err := system.Lstat(service.Marker())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// repairUnits restores those of our units that were changed.
func repairUnits(ctx context.Context, system System, want Expectation) error {
	changed, err := changedUnits(ctx, system)
	if err != nil {
		return err
	}
	return restoreUnits(slices.Sorted(maps.Keys(changed))...)(ctx, system, want)
}

// restoreUnits removes what was added to units, and restarts those that run. The names of the
// units come from our own list.
func restoreUnits(names ...string) func(context.Context, System, Expectation) error {
	return func(ctx context.Context, system System, _ Expectation) error {
		if _, err := ask(ctx, system, append([]string{systemctl, "revert"}, names...)...); err != nil {
			return err
		}
		if _, err := ask(ctx, system, systemctl, "daemon-reload"); err != nil {
			return err
		}
		for _, name := range names {
			argv := []string{systemctl, "try-restart", name}
			if name == systemUnit || name == systemSocket {
				// This is the unit that runs this code: it cannot wait for its own end.
				argv = []string{systemctl, "try-restart", "--no-block", name}
			}
			if _, err := ask(ctx, system, argv...); err != nil {
				return err
			}
		}
		return nil
	}
}

// startUnits starts the units that should run and do not.
func startUnits(ctx context.Context, system System, want Expectation) error {
	states, err := showUnits(ctx, system, alwaysActive...)
	if err != nil {
		return err
	}
	for i, name := range alwaysActive {
		if states[i]["ActiveState"] == "active" {
			continue
		}
		if err := restart(name)(ctx, system, want); err != nil {
			return err
		}
	}
	return nil
}

// Units does only the check of the units, and returns what is wrong, one line for each: for a new
// version that has to prove itself.
func Units(ctx context.Context, system System) ([]string, error) {
	differences, err := checkUnits(ctx, system, Expectation{})
	var found []string
	for _, d := range differences {
		found = append(found, d.found...)
	}
	return found, err
}

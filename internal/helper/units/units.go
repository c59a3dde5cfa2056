// Package units asks systemd for the units of services, and translates the answers into the words
// of the API.
package units

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// properties are what systemctl is asked for about each unit (org.freedesktop.systemd1(5)).
var properties = []string{
	"Id", "LoadState", "ActiveState", "SubState", "Type", "Result", "ExecMainStatus", "ExecMainExitTimestamp", "NRestarts", "MemoryCurrent",
	"StateChangeTimestamp", "ConditionResult", "ConditionTimestamp", "AssertResult", "AssertTimestamp", "Job",
}

// State has the properties of a unit by name, as systemd reports them.
type State map[string]string

// Manager is systemd.
type Manager interface {
	// Systemctl runs systemctl(1), and returns its output.
	Systemctl(ctx context.Context, arguments ...string) (string, error)
}

// askTime bounds the request.
const askTime = 30 * time.Second

// Show asks for all units at once, and returns them in the given order.
func Show(ctx context.Context, manager Manager, units ...string) ([]State, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	output, err := manager.Systemctl(ctx, slices.Concat(
		[]string{"show", "--no-pager", "--timestamp=unix", "--property=" + strings.Join(properties, ","), "--"}, units)...)
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "ask systemd for the services: %w", err)
	}
	states := Parse(output)
	if len(states) != len(units) {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "ask systemd for the services: it told of %d units, not %d", len(states),
			len(units))
	}
	return states, nil
}

// Parse reads the output of "systemctl show": lines "Property=value"; an empty line separates units.
func Parse(output string) []State {
	var units []State
	for block := range strings.SplitSeq(strings.TrimSpace(output), "\n\n") {
		u := State{}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			u[key] = value
		}
		units = append(units, u)
	}
	return units
}

// Number is 0 for a property that is not set.
func (u State) Number(property string) uint64 {
	n, _ := strconv.ParseUint(u[property], 10, 64)
	return n
}

// Time is absent if the property is not set ("@" and seconds since 1970).
func (u State) Time(property string) *timestamppb.Timestamp {
	seconds, err := strconv.ParseInt(strings.TrimPrefix(u[property], "@"), 10, 64)
	if err != nil || seconds <= 0 {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: seconds}
}

func (u State) oneshot() bool { return u["Type"] == "oneshot" }

func (u State) state() basev1.Service_State {
	switch u["ActiveState"] {
	case "active", "reloading", "refreshing":
		if u.oneshot() {
			return basev1.Service_STATE_DONE
		}
		return basev1.Service_STATE_RUNNING
	case "activating":
		return basev1.Service_STATE_STARTING
	case "deactivating":
		return basev1.Service_STATE_STOPPING
	case "failed":
		return basev1.Service_STATE_FAILED
	case "inactive":
		if u.oneshot() && u["ExecMainExitTimestamp"] != "" {
			return basev1.Service_STATE_DONE
		}
		return basev1.Service_STATE_STOPPED
	}
	return basev1.Service_STATE_UNSPECIFIED
}

// results are sentences for systemd's results of a service (systemd.exec(5), $SERVICE_RESULT).
var results = map[string]string{
	"protocol":        "it did not say that it is ready",
	"timeout":         "it took too long",
	"signal":          "a signal ended it",
	"core-dump":       "it crashed",
	"watchdog":        "it stopped answering",
	"start-limit-hit": "it was started too often in a short time",
	"oom-kill":        "memory ran out, and it was ended",
	"resources":       "systemd could not provide a resource that it needs",
}

// Reason says why the unit failed; empty if it did not.
func (u State) Reason() string {
	result := u["Result"]
	switch {
	case u["LoadState"] == "not-found":
		return "its unit is not installed"
	case u["LoadState"] != "" && u["LoadState"] != "loaded":
		return "its unit cannot be used (" + harmless.Line(u["LoadState"]) + ")"
	case u["ActiveState"] != "failed" && u["SubState"] != "auto-restart", result == "success", result == "":
		return ""
	case result == "exit-code":
		return fmt.Sprintf("it ended with status %d", u.Number("ExecMainStatus"))
	case results[result] != "":
		return results[result]
	}
	return harmless.Line(result)
}

// Describe is the API's description of a service.
func Describe(s services.Service, u State, disabled bool) *basev1.Service {
	service := &basev1.Service{
		Name: s.Name, Description: s.Description, State: u.state(), Since: u.Time("StateChangeTimestamp"),
		Restarts: uint32(min(u.Number("NRestarts"), 1<<31)), Enabled: !disabled && !s.OnDemand, Actions: s.Actions, Reason: u.Reason(),
	}
	// "[not set]" without accounting, and the largest number without a limit.
	if memory, err := strconv.ParseUint(u["MemoryCurrent"], 10, 63); err == nil {
		service.MemoryBytes = &memory
	}
	return service
}

// Refused tells whether a condition or an assertion kept the unit from starting when that was last
// tried. systemd forgets a stopped unit that no other one refers to. When it is asked again, it
// says "no" for what it has not checked: only a check has a time.
func (u State) Refused() bool {
	return u["ConditionResult"] == "no" && u.Time("ConditionTimestamp") != nil ||
		u["AssertResult"] == "no" && u.Time("AssertTimestamp") != nil
}

// Queued tells whether systemd has still to do something with the unit, such as starting it.
func (u State) Queued() bool { return u.Number("Job") != 0 }

// Busy tells whether the unit is running, starting or stopping.
func (u State) Busy() bool {
	switch u["ActiveState"] {
	case "active", "activating", "deactivating", "reloading":
		return true
	}
	return false
}

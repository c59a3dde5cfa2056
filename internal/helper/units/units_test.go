package units

import (
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
)

// Recorded from systemd 252: `systemctl show --timestamp=unix` with properties.
const shown = `Type=exec
Result=success
NRestarts=2
ExecMainExitTimestamp=
ExecMainStatus=0
MemoryCurrent=7340032
Id=bitbox-base-nginx.service
LoadState=loaded
ActiveState=active
SubState=running
StateChangeTimestamp=@1795723082
ConditionResult=yes

Type=oneshot
Result=success
NRestarts=0
ExecMainExitTimestamp=@1795723082
ExecMainStatus=0
MemoryCurrent=[not set]
Id=bitbox-base-firewall.service
LoadState=loaded
ActiveState=active
SubState=exited
StateChangeTimestamp=@1795723082
ConditionResult=yes

Type=
Result=success
NRestarts=0
ExecMainExitTimestamp=
ExecMainStatus=0
MemoryCurrent=18446744073709551615
Id=nosuch.service
LoadState=not-found
ActiveState=inactive
SubState=dead
StateChangeTimestamp=
ConditionResult=no

Type=simple
Result=exit-code
NRestarts=5
ExecMainExitTimestamp=@1795723090
ExecMainStatus=3
MemoryCurrent=[not set]
Id=electrs.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
StateChangeTimestamp=@1795723091
ConditionResult=yes

Type=simple
Result=oom-kill
NRestarts=5
ExecMainExitTimestamp=@1795723090
ExecMainStatus=9
MemoryCurrent=[not set]
Id=bitcoind.service
LoadState=loaded
ActiveState=failed
SubState=failed
StateChangeTimestamp=@1795723091
ConditionResult=yes
`

func TestTheOutputOfSystemctlIsParsed(t *testing.T) {
	units := Parse(shown)
	if len(units) != 5 {
		t.Fatalf("%d units", len(units))
	}
	for i, want := range []struct {
		state    basev1.Service_State
		since    int64
		memory   uint64
		restarts uint32
		reason   string
	}{
		{basev1.Service_STATE_RUNNING, 1795723082, 7340032, 2, ""},
		{basev1.Service_STATE_DONE, 1795723082, 0, 0, ""},
		{basev1.Service_STATE_STOPPED, 0, 0, 0, "its unit is not installed"},
		{basev1.Service_STATE_STARTING, 1795723091, 0, 5, "it ended with status 3"},
		{basev1.Service_STATE_FAILED, 1795723091, 0, 5, "memory ran out, and it was ended"},
	} {
		s := Describe(services.Service{Name: "x"}, units[i], false)
		if s.GetState() != want.state || s.GetSince().GetSeconds() != want.since || s.GetMemoryBytes() != want.memory ||
			(s.MemoryBytes == nil) != (want.memory == 0) ||
			s.GetRestarts() != want.restarts || s.GetReason() != want.reason || (s.GetSince() == nil) != (want.since == 0) {
			t.Errorf("unit %d: %v", i, s)
		}
	}
}

func FuzzAnswersOfSystemctl(f *testing.F) {
	f.Add(shown)
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range Parse(text) {
			Describe(services.Service{}, u, false)
		}
	})
}

// A unit that was loaded a moment ago says "no" as well.
func TestOnlyWhatWasCheckedIsARefusal(t *testing.T) {
	for text, refused := range map[string]bool{
		"ConditionResult=no\nConditionTimestamp=\nAssertResult=no\nAssertTimestamp=":            false,
		"ConditionResult=yes\nConditionTimestamp=@5\nAssertResult=yes\nAssertTimestamp=@5":      false,
		"ConditionResult=no\nConditionTimestamp=@1795723082\nAssertResult=no\nAssertTimestamp=": true,
		"ConditionResult=yes\nConditionTimestamp=@5\nAssertResult=no\nAssertTimestamp=@5":       true,
	} {
		if got := Parse(text)[0].Refused(); got != refused {
			t.Errorf("%q: refused %v", text, got)
		}
	}
}

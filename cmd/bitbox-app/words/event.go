package words

import (
	"fmt"
	"slices"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Event describes an event, and what is missing.
func (l Language) Event(event *basev1.Event) string {
	text := l.event(event)
	var missing []string
	if n := event.GetLeftOut(); n > 0 {
		missing = append(missing, l.Say("events.leftout", n))
	}
	if n := event.GetCut(); n > 0 {
		missing = append(missing, l.Say("events.cut", n))
	}
	if len(missing) > 0 {
		text += " (" + strings.Join(missing, " ") + ")"
	}
	return text
}

// event is the one place that knows each kind of event.
func (l Language) event(event *basev1.Event) string {
	switch e := event.GetEvent().(type) {
	case *basev1.Event_Subscribed:
		return l.Say("events.watching")
	case *basev1.Event_AppPaired:
		return l.Say("events.paired", appName(e.AppPaired.GetApp()), l.Role(e.AppPaired.GetApp().GetRole()))
	case *basev1.Event_AppRenamed:
		return l.Say("events.renamed", appName(e.AppRenamed.GetApp()))
	case *basev1.Event_AppRevoked:
		return l.Say("events.revoked", appName(e.AppRevoked.GetApp()))
	case *basev1.Event_AppRoleChanged:
		app := e.AppRoleChanged.GetApp()
		return l.Say("events.role", appName(app), l.Role(app.GetRole()), l.Role(e.AppRoleChanged.GetBefore()))
	case *basev1.Event_SessionStarted:
		return l.Say("events.connected", appName(e.SessionStarted.GetApp()))
	case *basev1.Event_SessionEnded:
		return l.Say("events.disconnected", appName(e.SessionEnded.GetApp()))
	case *basev1.Event_WindowChanged:
		return l.Window(e.WindowChanged.GetWindow())
	case *basev1.Event_PairingAttempt:
		return l.attempt(e.PairingAttempt)
	case *basev1.Event_PostureChanged:
		return l.postureChanged(e.PostureChanged)
	case *basev1.Event_DriftFound:
		return l.Say("events.findings", list(e.DriftFound.GetFindings(), func(f *basev1.Finding) string {
			return l.Within(l.Finding(f).Title) + " (" + f.GetId() + ")"
		}))
	case *basev1.Event_BansChanged:
		return l.bans(e.BansChanged)
	case *basev1.Event_ApplyFailed:
		return l.Say("events.applyfailed", l.Cited(e.ApplyFailed.GetReason()))
	}
	return l.machineEvent(event)
}

// machineEvent describes an event of the machine.
func (l Language) machineEvent(event *basev1.Event) string {
	switch e := event.GetEvent().(type) {
	case *basev1.Event_ServiceFailed:
		return l.because(l.Say("events.failed", e.ServiceFailed.GetService().GetName()), e.ServiceFailed.GetReason())
	case *basev1.Event_ServiceRecovered:
		return l.Say("events.recovered", e.ServiceRecovered.GetService().GetName())
	case *basev1.Event_DiskFilling:
		return l.Say("events.filling", l.Size(e.DiskFilling.GetAvailableBytes()), l.Size(e.DiskFilling.GetTotalBytes()))
	case *basev1.Event_UpdateWaiting:
		return l.Say("events.debian", strings.Join(e.UpdateWaiting.GetPackages(), ", "))
	case *basev1.Event_UpdateEnded:
		u := e.UpdateEnded
		if u.GetInstalled() {
			return l.Say("events.updated", u.GetFromVersion(), u.GetToVersion())
		}
		return l.because(l.Say("events.undone", u.GetToVersion(), u.GetFromVersion()), u.GetReason())
	case *basev1.Event_BaseStarted:
		text := l.Say("events.started", e.BaseStarted.GetSoftwareVersion())
		if e.BaseStarted.GetBooted() {
			text = l.Say("events.booted", e.BaseStarted.GetSoftwareVersion())
		}
		if e.BaseStarted.GetCutOff() {
			text += " " + l.Say("events.cutoff")
		}
		return text
	case *basev1.Event_EventsMissed:
		if e.EventsMissed.Count == nil {
			return l.Say("events.missing")
		}
		return l.Say("events.missed", e.EventsMissed.GetCount())
	case *basev1.Event_MachineStopping:
		return l.stopping(e.MachineStopping)
	}
	return l.nodeEvent(event)
}

// nodeEvent describes an event of the node and its disk.
func (l Language) nodeEvent(event *basev1.Event) string {
	switch e := event.GetEvent().(type) {
	case *basev1.Event_NodeStopped:
		return l.because(l.Say("events.node.stopped"), e.NodeStopped.GetReason())
	case *basev1.Event_NodeBehind:
		n := e.NodeBehind
		if n.GetLostBlocks() > 0 {
			return l.Say("events.node.lost", n.GetHeight(), n.GetTarget(), n.GetLostBlocks())
		}
		return l.Say("events.node.behind", n.GetHeight(), n.GetTarget())
	case *basev1.Event_NodeCaughtUp:
		return l.Say("events.node.current", l.Network(e.NodeCaughtUp.GetNetwork()), e.NodeCaughtUp.GetHeight())
	case *basev1.Event_NodeLonely:
		return l.Say("events.node.lonely", e.NodeLonely.GetMinutes())
	case *basev1.Event_ChainReorganised:
		r := e.ChainReorganised
		return l.Say("events.reorganised", r.GetDepth(), r.GetNow(), r.GetHeight(), r.GetBefore())
	case *basev1.Event_NodeDiskFilling:
		return l.Say("events.node.filling", l.Duration(e.NodeDiskFilling.GetFullSeconds()), l.Size(e.NodeDiskFilling.GetAvailableBytes()))
	case *basev1.Event_DiskTrouble:
		return l.Say("events.disk", l.Cited(client.Printable(e.DiskTrouble.GetTrouble())))
	case *basev1.Event_NodeEventsMissed:
		if e.NodeEventsMissed.Count == nil {
			return l.Say("events.node.missing")
		}
		return l.Say("events.node.missed", e.NodeEventsMissed.GetCount())
	case *basev1.Event_NodeUnmaintained:
		return l.Say("events.node.unmaintained", e.NodeUnmaintained.GetSoftware(), e.NodeUnmaintained.GetVersion())
	}
	return l.Say("events.unknown")
}

// Window says whether the pairing window is open, for whom and for how long.
func (l Language) Window(w *basev1.Window) string {
	if !w.GetOpen() {
		return l.Say("events.window.closed")
	}
	left := l.Duration((w.GetRemainingMs() + 999) / 1000)
	if w.GetRole() == basev1.Role_ROLE_UNSPECIFIED {
		return l.Say("events.window.open", left)
	}
	return l.Say("events.window.role", l.ARole(w.GetRole()), left)
}

// ARole is a role with its article, such as "a viewer", where somebody lets one in.
func (l Language) ARole(role basev1.Role) string {
	return l.known("values.a."+role.Name(), l.Role(role))
}

// postureChanged describes a change of how open the Base is. An older Base writes its changes in English alone,
// and a newer one those that this App does not know.
func (l Language) postureChanged(e *basev1.PostureChangedEvent) string {
	changes, said := slices.Clone(e.GetChanges()), make([]bool, len(e.GetChanges()))
	for n, difference := range e.GetDifferences() {
		if change, known := posture.ReadChange(difference); known && len(e.GetDifferences()) == len(changes) {
			changes[n] = l.Told(change).Text
			said[n] = true
		}
	}
	for n, text := range changes {
		if !said[n] {
			changes[n] = l.Within(Text{strings.TrimSuffix(text, "."), English.Tag}) + "."
		}
	}
	text := strings.TrimSuffix(strings.Join(changes, " "), ".")
	by := ""
	if e.GetBy() != "" {
		by = l.Cited(e.GetBy())
	}
	if e.GetApp() != nil {
		by = l.app(e.GetApp())
	}
	if by != "" {
		text = l.Say("events.by", text, by)
	}
	if e.GetNote() != "" {
		text += " (" + l.Cited(e.GetNote()) + ")"
	}
	return text + "."
}

// appName is the name of an App and its id.
func appName(app *basev1.App) string { return fmt.Sprintf("%q (%s)", app.GetName(), app.GetId()) }

// app is the name of an App and its id; a Base may know only the id.
func (l Language) app(app *basev1.App) string {
	if app.GetName() == "" {
		return l.Say("events.app", app.GetId())
	}
	return appName(app)
}

// because adds a reason to a sentence, if there is one.
func (l Language) because(sentence, reason string) string {
	if reason = strings.TrimRight(reason, "."); reason != "" {
		sentence += ": " + l.Cited(reason)
	}
	return sentence + "."
}

func (l Language) attempt(e *basev1.PairingAttemptEvent) string {
	text := l.Say("events.attempt")
	if n := e.GetRequests(); n > 1 {
		text = l.Say("events.attempts", n)
	}
	if e.GetIgnored() {
		return l.Say("events.ignored", text)
	}
	return text + "."
}

func (l Language) stopping(e *basev1.MachineStoppingEvent) string {
	by := l.Say("events.somebody")
	if e.GetBy() != nil {
		by = l.app(e.GetBy())
	}
	if e.GetPowerOff() {
		return l.Say("events.poweroff", by)
	}
	return l.Say("events.restart", by)
}

func (l Language) bans(e *basev1.BansChangedEvent) string {
	address := func(ban *basev1.Ban) string { return ban.GetAddress() + " (" + ban.GetJail() + ")" }
	var parts []string
	if len(e.GetBanned()) > 0 {
		parts = append(parts, l.Say("events.banned", list(e.GetBanned(), address)))
	}
	if len(e.GetLifted()) > 0 {
		parts = append(parts, l.Say("events.lifted", list(e.GetLifted(), address)))
	}
	return strings.Join(parts, " ")
}

func list[T any](all []T, text func(T) string) string {
	var texts []string
	for _, one := range all {
		texts = append(texts, text(one))
	}
	return strings.Join(texts, ", ")
}

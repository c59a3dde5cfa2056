package pages

import (
	"net/url"
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// serviceView is a service in the table of services.
type serviceView struct {
	Name, About, State, Class, Since, Memory, Restarts, Boot, Logs string
	Reason                                                         words.Text

	Buttons []button
}

// servicesView is the table.
type servicesView struct {
	Services []serviceView
	// Operates: this App may change services and read their logs.
	Operates bool
}

// serviceActions are what a page offers, in order. Which of them a service allows is decided by
// the Base's table.
var serviceActions = []struct {
	action     basev1.ServiceAction
	deed       owner.DeedKind
	key, class string
	// fits tells whether the action makes a difference to a service as it is.
	fits func(runs, enabled bool) bool
}{
	{basev1.ServiceAction_SERVICE_ACTION_START, owner.StartService, "services.start", "", func(runs, _ bool) bool { return !runs }},
	{basev1.ServiceAction_SERVICE_ACTION_RESTART, owner.RestartService, "services.restart", "", func(runs, _ bool) bool { return runs }},
	{basev1.ServiceAction_SERVICE_ACTION_STOP, owner.StopService, "services.stop", "danger", func(runs, _ bool) bool { return runs }},
	{basev1.ServiceAction_SERVICE_ACTION_ENABLE, owner.EnableService, "services.enable", "",
		func(_, enabled bool) bool { return !enabled }},
	{basev1.ServiceAction_SERVICE_ACTION_DISABLE, owner.DisableService, "services.disable", "danger",
		func(_, enabled bool) bool { return enabled }},
}

// serviceStates are the sentence and the colour of each state.
var serviceStates = map[basev1.Service_State]struct{ key, class string }{
	basev1.Service_STATE_RUNNING:  {"services.state.running", "good"},
	basev1.Service_STATE_STOPPED:  {"services.state.stopped", ""},
	basev1.Service_STATE_STARTING: {"services.state.starting", "warn"},
	basev1.Service_STATE_STOPPING: {"services.state.stopping", "warn"},
	basev1.Service_STATE_FAILED:   {"services.state.failed", "bad"},
	basev1.Service_STATE_DONE:     {"services.state.done", ""},
}

// servicesPage are the services, and their logs.
func (v *view) servicesPage() []Part {
	parts := []Part{v.heading(v.say("services.title"), v.say("services.lead")), v.part("services.list", "wide", v.servicesTable())}
	if v.operates() {
		parts = append(parts, v.form("services.which", "wide", v.whichLogs()), v.part("services.logs", "wide", v.logs()))
	}
	return parts
}

// servicesWants asks for logs once a person has chosen one.
func servicesWants(v *view) []owner.Want {
	if service := v.query.Get("service"); service != "" && v.operates() {
		return []owner.Want{{Part: owner.Logs, Subject: service}}
	}
	return nil
}

func (v *view) servicesTable() servicesView {
	shown := servicesView{Operates: v.operates()}
	for _, s := range v.base.Look.Services {
		state, known := serviceStates[s.GetState()]
		if !known {
			state.key = "services.state.unknown"
		}
		one := serviceView{Name: s.GetName(), About: v.language.ServiceAbout(s), State: v.say(state.key), Class: state.class,
			Reason: v.language.ByBase(s.GetReason()),
			Boot:   v.say("services.boot.no"), Logs: addressOf(v.base, "services") + "?service=" + url.QueryEscape(s.GetName()) + "#logs"}
		if s.GetSince() != nil {
			one.Since = v.language.When(s.GetSince().AsTime(), v.now)
		}
		if s.MemoryBytes != nil {
			one.Memory = v.language.Size(s.GetMemoryBytes())
		}
		if n := s.GetRestarts(); n > 0 {
			one.Restarts = v.language.Count("services.restarts", int(n))
		}
		if s.GetEnabled() {
			one.Boot = v.say("services.boot.yes")
		}
		if shown.Operates {
			one.Buttons = v.serviceButtons(s)
		}
		shown.Services = append(shown.Services, one)
	}
	return shown
}

func (v *view) serviceButtons(s *basev1.Service) (buttons []button) {
	runs := s.GetState() == basev1.Service_STATE_RUNNING || s.GetState() == basev1.Service_STATE_STARTING
	for _, a := range serviceActions {
		if slices.Contains(s.GetActions(), a.action) && a.fits(runs, s.GetEnabled()) {
			text := v.say(a.key)
			buttons = append(buttons, button{Action: v.do(a.deed), Fields: []fact{{"service", s.GetName()}}, Text: text,
				Label: v.say("services.act.label", text, s.GetName()), Class: a.class})
		}
	}
	return buttons
}

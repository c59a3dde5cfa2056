package pages

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// peopleView are the paired Apps.
type peopleView struct {
	Apps  table
	Roles []fact
	Owns  bool
}

// roles are those of an App, the least first.
var roles = []basev1.Role{basev1.Role_ROLE_VIEWER, basev1.Role_ROLE_OPERATOR, basev1.Role_ROLE_OWNER}

// peoplePage are the paired Apps, and what an owner may do about them.
func (v *view) peoplePage() []Part {
	parts := []Part{v.heading(v.say("people.title"), v.say("people.lead")), v.part("people.list", "wide", v.people()),
		v.part("people.window", "wide", v.window())}
	if v.owns() {
		parts = append(parts, v.form("people.invite", "", v.invite()), v.form("people.accept", "", v.invite()))
		change := v.change()
		if len(change.Others) > 0 && v.base.Look.Access != nil {
			parts = append(parts, v.form("people.role", "", change))
		}
		if len(change.Others) > 0 {
			parts = append(parts, v.form("people.revoke", "", change))
		}
		parts = append(parts, v.form("people.rename", "", change))
	}
	return parts
}

// people are the paired Apps.
func (v *view) people() peopleView {
	shown := peopleView{Owns: v.owns(), Apps: table{Caption: v.say("people.caption"),
		Head: v.says("people.name", "people.role", "people.seen", "people.from", "people.paired", "people.id")}}
	for _, app := range v.base.Look.Apps {
		seen := v.say("people.never")
		switch {
		case app.GetIsCaller():
			seen = v.say("people.this")
		case app.GetSessions() > 0:
			seen = v.say("people.now")
		case app.GetLastSeenAt() != nil:
			seen = v.language.When(app.GetLastSeenAt().AsTime(), v.now)
		}
		paired := ""
		if app.GetPairedAt() != nil {
			paired = v.language.When(app.GetPairedAt().AsTime(), v.now)
		}
		shown.Apps.Rows = append(shown.Apps.Rows,
			[]string{app.GetName(), v.language.Role(app.GetRole()), seen, app.GetLastAddress(), paired, app.GetId()})
	}
	for _, role := range roles {
		shown.Roles = append(shown.Roles, fact{v.language.Role(role), v.say("people.roles." + role.Name())})
	}
	return shown
}

// windowView is the pairing window.
type windowView struct {
	Open    bool
	Until   deadline
	Role    string
	Buttons []button
}

func (v *view) window() windowView {
	w := v.base.Look.Window
	shown := windowView{Open: w.GetOpen()}
	if !shown.Open {
		return shown
	}
	left := time.Duration(w.GetRemainingMs()) * time.Millisecond
	shown.Until = deadline{v.base.At.Add(left), v.say("people.window")}
	if w.GetRole() != basev1.Role_ROLE_UNSPECIFIED {
		shown.Role = v.say("people.window.role", v.language.Role(w.GetRole()))
	}
	if v.owns() {
		shown.Buttons = []button{{Action: v.do(owner.CloseWindow), Text: v.say("people.window.close")}}
	}
	return shown
}

// inviteView are the forms with which an owner lets a person in.
type inviteView struct {
	Window, Accept     string
	WindowRoles, Roles []choice
}

func (v *view) invite() inviteView {
	shown := inviteView{Window: v.do(owner.OpenWindow), Accept: v.do(owner.AcceptApp), Roles: v.roleChoices(basev1.Role_ROLE_VIEWER)}
	shown.WindowRoles = append([]choice{{Text: v.say("people.window.any")}}, v.roleChoices(basev1.Role_ROLE_UNSPECIFIED)...)
	return shown
}

func (v *view) roleChoices(chosen basev1.Role) (all []choice) {
	for _, role := range roles {
		all = append(all, choice{role.Name(), v.language.Role(role), role == chosen})
	}
	return all
}

// changeAppsView are the forms with which an owner changes Apps.
type changeAppsView struct {
	Role, Rename, Revoke string
	// Others are all Apps but this one.
	Others, Everybody, Roles []choice
}

func (v *view) change() changeAppsView {
	shown := changeAppsView{Role: v.do(owner.SetRole), Rename: v.do(owner.RenameApp), Revoke: v.do(owner.Revoke),
		Roles: v.roleChoices(basev1.Role_ROLE_VIEWER)}
	for _, app := range v.base.Look.Apps {
		one := choice{Value: app.GetId(), Text: app.GetName() + " (" + app.GetId() + ")"}
		shown.Everybody = append(shown.Everybody, one)
		if !app.GetIsCaller() {
			shown.Others = append(shown.Others, one)
		}
	}
	return shown
}

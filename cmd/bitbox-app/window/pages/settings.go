package pages

import (
	"strconv"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// windowSettings are those of this window.
type windowSettings struct {
	Action, Base    string // Base: the id of the one whose page it is, to come back to it
	Languages, Idle []choice
}

// idles are the minutes that a person may choose.
var idles = []int{5, 15, 30, 60}

// settingsPage are the settings of this window and of this App.
func (v *view) settingsPage() []Part {
	parts := []Part{v.heading(v.say("settings.title"), ""), v.form("settings.window", "", v.windowSettings()),
		v.form("settings.app", "", v.appSettings()), v.form("settings.forget", "", v.do(owner.Forget))}
	if v.owns() && v.base.Look.Access != nil {
		parts = append(parts, v.form("settings.reset", "", v.do(owner.FactoryReset)))
	}
	return parts
}

func (v *view) windowSettings() windowSettings {
	shown := windowSettings{Action: "/settings", Base: v.base.ID()}
	for _, l := range words.Languages() {
		shown.Languages = append(shown.Languages, choice{l.Tag, l.Name, l.Tag == v.language.Tag})
	}
	chosen := false
	for _, n := range idles {
		now := time.Duration(n)*time.Minute == v.idle
		chosen = chosen || now
		shown.Idle = append(shown.Idle, choice{strconv.Itoa(n), v.say("settings.minutes", n), now})
	}
	if !chosen { // without a value it stays as it is
		shown.Idle = append(shown.Idle, choice{Text: v.language.Length(v.idle), Chosen: true})
	}
	return shown
}

// appSettings are those of this App at a Base.
type appSettings struct {
	Facts                   []fact
	Owns                    bool
	Rename, ID, Label, Name string
}

// role is what this App may do at the Base. While the Base does not answer, it has its time.
func (v *view) role() string {
	role := v.language.Role(v.base.RoleNow())
	if at := v.base.RoleAsOf(); !at.IsZero() {
		return v.say("settings.app.role.then", role, v.language.When(at, v.now))
	}
	return role
}

func (v *view) appSettings() appSettings {
	b := v.base
	return appSettings{Owns: v.owns(), Rename: v.do(owner.RenameApp), ID: b.AppID, Name: b.AppName,
		Label: v.say("settings.app.name", b.Name),
		Facts: []fact{{v.say("settings.app.role"), v.role()}, {v.say("settings.app.id"), b.AppID}}}
}

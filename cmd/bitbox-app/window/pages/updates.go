package pages

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// updatesView is what runs, and the last update.
type updatesView struct {
	Under   *underView
	Problem *words.Text
	Facts   []fact
	Pending []string
	Buttons []button
}

// underView is an update that is under way.
type underView struct{ Text, Step string }

// updatePhases are the sentences of the phases.
var updatePhases = map[basev1.Update_Phase]string{
	basev1.Update_PHASE_STAGED: "updates.phase.staged", basev1.Update_PHASE_INSTALLING: "updates.phase.installing",
	basev1.Update_PHASE_CHECKING: "updates.phase.checking", basev1.Update_PHASE_UNDOING: "updates.phase.undoing",
	basev1.Update_PHASE_DONE: "updates.phase.done", basev1.Update_PHASE_UNDONE: "updates.phase.undone",
	basev1.Update_PHASE_FAILED: "updates.phase.failed",
}

// updatesPage is what runs, and how something newer gets there.
func (v *view) updatesPage() []Part {
	parts := []Part{v.heading(v.say("updates.title"), v.say("updates.lead")), v.part("updates.now", "wide", v.updates()),
		v.part("updates.newer", "", v.newer()),
		v.form("updates.list", "", v.do(owner.CheckReleases))}
	if v.owns() && v.answered(owner.Software, "").Update.GetTakesUpdates() {
		parts = append(parts, v.form("updates.file", "", v.do(owner.Install)))
	}
	return parts
}

func updatesWants(*view) []owner.Want { return []owner.Want{{Part: owner.Software}} }

// newerView is a release that this App knows of.
type newerView struct {
	New, Hole, Changes string
	Note               string
	// Do are the buttons that bring it, and File what they download, with its size.
	Do   []button
	File string
	// None says what is known without one; empty: the Base has not answered yet. From says where the
	// last list is from.
	None, From string
}

func (v *view) newer() newerView {
	answer := v.answered(owner.Software, "")
	shown, newer := newerView{}, answer.Newer
	if answer.ListFrom != "" {
		shown.From = v.say("updates.list.from", answer.ListFrom)
	}
	switch {
	case answer.Update == nil:
		return shown
	case newer == nil && answer.ListFrom == "":
		shown.None = v.say("updates.list.never")
		return shown
	case newer == nil:
		shown.None = v.say("updates.list.none")
		return shown
	}
	shown.New, shown.Changes = v.say("updates.new", newer.Version), newer.Changes
	switch {
	case !v.owns():
		shown.Note = v.say("updates.owners")
	case answer.Update.GetTakesUpdates():
		name, size := newer.File()
		shown.File = v.say("updates.new.file", name, v.language.Size(size))
		shown.Do = []button{{Action: v.do(owner.InstallNewer), Text: v.say("updates.new.do"), Class: "primary"}}
	}
	if newer.ClosesHole {
		shown.Hole = v.say("updates.new.hole")
	}
	return shown
}

// updates is what runs now, and the last update.
func (v *view) updates() updatesView {
	answer := v.answered(owner.Software, "")
	s := answer.Update
	shown := updatesView{Problem: v.problem(answer.Err)}
	if s == nil {
		return shown
	}
	add := func(key, text string) { shown.Facts = append(shown.Facts, fact{v.say(key), text}) }
	add("updates.installed", s.GetInstalledVersion())
	if s.GetImage() {
		other := s.GetOtherVersion()
		if other == "" {
			other = v.say("updates.other.none")
		}
		add("updates.other", other)
	}
	add("updates.last", v.lastUpdate(s.GetUpdate()))
	if reason := s.GetUpdate().GetReason(); reason != "" {
		add("updates.reason", v.language.Cited(reason))
	}
	add("updates.debian", v.debianText(s))
	if !s.GetTakesUpdates() {
		add("updates.byapp", v.say("updates.no"))
	}
	if !s.GetImage() && s.GetDebianUnknown() == "" {
		shown.Pending = owner.Most(s.GetDebianWaiting())
		if len(shown.Pending) > 0 && v.operates() {
			shown.Buttons = append(shown.Buttons, button{Action: v.do(owner.DebianUpdates), Text: v.say("updates.debian.do")})
		}
	}
	if s.GetOtherVersion() != "" && v.owns() {
		shown.Buttons = append(shown.Buttons, button{Action: v.do(owner.PreviousVersion), Text: v.say("updates.back", s.GetOtherVersion()),
			Class: "danger"})
	}
	if u := s.GetUpdate(); u != nil && u.GetEndedAt() == nil {
		shown.Under = &underView{Text: v.phaseText(u), Step: v.language.Cited(u.GetStep())}
		if u.GetAwaitsApp() {
			shown.Under.Step = v.say("updates.awaits")
		}
	}
	return shown
}

// debianText is about Debian's own updates.
func (v *view) debianText(s *basev1.GetUpdateResponse) string {
	switch waiting := len(s.GetDebianWaiting()); {
	case s.GetImage():
		return v.say("updates.debian.image")
	case s.GetDebianUnknown() != "":
		return v.say("updates.debian.unknown", v.language.Cited(s.GetDebianUnknown()))
	case waiting > 0:
		return v.language.Count("updates.debian", waiting)
	}
	return v.say("updates.debian.none")
}

func (v *view) phaseText(u *basev1.Update) string {
	key, known := updatePhases[u.GetPhase()]
	if !known {
		key = "updates.phase.unknown"
	}
	return v.say(key)
}

func (v *view) lastUpdate(u *basev1.Update) string {
	if u == nil {
		return v.say("updates.last.none")
	}
	return v.say("updates.last.what", u.GetFromVersion(), u.GetToVersion(), v.language.When(u.GetBeganAt().AsTime(), v.now), v.phaseText(u))
}

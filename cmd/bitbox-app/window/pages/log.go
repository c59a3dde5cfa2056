package pages

import (
	"slices"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

// maxChanges is how many entries a page lists.
const maxChanges = 200

// logView is the log of changes.
type logView struct {
	// Known: it was read and checked. Problem says why it is not believed, or not known.
	Known, Missed bool
	Problem       *words.Text
	Last          string
	Changes       table
}

// logPage is the log of changes.
func (v *view) logPage() []Part {
	return []Part{v.heading(v.say("log.title"), v.say("log.lead")), v.part("log.checked", "wide", v.log())}
}

func logWants(*view) []owner.Want { return []owner.Want{{Part: owner.Changes}} }

func (v *view) log() logView {
	answer := v.answered(owner.Changes, "")
	view := answer.Changes
	if view == nil || answer.Err != nil {
		return logView{Problem: v.problem(answer.Err)}
	}
	shown := logView{Known: true, Missed: view.Missed, Changes: v.changesTable(view)}
	if view.Last > 0 {
		shown.Last = v.say("log.last", view.Last, view.LastHash.String())
	}
	return shown
}

// changesTable lists the newest changes, the newest first.
func (v *view) changesTable(view *client.ChangeLog) table {
	t := table{Caption: v.say("log.caption"), Head: v.says("log.when", "log.who", "log.what", "log.detail", "log.result")}
	entries := view.Entries
	if len(entries) > maxChanges {
		t.Caption = v.say("log.caption.part", maxChanges, len(entries))
		entries = entries[len(entries)-maxChanges:]
	}
	for _, e := range slices.Backward(entries) {
		result := v.say("log.done")
		if e.GetFailure() != "" {
			result = v.say("log.notdone") + ": " + v.language.Cited(e.GetFailure())
		}
		t.Rows = append(t.Rows, []string{v.language.When(time.Unix(e.GetTime(), 0), v.now), v.changedBy(e), v.changeWord(e.GetWhat()),
			v.language.Cited(e.GetDetail()), result})
	}
	return t
}

// changeWord is the sentence of a word of the log. A Base may know words that this App does not.
func (v *view) changeWord(what string) string {
	if _, known := changelog.Words[what]; known {
		return v.say("log.what." + what)
	}
	return what
}

// changedBy is who did it. An App that has not signed is only the Middleware's word.
func (v *view) changedBy(e *systemv1.ChangeEntry) string {
	name := owner.AppOf(e)
	switch e.GetActor() {
	case systemv1.ChangeEntry_ACTOR_OWNER:
		return name
	case systemv1.ChangeEntry_ACTOR_APP:
		if name == "" {
			name = v.say("log.who.app")
		}
		return v.say("log.who.unproved", name)
	case systemv1.ChangeEntry_ACTOR_CONSOLE:
		return v.say("log.who.console")
	case systemv1.ChangeEntry_ACTOR_ROOT:
		return v.say("log.who.root")
	case systemv1.ChangeEntry_ACTOR_BASE:
		return v.say("log.who.base")
	}
	return v.say("log.who.unknown")
}

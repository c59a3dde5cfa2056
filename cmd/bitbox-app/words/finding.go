package words

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// Finding is a finding of the audit for people. The state that was found, and the one that was expected,
// are left to the Base, in English.
type Finding struct{ Title, Why, Fix Text }

// Finding says a finding. A text that the language does not have is left as the Base says it: one of
// an id that only a newer Base knows.
func (l Language) Finding(f *basev1.Finding) Finding {
	said := Finding{Text{f.GetTitle(), English.Tag}, Text{f.GetWhy(), English.Tag}, Text{f.GetFix(), English.Tag}}
	known, found := l.findings[f.GetId()]
	if check, unchecked := strings.CutPrefix(f.GetId(), "unchecked-"); unchecked && l.findings != nil {
		known, found = l.findings["unchecked"], true
		known.title += " (" + check + ")"
	}
	if !found {
		return said
	}
	for text, own := range map[*Text]string{&said.Title: known.title, &said.Why: known.why, &said.Fix: known.fix} {
		if own != "" {
			*text = Text{own, l.Tag}
		}
	}
	return said
}

// finding has the words for the findings with an id. An empty one is left to the Base, which knows the
// place that it is about.
type finding struct{ title, why, fix string }

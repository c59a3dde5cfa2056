package words

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// A Base names the steps of a change in English. These are the names, as its helper has them in
// internal/helper/apply, and the sentences under "steps.", which say more.
var applySteps = map[string]string{
	"render": "steps.apply.render", "write": "steps.apply.write", "switch": "steps.apply.switch", "stop": "steps.apply.stop",
	"cut": "steps.apply.cut", "validate": "steps.apply.validate", "reload": "steps.apply.reload", "start": "steps.apply.start",
	"verify": "steps.apply.verify", "switch back": "steps.apply.back",
}

// ApplyStep is a step of a change of a posture, such as "validate: nginx.service".
func ApplyStep(text string) Said {
	name, detail, _ := strings.Cut(text, ": ")
	if key, known := applySteps[name]; known {
		return Saying(key, strings.TrimSuffix(detail, ".service"))
	}
	return ByBase(text)
}

// UpdateStep is how far an update is: its phase, its step, and why it did not hold.
func UpdateStep(u *basev1.Update) Said {
	phase := UpdatePhase(u)
	said, step := Saying("values.unknown"), ByBase(u.GetStep())
	if key := "steps.phase." + phase; English.sentences[key] != "" {
		said = Saying(key)
	}
	if u.GetReason() != "" {
		return Saying("steps.update.because", said, step, ByBase(u.GetReason()))
	}
	return Saying("steps.update", said, step)
}

// UpdatePhase is a word for people and scripts.
func UpdatePhase(u *basev1.Update) string {
	return strings.ToLower(strings.TrimPrefix(u.GetPhase().String(), "PHASE_"))
}

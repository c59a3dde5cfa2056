package words

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// A Base names the steps of its work in English. These are the names, as its helper has them in
// internal/helper/apply and internal/helper/update, and the sentences under "steps.".
var (
	applySteps = map[string]string{
		"render": "steps.apply.render", "write": "steps.apply.write", "switch": "steps.apply.switch", "stop": "steps.apply.stop",
		"cut": "steps.apply.cut", "validate": "steps.apply.validate", "reload": "steps.apply.reload", "start": "steps.apply.start",
		"verify": "steps.apply.verify", "switch back": "steps.apply.back",
	}
	updateSteps = map[string]string{
		"the release is verified": "steps.update.verified", "an owner's App has ordered it": "steps.update.ordered",
		"verify": "steps.update.verify", "keep the previous version": "steps.update.keep", "install": "steps.update.install",
		"write the other slot": "steps.update.write", "restart": "steps.update.restart",
		"restart the machine with version": "steps.update.boot", "look whether the Base is well": "steps.update.look",
		"wait for the owner's App": "steps.update.wait", "go back to the previous version": "steps.update.back",
	}
)

// ApplyStep is a step of a change of a posture, such as "validate: nginx.service".
func ApplyStep(text string) Said {
	name, detail, _ := strings.Cut(text, ": ")
	if key, known := applySteps[name]; known {
		return Saying(key, strings.TrimSuffix(detail, ".service"))
	}
	return Plain(text)
}

// UpdateStep is how far an update is: its phase, its step, and why it did not hold.
func UpdateStep(u *basev1.Update) Said {
	phase := UpdatePhase(u)
	said, step := Plain(phase), UpdateStepName(u.GetStep())
	if key := "steps.phase." + phase; English.sentences[key] != "" {
		said = Saying(key)
	}
	if u.GetReason() != "" {
		return Saying("steps.update.because", said, step, u.GetReason())
	}
	return Saying("steps.update", said, step)
}

// UpdatePhase is a word for people and scripts.
func UpdatePhase(u *basev1.Update) string {
	return strings.ToLower(strings.TrimPrefix(u.GetPhase().String(), "PHASE_"))
}

// UpdateStepName is the name of a step of an update, such as "verify".
func UpdateStepName(text string) Said {
	if key, known := updateSteps[text]; known {
		return Saying(key)
	}
	if at := strings.LastIndex(text, " "); at > 0 && updateSteps[text[:at]] != "" {
		return Saying(updateSteps[text[:at]], text[at+1:])
	}
	return Plain(text)
}

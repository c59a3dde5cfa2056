package words

import (
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// OpenForGood says that an endpoint has no end, and who reaches it.
func (l Language) OpenForGood(end posture.Endpoint) string {
	if len(end.From) > 0 {
		return l.Say("values.forgood.from", end.Kind, end.Port, strings.Join(end.From.Strings(), ", "))
	}
	return l.Say("values.forgood", end.Kind, end.Port)
}

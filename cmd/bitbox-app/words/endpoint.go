package words

import (
	"fmt"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// OpenForGood says that an endpoint has no end, and who reaches it.
func OpenForGood(end posture.Endpoint) string {
	text := fmt.Sprintf("%s on port %d is open for good: until somebody closes it", end.Kind, end.Port)
	if len(end.From) > 0 {
		text += ", from " + strings.Join(end.From.Strings(), ", ") + " alone"
	}
	return text
}

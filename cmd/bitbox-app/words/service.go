package words

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// ServiceState is a word, with the reason if the service is not healthy.
func ServiceState(s *basev1.Service) string {
	word := strings.ToLower(strings.TrimPrefix(s.GetState().String(), "STATE_"))
	if s.GetReason() != "" {
		word += " (" + s.GetReason() + ")"
	}
	return word
}

package words

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// ServiceAbout says what a service is for. A service of this project has its words in each language; the Base
// describes any other.
func (l Language) ServiceAbout(s *basev1.Service) string {
	return l.known("services.about."+s.GetName(), s.GetDescription())
}

// ServiceState is a word, with the reason if the service is not healthy.
func ServiceState(s *basev1.Service) string {
	word := strings.ToLower(strings.TrimPrefix(s.GetState().String(), "STATE_"))
	if s.GetReason() != "" {
		word += " (" + s.GetReason() + ")"
	}
	return word
}

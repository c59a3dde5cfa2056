package audit

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

func TestAnotherConfigurationIsFound(t *testing.T) {
	find(t, map[string]attack{
		"another generation": {func(_ *testing.T, f *fake) { f.number = 6 }, []string{idGenerationNumber}},
		"a file changed": {func(_ *testing.T, f *fake) {
			f.drift = []generation.Drift{{File: generation.ProxyConfig, What: "was changed"}}
		}, []string{idGenerationFiles}},
		"a key slipped in": {func(_ *testing.T, f *fake) {
			f.drift = []generation.Drift{{File: generation.AuthorizedKeys, What: "was changed"}}
		}, []string{idSSHKeys}},
	})
}

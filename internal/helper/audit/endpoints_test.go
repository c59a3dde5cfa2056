package audit

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

func TestWhatIsOpenForGoodIsRemindedOf(t *testing.T) {
	end := posture.Endpoint{Kind: posture.KindElectrum, Port: 50002}
	for name, test := range map[string]struct {
		change func(*posture.Endpoint)
		want   []string
	}{
		"a lease":  {func(*posture.Endpoint) {}, nil},
		"for good": {func(e *posture.Endpoint) { e.UntilClosed = true }, []string{"electrum on port 50002, from every network"}},
		"for the home": {func(e *posture.Endpoint) {
			e.UntilClosed, e.From = true, posture.Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")}
		}, []string{"electrum on port 50002, from 10.0.0.0/8, fd00::/64"}},
	} {
		e := end
		test.change(&e)
		found, err := checkEndpoints(t.Context(), nil, Expectation{Posture: posture.Effective{
			Endpoints: []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort}, e}}})
		var lines []string
		for _, d := range found {
			if d.id != idOpenForGood {
				t.Errorf("%s: %s", name, d.id)
			}
			lines = append(lines, d.found...)
		}
		if err != nil || !slices.Equal(lines, test.want) {
			t.Errorf("%s: %q, %v", name, lines, err)
		}
	}
}

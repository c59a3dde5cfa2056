//go:build linux

package e2e_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// Being paired opens no port: a scan sees the same from a stranger's machine and from
// the one where an owner's App is connected.
func TestOnePortAnswersAStrangerAndAPairedAppAlike(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "nmap")
	b := bootAppliance(t)
	machine := b.Attacker(2)
	owner := b.app(machine, "phone", "owner")
	stream := b.watch(owner)
	t.Run("scans", func(t *testing.T) {
		for who, from := range map[string]*stage.Attacker{"a stranger": b.Attacker(1), "the App's machine": machine} {
			for _, target := range []netip.Addr{b.V4, b.V6} {
				t.Run(who+" scans "+target.String(), func(t *testing.T) {
					t.Parallel()
					from.OnlyAnswers(t, target, "tcp 8845 open")
				})
			}
		}
	})
	b.goesOn("the App's stream of events", stream)
	b.works(owner.Session, "after the scans")

	// The scan can find something: what the owner opens, for everybody and over both.
	b.apply(owner, "expose an API", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
	found := func(want ...string) {
		t.Helper()
		for _, from := range []*stage.Attacker{b.Attacker(1), machine} {
			for _, target := range []netip.Addr{b.V4, b.V6} {
				if got := from.Scan(t, target, "-sS", "-p", "22,8800-8900,50000-50010"); !slices.Equal(got, want) {
					t.Errorf("%s at %s: %q answer, not %q", from.V4, target, got, want)
				}
			}
		}
	}
	found("tcp 8845 open", "tcp 50002 open")
	b.endLease(owner, posture.KindElectrum)
	found("tcp 8845 open")
}

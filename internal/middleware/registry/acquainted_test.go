package registry

import (
	"net/netip"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
)

func prefix(address string) netip.Prefix { return admission.PrefixOf(netip.MustParseAddr(address)) }

func TestAnAppMakesItsLastFourAddressesAcquainted(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	var list []acquaintance
	at := func(hours int, address string) (changed bool) {
		list, changed = acquaint(list, prefix(address), start.Add(time.Duration(hours)*time.Hour))
		return changed
	}
	for hour, address := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3"} {
		if !at(hour, address) {
			t.Errorf("%s is new, and nothing changes", address)
		}
	}
	if at(3, "192.0.2.3") {
		t.Error("what is known within the hour is stored again")
	}
	at(5, "192.0.2.1") // goes on being used
	at(6, "2001:db8::1:2:3:4")
	at(7, "192.0.2.4") // one too many
	var got []netip.Prefix
	for _, a := range list {
		got = append(got, a.Prefix)
	}
	want := []netip.Prefix{prefix("192.0.2.3"), prefix("192.0.2.1"), prefix("2001:db8::"), prefix("192.0.2.4")}
	if len(got) != len(want) {
		t.Fatalf("acquainted: %v, want %v", got, want)
	}
	for n := range want {
		if got[n] != want[n] {
			t.Errorf("acquainted: %v, want %v", got, want)
		}
	}
}

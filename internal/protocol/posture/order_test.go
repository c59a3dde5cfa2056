package posture

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

var (
	entryOnly = []Endpoint{{Kind: KindEntry, Port: EntryPort}}
	keyOne    = testKey("one")
	keyTwo    = testKey("two")
	keyThree  = testKey("three")
)

func electrum(shared bool, remaining time.Duration) Endpoint {
	if shared {
		return Endpoint{Kind: KindElectrum, Port: EntryPort, Shared: true, Remaining: remaining}
	}
	return Endpoint{Kind: KindElectrum, Port: 50002, Remaining: remaining}
}

// forGood is the Electrum API on its own port without an end.
func forGood(from ...string) Endpoint {
	return Endpoint{Kind: KindElectrum, Port: 50002, UntilClosed: true, From: networks(from...)}
}

func networks(texts ...string) Networks {
	var list Networks
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func limited(e Endpoint, from ...string) Endpoint {
	e.From = networks(from...)
	return e
}

// smallDomain lists every combination of few values for each thing that can be
// more or less open.
func smallDomain() []Effective {
	endpoints := [][]Endpoint{
		entryOnly,
		{entryOnly[0], electrum(true, 1)}, {entryOnly[0], electrum(true, 2)},
		{entryOnly[0], electrum(false, 1)}, {entryOnly[0], forGood()},
		{entryOnly[0], limited(electrum(false, 1), "10.0.0.0/25")}, {entryOnly[0], forGood("10.0.0.0/24", "fd00::/64")},
	}
	ssh := []*SSH{
		nil,
		{Keys: []sshkey.Key{keyOne}, Remaining: 1}, {Keys: []sshkey.Key{keyOne}, Remaining: 2},
		{Keys: []sshkey.Key{keyOne, keyTwo}, Remaining: 1},
	}
	egress := [][]Service{nil, {ServiceBitcoin}, {ServiceTor}, {ServiceBitcoin, ServiceTor}}
	app := func(role basev1.Role) []App { return []App{{SigningKey: SigningKey{1}, Role: role}} }
	apps := [][]App{nil, app(basev1.Role_ROLE_VIEWER), app(basev1.Role_ROLE_OWNER)}

	var all []Effective
	for _, endpoint := range endpoints {
		for _, s := range ssh {
			for _, e := range egress {
				for _, a := range apps {
					for flags := range 16 {
						bit := func(i int) int { return flags >> i & 1 }
						all = append(all, Effective{
							Endpoints: endpoint, SSH: s, Egress: e, Apps: a, PairingClosed: bit(0) == 1,
							Bans: BanPolicy{
								MaxTries: uint32(3 + bit(1)), Window: time.Duration(1 + bit(2)), BanTime: time.Duration(1 + bit(3)),
							},
						})
					}
				}
			}
		}
	}
	return all
}

// order is a relation to be tested.
type order func(a, b Effective) bool

// lawBroken looks at every pair and every triple of the small domain, and
// returns the law of a partial order that does not hold; "" when all do.
func lawBroken(noMoreOpen order, domain []Effective) string {
	n := len(domain)
	above := make([][]uint64, n) // above[a] has bit b when a is no more open than b
	for a := range n {
		above[a] = make([]uint64, (n+63)/64)
		for b := range n {
			if noMoreOpen(domain[a], domain[b]) {
				above[a][b/64] |= 1 << (b % 64)
			}
		}
	}
	has := func(a, b int) bool { return above[a][b/64]>>(b%64)&1 == 1 }
	for a := range n {
		if !has(a, a) {
			return "reflexive"
		}
		for b := range n {
			// No two of the domain open the same, so antisymmetric means: not both.
			if !has(a, b) {
				continue
			}
			if a != b && has(b, a) {
				return "antisymmetric"
			}
			// Transitive: what is above b is above a.
			for i := range above[a] {
				if above[b][i]&^above[a][i] != 0 {
					return "transitive"
				}
			}
		}
	}
	return ""
}

func TestOrderIsAPartialOrderExhaustively(t *testing.T) {
	domain := smallDomain()
	if law := lawBroken(NoMoreOpen, domain); law != "" {
		t.Errorf("over %d postures the order is not %s", len(domain), law)
	}
	pairs := 0
	for _, a := range domain {
		for _, b := range domain {
			if NoMoreOpen(a, b) {
				pairs++
			}
		}
	}
	// Counted by hand, factor by factor: endpoints 7 reflexive + 6 above none + 1 (shared, longer) +
	// 1 (of its own, without an end) + 3 above the one with a time and a network + 1 above the one
	// without an end and with networks = 19; SSH 4+3+2 = 9; egress 9; Apps 6; each flag 3.
	if want := 19 * 9 * 9 * 6 * 81; pairs != want {
		t.Errorf("%d pairs are ordered, not the %d that are", pairs, want)
	}
}

func TestOrderExhaustiveTestCanFail(t *testing.T) {
	domain := slices.DeleteFunc(smallDomain(), func(e Effective) bool { return len(e.Egress) > 0 || len(e.Apps) > 0 })
	for law, broken := range map[string]order{
		"reflexive": func(a, b Effective) bool { return NoMoreOpen(a, b) && a.Bans != b.Bans },
		// Bans forgotten.
		"antisymmetric": func(a, b Effective) bool { a.Bans = b.Bans; return NoMoreOpen(a, b) },
		// "from" forgotten: a posture that opens further by leaving the networks out.
		"antisymmetric ": func(a, b Effective) bool {
			a.Endpoints, b.Endpoints = slices.Clone(a.Endpoints), slices.Clone(b.Endpoints)
			for _, list := range [][]Endpoint{a.Endpoints, b.Endpoints} {
				for i := range list {
					list[i].From = nil
				}
			}
			return NoMoreOpen(a, b)
		},
		// One key more is taken for none.
		"transitive": func(a, b Effective) bool {
			if a.SSH != nil && b.SSH != nil && len(a.SSH.Keys) == len(b.SSH.Keys)+1 && a.SSH.Remaining == b.SSH.Remaining &&
				a.PairingClosed != b.PairingClosed {
				b.SSH = a.SSH
			}
			return NoMoreOpen(a, b)
		},
	} {
		if got := lawBroken(broken, domain); got != strings.TrimSpace(law) {
			t.Errorf("an order that is not %s: found %q", law, got)
		}
	}
}

// opening makes an Effective more open in exactly one thing; false when that
// thing is as open as it gets.
type opening struct {
	name string
	open func(*Effective) bool
}

var openings = []opening{
	{"an extra endpoint", func(e *Effective) bool {
		for _, add := range []Endpoint{electrum(true, time.Minute), electrum(false, time.Minute)} {
			if _, found := findEndpoint(e.Endpoints, add); !found {
				e.Endpoints = append(slices.Clone(e.Endpoints), add)
				return true
			}
		}
		return false
	}},
	{"an endpoint longer", func(e *Effective) bool {
		if len(e.Endpoints) < 2 {
			return false
		}
		e.Endpoints = slices.Clone(e.Endpoints)
		e.Endpoints[1].Remaining++
		return !e.Endpoints[1].UntilClosed
	}},
	{"an endpoint without an end", func(e *Effective) bool {
		if len(e.Endpoints) < 2 || e.Endpoints[1].UntilClosed {
			return false
		}
		e.Endpoints = slices.Clone(e.Endpoints)
		e.Endpoints[1].Remaining, e.Endpoints[1].UntilClosed = 0, true
		return true
	}},
	{"an endpoint for every network", func(e *Effective) bool {
		if len(e.Endpoints) < 2 || len(e.Endpoints[1].From) == 0 {
			return false
		}
		e.Endpoints = slices.Clone(e.Endpoints)
		e.Endpoints[1].From = nil
		return true
	}},
	{"an endpoint for a further network", func(e *Effective) bool {
		if len(e.Endpoints) < 2 || len(e.Endpoints[1].From) == 0 {
			return false
		}
		e.Endpoints = slices.Clone(e.Endpoints)
		e.Endpoints[1].From = Minimal(append(slices.Clone(e.Endpoints[1].From), netip.MustParsePrefix("198.51.100.0/24")))
		return !slices.Equal(e.Endpoints[1].From, forGood("198.51.100.0/24").From)
	}},
	{"an endpoint for a larger network", func(e *Effective) bool {
		if len(e.Endpoints) < 2 || len(e.Endpoints[1].From) == 0 {
			return false
		}
		e.Endpoints = slices.Clone(e.Endpoints)
		first := e.Endpoints[1].From[0]
		larger := netip.PrefixFrom(first.Addr(), first.Bits()-1).Masked()
		e.Endpoints[1].From = Minimal(append(slices.Clone(e.Endpoints[1].From), larger))
		return true
	}},
	{"an endpoint on another port", func(e *Effective) bool {
		if len(e.Endpoints) < 2 {
			return false
		}
		moved := e.Endpoints[len(e.Endpoints)-1]
		moved.Port = 4711
		e.Endpoints = append(slices.Clone(e.Endpoints), moved)
		return true
	}},
	{"SSH on", func(e *Effective) bool {
		if e.SSH != nil {
			return false
		}
		e.SSH = &SSH{Keys: []sshkey.Key{keyThree}, Remaining: 1}
		return true
	}},
	{"a further SSH key", func(e *Effective) bool {
		if e.SSH == nil || hasKey(e.SSH.Keys, keyThree) {
			return false
		}
		e.SSH = &SSH{Keys: append(slices.Clone(e.SSH.Keys), keyThree), Remaining: e.SSH.Remaining}
		return true
	}},
	{"SSH longer", func(e *Effective) bool {
		if e.SSH == nil {
			return false
		}
		e.SSH = &SSH{Keys: e.SSH.Keys, Remaining: e.SSH.Remaining + 1}
		return true
	}},
	{"an older version", func(e *Effective) bool {
		if e.OldestVersion == "" {
			return false
		}
		e.OldestVersion = map[bool]string{true: "1.9", false: ""}[e.OldestVersion == "1.10"]
		return true
	}},
	{"one more try", func(e *Effective) bool { e.Bans.MaxTries++; return true }},
	{"failures forgotten sooner", func(e *Effective) bool { e.Bans.Window--; return true }},
	{"bans shorter", func(e *Effective) bool { e.Bans.BanTime--; return true }},
	{"pairing open", func(e *Effective) bool {
		was := e.PairingClosed
		e.PairingClosed = false
		return was
	}},
	{"a service to the internet", func(e *Effective) bool {
		for _, service := range Services {
			if !slices.Contains(e.Egress, service) {
				e.Egress = append(slices.Clone(e.Egress), service)
				return true
			}
		}
		return false
	}},
	{"a further App", func(e *Effective) bool {
		e.Apps = append(slices.Clone(e.Apps), App{SigningKey: SigningKey{0xff, 0xff}, Role: basev1.Role_ROLE_VIEWER, Name: "new"})
		return true
	}},
	{"a higher role", func(e *Effective) bool {
		if len(e.Apps) == 0 || e.Apps[0].Role == roleOwner {
			return false
		}
		e.Apps = slices.Clone(e.Apps)
		e.Apps[0].Role++
		return true
	}},
}

// anyEffective draws from a large domain.
func anyEffective() *rapid.Generator[Effective] {
	return rapid.Custom(func(t *rapid.T) Effective {
		span := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(1, int64(MaxLease)).Draw(t, "span"))
		})
		e := Effective{
			NodeName:  rapid.StringN(1, 10, 63).Draw(t, "name"),
			Endpoints: slices.Clone(entryOnly),
			Bans: BanPolicy{
				MaxTries: rapid.Uint32Range(MinTries, MaxTries).Draw(t, "tries"),
				Window:   span.Draw(t, "window"), BanTime: span.Draw(t, "ban"),
			},
			PairingClosed: rapid.Bool().Draw(t, "pairing closed"),
			OldestVersion: rapid.SampledFrom([]string{"", "1.9", "1.10"}).Draw(t, "oldest version"),
			Lockdown:      rapid.Bool().Draw(t, "lockdown"),
		}
		switch rapid.IntRange(0, 2).Draw(t, "electrum") {
		case 1:
			e.Endpoints = append(e.Endpoints, electrum(true, span.Draw(t, "lease")))
		case 2:
			e.Endpoints = append(e.Endpoints, electrum(false, span.Draw(t, "lease")))
		}
		if len(e.Endpoints) > 1 {
			end := &e.Endpoints[1]
			if rapid.Bool().Draw(t, "for good") {
				end.Remaining, end.UntilClosed = 0, true
			}
			end.From = Minimal(rapid.SliceOfN(rapid.SampledFrom(someNetworks), 0, MaxNetworks).Draw(t, "from"))
		}
		keys := rapid.SliceOfNDistinct(rapid.SampledFrom(somekeys), 0, len(somekeys), func(k sshkey.Key) string { return k.Line }).Draw(t, "keys")
		e.KnownSSHKeys = keys
		if len(keys) > 0 && rapid.Bool().Draw(t, "ssh") {
			e.SSH = &SSH{Keys: keys, Remaining: span.Draw(t, "ssh lease")}
		}
		for _, service := range Services {
			if rapid.Bool().Draw(t, "egress") {
				e.Egress = append(e.Egress, service)
			}
		}
		for i := range 5 {
			if role := rapid.IntRange(0, 3).Draw(t, "role"); role > 0 {
				e.Apps = append(e.Apps, App{SigningKey: SigningKey{byte(i + 1)}, Role: basev1.Role(role),
					Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app")})
			}
		}
		return e
	})
}

var someNetworks = networks("10.0.0.0/8", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.7/32", "192.168.1.0/24", "203.0.113.0/24", "fd00::/64",
	"fd00:0:0:1::/64", "2001:db8::/32")

var somekeys = []sshkey.Key{keyOne, keyTwo, testKey("four"), testKey("five")}

// related draws a second Effective that shares much with the first, so that pairs
// are often ordered.
func related(t *rapid.T, a Effective) Effective {
	b := a
	for range rapid.IntRange(0, 3).Draw(t, "openings") {
		rapid.SampledFrom(openings).Draw(t, "opening").open(&b)
	}
	if rapid.Bool().Draw(t, "unrelated") {
		b = anyEffective().Draw(t, "other")
	}
	return b
}

func TestOrderIsAPartialOrderOverALargeDomain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyEffective().Draw(t, "a")
		b := related(t, a)
		c := related(t, b)
		if !NoMoreOpen(a, a) {
			t.Fatal("not reflexive")
		}
		if NoMoreOpen(a, b) && NoMoreOpen(b, c) && !NoMoreOpen(a, c) {
			t.Fatal("not transitive")
		}
		if EquallyOpen(a, b) && slices.ContainsFunc(Diff(a, b), func(c Change) bool { return c.Opens }) {
			t.Fatal("not antisymmetric")
		}
	})
}

func TestEachSingleOpeningIsSeen(t *testing.T) {
	tried := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		before := anyEffective().Draw(t, "before")
		for _, o := range openings {
			after := before
			if !o.open(&after) {
				continue
			}
			tried[o.name]++
			if NoMoreOpen(after, before) {
				t.Fatalf("%s passes for no more open", o.name)
			}
			if !NoMoreOpen(before, after) {
				t.Fatalf("the way back from %s passes for an opening", o.name)
			}
		}
	})
	for _, o := range openings {
		if tried[o.name] == 0 {
			t.Errorf("%s was never tried", o.name)
		}
	}
}

// A field that somebody adds to Effective must be given its place in the order.
func TestEveryFieldOfEffectiveHasItsPlaceInTheOrder(t *testing.T) {
	opensNothing := []string{"Revision", "NodeName", "Lockdown", "KnownSSHKeys"}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Effective]()) {
		if slices.Contains(opensNothing, field.Name) {
			continue
		}
		seen := false
		for _, o := range openings {
			full := Effective{
				Endpoints: []Endpoint{entryOnly[0], electrum(true, 1)}, PairingClosed: true, Bans: Factory().Bans, OldestVersion: "1.10",
				Apps: []App{{SigningKey: SigningKey{1}, Role: basev1.Role_ROLE_VIEWER}},
			}
			after := full
			o.open(&after)
			seen = seen || !reflect.DeepEqual(reflect.ValueOf(full).FieldByIndex(field.Index).Interface(),
				reflect.ValueOf(after).FieldByIndex(field.Index).Interface())
		}
		if !seen {
			t.Errorf("Effective.%s: no opening in this test changes it; add one, and its place in NoMoreOpen and Meet", field.Name)
		}
	}
}

func TestMeetIsTheMostOpenThatIsNoMoreOpenThanEither(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyEffective().Draw(t, "a")
		b := related(t, a)
		c := related(t, a)
		meet := Meet(a, b)
		if !NoMoreOpen(meet, a) || !NoMoreOpen(meet, b) {
			t.Fatal("more open than one of the two")
		}
		if NoMoreOpen(c, a) && NoMoreOpen(c, b) && !NoMoreOpen(c, meet) {
			t.Fatal("more closed than necessary")
		}
		if !EquallyOpen(meet, Meet(b, a)) {
			t.Fatal("depends on the order of the two")
		}
	})
}

func TestMeetIsNoMoreOpenThanEitherOverTheSmallDomain(t *testing.T) {
	domain := smallDomain()
	const step = 7 // each seventh partner, shifting, keeps this within a second
	for i, a := range domain {
		for j := i % step; j < len(domain); j += step {
			if meet := Meet(a, domain[j]); !NoMoreOpen(meet, a) || !NoMoreOpen(meet, domain[j]) {
				t.Fatalf("postures %d and %d: their meet is more open than one of them", i, j)
			}
		}
	}
}

func TestAnOlderVersionIsMoreOpen(t *testing.T) {
	versions := []string{"1.10", "1.9", "1.9~rc1", "0~20261128", ""} // each allows all before it
	for i, a := range versions {
		for j, b := range versions {
			one, other := Effective{OldestVersion: a}, Effective{OldestVersion: b}
			if got := NoMoreOpen(one, other); got != (i <= j) {
				t.Errorf("%q is no more open than %q: %v", a, b, got)
			}
			if meet := Meet(one, other); meet.OldestVersion != versions[min(i, j)] {
				t.Errorf("of %q and %q %q counts", a, b, meet.OldestVersion)
			}
			changes := Diff(one, other)
			if len(changes) != min(1, abs(i-j)) || len(changes) == 1 && changes[0].Opens != (i < j) {
				t.Errorf("from %q to %q: %+v", a, b, changes)
			}
		}
	}
}

func abs(n int) int { return max(n, -n) }

package words

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// changes have each kind of change of a posture.
func changes() (all []client.PostureChange) {
	closed := posture.Effective{NodeName: "Attic", PairingClosed: true, OldestVersion: "2.0",
		Bans: posture.BanPolicy{MaxTries: 5, Window: time.Hour, BanTime: time.Hour}}
	key := func(name string) sshkey.Key { return sshkey.Key{Comment: name, Fingerprint: "SHA256:" + name} }
	electrum := posture.Endpoint{Kind: posture.KindElectrum, Port: 50002, Remaining: time.Hour}
	home := posture.Networks{netip.MustParsePrefix("192.168.1.0/24")}
	open := posture.Effective{NodeName: "Cellar", Endpoints: []posture.Endpoint{electrum},
		SSH:          &posture.SSH{Remaining: 2 * time.Hour, Keys: []sshkey.Key{key("anna")}},
		KnownSSHKeys: []sshkey.Key{key("anna")},
		Apps:         []posture.App{{Name: "Phone", Role: basev1.Role_ROLE_OWNER}},
		Egress:       posture.Services, Bans: posture.BanPolicy{MaxTries: 9, Window: time.Minute, BanTime: time.Minute}}
	other := open
	other.Endpoints = []posture.Endpoint{{Kind: posture.KindElectrum, Port: 50002, UntilClosed: true, From: home}}
	other.SSH = &posture.SSH{Remaining: 25 * time.Hour, Keys: []sshkey.Key{key("berta"), key("carla")}}
	other.KnownSSHKeys = []sshkey.Key{{Comment: "anna at work", Fingerprint: key("anna").Fingerprint}}
	other.Apps = []posture.App{{Name: "Telephone", Role: basev1.Role_ROLE_VIEWER}}
	states := []posture.Effective{closed, {NodeName: "Attic", Lockdown: true}, open, other}
	for _, edit := range []func(*posture.Endpoint){
		func(e *posture.Endpoint) { e.From = nil },
		func(e *posture.Endpoint) { e.UntilClosed, e.Remaining = false, time.Hour },
	} {
		next := other
		next.Endpoints = slices.Clone(other.Endpoints)
		edit(&next.Endpoints[0])
		states = append(states, next)
	}
	for _, before := range states {
		for _, after := range states {
			all = append(all, posture.Diff(before, after)...)
		}
	}
	return all
}

// The Base's own English and that of the languages come from one table, and German has a sentence
// for each kind, with every argument in its words.
func TestEachChangeIsSaidInEachLanguage(t *testing.T) {
	missing := posture.Sentences()
	delete(missing, "undone") // no difference of two postures
	for _, c := range changes() {
		delete(missing, c.Kind)
		if got := English.Will(c).Text; got != c.Text {
			t.Errorf("English says %q, and the Base %q", got, c.Text)
		}
		if got := English.Changed(c).Text; got != c.Done {
			t.Errorf("English says %q, and the Base %q", got, c.Done)
		}
		for _, got := range []string{German.Will(c).Text, German.Changed(c).Text} {
			if strings.ContainsAny(got, "{}%") || got == c.Text || got == c.Done {
				t.Errorf("German says %q of %q", got, c.Text)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("no change here is of the kinds %q", slices.Sorted(maps.Keys(missing)))
	}
}

func TestAChangeOfAnUnknownKindIsSaidInEnglish(t *testing.T) {
	c := client.PostureChange{Kind: "moon.full", Text: "The moon will be full.", Done: "The moon is full."}
	if got := German.Will(c); got != (Text{c.Text, "en"}) {
		t.Errorf("said %+v", got)
	}
}

func TestGermanIsWrittenAsGermansWrite(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.Local)
	for want, got := range map[string]string{
		"27.11.2026, 08:05":     German.When(time.Date(2026, 11, 27, 8, 5, 0, 0, time.Local), now),
		"1,5 GiB":               German.Size(3 << 29),
		"1 Tag 3 Stunden":       German.Length(27 * time.Hour),
		"2 Tage":                German.Duration(172800),
		"99,9 %, noch etwa 5 s": German.Progress(&basev1.Node{Progress: 1, LeftSeconds: new(uint64(5))}),
		"SSH ist jetzt für den Schlüssel „anna“ (SHA256:x) eingeschaltet, 2 Stunden lang.": German.Changed(client.PostureChange{
			Kind: "ssh.on", Args: []any{2 * time.Hour, []sshkey.Key{{Comment: "anna", Fingerprint: "SHA256:x"}}}}).Text,
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// News of a change is said in the language; what an older Base or a newer one tells stays in its words.
func TestNewsOfAChangeIsSaidInGerman(t *testing.T) {
	ssh := posture.Change{Kind: "ssh.on", Args: []any{2 * time.Hour, []sshkey.Key{{Comment: "anna", Fingerprint: "SHA256:x"}}}}.Said()
	for want, e := range map[string]*basev1.PostureChangedEvent{
		"SSH wurde für den Schlüssel „anna“ (SHA256:x) eingeschaltet, 2 Stunden lang, durch die App „Laptop“.": {
			Changes: []string{ssh.Told}, Differences: []*basev1.PostureChange{ssh.Message()}, By: "the App 'Laptop'"},
		"Eine Änderung wurde rückgängig gemacht (nicht rechtzeitig bestätigt).": {Changes: []string{"A change was undone."},
			Differences: []*basev1.PostureChange{posture.Change{Kind: "undone"}.Said().Message()}, Note: "not confirmed in time"},
		"„SSH was switched off“, durch jemanden an der Base.": {Changes: []string{"SSH was switched off."}, By: "the Base's console"},
		"„The moon is full.“ („It is.“).": {Changes: []string{"The moon is full.."}, Note: "It is.",
			Differences: []*basev1.PostureChange{{Kind: "moon.full"}}},
	} {
		if got := German.postureChanged(e); got != want {
			t.Errorf("said %q, not %q", got, want)
		}
	}
	for _, c := range append(changes(), posture.Change{Kind: "undone"}.Said()) {
		if got := English.Told(c).Text; got != c.Told {
			t.Errorf("English tells %q, and the Base %q", got, c.Told)
		}
		if got := German.Told(c).Text; strings.ContainsAny(got, "{}%") || got == c.Told {
			t.Errorf("German tells %q of %q", got, c.Told)
		}
	}
}

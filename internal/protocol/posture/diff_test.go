package posture

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

func TestChangesAreSaidInPlainWords(t *testing.T) {
	laptop := testKey("laptop")
	base := effective(1, Factory(), nil, nil)
	base.Apps = []App{{SigningKey: SigningKey{1}, Role: basev1.Role_ROLE_OPERATOR, Name: "Phone"}}
	open := base
	open.SSH = &SSH{Keys: []sshkey.Key{laptop}, Remaining: 2 * time.Hour}
	open.KnownSSHKeys = open.SSH.Keys
	open.Endpoints = append(slices.Clone(base.Endpoints), electrum(false, 26*time.Hour))

	for _, test := range []struct {
		name   string
		before Effective
		change func(*Effective)
		want   []string
	}{
		{"SSH on", base, func(e *Effective) { e.SSH, e.KnownSSHKeys = open.SSH, open.KnownSSHKeys }, []string{
			"! SSH will be switched on for 2 hours for the key 'laptop' (" + laptop.Fingerprint + ").",
			"  The SSH key 'laptop' (" + laptop.Fingerprint + ") will be added; a key lets somebody in only while SSH is on.",
		}},
		{"SSH off", open, func(e *Effective) { e.SSH = nil }, []string{"  SSH will be switched off, and its sessions ended."}},
		{"SSH longer", open, func(e *Effective) { e.SSH = &SSH{Keys: open.SSH.Keys, Remaining: 3 * time.Hour} }, []string{
			"! The time of the SSH access will be longer: 3 hours instead of 2 hours.",
		}},
		{"another SSH key", open, func(e *Effective) {
			e.SSH = &SSH{Keys: []sshkey.Key{keyOne}, Remaining: 2 * time.Hour}
			e.KnownSSHKeys = e.SSH.Keys
		}, []string{
			"! SSH will be open to the key 'one' (" + keyOne.Fingerprint + ") too.",
			"  SSH will be closed to the key 'laptop' (" + laptop.Fingerprint + ").",
			"  The SSH key 'one' (" + keyOne.Fingerprint + ") will be added; a key lets somebody in only while SSH is on.",
			"  The SSH key 'laptop' (" + laptop.Fingerprint + ") will be removed.",
		}},
		{"an extra API", base, func(e *Effective) { e.Endpoints = open.Endpoints }, []string{
			"! The Electrum API will be reachable for 1 day 2 hours on port 50002.",
		}},
		{"an extra API moved", open, func(e *Effective) { e.Endpoints = []Endpoint{entryOnly[0], electrum(true, 26*time.Hour)} }, []string{
			"! The Electrum API will be reachable for 1 day 2 hours on port 8845, beside the encrypted channel.",
			"  The Electrum API will be closed on port 50002, and its connections ended.",
		}},
		{"an extra API for less time", open, func(e *Effective) { e.Endpoints = []Endpoint{entryOnly[0], electrum(false, 5*time.Minute)} },
			[]string{
				"  The time of the Electrum API on port 50002 will be shorter: 5 minutes instead of 1 day 2 hours.",
			}},
		{"an extra API for good", base, func(e *Effective) { e.Endpoints = []Endpoint{entryOnly[0], forGood()} }, []string{
			"! The Electrum API will be reachable for good, until somebody closes it, on port 50002.",
		}},
		{"an extra API for good and for a home", base, func(e *Effective) {
			e.Endpoints = []Endpoint{entryOnly[0], forGood("192.168.1.0/24", "fd00::/64")}
		}, []string{
			"! The Electrum API will be reachable for good, until somebody closes it, on port 50002, from 192.168.1.0/24 and fd00::/64 alone.",
		}},
		{"an extra API with no end any more", open, func(e *Effective) { e.Endpoints = []Endpoint{entryOnly[0], forGood()} }, []string{
			"! The time of the Electrum API on port 50002 will be longer: for good instead of 1 day 2 hours.",
		}},
		{"an extra API limited", open, func(e *Effective) {
			e.Endpoints = []Endpoint{entryOnly[0], limited(electrum(false, 26*time.Hour), "10.0.0.0/8")}
		}, []string{
			"  The Electrum API on port 50002 will be reachable from 10.0.0.0/8 instead of every network.",
		}},
		{"a lockdown", open, func(e *Effective) {
			*e = effective(1, Factory(), []Restriction{{Closing: Closing{Type: ClosingLockdown}}}, nil)
			e.Apps, e.KnownSSHKeys = base.Apps, open.KnownSSHKeys
		}, []string{
			"  The Base will be locked down: SSH off, extra APIs closed, no pairing from the network.",
			"  The Electrum API will be closed on port 50002, and its connections ended.",
			"  SSH will be switched off, and its sessions ended.",
			"  Pairing from the network will be closed; the console can still open a window.",
		}},
		{"bans", base, func(e *Effective) { e.Bans = BanPolicy{MaxTries: 6, Window: 5 * time.Minute, BanTime: 2 * time.Hour} }, []string{
			"! An address will be banned after 6 failures instead of 5.",
			"! The time over which failures are counted will be 5 minutes instead of 10 minutes.",
			"  A ban will be 2 hours long instead of 1 hour.",
		}},
		{"egress", base, func(e *Effective) { e.Egress = []Service{ServiceTor} }, []string{
			"! The service Tor will be allowed to reach the internet.",
		}},
		{"egress of the node", base, func(e *Effective) { e.Egress = []Service{ServiceBitcoin, ServiceBitcoinHome} }, []string{
			"! The Bitcoin node will be allowed to reach the internet.",
			"! The Bitcoin node will be allowed to reach your home: private and link-local addresses.",
		}},
		{"Apps", base, func(e *Effective) {
			e.Apps = []App{
				{SigningKey: SigningKey{1}, Role: basev1.Role_ROLE_VIEWER, Name: "Old phone"},
				{SigningKey: SigningKey{2}, Role: basev1.Role_ROLE_OWNER, Name: "{be} Laptop"},
			}
		}, []string{
			"! The App '{be} Laptop' will be paired as owner.",
			"  The App 'Old phone' will be viewer instead of operator.",
			"  The App 'Phone' will be named 'Old phone'.",
		}},
		{"an App cut off", base, func(e *Effective) { e.Apps = nil }, []string{"  The App 'Phone' will be cut off."}},
		{"the name", base, func(e *Effective) { e.NodeName = "Attic" }, []string{`  The Base will be named "Attic" instead of "BitBox Base".`}},
		{"nothing", open, func(*Effective) {}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			after := test.before
			test.change(&after)
			var got []string
			for _, c := range Diff(test.before, after) {
				mark := "  "
				if c.Opens {
					mark = "! "
				}
				got = append(got, mark+c.Text)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// The words and the order agree: there is an opening among the changes exactly
// when the posture gets more open, and there are none when nothing changes.
func TestChangesNameAnOpeningExactlyWhenThereIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := anyEffective().Draw(t, "before")
		after := related(t, before)
		changes := Diff(before, after)
		opens := slices.ContainsFunc(changes, func(c Change) bool { return c.Opens })
		if opens == NoMoreOpen(after, before) {
			t.Fatalf("no more open: %v; the changes: %+v", NoMoreOpen(after, before), changes)
		}
		if len(Diff(before, before)) > 0 {
			t.Fatalf("nothing has changed, but: %+v", Diff(before, before))
		}
	})
}

func TestDurationsAreSaidAsAPersonWould(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "less than a second", time.Second: "1 second", 90 * time.Second: "90 seconds", 2 * time.Minute: "2 minutes",
		61 * time.Minute: "1 hour 1 minute", MaxLease: "7 days", 26*time.Hour + 3*time.Second: "1 day 2 hours 3 seconds",
		time.Minute: "1 minute", 2*time.Hour - time.Millisecond: "1 hour 59 minutes 59 seconds",
	} {
		if got := durationWords(d); got != want {
			t.Errorf("%v is said as %q, not %q", d, got, want)
		}
	}
}

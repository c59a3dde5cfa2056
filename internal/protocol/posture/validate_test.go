package posture

import (
	"errors"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// fullPosture uses everything that there is.
func fullPosture() Posture {
	return Posture{
		NodeName: "Attic",
		Apps: []App{
			{SigningKey: SigningKey{1}, Role: basev1.Role_ROLE_OWNER, Name: "Laptop", ID: "00000000000000aa"},
			{SigningKey: SigningKey{2}, Role: basev1.Role_ROLE_VIEWER, Name: "Phone", ID: "00000000000000bb"},
		},
		PairingClosed: true,
		Bans:          Factory().Bans,
		SSHKeys:       []sshkey.Key{keyOne, keyTwo},
		SSH:           &Lease{Length: time.Hour, GrantedIn: 3},
		Extras: []ExtraEndpoint{{Kind: KindElectrum, OwnPort: true, Lease: Lease{Length: MaxLease, GrantedIn: 2},
			From: networks("192.168.1.0/24", "fd00::/64")}},
		Egress:        []Service{ServiceBitcoin, ServiceTor},
		OldestVersion: "1.2",
	}
}

// from limits the extra API to networks.
func from(texts ...string) func(*systemv1.Posture) {
	return func(p *systemv1.Posture) { p.ExtraEndpoints[0].From = texts }
}

func TestWrongFieldsAreNamedWithWhatIsAllowed(t *testing.T) {
	for _, test := range []struct {
		change func(*systemv1.Posture)
		want   string
	}{
		{func(p *systemv1.Posture) { p.NodeName = "" }, "posture field node_name is not a name: the name is empty"},
		{func(p *systemv1.Posture) { p.NodeName = "a\u202eb" }, "posture field node_name is not a name: the name contains the character U+202E"},
		{func(p *systemv1.Posture) { p.Bans.MaxTries = 2 }, "posture field bans.max_tries is 2; allowed: 3 to 20"},
		{func(p *systemv1.Posture) { p.Bans.MaxTries = 21 }, "posture field bans.max_tries is 21; allowed: 3 to 20"},
		{func(p *systemv1.Posture) { p.Bans.WindowSeconds = 59 },
			"posture field bans.window_seconds is 59; allowed: 60 to 86400 (1 minute to 1 day)"},
		{func(p *systemv1.Posture) { p.Bans.BanSeconds = 604801 },
			"posture field bans.ban_seconds is 604801; allowed: 60 to 604800 (1 minute to 7 days)"},
		{func(p *systemv1.Posture) { p.Bans = nil }, "posture field bans.max_tries is 0; allowed: 3 to 20"},
		{func(p *systemv1.Posture) { p.Ssh.Seconds = 60 }, "posture field ssh.seconds is 60; allowed: 300 to 604800 (5 minutes to 7 days)"},
		{func(p *systemv1.Posture) { p.Ssh.GrantedIn = 0 }, "posture field ssh.granted_in is 0"},
		{func(p *systemv1.Posture) { p.SshKeys = nil },
			"posture field ssh is on, but there is no key that could log in; allowed: add a key to ssh_keys first"},
		{func(p *systemv1.Posture) { p.SshKeys[1] = "command=\"x\" " + keyTwo.Line }, "posture field ssh_keys[1] cannot be accepted: "},
		{func(p *systemv1.Posture) { p.SshKeys[1] = keyTwo.Line + "\n" },
			"posture field ssh_keys[1] is not written in the one way that is accepted; allowed: ssh-ed25519 "},
		{func(p *systemv1.Posture) { p.SshKeys[1] = p.SshKeys[0] }, "posture field ssh_keys[1] is there twice: SHA256:"},
		{func(p *systemv1.Posture) { p.SshKeys = make([]string, 17) }, "posture field ssh_keys[16] cannot be accepted"},
		{func(p *systemv1.Posture) {
			p.SshKeys = nil
			for _, name := range strings.Split("a b c d e f g h i j k l m n o p q", " ") {
				p.SshKeys = append(p.SshKeys, testKey(name).Line)
			}
		}, "posture field ssh_keys has 17 entries; allowed: at most 16"},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].Kind = "smtp" }, `posture field extra_endpoints[0].kind is "smtp"; allowed: electrum`},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].Kind = "ssh" }, `posture field extra_endpoints[0].kind is "ssh"; allowed: electrum`},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].Kind = "entry" }, `posture field extra_endpoints[0].kind is "entry"; allowed: electrum`},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].Lease.Seconds = 604801 },
			"posture field extra_endpoints[0].lease.seconds is 604801; allowed: 300 to 604800"},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].Lease = nil }, "posture field extra_endpoints[0].lease.seconds is 0; allowed"},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].Lease.UntilClosed = true },
			"posture field extra_endpoints[0].lease.seconds is set beside until_closed; allowed: one of the two"},
		{func(p *systemv1.Posture) { p.Ssh.Seconds, p.Ssh.UntilClosed = 0, true },
			"posture field ssh.until_closed is set, but SSH always ends by itself; allowed: a time of at most 7 days"},
		{from("192.168.1.5/24"), "posture field extra_endpoints[0].from 192.168.1.5/24 is an address within a network; write 192.168.1.0/24 for the network, or 192.168.1.5/32"},
		{from("fd00::1/64"), "from fd00::1/64 is an address within a network; write fd00::/64"},
		{from("::ffff:192.168.1.0/120"), "from ::ffff:192.168.1.0/120 is IPv4 in the form of IPv6"},
		{from("::/96"), "from ::/96 has no computers that could connect"},
		{from("0.0.0.0/0"), "from 0.0.0.0/0 is everybody"},
		{from("::/0"), "from ::/0 is everybody"},
		{from("127.0.0.0/8"), "from 127.0.0.0/8 has no computers that could connect"},
		{from("224.0.0.0/4"), "from 224.0.0.0/4 has no computers that could connect"},
		{from("192.0.0.0/2"), "from 192.0.0.0/2 has no computers that could connect"},
		{from("::1/128"), "from ::1/128 has no computers that could connect"},
		{from("ff02::/16"), "from ff02::/16 has no computers that could connect"},
		{from("10.0.0.0"), "posture field extra_endpoints[0].from[0] is not a network"},
		{from("010.0.0.0/8"), "posture field extra_endpoints[0].from[0] is not a network"},
		{from("FD00::/64"), "posture field extra_endpoints[0].from[0] is not written in the one way that is accepted; allowed: fd00::/64"},
		{from("fe80::%eth0/64"), "posture field extra_endpoints[0].from[0] is not a network"},
		{from("10.0.0.0/8; allow all"), "posture field extra_endpoints[0].from[0] is not a network"},
		{func(p *systemv1.Posture) { p.ExtraEndpoints[0].OwnPort = false },
			"posture field extra_endpoints[0].from limits an API that shares port 8845, which is open to every network; allowed: a port of its own"},
		{from("10.0.0.0/8", "10.0.0.0/8"), "from is not written in the one way that is accepted: 10.0.0.0/8"},
		{from("10.0.0.0/8", "10.1.0.0/16"), "from is not written in the one way that is accepted: 10.0.0.0/8"},
		{from("10.0.0.0/9", "10.128.0.0/9"), "from is not written in the one way that is accepted: 10.0.0.0/8"},
		{from("fd00::/64", "10.0.0.0/8"), "from is not written in the one way that is accepted: 10.0.0.0/8 and fd00::/64"},
		{from("10.0.0.0/24", "10.0.2.0/24", "10.0.4.0/24", "10.0.6.0/24", "10.0.8.0/24", "10.0.10.0/24", "10.0.12.0/24", "10.0.14.0/24",
			"10.0.16.0/24"), "posture field extra_endpoints[0].from has 9 entries; allowed: at most 8"},
		{func(p *systemv1.Posture) { p.ExtraEndpoints = append(p.ExtraEndpoints, p.ExtraEndpoints[0]) },
			`posture field extra_endpoints[1].kind is "electrum" a second time`},
		{func(p *systemv1.Posture) {
			p.ExtraEndpoints[0].OwnPort = false
			p.ExtraEndpoints = append(p.ExtraEndpoints, p.ExtraEndpoints[0])
		}, "posture field extra_endpoints has 2 that share port 8845; allowed: one"},
		{func(p *systemv1.Posture) { p.OldestVersion = "../1" }, `posture field oldest_version is "../1"; allowed: a version`},
		{func(p *systemv1.Posture) { p.Egress[1] = "nginx" }, `posture field egress[1] is "nginx"; allowed: bitcoin, lightning, tor`},
		{func(p *systemv1.Posture) { p.Egress[1] = "bitcoin" }, `posture field egress[1] is "bitcoin" a second time`},
		{func(p *systemv1.Posture) { p.Apps[0].SigningKey = p.Apps[0].SigningKey[1:] },
			"posture field apps[0].signing_key has 31 bytes; allowed: 32 bytes"},
		{func(p *systemv1.Posture) { p.Apps[0].SigningKey = make([]byte, 33) },
			"posture field apps[0].signing_key has 33 bytes; allowed: 32 bytes"},
		{func(p *systemv1.Posture) { p.Apps[0].SigningKey = make([]byte, 32) }, "posture field apps[0].signing_key is empty"},
		{func(p *systemv1.Posture) { p.Apps[1].SigningKey = p.Apps[0].SigningKey }, "posture field apps[1].signing_key is there twice"},
		{func(p *systemv1.Posture) { p.Apps[1].AppId = p.Apps[0].AppId }, "posture field apps[1].app_id is there twice"},
		{func(p *systemv1.Posture) { p.Apps[1].AppId = "00000000000000BB" },
			`posture field apps[1].app_id is "00000000000000BB"; allowed: 16 hexadecimal digits`},
		{func(p *systemv1.Posture) { p.Apps[1].Role = 4 }, "posture field apps[1].role is 4; allowed: 1 (viewer), 2 (operator), 3 (owner)"},
		{func(p *systemv1.Posture) { p.Apps[1].Role = 0 }, "posture field apps[1].role is 0"},
		{func(p *systemv1.Posture) { p.Apps[1].Name = "x\n" }, "posture field apps[1].name is not a name"},
		{func(p *systemv1.Posture) {
			for range 33 {
				p.Apps = append(p.Apps, p.Apps[0])
			}
		}, "posture field apps has 35 entries; allowed: at most 32"},
	} {
		m := fullPosture().Proto()
		test.change(m)
		_, err := FromProto(m)
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestGoodPostureGoesOverTheWireUnchanged(t *testing.T) {
	p, err := FromProto(fullPosture().Proto())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := encode(p.Proto()), encode(fullPosture().Proto()); string(got) != string(want) {
		t.Errorf("%x is not %x", got, want)
	}
	if err := Factory().Validate(); err != nil {
		t.Errorf("the factory posture: %v", err)
	}
}

// Keys of sshaccess can be put together by hand; what does not follow from the
// line is refused, or a person would be shown another key than the one let in.
func TestKeyThatIsShownIsTheKeyThatIsLetIn(t *testing.T) {
	p := fullPosture()
	p.SSHKeys[0].Fingerprint = keyThree.Fingerprint
	if p.Validate() == nil {
		t.Error("a key with the fingerprint of another was accepted")
	}
}

package posture

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// A program reads a change as the Base has made it: it says the same sentences.
func TestAChangeIsReadAsItWasTold(t *testing.T) {
	key := sshkey.Key{Comment: "anna", Fingerprint: "SHA256:x"}
	for kind, args := range map[ChangeKind][]any{
		"lockdown.on":             nil,
		"ssh.on":                  {2 * time.Hour, []sshkey.Key{key, {Fingerprint: "SHA256:y"}}},
		"key.add":                 {key},
		"base.name":               {"Cellar", "Attic"},
		"app.pair":                {"Phone", basev1.Role_ROLE_VIEWER},
		"endpoint.open":           {KindElectrum, time.Hour, Place{50002, false}},
		"endpoint.open.good.from": {KindElectrum, Place{8845, true}, forGood("192.168.1.0/24", "fd00::/64").From},
		"endpoint.from":           {KindElectrum, Place{50002, false}, Networks{}, forGood("10.0.0.0/8").From},
		"endpoint.longer":         {ForGood{}, time.Hour, KindElectrum, Place{50002, false}},
		"bans.tries":              {9, 5},
	} {
		told := Change{Field: "x", Subject: "y", Before: "1", After: "2", Kind: kind, Args: args}.Said()
		bytes, err := proto.Marshal(told.Message())
		if err != nil {
			t.Fatal(err)
		}
		message := &basev1.PostureChange{}
		if err := proto.Unmarshal(bytes, message); err != nil {
			t.Fatal(err)
		}
		read, ok := ReadChange(message)
		if !ok || read.Text != told.Text || read.Done != told.Done || read.Told != told.Told || read.Field != "x" || read.Subject != "y" ||
			read.Before != "1" || read.After != "2" {
			t.Errorf("%s: read %+v, %t, not %+v", kind, read, ok, told)
		}
	}
}

// A Base that lies, or a newer one, has its own sentence shown.
func TestAChangeThatThisVersionCannotSayIsRefused(t *testing.T) {
	text := &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Text{Text: "x"}}
	forever := &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Seconds{Seconds: 1 << 63}}
	nowhere := &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Networks{Networks: &basev1.NetworkList{Networks: []string{"<b>"}}}}
	for name, m := range map[string]*basev1.PostureChange{
		"nothing":           nil,
		"an unknown kind":   {Kind: "moon.full"},
		"too few arguments": {Kind: "base.name", Arguments: []*basev1.ChangeArgument{text}},
		"too many":          {Kind: "lockdown.on", Arguments: []*basev1.ChangeArgument{text}},
		"an empty argument": {Kind: "base.name", Arguments: []*basev1.ChangeArgument{text, {}}},
		"too long a time":   {Kind: "ssh.longer", Arguments: []*basev1.ChangeArgument{forever, forever}},
		"no network":        {Kind: "base.name", Arguments: []*basev1.ChangeArgument{text, nowhere}},
	} {
		if c, ok := ReadChange(m); ok {
			t.Errorf("%s is read as %+v", name, c)
		}
	}
}

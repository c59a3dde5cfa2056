package owner

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

// An owner who changes one setting signs all, so the question has all. The others come from the Base's signed
// report (client.Session.NodeSettings), which here has a field that this App does not know.
func TestWhoChangesOneSettingOfTheNodeReadsAllThatAreSigned(t *testing.T) {
	lie := &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_REGTEST, PruneGb: 1, CacheMib: 450,
		BlockEverySeconds: 20}
	lie.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
	wanted, err := NodeWish{Cache: "1000"}.Over(lie)
	must(t, err)
	if len(wanted.ProtoReflect().GetUnknown()) > 0 {
		t.Error("the App signs a field that it does not know")
	}
	changes, stays := NodeChanges(lie, wanted)
	if len(changes) != 1 || changes[0].Field != "node.cache" {
		t.Errorf("the changes are %+v", changes)
	}
	for _, value := range NodeValues(wanted) {
		if !slices.ContainsFunc(append(changes, stays...), func(c client.PostureChange) bool {
			return c.Field == value.Field && c.After == value.Text.String()
		}) {
			t.Errorf("the question does not have %s", value.Field)
		}
	}
}

// That somebody has typed the sentence before is the word of the Base alone.
func TestABaseCannotSayThatAnOwnerHasAcceptedBtcdOnMainnet(t *testing.T) {
	lie := &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_MAINNET, CacheMib: 450,
		AcceptsBtcdOnMainnet: true}
	wanted, err := NodeWish{Cache: "1000"}.Over(lie)
	must(t, err)
	if !AsksBtcd(wanted) {
		t.Error("btcd on mainnet is signed by an owner who has typed nothing")
	}
}

// A time in the settings is read as every other that people type, and none is rounded.
func TestTheTimeOfABlockIsReadAsOtherTimes(t *testing.T) {
	btcd := &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_REGTEST}
	for typed, want := range map[string]uint32{"20s": 20, "1d": 86400, "off": 0} {
		if s, err := (NodeWish{Every: typed}).Over(btcd); err != nil || s.GetBlockEverySeconds() != want {
			t.Errorf("%s: %v, %v", typed, s, err)
		}
	}
	for _, typed := range []string{"1500ms", "1.5s", "2d", "0s", "20"} {
		if s, err := (NodeWish{Every: typed}).Over(btcd); err == nil {
			t.Errorf("%s: %v", typed, s)
		}
	}
}

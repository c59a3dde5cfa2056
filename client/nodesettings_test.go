//go:build linux

package client

import (
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// The attack: a Middleware tells an App that the node prunes already, so that an owner who changes the
// cache signs that, too. internal/protocol/posture shows that the attack works without the verification.
func TestTheRestOfTheSettingsOfTheNodeIsTheHelpersWord(t *testing.T) {
	h := newHouse(t)
	change := func() error {
		chosen, err := h.session.NodeSettings(t.Context())
		if err != nil {
			return err
		}
		wanted := proto.CloneOf(chosen.GetSettings())
		wanted.CacheMib++
		return h.session.ChangeNodeSettings(t.Context(), wanted)
	}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	prunes := func(report []byte) []byte {
		var signed systemv1.Signed
		var content systemv1.PostureReport
		if err := proto.Unmarshal(report, &signed); err != nil {
			t.Error(err)
		}
		if err := proto.Unmarshal(signed.GetMessage(), &content); err != nil {
			t.Error(err)
		}
		content.Node = &basev1.ChosenNode{Settings: &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD,
			Network: basev1.Network_NETWORK_REGTEST, PruneGb: 2, CacheMib: 450}}
		signed.Message = must(proto.Marshal(&content))
		return must(proto.Marshal(&signed))
	}
	h.middleware.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		if request.GetGetPosture() == nil {
			return nil, nil
		}
		reply := h.signed(request.GetGetPosture().GetNonce())
		reply.GetPosture().Report = prunes(reply.GetPosture().GetReport())
		return reply, nil
	})
	wantKind(t, change(), ErrLyingBase)
	h.middleware.does(nil)
	now, err := h.session.NodeSettings(t.Context())
	if s := now.GetSettings(); err != nil || s.GetPruneGb() != 0 || s.GetCacheMib() != 451 {
		t.Errorf("the Base runs with %v, %v", now, err)
	}
}

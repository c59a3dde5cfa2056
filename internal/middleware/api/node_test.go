package api

import (
	"context"
	"errors"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

func TestABaseWithoutANodeSaysSo(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	client := baserpc.NewNodeServiceClient(l.client(h.Active("phone", viewer)))
	answer, err := client.GetNode(t.Context(), &basev1.GetNodeRequest{})
	if err != nil || answer.GetNode().GetState() != basev1.Node_STATE_NONE || answer.GetNode().GetReason() != "this Base has no node" {
		t.Errorf("%v, %v", answer, err)
	}
	if _, err := client.ListPeers(t.Context(), &basev1.ListPeersRequest{}); rpc.CodeOf(err) != rpc.Precondition {
		t.Errorf("its peers: %v", err)
	}
}

// anyNode is another name for Node, whose own would hide its method Node.
type anyNode = Node

// brokenNode fails as it is told.
type brokenNode struct {
	anyNode
	err error
}

func (b brokenNode) Fees(context.Context) (*basev1.GetFeesResponse, error) { return nil, b.err }

// The failures of a node process are logged, and not told: it may have been taken over.
func TestFailuresOfTheNodeProcessAreTheBasesOwnWords(t *testing.T) {
	for cause, want := range map[error]rpc.Code{
		nodeclient.ErrNone: rpc.Precondition, nodeclient.ErrAway: rpc.Unavailable, ipc.ErrRefused: rpc.Unavailable,
		context.DeadlineExceeded: rpc.Unavailable, errors.New("whatever it says"): rpc.Unavailable,
	} {
		h := registrytest.New(t, nil)
		l := serve(t, h, func(c *Config) { c.Node = brokenNode{err: cause} })
		_, err := baserpc.NewNodeServiceClient(l.client(h.Active("phone", viewer))).GetFees(t.Context(), &basev1.GetFeesRequest{})
		if rpc.CodeOf(err) != want || err.Error() == cause.Error() && !errors.Is(cause, nodeclient.ErrNone) {
			t.Errorf("%v became %v", cause, err)
		}
	}
}

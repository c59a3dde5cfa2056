package system

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// orderedPairing answers orders about pairing that an owner's App has signed.
func (h *Helper) orderedPairing(_ context.Context, request *systemv1.SystemRequest) (*systemv1.SystemReply, error) {
	return nil, errorf(CodeInternal, "%T is not implemented yet", request.GetVerb())
}

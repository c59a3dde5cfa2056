package system

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// changes answers what concerns the log of changes.
func (h *Helper) changes(_ context.Context, _ Who, request *systemv1.SystemRequest) (*systemv1.SystemReply, error) {
	return nil, errorf(CodeInternal, "%T is not implemented yet", request.GetVerb())
}

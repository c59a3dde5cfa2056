package system

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// managed answers what concerns the machine and its services.
func (h *Helper) managed(_ context.Context, _ Who, request *systemv1.SystemRequest, _ func(*systemv1.SystemReply) error) (*systemv1.SystemReply, error) {
	return nil, errorf(CodeInternal, "%T is not implemented yet", request.GetVerb())
}

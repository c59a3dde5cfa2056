package middleware

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// InstallDebianUpdates has the helper install what waits of Debian's updates.
func (s updateService) InstallDebianUpdates(context.Context, *basev1.InstallDebianUpdatesRequest, *connect.ServerStream[basev1.InstallDebianUpdatesResponse]) error {
	return connect.NewError(connect.CodeUnimplemented, errors.New("not yet"))
}

package middleware

import "github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"

// changesService shows who changed what.
type changesService struct {
	*Server
	basev1connect.UnimplementedChangesServiceHandler
}

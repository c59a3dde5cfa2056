package api

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// prePairedService gives a board's keys to the App that made its image.
type prePairedService struct{ *Server }

func (s prePairedService) FetchKeys(ctx context.Context, _ *basev1.FetchKeysRequest) (*basev1.FetchKeysResponse, error) {
	response, err := s.Registry.PrePairedKeysOf(sessionOf(ctx))
	if err != nil {
		return nil, s.apiError(err)
	}
	return response, nil
}

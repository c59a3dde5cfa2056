package middleware

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// AcceptPairing carries an owner's order to accept a request.
func (s pairingService) AcceptPairing(context.Context, *basev1.AcceptPairingRequest, *connect.ServerStream[basev1.AcceptPairingResponse]) error {
	return connect.NewError(connect.CodeUnimplemented, errors.New("not yet"))
}

// AnswerPairing carries an owner's answer.
func (s pairingService) AnswerPairing(context.Context, *basev1.AnswerPairingRequest) (*basev1.AnswerPairingResponse, error) {
	return nil, connect.NewError(connect.CodeUnimplemented, errors.New("not yet"))
}

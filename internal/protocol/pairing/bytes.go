package pairing

import (
	"context"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Over is a Port that marshals each request for carry, which brings back the marshalled
// reply (Answer at the other end).
func Over(carry func(ctx context.Context, request []byte) ([]byte, error)) Port {
	return carrier(carry)
}

type carrier func(ctx context.Context, request []byte) ([]byte, error)

func (c carrier) Call(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	b, err := proto.Marshal(request)
	if err != nil {
		return nil, reason.Errorf("write the request: %w", err)
	}
	if b, err = c(ctx, b); err != nil {
		return nil, err
	}
	reply := &systemv1.AuthorityReply{}
	if err := proto.Unmarshal(b, reply); err != nil {
		return nil, reason.Errorf("read the authority's reply: %w", err)
	}
	return reply, nil
}

// Answer answers a marshalled request by a marshalled reply.
func Answer(ctx context.Context, port Port, request []byte) ([]byte, error) {
	message := &systemv1.AuthorityRequest{}
	if len(request) > MaxRequestSize {
		return proto.Marshal(refusal(ErrMalformed.because("it has %d bytes, more than %d", len(request), MaxRequestSize)))
	}
	if err := proto.Unmarshal(request, message); err != nil {
		return proto.Marshal(refusal(ErrMalformed.because("%v", err)))
	}
	reply, err := port.Call(ctx, message)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(reply)
}

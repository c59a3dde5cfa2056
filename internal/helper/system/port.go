package system

import (
	"context"
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Port returns the way to the Helper within its own process, for who.
func (h *Helper) Port(who Who) helperclient.Port { return local{h, who} }

type local struct {
	helper *Helper
	who    Who
}

func (l local) Call(ctx context.Context, request []byte) ([]byte, error) {
	var first []byte
	err := l.Stream(ctx, request, func(reply []byte) error {
		first = reply
		return errEnough
	})
	if first != nil {
		return first, nil
	}
	return nil, err
}

var errEnough = errors.New("one reply is enough")

func (l local) Stream(ctx context.Context, request []byte, receive func([]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var refused error
	err := l.helper.Handle(ctx, l.who, request, func(reply []byte) error {
		if refused == nil {
			refused = receive(reply)
		}
		if refused != nil {
			cancel()
		}
		return refused
	})
	if refused != nil {
		return refused
	}
	return err
}

package turns

import (
	"context"
	"errors"
	"testing"
)

// All wait until the last one who has it gives it back, however often each gives it back.
func TestAllWaitForWhatHasPrecedence(t *testing.T) {
	var p Precedence
	past, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Await(past); err != nil {
		t.Fatalf("nobody has it, and: %v", err)
	}
	first, second := p.Take(), p.Take()
	waited := make(chan error, 1)
	go func() { waited <- p.Await(t.Context()) }()
	first()
	first()
	if err := p.Await(past); !errors.Is(err, context.Canceled) {
		t.Errorf("somebody has it, and: %v", err)
	}
	select {
	case err := <-waited:
		t.Errorf("the one who waits has gone on: %v", err)
	default:
	}
	second()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := p.Await(past); err != nil {
		t.Errorf("nobody has it any more, and: %v", err)
	}
}

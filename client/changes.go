package client

import (
	"context"
	"errors"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// ChangeLog is a Base's log of changes, verified.
type ChangeLog = changelog.View

// maxChanges is how many entries are read at most: all that a Base keeps, and those that are
// added meanwhile.
const maxChanges = changelog.MaxEntries + 4*changelog.MaxStretch

// Changes reads the Base's whole log of changes and verifies it: each entry, the chain, the
// helper's signature as the answer to this very question, and that everything that this App saw
// last is still there. A log that does not verify is ErrLyingBase.
func (s *Session) Changes(ctx context.Context) (*ChangeLog, error) {
	base, seen, err := s.transport.app.store.changesSeen(s.transport.id)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	var first *systemv1.ChangesHead
	for after := uint64(0); ; {
		nonce, err := s.nonce()
		if err != nil {
			return nil, err
		}
		answer, err := s.changes.ListChanges(ctx, &basev1.ListChangesRequest{After: after, Nonce: nonce})
		if err != nil {
			return nil, err
		}
		head, err := changelog.ReadHead(base, answer.GetHead())
		if err != nil {
			return nil, failChanges(err)
		}
		if first == nil {
			first = head
		}
		entries = append(entries, answer.GetEntries()...)
		after = changelog.Before(first) + uint64(len(entries))
		if after < head.GetLastNumber() && len(answer.GetEntries()) > 0 && len(entries) <= maxChanges {
			continue
		}
		view, err := s.verifyChanges(changelog.Expectation{Base: base, Memory: seen, Nonce: nonce}, first, head, entries)
		if err != nil {
			return nil, failChanges(err)
		}
		// This comes before the log is shown: what was seen once must never seem to be gone.
		return view, s.transport.app.store.rememberChanges(s.transport.id, view.Memory())
	}
}

func failChanges(err error) error {
	if errors.Is(err, posture.ErrUnknownField) {
		return fail(ErrInvalid, err, "the log of changes has an entry that this App does not know; update its software")
	}
	return fail(ErrLyingBase, err, "%v", err)
}

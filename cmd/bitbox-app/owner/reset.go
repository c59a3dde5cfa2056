package owner

import (
	"context"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// EraseWords are what an owner types to lose the chain in a factory reset, too.
func EraseWords() words.Said { return words.Saying("typed.chain") }

// ResetCost says what a factory reset costs, and ChainCost what becomes of the chain unless its owner
// wants to lose it.
func ResetCost() client.PostureChange {
	return words.Change(client.PostureChange{Field: "base"}, "deed.reset")
}

// ChainCost is part of ResetCost.
func ChainCost() client.PostureChange {
	return words.Change(client.PostureChange{Field: "chain"}, "deed.reset.chain")
}

// ResetDone says that a Base is being wiped.
func ResetDone(base string) words.Said { return words.Saying("done.reset", client.Printable(base)) }

// reset wipes the Base, once the owner has typed its name. The chain stays, unless the deed asks for it
// and the owner types that, too.
func reset(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
	wiped := ""
	err := s.FactoryReset(ctx, func(name string) (answer client.ResetAnswer, err error) {
		wiped, answer.Typed = name, name
		if err := h.types(ctx, words.Plain(name), ResetCost(), isName(name)); err != nil {
			return answer, err
		}
		if d.Erase {
			// A no here ends all of it: the owner did not ask for a reset that leaves the chain.
			if err := h.types(ctx, EraseWords(), ChainCost(), isErased); err != nil {
				return answer, err
			}
			answer.EraseChain = true
		}
		h.Progress(words.Saying("steps.reset"))
		return answer, nil
	})
	return ResetDone(wiped), err
}

// isErased tells whether EraseWords were typed.
func isErased(typed string) error {
	if !words.Typed(EraseWords(), typed) {
		return words.Failing(client.ErrNotApproved, "problems.erase", EraseWords())
	}
	return nil
}

package electrum

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
)

// Finder tells the Base's own Apps about transactions, from the index that wallets are served from.
// It implements node.Finder. Before there is an index, and while it is built again, it says so.
type Finder struct {
	mu     sync.RWMutex // a reader is answering; the index stays open
	server *Server      // nil: there is none
	ended  context.Context
	places chan struct{} // holds a token for each that looks for a transaction
}

// maxFinds is how many transactions are looked up at once. They take no turn of a wallet.
const maxFinds = 2

// NewFinder returns one that knows nothing until it is in the Config of a server.
func NewFinder() *Finder { return &Finder{places: make(chan struct{}, maxFinds)} }

// use has it answer from a server until ctx ends, and stop is called, which waits for the answers.
func (f *Finder) use(ctx context.Context, s *Server) (stop func()) {
	if f == nil {
		return func() {}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server, f.ended = s, ctx
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.server = nil
	}
}

// MaxTransaction is the longest transaction that is told at once, in bytes and without its witnesses:
// the longest that nodes relay. A miner can put longer ones into a block; they are told in parts.
const MaxTransaction = 100_000

// MaxFoundHeaders is how many headers are told at once.
const MaxFoundHeaders = 2000

// errGone: the block has left the chain between two questions to the node.
var errGone = errors.New("the chain has changed meanwhile")

// notRead is said while there is no whole index.
const notRead = "the server for wallets has not read all blocks yet"

// Transaction finds a transaction, and what leads from its ID to the header of its block.
func (f *Finder) Transaction(ctx context.Context, request *basev1.GetTransactionRequest) (*basev1.GetTransactionResponse, error) {
	if len(request.GetId()) != sha256.Size {
		return nil, errors.New("the ID of a transaction has another length")
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	notOffered := &basev1.GetTransactionResponse{State: basev1.GetTransactionResponse_STATE_NOT_OFFERED, Reason: notRead}
	if f.server == nil {
		return notOffered, nil
	}
	view := f.server.chain()
	if view == nil {
		return notOffered, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	defer context.AfterFunc(f.ended, cancel)()
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return f.server.locate(ctx, view, chain.Hash(request.GetId()), request.GetOffset())
}

// Headers returns headers of the chain from a height on.
func (f *Finder) Headers(_ context.Context, request *basev1.ListHeadersRequest) (*basev1.ListHeadersResponse, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	answer := &basev1.ListHeadersResponse{}
	if f.server == nil {
		return answer, nil
	}
	view := f.server.chain()
	if view == nil {
		return answer, nil
	}
	first := min(request.GetFirst(), view.Len())
	for height := first; height < first+min(request.GetCount(), MaxFoundHeaders, view.Len()-first); height++ {
		header, err := view.Header(height)
		if err != nil {
			return nil, err
		}
		answer.Headers = append(answer.Headers, header[:]...)
	}
	return answer, nil
}

// locate looks in the chain first, then in the mempool. A part that begins at an offset needs no place.
func (s *Server) locate(ctx context.Context, view *index.View, id chain.Hash, offset uint32) (*basev1.GetTransactionResponse, error) {
	answer := &basev1.GetTransactionResponse{State: basev1.GetTransactionResponse_STATE_UNKNOWN, Tip: view.Len() - 1}
	tx, place, found, err := history.Find(ctx, s.config.Node, view, id)
	switch {
	case err != nil:
		return nil, err
	case found:
		answer.State = basev1.GetTransactionResponse_STATE_CONFIRMED
		if offset > 0 {
			break
		}
		if answer.Place, err = s.place(ctx, id, place); err != nil {
			return nil, err
		}
	default:
		entries, err := s.config.Node.Entries(ctx, []chain.Hash{id})
		if err != nil || len(entries) == 0 {
			return answer, err
		}
		tx, answer.State = entries[0].Tx, basev1.GetTransactionResponse_STATE_WAITING
	}
	Tell(answer, tx.Stripped(), offset)
	return answer, nil
}

// Tell puts a transaction without its witnesses into an answer, or its part from an offset on.
func Tell(answer *basev1.GetTransactionResponse, stripped []byte, offset uint32) {
	answer.Size = uint32(len(stripped))
	if len(stripped) <= MaxTransaction {
		answer.Transaction = stripped
		return
	}
	rest := stripped[min(int(offset), len(stripped)):]
	answer.Part = rest[:min(len(rest), MaxTransaction)]
}

// place reads the block of a transaction for the hashes that prove its place.
func (s *Server) place(ctx context.Context, id chain.Hash, at index.Place) (*basev1.TransactionPlace, error) {
	raw, err := s.config.Node.Block(ctx, at.Block)
	if err != nil {
		return nil, err
	}
	block, err := chain.ParseBlock(raw)
	if err != nil {
		return nil, fmt.Errorf("read the block of a transaction: %w", err)
	}
	ids := block.IDs()
	position := slices.Index(ids, id)
	if position < 0 {
		return nil, errGone
	}
	place := &basev1.TransactionPlace{Height: at.Height, Position: uint32(position)}
	_, branch := chain.Branch(ids, position)
	for _, hash := range branch {
		place.Branch = append(place.Branch, hash[:])
	}
	return place, nil
}

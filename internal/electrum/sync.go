package electrum

import (
	"context"
	"errors"
	"fmt"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
)

// follow brings index and mempool to where the node is, and tells the wallets. It says whether
// that is as far as the network is.
func (s *Server) follow(ctx context.Context) (caughtUp bool, err error) {
	tip, err := s.config.Node.Tip(ctx)
	if err != nil {
		return false, err
	}
	height, hash, some := s.index.Tip()
	s.tell(func(p *Progress) { p.Height, p.Target = height, max(tip.Height, tip.Headers) })
	switch {
	case some && hash == tip.Hash:
		if s.view == nil { // the server was restarted
			if err := s.publish(nil); err != nil {
				return false, err
			}
		}
	case some && tip.Height < height && s.index.Has(tip.Height, tip.Hash):
		// A node that was killed may have lost blocks. They come back.
		s.tell(func(p *Progress) {
			p.Reason = fmt.Sprintf("the node is at block %d and gets the blocks up to %d again", tip.Height, height)
		})
		return false, nil
	default:
		if err := s.addBlocks(ctx, tip); err != nil {
			return false, err
		}
	}
	if tip.Syncing {
		s.tell(func(p *Progress) { p.Reason = "the node is still catching up" })
		return false, nil
	}
	if err := s.followMempool(ctx); err != nil {
		return false, err
	}
	s.notify()
	return true, nil
}

// addBlocks adds the blocks up to the node's tip, after the last one that both have.
func (s *Server) addBlocks(ctx context.Context, tip source.Tip) error {
	next, err := s.fork(ctx, tip)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	fetched := make(chan fetchedBlock, 2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(fetched)
		s.fetch(ctx, next, tip.Height, fetched)
	}()
	defer func() {
		cancel()
		<-done
	}()
	for f := range fetched {
		if f.err != nil {
			return f.err
		}
		if s.config.Full != nil {
			if why := s.config.Full(); why != "" {
				return errors.New(why)
			}
		}
		if err := s.add(next, f.block); err != nil {
			return err
		}
		s.tell(func(p *Progress) { p.Height = next })
		next++
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.publish(nil)
}

// fork is the height of the first block that the index needs.
func (s *Server) fork(ctx context.Context, tip source.Tip) (uint32, error) {
	height, _, some := s.index.Tip()
	if !some {
		return 0, nil
	}
	end := uint64(min(height, tip.Height)) + 1
	for width := uint64(4); end > 0; width = min(2*width, node.MaxHashes) {
		begin := end - min(end, width)
		var heights []uint64
		for h := begin; h < end; h++ {
			heights = append(heights, h)
		}
		hashes, err := s.config.Node.Hashes(ctx, heights)
		if err != nil {
			return 0, err
		}
		for at := len(hashes) - 1; at >= 0; at-- {
			if s.index.Has(uint32(heights[at]), hashes[at]) {
				return uint32(heights[at]) + 1, nil
			}
		}
		end = begin
	}
	return 0, errors.New("the node has another first block than the index")
}

type fetchedBlock struct {
	block *chain.Block
	err   error
}

// fetch reads the blocks from one height to another, ahead of the index.
func (s *Server) fetch(ctx context.Context, from, to uint32, into chan<- fetchedBlock) {
	send := func(f fetchedBlock) bool {
		select {
		case <-ctx.Done():
			return false
		case into <- f:
			return f.err == nil
		}
	}
	for from <= to {
		var heights []uint64
		for h := from; h <= to && len(heights) < node.MaxHashes; h++ {
			heights = append(heights, uint64(h))
		}
		hashes, err := s.config.Node.Hashes(ctx, heights)
		if err != nil {
			send(fetchedBlock{err: err})
			return
		}
		for _, hash := range hashes {
			var f fetchedBlock
			raw, err := s.config.Node.Block(ctx, hash)
			if err == nil {
				f.block, err = chain.ParseBlock(raw)
			}
			f.err = err
			if !send(f) {
				return
			}
		}
		from += uint32(len(hashes))
	}
}

// add adds one block. Wallets that are served get each; the first view of a run is that of the
// whole chain.
func (s *Server) add(height uint32, b *chain.Block) error {
	tip, _, some := s.index.Tip()
	if some && height <= tip {
		s.config.Logger.Info("the chain was reorganised", "height", height-1, "blocks", tip-height+1)
		s.index.Rewind(height - 1)
	}
	if err := s.index.Add(b); err != nil {
		return err
	}
	if s.view == nil { // only this goroutine changes it
		return nil
	}
	return s.publish(history.Prepare(height, b))
}

// followMempool takes from the node what has come to the mempool, and forgets what has left it.
func (s *Server) followMempool(ctx context.Context) error {
	ids, err := s.config.Node.Waiting(ctx)
	if err != nil {
		return err
	}
	fresh, gone := s.mempool.Compare(ids) // only this goroutine changes it
	update := func(gone []chain.Hash, entries []source.Entry) {
		if len(gone)+len(entries) == 0 {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mempool.Update(gone, entries)
		s.changed++
	}
	// Those that are gone leave together with the first that come: one may replace the other.
	for begin := 0; begin < len(fresh); begin += source.MaxEntries {
		entries, err := s.config.Node.Entries(ctx, fresh[begin:min(begin+source.MaxEntries, len(fresh))])
		if err != nil {
			return err
		}
		update(gone, entries)
		gone = nil
	}
	update(gone, nil)
	return nil
}

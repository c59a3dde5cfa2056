// Package mempool remembers the transactions that wait for a block: what they spend, what they
// pay, and their fees. It is pure; its caller brings what the node says.
package mempool

import (
	"cmp"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
)

// Max is how many transactions are remembered. Each takes about half a kilobyte; Bitcoin Core's
// mempool of 300 MB has seldom had more than this.
const Max = 400_000

// tx is a transaction that waits.
type tx struct {
	fee    uint64 // satoshis
	vsize  uint32
	spends []chain.Outpoint
	pays   []payment
}

type payment struct {
	script chain.Hash
	value  uint64 // satoshis
}

// Mempool is safe for reading at once, not while Update runs.
type Mempool struct {
	txs    map[chain.Hash]*tx
	pays   map[chain.Hash][]chain.Hash // by script: who pays it, each once
	spends map[chain.Outpoint]chain.Hash
}

// New returns an empty one.
func New() *Mempool {
	return &Mempool{map[chain.Hash]*tx{}, map[chain.Hash][]chain.Hash{}, map[chain.Outpoint]chain.Hash{}}
}

// Has tells whether a transaction waits.
func (m *Mempool) Has(id chain.Hash) bool { return m.txs[id] != nil }

// Compare says which of the node's transactions are new, at most as many as find place, and which
// of ours are gone.
func (m *Mempool) Compare(ids []chain.Hash) (fresh, gone []chain.Hash) {
	there := make(map[chain.Hash]bool, len(ids))
	for _, id := range ids {
		there[id] = true
		if m.txs[id] == nil && len(m.txs)+len(fresh) < Max {
			fresh = append(fresh, id)
		}
	}
	for id := range m.txs {
		if !there[id] {
			gone = append(gone, id)
		}
	}
	return fresh, gone
}

// Update takes transactions away and adds others.
func (m *Mempool) Update(gone []chain.Hash, fresh []source.Entry) {
	for _, id := range gone {
		m.remove(id)
	}
	for _, e := range fresh {
		m.remove(e.Tx.ID)
		t := &tx{fee: e.Fee, vsize: e.VSize, spends: e.Tx.Spends}
		for _, o := range e.Tx.Outputs {
			t.pays = append(t.pays, payment{o.ScriptHash(), o.Value})
		}
		m.txs[e.Tx.ID] = t
		for _, o := range t.spends {
			m.spends[o] = e.Tx.ID
		}
		for _, p := range t.pays {
			if payers := m.pays[p.script]; !slices.Contains(payers, e.Tx.ID) {
				m.pays[p.script] = append(payers, e.Tx.ID)
			}
		}
	}
}

func (m *Mempool) remove(id chain.Hash) {
	t := m.txs[id]
	if t == nil {
		return
	}
	delete(m.txs, id)
	for _, o := range t.spends {
		// A replacement may have taken its place.
		if m.spends[o] == id {
			delete(m.spends, o)
		}
	}
	for _, p := range t.pays {
		payers := slices.DeleteFunc(m.pays[p.script], func(other chain.Hash) bool { return other == id })
		if m.pays[p.script] = payers; len(payers) == 0 {
			delete(m.pays, p.script)
		}
	}
}

// Entry is a transaction of a script that waits.
type Entry struct {
	ID chain.Hash
	// Height is 0, or -1 if it spends a transaction that waits as well.
	Height int
	Fee    uint64 // satoshis
}

// Of returns the transactions that pay a script or spend its coins, in the order of protocol
// 1.6: those with height 0 first, then by ID as people write it.
func (m *Mempool) Of(script chain.Hash, confirmed *history.History) (entries []Entry) {
	seen := map[chain.Hash]bool{}
	add := func(id chain.Hash) {
		t := m.txs[id]
		if t == nil || seen[id] {
			return
		}
		seen[id] = true
		e := Entry{ID: id, Fee: t.fee}
		if slices.ContainsFunc(t.spends, func(o chain.Outpoint) bool { return m.txs[o.ID] != nil }) {
			e.Height = -1
		}
		entries = append(entries, e)
	}
	for _, coin := range confirmed.Coins {
		if coin.SpentAt == 0 {
			if id, is := m.spends[coin.Outpoint]; is {
				add(id)
			}
		}
	}
	for _, coin := range m.Coins(script) {
		add(coin.Outpoint.ID)
		if id, is := m.spends[coin.Outpoint]; is {
			add(id)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.Height, a.Height), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	return entries
}

// Coins are the outputs of transactions that wait and pay a script, spent or not.
func (m *Mempool) Coins(script chain.Hash) (coins []history.Coin) {
	for _, id := range m.pays[script] {
		for i, p := range m.txs[id].pays {
			if p.script == script {
				coins = append(coins, history.Coin{Outpoint: chain.Outpoint{ID: id, Index: uint32(i)}, Value: p.value})
			}
		}
	}
	return coins
}

// Spent tells whether a transaction that waits spends an output.
func (m *Mempool) Spent(o chain.Outpoint) bool {
	_, is := m.spends[o]
	return is
}

// Histogram tells how many virtual bytes wait at which fee, in satoshis for one, the highest
// first. As ElectrumX does, each step is larger than the one before by a tenth.
func (m *Mempool) Histogram() [][2]float64 {
	type rated struct {
		rate  float64
		vsize uint32
	}
	all := make([]rated, 0, len(m.txs))
	for _, t := range m.txs {
		all = append(all, rated{float64(t.fee) / float64(t.vsize), t.vsize})
	}
	slices.SortFunc(all, func(a, b rated) int { return cmp.Compare(b.rate, a.rate) })
	steps := [][2]float64{}
	const first = 100_000 // virtual bytes
	sum, size := 0.0, float64(first)
	for i, r := range all {
		sum += float64(r.vsize)
		if sum >= size || i == len(all)-1 {
			steps = append(steps, [2]float64{r.rate, sum})
			sum, size = 0, size*1.1
		}
	}
	return steps
}

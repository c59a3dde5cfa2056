// Package chain parses blocks and transactions as they are on the wire. It takes from them what
// a wallet asks for: where a transaction is, what it spends and what it pays. It checks the
// form and no rule of Bitcoin: the node has done that.
//
// It is pure, and nothing that it returns needs more memory than a small multiple of the input.
package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// MaxBranch is the longest way from a transaction to the merkle root: a block has fewer than 2^17
// transactions, of 60 bytes at least.
const MaxBranch = 17

// HeaderSize is the length of a block's header in bytes.
const HeaderSize = 80

// MaxBlock is the longest block in bytes: consensus allows 4,000,000 units of weight, and a byte
// weighs at least one.
const MaxBlock = 4_000_000

// Hash is a double SHA-256, in the order of the wire.
type Hash [sha256.Size]byte

// String writes the hash as people and nodes do: backwards, in hexadecimal.
func (h Hash) String() string {
	slices.Reverse(h[:])
	return hex.EncodeToString(h[:])
}

// ParseHash reads what String writes.
func ParseHash(text string) (h Hash, err error) {
	if len(text) != hex.EncodedLen(len(h)) {
		return h, errors.New("a hash has 64 hexadecimal digits")
	}
	if _, err := hex.Decode(h[:], []byte(text)); err != nil {
		return h, errors.New("a hash has 64 hexadecimal digits")
	}
	slices.Reverse(h[:])
	return h, nil
}

// Double hashes twice.
func Double(b []byte) Hash {
	once := sha256.Sum256(b)
	return sha256.Sum256(once[:])
}

// Header is a block's header.
type Header [HeaderSize]byte

// Hash is the block's.
func (h *Header) Hash() Hash { return Double(h[:]) }

// Previous is the hash of the block before.
func (h *Header) Previous() Hash { return Hash(h[4:36]) }

// Root is the merkle root of the transactions.
func (h *Header) Root() Hash { return Hash(h[36:68]) }

// Bits is the target that its hash must not exceed, as a number with an exponent.
func (h *Header) Bits() uint32 { return binary.LittleEndian.Uint32(h[72:76]) }

// Time is when the block says it was made, in seconds since 1970.
func (h *Header) Time() uint32 { return binary.LittleEndian.Uint32(h[68:72]) }

// Outpoint is an output of a transaction.
type Outpoint struct {
	ID    Hash
	Index uint32
}

// none is the outpoint that the first transaction of a block spends.
var none = Outpoint{Index: 0xffffffff}

// Output is what a transaction pays.
type Output struct {
	Value  uint64 // satoshis
	Script []byte // a part of the input
}

// ScriptHash is how the Electrum protocol calls a script.
func (o Output) ScriptHash() Hash { return sha256.Sum256(o.Script) }

// Unspendable tells whether nobody can ever spend it, so that no wallet asks for it: it begins
// with OP_RETURN.
func (o Output) Unspendable() bool { return len(o.Script) > 0 && o.Script[0] == 0x6a }

// Tx is a transaction.
type Tx struct {
	ID      Hash
	Raw     []byte // a part of the input
	Spends  []Outpoint
	Outputs []Output
}

// Stripped is the transaction without its witnesses: its ID is the hash of that.
func (t *Tx) Stripped() []byte {
	if t.Raw[4] != 0 { // no marker follows the version
		return t.Raw
	}
	r := reader{rest: t.Raw[6:]}
	r.body()
	return slices.Concat(t.Raw[:4], t.Raw[6:len(t.Raw)-len(r.rest)], t.Raw[len(t.Raw)-4:])
}

// Coinbase tells whether it is the first of its block, which spends nothing.
func (t *Tx) Coinbase() bool { return len(t.Spends) == 0 }

// Block is a block.
type Block struct {
	Header Header
	Txs    []Tx
	// First is where the first transaction begins, in bytes. The others follow without a gap.
	First int
}

// ErrForm is wrapped by every error of this package's parsers.
var ErrForm = errors.New("these bytes are no block and no transaction")

// ParseBlock parses a block, and compares its transactions with the merkle root: what it returns
// is all that belongs to the header, and in this order.
func ParseBlock(raw []byte) (*Block, error) {
	if len(raw) > MaxBlock {
		return nil, fmt.Errorf("%w: a block has at most %d bytes", ErrForm, MaxBlock)
	}
	r := reader{rest: raw}
	b := &Block{Header: Header(r.take(HeaderSize))}
	const smallest = 60 // bytes of a transaction
	count := r.count(smallest)
	b.First = len(raw) - len(r.rest)
	b.Txs = make([]Tx, 0, count)
	for range count {
		b.Txs = append(b.Txs, r.tx())
	}
	switch {
	case r.failed || len(r.rest) > 0 || count == 0:
		return nil, fmt.Errorf("%w: they end too early or too late", ErrForm)
	case Root(b.IDs()) != b.Header.Root():
		return nil, fmt.Errorf("%w: its transactions are not those of its header", ErrForm)
	}
	return b, nil
}

// IDs are those of the transactions.
func (b *Block) IDs() []Hash {
	ids := make([]Hash, len(b.Txs))
	for i := range b.Txs {
		ids[i] = b.Txs[i].ID
	}
	return ids
}

// ParseTx parses a transaction.
func ParseTx(raw []byte) (Tx, error) {
	if len(raw) > MaxBlock {
		return Tx{}, fmt.Errorf("%w: a transaction has at most %d bytes", ErrForm, MaxBlock)
	}
	r := reader{rest: raw}
	t := r.tx()
	if r.failed || len(r.rest) > 0 {
		return Tx{}, fmt.Errorf("%w: they end too early or too late", ErrForm)
	}
	return t, nil
}

// reader takes from the front of what is left. Once something is missing it has failed, and
// returns zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed, r.rest = true, nil
		return make([]byte, min(n, HeaderSize))
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// count reads how many things follow that have at least size bytes each. More than fit into what
// is left are a failure.
func (r *reader) count(size int) int {
	first := r.take(1)[0]
	n := uint64(first)
	switch first {
	case 0xfd:
		n = uint64(binary.LittleEndian.Uint16(r.take(2)))
	case 0xfe:
		n = uint64(binary.LittleEndian.Uint32(r.take(4)))
	case 0xff:
		n = binary.LittleEndian.Uint64(r.take(8))
	}
	if r.failed || n > uint64(len(r.rest)/size) {
		r.failed, r.rest = true, nil
		return 0
	}
	return int(n)
}

// tx reads a transaction (BIP 144): version, inputs, outputs, lock time; between them the marker
// 0 and the flag 1, and at the end the witnesses, which do not belong to the ID.
func (r *reader) tx() Tx {
	begin := r.rest
	version := r.take(4)
	witness := len(r.rest) > 1 && r.rest[0] == 0 && r.rest[1] == 1
	if witness {
		r.take(2)
	}
	body := r.rest
	t, inputs := r.body()
	body = body[:len(body)-len(r.rest)]
	if witness {
		for range inputs {
			for range r.count(1) {
				r.take(r.count(1))
			}
		}
	}
	lock := r.take(4)
	if r.failed {
		return Tx{}
	}
	t.Raw = begin[:len(begin)-len(r.rest)]
	if witness {
		t.ID = Double(slices.Concat(version, body, lock))
	} else {
		t.ID = Double(t.Raw)
	}
	return t
}

// body reads inputs and outputs, and says how many inputs there are.
func (r *reader) body() (t Tx, inputs int) {
	const (
		smallestInput  = 41 // bytes
		smallestOutput = 9
	)
	inputs = r.count(smallestInput)
	if inputs == 0 {
		r.failed = true
	}
	for range inputs {
		o := Outpoint{Hash(r.take(32)), binary.LittleEndian.Uint32(r.take(4))}
		r.take(r.count(1))
		r.take(4) // sequence
		if o != none {
			t.Spends = append(t.Spends, o)
		}
	}
	outputs := r.count(smallestOutput)
	t.Outputs = make([]Output, 0, outputs)
	for range outputs {
		value := binary.LittleEndian.Uint64(r.take(8))
		t.Outputs = append(t.Outputs, Output{value, r.take(r.count(1))})
	}
	return t, inputs
}

// Root is the merkle root of these leaves.
func Root(leaves []Hash) Hash {
	root, _ := Branch(leaves, 0)
	return root
}

// Follow is the merkle root to which a branch leads from the leaf at a position.
func Follow(leaf Hash, position uint32, branch []Hash) Hash {
	for _, other := range branch {
		if position&1 == 0 {
			leaf = Double(slices.Concat(leaf[:], other[:]))
		} else {
			leaf = Double(slices.Concat(other[:], leaf[:]))
		}
		position >>= 1
	}
	return leaf
}

// Branch is the merkle root of these leaves, and the hashes that lead there from one of them,
// the deepest first.
func Branch(leaves []Hash, at int) (root Hash, branch []Hash) {
	level := slices.Clone(leaves)
	for len(level) > 1 {
		if len(level)%2 == 1 {
			level = append(level, level[len(level)-1])
		}
		branch = append(branch, level[at^1])
		for i := range len(level) / 2 {
			level[i] = Double(slices.Concat(level[2*i][:], level[2*i+1][:]))
		}
		level, at = level[:len(level)/2], at/2
	}
	if len(level) == 0 {
		return Hash{}, nil
	}
	return level[0], branch
}

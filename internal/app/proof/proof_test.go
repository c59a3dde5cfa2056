package proof_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/app/proof"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// easy is a target that one header in 16 meets.
const easy = 0x200fffff

var begin = time.Unix(1_500_000_000, 0)

// miner makes headers.
type miner struct {
	headers []proof.Header
	chain   proof.Chain
	apart   time.Duration
}

// mine adds a header with a merkle root, and the target that the rules ask for, or another one.
func (m *miner) mine(root proof.Hash, change func(*proof.Header)) {
	height := len(m.headers)
	var h proof.Header
	h[0] = 4
	bits, at := uint32(easy), begin
	if height > 0 {
		last := m.headers[height-1]
		hash := last.Hash()
		copy(h[4:], hash[:])
		bits, at = last.Bits(), time.Unix(int64(last.Time()), 0).Add(m.apart)
		if height%2016 == 0 {
			bits = m.chain.Next(bits, int64(last.Time())-int64(m.headers[height-2016].Time()))
		}
	}
	copy(h[36:], root[:])
	binary.LittleEndian.PutUint32(h[68:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(h[72:], bits)
	if change != nil {
		change(&h)
	}
	for target := proof.FromBits(h.Bits()); ; binary.LittleEndian.PutUint32(h[76:], binary.LittleEndian.Uint32(h[76:])+1) {
		hash := h.Hash()
		slices.Reverse(hash[:])
		if new(big.Int).SetBytes(hash[:]).Cmp(target) <= 0 {
			break
		}
	}
	m.headers = append(m.headers, h)
}

// ask hands out headers as a Base does, some at a time.
func ask(headers []proof.Header) proof.Headers {
	return func(_ context.Context, first, count uint32) ([]proof.Header, error) {
		from := min(int(first), len(headers))
		return headers[from:min(from+int(min(count, 500)), len(headers))], nil
	}
}

// payment is the first transaction of mainnet, whose bytes everybody knows.
var payment = func() []byte {
	b, err := hex.DecodeString("01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d6573203033" +
		"2f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000" +
		"434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000")
	if err != nil {
		panic(err)
	}
	return b
}()

// leaves are the transactions of the block that has the payment.
func leaves() (all []proof.Hash, at uint32) {
	for i := range 5 {
		all = append(all, chain.Double([]byte{byte(i)}))
	}
	all[3] = chain.Double(payment)
	return all, 3
}

// known makes a chain with the payment at a height, and a checkpoint at another.
func known(t *testing.T, length, payment, checkpoint int) (*miner, proof.Place) {
	t.Helper()
	all, position := leaves()
	root, branch := chain.Branch(all, int(position))
	m := &miner{chain: proof.OfRules(easy), apart: 5 * time.Minute}
	for height := range length {
		if height == payment {
			m.mine(root, nil)
		} else {
			m.mine(proof.Hash{byte(height)}, nil)
		}
	}
	m.chain = proof.OfRules(easy, proof.Checkpoint{Height: uint32(checkpoint), Hash: m.headers[checkpoint].Hash()})
	return m, proof.Place{Height: uint32(payment), Position: position, Branch: branch, Tip: uint32(length - 1)}
}

var now = begin.Add(365 * 24 * time.Hour)

func (m *miner) check(at proof.Place) (proof.Proven, error) {
	return m.chain.Check(context.Background(), ask(m.headers), chain.Double(payment), at, now)
}

// The chain goes over two changes of the target, which gets harder.
func TestATransactionAfterAndBeforeACheckpointIsProved(t *testing.T) {
	m, at := known(t, 4100, 4090, 2000)
	proven, err := m.check(at)
	if err != nil || proven.Work != 4099-2000 || proven.Checkpoint != 2000 || proven.Time.Unix() != int64(m.headers[4090].Time()) ||
		proven.TipTime.Unix() != int64(m.headers[4099].Time()) {
		t.Errorf("%+v, %v", proven, err)
	}
	if m.headers[4099].Bits() == easy {
		t.Error("the target has not changed")
	}
	for _, height := range []int{1990, 2000} {
		m, at := known(t, 2020, height, 2000)
		if proven, err := m.check(at); err != nil || proven.Work != 0 || proven.Checkpoint != 2000 {
			t.Errorf("%+v, %v", proven, err)
		}
	}
	m, at = known(t, 2020, 1990, 2000)
	at.Tip = 1995
	if _, err := m.check(at); !errors.Is(err, proof.ErrBehind) {
		t.Errorf("a node that lacks the checkpoint: %v", err)
	}
}

// Each attack is by a Base that was taken over, and may cost it whole chains of its own.
func TestALyingBaseProvesNothing(t *testing.T) {
	const length, paid, checkpoint = 4100, 4090, 2000
	for _, attack := range []struct {
		name, want string
		do         func(m *miner, at *proof.Place)
	}{
		{"another transaction of the block", "does not have the transaction", func(_ *miner, at *proof.Place) { at.Position ^= 1 }},
		{"another block", "does not have the transaction", func(_ *miner, at *proof.Place) { at.Height-- }},
		{"a branch that is cut", "does not have the transaction", func(_ *miner, at *proof.Place) { at.Branch = at.Branch[1:] }},
		{"a position that no branch leads to", "no block has such a place", func(_ *miner, at *proof.Place) { at.Position += 8 }},
		{"a branch without an end", "no block has such a place", func(_ *miner, at *proof.Place) {
			at.Branch = slices.Repeat([]proof.Hash{{}}, 10_000)
		}},
		{"a block above the newest", "no block has such a place", func(_ *miner, at *proof.Place) { at.Tip = at.Height - 1 }},
		{"a chain without an end", "no chain is so long", func(_ *miner, at *proof.Place) { at.Tip = 1 << 31 }},
		{"headers that are missing", "headers are missing", func(m *miner, _ *proof.Place) { m.headers = m.headers[:length-5] }},
		{"another chain from before the checkpoint", "block 2000 is another one", func(m *miner, _ *proof.Place) { m.fork(1990, nil) }},
		{"a header without work", "too little work", func(m *miner, _ *proof.Place) {
			h := &m.headers[length-1]
			for hash := h.Hash(); hash[31] < 0x80; hash = h.Hash() {
				h[76]++
			}
		}},
		{"blocks that ask for less work", "another target", func(m *miner, _ *proof.Place) {
			m.fork(2500, func(h *proof.Header) { binary.LittleEndian.PutUint32(h[72:], 0x207fffff) })
		}},
		{"a target that stays where it should change", "another target", func(m *miner, _ *proof.Place) {
			m.fork(4032, func(h *proof.Header) { binary.LittleEndian.PutUint32(h[72:], m.headers[4031].Bits()) })
		}},
		{"blocks from the past", "the time of block", func(m *miner, _ *proof.Place) {
			m.fork(4000, func(h *proof.Header) { binary.LittleEndian.PutUint32(h[68:], uint32(begin.Unix())) })
		}},
		{"blocks from the future, for easier targets", "the time of block", func(m *miner, _ *proof.Place) {
			m.fork(4000, func(h *proof.Header) { binary.LittleEndian.PutUint32(h[68:], uint32(now.Add(24*time.Hour).Unix())) })
		}},
		{"headers that do not follow", "does not follow", func(m *miner, _ *proof.Place) {
			m.headers[4050], m.headers[4051] = m.headers[4051], m.headers[4050]
		}},
	} {
		m, at := known(t, length, paid, checkpoint)
		attack.do(m, &at)
		if _, err := m.check(at); !errors.Is(err, proof.ErrWrong) || !strings.Contains(err.Error(), attack.want) {
			t.Errorf("%s: %v", attack.name, err)
		}
	}
}

// fork has other blocks from a height on, with the same merkle roots.
func (m *miner) fork(from int, change func(*proof.Header)) {
	old := m.headers
	m.headers = slices.Clone(old[:from])
	for height := from; height < len(old); height++ {
		only := change
		if height > from && height%2016 != 0 && change != nil && old[height].Bits() != old[from].Bits() {
			only = nil
		}
		if change == nil {
			only = func(h *proof.Header) { h[0] = 5 }
		}
		m.mine(old[height].Root(), only)
	}
}

// An inner node of a merkle tree is two hashes, and could be read as a transaction.
func TestOnlyTheBytesOfTheTransactionAreTaken(t *testing.T) {
	id := chain.Double(payment)
	if tx, err := proof.Transaction(id, payment); err != nil || len(tx.Outputs) != 1 || tx.Outputs[0].Value != 50e8 {
		t.Errorf("%+v, %v", tx, err)
	}
	// 64 bytes with the form of a transaction: one input without a script, an output of 4 bytes.
	ambiguous := append([]byte{1, 0, 0, 0, 1}, make([]byte, 36)...)
	ambiguous = append(ambiguous, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0x51, 0x51, 0x51, 0x51, 0, 0, 0, 0)
	if _, err := chain.ParseTx(ambiguous); err != nil || len(ambiguous) != 64 {
		t.Fatalf("%d bytes: %v", len(ambiguous), err)
	}
	for name, raw := range map[string][]byte{"another": append(slices.Clone(payment[:len(payment)-1]), 1), "none": {1, 2, 3}, "nothing": {}} {
		if _, err := proof.Transaction(id, raw); !errors.Is(err, proof.ErrWrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := proof.Transaction(chain.Double(ambiguous), ambiguous); !errors.Is(err, proof.ErrWrong) {
		t.Errorf("two hashes: %v", err)
	}
}

// The cases of Bitcoin Core's pow_tests.cpp, with blocks of mainnet.
func TestTargetsChangeAsOnMainnet(t *testing.T) {
	mainnet, err := proof.Mainnet()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		first, last int64
		bits, want  uint32
	}{
		{1261130161, 1262152739, 0x1d00ffff, 0x1d00d86a},
		{1231006505, 1233061996, 0x1d00ffff, 0x1d00ffff}, // no easier than the easiest
		{1279008237, 1279297671, 0x1c05a3f4, 0x1c0168fd}, // at most four times harder
		{1263163443, 1269211443, 0x1c387f6f, 0x1d00e1fd}, // at most four times easier
	} {
		if got := mainnet.Next(c.bits, c.last-c.first); got != c.want {
			t.Errorf("%x, not %x", got, c.want)
		}
	}
	for _, bits := range []uint32{0x1d00ffff, 0x1b0404cb, 0x170331db, 0x03123456, 0x02008000, 0x01010000} {
		if got := proof.FromBits(proof.ToBits(proof.FromBits(bits))); got.Cmp(proof.FromBits(bits)) != 0 {
			t.Errorf("%x: %x", bits, got)
		}
	}
	if proof.FromBits(0x1d80ffff).Sign() != 0 {
		t.Error("a negative target counts")
	}
}

func TestCheckpointsAreInOrderAndNoFartherApartThanAnAppCanFetch(t *testing.T) {
	mainnet, err := proof.Mainnet()
	if err != nil {
		t.Fatal(err)
	}
	const calls, each = 100, 2000 // nodes answer so many calls at once
	before := uint32(0)
	for _, c := range mainnet.Checkpoints {
		if c.Height <= before || c.Height-before > calls*each || c.Hash[31]|c.Hash[30]|c.Hash[29]|c.Hash[28] != 0 {
			t.Errorf("%d: %v", c.Height, c.Hash)
		}
		before = c.Height
	}
}

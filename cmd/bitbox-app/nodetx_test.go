//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/proof"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// ofSize is a transaction of a size in bytes: one input, and one output with a long script.
func ofSize(t *testing.T, size int) (id proof.Hash, raw []byte) {
	t.Helper()
	const rest = 4 + 1 + 32 + 4 + 1 + 4 + 1 + 8 + 5 + 4
	raw = append([]byte{2, 0, 0, 0, 1}, bytes.Repeat([]byte{7}, 36)...)
	raw = append(raw, 0, 0xff, 0xff, 0xff, 0xff, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0xfe)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(size-rest))
	raw = append(raw, bytes.Repeat([]byte{0x51}, size-rest)...)
	raw = append(raw, 0, 0, 0, 0)
	tx, err := chain.ParseTx(raw)
	if err != nil || len(raw) != size {
		t.Fatalf("%d bytes: %v", len(raw), err)
	}
	return tx.ID, raw
}

// The longest transactions that a block can have come in parts of 100,000 bytes, and are whole.
func TestATransactionOfAnySizeIsToldWhole(t *testing.T) {
	for _, size := range []int{1000, electrum.MaxTransaction, electrum.MaxTransaction + 1, 250_000, proof.MaxTransaction} {
		id, want := ofSize(t, size)
		asked := 0
		tell := func(offset uint32) (*basev1.GetTransactionResponse, error) {
			asked++
			answer := &basev1.GetTransactionResponse{}
			electrum.Tell(answer, want, offset)
			if len(answer.Transaction)+len(answer.Part) > electrum.MaxTransaction {
				t.Errorf("%d bytes at once", len(answer.Part))
			}
			return answer, nil
		}
		first, _ := tell(0)
		raw, err := wholeTx(first, tell)
		if err != nil || !bytes.Equal(raw, want) {
			t.Fatalf("%d bytes of %d: %v", len(raw), size, err)
		}
		if tx, err := proof.Transaction(id, raw); err != nil || len(tx.Outputs) != 1 {
			t.Errorf("%d bytes: %v", size, err)
		}
		if asked > 10 {
			t.Errorf("%d bytes: asked %d times", size, asked)
		}
	}
}

// The attack: a Base that was taken over tells parts without end, none, or those of another transaction.
func TestPartsOfALyingBaseAreBounded(t *testing.T) {
	id, _ := ofSize(t, 250_000)
	_, other := ofSize(t, 240_000)
	part := func(size uint32, b []byte) *basev1.GetTransactionResponse {
		return &basev1.GetTransactionResponse{Size: size, Part: b}
	}
	const long = electrum.MaxTransaction
	for name, lie := range map[string]struct {
		first *basev1.GetTransactionResponse
		next  func(offset uint32) []byte
		most  int // questions
	}{
		"no block has room for it": {part(proof.MaxTransaction+1, make([]byte, long)), func(uint32) []byte { return make([]byte, long) }, 0},
		"four billion bytes":       {part(1<<32-1, make([]byte, long)), func(uint32) []byte { return make([]byte, long) }, 0},
		"no part follows":          {part(250_000, make([]byte, long)), func(uint32) []byte { return nil }, 1},
		"no part at all":           {part(250_000, nil), func(uint32) []byte { return nil }, 1},
		"too much":                 {part(250_000, make([]byte, long)), func(uint32) []byte { return make([]byte, 900_000) }, 1},
		"another one":              {part(240_000, other[:long]), func(at uint32) []byte { return other[at:min(int(at)+long, len(other))] }, 2},
	} {
		asked := 0
		raw, err := wholeTx(lie.first, func(offset uint32) (*basev1.GetTransactionResponse, error) {
			asked++
			return part(0, lie.next(offset)), nil
		})
		if err == nil {
			_, err = proof.Transaction(id, raw)
		}
		if err == nil || len(raw) > proof.MaxTransaction || asked > lie.most {
			t.Errorf("%s: %v after %d questions and %d bytes", name, err, asked, len(raw))
		}
		if lie.most == 0 && !errors.Is(err, client.ErrLyingBase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A Base of an older version, which knows no parts: nothing is told, and nothing proved.
	if raw, err := wholeTx(&basev1.GetTransactionResponse{}, nil); len(raw) != 0 || err != nil {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}

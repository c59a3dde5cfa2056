package chain_test

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"pgregory.net/rapid"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// genesis is the first block of Bitcoin's mainnet.
const genesis = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c" +
	"0101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"

func TestTheFirstBlockOfBitcoinIsRead(t *testing.T) {
	raw, err := hex.DecodeString(genesis)
	if err != nil {
		t.Fatal(err)
	}
	b, err := chain.ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	if b.Header.Hash().String() != "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f" || len(b.Txs) != 1 || b.First != 81 ||
		!b.Txs[0].Coinbase() || b.Txs[0].Outputs[0].Value != 50e8 {
		t.Errorf("%+v", b)
	}
	// The example of the Electrum protocol's documentation.
	if got := b.Txs[0].Outputs[0].ScriptHash().String(); got != "740485f380ff6379d11ef6fe7d7cdd68aea7f8bd0d953d9fdf3531fb7d531833" {
		t.Error(got)
	}
	for length := range raw {
		if _, err := chain.ParseBlock(raw[:length]); err == nil {
			t.Fatalf("%d of its bytes are a block", length)
		}
	}
	raw[len(raw)-1] ^= 1
	if _, err := chain.ParseBlock(raw); err == nil {
		t.Error("another transaction belongs to the header")
	}
}

// drawTx draws a transaction of btcd's library.
func drawTx(t *rapid.T) *wire.MsgTx {
	some := func(most int, name string) []byte { return rapid.SliceOfN(rapid.Byte(), 0, most).Draw(t, name) }
	tx := wire.NewMsgTx(rapid.Int32().Draw(t, "version"))
	witnesses := rapid.Bool().Draw(t, "witnesses")
	for range rapid.IntRange(1, 4).Draw(t, "inputs") {
		spent := wire.NewOutPoint(&chainhash.Hash{rapid.Byte().Draw(t, "spent")}, rapid.Uint32().Draw(t, "index"))
		in := wire.NewTxIn(spent, some(300, "script"), nil)
		if witnesses {
			in.Witness = wire.TxWitness{some(70, "signature"), some(300, "program")}
		}
		tx.AddTxIn(in)
	}
	for range rapid.IntRange(1, 4).Draw(t, "outputs") {
		tx.AddTxOut(wire.NewTxOut(rapid.Int64Min(0).Draw(t, "value"), some(300, "to")))
	}
	tx.LockTime = rapid.Uint32().Draw(t, "lock")
	return tx
}

// same compares a transaction with what btcd's library reads.
func same(t interface{ Errorf(string, ...any) }, got chain.Tx, want *wire.MsgTx) {
	var raw bytes.Buffer
	if err := want.Serialize(&raw); err != nil || !bytes.Equal(raw.Bytes(), got.Raw) || got.ID != chain.Hash(want.TxHash()) {
		t.Errorf("%v is %v, %v", want.TxHash(), got.ID, err)
	}
	spends := 0
	for _, in := range want.TxIn {
		o := chain.Outpoint{ID: chain.Hash(in.PreviousOutPoint.Hash), Index: in.PreviousOutPoint.Index}
		if o == (chain.Outpoint{Index: 0xffffffff}) {
			continue
		}
		if spends >= len(got.Spends) || got.Spends[spends] != o {
			t.Errorf("it spends %v", got.Spends)
			return
		}
		spends++
	}
	if spends != len(got.Spends) || len(got.Outputs) != len(want.TxOut) {
		t.Errorf("%+v", got)
		return
	}
	for i, out := range want.TxOut {
		if got.Outputs[i].Value != uint64(out.Value) || !bytes.Equal(got.Outputs[i].Script, out.PkScript) {
			t.Errorf("output %d is %+v", i, got.Outputs[i])
		}
	}
}

func TestBlocksAreReadAsBtcdsLibraryReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := wire.NewMsgBlock(wire.NewBlockHeader(1, &chainhash.Hash{1}, &chainhash.Hash{}, 2, 3))
		b.Header.Timestamp = time.Unix(int64(rapid.Uint32().Draw(t, "time")), 0)
		var ids []chain.Hash
		for range rapid.IntRange(1, 6).Draw(t, "transactions") {
			tx := drawTx(t)
			ids = append(ids, chain.Hash(tx.TxHash()))
			if err := b.AddTransaction(tx); err != nil {
				t.Fatal(err)
			}
		}
		b.Header.MerkleRoot = chainhash.Hash(chain.Root(ids))
		var raw bytes.Buffer
		if err := b.Serialize(&raw); err != nil {
			t.Fatal(err)
		}
		got, err := chain.ParseBlock(raw.Bytes())
		if err != nil || got.Header.Hash() != chain.Hash(b.BlockHash()) {
			t.Fatalf("%v", err)
		}
		at := got.First
		for i, tx := range b.Transactions {
			same(t, got.Txs[i], tx)
			if !bytes.HasPrefix(raw.Bytes()[at:], got.Txs[i].Raw) {
				t.Errorf("transaction %d is not at %d", i, at)
			}
			at += len(got.Txs[i].Raw)
		}
		// Each leads to the root, as a wallet checks it.
		for i, id := range ids {
			root, branch := chain.Branch(ids, i)
			for level, other := range branch {
				pair := append(id[:], other[:]...)
				if i>>level&1 == 1 {
					pair = append(other[:], id[:]...)
				}
				id = chain.Double(pair)
			}
			if id != root {
				t.Errorf("transaction %d does not lead to the root", i)
			}
		}
	})
}

func FuzzTransaction(f *testing.F) {
	raw, err := hex.DecodeString(genesis)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[81:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := chain.ParseTx(raw)
		if err != nil {
			return
		}
		// btcd's library reads the same. It has limits on sizes of its own.
		var want wire.MsgTx
		if err := want.Deserialize(bytes.NewReader(raw)); err != nil {
			t.Skip()
		}
		same(t, got, &want)
	})
}

func FuzzBlock(f *testing.F) {
	raw, err := hex.DecodeString(genesis)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := chain.ParseBlock(raw)
		if err != nil {
			return
		}
		at := b.First
		for _, tx := range b.Txs {
			at += len(tx.Raw)
		}
		if at != len(raw) {
			t.Errorf("its transactions end at %d of %d", at, len(raw))
		}
	})
}

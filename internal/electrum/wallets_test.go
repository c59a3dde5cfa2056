package electrum_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// The requests of wallets that cannot run here: Sparrow (BatchedElectrumServerRpc,
// PagedBatchRequestBuilder), BlueWallet (BlueElectrum, electrum-client) and the BitBoxApp
// (block-client-go). How Sparrow and BlueWallet begin was read in their sources; the rest follows the
// protocol as they are known to use it. $hash, $tx and $absent stand for a script, its first
// transaction, and one that nobody knows.
func TestWalletsThatCannotRunHereGetTheAnswersThatTheyRead(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	s := newServer(t, b)
	hash, absent := scriptHash(t, rewards), strings.Repeat("ab", 32)
	var entries []historyEntry
	s.dial().must(&entries, "blockchain.scripthash.get_history", hash)
	fill := strings.NewReplacer("$hash", hash, "$tx", entries[0].ID, "$absent", absent)
	for name, exchanges := range map[string][][2]string{
		"Sparrow": {
			{`{"jsonrpc":"2.0","method":"server.version","params":{"client_name":"Sparrow","protocol_version":["1.3","1.4.2"]},"id":1}`, `,"1.4.2"]`},
			{`{"jsonrpc":"2.0","method":"server.features","id":2}`, `"genesis_hash":"0f9188f1`},
			{`{"jsonrpc":"2.0","method":"server.banner","id":3}`, `"result":""`},
			{`{"jsonrpc":"2.0","method":"blockchain.headers.subscribe","id":4}`, `"height":3`},
			{`[{"jsonrpc":"2.0","method":"blockchain.estimatefee","params":[1],"id":5},{"jsonrpc":"2.0","method":"blockchain.estimatefee","params":[2],"id":6}]`,
				`{"jsonrpc":"2.0","id":6,"result":-1}]`},
			{`{"jsonrpc":"2.0","method":"mempool.get_fee_histogram","id":7}`, `"result":[]`},
			{`{"jsonrpc":"2.0","method":"blockchain.relayfee","id":8}`, `"result":`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.subscribe","params":["$hash"],"id":9},` +
				`{"jsonrpc":"2.0","method":"blockchain.scripthash.subscribe","params":["$absent"],"id":10}]`, `{"jsonrpc":"2.0","id":10,"result":null}]`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.get_history","params":["$hash"],"id":11}]`, `{"tx_hash":"$tx","height":1}`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.get_mempool","params":["$hash"],"id":12}]`, `"result":[]`},
			{`[{"jsonrpc":"2.0","method":"blockchain.block.header","params":[1],"id":13},{"jsonrpc":"2.0","method":"blockchain.block.header","params":[2],"id":14}]`,
				`"id":14,"result":"`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx"],"id":15}]`, `"result":"0`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":16},` +
				`{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$absent",true],"id":17}]`, `"confirmations":3`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get_merkle","params":["$tx",1],"id":18}]`, `"merkle":[],"pos":0`},
			{`[{"jsonrpc":"2.0","method":"blockchain.block.headers","params":[0,2016],"id":19},` +
				`{"jsonrpc":"2.0","method":"blockchain.block.headers","params":[2016,2016],"id":20}]`, `"count":0`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.unsubscribe","params":["$hash"],"id":21}]`, `"result":true`},
			{`{"jsonrpc":"2.0","method":"server.ping","id":22}`, `"result":null`},
		},
		"BlueWallet": {
			{`{"jsonrpc":"2.0","method":"server.version","params":["bluewallet","1.4"],"id":1}`, `,"1.4"]`},
			{`{"jsonrpc":"2.0","method":"blockchain.headers.subscribe","params":[],"id":2}`, `"height":3`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.get_balance","params":["$hash"],"id":3}`, `"confirmed":15000000000`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.get_balance","params":["$hash"],"id":4},` +
				`{"jsonrpc":"2.0","method":"blockchain.scripthash.get_balance","params":["$absent"],"id":5}]`, `"confirmed":0`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.get_history","params":["$hash"],"id":6}]`, `{"tx_hash":"$tx","height":1}`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.listunspent","params":["$hash"],"id":7}]`, `"tx_pos":0,"height":1,"value":5000000000`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":8}]`, `"scriptPubKey"`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",false],"id":9}`, `"result":"0`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.get_merkle","params":["$tx",1],"id":10}`, `"block_height":1`},
			{`{"jsonrpc":"2.0","method":"mempool.get_fee_histogram","params":[],"id":11}`, `"result":[]`},
			{`{"jsonrpc":"2.0","method":"blockchain.estimatefee","params":[1],"id":12}`, `"result":-1`},
			{`{"jsonrpc":"2.0","method":"server.features","params":[],"id":13}`, `"hash_function":"sha256"`},
			{`{"jsonrpc":"2.0","method":"server.ping","params":[],"id":14}`, `"result":null`},
		},
		"BitBoxApp": {
			{`{"jsonrpc":"2.0","id":0,"method":"server.version","params":["BitBox Wallet App","1.4"]}`, `,"1.4"]`},
			{`{"jsonrpc":"2.0","id":1,"method":"blockchain.headers.subscribe","params":[]}`, `"height":3`},
			{`{"jsonrpc":"2.0","id":2,"method":"blockchain.block.headers","params":[0,2016]}`, `"count":4,"hex":"01000000`},
			{`{"jsonrpc":"2.0","id":3,"method":"blockchain.scripthash.subscribe","params":["$hash"]}`, `"result":"`},
			{`{"jsonrpc":"2.0","id":4,"method":"blockchain.relayfee","params":[]}`, `"result":`},
		},
	} {
		w := s.dial()
		for _, e := range exchanges {
			if _, err := fmt.Fprintln(w.conn, fill.Replace(e[0])); err != nil {
				t.Fatal(err)
			}
			got, want := w.line(), fill.Replace(e[1])
			if !strings.Contains(got, want) || !json.Valid([]byte(got)) {
				t.Errorf("%s: %s\nis answered by %.400s\nwithout %s", name, e[0], got, want)
			}
		}
		// The session is still there.
		w.must(nil, "server.ping")
	}
}

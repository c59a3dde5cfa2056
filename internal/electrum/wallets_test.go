package electrum_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// The requests of wallets that cannot run here, as their sources write them, and what they read of the
// answers. Read were:
//
//   - Sparrow: BatchedElectrumServerRpc and the classes of its answers at 12d45a8 and ccfb9fd,
//     PagedBatchRequestBuilder and SimpleElectrumServerRpc at 7d459a9, ElectrumServer at 12d45a8. Silent
//     payments and blockchain.block.stats are asked only of servers that offer them: this one does not.
//     Sparrow knows by a server's name whether to send batches. It does not know ours, so it asks for one
//     thing at a time, and some of its IDs are texts; batches are here for the day on which it does.
//   - BlueWallet: BlueElectrum.ts at 0623885, rn-electrum-client at 518506a.
//   - BitBoxApp: block-client-go, electrum/client.go at 95c9170 and jsonrpc/client.go at 337d1e3;
//     bitbox-wallet-app, electrum/electrum.go at 5007f6c, electrum/client.go at f7890fb and
//     headers/headers.go at 0658b42. It asks nothing else of a server.
//
// $hash, $tx and $absent stand for a script, its first transaction, and one that nobody knows; $raw is no
// transaction.
func TestWalletsThatCannotRunHereGetTheAnswersThatTheyRead(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	s := newServer(t, b)
	hash, absent := scriptHash(t, rewards), strings.Repeat("ab", 32)
	var entries []historyEntry
	s.dial().must(&entries, "blockchain.scripthash.get_history", hash)
	fill := strings.NewReplacer("$raw", "00", "$hash", hash, "$tx", entries[0].ID, "$absent", absent)
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
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":30}]`, `"blockhash":"`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":31}]`, `"blocktime":`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":32}]`, `"hash":"$tx","hex":"0`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":33}]`, `"locktime":0,"size":`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":34}]`, `"txid":"$tx"`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get_merkle","params":["$tx",1],"id":18},` +
				`{"jsonrpc":"2.0","method":"blockchain.transaction.get_merkle","params":["$tx",2],"id":35}]`, `"block_height":1,"merkle":[],"pos":0`},
			{`{"jsonrpc":"2.0","method":"blockchain.block.headers","params":[0,2016],"id":36}`, `"count":4,"hex":"01000000`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.broadcast","params":["$raw"],"id":37}`, `"error":{"code":-32602,"message":"`},
			{`{"jsonrpc":"2.0","method":"blockchain.block.stats","params":[1],"id":38}`, `"error":{"code":-32601,`},
			{`[{"jsonrpc":"2.0","method":"blockchain.block.headers","params":[0,2016],"id":19},` +
				`{"jsonrpc":"2.0","method":"blockchain.block.headers","params":[2016,2016],"id":20}]`, `"count":0`},
			{`[{"jsonrpc":"2.0","method":"blockchain.scripthash.unsubscribe","params":["$hash"],"id":21}]`, `"result":true`},
			{`{"jsonrpc":"2.0","method":"server.ping","id":22}`, `"result":null`},
		},
		"Sparrow, one thing at a time": {
			{`{"jsonrpc":"2.0","method":"server.version","params":["Sparrow","1.4"],"id":1}`, `,"1.4"]`},
			{`{"jsonrpc":"2.0","method":"server.features","id":2}`, `"pruning":null`},
			{`{"jsonrpc":"2.0","method":"blockchain.headers.subscribe","id":3}`, `"height":3`},
			{`{"jsonrpc":"2.0","method":"blockchain.estimatefee","params":[25],"id":4}`, `"id":4,"result":-1`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.subscribe","params":["$hash"],"id":"m/84'/1'/0'/0/0-5"}`,
				`"id":"m/84'/1'/0'/0/0-5","result":"`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.subscribe","params":["$absent"],"id":"m/84'/1'/0'/1/0-6"}`,
				`"id":"m/84'/1'/0'/1/0-6","result":null`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.get_history","params":["$hash"],"id":"m/84'/1'/0'/0/0-7"}`,
				`{"tx_hash":"$tx","height":1}`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.get_mempool","params":["$hash"],"id":"m/84'/1'/0'/0/0-8"}`, `"result":[]`},
			{`{"jsonrpc":"2.0","method":"blockchain.block.header","params":[1],"id":9}`, `"id":9,"result":"`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx"],"id":10}`, `"result":"0`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":11}`, `"confirmations":3`},
			// By the beginning of this message it knows that the transaction was not sent yet.
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$absent",true],"id":12}`,
				`"error":{"code":2,"message":"No such mempool or blockchain transaction`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.get_merkle","params":["$tx",1],"id":13}`, `"block_height":1,"merkle":[],"pos":0`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.unsubscribe","params":["$hash"],"id":14}`, `"result":true`},
			{`{"jsonrpc":"2.0","method":"server.ping","id":15}`, `"result":null`},
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
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.get_mempool","params":["$hash"],"id":15}`, `"result":[]`},
			{`{"jsonrpc":"2.0","method":"blockchain.scripthash.get_history","params":["$absent"],"id":16}`, `"result":[]`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":17}]`, `"vsize":`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":18}]`, `"weight":`},
			{`[{"jsonrpc":"2.0","method":"blockchain.transaction.get","params":["$tx",true],"id":19}]`, `"time":`},
			{`{"jsonrpc":"2.0","method":"blockchain.estimatefee","params":[144],"id":20}`, `"result":-1`},
			{`{"jsonrpc":"2.0","method":"blockchain.transaction.broadcast","params":["$raw"],"id":21}`, `"error":{`},
			{`{"jsonrpc":"2.0","method":"server.version","params":["2.7.11","1.4"],"id":22}`, `,"1.4"]`},
		},
		"BitBoxApp": {
			{`{"jsonrpc":"2.0","id":0,"method":"server.version","params":["BitBoxApp/4.48.0","1.4"]}`, `,"1.4"]`},
			{`{"jsonrpc":"2.0","id":12,"method":"blockchain.block.headers","params":[4,10]}`, `"count":0,"hex":"","max":2016`},
			{`{"jsonrpc":"2.0","id":1,"method":"blockchain.headers.subscribe","params":[]}`, `"height":3`},
			{`{"jsonrpc":"2.0","id":2,"method":"blockchain.block.headers","params":[0,2016]}`, `"count":4,"hex":"01000000`},
			{`{"jsonrpc":"2.0","id":3,"method":"blockchain.scripthash.subscribe","params":["$hash"]}`, `"result":"`},
			{`{"jsonrpc":"2.0","id":4,"method":"blockchain.relayfee","params":[]}`, `"result":`},
			{`{"jsonrpc":"2.0","id":5,"method":"blockchain.scripthash.subscribe","params":["$absent"]}`, `"result":null`},
			{`{"jsonrpc":"2.0","id":6,"method":"blockchain.scripthash.get_history","params":["$hash"]}`, `{"tx_hash":"$tx","height":1}`},
			{`{"jsonrpc":"2.0","id":7,"method":"blockchain.transaction.get","params":["$tx"]}`, `"result":"0`},
			{`{"jsonrpc":"2.0","id":8,"method":"blockchain.transaction.get_merkle","params":["$tx",1]}`, `"block_height":1,"merkle":[],"pos":0`},
			{`{"jsonrpc":"2.0","id":9,"method":"blockchain.estimatefee","params":[2]}`, `"result":-1`},
			{`{"jsonrpc":"2.0","id":10,"method":"blockchain.transaction.broadcast","params":["$raw"]}`, `"error":{`},
			{`{"jsonrpc":"2.0","id":11,"method":"server.ping","params":[]}`, `"id":11,"result":null`},
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

package electrum_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// The attack: a wallet sends anything. A panic in any goroutine of the server ends the test, and
// each whole line that comes back is JSON. The server is the real one, on a btcd with some blocks.
func FuzzLinesOfAWallet(f *testing.F) {
	b := nodetest.StartBtcd(f, "regtest")
	b.Generate(3)
	s := makeServer(f, b)
	s.proxy = true
	s.start()
	s.until("the server is ready", func(p electrum.Progress) bool { return p.Ready })
	hash := scriptHash(f, rewards)
	for _, method := range []string{"server.version", "server.features", "blockchain.headers.subscribe", "blockchain.block.header",
		"blockchain.block.headers", "blockchain.scripthash.subscribe", "blockchain.scripthash.unsubscribe",
		"blockchain.scripthash.get_history", "blockchain.scripthash.get_balance", "blockchain.scripthash.listunspent",
		"blockchain.scripthash.get_mempool", "blockchain.transaction.get", "blockchain.transaction.get_merkle",
		"blockchain.transaction.id_from_pos", "blockchain.transaction.broadcast", "blockchain.transaction.broadcast_package",
		"blockchain.estimatefee", "mempool.get_info", "mempool.get_fee_histogram"} {
		for _, params := range []string{``, `,"params":[]`, `,"params":[null,null,null]`, `,"params":["` + hash + `",1,true]`,
			`,"params":[1,4294967295,0]`, `,"params":[4294967295,1]`, `,"params":[["00"],["1.4","1.6"]]`, `,"params":["x",["1.4","1.6"]]`} {
			f.Add(fmt.Sprintf(`{"id":1,"method":%q%s}`, method, params))
		}
	}
	f.Add(`[{"id":null,"method":"server.ping"},{"method":"server.ping"}]` + "\n[]\n{\n\n[[")
	var from atomic.Uint32
	f.Fuzz(func(t *testing.T, lines string) {
		conn, err := net.Dial("tcp4", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		// Each comes from an address of its own, so that none has to wait for what another has spent.
		n := from.Add(1)
		if _, err := fmt.Fprintf(conn, "PROXY TCP4 10.%d.%d.%d 10.0.0.1 9 9\r\n", byte(n>>16), byte(n>>8), byte(n)); err != nil {
			t.Fatal(err)
		}
		// A ping at the end is answered, unless the session has ended before.
		_, _ = conn.Write([]byte(lines + "\n" + `{"id":"end","method":"server.ping"}` + "\n"))
		// A wallet may have spent all that it may, and wait; that is no fault.
		_ = conn.SetReadDeadline(time.Now().Add(nodetest.Patience))
		for read := bufio.NewReader(conn); ; {
			line, err := read.ReadString('\n')
			if err != nil {
				return
			}
			if !json.Valid([]byte(line)) {
				t.Errorf("%q", line)
			}
			if strings.Contains(line, `"id":"end"`) {
				return
			}
		}
	})
}

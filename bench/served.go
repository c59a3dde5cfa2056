package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// The wallets of the measurement: each has an address of its own. Some never read what they asked for.
const (
	servedWallets = 1000
	slowWallets   = 50
	servedTime    = 2 * time.Minute
)

// answer is the RPC of a node that has told blocks.
func (c *walletChain) answer(w http.ResponseWriter, r *http.Request) {
	type call struct {
		ID     json.RawMessage
		Method string
		Params []json.RawMessage
	}
	var text json.RawMessage
	var calls []call
	if json.NewDecoder(r.Body).Decode(&text) != nil || json.Unmarshal(text, &calls) != nil {
		http.Error(w, "no batch", http.StatusBadRequest)
		return
	}
	told := int(c.told.Load())
	var replies []map[string]any
	for _, one := range calls {
		reply := map[string]any{"jsonrpc": "2.0", "id": one.ID}
		switch one.Method {
		case "getblockchaininfo":
			reply["result"] = map[string]any{"chain": "regtest", "blocks": told - 1, "headers": told - 1, "bestblockhash": c.hashes[told-1].String()}
		case "getblockhash":
			var height int
			_ = json.Unmarshal(one.Params[0], &height)
			reply["result"] = c.hashes[min(height, told-1)].String()
		default:
			reply["error"] = map[string]any{"code": -32601, "message": "not here"}
		}
		replies = append(replies, reply)
	}
	_ = json.NewEncoder(w).Encode(replies)
}

// heap is what lives on the heap now.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// peak watches how much memory the process has from the system for its heap, without what it gave back.
func peak() (stop func() float64) {
	done, most := make(chan struct{}), make(chan float64)
	go func() {
		var m runtime.MemStats
		high := 0.0
		for {
			runtime.ReadMemStats(&m)
			high = max(high, float64(m.HeapInuse+m.StackInuse)/1e6)
			select {
			case <-done:
				most <- high
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() float64 {
		close(done)
		return <-most
	}
}

// measureServed runs the whole server: memory while the index is built and at rest, and 1,000 wallets
// that wait for a block, beside some that never read.
func measureServed(r *report, c *walletChain) (err error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node := httptest.NewUnstartedServer(c)
	_ = node.Listener.Close()
	node.Listener = listener
	node.Start()
	defer node.Close()
	cookie, err := os.CreateTemp("", "bench-cookie")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(cookie.Name()) }()
	if _, err := cookie.WriteString("u:p"); err != nil {
		return err
	}
	from, err := source.New(source.Config{Program: settings.Core, Network: basev1.Network_NETWORK_REGTEST, RPC: listener.Addr().String(),
		Credentials: cookie.Name()})
	if err != nil {
		return err
	}
	defer from.Close()
	directory, err := os.MkdirTemp("", "bench-served")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	ctx, cancel := context.WithTimeout(context.Background(), servedTime)
	defer cancel()
	c.told.Store(int64(len(c.hashes) - 1))
	before := heap()
	high := peak()
	wallets := make(chan net.Listener, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- electrum.Run(ctx, electrum.Config{Node: from, Directory: directory, Interval: 50 * time.Millisecond, Proxy: true,
			Logger: slog.New(slog.DiscardHandler), Listen: func() (net.Listener, error) {
				l, err := net.Listen("tcp4", "127.0.0.1:0")
				if err == nil {
					wallets <- l
				}
				return l, err
			}})
	}()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	var at string
	select {
	case l := <-wallets:
		at = l.Addr().String()
	case <-ctx.Done():
		return errors.New("the server for wallets does not get ready")
	}
	r.add(figure{what: "wallet: memory while the index is built", unit: "MB", ours: high() - before})
	r.add(figure{what: "wallet: memory at rest, index open", unit: "MB", ours: heap() - before})
	heard, err := connectAll(ctx, at)
	if err != nil {
		return err
	}
	begun := time.Now()
	c.told.Store(int64(len(c.hashes)))
	times := heard()
	if len(times) < servedWallets {
		return fmt.Errorf("%d of %d wallets heard of a block", len(times), servedWallets)
	}
	var took []time.Duration
	for _, at := range times {
		took = append(took, at.Sub(begun))
	}
	slices.Sort(took)
	what := fmt.Sprintf("wallet: %d wallets hear of a block, %d others never read", servedWallets, slowWallets)
	r.add(figure{what: what + ", p50", unit: "ms", ours: took[len(took)/2].Seconds() * 1000})
	r.add(figure{what: what + ", p99", unit: "ms", ours: took[len(took)*99/100].Seconds() * 1000})
	r.add(figure{what: what + ", the last", unit: "ms", ours: took[len(took)-1].Seconds() * 1000})
	return nil
}

// connectAll connects the wallets, and returns when each has heard of the next block.
func connectAll(ctx context.Context, to string) (heard func() []time.Time, err error) {
	var mu sync.Mutex
	var times []time.Time
	var listening sync.WaitGroup
	hello := `{"id":1,"method":"blockchain.headers.subscribe","params":[]}` + "\n"
	script := chain.Output{Script: slices.Repeat([]byte{0x51}, 22)}.ScriptHash().String()
	hello += `{"id":2,"method":"blockchain.scripthash.subscribe","params":["` + script + `"]}` + "\n"
	for n := range servedWallets + slowWallets {
		conn, err := net.Dial("tcp4", to)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		text := fmt.Sprintf("PROXY TCP4 10.%d.%d.1 127.0.0.1 1 1\r\n", n/250, n%250) + hello
		if n >= servedWallets { // it asks for 16 MB, and reads nothing
			text += strings.Repeat(`{"id":3,"method":"blockchain.block.headers","params":[0,2016]}`+"\n", 2000)
			go func() { _, _ = conn.Write([]byte(text)) }()
			continue
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			return nil, err
		}
		lines := bufio.NewReader(conn)
		for range 2 {
			if _, err := lines.ReadString('\n'); err != nil {
				return nil, fmt.Errorf("wallet %d: %w", n, err)
			}
		}
		listening.Go(func() {
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				if strings.Contains(line, "blockchain.headers.subscribe") {
					mu.Lock()
					times = append(times, time.Now())
					mu.Unlock()
					return
				}
			}
		})
	}
	return func() []time.Time {
		listening.Wait()
		return times
	}, nil
}

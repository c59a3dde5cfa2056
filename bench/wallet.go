package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// The chain of the measurement: blocks as full as those of mainnet, of transactions with two
// inputs and two outputs.
const (
	walletBlocks = 50
	walletTxs    = 4800 // of 374 bytes: 1.8 MB
)

// regtestGenesis is the first block of regtest (chainparams.cpp of Bitcoin Core).
const regtestGenesis = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a" +
	"51323a9fb8aa4b1e5e4adae5494dffff7f20020000000101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d" +
	"0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e" +
	"6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7" +
	"ba0b8d578a4c702b6bf11d5fac00000000"

// walletChain are its blocks, as a node hands them out by REST.
type walletChain struct {
	hashes []chain.Hash
	raws   map[string][]byte
	bytes  int
	told   atomic.Int64 // how many blocks the RPC tells of
}

// ServeHTTP is Bitcoin Core's REST, with the parts of blocks of version 31, and what a server for
// wallets asks by RPC (servedWallets).
func (c *walletChain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		c.answer(w, r)
		return
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/rest/"), "/")
	if kind == "mempool" {
		_, _ = w.Write([]byte("[]"))
		return
	}
	raw := c.raws[strings.TrimSuffix(rest, ".bin")]
	if kind == "blockpart" {
		offset, _ := strconv.Atoi(r.FormValue("offset"))
		size, _ := strconv.Atoi(r.FormValue("size"))
		raw = raw[offset : offset+size]
	}
	_, _ = w.Write(raw)
}

// makeWalletChain makes it. ten and thousand get this many payments, all over the chain.
func makeWalletChain(ten, thousand []byte) *walletChain {
	random := rand.New(rand.NewChaCha8([32]byte{}))
	// Not on the heap: the collector would let that grow twice as large, and the figures with it.
	arena, err := unix.Mmap(-1, 0, walletBlocks*2_000_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	c := &walletChain{raws: map[string][]byte{}}
	first, err := hex.DecodeString(regtestGenesis)
	if err != nil {
		panic(err)
	}
	previous := chain.Double(first[:chain.HeaderSize])
	c.hashes, c.raws[previous.String()], c.bytes = append(c.hashes, previous), first, len(first)
	for height := 1; height <= walletBlocks; height++ {
		raw := make([]byte, chain.HeaderSize)
		copy(raw[4:], previous[:])
		raw = binary.LittleEndian.AppendUint16(append(raw, 0xfd), walletTxs)
		var ids []chain.Hash
		for at := range walletTxs {
			b := []byte{2, 0, 0, 0, 2}
			for range 2 {
				for range 4 + 1 + 13 { // an outpoint, and a signature
					b = binary.LittleEndian.AppendUint64(b, random.Uint64())
				}
				b[len(b)-18*8+36] = 103 // how long the signature is
			}
			b = append(b, 2)
			for out := range 2 {
				script := make([]byte, 22)
				binary.LittleEndian.PutUint64(script[2:], random.Uint64())
				switch {
				case out == 0 && at < 1000/walletBlocks:
					script = thousand
				case out == 1 && at == 0 && height%(walletBlocks/10) == 0:
					script = ten
				}
				b = append(binary.LittleEndian.AppendUint64(b, 1000), byte(len(script)))
				b = append(b, script...)
			}
			b = append(b, 0, 0, 0, 0)
			tx, err := chain.ParseTx(b)
			if err != nil {
				panic(err)
			}
			ids, raw = append(ids, tx.ID), append(raw, b...)
		}
		root := chain.Root(ids)
		copy(raw[36:], root[:])
		previous = chain.Double(raw[:chain.HeaderSize])
		size := copy(arena, raw)
		c.hashes, c.raws[previous.String()], arena = append(c.hashes, previous), arena[:size:size], arena[size:]
		c.bytes += size
	}
	return c
}

// wholeBlocks is a node that has no parts of blocks.
type wholeBlocks struct{ *source.Node }

// Part implements history.Blocks.
func (wholeBlocks) Part(context.Context, chain.Hash, uint32, uint32) ([]byte, error) {
	return nil, source.ErrNotOffered
}

// measureWallet builds the index of the server for wallets, and reads histories. The rival is a
// walk that fetches and parses the same blocks by the same transport, and keeps nothing.
func measureWallet(r *report) (err error) {
	ten, thousand := slices.Repeat([]byte{0x51}, 22), slices.Repeat([]byte{0x52}, 22)
	c := makeWalletChain(ten, thousand)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	rest := httptest.NewUnstartedServer(c)
	_ = rest.Listener.Close()
	rest.Listener = listener
	rest.Start()
	defer rest.Close()
	from, err := source.New(source.Config{Program: settings.Core, Network: basev1.Network_NETWORK_REGTEST, RPC: listener.Addr().String()})
	if err != nil {
		return err
	}
	defer from.Close()
	directory, err := os.MkdirTemp("", "bench-wallet")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	i, err := index.Open(index.Config{Directory: directory, First: c.hashes[0], Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	var walk, build time.Duration           // of the processor
	var walkClock, buildClock time.Duration // of the clock: the store's threads run beside the build
	for _, hash := range c.hashes {         // block by block, so that a busy machine disturbs both alike
		for _, part := range []struct {
			time, clock *time.Duration
			keep        func(*chain.Block) error
		}{{&walk, &walkClock, func(*chain.Block) error { return nil }}, {&build, &buildClock, i.Add}} {
			begun, since := processorTime(), time.Now()
			raw, err := from.Block(context.Background(), hash)
			if err != nil {
				return err
			}
			b, err := chain.ParseBlock(raw)
			if err == nil {
				err = part.keep(b)
			}
			if err != nil {
				return err
			}
			*part.time += processorTime() - begun
			*part.clock += time.Since(since)
		}
	}
	begun, since := processorTime(), time.Now()
	if err := i.Flush(); err != nil {
		return err
	}
	build += processorTime() - begun
	buildClock += time.Since(since)
	if err := i.Publish(); err != nil {
		return err
	}
	mb := float64(c.bytes) / 1e6
	r.add(figure{what: "wallet: building the index", unit: "MB/s", rival: "a walk", ours: mb / buildClock.Seconds(),
		their: mb / walkClock.Seconds(), more: true, least: 1.0 / 3})
	r.add(figure{what: "wallet: building the index, all threads", unit: "MB/s of CPU", rival: "a walk", ours: mb / build.Seconds(),
		their: mb / walk.Seconds(), more: true})
	r.add(figure{what: "wallet: size of the index", unit: "bytes a tx", ours: float64(i.Size()) / (walletBlocks * walletTxs)})
	for _, h := range []struct {
		script []byte
		want   int
	}{{ten, 10}, {thousand, 1000}} {
		for _, by := range []struct {
			name   string
			blocks history.Blocks
		}{{"parts", from}, {"whole blocks", wholeBlocks{from}}} {
			what := fmt.Sprintf("wallet: history of %d, by %s", h.want, by.name)
			if err := measureHistory(r, what, by.blocks, i.View(), h.script, h.want); err != nil {
				return err
			}
		}
	}
	return measureServed(r, c)
}

// processorTime is how long this process has computed. A build waits for the disk as well, and the
// threads of the store run beside it; a busy machine does not disturb this figure.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func measureHistory(r *report, what string, blocks history.Blocks, view *index.View, script []byte, want int) error {
	const rounds = 100
	var times []time.Duration
	for range rounds {
		begun := time.Now()
		h, err := history.Read(context.Background(), blocks, view, chain.Output{Script: script}.ScriptHash(), 10_000)
		if err != nil {
			return err
		}
		if len(h.Entries) != want {
			return fmt.Errorf("%s: the history has %d entries", what, len(h.Entries))
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	r.add(figure{what: what + ", p50", unit: "ms", ours: times[rounds/2].Seconds() * 1000})
	r.add(figure{what: what + ", p99", unit: "ms", ours: times[rounds*99/100].Seconds() * 1000})
	return nil
}

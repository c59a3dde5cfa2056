package main

import (
	"context"
	"encoding/binary"
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
	"syscall"
	"time"

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

// walletChain are its blocks, as a node hands them out by REST.
type walletChain struct {
	hashes []chain.Hash
	raws   map[string][]byte
	bytes  int
}

// ServeHTTP is Bitcoin Core's REST, with the parts of blocks of version 31.
func (c *walletChain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/rest/"), "/")
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
	c := &walletChain{raws: map[string][]byte{}}
	var previous chain.Hash
	for height := range walletBlocks + 1 { // nobody can spend what the first pays
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
				case height > 0 && out == 0 && at < 1000/walletBlocks:
					script = thousand
				case height > 0 && out == 1 && at == 0 && height%(walletBlocks/10) == 0:
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
		c.hashes, c.raws[previous.String()] = append(c.hashes, previous), raw
		c.bytes += len(raw)
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
	var walk, build time.Duration
	for _, hash := range c.hashes { // block by block, so that a busy machine disturbs both alike
		for _, part := range []struct {
			time *time.Duration
			keep func(*chain.Block) error
		}{{&walk, func(*chain.Block) error { return nil }}, {&build, i.Add}} {
			begun := processorTime()
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
		}
	}
	begun := processorTime()
	if err := i.Flush(); err != nil {
		return err
	}
	build += processorTime() - begun
	i.Publish()
	mb := float64(c.bytes) / 1e6
	r.add(figure{what: "wallet: building the index", unit: "MB/s of CPU", rival: "a walk", ours: mb / build.Seconds(),
		their: mb / walk.Seconds(),
		more:  true, least: 1.0 / 3})
	r.add(figure{what: "wallet: size of the index", unit: "bytes a tx", ours: float64(i.Size()) / ((walletBlocks + 1) * walletTxs)})
	for _, h := range []struct {
		script []byte
		want   int
	}{{ten, 10}, {thousand, 1000}} {
		for name, blocks := range map[string]history.Blocks{"parts": from, "whole blocks": wholeBlocks{from}} {
			if err := measureHistory(r, fmt.Sprintf("wallet: %d entries by %s", h.want, name), blocks, i.View(), h.script, h.want); err != nil {
				return err
			}
		}
	}
	return nil
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
	const rounds = 20
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
	r.add(figure{what: what + ", slowest of 20", unit: "ms", ours: times[rounds-1].Seconds() * 1000})
	return nil
}

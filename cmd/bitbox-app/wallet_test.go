//go:build linux

package main

import (
	"net/netip"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/wallets"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// listenForWallets has a server listen behind the API for wallets, with some wallets connected.
func listenForWallets(m *machinetest.Machine, peers ...netip.AddrPort) {
	upstream, _ := generation.Upstream(posture.KindElectrum)
	m.Listening(upstream)
	var all []wallets.Connection
	for n, peer := range peers {
		all = append(all, wallets.Connection{Cookie: uint64(n + 1), Peer: peer})
	}
	m.Connected(all...)
}

package nodetest

import (
	"context"
	"net"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// ServeWallets runs the server for wallets on this node until the test ends, and waits until it is
// ready. It returns where that listens, without TLS and PROXY lines, and what finds transactions.
func (b *Btcd) ServeWallets() (address string, finder *electrum.Finder) {
	b.t.Helper()
	address = FreeAddress(b.t)
	return address, b.ServeWalletsAt(func() (net.Listener, error) { return net.Listen("tcp4", address) })
}

// ServeWalletsAt is ServeWallets with a listener of the caller's.
func (b *Btcd) ServeWalletsAt(listen func() (net.Listener, error)) *electrum.Finder {
	b.t.Helper()
	from, err := source.New(source.Config{Program: settings.Btcd, Network: b.Network, RPC: b.RPC, Peer: b.P2P, Credentials: b.Credentials,
		Certificate: b.Certificate})
	if err != nil {
		b.t.Fatal(err)
	}
	finder := electrum.NewFinder()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	directory := b.t.TempDir()
	go func() {
		defer from.Close()
		ended <- electrum.Run(ctx, electrum.Config{Node: from, Directory: directory, Interval: Quick, Logger: Discard, Finder: finder,
			Listen: func() (net.Listener, error) {
				defer close(ready)
				return listen()
			}})
	}()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	select {
	case <-ready:
	case <-b.t.Context().Done():
	}
	return finder
}

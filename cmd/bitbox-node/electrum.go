package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// walletInterval is how often the node is asked for new blocks and transactions.
const walletInterval = time.Second

// serving are the flags of electrum.
type serving struct {
	watching
	peer, listen, finder string
}

func electrumCommand() *cobra.Command {
	var s serving
	command := &cobra.Command{
		Use:   "electrum",
		Short: "Serve wallets from a node that runs on this machine",
		Long: `electrum answers wallets by the Electrum protocol, versions 1.4 to 1.6. It reads all blocks of
the node once and keeps an index of them; no wallet can connect before that is complete. systemd
starts it on the appliance.

Without TLS and without a password it listens for NGINX, on a unix socket, or on 127.0.0.1.`,
		Example: `  bitbox-node electrum --own --data /var/lib/bitbox-electrum --socket /run/bitbox-electrum/wallets.sock
  bitbox-node electrum --network regtest --rpc 127.0.0.1:18443 --credentials FILE --data DIR --listen 127.0.0.1:50001`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	flags := command.Flags()
	s.nodeFlags(command)
	flags.StringVar(&s.peer, "peer", settings.PeerAddress, "where btcd listens for peers: 127.0.0.1 and a port")
	flags.StringVar(&s.data, "data", "", "directory of the index")
	flags.StringVar(&s.socket, "socket", "", "where to listen for NGINX, which sends PROXY lines")
	flags.StringVar(&s.finder, "finder", "", "where to answer 'bitbox-node watch' about transactions")
	flags.StringSliceVar(&s.users, "user", nil, "users that may ask there, beside this one and root")
	flags.StringVar(&s.listen, "listen", "", "where to listen in the place of --socket, without PROXY lines: 127.0.0.1 and a port")
	return command
}

func (s *serving) run(ctx context.Context) error {
	if s.data == "" || (s.socket == "") == (s.listen == "") {
		return errors.New("name a directory with --data, and one of --socket and --listen")
	}
	if s.own {
		own, err := settings.Read()
		if err != nil {
			return fmt.Errorf("%w: %w", errSettings, err)
		}
		data := s.data
		s.take(own)
		s.data = data
	}
	network, err := node.ParseNetwork(s.network)
	if err != nil {
		return err
	}
	program, err := settings.ParseProgram(s.program)
	if err != nil {
		return err
	}
	from, err := source.New(source.Config{Program: program, Network: network, RPC: s.rpc, Peer: s.peer, Credentials: s.credentials,
		Certificate: s.certificate})
	if err != nil {
		return err
	}
	defer from.Close()
	config := electrum.Config{Node: from, Directory: filepath.Join(s.data, s.network), Interval: walletInterval, Logger: newLogger(),
		Full:   fullDisk(s.data),
		Listen: func() (net.Listener, error) { return net.Listen("tcp4", s.listen) }}
	if s.finder != "" {
		stop, err := s.answer(ctx, &config)
		if err != nil {
			return err
		}
		defer stop()
	}
	if s.socket != "" {
		stopped, err := holdRunning(filepath.Join(filepath.Dir(s.socket), runningName))
		if err != nil {
			return err
		}
		defer stopped()
		config.Proxy = true
		config.Listen = func() (net.Listener, error) { return listenForProxy(s.socket) }
		progress := filepath.Join(filepath.Dir(s.socket), progressName)
		config.Tell = func(p electrum.Progress) { tellProgress(progress, p, config.Logger) }
		// Until it is ready there is no socket, and nothing to tell; both may be left from before.
		if err := errors.Join(removeIfThere(s.socket), removeIfThere(progress)); err != nil {
			return fmt.Errorf("remove the old socket for wallets: %w", err)
		}
		err = serveWallets(ctx, config)
		if err == nil { // it was stopped in order, and is no longer ready
			err = removeIfThere(progress)
		}
		return err
	}
	return serveWallets(ctx, config)
}

// answer answers about transactions, from before the index is ready until stop is called.
func (s *serving) answer(ctx context.Context, config *electrum.Config) (stop func(), err error) {
	users, err := numbers(s.users)
	if err != nil {
		return nil, err
	}
	const mode = 0o666 // the server asks who it is
	listener, err := ipc.Listen(s.finder, mode)
	if err != nil {
		return nil, err
	}
	config.Finder = electrum.NewFinder()
	server := node.Server{Finder: config.Finder, Users: append(users, 0, uint32(os.Geteuid())), Logger: config.Logger}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(ctx, listener); err != nil && ctx.Err() == nil {
			config.Logger.Error("nobody answers about transactions any more", "error", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}, nil
}

// serveWallets runs the server. A node that it can never serve from stays as it is: systemd does
// not start the unit again then.
func serveWallets(ctx context.Context, config electrum.Config) error {
	if err := os.MkdirAll(config.Directory, 0o700); err != nil {
		return fmt.Errorf("make the directory of the index: %w", err)
	}
	err := electrum.Run(ctx, config)
	if errors.Is(err, source.ErrPruned) || errors.Is(err, source.ErrNetwork) {
		if config.Tell != nil {
			config.Tell(electrum.Progress{Reason: err.Error()})
		}
		return fmt.Errorf("%w: %w", errSettings, err)
	}
	return err
}

// leastRoom is how much of its disk the index leaves to others, in bytes; of a small disk leastPart.
const leastRoom, leastPart = 2 << 30, 10

// fullDisk is for electrum.Config.Full.
func fullDisk(directory string) func() string {
	return func() string {
		if total, available, err := disk(directory); err == nil && available < min(leastRoom, total/leastPart) {
			return "the disk of the system, where the index for wallets is, is almost full; the index goes on once there is room"
		}
		return ""
	}
}

// listenForProxy makes the socket. Its folder gives it NGINX's group.
func listenForProxy(path string) (net.Listener, error) {
	if err := removeIfThere(path); err != nil {
		return nil, fmt.Errorf("remove the old socket for wallets: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for wallets: %w", err)
	}
	const mode = 0o660
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("let NGINX reach the socket for wallets: %w", err), listener.Close())
	}
	return listener, nil
}

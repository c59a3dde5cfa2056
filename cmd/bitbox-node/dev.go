package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

const (
	// devInterval is how often the node of a developer is asked.
	devInterval = time.Second
	// stopTime is how long btcd may take to stop.
	stopTime = 20 * time.Second
	// socketName is where dev answers, below its state.
	socketName = "node.sock"
)

// development is a node on a developer's machine: btcd on regtest, which makes blocks by itself.
type development struct {
	state, program string
	wallets        string // where wallets are served
	every          time.Duration
	logger         *slog.Logger
}

func devCommand() *cobra.Command {
	d := development{}
	var every string
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run a node of your own on this machine, which makes blocks by itself",
		Long: `dev starts btcd on regtest, a network that is this machine alone, has it make a block every
20 seconds, and watches it. 'bitbox-base dev --node' shows it to Apps; 'make run' starts both.
It also serves wallets on this machine, without TLS.

btcd deletes the blocks of regtest at each start.`,
		Example: `  bitbox-node dev --state /tmp/node --btcd build/btcd --block-every 5s`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if d.every, err = timespan.Parse(every); err != nil {
				return err
			}
			if d.every < time.Second {
				return errors.New("a block takes at least a second")
			}
			d.logger = newLogger()
			return d.run(c.Context())
		},
	}
	flags := command.Flags()
	flags.StringVar(&d.state, "state", ".dev/node", "directory of the node's data, of its log, and of the socket node.sock")
	flags.StringVar(&d.program, "btcd", "btcd", "the program btcd")
	flags.StringVar(&d.wallets, "wallets", "127.0.0.1:50001", "where wallets are served: 127.0.0.1 and a port; none: they are not")
	flags.StringVar(&every, "block-every", "20s", "how often a block is made")
	_ = command.MarkFlagDirname("state")
	return command
}

// run starts btcd, and watches it until ctx ends.
func (d *development) run(ctx context.Context) error {
	var err error
	if d.state, err = filepath.Abs(d.state); err != nil {
		return fmt.Errorf("find the directory of the node: %w", err)
	}
	if err := os.MkdirAll(d.state, 0o700); err != nil {
		return fmt.Errorf("make the directory of the node: %w", err)
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	peer, err := freeAddress()
	if err != nil {
		return err
	}
	if err := d.configure(address, peer); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	own, err := btcd.New(btcd.Config{Address: address, Credentials: d.path("credentials"), Certificate: d.path("rpc.cert"),
		Network: basev1.Network_NETWORK_REGTEST})
	if err != nil {
		return err
	}
	ended, err := d.start(ctx)
	if err != nil {
		return err
	}
	running.Go(func() {
		if err := <-ended; ctx.Err() == nil {
			d.logger.Error("btcd has ended by itself; its log is in "+d.path("log"), "error", err)
		}
	})
	running.Go(func() { mine(ctx, own, d.every) })
	config := node.Config{Node: own, Interval: devInterval, Logger: d.logger,
		Disk: func() (total, available uint64, err error) { return disk(d.state) }}
	var finder node.Finder
	if d.wallets != "" && d.wallets != "none" {
		config.Wallets = func() *basev1.WalletServer { return readProgress(d.path(progressName)) }
		server := electrum.NewFinder()
		running.Go(func() { d.serveWallets(ctx, address, peer, server) })
		finder = server
	}
	return serve(ctx, config, finder, d.path(socketName), nil)
}

// serveWallets serves wallets until ctx ends. Without them the Base goes on.
func (d *development) serveWallets(ctx context.Context, rpc, peer string, finder *electrum.Finder) {
	err := func() error {
		// btcd deletes its blocks at each start, so what is known of them is worth nothing.
		index := d.path("electrum")
		if err := errors.Join(os.RemoveAll(index), removeIfThere(d.path(progressName))); err != nil {
			return fmt.Errorf("remove the old index: %w", err)
		}
		from, err := source.New(source.Config{Program: settings.Btcd, Network: basev1.Network_NETWORK_REGTEST, RPC: rpc, Peer: peer,
			Credentials: d.path("credentials"), Certificate: d.path("rpc.cert")})
		if err != nil {
			return err
		}
		defer from.Close()
		return serveWallets(ctx, electrum.Config{Node: from, Directory: index, Interval: devInterval, Logger: d.logger, Finder: finder,
			Listen: func() (net.Listener, error) { return net.Listen("tcp4", d.wallets) },
			Tell:   func(p electrum.Progress) { tellProgress(d.path(progressName), p, d.logger) }})
	}()
	if err != nil && ctx.Err() == nil {
		d.logger.Error("wallets are not served", "error", err)
	}
}

func (d *development) path(name string) string { return filepath.Join(d.state, name) }

// configure writes btcd's configuration, with a password that is new each time.
func (d *development) configure(address, peer string) error {
	password, err := newPassword()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"credentials": "bitbox:" + password,
		"btcd.conf": fmt.Sprintf("[Application Options]\nregtest=1\nlisten=%s\nnodnsseed=1\ndatadir=%s\nlogdir=%s\nrpccert=%s\nrpckey=%s\n"+
			"rpclisten=%s\nrpcuser=bitbox\nrpcpass=%s\nminingaddr=%s\n",
			peer, d.path("data"), d.path("log"), d.path("rpc.cert"), d.path("rpc.key"), address, password, settings.RewardAddress),
	} {
		if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the configuration of btcd: %w", err)
		}
	}
	return nil
}

// freeAddress finds a port that is free at this moment.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port for btcd: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// start starts btcd, which is ended with ctx, or with this program.
func (d *development) start(ctx context.Context) (ended <-chan error, err error) {
	command := exec.CommandContext(ctx, d.program, "--configfile="+d.path("btcd.conf"))
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = stopTime
	// The signal comes when the thread ends that has started it, so that one stays.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started, result := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		if started <- err; err == nil {
			result <- command.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start btcd (%s): %w; 'make btcd' builds it", d.program, err)
	}
	return result, nil
}

// mine makes a block, now and again and again. A block that could not be made is no reason to
// end: btcd may be starting, and what watches it says how it is.
func mine(ctx context.Context, own *btcd.Btcd, every time.Duration) {
	const again = time.Second
	for {
		wait := every
		if err := own.Generate(ctx, 1); err != nil {
			wait = again
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/clock"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
)

// watching are the flags of watch.
type watching struct {
	program, network                    string
	rpc, credentials, certificate, file string
	data, socket                        string
	wallets                             string // how far the server for wallets is
	findAt                              string // where that answers about transactions
	users                               []string
	own                                 bool          // the Base's own node, as its settings say
	absent                              error         // why the Base's own node has no program
	acceptsBtcd                         bool          // on mainnet, too
	every                               time.Duration // it makes blocks by itself; 0: it does not
}

func watchCommand() *cobra.Command {
	var w watching
	command := &cobra.Command{
		Use:   "watch",
		Short: "Watch a node that runs on this machine",
		Long: `watch asks a node that runs on this machine, and answers on a unix socket. systemd starts it
on the appliance.

The node is Bitcoin Core 29 to 31, or a program with its interface, for every network that it
knows; or btcd 0.26 or newer for regtest, simnet, signet and testnet4. Nothing of the node is
changed: its configuration decides which questions are answered.`,
		Example: `  bitbox-node watch --credentials /var/lib/bitcoind/.cookie --data /var/lib/bitcoind --user bitbox-base
  bitbox-node watch --own --user bitbox-base --wallets /run/bitbox-electrum/progress.json
  bitbox-node watch --program btcd --network signet --rpc 127.0.0.1:38332 --credentials FILE --certificate FILE`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return w.run(c.Context()) },
	}
	flags := command.Flags()
	w.nodeFlags(command)
	flags.StringVar(&w.file, "installed", "", "file of the node's program; while it is missing there is no node")
	flags.StringVar(&w.data, "data", "", "directory of the node's data, to tell when its disk is full")
	flags.StringVar(&w.wallets, "wallets", "", "file in which bitbox-node electrum tells how far it is")
	flags.StringVar(&w.findAt, "finder", "", "where bitbox-node electrum answers about transactions")
	flags.StringVar(&w.socket, "socket", nodeclient.DefaultSocket, "where to answer")
	flags.StringSliceVar(&w.users, "user", nil, "users that may ask, beside this one and root")
	return command
}

// nodeFlags adds the flags that say where the node is.
func (w *watching) nodeFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&w.program, "program", "core", "the program of the node: core or btcd")
	flags.StringVar(&w.network, "network", "mainnet", "the network that the node must be on")
	flags.StringVar(&w.rpc, "rpc", "127.0.0.1:8332", "where its JSON-RPC listens: 127.0.0.1 and a port")
	flags.StringVar(&w.credentials, "credentials", "", "file with user:password; Bitcoin Core's cookie is one")
	flags.StringVar(&w.certificate, "certificate", "", "btcd's certificate")
	flags.BoolVar(&w.own, "own", false, "watch the Base's own node, as its settings say; flags about the node do not count")
	for flag, values := range map[string][]string{
		"program": {"core", "btcd"}, "network": {"mainnet", "testnet4", "signet", "regtest", "simnet"},
	} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// take takes the settings of the Base's own node in the place of flags.
func (w *watching) take(s settings.Settings) {
	w.program, w.network, w.every = string(s.Program), node.NetworkName(s.Network), s.BlockEvery
	w.rpc, w.credentials, w.certificate = settings.Address, s.Credentials(), s.Certificate()
	w.data, w.acceptsBtcd = settings.Data, s.AcceptsBtcd
	_, w.absent = s.Find()
}

// node makes the node that the flags mean; nil, with how that is shown, if it is not installed.
func (w *watching) node() (node.Node, *basev1.Node, error) {
	network, err := node.ParseNetwork(w.network)
	if err != nil {
		return nil, nil, err
	}
	program, err := settings.ParseProgram(w.program)
	if err != nil {
		return nil, nil, err
	}
	var made node.Node
	var name string
	switch program {
	case settings.Core:
		name = core.Program
		made, err = core.New(core.Config{Address: w.rpc, Cookie: w.credentials, Network: network})
	case settings.Btcd:
		if network == basev1.Network_NETWORK_MAINNET && !w.acceptsBtcd {
			return nil, nil, settings.ErrMainnet
		}
		name = btcd.Program
		made, err = btcd.New(btcd.Config{Address: w.rpc, Credentials: w.credentials, Certificate: w.certificate, Network: network})
	}
	if err != nil {
		return nil, nil, err
	}
	missing := w.absent != nil
	if w.file != "" {
		_, err := os.Stat(w.file)
		missing = errors.Is(err, fs.ErrNotExist)
	}
	if missing {
		return nil, &basev1.Node{State: basev1.Node_STATE_NOT_INSTALLED, Network: network,
			Reason: fmt.Sprintf("this Base has no %s node: %s is not installed", w.network, name)}, nil
	}
	return made, nil, nil
}

func (w *watching) run(ctx context.Context) error {
	made, without, err := w.find()
	if err != nil {
		return err
	}
	users, err := numbers(w.users)
	if err != nil {
		return err
	}
	config := node.Config{Node: made, Without: without, Logger: newLogger()}
	if w.data != "" {
		config.Disk = func() (total, available uint64, err error) { return disk(w.data) }
	}
	if w.own {
		config.Waits = waitsForClock
	}
	if w.wallets != "" {
		running := filepath.Join(filepath.Dir(w.wallets), runningName)
		config.Wallets = func() *basev1.WalletServer {
			told := readProgress(w.wallets)
			if told.GetReady() && !isRunning(running) {
				return &basev1.WalletServer{Height: told.GetHeight(), Target: told.GetTarget(), Reason: "the server for wallets does not run"}
			}
			return told
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	if own, is := made.(*btcd.Btcd); is && w.every > 0 {
		running.Go(func() { mine(ctx, own, w.every) })
	}
	var finder node.Finder
	if w.findAt != "" {
		finder = nodeclient.Dial(w.findAt)
	}
	return serve(ctx, config, finder, w.socket, users)
}

// waitsForClock is for node.Config.Waits.
func waitsForClock() string {
	if clock.Waits(settings.ClockLock) {
		return clock.Reason
	}
	return ""
}

// find is node for the flags or for the settings. Settings that cannot be used are told to the
// owner: nobody reads why a unit failed.
func (w *watching) find() (node.Node, *basev1.Node, error) {
	if !w.own {
		return w.node()
	}
	s, err := settings.Read()
	if err != nil {
		newLogger().Error("the Base's own node cannot be watched", "error", err)
		return nil, &basev1.Node{State: basev1.Node_STATE_STOPPED, Reason: node.Text(err.Error())}, nil
	}
	w.take(s)
	return w.node()
}

// serve watches and answers until ctx ends. The mode of the socket lets everybody connect: its
// folder and the server decide who may ask.
func serve(ctx context.Context, config node.Config, finder node.Finder, socket string, users []uint32) error {
	const mode = 0o666
	listener, err := ipc.Listen(socket, mode)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	watcher := node.NewWatcher(config)
	running.Go(func() { watcher.Run(ctx) })
	server := node.Server{Watcher: watcher, Finder: finder, Users: append(users, 0, uint32(os.Geteuid())), Logger: config.Logger}
	return server.Serve(ctx, listener)
}

// numbers looks users up.
func numbers(names []string) (numbers []uint32, err error) {
	for _, name := range names {
		found, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("look up the user %q, who may ask about the node: there is none", harmless.Word(name))
		}
		number, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up the user %q: its number %q cannot be", harmless.Word(name), found.Uid)
		}
		numbers = append(numbers, uint32(number))
	}
	return numbers, nil
}

// disk tells of the file system that holds a directory, in bytes.
func disk(directory string) (total, available uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(directory, &s); err != nil {
		return 0, 0, fmt.Errorf("ask how full the disk of %s is: %w", directory, err)
	}
	size := uint64(s.Bsize)
	return s.Blocks * size, s.Bavail * size, nil
}

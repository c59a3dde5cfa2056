// Package nodetest runs real Bitcoin nodes for tests, on 127.0.0.1: btcd, which is built from
// its module (node/btcd), and Bitcoin Knots of Debian, which has Bitcoin Core's interface
// (knots.go).
package nodetest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
	"golang.org/x/sys/unix"
)

// Patience is how long a test waits for what a node does; only one that fails reaches it.
const Patience = 3 * time.Minute

// Quick is how often tests have a node asked.
const Quick = 20 * time.Millisecond

// Discard is a log that nobody reads.
var Discard = slog.New(slog.DiscardHandler)

// repository is the top of the source tree, from the place of this file.
var repository = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}()

// Program returns the path of btcd. Go builds it once, and keeps it in its cache.
var Program = sync.OnceValues(func() (string, error) {
	command := exec.Command("go", "-C", filepath.Join(repository, "node", "btcd"), "tool", "-n", "btcd")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	var problem strings.Builder
	command.Stderr = &problem
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("build btcd: %w: %s", err, problem.String())
	}
	return strings.TrimSpace(string(out)), nil
})

// The ports of FreeAddress: below those that systems give to connections, and to who asks for any port.
const firstPort, ports = 10_000, 20_000

// Each process begins elsewhere, as several run at the same time.
var (
	portOffset = rand.Uint32N(ports)
	portsGiven atomic.Uint32
)

// FreeAddress returns an address of 127.0.0.1 with a port that is free at this moment, and that nobody
// else in this process is given. A port that the system has chosen would not do: between the look at it
// and its use, a connection of any other test may get it.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+(portOffset+portsGiven.Add(1))%ports)
		if listener, err := net.Listen("tcp4", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Btcd is a btcd that runs until the test ends.
type Btcd struct {
	t       testing.TB
	Network basev1.Network
	// Directory has its data; RPC and P2P are its addresses.
	Directory, RPC, P2P string
	// Credentials and Certificate are files.
	Credentials, Certificate string
	command                  *exec.Cmd
}

// StartBtcd starts a btcd on a network with a name as btcd's flags have it: regtest or simnet.
func StartBtcd(t testing.TB, network string) *Btcd {
	t.Helper()
	return StartBtcdIn(t, t.TempDir(), network)
}

// StartBtcdIn is StartBtcd with its data in a directory.
func StartBtcdIn(t testing.TB, directory, network string) *Btcd {
	t.Helper()
	parsed, err := node.ParseNetwork(network)
	if err != nil {
		t.Fatal(err)
	}
	b := &Btcd{t: t, Network: parsed, Directory: directory, RPC: FreeAddress(t), P2P: FreeAddress(t),
		Credentials: filepath.Join(directory, "credentials"), Certificate: filepath.Join(directory, "rpc.cert")}
	b.SetPassword("a password of this test")
	reward := map[string]string{
		"regtest": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "simnet": "sb1qw508d6qejxtdg4y5r3zarvary0c5xw7krxe8se",
	}[network]
	configuration := fmt.Sprintf("[Application Options]\n%s=1\nlisten=%s\nnodnsseed=1\nnobanning=1\ndatadir=%s\nlogdir=%s\nrpccert=%s\n"+
		"rpckey=%s\nrpclisten=%s\nrpcuser=test\nrpcpass=a password of this test\nminingaddr=%s\n", network, b.P2P, filepath.Join(directory, "data"),
		filepath.Join(directory, "log"), b.Certificate, filepath.Join(directory, "rpc.key"), b.RPC, reward)
	if err := os.WriteFile(filepath.Join(directory, "btcd.conf"), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	b.Start()
	return b
}

// SetPassword writes the file of the credentials. btcd's own password stays what it is.
func (b *Btcd) SetPassword(password string) {
	b.t.Helper()
	if err := os.WriteFile(b.Credentials, []byte("test:"+password+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// Start starts it and waits until it answers.
func (b *Btcd) Start() {
	b.t.Helper()
	program, err := Program()
	if err != nil {
		b.t.Fatal(err)
	}
	b.command = exec.Command(program, "--configfile="+filepath.Join(b.Directory, "btcd.conf"))
	if err := b.command.Start(); err != nil {
		b.t.Fatal(err)
	}
	Eventually(b.t, "btcd answers", func() bool {
		_, err := b.Node().Look(b.t.Context())
		return err == nil
	})
}

// Node returns it as a node.
func (b *Btcd) Node() *btcd.Btcd {
	b.t.Helper()
	n, err := btcd.New(btcd.Config{Address: b.RPC, Credentials: b.Credentials, Certificate: b.Certificate, Network: b.Network})
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// Generate makes blocks.
func (b *Btcd) Generate(blocks uint32) {
	b.t.Helper()
	if err := b.Node().Generate(b.t.Context(), blocks); err != nil {
		b.t.Fatal(err)
	}
}

// Call asks it something that package btcd does not ask.
func (b *Btcd) Call(into any, method string, params ...any) {
	b.t.Helper()
	raw := json.RawMessage{}
	call := &jsonrpc.Call{Method: method, Params: params, Into: &raw}
	if err := b.Node().Batch(b.t.Context(), call); err != nil {
		b.t.Fatal(err)
	}
	if into == nil { // btcd answers null to what only does something
		return
	}
	if call.Err != nil {
		b.t.Fatalf("%s: %v", method, call.Err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		b.t.Fatalf("%s: %v: %s", method, err, raw)
	}
}

// Height is how many blocks it has.
func (b *Btcd) Height() (height uint64) {
	b.t.Helper()
	Eventually(b.t, "btcd tells its height", func() bool {
		look, err := b.Node().Look(b.t.Context())
		if err == nil {
			height = look.Node.GetHeight()
		}
		return err == nil
	})
	return height
}

// Connect makes it a peer of another one until Disconnect, and waits until it is. It asks btcd to try once:
// btcd makes further connections to a peer that it has an order to keep, also after the order is gone.
func (b *Btcd) Connect(other *Btcd) {
	b.t.Helper()
	b.Call(nil, "addnode", other.P2P, "onetry")
	Eventually(b.t, "the peer is there", func() bool {
		there, err := b.has(other)
		return err == nil && there
	})
}

// Disconnect ends that.
func (b *Btcd) Disconnect(other *Btcd) {
	b.t.Helper()
	Eventually(b.t, "the peer is gone", func() bool {
		b.Call(nil, "node", "disconnect", other.P2P)
		there, err := b.has(other)
		return err == nil && !there
	})
}

// has tells whether another one is its peer. It fails while the chain is reorganised.
func (b *Btcd) has(other *Btcd) (bool, error) {
	look, err := b.Node().Look(b.t.Context())
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(look.Peers, func(p *basev1.Peer) bool { return p.GetAddress() == other.P2P }), nil
}

// Pause stops all its threads until Resume. SIGSTOP alone reaches them one after the other, and the last ones
// may still answer; the parent hears when the whole process has stopped.
func (b *Btcd) Pause() {
	b.t.Helper()
	b.signal(unix.SIGSTOP)
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Waitid(unix.P_PID, b.command.Process.Pid, nil, unix.WSTOPPED, nil)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// Resume has it go on after Pause.
func (b *Btcd) Resume() {
	b.t.Helper()
	b.signal(unix.SIGCONT)
}

func (b *Btcd) signal(signal unix.Signal) {
	b.t.Helper()
	if err := b.command.Process.Signal(signal); err != nil {
		b.t.Fatal(err)
	}
}

// Stop ends it in order.
func (b *Btcd) Stop() {
	b.t.Helper()
	b.signal(unix.SIGTERM)
	_ = b.command.Wait()
	b.command = nil
}

// Kill ends it as a power cut does.
func (b *Btcd) Kill() {
	if b.command != nil {
		_ = b.command.Process.Kill()
		_ = b.command.Wait()
		b.command = nil
	}
}

// Eventually waits until something is so.
func Eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never came that %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Serve runs what bitbox-node runs, at the path of a socket, until the test ends or stop is
// called.
func Serve(t testing.TB, socket string, config node.Config) (stop func()) {
	t.Helper()
	return ServeFinder(t, socket, config, nil)
}

// ServeFinder is Serve with what finds transactions.
func ServeFinder(t testing.TB, socket string, config node.Config, finder node.Finder) (stop func()) {
	t.Helper()
	listener, err := ipc.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if config.Logger == nil {
		config.Logger = Discard
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	watcher := node.NewWatcher(config)
	running.Go(func() { watcher.Run(ctx) })
	server := node.Server{Watcher: watcher, Finder: finder, Users: []uint32{uint32(os.Geteuid())}, Logger: config.Logger}
	running.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

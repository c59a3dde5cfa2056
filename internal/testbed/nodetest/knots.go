package nodetest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/debianroot"
)

// knotsSHA256 pins the program: Debian's package of Bitcoin Knots 29.4, for amd64. When Debian
// has a newer one, the tests say so.
const knotsSHA256 = "441c94a053f42d98678d2cdc2e0447dad8be4969623a73521dee86d2fda20813"

// knotsTime is how long it may take to fetch it.
const knotsTime = 10 * time.Minute

// cache is where Debian roots for tests are kept, as those of test/stage.
func cache() string {
	if dir := os.Getenv("BITBOX_BASE_STAGE_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/bitbox-base-stage"
}

// knotsRoot returns the root that has the program. It is fetched once, and never shipped.
var knotsRoot = sync.OnceValues(func() (string, error) {
	return unstable("knots-"+knotsSHA256[:16], checkKnots, "bitcoin-knots")
})

// unstable returns a root with packages of Debian's suite without releases. They are unpacked, not
// installed: programs run by the root's own dynamic linker.
func unstable(name string, check func(root string) error, packages ...string) (string, error) {
	root := filepath.Join(cache(), name)
	if _, err := os.Stat(root); err == nil {
		return root, check(root)
	}
	if err := os.MkdirAll(cache(), 0o755); err != nil {
		return "", err
	}
	parent, err := os.MkdirTemp(cache(), "new-"+name+"-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(parent) }()
	ctx, cancel := context.WithTimeout(context.Background(), knotsTime)
	defer cancel()
	fresh := filepath.Join(parent, "root")
	err = debianroot.Make(ctx, debianroot.Config{Directory: fresh, Suite: debianroot.Unstable, Packages: packages,
		Arguments: []string{"--variant=extract", `--aptopt=Acquire::Check-Valid-Until "false"`}})
	if err != nil {
		return "", err
	}
	if err := check(fresh); err != nil {
		return "", err
	}
	// Another test may have been quicker.
	if err := os.Rename(fresh, root); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return root, nil
}

// electrumVersion is the newest Electrum that the tests know.
const electrumVersion = "4.8.3"

// ElectrumRoot returns a root with the newest Electrum of Debian, without its screen.
var ElectrumRoot = sync.OnceValues(func() (string, error) {
	return unstable("electrum-"+electrumVersion, func(root string) error {
		text, err := os.ReadFile(filepath.Join(root, "usr/lib/python3/dist-packages/electrum/version.py"))
		if err == nil && !strings.Contains(string(text), "ELECTRUM_VERSION = '"+electrumVersion+"'") {
			err = errors.New("the Electrum of Debian is not " + electrumVersion + "; run the tests with it, and name it in nodetest")
		}
		return err
	}, "python3-electrum", "ca-certificates")
})

// KnotsRoot returns the root with Debian's bitcoin-knots, for a test that has it run elsewhere.
func KnotsRoot(t testing.TB) string {
	t.Helper()
	root, err := knotsRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// RPCAuth is the value of the option rpcauth for a user with a password (share/rpcauth of Bitcoin
// Core).
func RPCAuth(user, password string) string {
	const salt = "00112233"
	mac := hmac.New(sha256.New, []byte(salt))
	mac.Write([]byte(password))
	return user + ":" + salt + "$" + hex.EncodeToString(mac.Sum(nil))
}

// ElectrumCommand starts a Python program in that root.
func ElectrumCommand(program string, arguments ...string) []string {
	return append([]string{"/usr/lib64/ld-linux-x86-64.so.2", "--library-path", "/usr/lib/x86_64-linux-gnu", "/usr/bin/python3", program},
		arguments...)
}

func checkKnots(root string) error {
	file, err := os.Open(filepath.Join(root, "usr/bin/bitcoind"))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != knotsSHA256 {
		return fmt.Errorf("the bitcoind of Debian has the hash %s, not the pinned one; look at what is new, and pin it in nodetest", got)
	}
	return nil
}

// Knots is a bitcoind with Bitcoin Core's interface that runs on regtest until the test ends.
type Knots struct {
	t testing.TB
	// Directory has its data; RPC and P2P are its addresses.
	Directory, RPC, P2P string
	// Cookie is the path of its cookie.
	Cookie string
	// Chain is its network; a change counts from the next Start.
	Chain   string
	options []string
	command *exec.Cmd
	operate *jsonrpc.Client // may call everything
}

const operatorPassword = "a password for the test alone"

// StartKnots starts one with the configuration of docs/node.md, and more options.
func StartKnots(t testing.TB, options ...string) *Knots {
	t.Helper()
	return StartKnotsIn(t, t.TempDir(), options...)
}

// StartKnotsIn is StartKnots with its data in a directory.
func StartKnotsIn(t testing.TB, directory string, options ...string) *Knots {
	t.Helper()
	k := &Knots{t: t, Directory: directory, RPC: FreeAddress(t), P2P: FreeAddress(t), Chain: "regtest", options: options}
	k.Cookie = filepath.Join(k.Directory, "cookie")
	operator := filepath.Join(k.Directory, "operator")
	if err := os.WriteFile(operator, []byte("operator:"+operatorPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if k.operate, err = jsonrpc.New(jsonrpc.Config{Address: k.RPC, Credentials: operator}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Kill)
	k.Start()
	return k
}

// Start starts it and waits until it answers.
func (k *Knots) Start() {
	k.t.Helper()
	root := KnotsRoot(k.t)
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib/*/ld-linux-*.so.*"))
	if err != nil || len(loaders) == 0 {
		k.t.Fatalf("there is no dynamic linker in %s", root)
	}
	port := func(address string) string { _, port, _ := net.SplitHostPort(address); return port }
	arguments := append([]string{"--library-path", filepath.Dir(loaders[0]), filepath.Join(root, "usr/bin/bitcoind"),
		"-chain=" + k.Chain, "-datadir=" + k.Directory, "-rpccookiefile=" + k.Cookie,
		"-server=1", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-rpcport=" + port(k.RPC),
		"-bind=" + k.P2P, "-port=" + port(k.P2P), "-dnsseed=0", "-fixedseeds=0", "-acceptnonstdtxn=1", "-corepolicy=1",
		"-rpccookieperms=group", "-disablewallet=1", "-natpmp=0", "-dbcache=64", "-printtoconsole=0",
		"-rpcwhitelistdefault=0", "-rpcauth=" + RPCAuth("operator", operatorPassword)}, k.options...)
	if !strings.Contains(strings.Join(k.options, " "), "-rpcwhitelist=") {
		arguments = append(arguments, "-rpcwhitelist=__cookie__:"+strings.Join(core.Methods, ","))
	}
	k.command = exec.Command(loaders[0], arguments...)
	if err := k.command.Start(); err != nil {
		k.t.Fatal(err)
	}
	Eventually(k.t, "bitcoind answers", func() bool {
		call := &jsonrpc.Call{Method: "getblockcount", Into: new(int)}
		return k.operate.Batch(k.t.Context(), call) == nil && call.Err == nil
	})
}

// Node returns it as a node.
func (k *Knots) Node() *core.Core { return k.NodeOn(basev1.Network_NETWORK_REGTEST) }

// NodeOn returns it as a node that must be on a network.
func (k *Knots) NodeOn(network basev1.Network) *core.Core {
	k.t.Helper()
	n, err := core.New(core.Config{Address: k.RPC, Cookie: k.Cookie, Network: network})
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

// Call asks it as its operator, who may ask everything.
func (k *Knots) Call(into any, method string, params ...any) {
	k.t.Helper()
	raw := json.RawMessage{}
	call := &jsonrpc.Call{Method: method, Params: params, Into: &raw}
	if err := k.operate.Batch(k.t.Context(), call); err != nil {
		k.t.Fatal(err)
	}
	if into == nil { // it answers null to what only does something
		return
	}
	if call.Err != nil {
		k.t.Fatalf("%s: %v", method, call.Err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		k.t.Fatalf("%s: %v: %s", method, err, raw)
	}
}

// Flush has it write what it has in memory, as it does by itself each hour. It may fail at that.
func (k *Knots) Flush() {
	_ = k.operate.Batch(k.t.Context(), &jsonrpc.Call{Method: "gettxoutsetinfo", Params: []any{"none"}, Into: new(any)})
}

// Generate makes blocks whose rewards anybody may spend, and returns their hashes.
func (k *Knots) Generate(blocks int) (hashes []string) {
	k.t.Helper()
	k.Call(&hashes, "generatetodescriptor", blocks, "raw(51)#8lvh9jxk")
	return hashes
}

// Pay makes a transaction that spends the reward of a block which is 100 blocks old.
func (k *Knots) Pay(block string) {
	k.t.Helper()
	var of struct {
		Transactions []string `json:"tx"`
	}
	k.Call(&of, "getblock", block, 1)
	var raw, id string
	k.Call(&raw, "createrawtransaction", []any{map[string]any{"txid": of.Transactions[0], "vout": 0}},
		map[string]any{"bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080": 49.999})
	k.Call(&id, "sendrawtransaction", raw)
}

// Connect makes it a peer of another one.
func (k *Knots) Connect(other *Knots) { k.Call(nil, "addnode", other.P2P, "add") }

// Height is how many blocks it has.
func (k *Knots) Height() uint64 {
	k.t.Helper()
	look, err := k.Node().Look(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	return look.Node.GetHeight()
}

// Kill ends it as a power cut does.
func (k *Knots) Kill() {
	if k.command != nil {
		_ = k.command.Process.Kill()
		_ = k.command.Wait()
		k.command = nil
	}
}

// Ended waits until it has ended by itself.
func (k *Knots) Ended() {
	k.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = k.command.Wait()
	}()
	select {
	case <-ended:
		k.command = nil
	case <-time.After(Patience):
		k.Kill()
		k.t.Fatal("bitcoind does not end")
	}
}

// CutStop has it stop, and kills it in the middle of that. It tells whether that came in time.
func (k *Knots) CutStop() bool {
	k.t.Helper()
	path := filepath.Join(k.Directory, k.Chain, "debug.log")
	before, err := os.ReadFile(path)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := k.command.Process.Signal(syscall.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	Eventually(k.t, "bitcoind begins to stop", func() bool {
		now, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(now[len(before):]), "Shutdown: In progress")
	})
	_ = k.command.Process.Kill()
	_ = k.command.Wait()
	status, is := k.command.ProcessState.Sys().(syscall.WaitStatus)
	k.command = nil
	return is && status.Signaled()
}

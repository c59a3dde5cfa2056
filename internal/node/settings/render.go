package settings

import (
	"fmt"
	"path/filepath"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
)

// Places of the node on the appliance.
const (
	// Data has the chain. It is the node's own, and bitbox-node cannot read it.
	Data = "/var/lib/bitbox-bitcoin"
	// Runtime has configuration and credentials, for as long as the machine runs.
	Runtime = "/run/bitbox-bitcoin"
	// ClockLock is locked while a start waits for the clock (package clock).
	ClockLock = Runtime + "/clock"
	// LetOut tells which users the packet filter lets out: a file of the generation in force (package
	// generation has the same path).
	LetOut = "/var/lib/bitbox-base/system/current/let-out"
	// SystemUser is the user of the node.
	SystemUser = "bitcoin"
	// btcdFile is btcd, which the package brings.
	btcdFile = "/usr/lib/bitbox-base/btcd"
)

// RewardAddress gets the rewards of the blocks that are made on regtest: the example of BIP 173.
// Nobody wants to spend them.
const RewardAddress = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

// user is btcd's user of its RPC.
const user = "bitbox"

// Find returns the file of the program. Bitcoin Core is the newest that the builder or an owner has
// brought. A file that is not root's alone is refused.
func (s Settings) Find() (string, error) {
	if s.Program == Core {
		path, _, err := bitcoincore.Find(bitcoincore.Owned, bitcoincore.Built)
		return path, err
	}
	return btcdFile, bitcoincore.Executable(btcdFile)
}

// Config is the path of the program's configuration.
func (s Settings) Config() string { return filepath.Join(Runtime, string(s.Program)+".conf") }

// Credentials is the path of the file with "user:password", which the group may read.
func (s Settings) Credentials() string {
	return filepath.Join(Runtime, string(s.Program)+".credentials")
}

// Certificate is the path of btcd's certificate, which the group may read.
func (s Settings) Certificate() string { return filepath.Join(Runtime, "rpc.cert") }

// data is the folder of the program: Core must not find btcd's.
func (s Settings) data() string { return filepath.Join(Data, string(s.Program)) }

// Arguments are those of the program in a file. Everybody can read them, so that nothing secret is
// in them.
func (s Settings) Arguments(file string) []string {
	if s.Program == Btcd {
		return []string{file, "--configfile=" + s.Config()}
	}
	// settings.json in its own folder would count more than the configuration, and a Core that was
	// taken over could leave one to the next.
	return []string{file, "-conf=" + s.Config(), "-datadir=" + s.data(), "-nosettings"}
}

// Reindex are the arguments with which the program reads its blocks once more; none: it cannot.
func (s Settings) Reindex() []string {
	if s.Program == Btcd {
		return nil
	}
	return []string{"-reindex"}
}

// Chain are the folders with what the program has of the chain: what it has made of the blocks
// first, the blocks last. Its knowledge of peers and fees is elsewhere.
func (s Settings) Chain() []string {
	var folder string
	names := []string{"indexes", "chainstate", "blocks"}
	switch {
	case s.Program == Btcd:
		folder, names = filepath.Join(s.data(), "data", node.NetworkName(s.Network)), []string{"blocks_ffldb"}
	case s.Network == basev1.Network_NETWORK_MAINNET:
		folder = s.data()
	default:
		folder = filepath.Join(s.data(), node.NetworkName(s.Network))
	}
	var paths []string
	for _, name := range names {
		paths = append(paths, filepath.Join(folder, name))
	}
	return paths
}

// Folders are those that the program needs.
func (s Settings) Folders() []string { return []string{s.data()} }

// LoginText is what the file of the credentials has; empty: the program writes it by itself.
func (s Settings) LoginText(password string) string {
	if s.Program == Core {
		return ""
	}
	return user + ":" + password
}

// Render writes the configuration of the program. Nothing listens but its RPC, on 127.0.0.1. asked
// are the methods that Bitcoin Core answers, own are additional lines in the program's language.
func (s Settings) Render(password string, asked []string, own string) string {
	b := &strings.Builder{}
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	line("# Rendered at each start from the settings and %s; changes here are lost.", OwnFile)
	if s.Program == Btcd {
		s.btcd(line, password)
	} else {
		s.core(line, asked)
	}
	if own != "" {
		line("# From %s:", OwnFile)
		line("%s", strings.TrimSuffix(own, "\n"))
	}
	return b.String()
}

func (s Settings) core(line func(string, ...any), asked []string) {
	chain := node.NetworkName(s.Network)
	if s.Network == basev1.Network_NETWORK_MAINNET {
		chain = "main"
	}
	line("chain=%s", chain)
	line("server=1")
	line("listen=0")
	line("listenonion=0")
	line("natpmp=0")
	line("disablewallet=1")
	line("dbcache=%d", s.Cache)
	s.prune(line)
	line("# The journal has its log.")
	line("printtoconsole=1")
	line("debuglogfile=0")
	line("rpccookiefile=%s", s.Credentials())
	line("rpccookieperms=group")
	line("rpcallowip=127.0.0.1")
	line("rpcwhitelist=__cookie__:%s", strings.Join(asked, ","))
	line("# Blocks for the wallet index, without a password: they are public, and the packet filter")
	line("# lets no other user reach the port.")
	line("rest=1")
	line("# Core takes these from the section of a network alone.")
	line("[%s]", chain)
	line("rpcbind=127.0.0.1")
	line("rpcport=%d", Port)
}

// prune is the same in both programs: how many MiB of blocks are kept.
func (s Settings) prune(line func(string, ...any)) {
	if s.Prune > 0 {
		line("prune=%d", (s.Prune*gigabyte+mebibyte-1)/mebibyte)
	}
}

func (s Settings) btcd(line func(string, ...any), password string) {
	line("[Application Options]")
	if s.Network != basev1.Network_NETWORK_MAINNET { // which has no name there
		line("%s=1", node.NetworkName(s.Network))
	}
	line("datadir=%s", filepath.Join(s.data(), "data"))
	line("logdir=%s", filepath.Join(s.data(), "log"))
	line("# Blocks for the server for wallets.")
	line("listen=%s", PeerAddress)
	line("utxocachemaxsize=%d", s.Cache)
	s.prune(line)
	line("rpclisten=%s", Address)
	line("rpccert=%s", s.Certificate())
	line("rpckey=%s", filepath.Join(Runtime, "rpc.key"))
	line("rpcuser=%s", user)
	line("rpcpass=%s", password)
	switch s.Network {
	case basev1.Network_NETWORK_REGTEST:
		line("nodnsseed=1")
		line("miningaddr=%s", RewardAddress)
	case basev1.Network_NETWORK_SIMNET:
		line("nodnsseed=1")
	}
}

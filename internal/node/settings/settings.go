// Package settings has the settings of a Base's own Bitcoin node: an owner's order or a file of
// root's names program and network, and the configuration of that program is rendered from it.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

// Files of root's. Without the first two a Base has no node.
const (
	// SignedFile is what an owner has signed; the system helper writes it. It comes before File.
	SignedFile = "/var/lib/bitbox-base/system/node.conf"
	// File is what the builder, or root, has chosen.
	File = "/etc/bitbox-base/node.conf"
	// OwnFile has lines for the configuration of the program itself, in its language. They
	// stand at its end.
	OwnFile = "/etc/bitbox-base/node-own.conf"
	// maxSize is far more than either has, in bytes.
	maxSize = 16 << 10
)

// Port is where the node answers, on 127.0.0.1. The packet filter has the same.
const Port = 8332

// Address is that with the host.
const Address = "127.0.0.1:8332"

// PeerAddress is where btcd listens for peers: for those of this machine alone. The packet filter
// has the same port.
const PeerAddress = "127.0.0.1:8333"

// Program is a program that can be the node.
type Program string

// The programs.
const (
	Core Program = "core"
	Btcd Program = "btcd"
)

// Settings are those of a node.
type Settings struct {
	Program Program
	Network basev1.Network
	// Prune is how many GB of blocks the node keeps; 0: all.
	Prune int
	// Cache is how much of the chain's state the program holds in memory, in MiB.
	Cache int
	// BlockEvery has the Base make blocks by itself; 0: it does not. Only with btcd on regtest.
	BlockEvery time.Duration
	// AcceptsBtcd: the owner has typed that btcd may run on mainnet.
	AcceptsBtcd bool
}

// Bounds of the settings.
const (
	DefaultCache = 450 // that of Bitcoin Core
	minCache     = 4
	maxCache     = 16384
	minBlock     = time.Second
	maxBlock     = 24 * time.Hour
	// minPrune is above what btcd keeps at least, 1536 MiB, and Bitcoin Core, 550 MiB.
	minPrune = 2
	maxPrune = 10_000

	gigabyte = 1_000_000_000
	mebibyte = 1 << 20
)

// ErrMainnet is why btcd does not serve mainnet unless it is accepted
// (docs/decisions/0013-node.md).
var ErrMainnet = reason.New("btcd is another implementation of Bitcoin, which has disagreed with the network before, and its mempool differs; for mainnet take Bitcoin Core, or accept that (accept btcd-on-mainnet)")

// ErrNone is returned where there is no File.
var ErrNone = reason.New("this Base has no node")

// Place is where the files of a machine are; At makes one for real use.
type Place struct {
	Signed, File, Own string
	// Data has the chain.
	Data string
}

// At is the place below a root; "" or "/" is this machine's.
func At(root string) Place {
	below := func(path string) string { return filepath.Join("/", root, path) }
	return Place{below(SignedFile), below(File), below(OwnFile), below(Data)}
}

// Read reads the settings of this machine, see Place.Read.
func Read() (Settings, error) {
	s, _, err := At("/").Read()
	return s, err
}

// Read reads the settings, and tells whether an owner has signed them. A file with a single fault
// is refused as a whole.
func (p Place) Read() (s Settings, signed bool, err error) {
	s, err = readFrom(p.Signed)
	if !errors.Is(err, ErrNone) {
		return s, true, err
	}
	s, err = readFrom(p.File)
	return s, false, err
}

func readFrom(path string) (Settings, error) {
	text, err := rootfile.Read(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, reason.Errorf("%w: %s is missing", ErrNone, path)
	}
	var s Settings
	if err == nil {
		s, err = Parse(string(text))
	}
	if err != nil {
		return Settings{}, reason.Errorf("the settings of the node in %s cannot be used: %w", path, err)
	}
	return s, nil
}

// ReadOwn reads OwnFile; it is empty where there is none.
func (p Place) ReadOwn() (string, error) {
	text, err := rootfile.Read(p.Own, maxSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", reason.Errorf("the additional settings of the node in %s cannot be used: %w", p.Own, err)
	}
	return string(text), nil
}

// Parse parses the text of File: lines of a name and a value. Empty lines and those that begin
// with # are ignored.
func Parse(text string) (Settings, error) {
	if !utf8.ValidString(text) {
		return Settings{}, reason.New("it is not UTF-8")
	}
	s := Settings{Cache: DefaultCache}
	var seen []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := s.set(fields, seen); err != nil {
			return Settings{}, reason.Errorf("line %d: %w", number, err)
		}
		seen = append(seen, fields[0])
	}
	return s, s.check()
}

func (s *Settings) set(fields, seen []string) (err error) {
	switch {
	case len(fields) != 2:
		return reason.New("a line needs a name and one value, such as: network regtest")
	case slices.Contains(seen, fields[0]):
		return reason.Errorf("%q is set twice", harmless.Word(fields[0]))
	}
	switch value := fields[1]; fields[0] {
	case "program":
		s.Program, err = ParseProgram(value)
	case "network":
		s.Network, err = node.ParseNetwork(value)
	case "prune":
		if s.Prune, err = strconv.Atoi(value); err != nil || s.Prune < minPrune || s.Prune > maxPrune {
			return errPrune
		}
	case "accept":
		if s.AcceptsBtcd = value == "btcd-on-mainnet"; !s.AcceptsBtcd {
			return reason.New("btcd-on-mainnet alone can be accepted")
		}
	case "cache":
		if s.Cache, err = strconv.Atoi(value); err != nil || s.Cache < minCache || s.Cache > maxCache {
			return errCache
		}
	case "block-every":
		if s.BlockEvery, err = timespan.Parse(value); err != nil || s.BlockEvery < minBlock || s.BlockEvery > maxBlock {
			return errBlock
		}
	default:
		return reason.Errorf("there is no setting %q; there are program, network, prune, cache, block-every and accept", harmless.Word(fields[0]))
	}
	return err
}

// Reasons to refuse a number.
var (
	errPrune = reason.Errorf("a node keeps %d to %d GB of blocks, or all of them", minPrune, maxPrune)
	errCache = reason.Errorf("the cache is a number of MiB from %d to %d", minCache, maxCache)
	errBlock = reason.Errorf("a block takes %v to %v, such as 20s", minBlock, maxBlock)
)

func (s Settings) check() error {
	switch {
	case s.Program == "" || s.Network == 0:
		return reason.New("it must name a program and a network")
	case s.Program == Btcd && s.Network == basev1.Network_NETWORK_MAINNET && !s.AcceptsBtcd:
		return ErrMainnet
	case s.Program == Core && s.Network == basev1.Network_NETWORK_SIMNET:
		return reason.New("simnet is unknown to Bitcoin Core; take regtest")
	case s.BlockEvery != 0 && (s.Program != Btcd || s.Network != basev1.Network_NETWORK_REGTEST):
		return reason.New("a Base makes blocks by itself only with btcd on regtest; remove block-every")
	}
	return nil
}

// Text writes the settings as a file, which Parse reads.
func (s Settings) Text() string {
	text := fmt.Sprintf("program %s\nnetwork %s\ncache %d\n", s.Program, node.NetworkName(s.Network), s.Cache)
	if s.Prune > 0 {
		text += fmt.Sprintf("prune %d\n", s.Prune)
	}
	if s.BlockEvery > 0 {
		text += fmt.Sprintf("block-every %v\n", s.BlockEvery)
	}
	if s.AcceptsBtcd {
		text += "accept btcd-on-mainnet\n"
	}
	return text
}

var programs = map[basev1.NodeSettings_Program]Program{
	basev1.NodeSettings_PROGRAM_CORE: Core, basev1.NodeSettings_PROGRAM_BTCD: Btcd,
}

// FromMessage reads the settings of a message. A value that is in no list, or beyond
// a bound, is refused.
func FromMessage(m *basev1.NodeSettings) (Settings, error) {
	s := Settings{
		Program: programs[m.GetProgram()], Network: m.GetNetwork(), Prune: int(m.GetPruneGb()), Cache: int(m.GetCacheMib()),
		BlockEvery: time.Duration(m.GetBlockEverySeconds()) * time.Second, AcceptsBtcd: m.GetAcceptsBtcdOnMainnet(),
	}
	switch _, err := node.ParseNetwork(node.NetworkName(s.Network)); {
	case err != nil:
		return Settings{}, err
	case s.Prune != 0 && (s.Prune < minPrune || s.Prune > maxPrune):
		return Settings{}, errPrune
	case s.Cache < minCache || s.Cache > maxCache:
		return Settings{}, errCache
	case s.BlockEvery > maxBlock:
		return Settings{}, errBlock
	}
	return s, s.check()
}

// Message is the opposite of FromMessage.
func (s Settings) Message() *basev1.NodeSettings {
	m := &basev1.NodeSettings{
		Network: s.Network, PruneGb: uint32(s.Prune), CacheMib: uint32(s.Cache), BlockEverySeconds: uint32(s.BlockEvery / time.Second),
		AcceptsBtcdOnMainnet: s.AcceptsBtcd,
	}
	for number, program := range programs {
		if program == s.Program {
			m.Program = number
		}
	}
	return m
}

// ParseProgram finds a program by its name.
func ParseProgram(name string) (Program, error) {
	if p := Program(name); p == Core || p == Btcd {
		return p, nil
	}
	return "", reason.Errorf("there is no program %q here; it is core or btcd", harmless.Word(name))
}

// Package settings has the settings of a Base's own Bitcoin node: a file of root's names program
// and network, and the configuration of that program is rendered from it.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

// Files of root's. Without the first a Base has no node.
const (
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
	// Cache is how much of the chain's state the program holds in memory, in MiB.
	Cache int
	// BlockEvery has the Base make blocks by itself; 0: it does not. Only with btcd on regtest.
	BlockEvery time.Duration
}

// Bounds of the settings.
const (
	defaultCache = 450 // that of Bitcoin Core
	minCache     = 4
	maxCache     = 16384
	minBlock     = time.Second
	maxBlock     = 24 * time.Hour
)

// ErrMainnet is why btcd does not serve mainnet (docs/decisions/0013-node.md).
var ErrMainnet = errors.New("btcd is another implementation of Bitcoin, which has disagreed with the network before; this Base does not use it for mainnet, take Bitcoin Core")

// ErrNone is returned where there is no File.
var ErrNone = errors.New("this Base has no node")

// Read reads File. A file with a single fault is refused as a whole.
func Read() (Settings, error) { return readFrom(File) }

func readFrom(path string) (Settings, error) {
	text, err := rootfile.Read(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("%w: %s is missing", ErrNone, path)
	}
	var s Settings
	if err == nil {
		s, err = Parse(string(text))
	}
	if err != nil {
		return Settings{}, fmt.Errorf("the settings of the node in %s cannot be used: %w", path, err)
	}
	return s, nil
}

// ReadOwn reads OwnFile; it is empty where there is none.
func ReadOwn() (string, error) {
	text, err := rootfile.Read(OwnFile, maxSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("the additional settings of the node in %s cannot be used: %w", OwnFile, err)
	}
	return string(text), nil
}

// Parse parses the text of File: lines of a name and a value. Empty lines and those that begin
// with # are ignored.
func Parse(text string) (Settings, error) {
	if !utf8.ValidString(text) {
		return Settings{}, errors.New("it is not UTF-8")
	}
	s := Settings{Cache: defaultCache}
	var seen []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := s.set(fields, seen); err != nil {
			return Settings{}, fmt.Errorf("line %d: %w", number, err)
		}
		seen = append(seen, fields[0])
	}
	return s, s.check()
}

func (s *Settings) set(fields, seen []string) (err error) {
	switch {
	case len(fields) != 2:
		return errors.New("a line needs a name and one value, such as: network regtest")
	case slices.Contains(seen, fields[0]):
		return fmt.Errorf("%q is set twice", harmless.Word(fields[0]))
	}
	switch value := fields[1]; fields[0] {
	case "program":
		s.Program, err = ParseProgram(value)
	case "network":
		s.Network, err = node.ParseNetwork(value)
	case "cache":
		if s.Cache, err = strconv.Atoi(value); err != nil || s.Cache < minCache || s.Cache > maxCache {
			return fmt.Errorf("the cache is a number of MiB from %d to %d", minCache, maxCache)
		}
	case "block-every":
		if s.BlockEvery, err = time.ParseDuration(value); err != nil || s.BlockEvery < minBlock || s.BlockEvery > maxBlock {
			return fmt.Errorf("a block takes %v to %v, such as 20s", minBlock, maxBlock)
		}
	default:
		return fmt.Errorf("there is no setting %q; there are program, network, cache and block-every", harmless.Word(fields[0]))
	}
	return err
}

func (s Settings) check() error {
	switch {
	case s.Program == "" || s.Network == 0:
		return errors.New("it must name a program and a network")
	case s.Program == Btcd && s.Network == basev1.Network_NETWORK_MAINNET:
		return ErrMainnet
	case s.Program == Core && s.Network == basev1.Network_NETWORK_SIMNET:
		return errors.New("simnet is unknown to Bitcoin Core; take regtest")
	case s.BlockEvery != 0 && (s.Program != Btcd || s.Network != basev1.Network_NETWORK_REGTEST):
		return errors.New("a Base makes blocks by itself only with btcd on regtest; remove block-every")
	}
	return nil
}

// ParseProgram finds a program by its name.
func ParseProgram(name string) (Program, error) {
	if p := Program(name); p == Core || p == Btcd {
		return p, nil
	}
	return "", fmt.Errorf("there is no program %q here; it is core or btcd", harmless.Word(name))
}

package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Sizes of the disk that a chain needs, in bytes.
const (
	// WholeChain is for all blocks of mainnet: 840 GB in November 2026, and 100 GB more each year.
	WholeChain = 1000 * gigabyte
	// chainState is for a pruned mainnet beside its blocks: the state of the chain takes 12 GB and
	// grows.
	chainState = 20 * gigabyte
	// small is for the other networks, whose blocks take some GB.
	small = gigabyte
)

// Needs is how large the disk of the chain has to be, in bytes.
func (s Settings) Needs() uint64 {
	switch {
	case s.Network != basev1.Network_NETWORK_MAINNET:
		return small
	case s.Prune == 0:
		return WholeChain
	}
	return chainState + uint64(s.Prune)*gigabyte
}

// CheckSpace refuses a disk that is too small.
func (s Settings) CheckSpace(total uint64) error {
	if need := s.Needs(); total < need {
		advice := "give it a larger disk"
		if s.Network == basev1.Network_NETWORK_MAINNET && s.Prune != minPrune {
			advice += ", or have the node keep fewer blocks (prune)"
		}
		return reason.Errorf("the disk of the chain has %d GB, and %s needs %d GB; %s",
			total/gigabyte, node.NetworkName(s.Network), need/gigabyte,
			advice)
	}
	return nil
}

// Fit returns settings with which the chain fits on a disk of a size in bytes. Where all that s keeps
// does not, mainnet is pruned to nine tenths of the disk.
func (s Settings) Fit(size uint64) (Settings, error) {
	if s.Needs() <= size {
		return s, nil
	}
	if room := size / 10 * 9; s.Network == basev1.Network_NETWORK_MAINNET && room >= chainState+minPrune*gigabyte {
		s.Prune = min(int((room-chainState)/gigabyte), maxPrune)
		return s, nil
	}
	return s, s.CheckSpace(size)
}

// magic begins each block that a program stores: the network's number in its messages.
var magic = map[basev1.Network][4]byte{
	basev1.Network_NETWORK_MAINNET:  {0xf9, 0xbe, 0xb4, 0xd9},
	basev1.Network_NETWORK_TESTNET4: {0x1c, 0x16, 0x3f, 0x28},
	basev1.Network_NETWORK_SIGNET:   {0x0a, 0x03, 0xcf, 0x40},
	basev1.Network_NETWORK_REGTEST:  {0xfa, 0xbf, 0xb5, 0xda},
	basev1.Network_NETWORK_SIMNET:   {0x16, 0x1c, 0x14, 0x12},
}

// maxNames is how many names of a folder are looked at. A chain has some thousand files of blocks.
const maxNames = 20_000

// titles are the names of the programs for people.
var titles = map[Program]string{Core: "Bitcoin Core", Btcd: "btcd"}

// marks are what the folder of a program has, and the other's has not.
var marks = map[Program][]string{
	Core: {"chainstate", "testnet4/chainstate", "signet/chainstate", "regtest/chainstate", "testnet3/chainstate"},
	Btcd: {"data"},
}

// CheckData refuses settings whose folder below data has the blocks of another program or network.
// The folder is the node's own, and may have anything: no link leads out of it, and nothing there
// has its reader wait.
func (s Settings) CheckData(data string) error {
	return s.look(data, func(folder string, root *os.Root, blocks string, names []string) error {
		for other, marks := range marks {
			for _, mark := range marks {
				if _, err := root.Lstat(mark); err == nil && other != s.Program {
					return reason.Errorf("the folder %s has the data of %s, which %s cannot use; move the data to the folder %q beside it", folder,
						titles[other], titles[s.Program], other)
				}
			}
		}
		if len(names) == 0 {
			return nil
		}
		found, err := begins(root, filepath.Join(blocks, names[0]), filepath.Join(blocks, "xor.dat"))
		if err != nil {
			return reason.Errorf("look at the data of the node in %s: %w", folder, err)
		}
		if found == magic[s.Network] || found == [4]byte{} { // a file that is reserved has no block yet
			return nil
		}
		of := "an unknown network"
		for network, m := range magic {
			if m == found {
				of = node.NetworkName(network)
			}
		}
		return reason.Errorf("the blocks in %s are of %s, not of %s; move that folder away", filepath.Join(folder, blocks), of,
			node.NetworkName(s.Network))
	})
}

// CheckPruned refuses to keep all blocks where old ones were deleted.
func (s Settings) CheckPruned(data string) error {
	return s.look(data, func(_ string, _ *os.Root, _ string, names []string) error {
		if s.Prune != 0 || len(names) == 0 || strings.ContainsAny(names[0], "0") && !strings.ContainsAny(names[0], "123456789") {
			return nil
		}
		return reason.New("the node has deleted old blocks, and can keep all of them only once it has fetched the whole chain again; let it prune")
	})
}

// look calls a check with the folder of the program, and with that of its blocks and their files,
// the oldest first; not if the program has none yet.
func (s Settings) look(data string, check func(folder string, root *os.Root, blocks string, names []string) error) error {
	folder := filepath.Join(data, string(s.Program))
	root, err := openFolder(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return reason.Errorf("look at the data of the node in %s: %w", folder, err)
	}
	defer func() { _ = root.Close() }()
	blocks, suffix := s.blocks()
	return check(folder, root, blocks, files(root, blocks, suffix))
}

// openFolder opens a folder that the node may have replaced: a link or a pipe in its place is an
// error. OpenRoot alone follows the link, and waits for a writer of the pipe.
func openFolder(path string) (*os.Root, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Close(fd) }()
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd)) // the folder that is open, whatever has its name now
}

// blocks is where the program has the blocks of the network, and how the names of their files end.
func (s Settings) blocks() (folder, suffix string) {
	network := node.NetworkName(s.Network)
	switch {
	case s.Program == Btcd:
		return filepath.Join("data", network, "blocks_ffldb"), ".fdb"
	case s.Network == basev1.Network_NETWORK_MAINNET:
		return "blocks", ".dat"
	}
	return filepath.Join(network, "blocks"), ".dat"
}

// files returns the names of the files of blocks, sorted; the oldest is the first.
func files(root *os.Root, folder, suffix string) (names []string) {
	directory, err := root.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = directory.Close() }()
	entries, _ := directory.ReadDir(maxNames)
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, "rev") && name != "xor.dat" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// begins returns the first bytes of a file of blocks. Bitcoin Core hides them behind a key, which
// lies beside them.
func begins(root *os.Root, path, key string) (first [4]byte, err error) {
	var mask [4]byte
	if err := read(root, key, mask[:]); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return first, err
	}
	if err := read(root, path, first[:]); err != nil {
		return first, err
	}
	if first == [4]byte{} {
		return first, nil
	}
	for i := range first {
		first[i] ^= mask[i]
	}
	return first, nil
}

// read reads the beginning of a regular file; a shorter one leaves zeros. A pipe would have the
// reader wait.
func read(root *os.Root, path string, into []byte) error {
	file, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return reason.Errorf("%s is not a regular file", path)
	}
	_, _ = file.Read(into)
	return nil
}

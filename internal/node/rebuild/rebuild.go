// Package rebuild carries out an owner's order to make the chain again, when the node starts. It is
// done by the node's own user, in the node's own folder, and once: a node that ends in the middle of
// it goes on where it was.
//
// The order is a file of root's below /run, so it does not outlive a restart of the machine. So does
// the mark that says that it was carried out, which is the node's.
package rebuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

// Order is the file with the order (internal/helper/nodeorders).
const Order = "/run/bitbox-base-node/rebuild.json"

const (
	// doneFile is the mark: the id of the last order.
	doneFile = "rebuilt"
	// aside is the end of the name of a folder that is being deleted.
	aside = ".deleted"
	// maxOrder is far above what an order has, in bytes.
	maxOrder = 4 << 10
)

// order is as in internal/helper/nodeorders.
type order struct {
	ID     string `json:"id"`
	Resync bool   `json:"resync"`
}

// Take carries out an order that was not carried out yet, and returns arguments that the program
// gets once.
func Take(s settings.Settings) (arguments []string, err error) {
	return take(Order, settings.Runtime, s.Reindex(), s.Chain())
}

// take looks for an order in a file, and for the mark in the folder memory. The folders of the chain
// are given with what the node has made of the blocks first.
func take(path, memory string, reindex, chain []string) (arguments []string, err error) {
	if err := discard(chain); err != nil {
		return nil, err
	}
	text, err := rootfile.Read(path, maxOrder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var o order
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err == nil && o.ID == "" {
		err = errors.New("it names no order")
	}
	if err != nil {
		return nil, fmt.Errorf("read the order to make the chain again: %w", err)
	}
	mark := filepath.Join(memory, doneFile)
	if done, err := os.ReadFile(mark); err == nil && strings.TrimSpace(string(done)) == o.ID {
		return nil, nil
	}
	if o.Resync {
		if err := putAside(chain); err != nil {
			return nil, err
		}
	}
	// Before the program starts: it may end before it could say that it has begun.
	if err := os.WriteFile(mark, []byte(o.ID+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("mark the order to make the chain again as done: %w", err)
	}
	if o.Resync {
		return nil, discard(chain)
	}
	return reindex, nil
}

// putAside renames what the node has of the chain: a power cut leaves blocks without a state, which
// the node reads again, and never a state without its blocks.
func putAside(chain []string) error {
	for _, folder := range chain {
		if err := os.Rename(folder, folder+aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete the blocks of the node: %w", err)
		}
	}
	return nil
}

// discard removes what was put aside.
func discard(chain []string) error {
	for _, folder := range chain {
		if err := os.RemoveAll(folder + aside); err != nil {
			return fmt.Errorf("delete the blocks of the node: %w", err)
		}
	}
	return nil
}

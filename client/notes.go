package client

import (
	"errors"
	"sync"
)

// notes are what the App learns from a Base and would like to keep: it works without, and learns it
// again. So a full disk must hide neither the Base's answer nor that the App was revoked.
type notes struct {
	tell func(error) // Options.Unstored; nil: nobody wants to know

	mu   sync.Mutex
	lost bool // the disk has failed, and nothing was stored since
}

// kept takes the result of storing a note. It makes a failure of the disk known, and returns any other
// error: that the pairing was deleted meanwhile.
func (n *notes) kept(err error) error {
	if !errors.Is(err, ErrStorage) {
		return err
	}
	n.report(err)
	return nil
}

// stored is told that the disk works.
func (n *notes) stored() { n.report(nil) }

func (n *notes) report(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	lost := err != nil
	if lost != n.lost && n.tell != nil {
		n.tell(err)
	}
	n.lost = lost
}

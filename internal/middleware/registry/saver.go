package registry

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The changes of a connection (the highest seq, the App's last time and address) are in memory at
// once, and on disk within a second. So a connection never waits for the disk, and holds no lock
// that others need while the disk is written. A kill or a power cut loses at most that second:
// each R1 in it is answered once more, which gives a recorder nothing (docs/protocol.md, section
// 5). An orderly stop loses nothing.
//
// Changes that give or take rights are not saved here, but before they are answered.
const (
	// saveDelay is how long a change waits for others to be saved with it. Including the time of
	// a write it stays below the promised second.
	saveDelay = 500 * time.Millisecond
	// saveAgain is the pause after a save that failed, on a full disk for instance.
	saveAgain = 10 * time.Second
)

// saver is the one goroutine that saves.
type saver struct {
	dirty map[noiseconn.PublicKey]struct{} // by Registry.mu
	wake  chan struct{}
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
}

func newSaver() *saver {
	return &saver{dirty: map[noiseconn.PublicKey]struct{}{}, wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

// saveSoonLocked has the changes of a connection saved within a second.
func (r *Registry) saveSoonLocked(p *record) {
	r.saver.dirty[p.peer] = struct{}{}
	select {
	case r.saver.wake <- struct{}{}:
	default: // it is awake
	}
}

// keepSaving runs until stop, and then saves the rest.
func (r *Registry) keepSaving() {
	for {
		select {
		case <-r.saver.wake:
		case <-r.saver.stop:
			_ = r.saveDirty()
			return
		}
		for delay := saveDelay; delay > 0; {
			select {
			case <-time.After(delay):
			case <-r.saver.stop:
				_ = r.saveDirty()
				return
			}
			delay = 0
			if r.saveDirty() != nil {
				delay = saveAgain
			}
		}
	}
}

// progress is what is saved of one pairing.
type progress struct {
	peer          noiseconn.PublicKey
	highest       uint64
	lastSeen      time.Time
	lastAddress   netip.Addr
	acquaintances []acquaintance
}

// saveDirty saves what has changed, in one transaction, without the lock.
func (r *Registry) saveDirty() error {
	r.mu.Lock()
	var list []progress
	for peer := range r.saver.dirty {
		if p := r.pairings[peer]; p != nil {
			list = append(list, progress{peer, p.sequence.highest(), p.lastSeen, p.lastAddress, slices.Clone(p.acquaintances)})
		}
	}
	clear(r.saver.dirty)
	r.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := r.update("store the progress of pairings", func(tx *state.Tx) error {
		var errs []error
		for _, p := range list {
			errs = append(errs, p.save(tx))
		}
		return errors.Join(errs...)
	})
	if err == nil {
		return nil
	}
	// Apps may connect all the same: an owner may be the person who can make room on a full disk.
	r.config.Logger.Error("store the numbers of connections; after a restart, present connect frames may be answered once more", "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range list {
		r.saver.dirty[p.peer] = struct{}{}
	}
	return err
}

// save writes what is newer than the stored state. A pairing that was deleted meanwhile stays
// deleted, and a revoked one has no acquaintances.
func (p *progress) save(tx *state.Tx) error {
	key := string(p.peer[:])
	stored, err := storedStanding(tx, key)
	if err != nil || stored == "" {
		return err
	}
	var value [16]byte
	before := tx.Get(bucketProgress, key)
	if len(before) == len(value) {
		p.highest = max(p.highest, binary.BigEndian.Uint64(before))
	}
	binary.BigEndian.PutUint64(value[:], p.highest)
	if !p.lastSeen.IsZero() {
		binary.BigEndian.PutUint64(value[8:], uint64(p.lastSeen.UnixMilli()))
	}
	errs := []error{tx.Put(bucketProgress, key, value[:])}
	if p.lastAddress.IsValid() {
		errs = append(errs, tx.Put(bucketAddresses, key, []byte(p.lastAddress.String())))
	}
	if stored == standingActive && len(p.acquaintances) > 0 {
		list, err := json.Marshal(p.acquaintances)
		errs = append(errs, err, tx.Put(bucketAcquainted, key, list))
	}
	return errors.Join(errs...)
}

package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The number of a connection (seq, docs/protocol.md, section 5) only grows, for all processes of
// the App together. The last one is in a small file for each pairing. The file is locked while it
// is read and written, and is not synced, so a connection never waits for the disk. A kill loses
// nothing. A power cut may lose some numbers; then the clock gives a higher one. Only if the
// clock has gone back as well is a number too low, and the Base silent. For that case the
// database has a ceiling, which is synced in the background after a connection: no number above
// it was ever used.
const (
	// ceilingAhead is the distance from a number to its new ceiling, in milliseconds.
	ceilingAhead = uint64(time.Hour / time.Millisecond)
	// The ceiling is raised when less than ceilingLeft of that distance is left.
	ceilingLeft = ceilingAhead / 2

	counterPrefix = "seq-"
	// counterDigits is the length of the number in the file: that of the largest.
	counterDigits = 20
)

func (s *store) counterPath(id string) string {
	return filepath.Join(filepath.Dir(s.path), counterPrefix+id)
}

// nextSeq returns a number above all that were used, and above over.
func (s *store) nextSeq(id string, now time.Time, over uint64) (seq uint64, err error) {
	const what = "count the connection"
	s.counting.Lock()
	defer s.counting.Unlock()
	file, err := state.OpenLocked(s.counterPath(id), storeWait)
	if err != nil {
		return 0, explainStorage(err, what)
	}
	defer func() {
		if closed := file.Close(); err == nil {
			err = explainStorage(closed, what)
		}
	}()
	last, err := readCounter(file)
	if err != nil {
		return 0, explainStorage(err, what)
	}
	seq = noiseconn.NextSeq(max(last, over), now.UnixMilli())
	_, err = file.WriteAt(fmt.Appendf(nil, "%0*d\n", counterDigits, seq), 0)
	return seq, explainStorage(err, what)
}

// readCounter returns 0 for an empty or damaged file: then the clock and the ceiling decide.
func readCounter(file *os.File) (last uint64, err error) {
	var digits [counterDigits + 1]byte
	n, err := file.ReadAt(digits[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if last, err = strconv.ParseUint(strings.TrimSuffix(string(digits[:n]), "\n"), 10, 64); err != nil ||
		last > noiseconn.MaxSeqClock+noiseconn.MaxSeqStep {
		return 0, nil
	}
	return last, nil
}

// forgetCounter removes the file of a deleted pairing.
func (s *store) forgetCounter(id string) error {
	if err := os.Remove(s.counterPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainStorage(err, "delete the counter of a pairing")
	}
	return nil
}

// ceilingAbove is the ceiling for a number.
func ceilingAbove(seq uint64) uint64 {
	return max(seq, min(seq+ceilingAhead, noiseconn.MaxSeqClock))
}

// maybeBehind tells whether a Base that has proved itself before may be silent because the number
// was too low.
func (p *pairing) maybeBehind(seq uint64, now time.Time, err error) bool {
	return errors.Is(err, ErrSilent) && p.State == Active && seq <= p.ceiling && now.UnixMilli() < int64(p.ceiling)
}

// connected stores, in the background, where a Base has proved itself, and raises the ceiling. A
// failure of either does not fail the connection.
func (a *App) connected(p *pairing, address string, seq uint64) {
	moved := len(p.Addresses) == 0 || p.Addresses[0] != address
	low := seq+ceilingLeft > p.ceiling && ceilingAbove(seq) > p.ceiling
	if !moved && !low {
		return
	}
	a.saving.Go(func() {
		// What else can fail is that the pairing was deleted.
		_ = a.notes.kept(a.store.change(p.AppID, "store where the Base is", func(r *stored) {
			r.Ceiling = max(r.Ceiling, ceilingAbove(seq))
			if moved {
				r.sawAt(address)
			}
		}))
	})
}

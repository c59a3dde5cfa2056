// Package index finds the transactions that pay a script or spend an output, by numbers that
// lead into the node's blocks. It keeps no transaction.
//
// # Rows
//
// Each transaction gets the next number when its block is added. A row has a kind and:
//
//	B  number of the first transaction of a block       → header (80 bytes), height (4)
//	O  the same number                                  → where the first transaction begins, and the size of each (varints)
//	F  8 bytes of a script's hash, number of a payer    → nothing
//	S  8 bytes of an output, number of the spender      → nothing
//	X  8 bytes of a transaction's ID, its number        → nothing
//	V                                                   → the format, and the hash of the network's first block
//
// Numbers are big-endian. The 8 bytes of an output are those of its transaction's ID, to which
// its index is added.
//
// F, S and X are hints: other scripts begin with the same bytes, and the block may have left the
// chain. A reader compares what it finds with the block. So a reorganisation deletes nothing:
// a number counts if its block is in the chain that is asked ([View]).
//
// # What a power cut leaves
//
// Blocks are kept back until they are published, or many have come. Their rows are stored together
// and in order (rows.go). There is no log of writes: a power cut loses the last blocks, whole, and
// they are added again.
package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
)

// Kinds of rows.
const (
	blockRow  = 'B'
	sizesRow  = 'O'
	paysRow   = 'F'
	spendsRow = 'S'
	idRow     = 'X'
	formatRow = 'V'
)

// format is the number of this layout. An index with another one is built again.
const format = 1

// Bounds of the memory that the store takes, in bytes, and of its files.
const (
	cacheSize    = 16 << 20
	memTableSize = 8 << 20
	maxTables    = 3
	maxFiles     = 512
	// maxHeld is how many hints are kept back before they are stored. One takes 16 bytes, and 16 more
	// while it is stored. A block counts as perBlock hints beside its own.
	maxHeld = 1 << 20
	// fileFrom is how many hints make a file of their own: the store takes it as it is. Fewer go
	// through its memory.
	fileFrom = maxHeld / 16
	// maxLayers is how many files on top of each other the store has before new ones wait.
	maxLayers = 20
	// maxStall is how long the store may take for what was kept back. It waits for room on its disk, and
	// gives no error.
	maxStall = time.Minute
)

// ErrStalled: the store still waits. It takes no further block until it goes on.
var ErrStalled = errors.New("the index for wallets cannot be written: the disk is full, or too slow")

// ErrDamaged is wrapped by what is returned when the index cannot be believed: it must be
// removed and built again.
var ErrDamaged = errors.New("the index of the wallet server is damaged")

// prefix are the 8 bytes of a row.
type prefix [8]byte

func of(h chain.Hash) prefix { return prefix(h[:8]) }

func ofOutput(o chain.Outpoint) (p prefix) {
	binary.LittleEndian.PutUint64(p[:], binary.LittleEndian.Uint64(o.ID[:8])+uint64(o.Index))
	return p
}

// block is what is in memory of each block that was added, also of those that have left the
// chain.
type block struct {
	hash   chain.Hash
	first  uint32 // number of its first transaction
	height uint32
	parent uint32 // index in Index.blocks; its own for the first block
}

// state is what has been added.
type state struct {
	blocks []block  // in the order in which they were added
	head   []uint32 // the chain that is being built: an index in blocks for each height
	next   uint32   // number of the next transaction
}

// Index is the store. One goroutine adds; any number read.
type Index struct {
	db *pebble.DB
	state
	stored state // without what is kept back
	held   rows
	view   atomic.Pointer[View]
	// writing gets the result of what the store is writing; nil: it writes nothing. Then written is stored.
	writing chan error
	written state

	config    Config
	options   *pebble.Options
	compacted chan struct{} // has a token once there may be fewer layers

	damageOnce sync.Once
	damaged    chan struct{}
	onDamage   func()
}

// Config says where the index is.
type Config struct {
	// Directory belongs to the index alone.
	Directory string
	// First is the hash of the network's first block.
	First  chain.Hash
	Logger *slog.Logger
	// Damaged is called when damage is found, before the store may end the process; it may be nil.
	Damaged func()
	// FS takes the place of the disk, in tests.
	FS vfs.FS
	// Held takes the place of the number of hints that are kept back, in tests; Stall takes that of how
	// long the store may take.
	Held  int
	Stall time.Duration
}

// Open opens the index, or makes an empty one.
func Open(config Config) (*Index, error) {
	if config.FS == nil {
		config.FS = vfs.Default
	}
	if config.Held == 0 {
		config.Held = maxHeld
	}
	if config.Stall == 0 {
		config.Stall = maxStall
	}
	i := &Index{config: config, compacted: make(chan struct{}, 1), damaged: make(chan struct{}), onDamage: config.Damaged}
	cache := pebble.NewCache(cacheSize)
	defer cache.Unref()
	options := &pebble.Options{
		FS: config.FS, Cache: cache, MemTableSize: memTableSize, MaxOpenFiles: maxFiles,
		DisableWAL: true, MemTableStopWritesThreshold: maxTables, L0StopWritesThreshold: 64,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             storeLog{i, config.Logger},
		EventListener: &pebble.EventListener{
			DataCorruption:  func(pebble.DataCorruptionInfo) { i.markDamaged() },
			BackgroundError: func(err error) { _ = i.judge(err) },
			CompactionEnd: func(pebble.CompactionInfo) {
				select {
				case i.compacted <- struct{}{}:
				default:
				}
			},
		},
	}
	options.EnsureDefaults() // the store makes them so for itself
	i.options = options
	if err := removeDraft(config); err != nil {
		return nil, err
	}
	var err error
	if i.db, err = pebble.Open(config.Directory, options); err != nil {
		return nil, opening(err)
	}
	if err := i.load(config.First); err != nil {
		return nil, errors.Join(err, i.db.Close())
	}
	return i, nil
}

// opening says why the store does not open: damage, unless another attempt may help.
func opening(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("open the index of the wallet server: it belongs to another user: %w", err)
	}
	var disk *os.SyscallError
	if errors.As(err, &disk) {
		return fmt.Errorf("open the index of the wallet server: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// storeLog takes what the store says. The store calls Fatalf where it cannot go on.
type storeLog struct {
	index *Index
	log   *slog.Logger
}

func (l storeLog) Infof(string, ...any) {}

func (l storeLog) Errorf(form string, args ...any) {
	l.log.Warn("the index of the wallet server", "says", fmt.Sprintf(form, args...))
}

func (l storeLog) Fatalf(form string, args ...any) {
	l.index.markDamaged()
	panic(fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(form, args...)))
}

func (i *Index) markDamaged() {
	i.damageOnce.Do(func() {
		close(i.damaged)
		if i.onDamage != nil {
			i.onDamage()
		}
	})
}

// Damaged is closed once damage was found.
func (i *Index) Damaged() <-chan struct{} { return i.damaged }

// judge tells damage from other errors of the store.
func (i *Index) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err), errors.Is(err, ErrDamaged), errors.Is(err, fs.ErrNotExist):
		i.markDamaged()
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return fmt.Errorf("use the index of the wallet server: %w", err)
}

// Close writes what is in memory, and closes the index. A store that still waits stays open until the
// process ends; it loses the last blocks, whole.
func (i *Index) Close() error {
	err := i.Flush()
	if errors.Is(err, ErrStalled) {
		return err
	}
	return errors.Join(err, i.db.Close())
}

// load reads the blocks. The chain goes from the one that was added last to the first.
func (i *Index) load(first chain.Hash) error {
	want := append([]byte{format}, first[:]...)
	got, closer, err := i.db.Get([]byte{formatRow})
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		if err := i.db.Set([]byte{formatRow}, want, pebble.NoSync); err != nil {
			return i.judge(err)
		}
	case err != nil:
		return i.judge(err)
	default:
		same := bytes.Equal(got, want)
		if err := closer.Close(); err != nil {
			return i.judge(err)
		}
		if !same {
			return fmt.Errorf("%w: it is of another format or another network", ErrDamaged)
		}
	}
	if err := i.each([]byte{blockRow}, i.loadBlock); err != nil {
		return err
	}
	if n := len(i.blocks); n > 0 {
		last := i.blocks[n-1]
		i.next = last.first
		if _, err := i.sizes(last.first, func(uint32) bool { i.next++; return true }); err != nil {
			return err
		}
		i.head = make([]uint32, last.height+1)
		for at := uint32(n - 1); ; at = i.blocks[at].parent {
			i.head[i.blocks[at].height] = at
			if i.blocks[at].height == 0 {
				break
			}
		}
		if i.blocks[i.head[0]].hash != first {
			return fmt.Errorf("%w: it begins with another block", ErrDamaged)
		}
	}
	i.stored = i.state
	i.show()
	return nil
}

func (i *Index) loadBlock(key, value []byte) error {
	const size = chain.HeaderSize + 4
	if len(key) != 5 || len(value) != size {
		return fmt.Errorf("%w: a row has another length", ErrDamaged)
	}
	header := chain.Header(value[:chain.HeaderSize])
	b := block{hash: header.Hash(), first: binary.BigEndian.Uint32(key[1:]), height: binary.BigEndian.Uint32(value[chain.HeaderSize:])}
	n := uint32(len(i.blocks))
	b.parent = n
	if b.height > 0 {
		parent := int(n) - 1
		for ; parent >= 0 && i.blocks[parent].hash != header.Previous(); parent-- {
		}
		if parent < 0 || i.blocks[parent].height+1 != b.height {
			return fmt.Errorf("%w: the block before one is missing", ErrDamaged)
		}
		b.parent = uint32(parent)
	}
	i.blocks = append(i.blocks, b)
	return nil
}

// each calls do with each row that begins so.
func (i *Index) each(begin []byte, do func(key, value []byte) error) error {
	end := slices.Clone(begin)
	for at := len(end) - 1; at >= 0; at-- {
		if end[at]++; end[at] != 0 {
			break
		}
	}
	iterator, err := i.db.NewIter(&pebble.IterOptions{LowerBound: begin, UpperBound: end})
	if err != nil {
		return i.judge(err)
	}
	for iterator.First(); iterator.Valid() && err == nil; iterator.Next() {
		err = do(iterator.Key(), iterator.Value())
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return i.judge(errors.Join(err, iterator.Error(), iterator.Close()))
}

var errEnough = errors.New("enough")

// Tip is the height and the hash of the last block that was added; false: there is none.
func (i *Index) Tip() (height uint32, hash chain.Hash, ok bool) {
	if len(i.head) == 0 {
		return 0, hash, false
	}
	return uint32(len(i.head) - 1), i.blocks[i.head[len(i.head)-1]].hash, true
}

// Has tells whether the chain that is being built has this block at this height.
func (i *Index) Has(height uint32, hash chain.Hash) bool {
	return int64(height) < int64(len(i.head)) && i.blocks[i.head[height]].hash == hash
}

// Rewind has the next block follow the one at this height. The store keeps the blocks above it.
func (i *Index) Rewind(height uint32) {
	// A copy: views share the array, and the next block would overwrite theirs.
	i.head = slices.Clone(i.head[:height+1])
}

// Add adds the block that follows. It becomes visible by Publish. If the store fails, the blocks
// that were kept back are lost: Tip tells which one it has.
func (i *Index) Add(b *chain.Block) error {
	if i.writing != nil {
		if err := i.await(); err != nil {
			return err
		}
	}
	_, tip, some := i.Tip()
	if some && b.Header.Previous() != tip {
		return errors.New("add a block to the index: it does not follow the last one")
	}
	if uint64(i.next)+uint64(len(b.Txs)) > math.MaxUint32 {
		return errors.New("add a block to the index: its numbers are used up")
	}
	height := uint32(len(i.head))
	i.held.add(height, i.next, b)
	n := uint32(len(i.blocks))
	parent := n
	if some {
		parent = i.head[height-1]
	}
	i.blocks = append(i.blocks, block{b.Header.Hash(), i.next, height, parent})
	i.head = append(i.head, n)
	i.next += uint32(len(b.Txs))
	if i.held.hints() < i.config.Held {
		return nil
	}
	return i.store()
}

// store stores what was kept back.
func (i *Index) store() error {
	if i.writing != nil {
		if err := i.await(); err != nil {
			return err
		}
	}
	if len(i.blocks) == len(i.stored.blocks) {
		i.stored = i.state // the chain may have been rewound
		return nil
	}
	held, writing := i.held, make(chan error, 1)
	i.held, i.writing, i.written = rows{}, writing, i.state
	go func() {
		held.sort()
		writing <- failpoint.Around("index: blocks", func() error {
			if held.hints() < i.config.Held*fileFrom/maxHeld {
				return held.batch(i.db)
			}
			return i.ingest(held)
		})
	}()
	return i.await()
}

// await waits for what the store is writing.
func (i *Index) await() error {
	stalled := time.NewTimer(i.config.Stall)
	defer stalled.Stop()
	select {
	case err := <-i.writing:
		i.writing = nil
		if err != nil {
			i.held, i.state = rows{}, i.stored
			return i.judge(err)
		}
		i.stored = i.written
		return nil
	case <-stalled.C:
		return ErrStalled
	}
}

// draft is the name of a file that the store has not taken yet.
const draft = "draft"

func removeDraft(config Config) error {
	err := config.FS.Remove(filepath.Join(config.Directory, draft))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return opening(err)
	}
	return nil
}

// ingest makes a file of the rows, which the store takes as it is, all of it or nothing.
func (i *Index) ingest(held rows) error {
	for i.db.Metrics().Levels[0].Sublevels >= maxLayers {
		select {
		case <-i.compacted:
		case <-i.damaged:
			return ErrDamaged
		case <-time.After(time.Second): // it had ended before
		}
	}
	path := filepath.Join(i.config.Directory, draft)
	file, err := i.config.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(file), i.options.MakeWriterOptions(0, i.db.TableFormat()))
	err = held.each(w.Set)
	if err = errors.Join(err, w.Close()); err == nil {
		err = i.db.Ingest(context.Background(), []string{path})
	}
	if err != nil {
		_ = i.config.FS.Remove(path)
	}
	return err
}

// sizes hands on the sizes of a block's transactions, until each returns false, and returns where the first
// begins.
func (i *Index) sizes(first uint32, each func(size uint32) bool) (begin uint32, err error) {
	value, closer, err := i.db.Get(binary.BigEndian.AppendUint32([]byte{sizesRow}, first))
	if errors.Is(err, pebble.ErrNotFound) {
		err = fmt.Errorf("%w: the sizes of a block are missing", ErrDamaged)
	}
	if err != nil {
		return 0, i.judge(err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	for rest, started := value, false; len(rest) > 0; started = true {
		n, length := binary.Uvarint(rest)
		if length <= 0 || n > chain.MaxBlock {
			return 0, i.judge(fmt.Errorf("%w: the sizes of a block are no numbers", ErrDamaged))
		}
		if rest = rest[length:]; !started {
			begin = uint32(n)
		} else if !each(uint32(n)) {
			break
		}
	}
	return begin, nil
}

// Publish shows the chain that was built to readers. If the store fails, as for Add.
func (i *Index) Publish() error {
	if err := i.store(); err != nil {
		return err
	}
	i.show()
	return nil
}

func (i *Index) show() { i.view.Store(&View{i, i.blocks, i.head}) }

// View is the chain that was published last.
func (i *Index) View() *View { return i.view.Load() }

// View is one chain. It never changes.
type View struct {
	index  *Index
	blocks []block
	chain  []uint32
}

// Len is how many blocks it has.
func (v *View) Len() uint32 { return uint32(len(v.chain)) }

// Hash is that of the block at a height below Len.
func (v *View) Hash(height uint32) chain.Hash { return v.blocks[v.chain[height]].hash }

// Header is the header of the block at a height below Len.
func (v *View) Header(height uint32) (header chain.Header, err error) {
	value, closer, err := v.index.db.Get(binary.BigEndian.AppendUint32([]byte{blockRow}, v.blocks[v.chain[height]].first))
	if err != nil {
		return header, v.index.judge(err)
	}
	copy(header[:], value)
	if err := closer.Close(); err != nil {
		return header, v.index.judge(err)
	}
	if header.Hash() != v.Hash(height) {
		return header, v.index.judge(fmt.Errorf("%w: a header is another one", ErrDamaged))
	}
	return header, nil
}

// Place is where a transaction is.
type Place struct {
	Height   uint32
	Block    chain.Hash
	Position int // in the block
	Offset   uint32
	Size     uint32 // bytes
}

// place finds the transaction with a number; false: it is not in this chain.
func (v *View) place(number uint32) (p Place, ok bool, err error) {
	after := sort.Search(len(v.chain), func(height int) bool { return v.blocks[v.chain[height]].first > number })
	if after == 0 {
		return p, false, nil
	}
	b := v.blocks[v.chain[after-1]]
	// In the order of adding, the next block begins where this one ends.
	if next := v.chain[after-1] + 1; int64(next) < int64(len(v.blocks)) && number >= v.blocks[next].first {
		return p, false, nil
	}
	p = Place{Height: b.height, Block: b.hash, Position: int(number - b.first)}
	left, before := p.Position, uint32(0)
	begin, err := v.index.sizes(b.first, func(size uint32) bool {
		if left == 0 {
			p.Size, ok = size, true
			return false
		}
		left, before = left-1, before+size
		return true
	})
	p.Offset = begin + before
	return p, ok && err == nil, err
}

// places finds the transactions of hints, in the order of the chain. most bounds how many hints
// are looked at.
func (v *View) places(kind byte, p prefix, most int) (found []Place, more bool, err error) {
	var numbers []uint32
	err = v.index.each(append([]byte{kind}, p[:]...), func(key, _ []byte) error {
		if len(key) != hintSize {
			return fmt.Errorf("%w: a row has another length", ErrDamaged)
		}
		if len(numbers) == most {
			more = true
			return errEnough
		}
		numbers = append(numbers, binary.BigEndian.Uint32(key[9:]))
		return nil
	})
	if err != nil || more {
		return nil, more, err
	}
	for _, number := range numbers {
		place, ok, err := v.place(number)
		if err != nil {
			return nil, false, err
		}
		if ok {
			found = append(found, place)
		}
	}
	return found, false, nil
}

// Pays finds transactions that may pay a script; more: there are more hints than most.
func (v *View) Pays(script chain.Hash, most int) (found []Place, more bool, err error) {
	return v.places(paysRow, of(script), most)
}

// maxSame is how many hints of one output, or of one ID, are looked at: others with the same 8
// bytes are not made by chance.
const maxSame = 64

// Spends finds transactions that may spend an output.
func (v *View) Spends(o chain.Outpoint) (found []Place, err error) {
	found, _, err = v.places(spendsRow, ofOutput(o), maxSame)
	return found, err
}

// Find finds transactions that may have an ID.
func (v *View) Find(id chain.Hash) (found []Place, err error) {
	found, _, err = v.places(idRow, of(id), maxSame)
	return found, err
}

// Size is how many bytes the index has on the disk, without files that are about to go.
func (i *Index) Size() int64 { return i.db.Metrics().Total().TablesSize }

// Flush writes what is in memory.
func (i *Index) Flush() error {
	if err := i.store(); err != nil {
		return err
	}
	return i.judge(i.db.Flush())
}

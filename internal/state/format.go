package state

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The format of a bbolt file (version 2, in the machine's byte order). A file is an array of
// pages, of which the first two are metas:
//
//	page     id (8) | flags (2) | count (2) | overflow (4) | body
//	meta     magic (4) | version (4) | page size (4) | flags (4) | root bucket (16) |
//	         freelist's page (8) | pages in use (8) | transaction (8) | FNV-1a of this (8)
//	branch   count times: pos (4) | key size (4) | page (8); keys at pos
//	leaf     count times: flags (4) | pos (4) | key size (4) | value size (4); both at pos
//	free     count times: page (8)
//	bucket   root's page (8) | sequence (8) | if that page is 0: a leaf page
const (
	pageSize       = 4096
	pageHeaderSize = 16
	elementSize    = 16
	metaSize       = 64 // the checksum covers 56 bytes
	bucketSize     = 16

	magic   = 0xED0CDAED
	version = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	elementIsBucket = 0x01

	// maxDepth limits the depth of the tree. 64 MiB of the smallest pages do not reach it.
	maxDepth = 16
)

var native = binary.NativeEndian

// parse reads the content of our one bucket, and checks on the way everything that bbolt relies
// on when it writes: that each page in use is either reached exactly once or free, and that keys
// are in order.
func parse(b []byte) (content, error) {
	m, err := newestMeta(b)
	if err != nil {
		return nil, err
	}
	if m.pages > uint64(len(b)/pageSize) {
		return nil, reason.Errorf("the file is cut off: %d bytes of %d pages", len(b), m.pages)
	}
	p := &parser{file: b, pages: m.pages, reached: map[uint64]bool{0: true, 1: true}}
	var found []byte
	err = p.walk(m.root, nil, nil, 0, func(flags uint32, key, value []byte) error {
		if flags != elementIsBucket || !bytes.Equal(key, boltBucket) || found != nil {
			return reason.New("there is another bucket than ours")
		}
		found = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	c := content{}
	if err := p.bucket(found, c); err != nil {
		return nil, err
	}
	return c, p.freelist(m.freelist)
}

// meta has the needed fields of a meta page.
type meta struct{ root, freelist, pages, transaction uint64 }

func newestMeta(b []byte) (*meta, error) {
	var newest *meta
	for page := range 2 {
		start := page*pageSize + pageHeaderSize
		if len(b) < start+metaSize {
			break
		}
		field := b[start : start+metaSize]
		sum := fnv.New64a()
		sum.Write(field[:56])
		if native.Uint32(field) != magic || native.Uint32(field[4:]) != version ||
			native.Uint32(field[8:]) != pageSize || native.Uint64(field[56:]) != sum.Sum64() {
			continue
		}
		m := &meta{
			root:        native.Uint64(field[16:]),
			freelist:    native.Uint64(field[32:]),
			pages:       native.Uint64(field[40:]),
			transaction: native.Uint64(field[48:]),
		}
		if newest == nil || m.transaction > newest.transaction {
			newest = m
		}
	}
	if newest == nil {
		return nil, reason.New("it is not a state file, or its first pages are damaged")
	}
	return newest, nil
}

type parser struct {
	file    []byte
	pages   uint64 // in use; within file
	reached map[uint64]bool
}

// page returns a page with its overflow pages, and marks them as reached.
func (p *parser) page(id uint64) ([]byte, error) {
	if id >= p.pages {
		return nil, reason.Errorf("page %d of %d", id, p.pages)
	}
	header := p.file[id*pageSize:]
	if got := native.Uint64(header); got != id {
		return nil, reason.Errorf("page %d calls itself %d", id, got)
	}
	overflow := uint64(native.Uint32(header[12:]))
	if overflow >= p.pages-id {
		return nil, reason.Errorf("page %d goes on beyond the end", id)
	}
	for i := id; i <= id+overflow; i++ {
		if p.reached[i] {
			return nil, reason.Errorf("page %d is used twice", i)
		}
		p.reached[i] = true
	}
	return header[:(overflow+1)*pageSize], nil
}

// visitor is called for each element of a leaf, in order.
type visitor func(flags uint32, key, value []byte) error

// walk visits the tree below a page. Its keys must be at least from, and below to (nil: no
// bound).
func (p *parser) walk(id uint64, from, to []byte, depth int, visit visitor) error {
	if depth > maxDepth {
		return reason.New("the tree is too deep")
	}
	page, err := p.page(id)
	if err != nil {
		return err
	}
	if flags := native.Uint16(page[8:]); flags != flagBranch {
		return leaf(page, from, to, visit)
	}
	count := int(native.Uint16(page[10:]))
	if count == 0 {
		return reason.Errorf("page %d is a branch without leaves", id)
	}
	keys := make([][]byte, count+1)
	for i := range count {
		element, err := elementAt(page, i)
		if err != nil {
			return err
		}
		if keys[i], err = part(element, native.Uint32(element), 0, native.Uint32(element[4:])); err != nil {
			return err
		}
	}
	keys[count] = to
	if from != nil && bytes.Compare(keys[0], from) < 0 {
		return reason.Errorf("page %d is out of order", id)
	}
	for i := range count {
		if next := keys[i+1]; next != nil && bytes.Compare(keys[i], next) >= 0 {
			return reason.Errorf("page %d is out of order", id)
		}
		child := native.Uint64(page[pageHeaderSize+i*elementSize+8:])
		if err := p.walk(child, keys[i], keys[i+1], depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// leaf visits the elements of a leaf page.
func leaf(page, from, to []byte, visit visitor) error {
	if flags := native.Uint16(page[8:]); flags != flagLeaf {
		return reason.Errorf("a page of the tree has the flags %#x", flags)
	}
	for i := range int(native.Uint16(page[10:])) {
		element, err := elementAt(page, i)
		if err != nil {
			return err
		}
		flags, pos := native.Uint32(element), native.Uint32(element[4:])
		keySize, valueSize := native.Uint32(element[8:]), native.Uint32(element[12:])
		key, err := part(element, pos, 0, keySize)
		if err != nil {
			return err
		}
		value, err := part(element, pos, keySize, valueSize)
		if err != nil {
			return err
		}
		order := bytes.Compare(key, from)
		if len(key) == 0 || order < 0 || i > 0 && order == 0 || to != nil && bytes.Compare(key, to) >= 0 {
			return reason.New("the keys are out of order")
		}
		from = key
		if err := visit(flags, key, value); err != nil {
			return err
		}
	}
	return nil
}

// elementAt returns the page from its i-th element on: positions count from there.
func elementAt(page []byte, i int) ([]byte, error) {
	start := pageHeaderSize + i*elementSize
	if start+elementSize > len(page) {
		return nil, reason.New("an element lies outside its page")
	}
	return page[start:], nil
}

// part returns size bytes after pos and skip.
func part(element []byte, pos, skip, size uint32) ([]byte, error) {
	start := uint64(pos) + uint64(skip)
	if end := start + uint64(size); end <= uint64(len(element)) {
		return element[start:end], nil
	}
	return nil, reason.New("a key or a value lies outside its page")
}

// bucket reads the elements of our bucket.
func (p *parser) bucket(b []byte, c content) error {
	if len(b) < bucketSize {
		return reason.New("our bucket is not there")
	}
	put := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return reason.Errorf("an element has the flags %#x", flags)
		}
		c[string(key)] = bytes.Clone(value)
		return nil
	}
	if root := native.Uint64(b); root != 0 {
		return p.walk(root, nil, nil, 0, put)
	}
	page := b[bucketSize:]
	if len(page) < pageHeaderSize {
		return reason.New("our bucket is cut off")
	}
	return leaf(page, nil, nil, put)
}

// freelist checks that exactly the pages that were not reached are free: bbolt will overwrite the
// pages in this list.
func (p *parser) freelist(id uint64) error {
	page, err := p.page(id)
	if err != nil {
		return err
	}
	if flags := native.Uint16(page[8:]); flags != flagFreelist {
		return reason.Errorf("the list of free pages has the flags %#x", flags)
	}
	count, ids := uint64(native.Uint16(page[10:])), page[pageHeaderSize:]
	if count == 0xFFFF { // with this many, the number is in front of the list
		count, ids = native.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) || count+uint64(len(p.reached)) != p.pages {
		return reason.New("the list of free pages has a wrong length")
	}
	last := uint64(0)
	for i := range count {
		free := native.Uint64(ids[i*8:])
		if free <= last || free >= p.pages || p.reached[free] {
			return reason.Errorf("page %d is called free", free)
		}
		last = free
	}
	return nil
}

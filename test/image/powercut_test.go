//go:build linux && image

package image_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// A first boot is recorded, write by write, until the owner's App has claimed the Base. Then the power is cut at each of its steps:
// the disk has what it has flushed, and of the rest nothing but the last write, which has overtaken all others. The next boot ends as
// the first one would have: the App claims the Base, or finds it claimed, and nobody else has a way in. Later the data are damaged:
// the machine stops, and neither makes new ones nor starts without.
func TestAPowerCutInTheFirstBootAndDamagedData(t *testing.T) {
	const name = "builder"
	before := filepath.Join(t.TempDir(), "app")
	app, err := client.New(client.Options{Dir: before, Name: name, NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	given, err := app.Provision(t.TempDir(), client.ProvisionOptions{Name: "cellar", NoDisplay: true, Pair: true})
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	m := shipped(t)
	m.host("mcopy", "-i", m.esp(), given.File, "::/"+bootdisk.ProvisionFile)
	if first := m.partitions()[bootdisk.ESP].First; first != espFirst {
		t.Fatalf("the EFI partition begins at %d", first)
	}
	untouched := filepath.Join(m.directory, "untouched")
	m.host("cp", "--sparse=always", m.disk, untouched)
	a := m.Attacker(1)
	way := a.Way(t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address
	// owner is the App as it was before the first boot.
	owner := func() *client.App {
		t.Helper()
		copied := filepath.Join(t.TempDir(), "app")
		m.host("cp", "-a", before, copied)
		app, err := client.New(client.Options{Dir: copied, Name: name, NoDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		return app
	}
	app = owner()
	// finished waits until the owner's App works, and the first boot is at its end.
	finished := func(app *client.App, when string) {
		t.Helper()
		m.until("the App works "+when, func() error {
			said, err := os.ReadFile(m.serial())
			if err != nil {
				return err
			}
			if bytes.Contains(said, []byte("The Base cannot")) {
				t.Fatalf("%s the machine stops: %s", when, said[max(0, len(said)-500):])
			}
			return call(app, way)
		})
		if conn, err := a.Dial("tcp", netip.AddrPortFrom(m.V4, sshaccess.Port)); err == nil {
			t.Errorf("%s somebody can log in: %v", when, conn.Close())
		}
	}

	m.record = filepath.Join(m.directory, "record")
	if err := os.WriteFile(m.record, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.switchOn()
	finished(app, "without a power cut")
	m.cutPower()
	operations, err := readRecord(m.record)
	if err != nil {
		t.Fatal(err)
	}
	m.record = ""

	cuts := cutsOf(t, operations)
	for i, c := range cuts {
		lost := m.replay(untouched, operations[:c.after])
		m.host("cp", firmware(t), filepath.Join(m.directory, "firmware"))
		when := fmt.Sprintf("after power cut %d of %d, %s (operation %d of %d; %d writes lost; the disk shows %d partitions)", i+1, len(cuts), c.what,
			c.after, len(operations), lost, len(m.partitions()))
		again := app
		if c.after < len(operations) {
			again = owner()
		}
		begun := time.Now()
		m.switchOn()
		finished(again, when)
		t.Logf("FIGURE %s: the App works after %.0f s", when, time.Since(begun).Seconds())
		m.cutPower()
		if got := len(m.partitions()); got != bootdisk.Data {
			t.Errorf("%s the disk has %d partitions", when, got)
		}
		if files := m.host("mdir", "-b", "-i", m.esp(), "::"); strings.Contains(files, bootdisk.ProvisionFile) {
			t.Errorf("%s the file is still there: %s", when, files)
		}
	}

	// The cuts can fail: if the table were written before the file system, the machine would not start again.
	m.replay(untouched, slices.DeleteFunc(slices.Clone(operations), func(o operation) bool { return !o.flush && o.part() != partTable }))
	m.stopsWithout(a)

	// Later the file system is damaged.
	m.replay(untouched, operations)
	data := int64(m.partitions()[bootdisk.Data].First)
	m.change(data, data+4096, func([]byte) []byte { return make([]byte, 4096) })
	m.stopsWithout(a)
}

// stopsWithout starts the machine, which has no file system for its data: it says so, makes none, and nothing answers.
func (m *machine) stopsWithout(a *stage.Attacker) {
	m.t.Helper()
	m.switchOn()
	m.says("The Base cannot use its data: check the file system")
	m.closed(a)
	m.cutPower()
	if got := len(m.partitions()); got != bootdisk.Data {
		m.t.Errorf("the disk has %d partitions", got)
	}
}

// cut is a point in a record at which the power goes.
type cut struct {
	what  string
	after int // how many operations the disk was told before
}

// cutsOf returns the cuts of a first boot, at least one for each of its steps. It fails if the steps come in another order.
func cutsOf(t *testing.T, operations []operation) []cut {
	t.Helper()
	goesTo := func(part part) func(o operation) bool {
		return func(o operation) bool { return !o.flush && o.part() == part }
	}
	table, erase := slices.IndexFunc(operations, goesTo(partTable)), slices.IndexFunc(operations, goesTo(partESP))
	if table < 2 || erase < table {
		t.Fatalf("of %d operations, %d write no partition table, and %d no EFI partition", len(operations), table, erase)
	}
	cuts := []cut{{"in the middle of making the file system", table / 2}}
	named := table // the first operation after which the table names the data
	for i, o := range operations[:erase] {
		same := func(other operation) bool {
			return !other.flush && other.from == o.from && bytes.Equal(other.content, o.content)
		}
		if !goesTo(partTable)(o) || slices.ContainsFunc(operations[:i], same) {
			continue // libfdisk writes the same again
		}
		named = i + 1
		cuts = append(cuts, cut{fmt.Sprintf("after a write of sectors %d to %d of the partition table", o.from/sector, o.to()/sector-1), named})
	}
	used := named + slices.IndexFunc(operations[named:], goesTo(partData))
	if used < named || erase-used < 2 {
		t.Fatalf("of %d operations, number %d is the first to write a file, and number %d erases the provisioning file", len(operations), used, erase)
	}
	cuts = append(cuts, cut{"after the first write of the mounted file system", used + 1},
		cut{"in the middle of the first files", (used + erase) / 2}, cut{"before the provisioning file is erased", erase})
	for i, o := range operations {
		if goesTo(partESP)(o) && o.from > espFirst { // its first sector has the mark that it is in use
			cuts = append(cuts, cut{fmt.Sprintf("after a write of sector %d, which erases the provisioning file", o.from/sector), i + 1})
		}
	}
	return append(cuts, cut{"after the App has claimed the Base", len(operations)})
}

// replay makes the disk what a power cut leaves of it. Everything is there that was written before the last flush; of what was written
// since, the last write alone. It returns how many writes are lost.
func (m *machine) replay(before string, operations []operation) (lost int) {
	m.t.Helper()
	m.host("cp", "--sparse=always", before, m.disk)
	f, err := os.OpenFile(m.disk, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	kept := len(operations)
	for kept > 0 && !operations[kept-1].flush {
		kept--
	}
	for i, o := range operations {
		if i >= kept && i < len(operations)-1 {
			lost++
			continue
		}
		_, errWrite := f.WriteAt(o.content, o.from) // nothing, of a flush
		err = errors.Join(err, errWrite)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		m.t.Fatal(err)
	}
	return lost
}

// The record of a disk's writes is the one of Linux's dm-log-writes, which QEMU writes as well: a sector with the number of operations,
// then for each operation a sector that describes it, and its bytes. Numbers are little endian.
const (
	sector      = 512
	recordMagic = 0x6a736677736872
	flagFlush   = 1 << 0
	flagDiscard = 1 << 2
)

// recorded are QEMU's arguments for a disk of which each write is recorded. It has no commands that clear a part without writing it,
// and merges no writes: QEMU 7.2 records the first wrongly if others run at the same time, and a merged write of 1024 parts not at all.
func recorded(disk, record string) []string {
	return []string{"-blockdev", "driver=blklogwrites,node-name=recorded,log-super-update-interval=1,file.driver=file,file.filename=" + disk +
		",log.driver=file,log.filename=" + record, "-device", "virtio-blk-pci,drive=recorded,discard=off,write-zeroes=off,request-merging=off"}
}

// operation is a write to a disk; or a flush, after which everything is kept that was written before it.
type operation struct {
	flush   bool
	from    int64 // in bytes
	content []byte
}

func (o operation) to() int64 { return o.from + int64(len(o.content)) }

// espFirst is where the EFI partition begins, in bytes.
const espFirst = 1 << 20

// part is what a write belongs to.
type part int

const (
	partData part = iota
	partESP
	partTable // in front, or its copy at the end
)

func (o operation) part() part {
	const list = 1 + 128*128/sector // sectors of a header and its list
	switch {
	case o.from < espFirst || o.to() > diskSize-list*sector:
		return partTable
	case o.from < espFirst+bootdisk.ESPSize:
		return partESP
	}
	return partData
}

// readRecord returns the operations in a record, in their order.
func readRecord(path string) ([]operation, error) {
	record, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	next := func(length uint64) (b []byte) {
		if uint64(len(record)) < length {
			err = errors.Join(err, fmt.Errorf("%s ends too early", path))
			return make([]byte, min(length, sector))
		}
		b, record = record[:length], record[length:]
		return b
	}
	head := next(sector)
	if binary.LittleEndian.Uint64(head) != recordMagic || binary.LittleEndian.Uint32(head[24:]) != sector {
		return nil, fmt.Errorf("%s is no record of a disk's writes", path)
	}
	var operations []operation
	for range binary.LittleEndian.Uint64(head[16:]) {
		b := next(sector)
		first, count, flags := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
		if flags&flagDiscard != 0 {
			return nil, fmt.Errorf("%s has a discard, which that disk has not", path)
		}
		if flags == 0 && count == 0 {
			return nil, fmt.Errorf("%s has a gap after %d operations", path, len(operations))
		}
		if flags&flagFlush != 0 {
			operations = append(operations, operation{flush: true})
		}
		if count > 0 {
			operations = append(operations, operation{from: int64(first) * sector, content: next(count * sector)})
		}
		if err != nil {
			return nil, err
		}
	}
	return operations, nil
}

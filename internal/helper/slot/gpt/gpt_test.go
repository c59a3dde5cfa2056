package gpt

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testSize = 8 << 20

// aDisk is partitioned by Debian's sfdisk.
func aDisk(t *testing.T) []byte {
	t.Helper()
	sfdisk, err := exec.LookPath("sfdisk")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, not passed: this test needs sfdisk")
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, testSize), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(sfdisk, "--quiet", path)
	command.Stdin = strings.NewReader("label: gpt\nfirst-lba: 2048\n" +
		"start=2048, size=2048, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, name=root_1, uuid=00112233-4455-6677-8899-aabbccddeeff\n" +
		"start=4096, size=2048, type=2c7357ed-ebd2-46d9-aec1-23d437ec2bf5, name=verity_1\n")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// memory is a disk that counts its writes and is cut at one of them.
type memory struct {
	b      []byte
	writes int
	cutAt  int // 0: never
	random *rand.Rand
}

var errCut = errors.New("the power was cut")

func (m *memory) ReadAt(b []byte, at int64) (int, error) { return bytes.NewReader(m.b).ReadAt(b, at) }
func (m *memory) Sync() error                            { return nil }
func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if m.writes++; m.writes != m.cutAt {
		return copy(m.b[at:], b), nil
	}
	// A sector is written or not; of several, any may be.
	for from := 0; from < len(b); from += sector {
		if m.random.IntN(2) == 0 {
			copy(m.b[at+int64(from):], b[from:from+sector])
		}
	}
	return 0, errCut
}

var newID = ID{0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

func TestAChangedTableIsTheOneThatSfdiskReads(t *testing.T) {
	m := &memory{b: aDisk(t)}
	before := bytes.Clone(m.b)
	for round := range 3 { // the list goes to and fro
		table, err := Read(m, testSize)
		if err != nil {
			t.Fatal(err)
		}
		p := table.Partitions()
		if len(p) != 2 || p[0].First != 1<<20 || p[0].Size != 1<<20 || p[1].Number != 2 {
			t.Fatalf("partitions %+v", p)
		}
		if round == 0 && (p[0].Name != "root_1" || p[0].ID.String() != "00112233-4455-6677-8899-aabbccddeeff") {
			t.Errorf("the first partition is %+v", p[0])
		}
		if err := errors.Join(table.Change(1, newID, "root_2"), table.Write(m)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, m.b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sfdisk", "--json", path).CombinedOutput()
		var read struct {
			PartitionTable struct {
				Partitions []struct{ UUID, Name, Type string }
			}
		}
		if err != nil || json.Unmarshal(out, &read) != nil || bytes.Contains(out, []byte("orrupt")) {
			t.Fatalf("%v: %s", err, out)
		}
		one := read.PartitionTable.Partitions[0]
		if !strings.EqualFold(one.UUID, newID.String()) || one.Name != "root_2" {
			t.Errorf("sfdisk reads %+v", one)
		}
		out, err = exec.Command("sfdisk", "--verify", path).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("No errors detected")) {
			t.Errorf("%v: %s", err, out)
		}
	}
	if !bytes.Equal(before[1<<20:3<<20], m.b[1<<20:3<<20]) {
		t.Error("the content of a partition has changed")
	}
	if _, err := readAt(m, testSize/sector-1, testSize); err != nil {
		t.Errorf("the copy at the end: %v", err)
	}
}

// front reads the table as Linux does: the copy at the end counts for nothing.
func front(b []byte) (string, error) {
	table, err := readAt(bytes.NewReader(b), 1, testSize)
	if err != nil {
		return "", err
	}
	return table.Partitions()[0].Name, nil
}

func TestAPowerCutLeavesATableInFrontThatIsWhole(t *testing.T) {
	disk := aDisk(t)
	cut := func(write func(*Table, Device) error) (broken int) {
		for at := 1; at <= 4; at++ {
			for seed := range uint64(20) {
				m := &memory{b: bytes.Clone(disk), cutAt: at, random: rand.New(rand.NewPCG(seed, 1))}
				table, err := Read(m, testSize)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(table.Change(1, newID, "root_2"), write(table, m)); !errors.Is(err, errCut) {
					t.Fatalf("cut at write %d: %v", at, err)
				}
				if name, err := front(m.b); err != nil || name != "root_1" && name != "root_2" {
					broken++
				}
			}
		}
		return broken
	}
	if broken := cut((*Table).Write); broken != 0 {
		t.Errorf("%d times the table in front is broken", broken)
	}
	// Writing the list in place breaks it for as long as the header is missing.
	if broken := cut(func(table *Table, d Device) error {
		if _, err := d.WriteAt(table.list, 2*sector); err != nil {
			return err
		}
		return table.Write(d)
	}); broken == 0 {
		t.Error("writing in place is never seen; this test proves nothing")
	}
}

func TestADamagedTableIsReadFromTheCopyAndMendedByTheNextWrite(t *testing.T) {
	for _, at := range []int{sector, sector + 80, 2 * sector, sector + crcAt} {
		m := &memory{b: aDisk(t)}
		m.b[at] ^= 1
		table, err := Read(m, testSize)
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		if err := errors.Join(table.Change(1, newID, "root_2"), table.Write(m)); err != nil {
			t.Fatal(err)
		}
		if name, err := front(m.b); err != nil || name != "root_2" {
			t.Errorf("byte %d: then the name is %q, %v", at, name, err)
		}
	}
}

func TestADiskWithoutATableIsRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing": nil, "zeros": make([]byte, testSize), "a short disk": aDisk(t)[:1<<20],
	} {
		m := &memory{b: b}
		_, err := Read(m, uint64(len(b)))
		if name == "a short disk" {
			// Its copy is missing, and the header says that it is elsewhere.
			if err == nil {
				t.Error("a disk that was cut off is read")
			}
			continue
		}
		if !errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := &memory{b: aDisk(t)}
	table, err := Read(m, testSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range []int{-1, 0, 129} {
		if err := table.Change(number, newID, "x"); err == nil {
			t.Errorf("partition %d is named", number)
		}
	}
	if err := table.Change(1, newID, strings.Repeat("x", 37)); err == nil {
		t.Error("a name that is too long is taken")
	}
	// No room for a second list: nothing is written.
	table.setNumber(firstUsableAt, 40)
	if err := table.Write(m); !errors.Is(err, ErrNoRoom) || m.writes != 0 {
		t.Errorf("%v after %d writes", err, m.writes)
	}
}

func FuzzRead(f *testing.F) {
	b := make([]byte, 64*sector)
	copy(b[sector:], signature)
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		if table, err := Read(bytes.NewReader(b), uint64(len(b))); err == nil {
			_ = table.Partitions()
		}
	})
}

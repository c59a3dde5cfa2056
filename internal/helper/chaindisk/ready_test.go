//go:build linux

package chaindisk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
)

const uuid = "6f1d2c3b-1111-4222-8333-444455556666"

// bench is a machine with disks that are loop devices: Debian's programs and the kernel do to them
// what they do to disks. Only lsblk's answer is changed: a loop device says that it is one, has no
// serial number, and lies on this machine's disk.
type bench struct {
	*Keeper
	t      *testing.T
	serial map[string]string // by the name of the loop device
	ran    []string          // programs that changed something
}

const diskSize = 40_000_000_000 // nearly all of it is a hole

func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, not passed: this test needs root")
	}
	for _, program := range []string{lsblk, blkid, mkfs, e2fsck, "/usr/sbin/losetup"} {
		if _, err := os.Stat(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("SKIPPED, not passed: this test needs %s", program)
		}
	}
	b := &bench{t: t, serial: map[string]string{}}
	b.Keeper = &Keeper{Store: Store{Directory: t.TempDir(), Run: t.TempDir()}, MountPoint: t.TempDir(), UID: 4711, GID: 4711}
	b.Keeper.Run, b.Keeper.Mount = b.run, b.mount
	b.Keeper.Look = b.lookAtAll
	b.Keeper.Unmount = func(context.Context) error { return unix.Unmount(b.MountPoint, 0) }
	t.Cleanup(func() { _ = unix.Unmount(b.MountPoint, unix.MNT_DETACH) })
	return b
}

func (b *bench) tool(argv ...string) string {
	b.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%q: %v: %s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// disk makes a disk, and returns its device and the file behind it.
func (b *bench) disk(serial string) (device, file string) {
	b.t.Helper()
	return b.diskIn(b.t.TempDir(), serial)
}

func (b *bench) diskIn(folder, serial string) (device, file string) {
	b.t.Helper()
	file = filepath.Join(folder, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Truncate(file, diskSize); err != nil {
		b.t.Fatal(err)
	}
	device = b.tool("losetup", "--find", "--show", "--partscan", file)
	b.t.Cleanup(func() {
		_ = unix.Unmount(b.MountPoint, unix.MNT_DETACH)
		b.tool("losetup", "--detach", device)
	})
	b.serial[filepath.Base(device)] = serial
	return device, file
}

// run is Exec, with lsblk's answer as it would be for disks.
func (b *bench) run(ctx context.Context, limit time.Duration, argv ...string) ([]byte, int, error) {
	text, code, err := Exec(ctx, limit, argv...)
	if argv[0] == mkfs {
		b.ran = append(b.ran, filepath.Base(argv[0]))
	}
	if argv[0] != lsblk || err != nil {
		return text, code, err
	}
	var tree struct {
		Devices []*node `json:"blockdevices"`
	}
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, 0, err
	}
	tree.Devices = slices.DeleteFunc(tree.Devices, func(n *node) bool { return b.serial[n.Name] == "" })
	for _, n := range tree.Devices {
		n.Type, n.Rota, n.Tran, n.Serial = "disk", false, "sata", b.serial[n.Name]
		for i, point := range n.Mountpoints {
			if point != nil && *point == b.MountPoint {
				place := MountPoint
				n.Mountpoints[i] = &place
			}
		}
	}
	text, err = json.Marshal(tree)
	return text, code, err
}

func (b *bench) mount(_ context.Context, device string) error {
	return unix.Mount(device, b.MountPoint, "ext4", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "errors=remount-ro")
}

// lookAtAll does what LookUnit does.
func (b *bench) lookAtAll(ctx context.Context) error {
	list, err := Look(ctx, b.run, slog.New(slog.DiscardHandler))
	if err == nil {
		err = b.Store.WriteList(list)
	}
	return err
}

// look sees the disks as LookUnit does.
func (b *bench) look() map[string]*seen {
	b.t.Helper()
	list, err := look(b.t.Context(), b.Run, func(n *node) (signature, error) { return content(b.t.Context(), b.Run, n) })
	if err != nil {
		b.t.Fatal(err)
	}
	disks := map[string]*seen{}
	for _, s := range list {
		disks[s.path] = s
	}
	return disks
}

// order has an order for a disk wait.
func (b *bench) order(device string, erase bool) {
	b.t.Helper()
	s := b.look()[device]
	if err := b.Store.WriteOrder(Order{ID: s.GetId(), UUID: uuid, Erase: erase, Content: s.GetContent()}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) ready() error { return b.Ready(b.t.Context()) }

func TestADiskIsPreparedAndMounted(t *testing.T) {
	b := newBench(t)
	if err := b.ready(); err != nil {
		t.Fatalf("without a chosen disk: %v", err)
	}
	device, _ := b.disk("SERIAL1")
	b.tool("mkfs.ext4", "-q", "-L", "Photos", device)
	if s := b.look()[device]; s.GetContent() != `ext4 "Photos"` || s.GetRefused() != "" {
		t.Fatalf("the disk is %v", &s.Disk)
	}
	b.order(device, true)
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	s := b.look()[device]
	if !s.mounted || s.uuid != uuid || s.GetChainUuid() != uuid || s.GetRefused() != "" {
		t.Errorf("the disk is %v, mounted %v, %s", &s.Disk, s.mounted, s.uuid)
	}
	var stat unix.Stat_t
	if err := unix.Stat(b.MountPoint, &stat); err != nil || stat.Uid != 4711 || stat.Gid != 4711 {
		t.Errorf("the file system belongs to %d:%d, %v", stat.Uid, stat.Gid, err)
	}
	if err := os.WriteFile(filepath.Join(b.MountPoint, "block"), []byte("of the chain"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The node starts again; then the Base does.
	b.ran = nil
	for range 2 {
		if err := b.ready(); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(b.MountPoint, "block")); err != nil || string(text) != "of the chain" {
			t.Errorf("the chain is %q, %v", text, err)
		}
		if err := unix.Unmount(b.MountPoint, 0); err != nil {
			t.Fatal(err)
		}
	}
	// Another Base adopts the disk as it is.
	if err := os.Remove(filepath.Join(b.Store.Directory, chosenFile)); err != nil {
		t.Fatal(err)
	}
	b.order(device, false)
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(b.MountPoint, "block")); err != nil || string(text) != "of the chain" {
		t.Errorf("the chain is %q, %v", text, err)
	}
	if b.ran != nil {
		t.Errorf("these were run: %v", b.ran)
	}
}

// A power cut at each step: the next start goes on, and what comes of it is the same.
func TestAPowerCutWhileADiskIsPrepared(t *testing.T) {
	errCut := errors.New("the power was cut")
	for _, step := range []string{"before: begin", "after: begin", "before: erase the disk", "after: erase the disk",
		"before: make the file system",
		"after: make the file system", "before: record the disk", "after: record the disk", "before: forget the order",
		"after: forget the order"} {
		t.Run(step, func(t *testing.T) {
			b := newBench(t)
			device, _ := b.disk("SERIAL1")
			b.tool("mkfs.ext4", "-q", "-L", "Photos", device)
			b.order(device, true)
			clear := failpoint.Set(func(reached string) error {
				if reached == step {
					return errCut
				}
				return nil
			})
			err := b.ready()
			clear()
			if !errors.Is(err, errCut) {
				t.Fatalf("the cut: %v", err)
			}
			if s := b.look()[device]; s.mounted {
				t.Error("the disk is in use before it is recorded")
			}
			if err := b.ready(); err != nil {
				t.Fatal(err)
			}
			if order, err := b.Store.Order(); err != nil || order != nil {
				t.Errorf("an order waits: %v, %v", order, err)
			}
			if s := b.look()[device]; !s.mounted || s.uuid != uuid {
				t.Errorf("the disk is %v, mounted %v", &s.Disk, s.mounted)
			}
			made := 0
			for _, program := range b.ran {
				if program == filepath.Base(mkfs) {
					made++
				}
			}
			if made > 1 {
				t.Errorf("the file system was made %d times", made)
			}
		})
	}
}

// A factory reset that was to take the chain, too.
func TestAResetErasesTheDiskOfTheChainIfItIsAskedTo(t *testing.T) {
	b := newBench(t)
	device, _ := b.disk("SERIAL1")
	b.order(device, true)
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a power cut
		if err := b.Store.OrderErasing(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.ready(); !errors.Is(err, ErrRefused) {
		t.Errorf("while the node uses it: %v", err)
	}
	if err := unix.Unmount(b.MountPoint, 0); err != nil {
		t.Fatal(err)
	}
	// It is away, and another disk is not it.
	b.serial[filepath.Base(device)] = ""
	if err := b.ready(); err != nil {
		t.Errorf("while it is away: %v", err)
	}
	b.serial[filepath.Base(device)] = "SERIAL1"
	if s := b.look()[device]; s.GetChainUuid() != uuid {
		t.Fatalf("the disk is %v", &s.Disk)
	}
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	if s := b.look()[device]; s.GetChainUuid() != "" || s.mounted {
		t.Errorf("the disk is %v", &s.Disk)
	}
	if erasing, err := b.Store.Erasing(); err != nil || erasing != nil {
		t.Errorf("still to be erased: %v, %v", erasing, err)
	}
}

// The order was given for a disk that nobody used. When it is followed, somebody does.
func TestADiskInUseIsNotErased(t *testing.T) {
	b := newBench(t)
	device, _ := b.disk("SERIAL1")
	b.tool("mkfs.ext4", "-q", "-L", "Photos", device)
	b.order(device, true)
	elsewhere := t.TempDir()
	if err := unix.Mount(device, elsewhere, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(elsewhere, unix.MNT_DETACH) })
	if err := b.ready(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a mounted disk: %v", err)
	}
	if !strings.Contains(b.Store.Trouble(), "in use") {
		t.Errorf("an owner reads %q", b.Store.Trouble())
	}
	// The broken variant sees no mount: the kernel does.
	kept := rules
	rules = nil
	t.Cleanup(func() { rules = kept })
	if err := b.ready(); !errors.Is(err, ErrRefused) {
		t.Errorf("a mounted disk, without the rules: %v", err)
	}
	if b.ran != nil {
		t.Errorf("these were run: %v", b.ran)
	}
	if err := unix.Unmount(elsewhere, 0); err != nil {
		t.Fatal(err)
	}
	// Without the kernel's word, too, it would be erased.
	if err := b.ready(); err != nil || !slices.Contains(b.ran, filepath.Base(mkfs)) {
		t.Errorf("a free disk: %v, %v", err, b.ran)
	}
}

// Names change from one start to the next; what a disk says of itself does not.
func TestADiskIsKnownByWhatItIs(t *testing.T) {
	b := newBench(t)
	one, _ := b.disk("SERIAL1")
	two, _ := b.disk("SERIAL2")
	b.order(two, true)
	b.serial[filepath.Base(one)], b.serial[filepath.Base(two)] = "SERIAL2", "SERIAL1"
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	disks := b.look()
	if disks[one].uuid != uuid || disks[two].uuid != "" {
		t.Errorf("%s has %q, %s has %q", one, disks[one].uuid, two, disks[two].uuid)
	}
	// A copy of the disk makes it ambiguous.
	if err := unix.Unmount(b.MountPoint, 0); err != nil {
		t.Fatal(err)
	}
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", "-U", uuid, "-L", Label, two)
	if err := b.ready(); err == nil || !strings.Contains(err.Error(), "remove one of them") {
		t.Errorf("two disks with the same file system: %v", err)
	}
}

// A stick has a partition with the UUID of the disk of the chain, and then another disk gets the name
// of the checked one: nothing but the checked disk stays mounted.
func TestWhatIsMountedIsWhatWasChecked(t *testing.T) {
	b := newBench(t)
	chain, _ := b.disk("SERIAL1")
	other, _ := b.disk("SERIAL2")
	b.order(chain, true)
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(b.MountPoint, 0); err != nil {
		t.Fatal(err)
	}
	disk := &seen{uuid: uuid}
	if err := disk.only([]*seen{disk, {parts: []string{uuid}}}); err == nil || !strings.Contains(err.Error(), "remove one of them") {
		t.Errorf("a partition with the same UUID: %v", err)
	}
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", other)
	b.Keeper.Mount = func(ctx context.Context, _ string) error { return b.mount(ctx, other) }
	if err := b.ready(); err == nil || !strings.Contains(err.Error(), "another disk was mounted") {
		t.Errorf("another disk was mounted: %v", err)
	}
	if s := b.look()[other]; s.mounted {
		t.Error("the other disk stays mounted")
	}
}

// A disk is pulled out before its order is followed, used elsewhere, and plugged in again.
func TestAnOldOrderErasesNothingNew(t *testing.T) {
	b := newBench(t)
	device, _ := b.disk("SERIAL1")
	b.order(device, true)
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", "-L", "Photos", device)
	if err := b.ready(); !errors.Is(err, ErrRefused) || b.ran != nil {
		t.Errorf("an old order: %v, %v", err, b.ran)
	}
	// The broken variant does not compare: it erases the photos.
	order, err := b.Store.Order()
	if err != nil {
		t.Fatal(err)
	}
	order.Begun = true
	if err := errors.Join(b.Store.WriteOrder(*order), b.ready()); err != nil || b.ran == nil {
		t.Errorf("without the comparison: %v, %v", err, b.ran)
	}
}

// A disk that cannot be read is refused. The disk of the chain is ready all the same.
func TestABadDiskHarmsNoOther(t *testing.T) {
	b := newBench(t)
	chain, _ := b.disk("SERIAL1")
	bad, _ := b.disk("SERIAL2")
	b.order(chain, true)
	// Its device cannot be opened.
	const gone = "gone1"
	b.Keeper.Run = func(ctx context.Context, limit time.Duration, argv ...string) ([]byte, int, error) {
		text, code, err := b.run(ctx, limit, argv...)
		return bytes.ReplaceAll(text, []byte(`"`+filepath.Base(bad)+`"`), []byte(`"`+gone+`"`)), code, err
	}
	b.Keeper.Look = func(ctx context.Context) error {
		list, err := Look(ctx, b.Keeper.Run, slog.New(slog.DiscardHandler))
		return errors.Join(err, b.Store.WriteList(list))
	}
	if err := b.ready(); err != nil {
		t.Errorf("beside a bad disk: %v", err)
	}
	list, err := b.Keeper.look(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%d disks, %v", len(list), err)
	}
	for _, s := range list {
		if refused := s.GetRefused() != ""; refused != (s.GetName() == gone) {
			t.Errorf("%s is refused: %q", s.path, s.GetRefused())
		}
	}
}

// The attack: somebody plugs in a disk that takes over the programs which know its format. The unit
// that may write to each disk runs none of them on it; LookUnit does, and only if an order waits.
func TestAsRootNoProgramReadsADiskThatNobodyHasChosen(t *testing.T) {
	b := newBench(t)
	chain, _ := b.disk("SERIAL1")
	hostile, _ := b.disk("SERIAL2")
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", "-L", "Hostile", hostile)
	b.order(chain, true)
	var ran []string // as root
	looks := 0
	b.Keeper.Run = func(ctx context.Context, limit time.Duration, argv ...string) ([]byte, int, error) {
		if ran = append(ran, argv[0]); slices.Contains(argv, hostile) || argv[0] == blkid {
			t.Errorf("this was run: %q", argv)
		}
		return b.run(ctx, limit, argv...)
	}
	b.Keeper.Look = func(ctx context.Context) error {
		looks++
		return b.lookAtAll(ctx)
	}
	for range 2 {
		if err := b.ready(); err != nil {
			t.Fatal(err)
		}
		if looks != 1 {
			t.Errorf("LookUnit was started %d times", looks)
		}
		if err := unix.Unmount(b.MountPoint, 0); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(ran)
	if ran = slices.Compact(ran); !slices.Equal(ran, []string{lsblk, e2fsck, mkfs}) {
		t.Errorf("these were run: %q", ran)
	}
}

// LookUnit was taken over: it may call any disk the chosen one, and say that it is empty.
func TestALyingListHasNoOtherDiskErased(t *testing.T) {
	b := newBench(t)
	chain, _ := b.disk("SERIAL1")
	photos, _ := b.disk("SERIAL2")
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", "-L", "Photos", photos)
	b.order(chain, true)
	b.Keeper.Look = func(ctx context.Context) error {
		list, err := Look(ctx, b.run, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		for _, d := range list {
			d.Name, d.Content = filepath.Base(photos), ""
			if d.GetSerialEnd() == "IAL2" {
				d.Id = strings.Repeat("0", 32)
			}
		}
		return b.Store.WriteList(list)
	}
	if err := b.ready(); err != nil {
		t.Fatal(err)
	}
	disks := b.look()
	if disks[photos].GetContent() != `ext4 "Photos"` || disks[chain].uuid != uuid {
		t.Errorf("the disks are %v and %v", &disks[photos].Disk, &disks[chain].Disk)
	}
}

func TestADiskThatTakesNoMoreWritesIsRecognised(t *testing.T) {
	const point = "/var/lib/bitbox-bitcoin"
	line := func(at, flags, options string) string {
		return "36 35 8:1 / " + at + " " + flags + " master:1 - ext4 /dev/sda " + options + "\n"
	}
	for text, want := range map[string]bool{
		line(point, "rw,noexec", "rw,errors=remount-ro"):                  false,
		line(point, "rw,noexec", "ro,errors=remount-ro"):                  true, // Linux 6.12
		line(point, "rw,noexec", "rw,errors=remount-ro,emergency_ro"):     true, // Linux 6.18
		line("/", "ro", "ro"):                                             false,
		line(point, "rw", "ro") + line(point, "rw", "rw") + "garbage\n\n": false,
	} {
		if got := stopped(text, point); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestADiskIsErasedAtBothEnds(t *testing.T) {
	b := newBench(t)
	device, path := b.disk("SERIAL1")
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", device)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	mark := []byte("of the old content")
	places := map[int64]bool{0: true, cleared - 100: true, cleared: false, diskSize / 2: false, diskSize - cleared - 100: false,
		diskSize - cleared: true, diskSize - 100: true}
	for at := range places {
		if _, err := file.WriteAt(mark, at); err != nil {
			t.Fatal(err)
		}
	}
	b.tool("blockdev", "--flushbufs", device)
	if err := clearEnds(device); err != nil {
		t.Fatal(err)
	}
	for at, erased := range places {
		got := make([]byte, len(mark))
		if _, err := file.ReadAt(got, at); err != nil || bytes.Equal(got, mark) == erased {
			t.Errorf("at %d there is %q, %v", at, got, err)
		}
	}
	if _, code, err := Exec(t.Context(), lookTime, blkid, "--probe", device); err != nil || code != 2 {
		t.Errorf("blkid ends with %d, %v", code, err)
	}
	// One that is in use is not.
	if err := unix.Mount(device, b.MountPoint, "ext4", 0, ""); err == nil {
		t.Error("an erased disk was mounted")
	}
	b.tool("mkfs.ext4", "-q", "-T", "largefile4", device)
	if err := b.mount(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	if err := clearEnds(device); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a mounted disk: %v", err)
	}
}

// Each of these keeps the node from starting, with a reason that an owner reads.
func TestADiskThatIsNotWellKeepsTheNodeFromStarting(t *testing.T) {
	prepared := func(t *testing.T) (b *bench, device, file string) {
		b = newBench(t)
		device, file = b.disk("SERIAL1")
		b.order(device, true)
		if err := b.ready(); err != nil {
			t.Fatal(err)
		}
		return b, device, file
	}
	refuses := func(t *testing.T, b *bench, reason string) {
		t.Helper()
		if err := b.ready(); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("got %v; want %q", err, reason)
		}
		if !strings.Contains(b.Store.Trouble(), reason) {
			t.Errorf("an owner reads %q", b.Store.Trouble())
		}
	}
	t.Run("pulled out", func(t *testing.T) {
		b, device, _ := prepared(t)
		if err := unix.Unmount(b.MountPoint, 0); err != nil {
			t.Fatal(err)
		}
		b.serial[filepath.Base(device)] = ""
		refuses(t, b, "is not there")
		b.serial[filepath.Base(device)] = "SERIAL1"
		if err := b.ready(); err != nil || b.Store.Trouble() != "" {
			t.Errorf("once it is back: %v, %q", err, b.Store.Trouble())
		}
	})
	t.Run("damaged", func(t *testing.T) {
		b, device, _ := prepared(t)
		if err := unix.Unmount(b.MountPoint, 0); err != nil {
			t.Fatal(err)
		}
		// The kernel has noticed an error, and the root folder is gone.
		b.tool("debugfs", "-w", "-R", "set_super_value state 2", device)
		b.tool("debugfs", "-w", "-R", "clri <2>", device)
		refuses(t, b, "damaged")
	})
	t.Run("with an error", func(t *testing.T) {
		// The kernel cannot write beyond the first megabytes of this disk.
		b, folder := newBench(t), t.TempDir()
		if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=48m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(folder, unix.MNT_DETACH) })
		device, _ := b.diskIn(folder, "SERIAL1")
		b.order(device, true)
		if err := b.ready(); err != nil {
			t.Fatal(err)
		}
		file, err := os.Create(filepath.Join(b.MountPoint, "block"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		for range 100 {
			_, _ = file.Write(bytes.Repeat([]byte{1}, 1<<20))
		}
		_ = file.Sync()
		for n := 0; ; n++ { // until the kernel has noticed
			probe, err := os.Create(filepath.Join(b.MountPoint, fmt.Sprint(n)))
			if errors.Is(err, unix.EROFS) {
				break
			}
			if err == nil {
				err = errors.Join(probe.Sync(), probe.Close())
			}
			if n > 10_000 {
				t.Fatalf("the disk takes all writes: %v", err)
			}
		}
		if err := file.Close(); err != nil {
			t.Log(err)
		}
		refuses(t, b, "had an error")
	})
	t.Run("full", func(t *testing.T) {
		b, _, _ := prepared(t)
		var s unix.Statfs_t
		if err := unix.Statfs(b.MountPoint, &s); err != nil {
			t.Fatal(err)
		}
		// Files are allocated without being written.
		left := int64(s.Bavail)*s.Bsize - leastFree/2
		for i := 0; left > 0; i++ {
			f, err := os.Create(filepath.Join(b.MountPoint, fmt.Sprint("blk", i)))
			if err != nil {
				t.Fatal(err)
			}
			size := min(left, 512<<30)
			if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close()); err != nil {
				t.Fatal(err)
			}
			left -= size
		}
		refuses(t, b, "is full")
	})
	t.Run("records damaged", func(t *testing.T) {
		b, _, _ := prepared(t)
		for _, text := range []string{"", "{}", `{"uuid":"../../x"}`, `{"uuid":"-F"}`, strings.Repeat(" ", maxRecord+1)} {
			if err := os.WriteFile(filepath.Join(b.Store.Directory, chosenFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			refuses(t, b, "damaged")
		}
	})
}

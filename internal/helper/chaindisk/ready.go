package chaindisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// Patience is how long a disk may take to appear: one on USB starts late.
	Patience  = 30 * time.Second
	lookAgain = time.Second
	// makeTime is how long making a file system may take, and checkTime a check of one that was
	// not closed: on a slow disk with much on it that takes minutes.
	makeTime  = 10 * time.Minute
	checkTime = 30 * time.Minute
)

// Keeper makes the disk of the chain ready for the node.
type Keeper struct {
	Store Store
	Run   Run
	// Look has LookUnit look at what is on the disks; the Store has its list then.
	Look func(ctx context.Context) error
	// Mount has a device mounted at MountPoint, and Unmount ends that.
	Mount   func(ctx context.Context, device string) error
	Unmount func(ctx context.Context) error
	// MountPoint is where that is seen.
	MountPoint string
	// UID and GID own the file system.
	UID, GID int
	// Patience is how long a disk is waited for; 0: not at all.
	Patience time.Duration
}

// Ready follows the order that waits, if one does, and makes sure that the chosen disk is mounted,
// can be written to, and has room. Without a chosen disk there is nothing to do. It may be cut at
// each step, and begins again where it was. An error is a sentence for an owner; the node must not
// start then.
func (k *Keeper) Ready(ctx context.Context) error {
	err := k.ready(ctx)
	return errors.Join(err, k.Store.WriteTrouble(err))
}

func (k *Keeper) ready(ctx context.Context) error {
	order, err := k.Store.Order()
	if err != nil {
		return err
	}
	if err := k.erase(ctx, order); err != nil {
		return err
	}
	if order != nil {
		if err := k.prepare(ctx, order); err != nil {
			return err
		}
	}
	chosen, err := k.Store.Chosen()
	if err != nil || chosen == nil {
		return err
	}
	disk, err := k.find(ctx, func(s *seen) bool { return s.uuid == chosen.UUID })
	if err != nil {
		return err
	}
	if !disk.mounted {
		if disk.inUse != "" {
			return reason.Errorf("the disk of the chain is in use: %s", disk.inUse)
		}
		if err := k.mount(ctx, disk); err != nil {
			return err
		}
	}
	return k.check()
}

// erase erases the disk that a factory reset has ordered to erase. If it is not there, nothing waits
// for it: it is erased when it comes back, unless its new owner has chosen it as it is.
func (k *Keeper) erase(ctx context.Context, order *Order) error {
	erasing, err := k.Store.Erasing()
	switch {
	case err != nil || erasing == nil:
		return err
	case order != nil && order.UUID == erasing.UUID:
		return k.Store.ForgetErasing()
	}
	list, err := k.look(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, s := range list {
		if s.uuid != erasing.UUID || s.GetChainUuid() != erasing.UUID {
			continue
		}
		found = true
		if err := alone(s.path); err != nil {
			return err
		}
		if err := k.clear(s.path); err != nil {
			return err
		}
	}
	if !found {
		return nil
	}
	return k.Store.ForgetErasing()
}

// errMissing is what an owner hears of a disk that was pulled out.
var errMissing = reason.New("the disk of the chain is not there; connect it, then: bitbox-app services restart bitcoin")

// look looks at the disks with as little as will do: this process may write to each of them.
func (k *Keeper) look(ctx context.Context) ([]*seen, error) { return look(ctx, k.Run, superblock) }

// find waits for the disk.
func (k *Keeper) find(ctx context.Context, is func(*seen) bool) (*seen, error) {
	deadline := time.Now().Add(k.Patience)
	for {
		list, err := k.look(ctx)
		if err != nil {
			return nil, err
		}
		var found *seen
		for _, s := range list {
			if !is(s) {
				continue
			}
			if found != nil {
				return nil, reason.Errorf("%s and %s both say that they are the disk of the chain; remove one of them", found.GetName(), s.GetName())
			}
			found = s
		}
		if found != nil {
			return found, found.only(list)
		}
		if time.Now().After(deadline) {
			return nil, errMissing
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// only refuses a disk that cannot be read, and one whose UUID is on a part of any disk, too.
func (s *seen) only(list []*seen) error {
	if s.broken != "" {
		return reason.Errorf("%w: %s", ErrRefused, s.broken)
	}
	for _, other := range list {
		if s.uuid != "" && (slices.Contains(other.parts, s.uuid) || other != s && other.uuid == s.uuid) {
			return reason.Errorf("%s and a part of %s both say that they are the disk of the chain; remove one of them", s.GetName(), other.GetName())
		}
	}
	return nil
}

// prepare follows an order: from then on its disk is the chosen one. It does no step twice: a disk
// that has its UUID has its file system.
func (k *Keeper) prepare(ctx context.Context, o *Order) error {
	disk, err := k.find(ctx, func(s *seen) bool { return s.GetId() == o.ID })
	if err != nil {
		return err
	}
	if !disk.mounted || disk.uuid != o.UUID {
		if disk.mounted {
			disk.inUse = disk.GetName() + " holds a chain that is in use"
		}
		for _, r := range rules {
			if why := r.refuse(disk); r.always && why != "" {
				return reason.Errorf("%w: %s", ErrRefused, why)
			}
		}
		if err := alone(disk.path); err != nil {
			return err
		}
	}
	if o.Erase && disk.uuid != o.UUID {
		if err := k.asOrdered(ctx, o); err != nil {
			return err
		}
		o.Begun = true
		if err := failpoint.Around("begin", func() error { return k.Store.WriteOrder(*o) }); err != nil {
			return reason.Errorf("record that the disk is erased: %w", err)
		}
		if err := k.format(ctx, disk.path, o.UUID); err != nil {
			return err
		}
	}
	if !o.Erase && disk.uuid != o.UUID {
		return reason.Errorf("%w: it no longer has the chain that it had when it was ordered", ErrRefused)
	}
	if err := failpoint.Around("record the disk", func() error { return k.Store.WriteChosen(Chosen{UUID: o.UUID}) }); err != nil {
		return reason.Errorf("record the disk of the chain: %w", err)
	}
	if err := failpoint.Around("forget the order", k.Store.ForgetOrder); err != nil {
		return reason.Errorf("record the disk of the chain: %w", err)
	}
	return nil
}

// asOrdered compares what is on a disk with what its owner has agreed to lose: it may have been pulled
// out, and used elsewhere. LookUnit tells what that is. A unit that was taken over can have the owner's
// disk erased with another content than the order has, and no other disk.
func (k *Keeper) asOrdered(ctx context.Context, o *Order) error {
	if err := k.Look(ctx); err != nil {
		return reason.Errorf("look at what is on the disk: %w", err)
	}
	list, err := k.Store.List()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(d *Disk) bool { return d.GetId() == o.ID })
	if i < 0 {
		return errMissing
	}
	content := list[i].GetContent()
	if !o.Begun && content != o.Content {
		return reason.Errorf("%w: something else is on it than when it was ordered; order it again", ErrRefused)
	}
	for _, kind := range members {
		if strings.Contains(content, kind) {
			return reason.Errorf("%w: it is a part of a larger volume (%s); take it out of that first", ErrRefused, kind)
		}
	}
	return nil
}

// alone asks the kernel whether nobody uses a disk or a part of it: a mount, swap, a volume. Its
// word counts, whatever mounts this process sees.
func alone(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return reason.Errorf("%w: it is in use", ErrRefused)
	}
	if err != nil {
		return reason.Errorf("open the disk: %w", err)
	}
	return file.Close()
}

// format erases a disk and makes the file system. UUID is written last of all that is looked at:
// mke2fs writes the superblock at its end.
func (k *Keeper) format(ctx context.Context, path, uuid string) error {
	if err := k.clear(path); err != nil {
		return err
	}
	// Few and large files, all of one user. Blocks are not discarded: on some disks that takes hours.
	return step("make the file system", func() error {
		_, code, err := k.Run(ctx, makeTime, mkfs, "-q", "-L", Label, "-U", uuid, "-m", "0", "-T", "largefile", "-E",
			fmt.Sprintf("nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=%d:%d", k.UID, k.GID), path)
		if err == nil && code != 0 {
			err = reason.Errorf("%s ended with %d", mkfs, code)
		}
		return err
	})
}

// clear erases a disk.
func (k *Keeper) clear(path string) error {
	return step("erase the disk", func() error { return clearEnds(path) })
}

// step changes a disk.
func step(name string, change func() error) error {
	if err := failpoint.Around(name, change); err != nil {
		return reason.Errorf("%s: %w; it is tried again when the node starts", name, err)
	}
	return nil
}

// mount checks the file system, and mounts it.
func (k *Keeper) mount(ctx context.Context, disk *seen) error {
	// 1: it has repaired what is safe to repair (e2fsck(8)).
	_, code, err := k.Run(ctx, checkTime, e2fsck, "-p", disk.path)
	if err == nil && code > 1 {
		err = reason.Errorf("e2fsck ended with %d", code)
	}
	if err != nil {
		return reason.Errorf("the disk of the chain is damaged, and the damage is not repaired by itself (%w); choose another disk", err)
	}
	if err := k.Mount(ctx, disk.path); err != nil {
		return reason.Errorf("the disk of the chain could not be mounted: %w", err)
	}
	list, err := k.look(ctx)
	for _, s := range list {
		// lsblk compares the numbers of devices.
		if s.mounted && s.path == disk.path && s.uuid == disk.uuid {
			return nil
		}
	}
	// Another disk may have got its name in the meantime.
	return errors.Join(reason.New("another disk was mounted than the disk of the chain, or none; nothing of it is used"), err, k.Unmount(ctx))
}

// check looks at the mounted disk.
func (k *Keeper) check() error {
	var s unix.Statfs_t
	if err := unix.Statfs(k.MountPoint, &s); err != nil {
		return reason.Errorf("the disk of the chain does not answer: %w", err)
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return reason.Errorf("look at the disk of the chain: %w", err)
	}
	switch free := s.Bavail * uint64(s.Bsize); {
	case s.Flags&unix.ST_RDONLY != 0 || stopped(string(text), k.MountPoint):
		return reason.New("the disk of the chain had an error, and nothing more is written to it; restart the Base, and have another disk ready")
	case free < leastFree:
		return reason.New("the disk of the chain is full; a larger one is needed, or a pruned node")
	}
	return nil
}

// stopped tells whether ext4 takes no more writes at a mount point, from the text of
// /proc/self/mountinfo (proc_pid_mountinfo(5)). After an error Linux 6.12 makes the file system
// read-only; newer ones say so here alone.
func stopped(mountinfo, point string) (is bool) {
	for line := range strings.Lines(mountinfo) {
		mount, super, _ := strings.Cut(line, " - ")
		fields, options := strings.Fields(mount), strings.Fields(super)
		if len(fields) < 5 || fields[4] != point || len(options) < 3 {
			continue
		}
		// The last mount at a place is the one that is seen.
		is = slices.ContainsFunc(strings.Split(options[2], ","), func(option string) bool {
			return option == "ro" || option == "emergency_ro" || option == "shutdown"
		})
	}
	return is
}

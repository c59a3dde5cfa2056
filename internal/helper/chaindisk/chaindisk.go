// Package chaindisk looks after the disks of a Base, and the one among them that holds the chain of
// its Bitcoin node.
//
// It works in three places, so that none has more rights than it needs:
//
//   - bitbox-base-disks.service looks at the disks and reads their health. It writes nothing but a
//     list ([Look]).
//   - bitbox-base-chain-disk.service runs before each start of the node. It prepares the disk that
//     an owner has ordered, checks it, and has systemd mount it ([Keeper.Ready]). If that fails,
//     the node does not start. It may write to each disk, so of all but the chosen one it reads a
//     hundred bytes at most.
//   - the system helper takes owners' orders, and answers what is known ([Verbs]).
//
// A disk and its content come from strangers: it is bought used, or plugged in by somebody. So
// Debian's programs read them, in units of their own, and this package bounds the output.
//
// A disk is named by a digest of what it tells of itself ([Disk.Id]), never by a name such as sda,
// which may be another disk after a restart. Once prepared, it is found by the UUID of its file
// system.
package chaindisk

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Disk is a disk, as it is listed.
type Disk = basev1.Disk

// Places. The first two are made by tmpfiles.d.
const (
	// Directory has what was ordered and what was chosen. A factory reset keeps it.
	Directory = "/var/lib/bitbox-base/disk"
	// RunDirectory has what was seen in this boot.
	RunDirectory = "/run/bitbox-base/disks"
	// MountPoint is where the chain is (internal/node/settings has the same).
	MountPoint = "/var/lib/bitbox-bitcoin"
	// MountUnit is systemd's unit of MountPoint (systemd.unit(5) on escaping).
	MountUnit = `var-lib-bitbox\x2dbitcoin.mount`
	// LookUnit looks at the disks, ReadyUnit makes the one with the chain ready.
	LookUnit  = "bitbox-base-disks.service"
	ReadyUnit = "bitbox-base-chain-disk.service"
	// Owner is the user of the node, whose the file system is.
	Owner = "bitcoin"
	// Label is that of a file system for the chain.
	Label = "bitbox-chain"
	// MountOptions: the chain is data. After an error nothing more is written.
	MountOptions = "noexec,nosuid,nodev,noatime,errors=remount-ro"
)

// Sizes, in bytes. Disks are sold in powers of ten.
const (
	// WholeChain is the least size for the whole chain of mainnet.
	WholeChain = settings.WholeChain
	// Least is the least size for a node that keeps the newest blocks only: the state of the chain
	// takes 12 GB and grows.
	Least = 32_000_000_000
	// leastFree is how much must be free for the node to start. Bitcoin Core stops below 50 MiB,
	// and would be started again and again.
	leastFree = 512 << 20
)

// members are the types of file systems, as blkid tells them, that make a disk a part of something
// else. To erase one would damage the whole.
var members = []string{"LVM2_member", "LVM1_member", "linux_raid_member", "ddf_raid_member", "isw_raid_member", "zfs_member", "bcache",
	"drbd", "VMFS_volume_member", "ceph_bluestore"}

// rule is a reason to refuse a disk.
type rule struct {
	name string
	// always: it holds at the last moment, too. The others are about what a disk is good for, and
	// an order was given with them in mind.
	always bool
	refuse func(s *seen) string
}

// rules hold for each disk that is chosen, in this order. [Keeper.Ready] asks the kernel once more,
// by opening the disk for itself alone.
var rules = []rule{
	{"system", true, func(s *seen) string {
		return when(s.GetSystem(), "the Base itself runs from this disk")
	}},
	{"in use", true, func(s *seen) string {
		return when(s.inUse != "", "it is in use: "+s.inUse)
	}},
	{"member", true, func(s *seen) string {
		return when(s.member != "", "it is a part of a larger volume ("+s.member+"); take it out of that first")
	}},
	{"read-only", true, func(s *seen) string {
		return when(s.readOnly, "it cannot be written to")
	}},
	{"card", false, func(s *seen) string {
		return when(s.GetBus() == "mmc", "a memory card wears out within months under a node; take an SSD")
	}},
	{"removable", false, func(s *seen) string {
		return when(s.GetRemovable(), "a stick or a card in a reader wears out within months under a node; take an SSD")
	}},
	{"spinning", false, func(s *seen) string {
		return when(s.GetSpinning(), "a spinning disk is too slow for a node: it would not catch up; take an SSD")
	}},
	{"too small", false, func(s *seen) string {
		return when(s.GetSizeBytes() < Least, "it has less than 32 GB, which no node of mainnet fits on")
	}},
	{"unnamed", false, func(s *seen) string {
		return when(s.GetId() == "", "it tells nothing by which it could be recognised again")
	}},
}

func when(holds bool, reason string) string {
	if holds {
		return reason
	}
	return ""
}

// refusal returns why a disk cannot be used; empty: it can.
func refusal(rules []rule, s *seen) string {
	if s.broken != "" {
		return s.broken
	}
	for _, r := range rules {
		if reason := r.refuse(s); reason != "" {
			return reason
		}
	}
	return ""
}

// Order is an owner's order to use a disk: what the owner has seen of it, and has agreed to.
type Order struct {
	// ID is that of the disk.
	ID string `json:"id"`
	// UUID is what its file system gets.
	UUID string `json:"uuid"`
	// Erase: what is on it goes. Otherwise it has a chain already, and UUID is that of its file
	// system.
	Erase bool `json:"erase"`
	// Content is what was on it, as the owner has seen it.
	Content string `json:"content"`
	// Begun: erasing it has begun, so Content no longer holds.
	Begun bool `json:"begun,omitempty"`
}

// Chosen is the disk of the chain.
type Chosen struct {
	UUID string `json:"uuid"`
}

// Seen is what an owner has seen of a disk and agreed to (DiskOrder of system/v1).
type Seen interface {
	GetId() string
	GetModel() string
	GetSerialEnd() string
	GetSizeBytes() uint64
	GetContent() string
	GetErase() bool
	GetSmall() bool
}

// ErrRefused is wrapped by the errors of an order that cannot be followed.
var ErrRefused = reason.New("the disk cannot be used for the chain")

// Check tells why an order cannot be followed; nil: it can. list is what is there now. A Middleware
// that was taken over may have shown the owner another disk, or an empty one: so everything that
// the owner has seen must be so.
func Check(list []*Disk, o Seen) (*Disk, error) {
	var found *Disk
	for _, d := range list {
		if d.GetId() == o.GetId() && o.GetId() != "" {
			if found != nil {
				return nil, reason.Errorf("%w: two disks say that they are this one; remove one of them", ErrRefused)
			}
			found = d
		}
	}
	if found == nil {
		return nil, reason.Errorf("%w: it is no longer there; see 'bitbox-app disk'", ErrRefused)
	}
	for _, check := range orderChecks {
		if err := check.refuse(found, o); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// orderCheck is one reason to refuse an order.
type orderCheck struct {
	name   string
	refuse func(d *Disk, o Seen) error
}

// orderChecks stand in the order in which they are made.
var orderChecks = []orderCheck{
	{"as it was seen", func(d *Disk, o Seen) error {
		if d.GetModel() != o.GetModel() || d.GetSerialEnd() != o.GetSerialEnd() || d.GetSizeBytes() != o.GetSizeBytes() {
			return reason.Errorf("%w: it is another disk than the one that was shown; see 'bitbox-app disk'", ErrRefused)
		}
		return nil
	}},
	{"its content as it was seen", func(d *Disk, o Seen) error {
		if d.GetContent() != o.GetContent() {
			return reason.Errorf("%w: something else is on it than what was shown; see 'bitbox-app disk'", ErrRefused)
		}
		return nil
	}},
	{"usable", func(d *Disk, _ Seen) error {
		if d.GetRefused() != "" {
			return reason.Errorf("%w: %s", ErrRefused, d.GetRefused())
		}
		return nil
	}},
	{"data", func(d *Disk, o Seen) error {
		if d.GetContent() != "" && d.GetChainUuid() == "" && !o.GetErase() {
			return reason.Errorf("%w: there is data on it (%s), and nobody has agreed to lose that", ErrRefused, d.GetContent())
		}
		return nil
	}},
	{"size", func(d *Disk, o Seen) error {
		if d.GetSmall() && !o.GetSmall() {
			return reason.Errorf("%w: it is too small for the whole chain of mainnet, and nobody has agreed to a pruned node", ErrRefused)
		}
		return nil
	}},
}

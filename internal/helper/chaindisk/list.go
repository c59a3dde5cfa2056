package chaindisk

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Bounds of what is taken from lsblk and blkid.
const (
	// MaxDisks is how many disks are listed.
	MaxDisks = 32
	// maxNodes is how many partitions and volumes of one disk are looked at.
	maxNodes = 128
	// maxDepth is how deep volumes may lie upon each other.
	maxDepth = 8
	maxText  = 64  // bytes of a name, a model or a label
	maxLine  = 200 // bytes of a line for people
)

// columns are what lsblk is asked for.
const columns = "NAME,TYPE,SIZE,ROTA,RM,RO,TRAN,SUBSYSTEMS,MODEL,SERIAL,WWN,MOUNTPOINTS"

// node is a disk, a partition, or a volume upon one, as lsblk prints it.
type node struct {
	Name        string    `json:"name"`
	Type        string    `json:"type"`
	Size        uint64    `json:"size"`
	Rota        bool      `json:"rota"`
	RM          bool      `json:"rm"`
	RO          bool      `json:"ro"`
	Tran        string    `json:"tran"`
	Subsystems  string    `json:"subsystems"`
	Model       string    `json:"model"`
	Serial      string    `json:"serial"`
	WWN         string    `json:"wwn"`
	Mountpoints []*string `json:"mountpoints"`
	Children    []*node   `json:"children"`

	bad error // why it must not be looked at; nil: it may
}

// path is its device. A name from the kernel has no slash but for the few that lsblk prints with
// "!"; no such disk is offered.
func (n *node) path() string { return "/dev/" + n.Name }

// mounts are where it is mounted; "[SWAP]" is one.
func (n *node) mounts() (points []string) {
	for _, p := range n.Mountpoints {
		if p != nil && *p != "" {
			points = append(points, *p)
		}
	}
	return points
}

// parseTree reads what lsblk has printed, and returns the disks among it.
func parseTree(text []byte) ([]*node, error) {
	var tree struct {
		Devices []*node `json:"blockdevices"`
	}
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, reason.Errorf("read what lsblk has printed: %w", err)
	}
	var disks []*node
	for _, n := range tree.Devices {
		// A disk without a medium has no size: the kernel lists empty readers of cards.
		if n == nil || n.Type != "disk" || n.Size == 0 {
			continue
		}
		if virtual(n) {
			continue
		}
		n.bad = n.check(0, new(int))
		disks = append(disks, n)
	}
	// A reader on USB may say that it is many disks: it must not hide the others.
	slices.SortStableFunc(disks, func(a, b *node) int {
		return cmp.Compare(last(a), last(b))
	})
	return disks[:min(len(disks), MaxDisks)], nil
}

// last sorts disks on USB behind the others.
func last(n *node) int {
	if bus(n) == "usb" {
		return 1
	}
	return 0
}

// virtual tells whether a disk is memory: lsblk calls that one, too.
func virtual(n *node) bool {
	return strings.HasPrefix(n.Name, "zram") || strings.HasPrefix(n.Name, "ram")
}

// check bounds a tree, and refuses a disk or a partition whose name would be another path.
func (n *node) check(depth int, count *int) error {
	if *count++; *count > maxNodes || depth > maxDepth {
		return reason.New("too much lies on one disk")
	}
	if depth == 0 || depth == 1 && n.Type == "part" {
		if n.Name == "" || strings.Trim(n.Name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return reason.Errorf("a disk is called %q", harmless.Word(n.Name))
		}
	}
	for _, child := range n.Children {
		if child == nil {
			return reason.New("a part of a disk is missing")
		}
		if err := child.check(depth+1, count); err != nil {
			return err
		}
	}
	return nil
}

// signature is what blkid has found on a device.
type signature struct{ kind, label, uuid string }

// parseSignature reads what "blkid -p -o export" prints: lines NAME=value.
func parseSignature(text []byte) (s signature) {
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = short(value)
		switch name {
		case "TYPE":
			s.kind = value
		case "PTTYPE":
			if s.kind == "" {
				s.kind = "an empty partition table"
			}
		case "LABEL":
			s.label = value
		case "UUID":
			s.uuid = value
		}
	}
	return s
}

// unknown is the kind of what is there and nobody knows.
const unknown = "data of an unknown kind"

// probe looks at the content of a device; an empty signature: nothing is on it.
type probe func(n *node) (signature, error)

// seen is a disk with what only this process needs to know of it.
type seen struct {
	Disk
	path string // of the device
	uuid string // of the file system on the whole disk
	// parts are the UUIDs of the file systems on its partitions.
	parts []string
	// broken: why nobody knows what is on it; empty: it was read.
	broken string
	fault  error // the same for the journal
	// mounted: that is mounted at MountPoint.
	mounted  bool
	inUse    string // why others must leave it alone; empty: nobody uses it
	member   string // the kind of volume that it is a part of
	readOnly bool
}

// see makes of what lsblk and blkid have told a disk for people.
func see(n *node, look probe) *seen {
	s := &seen{path: n.path(), readOnly: n.RO}
	s.Name, s.Model, s.SizeBytes, s.Removable = n.Name, short(n.Model), n.Size, n.RM
	s.Bus = bus(n)
	// A virtual disk does not know what it lies on.
	s.Spinning = n.Rota && s.GetBus() != "virtio"
	s.name(n.Serial, n.WWN)
	s.Small = n.Size < WholeChain
	if n.bad != nil {
		return s.unread(n.bad)
	}
	found, err := look(n)
	if err != nil {
		return s.unread(err)
	}
	s.take(found)
	s.uuid = found.uuid
	if len(n.Children) == 0 && found.kind == "ext4" && found.label == Label && uuids.MatchString(found.uuid) {
		s.ChainUuid = found.uuid
	}
	var contents []string
	if len(n.Children) == 0 && found.kind != "" {
		contents = append(contents, describe(n, n, found))
	}
	for _, part := range n.Children {
		if part.Type != "part" {
			continue
		}
		found, err := look(part)
		if err != nil {
			return s.unread(err)
		}
		s.take(found)
		s.parts = append(s.parts, found.uuid)
		contents = append(contents, describe(n, part, found))
	}
	s.Content = harmless.Cut(strings.Join(contents, ", "), maxLine)
	s.inUse = harmless.Cut(strings.Join(s.uses(n, n), ", "), maxLine)
	return s
}

// unread is a disk of which nobody knows what is on it: it is shown, and refused. The other disks of
// the machine are as good as before.
func (s *seen) unread(err error) *seen {
	s.Name = short(s.GetName())
	s.broken, s.fault = harmless.Cut("it cannot be read: "+reason.Of(err), maxLine), err
	s.Content, s.ChainUuid, s.uuid = unknown, "", ""
	return s
}

// name makes the id of what the disk tells of itself. smartctl may know a serial number that lsblk
// does not.
func (s *seen) name(serial, wwn string) {
	serial = strings.TrimSpace(serial)
	if serial == "" && wwn == "" {
		return
	}
	s.SerialEnd = harmless.Line(serial[max(0, len(serial)-4):])
	s.Id = identity(s.GetModel(), serial, wwn, s.GetSizeBytes())
}

func (s *seen) take(found signature) {
	if slices.Contains(members, found.kind) {
		s.member = found.kind
	}
}

// uses says what uses the disk, a part of it, or a volume upon it.
func (s *seen) uses(disk, n *node) (uses []string) {
	for _, point := range n.mounts() {
		if n == disk && point == MountPoint {
			s.mounted = true
			continue
		}
		s.System = s.System || slices.Contains(systemMounts, point)
		uses = append(uses, fmt.Sprintf("%s is mounted at %s", short(n.Name), short(point)))
	}
	if n != disk && n.Type != "part" {
		uses = append(uses, short(n.Name)+" lies on it")
	}
	for _, child := range n.Children {
		uses = append(uses, s.uses(disk, child)...)
	}
	return uses
}

// systemMounts are the mount points of the Base itself.
var systemMounts = []string{"/", "/usr", "/var", "/boot", "/boot/efi", "/efi", "/home", "/nix", "/etc"}

// describe says what is on a disk, or on a part of it. Its own name may change, so it is left out.
func describe(disk, n *node, found signature) string {
	text := found.kind
	if text == "" {
		text = "nothing"
	}
	if found.label != "" {
		text += fmt.Sprintf(" %q", found.label)
	}
	if n != disk {
		text = "partition " + strings.TrimPrefix(strings.TrimPrefix(n.Name, disk.Name), "p") + ": " + text
	}
	return text
}

// bus is how the disk is connected.
func bus(n *node) string {
	parts := strings.Split(n.Subsystems, ":")
	for _, one := range []string{"mmc", "usb", "nvme", "virtio"} {
		if slices.Contains(parts, one) || n.Tran == one {
			return one
		}
	}
	return short(n.Tran)
}

// identity is a digest of what a disk tells of itself. Each part has its length before it, so that
// no two disks have the same text. How the disk is connected is no part of it.
func identity(model, serial, wwn string, size uint64) string {
	h := sha256.New()
	for _, part := range []string{model, serial, wwn, fmt.Sprint(size)} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// short makes text of a disk fit to be shown.
func short(text string) string { return harmless.Cut(harmless.Line(strings.TrimSpace(text)), maxText) }

package chaindisk

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

var update = flag.Bool("update", false, "rewrite the list of disks in testdata")

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// signatures are what blkid finds in the recorded tree of a machine.
var signatures = map[string]signature{
	"nvme0n1": {kind: "an empty partition table"}, "nvme0n1p1": {kind: "vfat", label: "ESP"}, "nvme0n1p2": {kind: "squashfs"},
	"nvme0n1p6": {kind: "ext4", uuid: "0b6b3a6e-0000-4000-8000-000000000006"},
	"sda":       {kind: "an empty partition table"}, "sda1": {kind: "ntfs", label: "Photos\n2019"}, "sda2": {},
	"sdb": {}, "sdc": {kind: "an empty partition table"}, "sdc1": {kind: "linux_raid_member"}, "sdd": {kind: "LVM2_member"},
	"sde": {kind: "ext4", label: Label, uuid: "0b6b3a6e-0000-4000-8000-00000000000e"}, "mmcblk0": {}, "sdf": {}, "vda": {},
	"sdg": {kind: "crypto_LUKS"}, "sdh": {}, "sdi": {},
}

func recorded(t *testing.T, rules []rule) map[string]*seen {
	t.Helper()
	nodes, err := parseTree(read(t, "lsblk.json"))
	if err != nil {
		t.Fatal(err)
	}
	disks := map[string]*seen{}
	for _, n := range nodes {
		s := see(n, func(n *node) (signature, error) {
			found, known := signatures[n.Name]
			if !known {
				return signature{}, fmt.Errorf("%s is looked at", n.Name)
			}
			return found, nil
		})
		if s.broken != "" {
			t.Fatal(s.broken)
		}
		s.Refused = refusal(rules, s)
		disks[s.GetName()] = s
	}
	return disks
}

func TestDisksAreListedForPeople(t *testing.T) {
	b := &strings.Builder{}
	disks := recorded(t, rules)
	for _, s := range sorted(disks) {
		fmt.Fprintf(b, "%s %s %q %q %d\n  id %s\n  on it: %s\n", s.GetName(), s.GetBus(), s.GetModel(), s.GetSerialEnd(), s.GetSizeBytes(),
			s.GetId(), s.GetContent())
		fmt.Fprintf(b, "  spinning %v, removable %v, system %v, small %v, chain %v, in use %q\n  refused: %s\n", s.GetSpinning(), s.GetRemovable(),
			s.GetSystem(), s.GetSmall(), s.GetChainUuid() != "", s.inUse, s.GetRefused())
	}
	if *update {
		if err := os.WriteFile("testdata/disks.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(read(t, "disks.txt")); b.String() != want {
		t.Errorf("the disks are:\n%s\nwant:\n%s", b.String(), want)
	}
}

func sorted(disks map[string]*seen) (list []*seen) {
	for _, s := range disks {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *seen) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list
}

// Each rule alone keeps a disk from being erased that must not be.
func TestNoDiskIsTakenThatMustNotBe(t *testing.T) {
	tried := map[string]bool{}
	for name, stoppedBy := range map[string]string{
		"nvme0n1": "system in use", "sdc": "in use member", "sdd": "member", "sdb": "spinning", "mmcblk0": "card removable", "sdf": "removable",
		"vda": "unnamed", "sdh": "too small", "sdi": "read-only",
	} {
		if recorded(t, rules)[name].GetRefused() == "" {
			t.Errorf("%s is not refused", name)
		}
		stopping := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(stoppedBy, "in use", "in-use"), "too small", "too-small"))
		without := slices.DeleteFunc(slices.Clone(rules), func(r rule) bool {
			return slices.Contains(stopping, strings.ReplaceAll(r.name, " ", "-"))
		})
		if reason := recorded(t, without)[name].GetRefused(); reason != "" {
			t.Errorf("without the rules %v something else stops %s: %s", stopping, name, reason)
		}
		for _, one := range stopping {
			tried[one] = true
		}
	}
	for _, r := range rules {
		if !tried[strings.ReplaceAll(r.name, " ", "-")] {
			t.Errorf("no disk shows what the rule %q is for", r.name)
		}
	}
	for _, name := range []string{"sda", "sde", "sdg"} {
		if reason := recorded(t, rules)[name].GetRefused(); reason != "" {
			t.Errorf("%s is refused: %s", name, reason)
		}
	}
}

// A Middleware that was taken over shows an owner a disk that is not so: the owner's order then
// says what was shown, and not what there is.
func TestAnOrderIsForWhatTheOwnerHasSeen(t *testing.T) {
	disks := recorded(t, rules)
	var list []*Disk
	for _, s := range sorted(disks) {
		list = append(list, &s.Disk)
	}
	order := func(name string, change func(*systemv1.DiskOrder)) *systemv1.DiskOrder {
		d := disks[name]
		o := &systemv1.DiskOrder{Id: d.GetId(), Model: d.GetModel(), SerialEnd: d.GetSerialEnd(), SizeBytes: d.GetSizeBytes(),
			Content: d.GetContent(), Erase: d.GetContent() != "" && d.GetChainUuid() == "", Small: d.GetSmall()}
		change(o)
		return o
	}
	asItIs := func(*systemv1.DiskOrder) {}
	for _, name := range []string{"sda", "sde", "sdg"} {
		if d, err := Check(list, order(name, asItIs)); err != nil || d.GetName() != name {
			t.Errorf("an honest order for %s: %v, %v", name, d.GetName(), err)
		}
	}
	tried := map[string]bool{}
	for _, attack := range []struct {
		name, stoppedBy string
		order           *systemv1.DiskOrder
	}{
		{"a disk is shown as another model", "as it was seen", order("sda", func(o *systemv1.DiskOrder) { o.Model = "Fresh SSD" })},
		{"… with another number", "as it was seen", order("sda", func(o *systemv1.DiskOrder) { o.SerialEnd = "0000" })},
		{"… larger than it is", "as it was seen", order("sda", func(o *systemv1.DiskOrder) { o.SizeBytes++ })},
		{"photos are shown as films", "its content as it was seen", order("sda", func(o *systemv1.DiskOrder) { o.Content = "sda1: films" })},
		{"the disk of the system is shown as usable", "usable", order("nvme0n1", asItIs)},
		{"a member of a RAID is shown as usable", "usable", order("sdc", func(o *systemv1.DiskOrder) { o.Erase = true })},
		{"nobody has agreed to lose the photos", "data", order("sda", func(o *systemv1.DiskOrder) { o.Erase = false })},
		{"nobody has agreed to a pruned node", "size", order("sdg", func(o *systemv1.DiskOrder) { o.Small = false })},
	} {
		if _, err := Check(list, attack.order); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", attack.name, err)
		}
		tried[attack.stoppedBy] = true
		kept := orderChecks
		orderChecks = slices.DeleteFunc(slices.Clone(kept), func(c orderCheck) bool { return c.name == attack.stoppedBy })
		if _, err := Check(list, attack.order); err != nil {
			t.Errorf("%s: without the check %q something else stops it: %v", attack.name, attack.stoppedBy, err)
		}
		orderChecks = kept
	}
	for _, check := range orderChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
	if _, err := Check(list, order("sda", func(o *systemv1.DiskOrder) { o.Id = strings.Repeat("0", 32) })); !errors.Is(err, ErrRefused) {
		t.Errorf("a disk that is not there: %v", err)
	}
	if _, err := Check(list, &systemv1.DiskOrder{}); !errors.Is(err, ErrRefused) {
		t.Errorf("no disk at all: %v", err)
	}
	if _, err := Check(append(list, proto.CloneOf(&disks["sda"].Disk)), order("sda", asItIs)); !errors.Is(err, ErrRefused) {
		t.Errorf("two disks with one identity: %v", err)
	}
}

// A reader of cards on USB says that it is many disks: it does not hide the others.
func TestManyDisksOnUSBHideNoOther(t *testing.T) {
	stick := `{"name":"sda","type":"disk","size":1,"tran":"usb"},`
	disks, err := parseTree([]byte(`{"blockdevices":[` + strings.Repeat(stick, MaxDisks+1) + `{"name":"sdz","type":"disk","size":1,"tran":"sata"}]}`))
	if err != nil || len(disks) != MaxDisks || disks[0].Name != "sdz" {
		t.Errorf("%d disks, %v", len(disks), err)
	}
}

// The names and texts of a hostile disk reach no path and no terminal.
func TestAHostileTreeIsBounded(t *testing.T) {
	disk := func(name, more string) string {
		return `{"blockdevices":[{"name":"` + name + `","type":"disk","size":2000000000000,"rm":false,"ro":false,"rota":false` + more + `}]}`
	}
	for name, text := range map[string]string{
		"a path":          disk("../../etc/shadow", ""),
		"an option":       disk("-a", ""),
		"no name":         disk("", ""),
		"a path of parts": disk("sda", `,"children":[{"name":"x/../../y","type":"part","size":1}]`),
		"a missing part":  disk("sda", `,"children":[null]`),
		"many parts":      disk("sda", `,"children":[`+strings.Repeat(`{"name":"sda1","type":"part"},`, maxNodes)+`{"name":"sda1","type":"part"}]`),
		"deep":            disk("sda", strings.Repeat(`,"children":[{"name":"x","type":"lvm"`, maxDepth+1)+strings.Repeat(`}]`, maxDepth+1)),
		"no JSON":         "nothing",
		"a negative size": strings.Replace(disk("sda", ""), "2000", "-2000", 1),
	} {
		disks, err := parseTree([]byte(text))
		if err != nil {
			continue
		}
		s := see(disks[0], func(*node) (signature, error) {
			t.Errorf("%s: it is looked at", name)
			return signature{}, nil
		})
		if refusal(nil, s) == "" {
			t.Errorf("%s: it is %v", name, &s.Disk)
		}
	}
	nodes, err := parseTree([]byte(disk("sda", `,"serial":"\u001b[31mred","model":"\u202eevil\u0007`+strings.Repeat("x", 500)+`"`)))
	if err != nil {
		t.Fatal(err)
	}
	s := see(nodes[0], func(*node) (signature, error) {
		return parseSignature([]byte("TYPE=ext4\nLABEL=\x1b[2J" + strings.Repeat("y", 500) + "\n")), nil
	})
	if s.broken != "" {
		t.Fatal(s.broken)
	}
	for _, text := range []string{s.GetModel(), s.GetSerialEnd(), s.GetContent()} {
		if strings.ContainsAny(text, "\x1b\x07\u202e\n") || len(text) > maxLine {
			t.Errorf("it shows %q", text)
		}
	}
}

func TestWhatADiskSaysOfItsHealthIsUnderstood(t *testing.T) {
	const good, bad, none = basev1.DiskHealth_VERDICT_GOOD, basev1.DiskHealth_VERDICT_FAILING, basev1.DiskHealth_VERDICT_UNSPECIFIED
	for _, c := range []struct {
		name, text string
		verdict    basev1.DiskHealth_Verdict
		reason     string
		turns      bool
	}{
		{"NVMe", string(read(t, "smart-nvme.json")), good, "", true},
		{"SATA", string(read(t, "smart-sata.json")), good, "", false},
		{"SATA with pending sectors", strings.Replace(string(read(t, "smart-sata.json")), `"value":0,"string":"0 pending"`, `"value":8,"string":"8"`, 1),
			bad, "it could not read back 8 sectors", false},
		{"NVMe that fails", strings.Replace(string(read(t, "smart-nvme.json")), `"passed":true`, `"passed":false`, 1), bad,
			"it says itself that it is failing", true},
		{"NVMe without spare blocks", strings.Replace(string(read(t, "smart-nvme.json")), `"available_spare":100`, `"available_spare":4`, 1), bad,
			"it has only 4 percent of its spare blocks left", true},
		{"NVMe with errors", strings.Replace(string(read(t, "smart-nvme.json")), `"media_errors":0`, `"media_errors":3`, 1), bad,
			"it could not read back 3 blocks", true},
		{"a bridge that tells nothing", string(read(t, "smart-none.json")), none, "", true},
		{"nothing", "", none, "", true},
		{"garbage", `{"smart_status":{"passed":"yes"}}`, none, "", true},
		{"an impossible figure", `{"smart_status":{"passed":true},"nvme_smart_health_information_log":{"percentage_used":-1}}`, none, "", true},
	} {
		health, rotation := parseHealth([]byte(c.text))
		if health.GetVerdict() != c.verdict || health.GetReason() != c.reason || (rotation == nil) != c.turns {
			t.Errorf("%s: %v, rotation %v", c.name, health, rotation)
		}
	}
	health, rotation := parseHealth(read(t, "smart-sata.json"))
	if health.GetTemperatureCelsius() != 31 || rotation == nil || *rotation != 0 {
		t.Errorf("SATA: %v, %v", health, rotation)
	}
	if health, _ := parseHealth(read(t, "smart-nvme.json")); health.GetUsedPercent() != 3 || health.GetTemperatureCelsius() != 36 {
		t.Errorf("NVMe: %v", health)
	}
}

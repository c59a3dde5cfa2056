//go:build linux

package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	basereason "github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

var ssd = &basev1.Disk{Name: "sda", Id: strings.Repeat("a1", 16), Model: "CT2000MX500SSD1", SerialEnd: "A1B2", SizeBytes: 2_000_398_934_016}

// until looks at the disks until they are as expected.
func (h *house) until(t *testing.T, good func(*basev1.ListDisksResponse) bool) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		list, err := h.session.Disks(t.Context())
		if err == nil && good(list) {
			return
		}
		last = fmt.Sprint(list, err)
	}
	t.Fatalf("the disks are %s", last)
}

func TestADiskIsChosenForTheChain(t *testing.T) {
	h := newHouse(t)
	h.setDisk(t, proto.CloneOf(ssd))
	h.until(t, func(list *basev1.ListDisksResponse) bool {
		return list.GetChain().GetState() == basev1.ChainDisk_STATE_NONE
	})
	if err := h.session.UseDisk(t.Context(), h.disk(t), false, false); err != nil {
		t.Fatal(Explain(err))
	}
	h.until(t, func(list *basev1.ListDisksResponse) bool {
		return list.GetChain().GetState() == basev1.ChainDisk_STATE_READY && list.GetDisks()[0].GetChosen()
	})
	if err := h.session.UseDisk(t.Context(), h.disk(t), false, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("the same disk again: %v", err)
	}
}

// setDisk has the machine have one disk, and waits until that is seen.
func (h *house) setDisk(t *testing.T, d *basev1.Disk) {
	t.Helper()
	h.Machine.SetDisks(d)
	h.until(t, func(list *basev1.ListDisksResponse) bool { return len(list.GetDisks()) == 1 })
}

func (h *house) disk(t *testing.T) *basev1.Disk {
	t.Helper()
	list, err := h.session.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list.GetDisks()[0]
}

// A Middleware that was taken over shows an owner what is not so.
func TestADiskThatWasShownFalselyIsNotErased(t *testing.T) {
	h := newHouse(t)
	photos := proto.CloneOf(ssd)
	photos.Content = `partition 1: ntfs "Photos"`
	h.setDisk(t, photos)
	for name, change := range map[string]func(d *basev1.Disk){
		"an empty disk": func(d *basev1.Disk) { d.Content = "" },
		"another disk":  func(d *basev1.Disk) { d.Model = "Fresh SSD" },
	} {
		shown := proto.CloneOf(photos)
		change(shown)
		for _, erase := range []bool{false, true} {
			if err := h.session.UseDisk(t.Context(), shown, erase, false); !errors.Is(err, ErrNotNow) {
				t.Errorf("%s, erase %v: %v", name, erase, err)
			}
		}
	}
	if order, err := h.Machine.DiskStore().Order(); err != nil || order != nil {
		t.Errorf("an order waits: %v, %v", order, err)
	}
	// Shown as it is, and with consent, it is taken.
	if err := h.session.UseDisk(t.Context(), photos, true, false); err != nil {
		t.Error(Explain(err))
	}
}

// Why a disk is not ready is told, and told again by status and as an event.
func TestADiskInTroubleIsToldOf(t *testing.T) {
	h := newHouse(t)
	failing := proto.CloneOf(ssd)
	failing.Health = &basev1.DiskHealth{Verdict: basev1.DiskHealth_VERDICT_FAILING, Reason: "it could not read back 8 sectors"}
	h.setDisk(t, failing)
	h.Machine.Fail("prepare disk", basereason.New("the disk of the chain is damaged"))
	if err := h.session.UseDisk(t.Context(), h.disk(t), false, false); err != nil {
		t.Fatal(Explain(err))
	}
	h.until(t, func(list *basev1.ListDisksResponse) bool {
		return list.GetChain().GetState() == basev1.ChainDisk_STATE_TROUBLE && strings.Contains(list.GetChain().GetTrouble(), "damaged")
	})
	info, err := h.session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(info.GetDiskTroubles(), "; ")
	for _, want := range []string{"the disk of the chain is damaged",
		"CT2000MX500SSD1 …A1B2 (sda) is failing: it could not read back 8 sectors"} {
		if !strings.Contains(text, want) {
			t.Errorf("status tells %q", text)
		}
	}
}

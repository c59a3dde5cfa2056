package words

import (
	"fmt"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// DiskContent says what is on a disk.
func (l Language) DiskContent(d *basev1.Disk) string {
	switch {
	case d.GetChosen():
		return l.Say("machine.disk.content.chain")
	case d.GetContent() == "":
		return l.Say("machine.disk.content.none")
	}
	return l.Cited(d.GetContent())
}

// DiskHealth says what a disk tells of its health.
func (l Language) DiskHealth(h *basev1.DiskHealth) string {
	text := l.Say("machine.disk.nottold")
	switch h.GetVerdict() {
	case basev1.DiskHealth_VERDICT_GOOD:
		text = l.Say("machine.disk.good")
	case basev1.DiskHealth_VERDICT_FAILING:
		text = l.Say("machine.disk.failing", l.Cited(h.GetReason()))
	}
	if h != nil && h.UsedPercent != nil {
		text = l.Say("machine.disk.used", text, fmt.Sprintf("%d %%", h.GetUsedPercent()))
	}
	return text
}

// DiskUsable says whether a disk can hold the chain, and why it cannot.
func (l Language) DiskUsable(d *basev1.Disk) string {
	switch {
	case d.GetChosen():
		return l.Say("machine.disk.chosen")
	case d.GetRefused() != "":
		return l.Say("machine.disk.no", l.Cited(d.GetRefused()))
	case d.GetSmall():
		return l.Say("machine.disk.small")
	}
	return l.Say("machine.disk.yes")
}

// chainDisks are the keys of the states of the disk of the chain.
var chainDisks = map[basev1.ChainDisk_State]string{
	basev1.ChainDisk_STATE_NONE:      "machine.chain.none",
	basev1.ChainDisk_STATE_PREPARING: "machine.chain.preparing",
	basev1.ChainDisk_STATE_READY:     "machine.chain.ready",
	basev1.ChainDisk_STATE_TROUBLE:   "machine.chain.trouble",
}

// ChainDisk says in a sentence how the disk of the chain is.
func (l Language) ChainDisk(c *basev1.ChainDisk) string {
	if key, known := chainDisks[c.GetState()]; known {
		return l.Say(key, l.Cited(c.GetTrouble()))
	}
	return l.Say("machine.chain.unknown")
}

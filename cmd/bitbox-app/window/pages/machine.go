package pages

import (
	"fmt"
	"html/template"
	"slices"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/curves"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/picture"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// machinePage is the machine below the Base.
func (v *view) machinePage() []Part {
	parts := []Part{v.heading(v.say("machine.title"), v.say("machine.lead"))}
	if v.base.Look.Info == nil {
		return parts
	}
	parts = append(parts, v.part("machine.health", "wide", struct {
		Troubles []words.Text
		Measured []measured
	}{v.troubles(), v.measurements()}),
		v.part("machine.facts", "", v.machineFacts()), v.part("machine.power", "", v.power()))
	if v.owns() && v.base.Look.Access != nil {
		parts = append(parts, v.form("machine.name", "", nameForm{v.do(owner.Rename), v.base.Look.Info.GetName()}))
	}
	if zones := v.answered(owner.TimeZones, "").TimeZones; v.operates() && len(zones.GetNames()) > 0 {
		parts = append(parts, v.form("machine.zone", "", zoneForm{v.do(owner.SetTimeZone), zones.GetCurrent(), zones.GetNames()}))
	}
	parts = append(parts, v.part("machine.disks", "wide", v.disks()))
	if usable := v.usable(); v.owns() && len(usable) > 0 {
		parts = append(parts, v.form("machine.use", "wide", diskForm{v.do(owner.UseDisk), usable}))
	}
	return parts
}

func machineWants(*view) []owner.Want {
	return []owner.Want{{Part: owner.Disks}, {Part: owner.TimeZones}}
}

// nameForm and zoneForm are the forms for the name of the Base and for its time zone.
type nameForm struct{ Action, Name string }

type zoneForm struct {
	Action, Zone string
	Names        []string
}

// measured is a measurement of the machine with its course over the last hour.
type measured struct {
	Name, Now string
	Curve     template.HTML // empty: the Base keeps none
}

// troubles are what is wrong with disks.
func (v *view) troubles() (all []words.Text) {
	for _, trouble := range v.base.Look.Info.GetDiskTroubles() {
		all = append(all, v.language.ByBase(trouble))
	}
	return all
}

// measurements are how the machine does, now and over the last hour.
func (v *view) measurements() (all []measured) {
	info, m := v.base.Look.Info, curves.Measure(v.base.Look.Samples)
	add := func(key, now string, s curves.Series, say func(float64) string) {
		one := measured{Name: v.say(key), Now: now}
		if len(s.Values) > 1 {
			spoken := picture.Words{Title: v.say("machine.curve.title", one.Name), Description: v.say("machine.curve", say(slices.Min(s.Values)),
				say(slices.Max(s.Values)), say(s.Values[len(s.Values)-1]))}
			one.Curve = picture.Curve(spoken, s.Values, s.Low, s.High)
		}
		all = append(all, one)
	}
	if load := info.GetLoadAverage(); len(load) > 0 {
		add("machine.load", v.language.Decimal(load[0], 2), m.Load, func(load float64) string { return v.language.Decimal(load, 2) })
	}
	percent := func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }
	add("machine.memory", v.language.Free(info.GetMemoryAvailableBytes(), info.GetMemoryTotalBytes()), m.Memory, percent)
	add("machine.disk", v.language.Free(info.GetDiskAvailableBytes(), info.GetDiskTotalBytes()), m.Disk, percent)
	if info.TemperatureCelsius != nil {
		degrees := func(c float64) string { return fmt.Sprintf("%.0f °C", c) }
		add("machine.temperature", degrees(info.GetTemperatureCelsius()), m.Temperature, degrees)
	}
	return all
}

// disksTable lists the disks of a Base.
func (v *view) disksTable(disks []*basev1.Disk) table {
	t := table{Caption: v.say("machine.disks"), Named: true, Head: v.says(
		"machine.disk.name", "machine.disk.model", "machine.disk.size", "machine.disk.bus",
		"machine.disk.content", "machine.disk.health", "machine.disk.chain")}
	for _, d := range disks {
		t.Rows = append(t.Rows, []string{d.GetName(), owner.DiskName(d), owner.DiskSize(d.GetSizeBytes()), d.GetBus(), v.language.DiskContent(d),
			v.language.DiskHealth(d.GetHealth()), v.language.DiskUsable(d)})
	}
	return t
}

// diskForm is where an owner chooses a disk for the chain.
type diskForm struct {
	Action string
	Disks  []choice
}

// usable are the disks that the Base would use for the chain.
func (v *view) usable() (disks []choice) {
	for _, d := range v.answered(owner.Disks, "").Disks.GetDisks() {
		if d.GetRefused() == "" && !d.GetChosen() {
			disks = append(disks, choice{Value: d.GetName(), Text: fmt.Sprintf("%s: %s, %s", d.GetName(), owner.DiskName(d),
				owner.DiskSize(d.GetSizeBytes()))})
		}
	}
	return disks
}

// disksView are the disks and the chain's.
type disksView struct {
	Chain, Empty string
	Problem      *words.Text
	Disks        table
}

func (v *view) disks() disksView {
	answer := v.answered(owner.Disks, "")
	shown := disksView{Problem: v.problem(answer.Err), Empty: v.say("machine.disks.wait")}
	if answer.Disks != nil {
		shown.Chain, shown.Empty = v.language.ChainDisk(answer.Disks.GetChain()), v.say("machine.disks.none")
		shown.Disks = v.disksTable(answer.Disks.GetDisks())
	}
	return shown
}

// powerView is a button with what it does.
type powerView struct {
	button
	About string
}

// powerOf are the buttons that restart the machine and switch it off, as far as the role lets.
func (v *view) power() (all []powerView) {
	if v.operates() {
		all = append(all, powerView{button{Action: v.do(owner.Reboot), Text: v.say("machine.reboot")}, v.say("machine.reboot.note")})
	}
	if v.owns() {
		all = append(all, powerView{button{Action: v.do(owner.PowerOff), Text: v.say("machine.off"), Class: "danger"}, v.say("machine.off.note")})
	}
	return all
}

// machineFacts are what the Base tells of its machine.
func (v *view) machineFacts() (facts []fact) {
	info := v.base.Look.Info
	add := func(key, text string) {
		if text != "" {
			facts = append(facts, fact{v.say(key), text})
		}
	}
	add("machine.name", info.GetName())
	add("machine.software", info.GetSoftwareVersion())
	add("machine.addresses", strings.Join(info.GetAddresses(), ", "))
	add("machine.zone", info.GetTimeZone())
	add("machine.key", info.GetPublicKey())
	return facts
}

package pages

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/curves"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/picture"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// shownEvents is how many of the newest events the overview has.
const shownEvents = 8

// overview answers whether the Base is well, then what is open, then all else.
func (v *view) overview() []Part {
	parts := []Part{v.part("overview.well", "wide", struct {
		Name string
		wellness
		Again    *deadline
		Unstored *words.Text
	}{v.base.Name, v.judge(v.base), v.again(), v.problem(v.state.UnstoredErr)})}
	if v.base.Look.Info == nil {
		return append(parts, Part{ID: "overview-try"})
	}
	return append(parts,
		v.part("overview.try", "wide", v.tried()),
		v.part("overview.open", "", struct {
			Rows  []opened
			Known bool
		}{v.open(), v.base.Look.Access != nil}),
		v.part("overview.findings", "", v.audited()),
		v.part("overview.health", "wide", v.health()),
		v.part("overview.node", "", v.node()),
		v.part("overview.now", "", v.happened()))
}

// again is when a Base that does not answer is asked the next time.
func (v *view) again() *deadline {
	if v.base.Connection != owner.Lost || v.base.Again.IsZero() {
		return nil
	}
	return &deadline{At: v.base.Again}
}

// try is a change that is undone by itself.
type try struct {
	// Applying: it is not yet in force, and the rest is empty.
	Applying bool
	Changes  []change
	Until    deadline
	Keep     string // starts the deed that keeps it
}

// change is one line of what will be different, or is.
type change struct {
	words.Text
	Opens bool
}

// tried is the change that is being put in force or waits for confirmation, unless this App has begun
// it: then its deed confirms it.
func (v *view) tried() *try {
	a := v.base.Look.Access
	if a == nil || !a.Applying && !a.Trying || slices.ContainsFunc(v.state.Deeds, func(d owner.DeedState) bool {
		return d.Base == v.base.ID() && d.Ended.IsZero()
	}) {
		return nil
	}
	if a.Applying {
		return &try{Applying: true}
	}
	t := &try{Until: deadline{v.base.At.Add(a.UndoneIn), v.say("overview.try.ends")}}
	if v.owns() {
		t.Keep = v.do(owner.ConfirmTry)
	}
	for _, c := range a.Tried {
		t.Changes = append(t.Changes, change{v.language.Changed(c), c.Opens})
	}
	return t
}

// doorName is the name of an extra API for people.
func doorName(kind string) string {
	if kind == "ssh" {
		return "SSH"
	}
	return capital(kind)
}

func (v *view) doorDetail(d owner.Door) string {
	from := v.say("overview.open.everywhere")
	if len(d.From) > 0 {
		from = v.say("overview.open.from", strings.Join(d.From, ", "))
	}
	if d.Left == 0 && d.ForGood {
		from += " " + v.say("overview.open.forgood")
	}
	return v.say("overview.open.port", int(d.Port)) + " " + from
}

// audit is what the last audit found.
type audit struct {
	Known, Running bool
	Problem        *words.Text
	At             time.Time
	Now            time.Time
	Findings       []finding
	More           int // that are not listed
	Ask            string
}

// finding is one difference between the Base and what it should be.
type finding struct {
	*basev1.Finding
	Said            words.Finding
	Class, Severity string
	Repair          string // starts the deed that repairs it; empty: a person has to
}

// shownFindings is how many findings the overview names.
const shownFindings = 3

func (v *view) audited() audit {
	b := v.base
	a := audit{Known: b.HasAudit, Running: b.Auditing, Problem: v.problem(b.AuditErr), At: b.AuditedAt, Now: v.now,
		Ask: "/base/" + b.ID() + "/audit"}
	for _, f := range b.Findings {
		found := finding{Finding: f, Said: v.language.Finding(f), Class: "bad", Severity: v.say("security.severity." + words.SeverityName(f))}
		switch f.GetSeverity() {
		case basev1.Finding_SEVERITY_INFO:
			found.Class = ""
		case basev1.Finding_SEVERITY_WARNING:
			found.Class = "warn"
		}
		if f.GetFixable() && v.owns() {
			found.Repair = v.do(owner.Fix)
		}
		a.Findings = append(a.Findings, found)
	}
	if v.page == first {
		a.More = max(0, len(a.Findings)-shownFindings)
		a.Findings = a.Findings[:len(a.Findings)-a.More]
	}
	return a
}

// nodeShort is the node in a few values; its own page has the rest.
type nodeShort struct {
	Address, State, Class string
	Has                   bool
	Network               string
	Height                string
	Peers                 uint32
	HasPeers              bool
	Progress              *template.HTML
	Percent               string
}

// nodeStates are the sentences and classes of a node's states.
var nodeStates = map[basev1.Node_State][2]string{
	basev1.Node_STATE_NOT_INSTALLED: {"overview.node.missing", "warn"},
	basev1.Node_STATE_STOPPED:       {"overview.node.stopped", "bad"},
	basev1.Node_STATE_STARTING:      {"overview.node.starting", ""},
	basev1.Node_STATE_BEHIND:        {"overview.node.behind", ""},
	basev1.Node_STATE_CURRENT:       {"overview.node.current", "good"},
}

func (v *view) node() nodeShort {
	n := v.base.Look.Node
	known, has := nodeStates[n.GetState()]
	short := nodeShort{Address: addressOf(v.base, "node"), Has: has, Class: known[1], HasPeers: n != nil && n.PeersIn != nil}
	if !has {
		return short
	}
	short.State = v.say(known[0])
	if n.GetHeight() > 0 {
		short.Height = words.Grouped(n.GetHeight())
	}
	short.Peers = n.GetPeersIn() + n.GetPeersOut()
	if n.GetState() == basev1.Node_STATE_BEHIND {
		short.Percent = percent(n.GetProgress())
		bar := picture.Bar(picture.Words{Title: v.say("overview.node.progress", short.Percent)}, n.GetProgress())
		short.Progress = &bar
	}
	return short
}

// measure is a measurement with its history.
type measure struct {
	Name, Value string
	Curve       template.HTML
}

func (v *view) health() []measure {
	i := v.base.Look.Info
	measured := curves.Measure(v.base.Look.Samples)
	var list []measure
	add := func(name, value string, s curves.Series) {
		m := measure{Name: v.say(name), Value: value}
		if len(s.Values) > 1 {
			m.Curve = picture.Curve(picture.Words{Title: v.say("overview.health.curve", m.Name)}, s.Values, s.Low, s.High)
		}
		list = append(list, m)
	}
	if load := i.GetLoadAverage(); len(load) > 0 {
		add("overview.health.load", v.language.Decimal(load[0], 2), measured.Load)
	}
	free := func(available, total uint64) string {
		return v.say("overview.health.free", v.language.Size(available), v.language.Size(total))
	}
	if i.GetMemoryTotalBytes() > 0 {
		add("overview.health.memory", free(i.GetMemoryAvailableBytes(), i.GetMemoryTotalBytes()), measured.Memory)
	}
	if i.GetDiskTotalBytes() > 0 {
		add("overview.health.disk", free(i.GetDiskAvailableBytes(), i.GetDiskTotalBytes()), measured.Disk)
	}
	if i.TemperatureCelsius != nil {
		add("overview.health.temperature", fmt.Sprintf("%.0f °C", i.GetTemperatureCelsius()), measured.Temperature)
	}
	return list
}

// news is an event of the Base.
type news struct {
	Key, Text string
	At, Now   time.Time
	Times     int
}

// happened are the newest events, and how many are missing.
type happened struct {
	News    []news
	Missing string
}

func (v *view) happened() (shown happened) {
	for n := len(v.base.Events) - 1; n >= 0 && len(shown.News) < shownEvents; n-- {
		e := v.base.Events[n]
		shown.News = append(shown.News, news{
			Key: fmt.Sprintf("%d %d", e.GetSequence(), e.First.UnixMilli()), Text: cmp.Or(v.language.Event(e.Event), "…"),
			At: e.At, Now: v.now, Times: e.Times,
		})
	}
	if v.base.Missing > 0 {
		shown.Missing = v.language.Count("events.missing", v.base.Missing)
	}
	return shown
}

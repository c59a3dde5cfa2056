package pages

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// lie is one kind of value that a Base may send where another one is expected.
type lie struct {
	text   string
	whole  uint64
	broken float64
}

var lies = map[string]lie{
	"zero":      {},
	"largest":   {"\u202e\u2067\u200f\x00\x1b\xff</script>{{.}}%s", math.MaxUint64, math.Inf(1)},
	"negative":  {"\r\n", 1 << 63, math.Inf(-1)},
	"no number": {" ", math.MaxInt64, math.NaN()},
}

// tell sets each field of a message to the lie, with two entries in each list.
func tell[M proto.Message](m M, l lie) M {
	l.fill(m.ProtoReflect(), 5)
	return m
}

func (l lie) fill(m protoreflect.Message, deep int) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.IsMap() || f.Message() != nil && deep == 0:
		case f.IsList():
			list := m.Mutable(f).List()
			for range 2 {
				if f.Message() != nil {
					l.fill(list.AppendMutable().Message(), deep-1)
				} else {
					list.Append(l.value(f))
				}
			}
		case f.Message() != nil:
			l.fill(m.Mutable(f).Message(), deep-1)
		default:
			m.Set(f, l.value(f))
		}
	}
}

func (l lie) value(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(l.whole > 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(l.whole)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(l.whole >> 32))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(l.whole))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(l.whole))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(l.whole)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(l.broken))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(l.broken)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(l.text))
	}
	return protoreflect.ValueOfString(strings.ToValidUTF8(l.text, "?"))
}

// base is a Base that answers nothing but the lie. Some of the values that pages branch on are real.
func (l lie) base(role basev1.Role) owner.Base {
	b := fullBase(role, "")
	b.Name = l.text
	b.Look.Info = tell(&basev1.GetInfoResponse{}, l)
	b.Look.Info.Caller.Role = role
	b.Look.Node, b.Look.Window = tell(&basev1.Node{}, l), tell(&basev1.Window{}, l)
	b.Look.Apps = tell(&basev1.ListAppsResponse{}, l).Apps
	b.Look.Services = tell(&basev1.ListServicesResponse{}, l).Services
	b.Look.Samples = tell(&basev1.GetHistoryResponse{}, l).Samples
	b.Look.Bans = tell(&basev1.ListBansResponse{}, l).Bans
	b.Findings = tell(&basev1.RunAuditResponse{}, l).Findings
	b.Parts = map[owner.Want]owner.Answered{
		{Part: owner.Peers}: {At: now, Peers: tell(&basev1.ListPeersResponse{}, l)},
		{Part: owner.Wallets, Subject: owner.WalletKind}: {At: now, Wallets: tell(&basev1.GetWalletsResponse{}, l)},
		{Part: owner.NodeSettings}:                       {At: now, NodeSettings: tell(&basev1.ChosenNode{}, l)},
		{Part: owner.Disks}:                              {At: now, Disks: tell(&basev1.ListDisksResponse{}, l)},
		{Part: owner.TimeZones}:                          {At: now, TimeZones: tell(&basev1.ListTimeZonesResponse{}, l)},
		{Part: owner.Software}:                           {At: now, Update: tell(&basev1.GetUpdateResponse{}, l)},
		{Part: owner.Logs, Subject: "nginx"}: {At: now, Lines: []*basev1.LogEntry{
			tell(&basev1.LogEntry{}, l), tell(&basev1.LogEntry{}, l)}},
		{Part: owner.Changes}: {At: now, Changes: &client.ChangeLog{Entries: []*systemv1.ChangeEntry{tell(&systemv1.ChangeEntry{}, l)}}},
	}
	b.Events = nil
	kinds := (&basev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
	for n := range kinds.Len() {
		e := tell(&basev1.Event{}, l)
		l.fill(e.ProtoReflect().Mutable(kinds.Get(n)).Message(), 4)
		b.Events = append(b.Events, owner.Event{First: e.GetTime().AsTime(), At: e.GetTime().AsTime(), Times: 1, Event: e})
	}
	return b
}

// turns tells whether a character changes how others are read (Unicode Standard Annex 9, section 2).
func turns(r rune) bool {
	return strings.ContainsRune("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\r\x1b", r)
}

// A template that fails would take each page that lists the Base with it.
func TestNoAnswerOfABaseBreaksOrTurnsAPage(t *testing.T) {
	for name, l := range lies {
		for _, role := range roles {
			b := l.base(role)
			s := owner.State{Bases: []owner.Base{b, wellBase()}}
			for _, language := range words.Languages() {
				r := New(language, time.Minute)
				paths := []string{"/bases", "/pair"}
				for _, each := range screens {
					paths = append(paths, addressOf(b, each.name)+"?service=nginx")
				}
				for _, path := range paths {
					func() {
						defer func() {
							if failed := recover(); failed != nil {
								t.Errorf("%s, %s, %s: %v", name, language.Tag, path, failed)
							}
						}()
						p := r.Page(path, s, now)
						var whole strings.Builder
						if err := r.Document(&whole, p, Frame{}); err != nil {
							t.Error(err)
						}
						if turned := strings.IndexFunc(whole.String(), turns); turned >= 0 {
							t.Errorf("%s, %s, %s: it is turned by %q", name, language.Tag, path, whole.String()[turned:turned+8])
						}
						if p.Status != statusOK || len(p.Parts) == 0 {
							t.Errorf("%s, %s, %s: status %d", name, language.Tag, path, p.Status)
						}
					}()
				}
			}
		}
	}
}

// A Base, or another App, tries a change while this App locks down: the page must not promise that the
// lockdown is undone.
func TestNoTryOfOthersIsTakenForTheDeed(t *testing.T) {
	b := triedBase()
	for kind, want := range map[owner.DeedKind]bool{owner.Lockdown: false, owner.Revoke: false, owner.Reboot: false, owner.Expose: true} {
		d := owner.DeedState{Number: 1, Base: b.ID(), Deed: owner.Deed{Kind: kind}, Began: now, Agreed: true}
		p := renderer(words.English).Page("/deed/1", owner.State{Bases: []owner.Base{b}, Deeds: []owner.DeedState{d}}, now)
		var whole strings.Builder
		for _, part := range p.Parts {
			whole.WriteString(string(part.HTML))
		}
		for _, key := range []string{"deed.step.try.more", "deed.stop.text"} {
			if got := strings.Contains(whole.String(), words.English.Say(key)); got != want {
				t.Errorf("%s: the page says %q: %t", kind, words.English.Say(key), got)
			}
		}
	}
}

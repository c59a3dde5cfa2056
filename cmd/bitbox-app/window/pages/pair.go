package pages

import (
	"cmp"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// nearby is an announced Base that can be paired with.
type nearby struct {
	Key, Name, Address string
	Addresses          string // all of them, with spaces between
	// Closed: it lets no App in now. Known is the name of the pairing that there is.
	Closed       bool
	Known        string
	Incompatible bool
}

// protocolVersion is the version of the wire protocol that this App speaks (docs/protocol.md).
const protocolVersion = 1

// pair is the first use: which Base?
func (v *view) pair() Page {
	text := "pair.text"
	if len(v.state.Bases) == 0 {
		text = "pair.first"
	}
	return v.framed(v.say("pair.title"), "",
		v.heading(v.say("pair.title"), v.say(text)),
		v.part("pair.nearby", "", struct {
			Bases    []nearby
			Problem  *words.Text
			UnderWay uint64
		}{v.around(), v.problem(v.state.SearchErr), v.pairing()}),
		v.form("pair.form", "", nil))
}

// pairing is the number of the pairing under way; 0: none.
func (v *view) pairing() uint64 {
	at := slices.IndexFunc(v.state.Deeds, func(d owner.DeedState) bool { return isPairing(d) && d.Ended.IsZero() })
	if at < 0 {
		return 0
	}
	return v.state.Deeds[at].Number
}

func (v *view) around() []nearby {
	var list []nearby
	for _, n := range v.state.Nearby {
		one := nearby{Name: n.Name, Addresses: strings.Join(n.Addresses, " "), Closed: !n.PairingOpen, Known: n.Known,
			Incompatible: n.ProtocolVersion != protocolVersion}
		one.Address = owner.BestAddress(n.Addresses)
		one.Key = cmp.Or(one.Address, n.Name)
		list = append(list, one)
	}
	return list
}

// baseShort is a Base among several.
type baseShort struct {
	Address, Name string
	wellness
	Open []opened
}

// bases is the overview of all Bases.
func (v *view) bases() Page {
	var list []baseShort
	for _, b := range v.state.Bases {
		one := *v
		one.base = b
		list = append(list, baseShort{addressOf(b, first), b.Name, v.judge(b), one.open()})
	}
	strangers := slices.DeleteFunc(v.around(), func(n nearby) bool { return n.Known != "" })
	return v.framed(v.say("frame.all"), "wide",
		v.heading(v.say("frame.all"), ""),
		v.part("pair.bases", "wide", struct {
			Bases []baseShort
			New   int
			Text  string
		}{list, len(strangers), v.language.Count("pair.bases.new", len(strangers))}))
}

// code is what is compared in a pairing.
type code struct {
	client.Code
	Role, Allows string
}

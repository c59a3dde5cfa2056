package pages

import (
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/picture"
)

// walletView is how a wallet connects.
type walletView struct {
	// Known: the Base manages what is open.
	Known, Open bool
	// Silent: no program answers behind the API.
	Silent bool
	// Until is when it closes; nil: when somebody closes it.
	Until *deadline
	From  string
	// How is what a wallet needs; nil if this App knows no address of the Base. Code is its line.
	How  *owner.Opened
	Code template.HTML
	// Check connects as a wallet does.
	Check     button
	Buttons   []button
	Connected table
	None      string
}

// wallet is the API for wallets as it is now.
func (v *view) wallet() walletView {
	answer := v.answered(owner.Wallets, owner.WalletKind)
	used := answer.Wallets
	shown := walletView{Known: v.base.Look.Access != nil, Silent: used != nil && !used.GetAnswers()}
	if !shown.Known {
		return shown
	}
	at := slices.IndexFunc(v.base.Look.Access.Doors, owner.Door.IsWallets)
	if at < 0 {
		return shown
	}
	door := v.base.Look.Access.Doors[at]
	shown.Open, shown.How = true, v.base.API(door)
	shown.From = v.say("wallet.everybody")
	if len(door.From) > 0 {
		shown.From = v.say("wallet.networks", strings.Join(door.From, ", "))
	}
	if !door.ForGood {
		shown.Until = &deadline{v.base.At.Add(door.Left), v.say("wallet.api")}
	}
	if shown.How != nil {
		about := picture.Words{Title: v.say("wallet.code"), Description: v.say("wallet.code.about", shown.How.Line)}
		if code, err := picture.Code(about, shown.How.Line); err == nil {
			shown.Code = code
		}
	}
	shown.Check = button{Action: v.do(owner.CheckWallet), Text: v.say("wallet.check")}
	if v.owns() {
		shown.Buttons = append(shown.Buttons, button{
			Action: v.do(owner.EndLease), Fields: []fact{{"kind", owner.WalletKind}}, Text: v.say("wallet.close"), Class: "danger"})
	}
	shown.Connected = table{Caption: v.say("wallet.connected"), Named: true, Head: v.says("wallet.address", "wallet.since")}
	for _, one := range used.GetWallets() {
		shown.Connected.Rows = append(shown.Connected.Rows, []string{one.GetAddress(), v.language.When(one.GetSince().AsTime(), v.now)})
	}
	if used.GetMore() > 0 {
		shown.Connected.More = v.say("wallet.more", used.GetMore())
	}
	switch {
	case answer.At.IsZero() && answer.Err == nil:
		shown.None = v.say("wallet.wait")
	case used == nil:
		shown.None = sentence(v.language.Problem(answer.Err).Text)
	case !used.GetTold():
		shown.None = v.say("wallet.nottold")
	default:
		shown.None = v.say("wallet.none")
	}
	return shown
}

// lengths are the leases that a page offers, as commands take them.
var lengths = []struct {
	typed  string
	length time.Duration
}{{"1h", time.Hour}, {"1d", 24 * time.Hour}, {"7d", client.MaxLease}}

// walletFormView is the form that opens the API for wallets.
type walletFormView struct {
	Action  string
	Lengths []choice
}

func (v *view) walletForm() walletFormView {
	f := walletFormView{Action: v.do(owner.Expose), Lengths: []choice{{"until-closed", v.say("wallet.for.until"), true}}}
	for _, l := range lengths {
		f.Lengths = append(f.Lengths, choice{Value: l.typed, Text: v.language.Duration(owner.Seconds(l.length))})
	}
	return f
}

//go:build linux

package e2e_test

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The story of a wallet's owner, with nothing replaced: their browser shows the App's window, and the
// Base is a booted appliance with its own NGINX. (Package test/window has the other stories.)
func TestAWalletIsConnectedToABootedBaseFromTheWindow(t *testing.T) {
	chromiumtest.Require(t)
	b := bootAppliance(t)
	b.electrum()
	way := b.Attacker(1).Way(t, b.entry())
	app := windowtest.Start(t, windowtest.Options{})
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	app.Open(tab)

	// From the empty window to a paired Base.
	tab.Type(windowtest.Say("pair.form.address"), way.Address)
	tab.Click("form:has(#address) button")
	number := windowtest.Digits(tab, "number")
	b.Until("the Base accepts the number", func() error {
		out, err := b.Exec("bitbox-base", "pairing", "accept", number, "--role", "owner")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	code := windowtest.Digits(tab, "code")
	windowtest.Read(tab)
	tab.Press(windowtest.Say("pair.compare.yes"))
	tab.AwaitText(windowtest.Say("pair.waiting.title"))
	b.MustExec("bitbox-base", "pairing", "confirm", code)
	tab.AwaitText(windowtest.Say("pair.done.text"))

	// The server for wallets is opened, and is the one that the page describes.
	tab.Press(windowtest.Say("pair.done.node"))
	tab.AwaitText(windowtest.Say("wallet.closed"))
	node := chromiumtest.Eval[string](tab, "location.href")
	windowtest.Press(tab, "expose")
	windowtest.Agree(t, tab)
	tab.Open(node)
	tab.AwaitText(windowtest.Say("wallet.good"))
	conn := b.mustWallet(b.electrumPort())
	shown := chromiumtest.Eval[string](tab, `document.getElementById("wallet-fingerprint").innerText`)
	if served := fingerprint(conn); strings.ReplaceAll(shown, ":", "") != served {
		t.Errorf("the page shows the fingerprint %s, NGINX serves %s", shown, served)
	}
	tab.AwaitText(b.Attacker(1).V4.String()) // the wallet is listed
	ended := ends(conn)
	windowtest.Press(tab, "end-lease")
	windowtest.Agree(t, tab)
	select {
	case <-ended:
	case <-time.After(stage.Patience): // the page carries it out after the press
		t.Fatal("the wallet's connection lives on")
	}
	b.closed(b.electrumPort())
	tab.Open(node)
	tab.AwaitText(windowtest.Say("wallet.closed"))
}

// fingerprint is that of the certificate which the other side has shown.
func fingerprint(conn *tls.Conn) string {
	return fmt.Sprintf("%X", sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw))
}

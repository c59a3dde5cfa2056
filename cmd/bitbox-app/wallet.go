package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/qrcode"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/walletcheck"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// walletKind is the extra API that wallets use.
const walletKind = string(posture.KindElectrum)

// errWallet: a wallet could not use the Base as it should.
var errWallet = errors.New("a wallet cannot use this Base")

// checkTime is how long a check may take: the Base's answers, a connection, TLS and two answers.
const checkTime = time.Minute

// walletView is what is known about the API for wallets.
type walletView struct {
	connection
	end  posture.Endpoint
	used *basev1.GetWalletsResponse
	node *basev1.Node
}

// askWallet asks a Base about the API for wallets.
func (p *program) askWallet(ctx context.Context, session *client.Session) (walletView, error) {
	view, err := session.Posture(ctx)
	if err != nil {
		return walletView{}, err
	}
	host, err := p.hostOf(session)
	if err != nil {
		return walletView{}, err
	}
	at := exposedAt(host, walletKind, view)
	if at == nil {
		return walletView{}, fmt.Errorf("%w: the Electrum API is closed; to open it: bitbox-app expose electrum --until-closed", errWallet)
	}
	w := walletView{connection: *at}
	for _, end := range view.Effective().Endpoints {
		if string(end.Kind) == walletKind {
			w.end = end
		}
	}
	if w.used, err = session.Wallet.GetWallets(ctx, &basev1.GetWalletsRequest{Kind: walletKind}); err != nil {
		return w, err
	}
	if node, err := session.Node.GetNode(ctx, &basev1.GetNodeRequest{}); err == nil {
		w.node = node.GetNode()
	}
	return w, ctx.Err()
}

// shownWallet is what 'wallet' prints as JSON.
type shownWallet struct {
	connection
	Remaining   int      `json:"remainingSeconds"`
	UntilClosed bool     `json:"untilClosed"`
	From        []string `json:"from"`
	// Answers: a program is there behind the API.
	Answers bool `json:"answers"`
	// Told: the connections are known; they are not if the API shares the entry's port.
	Told    bool             `json:"told"`
	Wallets []shownConnected `json:"wallets"`
	More    uint32           `json:"more"`
}

type shownConnected struct {
	Address string    `json:"address"`
	Since   time.Time `json:"since"`
}

func (w walletView) json() any {
	s := shownWallet{connection: w.connection, Remaining: seconds(w.end.Remaining), UntilClosed: w.end.UntilClosed,
		From: append([]string{}, w.end.From.Strings()...), Answers: w.used.GetAnswers(), Told: w.used.GetTold(),
		Wallets: []shownConnected{}, More: w.used.GetMore()}
	for _, one := range w.used.GetWallets() {
		s.Wallets = append(s.Wallets, shownConnected{client.Printable(one.GetAddress()), one.GetSince().AsTime()})
	}
	return s
}

func (p *program) walletCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "wallet",
		Short: "Show how a wallet connects to the Base, and which ones are connected",
		Long: `wallet prints the line that a wallet needs, as text and as a QR code for a phone, and the
fingerprint of the certificate, signed by the Base. It lists the wallets that are connected,
by address and since when (within 10 seconds, and since the Base's helper was started).`,
		Example: `  bitbox-app wallet
  bitbox-app wallet check`,
		Args: commandline.Args(0, 0),
	}
	var code bool
	command.Flags().BoolVar(&code, "qr", false, "print the QR code even if the output is no terminal")
	command.RunE = func(c *cobra.Command, _ []string) error {
		return ask(p, c, callTime, query[walletView]{
			ask:  p.askWallet,
			json: walletView.json,
			show: func(w walletView) error { return p.printWallet(w, code) },
		})
	}
	command.AddCommand(p.walletCheckCommand())
	return command
}

func (p *program) printWallet(w walletView, code bool) error {
	more := [][2]string{{"Open", w.until()}}
	if !w.used.GetAnswers() {
		more = append(more, [2]string{"Note", nothingAnswers})
	}
	if err := w.say(p, more...); err != nil {
		return err
	}
	if code && !p.out.Moves { // at a terminal it stands there already
		if err := p.printCode(w.Line); err != nil {
			return err
		}
	}
	switch {
	case !w.used.GetTold():
		return p.printf("Which wallets are connected is not known: they share the port of the Apps.\n")
	case len(w.used.GetWallets()) == 0:
		return p.printf("No wallet is connected.\n")
	}
	connected := p.table("WALLET", "SINCE").whole("WALLET")
	for _, one := range w.used.GetWallets() {
		connected.row(one.GetAddress(), when(one.GetSince().AsTime(), time.Now()))
	}
	if err := connected.print(); err != nil || w.used.GetMore() == 0 {
		return err
	}
	return p.printf("... and %d more.\n", w.used.GetMore())
}

// until says how long the API is open, and to whom.
func (w walletView) until() string {
	text := "for another " + duration(uint64(seconds(w.end.Remaining)))
	if w.end.UntilClosed {
		text = "for good: until somebody closes it"
	}
	if len(w.end.From) > 0 {
		text += ", from " + strings.Join(w.end.From.Strings(), ", ") + " alone"
	}
	return text
}

// printCode prints the QR code of a line.
func (p *program) printCode(line string) error {
	rows, err := qrcode.Draw(line, terminal.UTF8(runtime.GOOS, os.Getenv))
	if err != nil {
		return err
	}
	for n, row := range rows {
		rows[n] = p.out.Paint(qrStyle, row)
	}
	return p.printf("\n%s\n\n", strings.Join(rows, "\n"))
}

// qrStyle is bright white on black, whatever the colours of the terminal are (ECMA-48, and aixterm).
const qrStyle terminal.Style = "97;40"

// nothingAnswers is what to do about an API without a server.
const nothingAnswers = "nothing answers behind the API at the Base, so a wallet would wait in vain; 'bitbox-app node' shows whether the node is ready, 'bitbox-app services list' what runs"

func (p *program) walletCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Connect as a wallet does, and say what is wrong",
		Long: `check connects to the Base as a wallet does: it begins TLS, compares the certificate with the
fingerprint that the Base has signed, and asks the server for its version and its network.`,
		Example: `  bitbox-app wallet check`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, checkTime, query[checkedWallet]{
				doing: "Connecting as a wallet does",
				ask: func(ctx context.Context, session *client.Session) (checkedWallet, error) {
					w, err := p.askWallet(ctx, session)
					if err != nil {
						return checkedWallet{}, err
					}
					return w.check(ctx)
				},
				show: func(c checkedWallet) error {
					return p.printf("A wallet can use %s: %s, protocol %s, %s.\n", client.Printable(c.Address), client.Printable(c.Software),
						client.Printable(c.Protocol), c.Network)
				},
			})
		},
	}
}

// checkedWallet is what a check has found to be in order.
type checkedWallet struct {
	Address           string `json:"address"`
	CertificateSHA256 string `json:"certificateSha256"`
	Software          string `json:"software"`
	Protocol          string `json:"protocol"`
	Network           string `json:"network"`
}

// check connects as a wallet does. An error says what is wrong and what to do.
func (w walletView) check(ctx context.Context) (checkedWallet, error) {
	if w.digest == nil {
		return checkedWallet{}, fmt.Errorf("%w: the Base has signed no certificate for the API yet; try again in a moment", errWallet)
	}
	server, err := walletcheck.Check(ctx, (&net.Dialer{}).DialContext, w.Address, *w.digest)
	switch {
	case errors.Is(err, walletcheck.ErrUnreachable):
		return checkedWallet{}, fmt.Errorf("%w: %s does not answer; %s", errWallet, w.Address, w.whyUnreachable())
	case errors.Is(err, walletcheck.ErrOtherCertificate):
		return checkedWallet{}, fmt.Errorf("%w: %s shows another certificate than the Base has signed; another machine answers there, or somebody is in between",
			errWallet, w.Address)
	case errors.Is(err, walletcheck.ErrNoTLS):
		return checkedWallet{}, fmt.Errorf("%w: %s does not begin TLS; %s", errWallet, w.Address, w.whyUnreachable())
	case errors.Is(err, walletcheck.ErrNotReady) && !w.used.GetAnswers():
		return checkedWallet{}, fmt.Errorf("%w: %s", errWallet, nothingAnswers)
	case errors.Is(err, walletcheck.ErrNotReady):
		return checkedWallet{}, fmt.Errorf("%w: the server is there and does not serve yet; 'bitbox-app node' shows how far it is", errWallet)
	case err != nil:
		return checkedWallet{}, err
	}
	network := words.English.Network(server.Network())
	if words.HasNode(w.node) && w.node.GetNetwork() != server.Network() {
		return checkedWallet{}, fmt.Errorf("%w: the server serves %s, and the node %s; a wallet would show other coins", errWallet, network,
			words.English.Network(w.node.GetNetwork()))
	}
	return checkedWallet{w.Address, w.CertificateSHA256, client.Printable(server.Software), client.Printable(server.Protocol), network}, nil
}

// whyUnreachable guesses from the address that this computer would send from.
func (w walletView) whyUnreachable() string {
	if own, known := ownAddress(w.Address); known && !w.end.From.Contains(own) {
		return fmt.Sprintf("this computer is %s, and the API is open from %s alone", own, strings.Join(w.end.From.Strings(), ", "))
	}
	return "a firewall or a router in between may refuse it"
}

// ownAddress is the address from which this computer reaches another. No packet is sent.
func ownAddress(to string) (netip.Addr, bool) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	own, is := conn.LocalAddr().(*net.UDPAddr)
	if !is {
		return netip.Addr{}, false
	}
	return own.AddrPort().Addr().Unmap(), true
}

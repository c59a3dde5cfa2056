package main

import (
	"context"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/qrcode"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// checkTime is how long a check may take: the Base's answers, a connection, TLS and two answers.
const checkTime = time.Minute

// walletView is what is known about the API for wallets.
type walletView struct{ owner.WalletAccess }

// askWallet asks a Base about the API for wallets.
func (p *program) askWallet(ctx context.Context, session *client.Session) (walletView, error) {
	host, err := p.hostOf(session)
	if err != nil {
		return walletView{}, err
	}
	access, err := owner.AskWallet(ctx, session, host)
	return walletView{access}, err
}

// shownWallet is what 'wallet' prints as JSON.
type shownWallet struct {
	owner.Opened
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
	s := shownWallet{Opened: w.Opened, Remaining: seconds(w.End.Remaining), UntilClosed: w.End.UntilClosed,
		From: append([]string{}, w.End.From.Strings()...), Answers: w.Used.GetAnswers(), Told: w.Used.GetTold(),
		Wallets: []shownConnected{}, More: w.Used.GetMore()}
	for _, one := range w.Used.GetWallets() {
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
	if warning := owner.WalletWarning(w.Used); !warning.Empty() {
		more = append(more, [2]string{"Note", warning.String()})
	}
	if err := p.sayOpened(w.Opened, more...); err != nil {
		return err
	}
	if code && !p.out.Moves { // at a terminal it stands there already
		if err := p.printCode(w.Line); err != nil {
			return err
		}
	}
	switch {
	case !w.Used.GetTold():
		return p.printf("Which wallets are connected is not known: they share the port of the Apps.\n")
	case len(w.Used.GetWallets()) == 0:
		return p.printf("No wallet is connected.\n")
	}
	connected := p.table("WALLET", "SINCE").whole("WALLET")
	for _, one := range w.Used.GetWallets() {
		connected.row(one.GetAddress(), when(one.GetSince().AsTime(), time.Now()))
	}
	if err := connected.print(); err != nil || w.Used.GetMore() == 0 {
		return err
	}
	return p.printf("... and %d more.\n", w.Used.GetMore())
}

// until says how long the API is open, and to whom.
func (w walletView) until() string {
	text := "for another " + duration(uint64(seconds(w.End.Remaining)))
	if w.End.UntilClosed {
		text = "for good: until somebody closes it"
	}
	if len(w.End.From) > 0 {
		text += ", from " + strings.Join(w.End.From.Strings(), ", ") + " alone"
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

func (p *program) walletCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Connect as a wallet does, and say what is wrong",
		Long: `check connects to the Base as a wallet does: it begins TLS, compares the certificate with the
fingerprint that the Base has signed, and asks the server for its version and its network.`,
		Example: `  bitbox-app wallet check`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, checkTime, query[owner.CheckedWallet]{
				doing: "Connecting as a wallet does",
				ask: func(ctx context.Context, session *client.Session) (owner.CheckedWallet, error) {
					w, err := p.askWallet(ctx, session)
					if err != nil {
						return owner.CheckedWallet{}, err
					}
					return w.Check(ctx)
				},
				show: func(c owner.CheckedWallet) error { return p.printf("%s\n", client.Printable(c.Said().String())) },
			})
		},
	}
}

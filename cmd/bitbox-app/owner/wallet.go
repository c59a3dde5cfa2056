package owner

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"net/netip"
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/walletcheck"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// WalletKind is the extra API that wallets use.
const WalletKind = string(posture.KindElectrum)

// ErrWallet: a wallet could not use the Base as it should.
var ErrWallet = errors.New("a wallet cannot use this Base")

// noWallet is an ErrWallet with a reason.
func noWallet(reason words.Said) error { return words.Failing(ErrWallet, "problems.wallet", reason) }

// WalletAccess is what a Base tells about the API for wallets while that is open.
type WalletAccess struct {
	Opened
	// Digest is that of the certificate, as the Base has signed it; nil: it has none yet.
	Digest *[sha256.Size]byte
	End    posture.Endpoint
	View   *client.PostureView
	Used   *basev1.GetWalletsResponse
	Node   *basev1.Node // nil where the Base does not tell of it
}

// AskWallet asks a Base, which this App reaches at host, about the API for wallets.
func AskWallet(ctx context.Context, session *client.Session, host string) (w WalletAccess, err error) {
	if w.View, err = session.Posture(ctx); err != nil {
		return w, err
	}
	ends := w.View.Effective().Endpoints
	n := slices.IndexFunc(ends, func(e posture.Endpoint) bool { return e.Kind == posture.KindElectrum })
	if n < 0 {
		return w, noWallet(words.Saying("problems.wallet.closed"))
	}
	opened := OpenedAPI(host, ends[n].Port, certificateOf(w.View, posture.KindElectrum))
	if opened == nil {
		return w, noWallet(words.Saying("problems.wallet.noaddress"))
	}
	w.Opened, w.End = *opened, ends[n]
	if digest, known := w.View.Identities().Certificates[posture.KindElectrum]; known {
		w.Digest = &digest
	}
	if w.Used, err = session.Wallet.GetWallets(ctx, &basev1.GetWalletsRequest{Kind: WalletKind}); err != nil {
		return w, err
	}
	if node, err := session.Node.GetNode(ctx, &basev1.GetNodeRequest{}); err == nil {
		w.Node = node.GetNode()
	}
	return w, ctx.Err()
}

// WalletWarning says what to do about an API without a server, which keeps wallets waiting in vain;
// empty: there is one.
func WalletWarning(used *basev1.GetWalletsResponse) words.Said {
	if used.GetAnswers() {
		return words.Said{}
	}
	return words.Saying("problems.wallet.silent")
}

// CheckedWallet is what a check has found to be in order.
type CheckedWallet struct {
	Address           string `json:"address"`
	CertificateSHA256 string `json:"certificateSha256"`
	Software          string `json:"software"`
	Protocol          string `json:"protocol"`
	Network           string `json:"network"`

	network basev1.Network
}

// Said says it in a sentence.
func (c CheckedWallet) Said() words.Said {
	return words.Saying("done.check-wallet", c.Address, c.Software, c.Protocol, c.network)
}

// Check connects as a wallet does. An error says what is wrong and what to do.
func (w WalletAccess) Check(ctx context.Context) (CheckedWallet, error) {
	if w.Digest == nil {
		return CheckedWallet{}, noWallet(words.Saying("problems.wallet.nocertificate"))
	}
	server, err := walletcheck.Check(ctx, (&net.Dialer{}).DialContext, w.Address, *w.Digest)
	switch {
	case errors.Is(err, walletcheck.ErrUnreachable):
		return CheckedWallet{}, noWallet(words.Saying("problems.wallet.noanswer", w.Address, w.whyUnreachable()))
	case errors.Is(err, walletcheck.ErrOtherCertificate):
		return CheckedWallet{}, noWallet(words.Saying("problems.wallet.certificate", w.Address))
	case errors.Is(err, walletcheck.ErrNoTLS):
		return CheckedWallet{}, noWallet(words.Saying("problems.wallet.notls", w.Address, w.whyUnreachable()))
	case errors.Is(err, walletcheck.ErrNotReady) && !w.Used.GetAnswers():
		return CheckedWallet{}, noWallet(WalletWarning(w.Used))
	case errors.Is(err, walletcheck.ErrNotReady):
		return CheckedWallet{}, noWallet(words.Saying("problems.wallet.notready"))
	case err != nil:
		return CheckedWallet{}, err
	}
	if words.HasNode(w.Node) && w.Node.GetNetwork() != server.Network() {
		return CheckedWallet{}, noWallet(words.Saying("problems.wallet.network", server.Network(), w.Node.GetNetwork()))
	}
	return CheckedWallet{w.Address, w.CertificateSHA256, client.Printable(server.Software), client.Printable(server.Protocol),
		words.English.Network(server.Network()), server.Network()}, nil
}

// whyUnreachable guesses from the address that this computer would send from.
func (w WalletAccess) whyUnreachable() words.Said {
	if own, known := ownAddress(w.Address); known && !w.End.From.Contains(own) {
		return words.Saying("problems.wallet.from", own, w.End.From)
	}
	return words.Saying("problems.wallet.between")
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

// checkWallet connects to the Base as a wallet does. It changes nothing.
func checkWallet(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
	known, err := s.source.App.Base(s.Base())
	if err != nil {
		return words.Said{}, err
	}
	w, err := AskWallet(ctx, s.Session, HostOf(known))
	if err != nil {
		return words.Said{}, err
	}
	h.Progress(words.Saying("steps.wallet", w.Address))
	checked, err := w.Check(ctx)
	return checked.Said(), err
}

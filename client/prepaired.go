package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"crypto/ed25519"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// PrePaired is the state of a pairing that was built into an image (PrePair), before any
// board of it was met. The first board that answers becomes the Base.
const PrePaired PairingState = "pre-paired"

// ErrSecondBoard: another board with the same image answered. The App
// uses the first one that it met, and no other.
var ErrSecondBoard = errors.New("a second board of the same image")

// storedPrePaired is what an App keeps of the image that it has made.
type storedPrePaired struct {
	Static []byte `json:"static"` // of the first connection
	Pair   []byte `json:"pair"`
	Key    []byte `json:"key"` // the public half of the image's certifying key
}

// prePaired is a storedPrePaired with its keys parsed.
type prePaired struct {
	static noiseconn.StaticKey
	pair   noiseconn.PairKey
	key    ed25519.PublicKey
}

func (s *storedPrePaired) parse() (b *prePaired, err error) {
	b = &prePaired{key: s.Key}
	if b.static, err = noiseconn.ParseStatic(s.Static); err != nil {
		return nil, err
	}
	if b.pair, err = noiseconn.ParsePairKey(s.Pair); err != nil {
		return nil, err
	}
	if len(b.key) != ed25519.PublicKeySize {
		return nil, errors.New("the key of prePaired has a wrong length")
	}
	return b, nil
}

// PrePair makes an image's half of a pairing, as an owner, and this App's: file is a new
// file, for `bitbox-base provision --prepaired`. It holds private keys, and is for one
// board. The pairing is PrePaired until the board is met.
func (a *App) PrePair(file, name string) (Base, error) {
	half, keys, err := prepaired.New(a.random, a.name, name)
	if err != nil {
		return Base{}, fail(ErrInvalid, err, "%v", err)
	}
	// A place that cannot be written is found before anything is stored.
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Base{}, fail(ErrInvalid, err, "the file for the image's keys cannot be made (%v); name one that is not there yet", err)
	}
	record := &stored{
		Name: name, State: PrePaired, BaseKey: keys.Base[:], BaseName: name, AppName: a.name,
		Role: basev1.Role_ROLE_OWNER, PairedAt: a.now().UTC().Round(0),
		Static: keys.Static.Expose(), Signing: keys.Signing.Seed(), Discovery: keys.Discovery.Expose(),
		PrePaired: &storedPrePaired{Static: keys.ImageStatic.Expose(), Pair: keys.Image.Expose(), Key: keys.Certifying},
	}
	id := half.App.AppID()
	// The App's half first: keys that no App has would be of no use.
	err = a.store.add(id, record)
	if err == nil {
		_, err = out.Write(half.Marshal())
		err = errors.Join(err, out.Sync(), out.Close())
		if err != nil {
			err = errors.Join(fail(ErrStorage, err, "the image's keys were not written: %v", err), a.store.remove(id))
		}
	} else {
		err = errors.Join(err, out.Close())
	}
	if err != nil {
		return Base{}, errors.Join(err, os.Remove(file))
	}
	p, err := a.store.pairing(id)
	if err != nil {
		return Base{}, err
	}
	return p.Base, nil
}

// ofImage is the pairing as the first connection has it.
func (p *pairing) ofImage() *pairing {
	image := *p
	image.static, image.pair, image.prePaired = p.prePaired.static, p.prePaired.pair, nil
	return &image
}

// fetchKeys meets the board with this App's image: it gets the keys that the
// board has drawn, and keeps them. From then on the image's keys open nothing.
func (a *App) fetchKeys(ctx context.Context, p *pairing, given []string) (*pairing, error) {
	conn, address, err := a.reach(ctx, p.ofImage(), given)
	if err == nil {
		err = a.fetchKeysOver(ctx, p, conn.Conn, address)
	}
	if err == nil {
		return a.store.pairing(p.AppID)
	}
	// Another process of this App may have been first.
	if now, stored := a.store.pairing(p.AppID); stored != nil || now.State != PrePaired {
		return now, stored
	}
	return nil, err
}

func (a *App) fetchKeysOver(ctx context.Context, p *pairing, conn *noiseconn.Conn, address string) error {
	ctx, cancel := context.WithTimeout(ctx, a.timing.handshake)
	defer cancel()
	session := rpc.NewSession(conn)
	defer session.Close()
	answer, err := baserpc.NewPrePairedServiceClient(baserpc.On(session)).FetchKeys(ctx, &basev1.FetchKeysRequest{})
	if err != nil {
		return fail(ErrSilent, callError(err), "the board at %s did not hand out its keys (%s)", address, Explain(callError(err)))
	}
	public, err := noiseconn.PublicOf(p.static)
	if err != nil {
		return err
	}
	if !a.certified(p.prePaired.key, p.PublicKey, public, answer.GetStateKey(), answer.GetSignature()) {
		return fail(ErrLyingBase, nil, "the board at %s cannot show that its key was made by the image's: do not use it, and make a new image", address)
	}
	if _, err := noiseconn.ParsePairKey(answer.GetPairKey()); err != nil {
		return fail(ErrNotABase, err, "the board at %s handed out no key: %v", address, err)
	}
	return a.store.change(p.AppID, "store the keys of the board", func(r *stored) {
		if r.State == PrePaired {
			r.State, r.Pair, r.StateKey, r.Addresses = Active, answer.GetPairKey(), slices.Clone(answer.GetStateKey()), []string{address}
		}
	})
}

// isSecondBoard finds out whether what is silent at an address is another board of
// the same image: only such a one still answers to the image's keys.
func (a *App) isSecondBoard(ctx context.Context, p *pairing, address string) bool {
	conn, err := a.dialOnce(ctx, p.ofImage(), address)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing is said to it
	return true
}

func failSecondBoard(p *pairing, address string) error {
	return fail(ErrSecondBoard, nil, "the board at %s has the same image as the Base %q, but is another board; this App uses the board that it met first, and no other: "+
		"give the second board an image of its own (%s), and if you made only one, somebody has a copy of the image", address, p.Name, fmt.Sprintf("bitbox-app prepair FILE --name %q", p.Name+" 2"))
}

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// whole is a whole Base in this process and an App that is paired with it: real
// TCP, real state files, and what stands around the channel.
type whole struct {
	dir      string
	files    string // of what stands beside it
	base     *devbase.Base
	app      *client.App
	pairings atomic.Int64
}

// pairTime is how long the pairing may take.
const pairTime = time.Minute

// newWhole has the Base take its connections from entry; nil: from a port on loopback.
func newWhole(entry net.Listener) (w *whole, err error) {
	w = &whole{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = os.MkdirTemp("", "bitbox-base-bench-"); err != nil {
		return w, err
	}
	limits := admission.DefaultLimits()
	// One address makes all the connections here.
	limits.PerSecond, limits.Burst, limits.ParkedPerAddress = 1e6, 1e6, limits.Parked
	w.base, err = devbase.Start(devbase.Config{
		StateDir: filepath.Join(w.dir, "base"), Listen: "127.0.0.1:0", Entry: entry, Limits: limits, Now: w.now,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return w, err
	}
	w.app, err = client.New(client.Options{Dir: filepath.Join(w.dir, "app"), Name: "bench", NoDiscovery: true})
	return w, err
}

// now is the ceremony authority's clock. It allows three pairings in three minutes, and
// nobody here waits for that.
func (w *whole) now() time.Duration {
	return time.Since(started) + time.Duration(w.pairings.Load())*pairing.ActsTime
}

var started = time.Now()

// pair plays both people. The App's says yes to what the Base's has seen.
func (w *whole) pair(app *client.App, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pairTime)
	defer cancel()
	console := w.base.Console()
	role := basev1.Role_ROLE_UNSPECIFIED // the first is the owner
	if w.pairings.Add(1) > 1 {
		role = basev1.Role_ROLE_VIEWER
		if err := console.OpenWindow(ctx); err != nil {
			return err
		}
	}
	var atTheBase error
	_, err := app.Pair(ctx, []string{address}, client.PairOptions{
		Requested: func(number string) { atTheBase = acceptNumber(ctx, w.base, number, role) },
		Confirm: func(ctx context.Context, code client.Code) (bool, error) {
			for seen := uint64(0); ; {
				snapshot, err := console.Watch(ctx, seen)
				if err != nil {
					return false, err
				}
				if shown := snapshot.GetCeremony(); shown.GetCode() != "" {
					return shown.GetCode() == code.Digits, console.Answer(ctx, pairing.CeremonyID(shown.GetId()), true)
				}
				seen = snapshot.GetVersion()
			}
		},
	})
	return errors.Join(err, atTheBase)
}

func acceptNumber(ctx context.Context, b *devbase.Base, text string, role basev1.Role) error {
	number := uint32(0)
	for _, digit := range text {
		if digit != ' ' {
			number = number*10 + uint32(digit-'0')
		}
	}
	return b.Console().Accept(ctx, number, role)
}

// call opens a session, makes one call, and leaves the session open.
func (w *whole) call() (*client.Session, error) {
	session, err := w.app.Open("")
	if err != nil {
		return nil, err
	}
	_, err = session.Info.GetInfo(context.Background(), &basev1.GetInfoRequest{})
	return session, err
}

func (w *whole) close() error {
	var err error
	if w.base != nil {
		err = w.base.Stop()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

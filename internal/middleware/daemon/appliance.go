package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// ApplianceConfig is what the appliance's Middleware is made of.
type ApplianceConfig struct {
	// StateDir holds the pairings and the Base's identity, mode 0700.
	StateDir string
	// Entry is the unix socket to which NGINX passes connections, each with a PROXY
	// line that tells the client's address.
	Entry net.Listener
	// Helper reaches the system helper.
	Helper helperclient.Client
	Logger *slog.Logger
}

// Run runs the appliance's Middleware until ctx ends, or a part of it fails. What it
// cannot see or decide, it asks of the system helper.
func Run(ctx context.Context, config ApplianceConfig) error {
	m, err := Open(Config{StateDir: config.StateDir, Logger: config.Logger})
	if err != nil {
		return errors.Join(err, config.Entry.Close())
	}
	err = m.Start(Parts{
		Entry: config.Entry, Proxied: true,
		Authority: config.Helper.Authority(),
		Machine:   helperMachine{config.Helper},
		Helper:    config.Helper,
		Announcer: func(txt discovery.TXT) (Announcer, error) {
			told := &helperAnnouncer{updates: make(chan discovery.TXT, 1)}
			told.Update(txt)
			m.running.Go(func() { told.run(m.ctx, config.Helper, config.Logger) })
			return told, nil
		},
	})
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-m.failed:
		}
	}
	return errors.Join(err, m.Stop())
}

// helperMachine tells what the helper tells.
type helperMachine struct{ helperclient.Client }

func (h helperMachine) Machine(ctx context.Context) (*systemv1.MachineInfo, error) {
	reply, err := h.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetMachine{GetMachine: &systemv1.GetMachine{}}}, nil)
	if err != nil {
		return nil, err
	}
	return reply.GetMachine(), nil
}

// Bounds of telling the helper what to announce.
const (
	announceTime  = 10 * time.Second
	announceAgain = 5 * time.Second
)

// helperAnnouncer hands the latest record on, again until it was taken.
type helperAnnouncer struct{ updates chan discovery.TXT }

// Update replaces what is to be announced. It never blocks. It is called by one
// goroutine at a time.
func (h *helperAnnouncer) Update(txt discovery.TXT) {
	select {
	case <-h.updates: // one that nobody has taken yet
	default:
	}
	h.updates <- txt
}

// Close does nothing: the helper goes on announcing, for a Middleware that was
// ended comes back.
func (h *helperAnnouncer) Close() error { return nil }

func (h *helperAnnouncer) run(ctx context.Context, helper helperclient.Client, logger *slog.Logger) {
	var current discovery.TXT
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case current = <-h.updates:
		case <-again:
		}
		again = nil
		if err := announce(ctx, helper, current); err != nil && ctx.Err() == nil {
			logger.Warn("the system helper did not announce this Base", "error", err)
			again = time.After(announceAgain)
		}
	}
}

func announce(ctx context.Context, helper helperclient.Client, txt discovery.TXT) error {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	_, err := helper.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Announce{Announce: &systemv1.Announce{
		Version: uint32(txt.Version), Nonce: txt.Nonce[:], Id: txt.ID[:], PairingOpen: txt.PairingOpen}}}, nil)
	return err
}

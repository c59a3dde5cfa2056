package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
)

// ApplianceConfig is the configuration of the appliance's Middleware.
type ApplianceConfig struct {
	// StateDir holds the pairings and the Base's identity, mode 0700.
	StateDir string
	// Entry is the unix socket to which NGINX passes connections, each with a PROXY
	// line that tells the client's address.
	Entry net.Listener
	// Helper reaches the system helper.
	Helper helperclient.Client
	// Node reaches bitbox-node, which may not be there.
	Node   *nodeclient.Client
	Logger *slog.Logger
}

// Run runs the appliance's Middleware until ctx ends, or a part of it fails. It asks the system
// helper for everything that it cannot see or decide itself.
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
		Node:      config.Node,
		Announcer: func(txt announcement.TXT) (Announcer, error) {
			told := &helperAnnouncer{updates: make(chan announcement.TXT, 1)}
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

// helperMachine reports what the helper reports.
type helperMachine struct{ helperclient.Client }

func (h helperMachine) Machine(ctx context.Context) (*systemv1.MachineInfo, error) {
	reply, err := h.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetMachine{GetMachine: &systemv1.GetMachine{}}}, nil)
	if err != nil {
		return nil, err
	}
	return reply.GetMachine(), nil
}

// Limits of telling the helper what to announce.
const (
	announceTime  = 10 * time.Second
	announceAgain = 5 * time.Second
)

// helperAnnouncer passes the latest record on, again until the helper has accepted it.
type helperAnnouncer struct{ updates chan announcement.TXT }

// Update replaces the announced record. It never blocks. Only one goroutine may call it at a
// time.
func (h *helperAnnouncer) Update(txt announcement.TXT) {
	select {
	case <-h.updates: // a record that was not yet taken
	default:
	}
	h.updates <- txt
}

// Close does nothing: the helper continues to announce, because a Middleware that has ended comes
// back.
func (h *helperAnnouncer) Close() error { return nil }

func (h *helperAnnouncer) run(ctx context.Context, helper helperclient.Client, logger *slog.Logger) {
	var current announcement.TXT
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

func announce(ctx context.Context, helper helperclient.Client, txt announcement.TXT) error {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	_, err := helper.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Announce{Announce: &systemv1.Announce{
		Version: uint32(txt.Version), Nonce: txt.Nonce[:], Id: txt.ID[:], PairingOpen: txt.PairingOpen}}}, nil)
	return err
}

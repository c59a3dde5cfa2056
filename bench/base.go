package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

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
	files    string // of what stands before it; empty: nothing does
	base     *devbase.Base
	app      *client.App
	pairings atomic.Int64
}

// pairTime is how long the pairing may take.
const pairTime = time.Minute

func newWhole() (*whole, error) { return newWholeBehind(nil) }

// newWholeBehind has the Base take its connections from entry, in place of a port; then
// somebody has to pair with it yet.
func newWholeBehind(entry net.Listener) (w *whole, err error) {
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
		StateDir: filepath.Join(w.dir, "base"), Listen: "127.0.0.1:0", Entry: entry, Limits: limits, Now: w.now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return w, err
	}
	if w.app, err = client.New(client.Options{Dir: filepath.Join(w.dir, "app"), Name: "bench", NoDiscovery: true}); err != nil {
		return w, err
	}
	if entry != nil {
		return w, nil
	}
	return w, w.pair(w.app, w.base.Addr().String())
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

// tlsService is the rival of a whole Base: the same service with the same answer on
// HTTP/2 over crypto/tls, both from the standard library.
type tlsService struct {
	rival  *rivalTLS
	server *http.Server
	addr   string
}

// answer is what the rival says, as long as what a Base says.
type answer struct{ info *basev1.GetInfoResponse }

func (a answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = proto.Unmarshal(body, &basev1.GetInfoRequest{})
	}
	if err == nil {
		body, err = proto.Marshal(a.info)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body)
}

// asked is the rival's client.
type asked struct {
	*http.Client
	url string
}

func (a asked) GetInfo(ctx context.Context, request *basev1.GetInfoRequest) (*basev1.GetInfoResponse, error) {
	body, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := a.Do(post)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	info := &basev1.GetInfoResponse{}
	return info, proto.Unmarshal(body, info)
}

func newTLSService(info *basev1.GetInfoResponse) (*tlsService, error) {
	rival, err := newRivalTLS()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	s := &tlsService{rival: rival, addr: listener.Addr().String(), server: &http.Server{
		Handler: answer{info}, TLSConfig: rival.server, Protocols: &protocols, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}}
	go func() { _ = s.server.ServeTLS(listener, "", "") }()
	return s, nil
}

// call makes one call on a new connection, and leaves it open.
func (s *tlsService) call() (*http.Client, asked, error) {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	httpClient := &http.Client{Transport: &http.Transport{TLSClientConfig: s.rival.client.Clone(), Protocols: &protocols}}
	service := asked{httpClient, "https://" + s.addr}
	_, err := service.GetInfo(context.Background(), &basev1.GetInfoRequest{})
	return httpClient, service, err
}

func (s *tlsService) close() error { return s.server.Close() }

// both starts a whole Base and its rival.
func both() (*whole, *tlsService, error) {
	w, err := newWhole()
	if err != nil {
		return nil, nil, err
	}
	session, err := w.call()
	if err == nil {
		defer session.Close()
		var info *basev1.GetInfoResponse
		if info, err = session.Info.GetInfo(context.Background(), &basev1.GetInfoRequest{}); err == nil {
			var rival *tlsService
			if rival, err = newTLSService(info); err == nil {
				return w, rival, nil
			}
		}
	}
	return nil, nil, errors.Join(err, w.close())
}

package window

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/browser"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Options are the choices of Run.
type Options struct {
	// Owner follows the Bases and carries out deeds. Run starts and ends it.
	Owner Owner
	// Pages makes the pages in a language.
	Pages func(language words.Language, idle time.Duration) Renderer
	// Language is the tag of the window's language; "": the one that a person has chosen in the
	// window, or else SystemLanguage, which may be any that a system has.
	Language, SystemLanguage string
	// Dir is the App's folder. A second start with the same folder finds the window that is open.
	Dir string
	// Idle is how long a page stays open without key or pointer (CheckIdle); 0: what a person has
	// chosen in the window, or else 15 minutes.
	Idle time.Duration
	// NoBrowser: no browser is started, and a person types the address.
	NoBrowser bool
	// Say tells the person at the terminal something, in a sentence.
	Say func(sentence string)

	now func() time.Time // tests replace it
}

// Run opens the window, or hands this start over to the process that has it open. It returns when
// the window is closed: a minute after its last page, or when ctx ends.
func Run(ctx context.Context, o Options) error {
	if err := refuseRoot(os.Geteuid()); err != nil {
		return err
	}
	return run(ctx, o)
}

// refuseRoot: what a page of root's can reach is worth more than a window, and a browser of root's is
// worth still more.
func refuseRoot(user int) error {
	if user == 0 {
		return errors.New("the window does not run as root; run it as the user who sits in front of the browser")
	}
	return nil
}

func run(ctx context.Context, o Options) error {
	if o.now == nil {
		o.now = wallTime
	}
	starts, release, running, err := claim(ctx, o.Dir, question{Code: o.NoBrowser})
	if err != nil {
		return err
	}
	if running != nil {
		return o.open(*running, func() (invitation, error) {
			return askRunning(ctx, filepath.Join(o.Dir, socketFile), question{Code: true})
		})
	}
	defer release()
	if err := removeUploads(o.Dir); err != nil {
		return errors.Join(fmt.Errorf("remove files of an earlier window: %w", err), starts.Close())
	}
	listener, err := listenOnLoopback()
	if err != nil {
		return err
	}
	s, err := newServer(o, listener.Addr())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return s.run(ctx, listener, starts)
}

// wallTime goes on while the computer sleeps, which the monotonic clock of time.Now does not do on Linux:
// a page that was left open must be locked when the lid is opened hours later.
func wallTime() time.Time { return time.Now().Round(0) }

// newServer makes a window that is about to be served at an address.
func newServer(o Options, at net.Addr) (*server, error) {
	_, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return nil, fmt.Errorf("read the address of the window: %w", err)
	}
	s := &server{
		Options: o, address: "http://" + at.String(), cookie: "window-" + port,
		door: door{host: at.String(), rules: rules, admits: admits},
		desk: newDesk(rand.Reader), streams: make(chan struct{}, mostStreams), routes: routes, mux: http.NewServeMux(), timing: usualTiming,
		settings: newSettings(o), uploading: make(chan struct{}, 1), budget: rate.NewLimiter(perSecond, atOnce),
		refusals: rate.NewLimiter(perSecond, atOnce),
	}
	if _, err := rand.Read(s.proof[:]); err != nil {
		return nil, fmt.Errorf("make the key of the window: %w", err)
	}
	for pattern, to := range s.routes {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, _ := r.Context().Value(visitorKey{}).(visitor)
			to.serve(s, w, r, v)
		})
	}
	first := ticketLife
	if o.NoBrowser {
		first = codeLife
	}
	s.life = newLife(s.now(), first+lastPage)
	return s, nil
}

// run serves the window until it is over.
func (s *server) run(ctx context.Context, listener *net.TCPListener, starts *net.UnixListener) (err error) {
	ctx, end := context.WithCancel(ctx)
	s.gone = ctx
	var broken error
	s.running.Go(func() {
		defer end()
		broken = s.Owner.Run(ctx)
	})
	defer func() {
		end()
		s.running.Wait()
		err = errors.Join(err, broken)
	}()
	s.running.Go(func() { serveStarts(starts, s.invite) })
	s.running.Go(func() { s.watch(ctx, end) })
	defer func() { _ = starts.Close() }()
	served := make(chan error, 1)
	s.running.Go(func() {
		defer end()
		served <- s.serve(ctx, newGate(listener, s.door.admits))
	})
	made, err := s.invite(question{Code: s.NoBrowser})
	if err == nil {
		err = s.open(made, func() (invitation, error) { return s.invite(question{Code: true}) })
	}
	if err != nil {
		end()
		return errors.Join(err, <-served)
	}
	return <-served
}

// watch locks idle pages, and ends the window after its last one.
func (s *server) watch(ctx context.Context, end func()) {
	tick := time.NewTicker(s.timing.watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, underWay := s.now(), slices.ContainsFunc(s.Owner.State().Deeds, func(d owner.DeedState) bool { return d.Ended.IsZero() })
		_, _, idle := s.settings.read()
		s.desk.idle(now, idle, underWay)
		if s.life.over(now, underWay) {
			end()
		}
	}
}

// invite makes an invitation, and gives it time.
func (s *server) invite(wanted question) (invitation, error) {
	i := invitation{Address: s.address}
	var err error
	if wanted.Code {
		i.Code, err = s.desk.newCode(s.now())
		s.life.stay(s.now(), codeLife+lastPage)
	} else {
		i.Ticket, err = s.desk.ticket(s.now())
		s.life.stay(s.now(), ticketLife+lastPage)
	}
	return i, err
}

// open shows the window in a browser. If there is none, it says how to open it by hand.
func (o Options) open(i invitation, code func() (invitation, error)) error {
	if i.Code == "" {
		err := browser.Open(i.enterAt(), filepath.Join(o.Dir, "browser"))
		if err == nil {
			o.Say("The window is open in a browser. It ends a minute after its last page is closed.")
			return nil
		}
		if !errors.Is(err, browser.ErrNone) {
			return err
		}
		o.Say("No browser could be started here.")
		if i, err = code(); err != nil {
			return err
		}
	}
	o.Say(fmt.Sprintf("Open %s/enter in a browser on this computer, and type this code within five minutes: %s", i.Address, i.Code))
	return nil
}

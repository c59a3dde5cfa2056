package owner

import (
	"context"
	"errors"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Source is where the data come from, and how an owner acts. NewSource makes one from an App.
type Source interface {
	// Bases, Browse, Pair and Forget are those of client.App.
	Bases() ([]client.Base, error)
	Browse(ctx context.Context) (<-chan client.Nearby, error)
	Pair(ctx context.Context, addresses []string, o client.PairOptions) (client.Base, error)
	Forget(name string) error
	// Open opens a session with the Base of this name. It does not connect yet.
	Open(name string) (Session, error)
}

// Session is one conversation with a Base. It may be used by several goroutines.
type Session interface {
	// Health asks for the state of the machine. It costs the Base little, so it may be called
	// often.
	Health(ctx context.Context) (*basev1.GetInfoResponse, error)
	// Look asks for everything but the audit.
	Look(ctx context.Context) (Look, error)
	// Audit makes the Base inspect itself, the worst findings first. known is false if the Base
	// has no audit, or if this App may not run one.
	Audit(ctx context.Context) (findings []*basev1.Finding, known bool, err error)
	// Watch reports events, beginning after the given sequence as far as the Base keeps them,
	// until ctx ends or trying again cannot help. A lost connection is made again; lost is called
	// before that.
	Watch(ctx context.Context, after uint64, tell func(*basev1.Event), lost func(error)) error
	// Do does a deed, once hand has approved a description of the change. It returns one sentence
	// about the result.
	Do(ctx context.Context, deed Deed, hand Hand) (words.Said, error)
	// Follow tells the newest lines of a service's log, then each one as it comes, until ctx ends or the
	// stream does.
	Follow(ctx context.Context, service string, tell func(*basev1.LogEntry)) error
	// Ask asks for a part.
	Ask(ctx context.Context, want Want) (Answered, error)
	Close()
}

// Look is a Base's answer.
type Look struct {
	Info   *basev1.GetInfoResponse
	Apps   []*basev1.App
	Window *basev1.Window
	// Access is nil if the Base has no posture, like a developer's.
	Access *Access
	// Lie is why the Base's posture is not believed; nil if it is.
	Lie error
	// Bans are known only if HasBans.
	Bans    []*basev1.Ban
	HasBans bool
	// Services and Samples are empty if the Base does not report them.
	Services []*basev1.Service
	Samples  []*basev1.Sample
	// Node is nil where the Base does not tell of it.
	Node *basev1.Node
}

// Access is how open the Base is, as its helper has signed it. Remaining times count from the
// moment it was asked.
type Access struct {
	Revision      uint64
	Lockdown      bool
	PairingClosed bool // no window may be opened from the network
	Doors         []Door
	SSH           bool
	SSHLeft       time.Duration
	Keys          []string   // those that may log in while SSH is on
	Fingerprints  []string   // of Keys, in their order
	HostKey       []byte     // the Base's own, in the wire format of SSH; empty if it has signed none
	Bans          words.Said // when an address is banned, and for how long
	Internet      []string   // the services that may go out, such as client.NodeInternet
	NodeReach     string     // where the node may go, in words
	// Applying: a change is being put in force. Trying: a change waits for confirmation, and is
	// undone after UndoneIn.
	Applying, Trying bool
	UndoneIn         time.Duration
	Tried            []client.PostureChange
	// Software says what runs, and whether there is something newer; empty if it is no image.
	Software string
	// Gap: the Base no longer keeps all that happened since this App looked last.
	Gap bool
}

// Door is something that can be reached from the network.
type Door struct {
	Kind   string
	Port   uint16
	Shared bool          // on the port of the channel
	Left   time.Duration // 0 for the channel, and if ForGood
	// ForGood: it stays open until somebody closes it.
	ForGood bool
	From    []string // the networks that reach it; empty: every network
	// Certificate is the fingerprint (SHA-256, hexadecimal) of an extra API's certificate, as the
	// helper has signed it; empty if there is none yet.
	Certificate string
}

// NewSource returns the source for this App. If address is not empty, the Base with this name
// (the only one, if the name is empty) is tried there first.
func NewSource(app *client.App, base, address string, software func(*client.RunningImage) string, known Releases) Source {
	return &appSource{App: app, base: base, address: address, software: software, releases: known}
}

type appSource struct {
	*client.App
	base, address string
	software      func(*client.RunningImage) string
	releases      Releases
}

func (a *appSource) Open(name string) (Session, error) {
	var at []string
	if a.address != "" {
		meant, err := a.Base(a.base)
		if err == nil && meant.Name == name {
			at = append(at, a.address)
		}
	}
	opened, err := a.App.Open(name, at...)
	if err != nil {
		return nil, err
	}
	return &session{opened, a}, nil
}

type session struct {
	*client.Session
	source *appSource
}

func (s *session) Health(ctx context.Context) (*basev1.GetInfoResponse, error) {
	return s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
}

// absent tells whether a Base has answered that it does not have something, or does not give it
// to this App.
func absent(err error) bool {
	return errors.Is(err, client.ErrUnknownToBase) || errors.Is(err, client.ErrNotNow) || errors.Is(err, client.ErrDenied)
}

func (s *session) Look(ctx context.Context) (l Look, err error) {
	// One after the other, because a Base answers few questions of one App at a time.
	for _, ask := range []func(context.Context, *Look) error{s.lookInfo, s.lookApps, s.lookWindow, s.lookAccess, s.lookBans, s.lookServices,
		s.lookSamples, s.lookNode} {
		if err := ask(ctx, &l); err != nil && !absent(err) {
			return Look{}, err
		}
	}
	return l, nil
}

func (s *session) lookInfo(ctx context.Context, l *Look) (err error) {
	l.Info, err = s.Health(ctx)
	return err
}

func (s *session) lookApps(ctx context.Context, l *Look) error {
	answer, err := s.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
	l.Apps = answer.GetApps()
	return err
}

func (s *session) lookWindow(ctx context.Context, l *Look) error {
	answer, err := s.Pairing.GetWindow(ctx, &basev1.GetWindowRequest{})
	l.Window = answer.GetWindow()
	return err
}

func (s *session) lookAccess(ctx context.Context, l *Look) error {
	view, err := s.Posture(ctx)
	switch {
	case errors.Is(err, client.ErrLyingBase):
		l.Lie = err
		return nil
	case err != nil:
		return err
	}
	l.Access = accessOf(view)
	l.Access.Software = s.source.software(view.Identities().Image)
	return nil
}

func accessOf(view *client.PostureView) *Access {
	e := view.Effective()
	a := &Access{
		Revision: e.Revision, Lockdown: e.Lockdown, PairingClosed: e.PairingClosed, Gap: view.Gap,
		HostKey: view.Identities().SSHHostKey,
		Bans:    words.Saying("values.bans", e.Bans.MaxTries, words.Seconds(Seconds(e.Bans.Window)), words.Seconds(Seconds(e.Bans.BanTime))),
	}
	for _, end := range e.Endpoints {
		door := Door{Kind: string(end.Kind), Port: end.Port, Shared: end.Shared, Left: end.Remaining, ForGood: end.UntilClosed,
			From: end.From.Strings(), Certificate: certificateOf(view, end.Kind)}
		a.Doors = append(a.Doors, door)
	}
	for _, key := range e.KnownSSHKeys {
		name := key.Comment
		if name == "" {
			name = key.Fingerprint
		}
		a.Keys, a.Fingerprints = append(a.Keys, name), append(a.Fingerprints, key.Fingerprint)
	}
	if e.SSH != nil {
		a.SSH, a.SSHLeft = true, e.SSH.Remaining
	}
	for _, service := range e.Egress {
		a.Internet = append(a.Internet, string(service))
	}
	a.NodeReach = words.English.NodeReach(view)
	pending, trying, left := view.Pending()
	a.Applying, a.Trying, a.UndoneIn = pending && !trying, trying, left
	if !trying {
		return a
	}
	for _, event := range view.History() {
		if event.Restriction == 0 {
			a.Tried = event.Changes // the last document's, after the loop
		}
	}
	return a
}

// Seconds rounds up, so that a remaining time is never shown as 0.
func Seconds(d time.Duration) uint64 { return uint64(max(0, d+time.Second-1) / time.Second) }

func (s *session) lookBans(ctx context.Context, l *Look) (err error) {
	bans, err := s.Bans(ctx)
	l.Bans = bans.GetBans()
	l.HasBans = err == nil
	return err
}

func (s *session) lookServices(ctx context.Context, l *Look) error {
	answer, err := s.Services.ListServices(ctx, &basev1.ListServicesRequest{})
	l.Services = answer.GetServices()
	return err
}

func (s *session) lookSamples(ctx context.Context, l *Look) error {
	answer, err := s.Machine.GetHistory(ctx, &basev1.GetHistoryRequest{})
	l.Samples = answer.GetSamples()
	return err
}

func (s *session) lookNode(ctx context.Context, l *Look) error {
	answer, err := s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
	l.Node = answer.GetNode()
	return err
}

func (s *session) Audit(ctx context.Context) ([]*basev1.Finding, bool, error) {
	answer, err := s.Session.Audit.RunAudit(ctx, &basev1.RunAuditRequest{})
	if absent(err) {
		return nil, false, nil
	}
	findings := answer.GetFindings()
	words.WorstFirst(findings)
	return findings, err == nil, err
}

func (s *session) Watch(ctx context.Context, after uint64, tell func(*basev1.Event), lost func(error)) error {
	for event, err := range s.WatchEvents(ctx, client.Watch{Replay: true, After: after, Lost: lost}) {
		if err != nil {
			return err
		}
		tell(event)
	}
	return ctx.Err()
}

func (s *session) Follow(ctx context.Context, service string, tell func(*basev1.LogEntry)) error {
	request := &basev1.ReadLogsRequest{Services: []string{service}, Lines: logLines, Follow: true}
	for entry, err := range s.ReadLogs(ctx, request) {
		if err != nil {
			return err
		}
		tell(cutEntry(entry))
	}
	return ctx.Err()
}

// maxListed is how many of each kind are kept. The worst findings come first.
const maxListed = 500

// Most returns the first entries of a list, at most 500.
func Most[T any](list []T) []T { return list[:min(len(list), maxListed)] }

// Bounded drops entries beyond what a person would read.
func (l Look) Bounded() Look {
	l.Apps, l.Bans, l.Services, l.Samples = Most(l.Apps), Most(l.Bans), Most(l.Services), Most(l.Samples)
	if l.Access != nil {
		a := *l.Access
		a.Doors, a.Keys, a.Fingerprints, a.Internet, a.Tried = Most(a.Doors), Most(a.Keys), Most(a.Fingerprints), Most(a.Internet), Most(a.Tried)
		l.Access = &a
	}
	return l
}

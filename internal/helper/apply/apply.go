// Package apply puts a posture in force, completely or not at all.
//
//	render -> write generation N -> validate -> switch -> reload -> cut -> verify
//
// It keeps no state: if it does not know whether a step was done, it repeats it. If a change
// fails, it switches back to the previous generation. A change that closes something is never
// taken back; if it cannot be applied, its ports are blocked at once. Whatever is being put in force
// gives way to what closes more, so a closing waits for no server to read something else.
package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Times of the Applier.
const (
	// StepTime bounds one step: it ends a step that hangs, and names it. posture.ApplyTime bounds
	// all steps. The limit is generous: an emulated machine took more than 30 s for the
	// pre-flight of fail2ban, and a change that is only slow must not fail.
	StepTime = 90 * time.Second
	// verifyTime is how long the machine may take to reach the wanted state: servers open and
	// close ports a moment after they were told, and on a slow board one check takes seconds,
	// because fail2ban answers through a program of its own.
	verifyTime = 30 * time.Second
	verifyEach = 50 * time.Millisecond
)

// Live is the machine: what an Applier does to it and asks it. Units come from the constant list
// in internal/helper/generation.
type Live interface {
	// Provide makes the missing keys and certificates that e needs.
	Provide(ctx context.Context, e posture.Effective) error
	// Examine starts a pre-flight unit, which checks the candidate.
	Examine(ctx context.Context, unit string) error
	// Reload makes the server of a unit read the generation in force. A server that is not
	// running will read it when it starts.
	Reload(ctx context.Context, unit string) error
	// AdmitSSH notes keys that sshd, if it runs, may let in from now on.
	AdmitSSH(keys []sshkey.Key) error
	// StartSSH starts sshd unless it runs. If a key that it was started with, or that it may have let
	// in since, is not among keys, it is stopped first: sessions of that key must end, and nobody can
	// tell which session belongs to which key.
	StartSSH(ctx context.Context, keys []sshkey.Key) error
	// StopSSH stops sshd and ends its sessions.
	StopSSH(ctx context.Context) error
	// Cut ends the established connections to a local TCP port, and no others, except for those from
	// some networks.
	Cut(ctx context.Context, port uint16, except posture.Networks) error
	// Block drops all packets to a local TCP port until the packet filter is reloaded. It needs
	// no disk.
	Block(ctx context.Context, port uint16) error
	// Closing has everybody else wait who has the machine do something, until end is called. What
	// they have begun goes on.
	Closing() (end func())
	// Differences compares the machine with the wanted state.
	Differences(ctx context.Context, e posture.Effective, files generation.Files) ([]string, error)
}

// Part is a server that reads a part of a generation.
type Part struct {
	Prefixes  []string // of its files
	Preflight string
	// Unit is empty for sshd, which is started and stopped.
	Unit string
}

// Parts are in the order in which they are reloaded.
var Parts = []Part{
	{[]string{generation.IPv4Rules, generation.IPv6Rules, generation.LetOut}, "bitbox-base-preflight-firewall.service",
		generation.FirewallUnit},
	{[]string{generation.ProxyConfig}, "bitbox-base-preflight-nginx.service", generation.ProxyUnit},
	{[]string{generation.BansDirectory + "/"}, "bitbox-base-preflight-fail2ban.service", generation.BansUnit},
	{[]string{generation.SSHConfig, generation.AuthorizedKeys}, "bitbox-base-preflight-sshd.service", ""},
}

func (p Part) Has(file string) bool {
	return slices.ContainsFunc(p.Prefixes, func(prefix string) bool { return strings.HasPrefix(file, prefix) })
}

// changed tells whether a part reads different files in a and in b.
func (p Part) changed(a, b generation.Files) bool {
	differs := func(a, b generation.Files) bool {
		for file, content := range a {
			if other, found := b[file]; p.Has(file) && (!found || other != content) {
				return true
			}
		}
		return false
	}
	return differs(a, b) || differs(b, a)
}

// mustRead tells whether a part has to read files, because it may have read others before.
func (p Part) mustRead(before []*inForce, files generation.Files) bool {
	return before == nil || slices.ContainsFunc(before, func(b *inForce) bool { return p.changed(b.files, files) })
}

func hadSSH(before []*inForce) bool {
	return slices.ContainsFunc(before, func(b *inForce) bool { return b.effective.SSH != nil })
}

// StepError says which step of applying a posture failed.
type StepError struct {
	Step string // as in Progress.step
	Err  error
}

// Error names the step.
func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }

// Unwrap returns the error of the step.
func (e *StepError) Unwrap() error { return e.Err }

// Applier puts an Effective in force, all of it or nothing.
type Applier struct {
	store *generation.Store
	live  Live

	// StepTime bounds one step, and VerifyTime the wait until the machine has reached the wanted
	// state; New sets them.
	StepTime, VerifyTime time.Duration

	// known is what is in force. These are several if a run gave way to another: each server has
	// read one of them. It is nil if that is uncertain: at the start, and after a failure that
	// could not be undone.
	known []*inForce
	// whole: the next run does everything, because something may differ from known.
	whole bool

	mu      sync.Mutex // guards running
	running *Run
}

type inForce struct {
	number    uint64
	effective posture.Effective
	files     generation.Files
}

// New returns an Applier that knows nothing about the machine yet.
func New(store *generation.Store, live Live) *Applier {
	return &Applier{store: store, live: live, StepTime: StepTime, VerifyTime: verifyTime}
}

// Goal is what is to be in force.
type Goal struct {
	posture.Effective
	// Undone is to be in force in its place if it cannot be applied, which takes it back; nil: it
	// is not taken back.
	Undone *posture.Effective
}

// closings are what is closed for good: by both, if there are two.
func (g Goal) closings(before []*inForce) []closing {
	closings := closingsOf(before, g.Effective)
	if g.Undone == nil {
		return closings
	}
	undone := closingsOf(before, *g.Undone)
	return slices.DeleteFunc(closings, func(c closing) bool {
		return !slices.ContainsFunc(undone, func(u closing) bool { return u.port == c.port })
	})
}

// states are what may be in force until it is.
func (g Goal) states() []*inForce {
	states := []*inForce{{effective: g.Effective}}
	if g.Undone != nil {
		states = append(states, &inForce{effective: *g.Undone})
	}
	return states
}

// ErrGaveWay is returned by a run that gave way to one that closes more.
var ErrGaveWay = reason.New("something else is to be closed first")

// Run puts one Goal in force.
type Run struct {
	*Applier
	before   []*inForce // Applier.known
	whole    bool       // Applier.whole
	goal     Goal
	files    generation.Files
	number   uint64
	progress func(*systemv1.Progress)
	// gaveWay is done once the run gives way.
	gaveWay context.Context
	giveWay context.CancelFunc
}

// Begin makes the run that puts goal in force. It does nothing yet. One run is begun after the
// other has returned.
func (a *Applier) Begin(goal Goal, progress func(*systemv1.Progress)) *Run {
	r := &Run{Applier: a, before: a.known, whole: a.whole, goal: goal, progress: progress}
	r.gaveWay, r.giveWay = context.WithCancel(context.Background())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = r
	return r
}

// Next tells what is to be in force after the run that was begun last. If it closes something
// for good that this run may leave open, the run gives way: a closing does not wait for the servers
// that read something else, nor for their pre-flight. Each run that gives way closes less than the one
// that follows, so an end comes.
func (a *Applier) Next(goal Goal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.running; r != nil && r.before != nil && len(goal.closings(r.goal.states())) > 0 {
		r.giveWay()
	}
}

// Do puts the goal in force. If it fails and can be taken back, Do restores what was in force
// before. Otherwise it blocks the ports that are to be closed, and another run must follow, as
// after ErrGaveWay.
func (r *Run) Do(ctx context.Context) error {
	defer r.end()
	ctx, cancel := context.WithTimeout(ctx, posture.ApplyTime)
	defer cancel()
	defer context.AfterFunc(r.gaveWay, cancel)()
	closes := r.closes()
	if closes {
		defer r.live.Closing()()
	}
	switched, err := r.all(ctx)
	if err == nil {
		return nil
	}
	if r.gaveWay.Err() != nil {
		if r.files != nil { // some servers may have read them
			r.known = append(slices.Clone(r.before), r.itself())
		}
		return ErrGaveWay
	}
	// The rest is done even if the caller has given up.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), posture.ApplyTime)
	defer cancel()
	if r.goal.Undone != nil && len(r.before) == 1 && !r.whole && !closes { // what was before has nothing open that is closed for good
		if !switched {
			return err // nothing has happened
		}
		back := r.back(ctx)
		if back == nil {
			r.known = r.before
			return err
		}
		err = errors.Join(err, back)
	}
	r.uncertain()
	return errors.Join(err, r.block(ctx, r.goal.closings(r.read())))
}

// uncertain notes that the run has failed: the next one does everything, and still closes at once what
// this one or those before may have left open.
func (r *Run) uncertain() {
	r.Applier.whole = true
	covers := func(b *inForce) bool { return len(closingsOf([]*inForce{r.itself()}, b.effective)) == 0 }
	if r.before != nil && !slices.ContainsFunc(r.before, covers) { // it may fail again and again
		r.known = append(slices.Clone(r.before), r.itself())
	}
}

// itself is what the run puts in force.
func (r *Run) itself() *inForce { return &inForce{r.number, r.goal.Effective, r.files} }

// closes tells whether the run closes for good something that is known to be open. Port 22 is
// among the ports while SSH is on.
func (r *Run) closes() bool { return r.before != nil && len(r.goal.closings(r.before)) > 0 }

func (r *Run) end() {
	r.giveWay() // releases it
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = nil
}

// Forget makes the next run do everything. The run still closes at once, and gives way like any other,
// because a Middleware may cause it.
func (a *Applier) Forget() { a.whole = true }

// read is what servers may have read; nil: that is uncertain.
func (r *Run) read() []*inForce {
	if r.whole {
		return nil
	}
	return r.before
}

// step does one step, reports it, and names it if it fails.
func (r *Run) step(ctx context.Context, name, detail string, do func(context.Context) error) error {
	r.progress(&systemv1.Progress{Step: name, Detail: detail})
	ctx, cancel := context.WithTimeout(ctx, r.StepTime)
	defer cancel()
	err := ctx.Err()
	if err == nil {
		err = failpoint.Reach(strings.TrimSpace(name + " " + detail))
	}
	if err == nil {
		err = do(ctx)
	}
	if err != nil {
		return &StepError{strings.TrimSpace(name + " " + detail), err}
	}
	return nil
}

// all does all steps. switched tells whether servers may have seen any of it.
func (r *Run) all(ctx context.Context) (switched bool, err error) {
	if err := r.step(ctx, "render", "", func(context.Context) (err error) {
		r.files, err = generation.RenderFor(r.goal.Effective, generation.ThisMachine())
		return err
	}); err != nil {
		return false, err
	}
	if len(r.before) == 1 && !r.whole && maps.Equal(r.before[0].files, r.files) {
		r.known = []*inForce{{r.before[0].number, r.goal.Effective, r.files}}
		return false, nil
	}
	var failed error
	if r.closes() {
		failed = r.closeAtOnce(ctx) // the servers close it all the same, once they have read the files
	}
	switched, err = r.putInForce(ctx)
	if err != nil {
		err = errors.Join(failed, err)
	}
	return switched, err
}

// putInForce does all steps from the writing on.
func (r *Run) putInForce(ctx context.Context) (switched bool, err error) {
	if err := r.step(ctx, "write", "", r.write); err != nil {
		return false, err
	}
	if err := r.validate(ctx); err != nil {
		return false, err
	}
	if err := r.step(ctx, "switch", "", func(context.Context) error { return r.switchTo(r.number, r.goal.Effective) }); err != nil {
		return true, err
	}
	if err := r.makeLive(ctx, r.read(), r.goal.Effective, r.files); err != nil {
		return true, err
	}
	r.Applier.whole = false
	r.known = []*inForce{r.itself()}
	keep := []uint64{r.number}
	for _, b := range r.before {
		keep = append(keep, b.number)
	}
	// A leftover is harmless, and is pruned the next time.
	_ = r.store.Prune(keep...)
	return true, nil
}

// closeAtOnce ends what is over for good before anything else is done: writing, validating and
// reloading take a second or more on a small machine. The reload of the packet filter removes the
// blocks, once its rules say the same. They come first, because sshd takes a while to stop.
func (r *Run) closeAtOnce(ctx context.Context) error {
	closings := r.goal.closings(r.before)
	err := r.step(ctx, "cut", "at once", func(ctx context.Context) error { return r.block(ctx, closings) })
	if slices.ContainsFunc(closings, func(c closing) bool { return c.port == sshaccess.Port }) {
		err = errors.Join(err, r.step(ctx, "stop", generation.SSHUnit, r.live.StopSSH))
	}
	return err
}

func (r *Run) write(ctx context.Context) error {
	current, err := r.store.Current()
	if err != nil && !errors.Is(err, generation.ErrNone) {
		return err
	}
	r.number = current + 1
	if err := r.live.Provide(ctx, r.goal.Effective); err != nil {
		return err
	}
	return r.store.Write(r.number, r.files)
}

// switchTo makes a generation the one in force. From then on sshd lets in its keys: it reads them at each
// login.
func (r *Run) switchTo(number uint64, e posture.Effective) error {
	if e.SSH != nil {
		if err := r.live.AdmitSSH(e.SSH.Keys); err != nil {
			return err
		}
	}
	return r.store.Switch(number)
}

// validate runs the pre-flight of everything that has changed, at the same time.
func (r *Run) validate(ctx context.Context) error {
	var units []string
	for _, p := range Parts {
		if p.mustRead(r.read(), r.files) {
			units = append(units, p.Preflight)
		}
	}
	errs := make([]error, len(units))
	var running sync.WaitGroup
	for i, unit := range units {
		running.Go(func() {
			errs[i] = r.step(ctx, "validate", unit, func(ctx context.Context) error { return r.live.Examine(ctx, unit) })
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// makeLive brings the servers from before (nil: not known) to after, whose generation is the one
// in force. Closing comes first.
func (r *Run) makeLive(ctx context.Context, before []*inForce, after posture.Effective, files generation.Files) error {
	if after.SSH == nil && (before == nil || hadSSH(before)) {
		if err := r.step(ctx, "stop", generation.SSHUnit, r.live.StopSSH); err != nil {
			return err
		}
	}
	for _, p := range Parts {
		if p.Unit == "" || !p.mustRead(before, files) {
			continue
		}
		ctx := ctx
		if p.Unit == generation.FirewallUnit {
			if r.gaveWay.Err() != nil {
				return r.gaveWay.Err()
			}
			// Its reload removes the blocks. The run that follows must not add its own before that.
			ctx = context.WithoutCancel(ctx)
		}
		if err := r.step(ctx, "reload", p.Unit, func(ctx context.Context) error { return r.live.Reload(ctx, p.Unit) }); err != nil {
			return err
		}
		if p.Unit == generation.ProxyUnit {
			// Nothing new comes in at these ports; existing connections end here.
			if err := r.cut(ctx, before, after); err != nil {
				return err
			}
		}
	}
	if after.SSH != nil {
		if err := r.step(ctx, "start", generation.SSHUnit, func(ctx context.Context) error {
			return r.live.StartSSH(ctx, after.SSH.Keys)
		}); err != nil {
			return err
		}
	}
	if err := r.step(ctx, "verify", "", func(ctx context.Context) error { return r.verify(ctx, after, files) }); err != nil {
		return err
	}
	// These are connections that an old NGINX worker accepted before it read the new
	// configuration.
	return r.cut(ctx, before, after)
}

// cut ends the connections at the ports that are open in before and closed in after, to all or to
// where they come from.
func (r *Run) cut(ctx context.Context, before []*inForce, after posture.Effective) error {
	for _, c := range closingsOf(before, after) {
		if err := r.step(ctx, "cut", fmt.Sprintf("port %d", c.port), func(ctx context.Context) error {
			return r.live.Cut(ctx, c.port, c.except)
		}); err != nil {
			return err
		}
	}
	return nil
}

// verify waits until the machine has reached the wanted state.
func (r *Run) verify(ctx context.Context, e posture.Effective, files generation.Files) error {
	deadline := time.Now().Add(r.VerifyTime)
	for {
		differences, err := r.live.Differences(ctx, e, files)
		if err == nil && len(differences) == 0 {
			return nil
		}
		if !time.Now().Before(deadline) || ctx.Err() != nil {
			if err != nil {
				return err
			}
			return reason.Errorf("the live system differs: %s", strings.Join(differences, "; "))
		}
		time.Sleep(verifyEach)
	}
}

// back restores what was in force before the run.
func (r *Run) back(ctx context.Context) error {
	// A closing that comes now does not wait for it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.gaveWay, cancel)()
	failed, before := r.itself(), r.before[0]
	err := r.step(ctx, "switch back", "", func(context.Context) error { return r.switchTo(before.number, before.effective) })
	if err != nil {
		return err
	}
	if err := r.makeLive(ctx, []*inForce{failed}, before.effective, before.files); err != nil {
		return reason.Errorf("switch back: %w", err)
	}
	return nil
}

// block closes ports without the disk.
func (a *Applier) block(ctx context.Context, closings []closing) error {
	var errs []error
	for _, c := range closings {
		if err := errors.Join(a.live.Block(ctx, c.port), a.live.Cut(ctx, c.port, nil)); err != nil {
			errs = append(errs, reason.Errorf("block port %d: %w", c.port, err))
		}
	}
	return errors.Join(errs...)
}

// ExceptionalPorts are all ports that can be open besides the entry. An extra API that shares the
// entry has its connections at the inner port.
func ExceptionalPorts() []uint16 {
	ports := []uint16{sshaccess.Port, proxy.InnerPort}
	for _, extra := range posture.Extras {
		ports = append(ports, extra.Port)
	}
	return ports
}

// OpenPorts are those of ExceptionalPorts that e has open.
func OpenPorts(e posture.Effective) []uint16 {
	var ports []uint16
	for _, endpoint := range e.Endpoints {
		switch {
		case endpoint.Kind == posture.KindEntry:
		case endpoint.Shared:
			ports = append(ports, proxy.InnerPort)
		default:
			ports = append(ports, endpoint.Port)
		}
	}
	if e.SSH != nil {
		ports = append(ports, sshaccess.Port)
	}
	return ports
}

// closing is a port that is closed, or closed to all but some networks.
type closing struct {
	port   uint16
	except posture.Networks // empty: it is closed to all
}

// closingsOf compares before, which may be unknown, with after.
func closingsOf(before []*inForce, after posture.Effective) []closing {
	var ports []uint16
	if before == nil {
		ports = ExceptionalPorts()
	}
	for _, b := range before {
		ports = append(ports, OpenPorts(b.effective)...)
	}
	slices.Sort(ports)
	open := OpenPorts(after)
	var closings []closing
	for _, port := range slices.Compact(ports) {
		now := networksOf(after, port)
		wider := func(b *inForce) bool {
			return slices.Contains(OpenPorts(b.effective), port) && !networksOf(b.effective, port).Within(now)
		}
		switch {
		case !slices.Contains(open, port):
			closings = append(closings, closing{port: port})
		case len(now) > 0 && (before == nil || slices.ContainsFunc(before, wider)):
			closings = append(closings, closing{port, now})
		}
	}
	return closings
}

// networksOf returns the networks that reach an open port; empty: every network.
func networksOf(e posture.Effective, port uint16) posture.Networks {
	for _, endpoint := range e.Endpoints {
		if endpoint.Port == port && !endpoint.Shared {
			return endpoint.From
		}
	}
	return nil
}

package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// Kinds of failure of an update.
var (
	// ErrRelease: the file is not a release, or not one that this Base accepts.
	ErrRelease = errors.New("release refused")
	// ErrUpdateUndone: the Base was not healthy with the new version, and runs the previous one.
	ErrUpdateUndone = errors.New("update undone")
	// ErrOtherSoftware: the Base runs something else than it was sent.
	ErrOtherSoftware = errors.New("the Base runs something else")
	// ErrUpdateUnknown: the Base has begun, and the result is not known here.
	ErrUpdateUnknown = errors.New("update not known to have ended")
)

const (
	// pieceSize is how much of a release one message carries, in bytes.
	pieceSize = 256 << 10
	// watchAgain is the pause before the Base is asked again, while it restarts.
	watchAgain = time.Second
	// silentAgain is that pause after a silence that counts (silence.go). Three of them keep the App
	// from its Base for ten minutes, so they must last longer than a bad version proves itself.
	silentAgain = 75 * time.Second
	// watchTime bounds one check whether it can be reached again.
	watchTime = 20 * time.Second
	// beganTime bounds finding out whether an update has begun: a Base that begins one restarts
	// itself soon after.
	beganTime = time.Minute
	// resumeTime bounds going on with an image whose connection was lost, from the last byte that
	// has arrived. The Base notices a silent connection after 30 s.
	resumeTime = 2 * time.Minute
)

// Release is a release file. Its contents are not verified here: the Base has the key.
type Release struct {
	Version, Architecture string
	// Size is the length of the file in bytes.
	Size uint64
	// Image: it is a whole image; else a Debian package. RootHash is that of an image.
	Image    bool
	RootHash [sha256.Size]byte

	preamble []byte
	header   release.Header
	file     *os.File
}

// OpenRelease checks that a file is a whole release. Close must follow.
func OpenRelease(path string) (_ *Release, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fail(ErrInvalid, err, "the release file %q cannot be read (%v)", Printable(path), reason(err))
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	preamble, err := release.ReadPreamble(file)
	if err != nil {
		return nil, fail(ErrInvalid, err, "the release file %q cannot be read (%v)", Printable(path), reason(err))
	}
	h, err := release.Parse(preamble)
	if err != nil {
		return nil, fail(ErrRelease, err, "%q: %v", Printable(path), err)
	}
	switch err := h.Whole(file); {
	case errors.Is(err, release.ErrDamaged):
		return nil, fail(ErrRelease, err, "%q: %v", Printable(path), err)
	case err != nil:
		return nil, fail(ErrInvalid, err, "the release file %q cannot be read (%v)", Printable(path), reason(err))
	}
	r := &Release{Version: h.Version, Architecture: h.Architecture, Size: uint64(len(preamble)) + h.Size,
		preamble: preamble, header: h, file: file}
	if h.Image != nil {
		r.Image, r.RootHash = true, h.Image.RootHash
	}
	return r, nil
}

// Verify tells whether the release is signed by the key.
func (r *Release) Verify(key ed25519.PublicKey) error {
	if _, err := release.Verify(r.preamble, key); err != nil {
		return fail(ErrRelease, err, "%v", err)
	}
	return nil
}

// arrived is how much of the parts of an image the Base has already.
func (r *Release) arrived(status *basev1.GetUpdateResponse) uint64 {
	if digest := sha256.Sum256(r.preamble); r.Image && bytes.Equal(status.GetPartialDigest(), digest[:]) {
		return min(status.GetPartialSize(), r.header.Size)
	}
	return 0
}

// Close closes the file.
func (r *Release) Close() error { return r.file.Close() }

// UpdateProgress tells how far an update is.
type UpdateProgress struct {
	// Sent is how many bytes of the file the Base was sent.
	Sent uint64
	// Update is the Base's report once it has the file; nil before.
	Update *basev1.Update
	// Away: the Base does not answer, because it is restarting.
	Away bool
}

// Install sends a release to the Base, which verifies and installs it, and waits for the end.
// From the moment when Progress has an Update, the Base continues by itself, even without this
// App. But it keeps a new version of the image only after an App has confirmed it, which Install
// does. Install returns nil when the new version runs and is healthy. progress may be nil.
func (s *Session) Install(ctx context.Context, r *Release, progress func(UpdateProgress)) error {
	if progress == nil {
		progress = func(UpdateProgress) {}
	}
	status, err := s.UpdateStatus(ctx)
	if err != nil {
		return err
	}
	before := status.GetUpdate().GetId()
	update, err := s.deliver(ctx, r, r.arrived(status), before, progress)
	if r.Image && err != nil && lost(err) && ctx.Err() == nil {
		update, err = s.resume(ctx, r, before, err, progress)
	}
	if err != nil {
		return err
	}
	progress(UpdateProgress{Sent: r.Size, Update: update})
	return s.finish(ctx, update, r, progress)
}

// GoBack has a Base with two slots start the previous version, and waits for the end. progress may be
// nil.
func (s *Session) GoBack(ctx context.Context, progress func(UpdateProgress)) error {
	if progress == nil {
		progress = func(UpdateProgress) {}
	}
	status, err := s.UpdateStatus(ctx)
	if err != nil {
		return err
	}
	answer, err := s.update.GoBack(ctx, &basev1.GoBackRequest{})
	update := answer.GetUpdate()
	if err != nil && lost(err) && ctx.Err() == nil { // a Base that has begun restarts soon, perhaps before its answer has left
		update, err = s.began(ctx, status.GetOtherVersion(), status.GetUpdate().GetId(), err, progress)
	}
	if err != nil {
		return asRelease(err)
	}
	progress(UpdateProgress{Update: update})
	return s.finish(ctx, update, nil, progress)
}

// finish waits for the end of an update. r is what was brought; nil: nothing.
func (s *Session) finish(ctx context.Context, update *basev1.Update, r *Release, progress func(UpdateProgress)) error {
	update, err := s.follow(ctx, update, r, progress)
	if err != nil {
		return err
	}
	return resultOf(update)
}

// deliver brings a release, and finds the update that has begun if the answer was lost. earlier is the
// id of the previous update.
func (s *Session) deliver(ctx context.Context, r *Release, from uint64, earlier string,
	progress func(UpdateProgress)) (*basev1.Update, error) {
	update, sent, err := s.bring(ctx, r, from, progress)
	if err != nil && sent && lost(err) && ctx.Err() == nil {
		return s.began(ctx, r.Version, earlier, err, progress)
	}
	return update, err
}

// resume goes on with an image that did not arrive whole, once the Base can be reached and has ended
// the connection that was lost. earlier is the id of the previous update.
func (s *Session) resume(ctx context.Context, r *Release, earlier string, cause error,
	progress func(UpdateProgress)) (*basev1.Update, error) {
	deadline := time.Now().Add(resumeTime)
	for before := uint64(0); time.Now().Before(deadline); {
		progress(UpdateProgress{Away: true})
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(watchAgain):
		}
		s.transport.reconnect()
		status, err := s.UpdateStatus(ctx)
		if err != nil || r.arrived(status) == 0 {
			continue
		}
		from := r.arrived(status)
		if from > before {
			before, deadline = from, time.Now().Add(resumeTime)
		}
		update, err := s.deliver(ctx, r, from, earlier, progress)
		if err == nil || !lost(err) {
			return update, err
		}
		cause = err
	}
	return nil, fail(ErrLost, cause,
		"the connection was lost while the file was being sent; the same command goes on where it stopped (the Base keeps the part for a day)")
}

// accept confirms a version that is on trial, if the Base's signed report says that it is the one
// that was brought.
func (s *Session) accept(ctx context.Context, update *basev1.Update, r *Release) error {
	view, err := s.Posture(ctx)
	if err != nil {
		return err
	}
	running := view.Identities().Image
	if running == nil || running.Version != update.GetToVersion() || r != nil && running.RootHash != r.RootHash {
		return fail(ErrOtherSoftware, nil, "the Base does not run the version %s that it was sent, so this App does not confirm it",
			Printable(update.GetToVersion()))
	}
	if _, err = s.update.ConfirmUpdate(ctx, &basev1.ConfirmUpdateRequest{Id: update.GetId()}); err != nil && lost(err) {
		return err
	}
	return nil // if the Base refused it, the trial is over, and the Base says how it ended
}

// resultOf is nil for an update that succeeded.
func resultOf(u *basev1.Update) error {
	switch u.GetPhase() {
	case basev1.Update_PHASE_DONE:
		return nil
	case basev1.Update_PHASE_FAILED:
		return fail(ErrUpdateUndone, nil, "the update to version %s failed, and a person must check the Base: %s",
			Printable(u.GetToVersion()), Printable(u.GetReason()))
	default:
		return fail(ErrUpdateUndone, nil, "the Base runs version %s as before: %s", Printable(u.GetFromVersion()), Printable(u.GetReason()))
	}
}

// began finds an update whose start was not acknowledged: the Base may have begun it, and so
// ended the connection, before its answer arrived. before is the id of the previous update. If
// there is no newer one, cause is the reason.
func (s *Session) began(ctx context.Context, version, before string, cause error, progress func(UpdateProgress)) (*basev1.Update, error) {
	ctx, cancel := context.WithTimeout(ctx, beganTime)
	defer cancel()
	for {
		s.transport.reconnect()
		status, err := s.UpdateStatus(ctx)
		if update := status.GetUpdate(); err == nil && update.GetId() != before && update.GetToVersion() == version {
			return update, nil
		}
		if err == nil || ctx.Err() != nil || !lost(err) {
			return nil, cause
		}
		progress(UpdateProgress{Away: true})
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// bring sends the file from an offset behind the preamble on. sentAll tells that all of it was sent.
func (s *Session) bring(caller context.Context, r *Release, from uint64,
	progress func(UpdateProgress)) (update *basev1.Update, sentAll bool, err error) {
	sent := uint64(len(r.preamble)) + from
	if _, err := r.file.Seek(int64(sent), io.SeekStart); err != nil {
		return nil, false, fail(ErrInvalid, err, "the release file cannot be read (%v)", reason(err))
	}
	// An upload that is not completed is cut off, whatever the reason.
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	stream, err := s.update.BringUpdate(ctx)
	if err != nil {
		return nil, false, err
	}
	defer stream.Close()
	err = stream.Send(&basev1.BringUpdateRequest{Part: &basev1.BringUpdateRequest_Header{Header: r.preamble}, Offset: from})
	for piece := make([]byte, release.ChunkSize); err == nil && sent < r.Size; {
		progress(UpdateProgress{Sent: sent})
		n := min(pieceSize, r.Size-sent)
		if r.Image { // one chunk at a time, so that each is verified before it is stored
			_, n, _ = r.header.Image.Chunk(sent - uint64(len(r.preamble)))
		}
		if _, err := io.ReadFull(r.file, piece[:n]); err != nil {
			return nil, false, fail(ErrRelease, err, "the release file changed while it was being read; try again")
		}
		err = stream.Send(&basev1.BringUpdateRequest{Part: &basev1.BringUpdateRequest_Piece{Piece: piece[:n]}})
		sent += n
	}
	// io.EOF: the Base answered before it had the whole file. The answer says why.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, sent == r.Size, err
	}
	answer, err := stream.Finish()
	if err != nil && caller.Err() != nil && sent == r.Size {
		return nil, true, fail(ErrUpdateUnknown, err,
			"all of version %s was sent to the Base, but this App did not wait for the result; check the update later", Printable(r.Version))
	}
	if err != nil {
		return nil, sent == r.Size, asRelease(err)
	}
	return answer.GetUpdate(), true, nil
}

// asRelease tells a Base that refuses the release from one that cannot take it now.
func asRelease(err error) error {
	var call *rpc.Error
	if errors.As(err, &call) && call.Remote && (call.Code == rpc.Precondition || call.Code == rpc.Invalid) {
		return fail(ErrRelease, err, "the Base refused the release: %s", Printable(call.Text))
	}
	return err
}

// follow asks for the progress of the update until it has ended, over as many connections as
// needed.
func (s *Session) follow(ctx context.Context, update *basev1.Update, r *Release, progress func(UpdateProgress)) (*basev1.Update, error) {
	for !ended(update) {
		begun := time.Now()
		latest, err := s.watchUpdate(ctx, update, r, progress)
		switch {
		case ctx.Err() != nil:
			return nil, fail(ErrUpdateUnknown, ctx.Err(), "the Base is installing version %s, but this App did not wait for the result; check the update later",
				Printable(update.GetToVersion()))
		case err == nil && latest.GetId() != update.GetId():
			return nil, fail(ErrUpdateUnknown, nil, "the Base no longer reports this update; check its version")
		case err == nil:
			update = latest
			continue
		case !lost(err) && !errors.Is(err, ErrBaseFailed):
			return nil, err
		}
		progress(UpdateProgress{Update: update, Away: true})
		select {
		case <-ctx.Done():
		case <-time.After(watchPause(err, time.Since(begun))):
		}
		s.transport.reconnect()
	}
	return update, nil
}

// watchPause is the pause after an attempt that failed and took a while.
func watchPause(err error, took time.Duration) time.Duration {
	if errors.Is(err, ErrSilent) && took >= lateness {
		return silentAgain
	}
	return watchAgain
}

func ended(u *basev1.Update) bool { return u.GetEndedAt() != nil }

// watchUpdate follows one stream and returns the last report.
func (s *Session) watchUpdate(ctx context.Context, update *basev1.Update, r *Release,
	progress func(UpdateProgress)) (*basev1.Update, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A restarting Base may keep a connection waiting before its first report.
	first := time.AfterFunc(watchTime, cancel)
	defer first.Stop()
	stream, err := s.update.WatchUpdate(ctx, &basev1.WatchUpdateRequest{})
	if err != nil {
		return nil, err
	}
	last := update
	for message, err := range stream.All() {
		if err != nil {
			return nil, err
		}
		first.Stop()
		last = message.GetUpdate()
		if last.GetId() == update.GetId() {
			progress(UpdateProgress{Update: last})
			if last.GetAwaitsApp() {
				if err := s.accept(ctx, last, r); err != nil {
					return nil, err
				}
			}
		}
	}
	if !ended(last) && last.GetId() == update.GetId() {
		return nil, fail(ErrLost, nil, "the stream ended before the update")
	}
	return last, nil
}

// UpdateStatus asks for the versions, the last update, and Debian's own updates.
func (s *Session) UpdateStatus(ctx context.Context) (*basev1.GetUpdateResponse, error) {
	return s.update.GetUpdate(ctx, &basev1.GetUpdateRequest{})
}

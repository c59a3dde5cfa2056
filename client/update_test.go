//go:build linux

package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// aRelease opens a release file with several pieces.
func aRelease(t *testing.T, version string) *Release {
	t.Helper()
	path := filepath.Join(t.TempDir(), "release")
	if err := os.WriteFile(path, must(machinetest.Release(version, machinetest.Architecture, 8*pieceSize, false)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRelease(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// The Base begins an update and ends the connection before its answer arrives.
func TestAnUpdateIsFoundWhenTheAnswerToItsStartWasLost(t *testing.T) {
	h := newHouse(t)
	if err := h.session.Install(t.Context(), aRelease(t, "1.1"), nil); err != nil {
		t.Fatal(Explain(err))
	}
	cause := errors.New("the connection was lost")
	found, err := h.session.began(t.Context(), "1.1", "", cause, func(UpdateProgress) {})
	if err != nil || found.GetToVersion() != "1.1" {
		t.Fatalf("%v, %v", found, err)
	}
	for name, sought := range map[string][2]string{"that there was before": {"1.1", found.GetId()}, "to another version": {"1.2", ""}} {
		if _, err := h.session.began(t.Context(), sought[0], sought[1], cause, func(UpdateProgress) {}); !errors.Is(err, cause) {
			t.Errorf("an update %s was taken for the one that is sought: %v", name, err)
		}
	}
}

func TestAnUpdateIsFollowedAcrossTheRestartOfTheBase(t *testing.T) {
	h := newHouse(t)
	session := h.session
	var phases []basev1.Update_Phase
	err := session.Install(t.Context(), aRelease(t, "1.1"), func(p UpdateProgress) {
		phases = append(phases, p.Update.GetPhase())
	})
	if err != nil {
		t.Fatal(Explain(err))
	}
	// A Base that is back before the next question was never away.
	if phases[len(phases)-1] != basev1.Update_PHASE_DONE {
		t.Errorf("the phases are %v", phases)
	}
	status, err := session.UpdateStatus(t.Context())
	if err != nil || status.GetInstalledVersion() != "1.1" || status.GetUpdate().GetPhase() != basev1.Update_PHASE_DONE {
		t.Errorf("%v, %v", status, err)
	}
	h.Software.Sicken("1.2")
	if err := session.Install(t.Context(), aRelease(t, "1.2"), nil); !errors.Is(err, ErrUpdateUndone) {
		t.Errorf("a version with which the Base is not well: %v", err)
	}
}

// The upload ends in its middle: Ctrl-C, an empty battery, a Base out of reach.
func TestAnInterruptedUploadLeavesNothingBehind(t *testing.T) {
	h := newHouse(t)
	session := h.session
	for name, cut := range map[string]func(stop func()){
		"Ctrl-C":         func(stop func()) { stop() },
		"the connection": func(func()) { h.Shut() },
	} {
		ctx, stop := context.WithCancel(t.Context())
		seen := false
		err := session.Install(ctx, aRelease(t, "1.1"), func(p UpdateProgress) {
			if p.Sent < 4*pieceSize || p.Update != nil {
				return
			}
			// Not before the Base has begun.
			for deadline := time.Now().Add(patience); !seen && time.Now().Before(deadline); {
				seen = len(h.Software.Uploads()) == 1
			}
			cut(stop)
		})
		stop()
		if err == nil || !seen {
			t.Errorf("%s: %v; the Base had a part of it: %v", name, err, seen)
		}
		h.Open()
		for deadline := time.Now().Add(patience); len(h.Software.Uploads()) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: what had arrived stays", name)
			}
		}
		status, err := session.UpdateStatus(t.Context())
		if err != nil || status.GetUpdate() != nil || status.GetInstalledVersion() != machinetest.FirstVersion {
			t.Errorf("%s: then %v, %v", name, status, err)
		}
	}
	if err := session.Install(t.Context(), aRelease(t, "1.1"), nil); err != nil {
		t.Errorf("and then whole: %v", Explain(err))
	}
}

// A user who gives up when the Base has the whole file must not be told that nothing was
// installed.
func TestGivingUpAfterTheUploadReportsAnUnknownResult(t *testing.T) {
	h := newHouse(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	h.middleware.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		if request.GetFinishUpdate() != nil {
			stop()
		}
		return nil, nil
	})
	if err := h.session.Install(ctx, aRelease(t, "1.1"), nil); !errors.Is(err, ErrUpdateUnknown) {
		t.Errorf("%v", err)
	}
}

// The test tries an App without the right, a release that is not newer, and false statements of
// the Middleware.
func TestOnlyAnOwnerBringsUpdates(t *testing.T) {
	h := newHouse(t)
	for _, role := range []basev1.Role{basev1.Role_ROLE_VIEWER, basev1.Role_ROLE_OPERATOR} {
		_, session := h.pair(role.String(), role)
		if err := session.Install(t.Context(), aRelease(t, "1.1"), nil); !errors.Is(err, ErrDenied) {
			t.Errorf("%v: %v", role, err)
		}
	}
	if len(h.Software.Uploads()) != 0 {
		t.Error("something was stored")
	}
}

// A compromised Middleware asks the helper itself.
func TestACompromisedMiddlewareInstallsOnlySignedNewerReleases(t *testing.T) {
	h := newHouse(t)
	middleware := helperclient.Client{Port: h.Port(caller.Middleware)}
	bring := func(file []byte) error {
		const header = 194
		began, err := middleware.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginUpdate{
			BeginUpdate: &systemv1.BeginUpdate{Header: file[:min(header, len(file))]}}}, nil)
		if err != nil {
			return err
		}
		upload := began.GetUpdateBegan().GetUpload()
		for offset := header; offset < len(file); offset += pieceSize {
			if _, err := middleware.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_UpdatePiece{
				UpdatePiece: &systemv1.UpdatePiece{
					Upload: upload, Offset: uint64(offset - header), Data: file[offset:min(offset+pieceSize, len(file))]}}}, nil); err != nil {
				return err
			}
		}
		_, err = middleware.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishUpdate{
			FinishUpdate: &systemv1.FinishUpdate{Upload: upload}}}, nil)
		return err
	}
	release := func(version string, forged bool) []byte {
		return must(machinetest.Release(version, machinetest.Architecture, 1000, forged))
	}
	swapped := release("1.1", false)
	copy(swapped[194:], release("1.1", true)[194:])
	swapped[len(swapped)-1] = 'X'
	for name, file := range map[string][]byte{
		"forged": release("9.9", true), "old": release("0.1", false), "the same": release(machinetest.FirstVersion, false),
		"signed, with another package": swapped, "nothing": nil, "cut": release("1.1", false)[:900],
	} {
		if err := bring(file); err == nil {
			t.Errorf("%s: it is installed", name)
		}
	}
	for name, request := range map[string]*systemv1.SystemRequest{
		"the health": {Verb: &systemv1.SystemRequest_GetHealth{GetHealth: &systemv1.GetHealth{}}},
		"no such piece": {Verb: &systemv1.SystemRequest_UpdatePiece{UpdatePiece: &systemv1.UpdatePiece{Upload: []byte("../../../../../x"),
			Data: []byte("x")}}},
		"no such end": {Verb: &systemv1.SystemRequest_FinishUpdate{FinishUpdate: &systemv1.FinishUpdate{Upload: []byte("next.deb")}}},
	} {
		if _, err := middleware.Do(t.Context(), request, nil); err == nil {
			t.Errorf("%s: the helper did it", name)
		}
	}
	if version, _ := h.Software.Installed(t.Context()); version != machinetest.FirstVersion {
		t.Errorf("version %s is installed", version)
	}
	// It may bring a signed and newer release: none of the above was refused for its form.
	if err := bring(release("1.1", false)); err != nil {
		t.Errorf("a genuine one: %v", err)
	}
}

// anImageRelease opens the release file of an image.
func anImageRelease(t *testing.T, version string) *Release {
	t.Helper()
	path := filepath.Join(t.TempDir(), "release")
	if err := os.WriteFile(path, machinetest.ImageRelease(version), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRelease(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// runs fails unless the Base's signed report says that it runs a version.
func runs(t *testing.T, s *Session, version string) {
	t.Helper()
	view, err := s.Posture(t.Context())
	if err != nil {
		t.Fatal(Explain(err))
	}
	if image := view.Identities().Image; image == nil || image.Version != version {
		t.Errorf("it runs %+v, not version %s", image, version)
	}
}

func TestAnImageIsKeptOnceTheAppHasComeBackAndIsGoneBackFromByOrder(t *testing.T) {
	h := newHouse(t)
	must(0, h.Software.BecomeImage())
	if err := h.session.Install(t.Context(), aRelease(t, "1.1"), nil); !errors.Is(err, ErrRelease) {
		t.Errorf("a package for an image: %v", err)
	}
	if err := h.session.GoBack(t.Context(), nil); !errors.Is(err, ErrRelease) {
		t.Errorf("back to nothing: %v", err)
	}
	if err := h.session.Install(t.Context(), anImageRelease(t, "1.1"), nil); err != nil {
		t.Fatal(Explain(err))
	}
	runs(t, h.session, "1.1")
	status := must(h.session.UpdateStatus(t.Context()))
	if !status.GetImage() || status.GetOtherVersion() != machinetest.FirstVersion {
		t.Errorf("the status is %v", status)
	}
	if err := h.session.GoBack(t.Context(), nil); err != nil {
		t.Fatal(Explain(err))
	}
	runs(t, h.session, machinetest.FirstVersion)
	h.Software.Sicken("1.2")
	if err := h.session.Install(t.Context(), anImageRelease(t, "1.2"), nil); !errors.Is(err, ErrUpdateUndone) {
		t.Errorf("a version with which the Base is not well: %v", err)
	}
	runs(t, h.session, machinetest.FirstVersion)
}

// losesAnswer loses the answer to one call, which the Base has taken.
type losesAnswer struct {
	*transport
	after int // calls whose answers arrive before
}

func (l *losesAnswer) Outcome(err error) error {
	if l.after--; err == nil && l.after == -1 {
		return &Error{Kind: ErrLost, Text: "the answer was lost"}
	}
	return l.transport.Outcome(err)
}

func TestGoingBackIsFollowedWhenTheAnswerToItsStartWasLost(t *testing.T) {
	h := newHouse(t)
	must(0, h.Software.BecomeImage())
	if err := h.session.Install(t.Context(), anImageRelease(t, "1.1"), nil); err != nil {
		t.Fatal(Explain(err))
	}
	// The first call asks what the other slot holds.
	h.session.update = baserpc.NewUpdateServiceClient(&losesAnswer{transport: h.session.transport, after: 1})
	if err := h.session.GoBack(t.Context(), nil); err != nil {
		t.Fatal(Explain(err))
	}
	runs(t, h.session, machinetest.FirstVersion)
}

// A Base that says that it runs other bytes than it was sent is not confirmed.
func TestAnAppConfirmsOnlyWhatItHasBrought(t *testing.T) {
	h := newHouse(t)
	must(0, h.Software.BecomeImage())
	h.Software.Forge("1.1")
	if err := h.session.Install(t.Context(), anImageRelease(t, "1.1"), nil); !errors.Is(err, ErrOtherSoftware) {
		t.Errorf("%v", err)
	}
	update := must(h.session.UpdateStatus(t.Context())).GetUpdate()
	if !update.GetAwaitsApp() {
		t.Errorf("the update is %v", update)
	}
	// So that the test need not wait for the end of the trial.
	must(h.session.update.ConfirmUpdate(t.Context(), &basev1.ConfirmUpdateRequest{Id: update.GetId()}))
}

// partOf is how much of an image there is.
func partOf(uploads []string) (size int64) {
	for _, path := range uploads {
		if info, err := os.Stat(path); err == nil && filepath.Ext(path) == ".image" {
			size = info.Size()
		}
	}
	return size
}

func TestAnUploadOfAnImageGoesOnWhereItStopped(t *testing.T) {
	h := newHouse(t)
	must(0, h.Software.BecomeImage())
	// Ctrl-C; then the same command again.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r := anImageRelease(t, "1.1")
	err := h.session.Install(ctx, r, func(p UpdateProgress) {
		if p.Sent < uint64(len(r.preamble))+release.ChunkSize {
			return
		}
		// Not before the Base has the first chunk.
		for deadline := time.Now().Add(patience); partOf(h.Software.Uploads()) < release.ChunkSize && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		stop()
	})
	if err == nil {
		t.Fatal("the upload was not interrupted")
	}
	for deadline := time.Now().Add(patience); r.arrived(must(h.session.UpdateStatus(t.Context()))) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is kept")
		}
	}
	var first uint64
	cut := false
	err = h.session.Install(t.Context(), r, func(p UpdateProgress) {
		if first == 0 {
			first = p.Sent
		}
		// And the connection breaks, which nobody has to notice.
		if p.Update == nil && !p.Away && !cut && p.Sent > first {
			cut = true
			h.Shut()
			h.Open()
		}
	})
	if err != nil {
		t.Fatal(Explain(err))
	}
	if first <= uint64(len(r.preamble)) || !cut {
		t.Errorf("it began at byte %d; cut %v", first, cut)
	}
	runs(t, h.session, "1.1")
}

// The last piece counts as sent when the App has handed it over, though the Base may never have it.
func TestAnUploadOfAnImageThatBreaksInItsLastPieceGoesOn(t *testing.T) {
	h := newHouse(t)
	must(0, h.Software.BecomeImage())
	r := anImageRelease(t, "1.1")
	cut := false
	err := h.session.Install(t.Context(), r, func(p UpdateProgress) {
		if p.Update == nil && !p.Away && !cut && p.Sent+release.ChunkSize >= r.Size {
			cut = true
			h.Shut()
			h.Open()
		}
	})
	if err != nil || !cut {
		t.Fatal(Explain(err), cut)
	}
	runs(t, h.session, "1.1")
}

// A Base whose new version does not start lets connections wait. An App that follows the update must
// still have a handshake left after the two minutes in which the version has to prove itself.
func TestAnAppThatFollowsAnUpdateIsNotShutOutByTheSilenceOfARestart(t *testing.T) {
	if last := (MaxSilences - 1) * watchPause(ErrSilent, lateness); last < 2*time.Minute {
		t.Errorf("the last handshake comes after %v", last)
	}
	for _, err := range []error{ErrSilent, ErrLost} { // it ended the connection at once: it restarts
		if pause := watchPause(err, time.Second); pause != watchAgain {
			t.Errorf("after %v the pause is %v", err, pause)
		}
	}
}

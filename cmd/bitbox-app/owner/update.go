package owner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

const (
	// UpdateTime is how long an update may take: sending the file, waiting for Debian's own updates,
	// installing on a slow card, and going back.
	UpdateTime = time.Hour
	// RebootTime is how long a machine may take to answer again. Its Bitcoin node may take 10 minutes to
	// stop.
	RebootTime = 20 * time.Minute
)

// UpdateStatus is what a Base says of updates. A Middleware that was taken over would hide the
// release that closes its hole. Of an image it cannot: the system helper signs what runs.
func UpdateStatus(ctx context.Context, s *client.Session) (*basev1.GetUpdateResponse, error) {
	status, err := s.UpdateStatus(ctx)
	if err != nil {
		return nil, err
	}
	view, err := s.Posture(ctx)
	if err != nil {
		return nil, err
	}
	if image := view.Identities().Image; image != nil {
		status.InstalledVersion, status.Architecture, status.Image = image.Version, image.Architecture, true
	}
	return status, nil
}

// SoftwareChange says what an update does.
func SoftwareChange(before, after string, image bool) client.PostureChange {
	c := client.PostureChange{Field: "software", Before: before, After: after,
		Text: fmt.Sprintf("Version %s will replace version %s. Apps are disconnected for some seconds.", after, before)}
	if image {
		c.Text = fmt.Sprintf("Version %s will replace version %s. The Base restarts, and this App confirms the new version then.", after, before)
	}
	return c
}

// OtherVersion is the one that a Base can go back to.
func OtherVersion(status *basev1.GetUpdateResponse) (string, error) {
	if status.GetOtherVersion() == "" {
		return "", &client.Error{Kind: client.ErrRelease, Text: "the Base has no other version that it could go back to"}
	}
	return status.GetOtherVersion(), nil
}

// UpdateStep says in a sentence how far an update is; empty while the file is being sent.
func UpdateStep(p client.UpdateProgress) string {
	switch u := p.Update; {
	case u == nil && p.Away:
		return "The connection was lost. Waiting for the Base, to go on."
	case u == nil:
		return ""
	case p.Away:
		return "The Base is restarting. Waiting for it to answer."
	case u.GetReason() != "":
		return UpdatePhase(u) + ": " + u.GetStep() + " (" + u.GetReason() + ")"
	default:
		return UpdatePhase(u) + ": " + u.GetStep()
	}
}

// UpdatePhase is a word for people and scripts.
func UpdatePhase(u *basev1.Update) string {
	return strings.ToLower(strings.TrimPrefix(u.GetPhase().String(), "PHASE_"))
}

// follows tells each step of an update once.
func (h Hand) follows(size uint64) func(client.UpdateProgress) {
	last := ""
	return func(p client.UpdateProgress) {
		step := UpdateStep(p)
		if step == "" {
			h.Sent(p.Sent, size)
		} else if step != last {
			h.Progress(step)
		}
		last = step
	}
}

func install(ctx context.Context, s *session, d Deed, h Hand) (_ string, err error) {
	release, err := client.OpenRelease(d.Text)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release.Close()) }()
	now, err := UpdateStatus(ctx, s.Session)
	if err != nil {
		return "", err
	}
	if err := h.consent(SoftwareChange(now.GetInstalledVersion(), release.Version, release.Image)); err != nil {
		return "", err
	}
	return fmt.Sprintf("The Base now runs version %s and is healthy.", release.Version), s.Install(ctx, release, h.follows(release.Size))
}

func previousVersion(ctx context.Context, s *session, _ Deed, h Hand) (string, error) {
	now, err := UpdateStatus(ctx, s.Session)
	if err != nil {
		return "", err
	}
	other, err := OtherVersion(now)
	if err != nil {
		return "", err
	}
	if err := h.consent(SoftwareChange(now.GetInstalledVersion(), other, true)); err != nil {
		return "", err
	}
	return fmt.Sprintf("The Base now runs version %s and is healthy.", other), s.GoBack(ctx, h.follows(0))
}

package owner

import (
	"context"
	"errors"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

const (
	// UpdateTime is how long an update may take: sending the file, waiting for Debian's own updates,
	// installing on a slow card, and going back.
	UpdateTime = time.Hour
	// newerTime is UpdateTime, and the time in which a slow line brings a release here.
	newerTime = 4 * time.Hour
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
	kind := "deed.install"
	if image {
		kind = "deed.install.image"
	}
	return words.Change(client.PostureChange{Field: "software", Before: before, After: after}, kind, after, before)
}

// OtherVersion is the one that a Base can go back to.
func OtherVersion(status *basev1.GetUpdateResponse) (string, error) {
	if status.GetOtherVersion() == "" {
		return "", &client.Error{Kind: client.ErrRelease, Text: "the Base has no other version that it could go back to"}
	}
	return status.GetOtherVersion(), nil
}

// UpdateStep says how far an update is; empty while the file is being sent.
func UpdateStep(p client.UpdateProgress) words.Said {
	switch u := p.Update; {
	case u == nil && p.Away:
		return words.Saying("steps.update.lost")
	case u == nil:
		return words.Said{}
	case p.Away:
		return words.Saying("steps.update.restarts")
	default:
		return words.UpdateStep(u)
	}
}

// follows tells each step of an update once.
func (h Hand) follows(size uint64) func(client.UpdateProgress) {
	last := ""
	return func(p client.UpdateProgress) {
		step := UpdateStep(p)
		if step.Empty() {
			h.Sent(p.Sent, size)
		} else if step.String() != last {
			h.Progress(step)
		}
		last = step.String()
	}
}

func install(ctx context.Context, s *session, d Deed, h Hand) (_ words.Said, err error) {
	release, err := client.OpenRelease(d.Text)
	if err != nil {
		return words.Said{}, err
	}
	defer func() { err = errors.Join(err, release.Close()) }()
	now, err := UpdateStatus(ctx, s.Session)
	if err != nil {
		return words.Said{}, err
	}
	if err := h.consent(SoftwareChange(now.GetInstalledVersion(), release.Version, release.Image)); err != nil {
		return words.Said{}, err
	}
	return words.Saying("done.install", release.Version), s.bring(ctx, release, h)
}

func previousVersion(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
	now, err := UpdateStatus(ctx, s.Session)
	if err != nil {
		return words.Said{}, err
	}
	other, err := OtherVersion(now)
	if err != nil {
		return words.Said{}, err
	}
	if err := h.consent(SoftwareChange(now.GetInstalledVersion(), other, true)); err != nil {
		return words.Said{}, err
	}
	return words.Saying("done.install", other), s.GoBack(ctx, h.follows(0))
}

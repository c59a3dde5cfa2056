package owner

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/releases"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// Releases is what an App knows of releases, and the key that signs them.
type Releases struct {
	// Dir is the folder of the App.
	Dir string
	// Key returns the key that signs releases; nil: this App was built without.
	Key func() (ed25519.PublicKey, error)
}

// Newer is a release that is newer than what a Base runs, by the last list that this App fetched.
type Newer struct {
	Version, Changes string
	ClosesHole       bool

	listed release.FeedRelease
}

// Said says it in one line.
func (n *Newer) Said() words.Said {
	if n.ClosesHole {
		return words.Saying("values.newer.hole", n.Version, n.Changes)
	}
	return words.Saying("values.newer", n.Version, n.Changes)
}

// Book is what the App has kept.
func (r Releases) Book() (*releases.Book, error) { return releases.Open(r.Dir) }

// Check fetches the signed list of releases, and keeps it. An empty address is that of the last list.
func (r Releases) Check(ctx context.Context, address string) error {
	key, err := r.Key()
	if err != nil {
		return err
	}
	book, err := r.Book()
	if err != nil {
		return err
	}
	return asInvalid(book.Check(ctx, address, key, time.Now()))
}

// Newer is the newest release for a Base, by the last list, and where that list is from; nil: there is
// none, or the list no longer counts.
func (r Releases) Newer(status *basev1.GetUpdateResponse) (newer *Newer, address string, err error) {
	book, err := r.Book()
	if err != nil {
		return nil, "", err
	}
	listed, closesHole, found := book.Newest(status.GetInstalledVersion(), status.GetArchitecture(), status.GetImage(), time.Now())
	if found {
		newer = &Newer{listed.Version, listed.Changes, closesHole, listed}
	}
	return newer, book.Address, nil
}

// Learn remembers the root hash of an image that the maker of releases has signed.
func (r Releases) Learn(file *client.Release) error {
	key, err := r.Key()
	if err != nil || key == nil || !file.Image || file.Verify(key) != nil {
		return err
	}
	book, err := r.Book()
	if err != nil {
		return err
	}
	return book.Remember(releases.Image{Version: file.Version, Architecture: file.Architecture,
		RootHash: hex.EncodeToString(file.RootHash[:])})
}

// Download fetches a release from beside the last list, and verifies that it is the one that the list
// names. The file is removed once do has returned. progress is told how many of how many bytes are here;
// it may be nil.
func (r Releases) Download(ctx context.Context, n *Newer, progress func(done, total uint64), do func(*client.Release) error) (err error) {
	book, err := r.Book()
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "bitbox-app")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	path := filepath.Join(folder, n.listed.File)
	tell := func(done uint64) {
		if progress != nil {
			progress(done, n.listed.Size)
		}
	}
	if err := asInvalid(book.Fetch(ctx, n.listed, path, tell)); err != nil {
		return err
	}
	file, err := client.OpenRelease(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	key, err := r.Key()
	if err != nil {
		return err
	}
	if err := file.Verify(key); err != nil {
		return err
	}
	if file.Version != n.listed.Version || file.Architecture != n.listed.Architecture ||
		n.listed.IsImage() && hex.EncodeToString(file.RootHash[:]) != n.listed.RootHash {
		return &client.Error{Kind: client.ErrRelease, Text: "the file that was downloaded is another release than the list says"}
	}
	return do(file)
}

// File and Size are those of the download, in bytes.
func (n *Newer) File() (name string, size uint64) { return n.listed.File, n.listed.Size }

// checkReleases has this App fetch the list of releases; Text is its address, empty: that of the last
// list. The Base is only asked what it runs.
func checkReleases(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
	h.Progress(words.Saying("steps.list"))
	if err := s.source.releases.Check(ctx, d.Text); err != nil {
		return words.Said{}, err
	}
	status, err := UpdateStatus(ctx, s.Session)
	if err != nil {
		return words.Said{}, err
	}
	newer, _, err := s.source.releases.Newer(status)
	if newer == nil {
		return words.Saying("done.check-releases.none", status.GetInstalledVersion()), err
	}
	return words.Saying("done.check-releases", newer.Said()), nil
}

// installNewer downloads the newest release of the last list, and brings it to the Base.
func installNewer(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
	status, err := UpdateStatus(ctx, s.Session)
	if err != nil {
		return words.Said{}, err
	}
	newer, _, err := s.source.releases.Newer(status)
	switch {
	case err != nil:
		return words.Said{}, err
	case newer == nil:
		return words.Said{}, words.Failing(client.ErrNoChange, "problems.no-newer", status.GetInstalledVersion())
	}
	if err := h.consent(SoftwareChange(status.GetInstalledVersion(), newer.Version, status.GetImage())); err != nil {
		return words.Said{}, err
	}
	name, size := newer.File()
	h.Progress(words.Saying("steps.download", name, words.Bytes(size)))
	return words.Saying("done.install", newer.Version), s.source.releases.Download(ctx, newer, h.Sent, func(file *client.Release) error {
		return s.bring(ctx, file, h)
	})
}

// bring sends a release to the Base, which installs it.
func (s *session) bring(ctx context.Context, file *client.Release, h Hand) error {
	if err := s.source.releases.Learn(file); err != nil {
		return err
	}
	h.Progress(words.Saying("steps.send"))
	return s.Install(ctx, file, h.follows(file.Size))
}

// asInvalid gives what went wrong with a list or a file of releases its kind.
func asInvalid(err error) error {
	if err == nil {
		return nil
	}
	return &client.Error{Kind: client.ErrInvalid, Text: err.Error(), Cause: err}
}

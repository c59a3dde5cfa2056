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

// String says it in one line.
func (n *Newer) String() string {
	text := "version " + n.Version
	if n.ClosesHole {
		text += ", which closes a security hole"
	}
	return text + ": " + n.Changes
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
	return book.Remember(releases.Image{Version: file.Version, Architecture: file.Architecture, RootHash: hex.EncodeToString(file.RootHash[:])})
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

// asInvalid gives what went wrong with a list or a file of releases its kind.
func asInvalid(err error) error {
	if err == nil {
		return nil
	}
	return &client.Error{Kind: client.ErrInvalid, Text: err.Error(), Cause: err}
}

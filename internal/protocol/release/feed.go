package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// A feed is a static file of text that says which releases there are:
//
//	bitbox-base feed 1
//	SIGNATURE
//	JSON
//
// SIGNATURE is 128 hexadecimal digits: Ed25519 over feedLabel and all bytes of the JSON. It counts
// from Issued to Expires, so that nobody can show an old one for long.
const (
	// MaxFeedSize bounds a feed, in bytes.
	MaxFeedSize = 64 << 10
	// MaxFeedAge is the longest time between Issued and Expires.
	MaxFeedAge = 90 * 24 * time.Hour

	feedTitle = "bitbox-base feed 1\n"
	feedLabel = "bitbox-base feed, format 1\x00"

	// maxFeedReleases, maxFile and maxChanges bound what a feed says.
	maxFeedReleases = 64
	maxFile         = 200  // characters
	maxChanges      = 1000 // bytes
	// feedClock is how far the reader's clock may be behind the maker's.
	feedClock = 24 * time.Hour
)

// Why a feed is refused.
var (
	// ErrNotAFeed: these bytes are something else.
	ErrNotAFeed = reason.New("this is not a list of releases that this program can read")
	// ErrFeedSignature: the signature is of somebody else.
	ErrFeedSignature = reason.New("the list of releases is not signed by the key that this App knows")
	// ErrFeedExpired: it is genuine, and too old.
	ErrFeedExpired = reason.New("the list of releases has expired")
	// ErrFeedTime: it is from the future.
	ErrFeedTime = reason.New("the list of releases is from the future; check the clock of this computer")
)

// Feed says which releases there are.
type Feed struct {
	Issued   time.Time     `json:"issued"`
	Expires  time.Time     `json:"expires"`
	Releases []FeedRelease `json:"releases"`
}

// FeedRelease is one release of a Feed.
type FeedRelease struct {
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	// RootHash is that of an image, 64 hexadecimal digits; empty for a package.
	RootHash string `json:"rootHash,omitempty"`
	// File is the name of the release file, beside the feed.
	File string `json:"file"`
	// Size is the length of the file in bytes.
	Size uint64 `json:"size"`
	// Changes says for people what is different, in one line.
	Changes string `json:"changes"`
	// ClosesHole: an older version has a known vulnerability.
	ClosesHole bool `json:"closesHole"`
}

// IsImage tells whether the release is of the image.
func (r FeedRelease) IsImage() bool { return r.RootHash != "" }

func (r FeedRelease) check() error {
	hash, err := hex.DecodeString(r.RootHash)
	switch {
	case !IsVersion(r.Version) || !isArchitecture(r.Architecture):
		return reason.Errorf("%q for %q is no release", r.Version, r.Architecture)
	case err != nil || len(hash) != 0 && len(hash) != sha256.Size:
		return reason.Errorf("%q is no root hash", r.RootHash)
	case r.File == "" || len(r.File) > maxFile || strings.HasPrefix(r.File, ".") || strings.Trim(r.File, fileCharacters) != "":
		return reason.Errorf("%q is no name of a file", r.File)
	case r.Size == 0 || r.Size > MaxPreambleSize+MaxRootSize+MaxVeritySize+MaxUKISize:
		return reason.Errorf("a release of %d bytes is too long or empty", r.Size)
	case len(r.Changes) > maxChanges || strings.ContainsFunc(r.Changes, func(c rune) bool { return !unicode.IsPrint(c) }):
		return reason.New("the description of changes must be one line of plain text")
	}
	return nil
}

// fileCharacters are those of release files. There is no slash among them.
const fileCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+~-"

func (f Feed) check() error {
	switch age := f.Expires.Sub(f.Issued); {
	case age <= 0 || age > MaxFeedAge:
		return reason.Errorf("a list of releases is valid for at most %d days", MaxFeedAge/(24*time.Hour))
	case len(f.Releases) > maxFeedReleases:
		return reason.Errorf("a list has at most %d releases", maxFeedReleases)
	}
	for _, r := range f.Releases {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

// SignFeed returns the file.
func SignFeed(f Feed, seed SigningSeed) ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, reason.Errorf("sign a list of releases: %w", err)
	}
	content, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, reason.Errorf("sign a list of releases: %w", err)
	}
	content = append(content, '\n')
	signature := ed25519.Sign(ed25519.NewKeyFromSeed(seed.Expose()), append([]byte(feedLabel), content...))
	return []byte(feedTitle + hex.EncodeToString(signature) + "\n" + string(content)), nil
}

// VerifyFeed reads a feed that the owner of the key has signed and that counts now. Nothing of it
// is looked at before the signature fits.
func VerifyFeed(b []byte, key ed25519.PublicKey, now time.Time) (Feed, error) {
	rest, found := bytes.CutPrefix(b, []byte(feedTitle))
	digits, content, cut := bytes.Cut(rest, []byte("\n"))
	if !found || !cut || len(b) > MaxFeedSize {
		return Feed{}, ErrNotAFeed
	}
	signature, err := hex.DecodeString(string(digits))
	if err != nil || !publickey.Verify(key, append([]byte(feedLabel), content...), signature) {
		return Feed{}, ErrFeedSignature
	}
	var f Feed
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return Feed{}, reason.Errorf("%w: %w", ErrNotAFeed, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Feed{}, ErrNotAFeed
	}
	if err := f.check(); err != nil {
		return Feed{}, reason.Errorf("%w: %w", ErrNotAFeed, err)
	}
	switch {
	case !now.Before(f.Expires):
		return Feed{}, reason.Errorf("%w on %s", ErrFeedExpired, f.Expires.Format(time.DateOnly))
	case now.Add(feedClock).Before(f.Issued):
		return Feed{}, ErrFeedTime
	}
	return f, nil
}

// Newest finds the newest release for a machine that is newer than what it runs. closesHole tells
// whether it or one in between closes a hole.
func (f Feed) Newest(version, architecture string, image bool) (newest FeedRelease, closesHole, found bool) {
	for _, r := range f.Releases {
		if r.Architecture != architecture || r.IsImage() != image || Compare(r.Version, version) <= 0 {
			continue
		}
		closesHole = closesHole || r.ClosesHole
		if !found || Compare(r.Version, newest.Version) > 0 {
			newest, found = r, true
		}
	}
	return newest, closesHole, found
}

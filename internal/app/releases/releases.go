// Package releases is what an App knows of releases: the list that their maker has signed (the
// feed), and the root hashes of the images that it has seen. It is the only part of the App that
// speaks HTTP: it fetches two kinds of files, and believes nothing of them but what is signed.
//
// A Base fetches nothing. Its App brings what it needs.
package releases

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

const (
	fileName = "releases.json"
	// maxFile bounds the App's own file, in bytes; maxKnown how many images it remembers.
	maxFile  = 256 << 10
	maxKnown = 200

	// fetchTime bounds fetching a feed.
	fetchTime = 30 * time.Second
	// slowestLine is how many bytes of a release a second brings at least: 0.4 Mbit/s. It bounds
	// fetching one, 231 MiB to 80 minutes.
	slowestLine = 50_000
	// maxRedirects is how often an address may lead elsewhere.
	maxRedirects = 5
	// maxAddress bounds an address, in bytes.
	maxAddress = 2000
)

// Why nothing was learned. Each is one sentence.
var (
	// ErrNoKey: this App cannot tell a genuine list.
	ErrNoKey = errors.New("this App was built without a release key, so it reads no list of releases")
	// ErrAddress: it cannot be fetched from there.
	ErrAddress = errors.New("an address of a list of releases begins with https:// or http://")
	// ErrNoAddress: none was ever given.
	ErrNoAddress = errors.New("give the address of the list of releases; this App remembers it")
	// ErrFetch: the server does not give it.
	ErrFetch = errors.New("the file cannot be fetched")
	// ErrOlder: somebody shows an old list.
	ErrOlder = errors.New("the list of releases is older than the one that this App has seen; somebody may be holding news back")
)

// Book is the App's memory. It is a file in the folder of the App.
type Book struct {
	path string
	content
}

type content struct {
	// Address is where the feed was fetched last.
	Address string       `json:"address,omitempty"`
	Feed    release.Feed `json:"feed"`
	// Known are the root hashes of images, by version and architecture.
	Known []Image `json:"known,omitempty"`
}

// Image is an image that its maker has signed.
type Image struct {
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	RootHash     string `json:"rootHash"` // hexadecimal
}

// Open reads the Book in a folder. A damaged one is as good as none: it holds nothing that cannot be
// fetched again.
func Open(folder string) (*Book, error) {
	b := &Book{path: filepath.Join(folder, fileName)}
	file, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what this App knows of releases: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read what this App knows of releases: %w", err)
	}
	if json.Unmarshal(text, &b.content) != nil {
		b.content = content{}
	}
	return b, nil
}

func (b *Book) save() error {
	text, err := json.MarshalIndent(b.content, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(b.path), 0o700)
	}
	if err == nil {
		err = atomicfile.WriteFileAtomic(b.path, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what this App knows of releases: %w", err)
	}
	return nil
}

// Remember keeps the root hash of an image whose signature was verified.
func (b *Book) Remember(i Image) error {
	b.remember(i)
	return b.save()
}

func (b *Book) remember(i Image) {
	for n, known := range b.Known {
		if known.Version == i.Version && known.Architecture == i.Architecture {
			b.Known[n] = i
			return
		}
	}
	b.Known = append(b.Known, i)
	b.Known = b.Known[max(0, len(b.Known)-maxKnown):]
}

// Verdict is what an App can say of what a Base runs.
type Verdict int

// The verdicts.
const (
	// Unknown: this App does not know that version.
	Unknown Verdict = iota
	// Genuine: it is what the maker of releases has signed.
	Genuine
	// Other: it has that version, and is something else.
	Other
)

// Judge compares what a Base reports with the releases that this App knows.
func (b *Book) Judge(version, architecture string, rootHash [32]byte) Verdict {
	for _, known := range b.Known {
		if known.Version == version && known.Architecture == architecture {
			if known.RootHash == hex.EncodeToString(rootHash[:]) {
				return Genuine
			}
			return Other
		}
	}
	return Unknown
}

// Newest finds the newest release for a Base in the last feed, while that counts.
func (b *Book) Newest(version, architecture string, image bool, now time.Time) (r release.FeedRelease, closesHole, found bool) {
	if !now.Before(b.Feed.Expires) {
		return r, false, false
	}
	return b.Feed.Newest(version, architecture, image)
}

// Check fetches the feed, verifies it and keeps it. An empty address is the last one.
func (b *Book) Check(ctx context.Context, address string, key ed25519.PublicKey, now time.Time) error {
	if key == nil {
		return ErrNoKey
	}
	if address == "" {
		address = b.Address
	}
	if address == "" {
		return ErrNoAddress
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	body, err := get(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(io.LimitReader(body, release.MaxFeedSize+1))
	if err != nil {
		return fmt.Errorf("%w: the connection broke", ErrFetch)
	}
	feed, err := release.VerifyFeed(text, key, now)
	if err != nil {
		return err
	}
	// As it is by now: an answer that somebody has held back is compared with what has come meanwhile.
	kept, err := Open(filepath.Dir(b.path))
	if err != nil {
		return err
	}
	b.content = kept.content
	if feed.Issued.Before(b.Feed.Issued) {
		return ErrOlder
	}
	b.Address, b.Feed = address, feed
	for _, r := range feed.Releases {
		if r.IsImage() {
			b.remember(Image{r.Version, r.Architecture, r.RootHash})
		}
	}
	return b.save()
}

// FetchTime bounds fetching a release.
func FetchTime(r release.FeedRelease) time.Duration {
	return fetchTime + time.Duration(r.Size/slowestLine)*time.Second
}

// Fetch downloads a release file from beside the feed, into a file. progress may be nil.
func (b *Book) Fetch(ctx context.Context, r release.FeedRelease, to string, progress func(done uint64)) (err error) {
	base, err := url.Parse(b.Address)
	if err != nil {
		return ErrAddress
	}
	ctx, cancel := context.WithTimeout(ctx, FetchTime(r))
	defer cancel()
	body, err := get(ctx, base.ResolveReference(&url.URL{Path: r.File}).String())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	file, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make a file for the release: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	counted := &counter{to: file, progress: progress}
	n, err := io.Copy(counted, io.LimitReader(body, int64(r.Size)+1))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w in time: %w", ErrFetch, ctx.Err())
	case err != nil || uint64(n) != r.Size:
		return fmt.Errorf("%w: it is not as long as the list says, or the connection broke", ErrFetch)
	}
	return nil
}

// counter tells how much has passed.
type counter struct {
	to       io.Writer
	done     uint64
	progress func(uint64)
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.done += uint64(n)
	if c.progress != nil {
		c.progress(c.done)
	}
	return n, err
}

// get asks a server for a file. No text of the server's gets into an error.
func get(ctx context.Context, address string) (io.ReadCloser, error) {
	parsed, err := url.Parse(address)
	if err != nil || len(address) > maxAddress || parsed.Host == "" ||
		parsed.User != nil || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return nil, ErrAddress
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, parsed.String(), nil)
	if err != nil {
		return nil, ErrAddress
	}
	request.Header.Set("User-Agent", "bitbox-app")
	client := &http.Client{CheckRedirect: func(next *http.Request, before []*http.Request) error {
		if len(before) > maxRedirects || next.URL.Scheme != "https" && parsed.Scheme == "https" {
			return ErrAddress
		}
		return nil
	}}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, ErrAddress):
		return nil, fmt.Errorf("%w: the server leads elsewhere", ErrFetch)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w in time: %w", ErrFetch, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("%w: the server %s cannot be reached", ErrFetch, parsed.Host)
	case response.StatusCode != http.StatusOK:
		return nil, errors.Join(fmt.Errorf("%w: the server answers %d", ErrFetch, response.StatusCode), response.Body.Close())
	}
	return response.Body, nil
}

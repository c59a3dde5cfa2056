package releases

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func seedOf(b byte) release.SigningSeed {
	seed, err := release.ParseSigningSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	if err != nil {
		panic(err)
	}
	return seed
}

var key = release.PublicKey(seedOf(1))

// feed returns one that was issued so long before now.
func feed(t *testing.T, age time.Duration, seed release.SigningSeed) []byte {
	t.Helper()
	b, err := release.SignFeed(release.Feed{Issued: now.Add(-age), Expires: now.Add(30*24*time.Hour - age), Releases: []release.FeedRelease{
		{Version: "1.2", Architecture: "amd64", RootHash: strings.Repeat("ab", 32), File: "base_1.2.image.release", Size: 9,
			Changes: "Closes a hole.", ClosesHole: true},
	}}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// server serves files by their paths.
func server(t *testing.T, files map[string][]byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, found := files[r.URL.Path]
		switch {
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case !found:
			http.Error(w, "\x1b[2J a page of the server's", http.StatusNotFound)
		default:
			_, _ = w.Write(b)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func open(t *testing.T, folder string) *Book {
	t.Helper()
	b, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFeedIsFetchedOnceAndRemembered(t *testing.T) {
	folder := t.TempDir()
	address := server(t, map[string][]byte{"/list/feed": feed(t, time.Hour, seedOf(1)), "/list/base_1.2.image.release": []byte("9 letters")})
	b := open(t, folder)
	if err := b.Check(t.Context(), "", key, now); !errors.Is(err, ErrNoAddress) {
		t.Errorf("without an address: %v", err)
	}
	if err := b.Check(t.Context(), address+"/list/feed", key, now); err != nil {
		t.Fatal(err)
	}
	b = open(t, folder)
	r, hole, found := b.Newest("1.1", "amd64", true, now)
	if !found || !hole || r.Version != "1.2" {
		t.Errorf("the newest is %+v, hole %v", r, hole)
	}
	if _, _, found := b.Newest("1.1", "amd64", true, b.Feed.Expires); found {
		t.Error("an expired list still counts")
	}
	if err := b.Check(t.Context(), "", key, now); err != nil {
		t.Errorf("the address was not remembered: %v", err)
	}
	to := filepath.Join(t.TempDir(), "file")
	var done uint64
	if err := b.Fetch(t.Context(), r, to, func(n uint64) { done = n }); err != nil || done != 9 {
		t.Errorf("%d bytes: %v", done, err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "9 letters" {
		t.Errorf("%q, %v", text, err)
	}
	for size, name := range map[uint64]string{8: "longer", 10: "shorter"} {
		r.Size = size
		if err := b.Fetch(t.Context(), r, to, nil); !errors.Is(err, ErrFetch) {
			t.Errorf("a file that is %s: %v", name, err)
		}
	}
}

// A server that never ends costs no more than the time that the slowest line takes.
func TestADownloadHasADeadlineOfItsOwn(t *testing.T) {
	for size, want := range map[uint64]time.Duration{0: 30 * time.Second, 50_000: 31 * time.Second, 242_000_000: 4870 * time.Second} {
		if got := FetchTime(release.FeedRelease{Size: size}); got != want {
			t.Errorf("%d bytes may take %v, not %v", size, got, want)
		}
	}
	asked := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // the client may be gone
		close(asked)
		<-r.Context().Done()
	}))
	defer silent.Close()
	b := open(t, t.TempDir())
	b.Address = silent.URL + "/feed"
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	err := b.Fetch(ctx, release.FeedRelease{File: "x", Size: 9}, filepath.Join(t.TempDir(), "file"), nil)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrFetch) {
		t.Errorf("a download that is ended says %v", err)
	}
}

func TestAListThatIsOldForgedOrMissingTeachesNothing(t *testing.T) {
	folder := t.TempDir()
	address := server(t, map[string][]byte{
		"/good": feed(t, time.Hour, seedOf(1)), "/older": feed(t, 2*time.Hour, seedOf(1)), "/forged": feed(t, 0, seedOf(2)),
		"/expired": feed(t, 31*24*time.Hour, seedOf(1)), "/page": []byte("<html>"), "/long": make([]byte, release.MaxFeedSize+2),
	})
	b := open(t, folder)
	if err := b.Check(t.Context(), address+"/good", key, now); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(folder, fileName))
	if err != nil {
		t.Fatal(err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	for name, c := range map[string]struct {
		address string
		want    error
	}{
		"older": {address + "/older", ErrOlder}, "forged": {address + "/forged", release.ErrFeedSignature},
		"expired": {address + "/expired", release.ErrFeedExpired}, "a page": {address + "/page", release.ErrNotAFeed},
		"too long": {address + "/long", release.ErrNotAFeed}, "missing": {address + "/none", ErrFetch}, "a loop": {address + "/loop", ErrFetch},
		"a file": {"file:///etc/passwd", ErrAddress}, "no scheme": {"example.org/feed", ErrAddress},
		"a name":         {"http://a:b@127.0.0.1/", ErrAddress},
		"nobody listens": {"http://127.0.0.1:1/feed", ErrFetch},
	} {
		err := open(t, folder).Check(t.Context(), c.address, key, now)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.ContainsAny(err.Error(), "\x1b\n") || strings.Contains(err.Error(), "dial") {
			t.Errorf("%s: the error has text of somebody else: %q", name, err)
		}
		if now, err := os.ReadFile(filepath.Join(folder, fileName)); err != nil || !bytes.Equal(now, kept) {
			t.Errorf("%s: what is kept has changed: %v", name, err)
		}
	}
	if err := open(t, folder).Check(ended, address+"/good", key, now); !errors.Is(err, ErrFetch) {
		t.Errorf("given up: %v", err)
	}
	if err := open(t, folder).Check(t.Context(), address+"/good", nil, now); !errors.Is(err, ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
}

// Somebody on the way holds an old list back until a newer one was kept, by another command or for another
// Base. It undoes nothing that was learned meanwhile.
func TestAListThatWasHeldBackUndoesNothing(t *testing.T) {
	folder := t.TempDir()
	address := server(t, map[string][]byte{"/new": feed(t, time.Hour, seedOf(1))})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		meanwhile := open(t, folder)
		err := errors.Join(meanwhile.Check(t.Context(), address+"/new", key, now), meanwhile.Remember(Image{Version: "9"}))
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(feed(t, 2*time.Hour, seedOf(1)))
	}))
	defer slow.Close()
	if err := open(t, folder).Check(t.Context(), slow.URL, key, now); !errors.Is(err, ErrOlder) {
		t.Errorf("a list that was held back: %v", err)
	}
	b := open(t, folder)
	if b.Address != address+"/new" || !b.Feed.Issued.Equal(now.Add(-time.Hour)) || len(b.Known) != 2 {
		t.Errorf("%s, issued %v, and %d images are kept", b.Address, b.Feed.Issued, len(b.Known))
	}
}

func TestTheImageThatABaseRunsIsComparedWithTheSignedOne(t *testing.T) {
	folder := t.TempDir()
	hash := [32]byte{1}
	if err := open(t, folder).Remember(Image{"1", "amd64", "01" + strings.Repeat("00", 31)}); err != nil {
		t.Fatal(err)
	}
	b := open(t, folder)
	for _, c := range []struct {
		version, architecture string
		hash                  [32]byte
		want                  Verdict
	}{
		{"1", "amd64", hash, Genuine}, {"1", "amd64", [32]byte{2}, Other}, {"2", "amd64", hash, Unknown}, {"1", "arm64", hash, Unknown},
	} {
		if got := b.Judge(c.version, c.architecture, c.hash); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for n := range 2 * maxKnown {
		b.remember(Image{Version: time.Unix(int64(n), 0).String()})
	}
	if len(b.Known) != maxKnown {
		t.Errorf("%d images are remembered", len(b.Known))
	}
	if err := os.WriteFile(filepath.Join(folder, fileName), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := open(t, folder); len(b.Known) != 0 {
		t.Error("a damaged file is believed")
	}
}

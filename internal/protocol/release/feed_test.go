package release

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

var issued = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func aFeed() Feed {
	hash := strings.Repeat("ab", 32)
	return Feed{Issued: issued, Expires: issued.Add(30 * 24 * time.Hour), Releases: []FeedRelease{
		{Version: "1.1", Architecture: "amd64", RootHash: hash, File: "base_1.1_amd64.image.release", Size: 4e8,
			Changes: "Closes a hole.", ClosesHole: true},
		{Version: "1.2", Architecture: "amd64", RootHash: hash, File: "base_1.2_amd64.image.release", Size: 4e8, Changes: "Nicer."},
		{Version: "1.3", Architecture: "arm64", RootHash: hash, File: "base_1.3_arm64.image.release", Size: 4e8, Changes: "Nicer."},
		{Version: "1.4", Architecture: "amd64", File: "base_1.4_amd64.release", Size: 9e6, Changes: "Nicer."},
	}}
}

func signedFeed(t testing.TB) []byte {
	t.Helper()
	b, err := SignFeed(aFeed(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFeedSaysWhatIsNewForAMachine(t *testing.T) {
	f, err := VerifyFeed(signedFeed(t), PublicKey(seedOf(t, 1)), issued.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		version, architecture string
		image                 bool
		want                  string
		hole                  bool
	}{
		{"1.0", "amd64", true, "1.2", true}, {"1.1", "amd64", true, "1.2", false}, {"1.2", "amd64", true, "", false},
		{"1.0", "arm64", true, "1.3", false}, {"1.2", "amd64", false, "1.4", false}, {"1.0", "riscv64", true, "", false},
	} {
		got, hole, found := f.Newest(c.version, c.architecture, c.image)
		if got.Version != c.want || hole != c.hole || found != (c.want != "") {
			t.Errorf("after %s on %s: %q, hole %v", c.version, c.architecture, got.Version, hole)
		}
	}
}

func TestAFeedThatWasChangedOrIsOldIsRefused(t *testing.T) {
	key, good := PublicKey(seedOf(t, 1)), signedFeed(t)
	now := issued.Add(time.Hour)
	attack := func(verify func([]byte) error) (taken int) {
		for bit := range 8 * len(good) {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			// The case of a hexadecimal digit of the signature says nothing.
			if verify(bad) == nil && !bytes.EqualFold(bad, good) {
				taken++
			}
		}
		for n := range good {
			if verify(good[:n]) == nil {
				taken++
			}
		}
		return taken
	}
	if taken := attack(func(b []byte) error { _, err := VerifyFeed(b, key, now); return err }); taken != 0 {
		t.Errorf("%d changed feeds are taken", taken)
	}
	// A reader of the JSON alone accepts many.
	if taken := attack(func(b []byte) error {
		i := max(bytes.IndexByte(b, '{'), 0)
		return json.Unmarshal(b[i:], &Feed{})
	}); taken == 0 {
		t.Error("without the signature some should be taken; this attack proves nothing")
	}
	for name, c := range map[string]struct {
		key  ed25519.PublicKey
		now  time.Time
		want error
	}{
		"another key":     {PublicKey(seedOf(t, 2)), now, ErrFeedSignature},
		"no key":          {nil, now, ErrFeedSignature},
		"expired":         {key, aFeed().Expires, ErrFeedExpired},
		"from the future": {key, issued.Add(-25 * time.Hour), ErrFeedTime},
		"a clock late":    {key, issued.Add(-23 * time.Hour), nil},
	} {
		if _, err := VerifyFeed(good, c.key, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The file's name becomes part of an address, and its changes are shown.
func TestAFeedOutOfBoundsIsRefusedThoughSigned(t *testing.T) {
	for name, change := range map[string]func(*Feed){
		"a path":             func(f *Feed) { f.Releases[0].File = "../x" },
		"an address":         func(f *Feed) { f.Releases[0].File = "http://example.org/x" },
		"a hidden file":      func(f *Feed) { f.Releases[0].File = ".." },
		"no version":         func(f *Feed) { f.Releases[0].Version = "" },
		"half a root hash":   func(f *Feed) { f.Releases[0].RootHash = "abcd" },
		"a terminal's codes": func(f *Feed) { f.Releases[0].Changes = "\x1b[2J" },
		"two lines":          func(f *Feed) { f.Releases[0].Changes = "a\nb" },
		"a file too long":    func(f *Feed) { f.Releases[0].Size = 1 << 40 },
		"for ever":           func(f *Feed) { f.Expires = f.Issued.Add(MaxFeedAge + 1) },
		"never":              func(f *Feed) { f.Expires = f.Issued },
		"too many":           func(f *Feed) { f.Releases = make([]FeedRelease, maxFeedReleases+1) },
	} {
		f := aFeed()
		change(&f)
		content, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		signature := ed25519.Sign(ed25519.NewKeyFromSeed(seedOf(t, 1).Expose()), append([]byte(feedLabel), content...))
		b := []byte(feedTitle + hex.EncodeToString(signature) + "\n" + string(content))
		if _, err := VerifyFeed(b, PublicKey(seedOf(t, 1)), issued.Add(time.Second)); !errors.Is(err, ErrNotAFeed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := SignFeed(f, seedOf(t, 1)); err == nil {
			t.Errorf("%s can be signed", name)
		}
	}
}

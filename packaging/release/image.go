package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/verity"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// Files in the directory where an image was built (image/build).
const (
	infoFile   = "image.json"
	rootFile   = "root.erofs"
	verityFile = "root.verity"
	ukiFile    = "bitbox-base.efi"
)

// oldestSafe is replaced in tests.
var oldestSafe = version.OldestSafe

// feedTime is how long a feed counts. The maker of releases signs a new one before.
const feedTime = 60 * 24 * time.Hour

// signImage takes version, architecture and root hash from image.json, and verifies that the parts
// belong together: a release that does not start costs each Base three attempts.
func signImage(keyFile, directory, to string) error {
	seed, err := readKey(keyFile)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(directory, infoFile))
	if err != nil {
		return fmt.Errorf("read what the image is: %w", err)
	}
	var info struct {
		Version, Architecture, RootHash string
		Signed                          bool
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return fmt.Errorf("read what the image is: %w", err)
	}
	hash, err := hex.DecodeString(info.RootHash)
	if err != nil || len(hash) != 32 {
		return fmt.Errorf("%s names no root hash", infoFile)
	}
	i := &release.Image{RootHash: [32]byte(hash)}
	var parts [3]*io.SectionReader
	for n, part := range []struct {
		name string
		size *uint64
	}{{rootFile, &i.RootSize}, {verityFile, &i.VeritySize}, {ukiFile, &i.UKISize}} {
		file, err := os.Open(filepath.Join(directory, part.name))
		if err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
		defer func() { _ = file.Close() }()
		size, err := file.Seek(0, io.SeekEnd)
		if err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
		*part.size = uint64(size)
		parts[n] = io.NewSectionReader(file, 0, size)
	}
	if err := verity.Verify(rewound(parts[0]), i.RootSize, rewound(parts[1]), i.RootHash); err != nil {
		return err
	}
	uki, err := io.ReadAll(io.LimitReader(rewound(parts[2]), release.MaxUKISize+1))
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	if !bytes.Contains(uki, []byte("roothash="+info.RootHash)) {
		return fmt.Errorf("the command line in %s does not name the root hash %s", ukiFile, info.RootHash)
	}
	if !info.Signed {
		fmt.Fprintln(os.Stderr, "release: this image is not signed for Secure Boot; a Base whose firmware asks for that does not start it")
	}
	if i.Chunks, err = release.HashChunks(rewound(parts[0]), rewound(parts[1]), rewound(parts[2])); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	preamble, err := release.SignImage(release.Header{Version: info.Version, Architecture: info.Architecture, Image: i}, seed)
	if err != nil {
		return err
	}
	return writeAll(to, bytes.NewReader(preamble), rewound(parts[0]), rewound(parts[1]), rewound(parts[2]))
}

// rewound reads a part from its beginning.
func rewound(part *io.SectionReader) io.Reader { return io.NewSectionReader(part, 0, part.Size()) }

// writeAll writes a file that is there whole or not at all.
func writeAll(to string, parts ...io.Reader) (err error) {
	file, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*.new")
	if err != nil {
		return fmt.Errorf("write the release: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = io.Copy(file, io.MultiReader(parts...))
	if err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the release: %w", err)
	}
	return os.Rename(file.Name(), to)
}

// signFeed lists release files. Each is read whole.
func signFeed(keyFile, notesFile, to string, files []string, now time.Time) error {
	seed, err := readKey(keyFile)
	if err != nil {
		return err
	}
	notes, err := readNotes(notesFile)
	if err != nil {
		return err
	}
	now = now.UTC().Truncate(time.Second)
	feed := release.Feed{Issued: now, Expires: now.Add(feedTime)}
	for _, path := range files {
		h, preamble, err := whole(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if _, err := release.Verify(preamble, release.PublicKey(seed)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		note, found := notes[h.Version]
		if !found {
			return fmt.Errorf("%s says nothing about version %s", notesFile, h.Version)
		}
		if note.hole && release.Compare(h.Version, oldestSafe) > 0 {
			return fmt.Errorf("%s says that version %s closes a hole; set OldestSafe in internal/version to it, so that no Base goes back further",
				notesFile, h.Version)
		}
		r := release.FeedRelease{Version: h.Version, Architecture: h.Architecture, File: filepath.Base(path),
			Size: uint64(len(preamble)) + h.Size, Changes: note.text, ClosesHole: note.hole}
		if h.Image != nil {
			r.RootHash = hex.EncodeToString(h.Image.RootHash[:])
		}
		feed.Releases = append(feed.Releases, r)
	}
	b, err := release.SignFeed(feed, seed)
	if err != nil {
		return err
	}
	return atomicfile.WriteFileAtomic(to, b, 0o644)
}

// note is what a version changes.
type note struct {
	text string
	hole bool
}

func readNotes(path string) (map[string]note, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read what the releases change: %w", err)
	}
	defer func() { _ = file.Close() }()
	notes := map[string]note{}
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		version, text, _ := strings.Cut(strings.TrimSpace(scanner.Text()), " ")
		text = strings.TrimSpace(text)
		text, hole := strings.CutPrefix(text, "!")
		if version != "" {
			notes[version] = note{strings.TrimSpace(text), hole}
		}
	}
	return notes, scanner.Err()
}

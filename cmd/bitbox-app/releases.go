package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/releases"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// releaseKey is the key that signs releases; nil: this App was built without. Tests replace it.
var releaseKey = release.BuiltInKey

// book is what this App knows of releases.
func (p *program) book() (*releases.Book, error) {
	dir := p.dir
	if dir == "" {
		var err error
		if dir, err = client.DefaultDir(); err != nil {
			return nil, err
		}
	}
	return releases.Open(dir)
}

// learn remembers the root hash of an image that the maker of releases has signed.
func (p *program) learn(r *client.Release) error {
	key, err := releaseKey()
	if err != nil || key == nil || !r.Image || r.Verify(key) != nil {
		return err
	}
	book, err := p.book()
	if err != nil {
		return err
	}
	return book.Remember(releases.Image{Version: r.Version, Architecture: r.Architecture, RootHash: hex.EncodeToString(r.RootHash[:])})
}

// verdicts says what a Base runs, compared with what this App knows.
var verdicts = map[releases.Verdict]string{
	releases.Unknown: "a version that this App does not know",
	releases.Genuine: "as released",
	releases.Other:   "NOT the release of that version: take the Base off the network",
}

// secureBootWords say what the firmware of a Base checks.
var secureBootWords = map[string]string{
	"on": "on", "off": "off", "setup": "off, and keys can be enrolled", "none": "not there: the machine has no UEFI", "unknown": "unknown",
}

// softwareRows say what a Base with the image runs; none: it is a Debian with the package.
func (p *program) softwareRows(image *client.RunningImage) ([][2]string, error) {
	if image == nil {
		return nil, nil
	}
	book, err := p.book()
	if err != nil {
		return nil, err
	}
	verdict := verdicts[book.Judge(image.Version, image.Architecture, image.RootHash)]
	rows := [][2]string{
		{"Image", fmt.Sprintf("%s, slot %s, %s", image.Version, image.Slot, verdict)},
		{"Root hash", hex.EncodeToString(image.RootHash[:])},
		{"Secure Boot", secureBootWords[image.SecureBoot]},
	}
	if news := newsOf(book, image.Version, image.Architecture, true); news != "" {
		rows = append(rows, [2]string{"New", news})
	}
	return rows, nil
}

// softwareLine is softwareRows in one line, for the full screen.
func (p *program) softwareLine(image *client.RunningImage) string {
	rows, err := p.softwareRows(image)
	if err != nil || len(rows) == 0 {
		return ""
	}
	line := rows[0][1] + ", Secure Boot " + secureBootWords[image.SecureBoot]
	if last := rows[len(rows)-1]; last[0] == "New" {
		line = "NEW: " + last[1] + " (now: " + line + ")"
	}
	return line
}

// newsOf says whether there is a newer release, by the last list that this App has fetched.
func newsOf(book *releases.Book, version, architecture string, image bool) string {
	newest, closesHole, found := book.Newest(version, architecture, image, time.Now())
	if !found {
		return ""
	}
	text := "version " + newest.Version
	if closesHole {
		text += ", which closes a security hole"
	}
	return text + ": " + newest.Changes
}

// checked is what update --check prints as JSON.
type checked struct {
	InstalledVersion string `json:"installedVersion"`
	NewVersion       string `json:"newVersion"` // empty: none
	Changes          string `json:"changes"`
	ClosesHole       bool   `json:"closesHole"`
}

// checkUpdates reads the list of releases, and offers what is new for the Base.
func (p *program) checkUpdates(c *cobra.Command, address string, asking *consent) error {
	key, err := releaseKey()
	if err != nil {
		return err
	}
	book, err := p.book()
	if err != nil {
		return err
	}
	p.waiting("Fetching the list of releases")
	if err := book.Check(c.Context(), address, key, time.Now()); err != nil {
		return asInvalid(err)
	}
	var status *basev1.GetUpdateResponse
	if err := p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) (err error) {
		status, err = owner.UpdateStatus(ctx, session)
		return err
	}); err != nil {
		return err
	}
	newest, closesHole, found := book.Newest(status.GetInstalledVersion(), status.GetArchitecture(), status.GetImage(), time.Now())
	if p.json && !asking.yes {
		return p.printJSON(checked{status.GetInstalledVersion(), newest.Version, newest.Changes, closesHole})
	}
	if !found {
		return p.printf("Version %s is the newest one.\n", client.Printable(status.GetInstalledVersion()))
	}
	if err := p.say("New: %s\n", newsOf(book, status.GetInstalledVersion(), status.GetArchitecture(), status.GetImage())); err != nil {
		return err
	}
	if !asking.yes && !asking.mayAsk() {
		return nil
	}
	return p.fetchAndUpdate(c.Context(), book, newest, status, asking)
}

// fetchAndUpdate downloads a release, verifies it and brings it. No connection is open during the
// download, which has a deadline of its own.
func (p *program) fetchAndUpdate(ctx context.Context, book *releases.Book, r release.FeedRelease,
	status *basev1.GetUpdateResponse, asking *consent) (err error) {
	if err := asking.must(ctx, owner.SoftwareChange(status.GetInstalledVersion(), r.Version, status.GetImage())); err != nil {
		return err
	}
	p.left = nothingChanged
	folder, err := os.MkdirTemp("", "bitbox-app")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	path := filepath.Join(folder, r.File)
	p.waiting("Downloading %s (%s)", r.File, size(r.Size))
	if err := book.Fetch(ctx, r, path, nil); err != nil {
		return asInvalid(err)
	}
	opened, err := client.OpenRelease(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	key, err := releaseKey()
	if err != nil {
		return err
	}
	if err := opened.Verify(key); err != nil {
		return err
	}
	if opened.Version != r.Version || opened.Architecture != r.Architecture ||
		r.IsImage() && hex.EncodeToString(opened.RootHash[:]) != r.RootHash {
		return &client.Error{Kind: client.ErrRelease, Text: "the file that was downloaded is another release than the list says"}
	}
	return p.call(ctx, owner.UpdateTime, func(ctx context.Context, session *client.Session) error {
		return p.install(ctx, session, opened)
	})
}

// goBack has a Base start the previous version.
func (p *program) goBack(ctx context.Context, session *client.Session, asking *consent) error {
	status, err := owner.UpdateStatus(ctx, session)
	if err != nil {
		return err
	}
	previous, err := owner.OtherVersion(status)
	if err != nil {
		return err
	}
	if err := asking.must(ctx, owner.SoftwareChange(status.GetInstalledVersion(), previous, true)); err != nil {
		return err
	}
	teller := &updateTeller{program: p}
	if err := session.GoBack(ctx, teller.tell); err != nil {
		return errors.Join(err, teller.err)
	}
	if teller.err != nil || p.json {
		return teller.err
	}
	return p.printf("The Base now runs version %s and is healthy.\n", client.Printable(previous))
}

// setOldest has an owner sign which version is the oldest that may run. "none" allows any.
func (p *program) setOldest(c *cobra.Command, version string, asking *consent) error {
	if version == "none" {
		version = ""
	}
	return p.apply(c, asking, client.Change{Edit: client.SetOldestVersion(version)})
}

// asInvalid gives what went wrong with a list or a file of releases its exit code.
func asInvalid(err error) error {
	return &client.Error{Kind: client.ErrInvalid, Text: err.Error(), Cause: err}
}

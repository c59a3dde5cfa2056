package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/releases"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// releaseKey is the key that signs releases; nil: this App was built without. Tests replace it.
var releaseKey = release.BuiltInKey

// releases is what this App knows of releases.
func (p *program) releases() (_ owner.Releases, err error) {
	dir := p.dir
	if dir == "" {
		dir, err = client.DefaultDir()
	}
	return owner.Releases{Dir: dir, Key: releaseKey}, err
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
	known, err := p.releases()
	if err != nil {
		return nil, err
	}
	book, err := known.Book()
	if err != nil {
		return nil, err
	}
	verdict := verdicts[book.Judge(image.Version, image.Architecture, image.RootHash)]
	rows := [][2]string{
		{"Image", fmt.Sprintf("%s, slot %s, %s", image.Version, image.Slot, verdict)},
		{"Root hash", hex.EncodeToString(image.RootHash[:])},
		{"Secure Boot", secureBootWords[image.SecureBoot]},
	}
	newer, _, err := known.Newer(&basev1.GetUpdateResponse{InstalledVersion: image.Version, Architecture: image.Architecture, Image: true})
	if newer != nil {
		rows = append(rows, [2]string{"New", newer.Said().String()})
	}
	return rows, err
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

// checked is what update --check prints as JSON.
type checked struct {
	InstalledVersion string `json:"installedVersion"`
	NewVersion       string `json:"newVersion"` // empty: none
	Changes          string `json:"changes"`
	ClosesHole       bool   `json:"closesHole"`
}

// checkUpdates reads the list of releases, and offers what is new for the Base.
func (p *program) checkUpdates(c *cobra.Command, address string, asking *consent) error {
	known, err := p.releases()
	if err != nil {
		return err
	}
	p.waiting("Fetching the list of releases")
	if err := known.Check(c.Context(), address); err != nil {
		return err
	}
	var status *basev1.GetUpdateResponse
	if err := p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) (err error) {
		status, err = owner.UpdateStatus(ctx, session)
		return err
	}); err != nil {
		return err
	}
	newer, _, err := known.Newer(status)
	if err != nil {
		return err
	}
	if p.json && !asking.yes {
		shown := checked{InstalledVersion: status.GetInstalledVersion()}
		if newer != nil {
			shown.NewVersion, shown.Changes, shown.ClosesHole = newer.Version, newer.Changes, newer.ClosesHole
		}
		return p.printJSON(shown)
	}
	if newer == nil {
		return p.printf("Version %s is the newest one.\n", client.Printable(status.GetInstalledVersion()))
	}
	if err := p.say("New: %s\n", newer.Said()); err != nil {
		return err
	}
	if !asking.yes && !asking.mayAsk() {
		return nil
	}
	return p.fetchAndUpdate(c.Context(), known, newer, status, asking)
}

// fetchAndUpdate downloads a release, verifies it and brings it. No connection is open during the
// download, which has a deadline of its own.
func (p *program) fetchAndUpdate(ctx context.Context, known owner.Releases, newer *owner.Newer, status *basev1.GetUpdateResponse,
	asking *consent) error {
	if err := asking.must(ctx, owner.SoftwareChange(status.GetInstalledVersion(), newer.Version, status.GetImage())); err != nil {
		return err
	}
	p.left = nothingChanged
	name, length := newer.File()
	p.waiting("Downloading %s (%s)", name, size(length))
	return known.Download(ctx, newer, nil, func(file *client.Release) error {
		return p.call(ctx, owner.UpdateTime, func(ctx context.Context, session *client.Session) error {
			return p.install(ctx, session, file)
		})
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

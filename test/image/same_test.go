//go:build linux && image

package image_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// Two builders with folders of their own, who share nothing, not even Debian's part, make the same bytes on the same day of
// Debian's archive.
func TestTheSameSourceMakesTheSameImage(t *testing.T) {
	stage.NeedRoot(t, "cmp")
	var images []string
	var archives []string
	for range 2 {
		directory := t.TempDir()
		options := build.Options{Architecture: "amd64", Package: os.Getenv("BITBOX_BASE_PACKAGE"), Out: filepath.Join(directory, "image"),
			Cache: filepath.Join(directory, "cache"), Progress: func(what string) { t.Log(what) }}
		var err error
		if options.Init, err = build.MakeInit(t.Context(), options.Architecture, directory); err != nil {
			t.Fatal(err)
		}
		info, err := build.Build(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		images, archives = append(images, options.Out), append(archives, info.Archive)
	}
	if archives[0] != archives[1] {
		t.Skipf("Debian's archive has changed meanwhile: %s, then %s", archives[0], archives[1])
	}
	m := &machine{t: t}
	for _, file := range []string{build.RootFile, build.VerityFile, build.UnsignedFile, build.InfoFile, build.DiskFile} {
		m.host("cmp", filepath.Join(images[0], file), filepath.Join(images[1], file))
	}
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
)

// sudo drops the environment, and root has another home: the arguments say everything.
func TestRootIsToldAllThatItNeedsToBuildAnImage(t *testing.T) {
	for name, o := range map[string]build.Options{
		"everything": {
			Architecture: "arm64", Package: "p.deb", Init: "init", Out: "build/image", Cache: "cache", Keys: "keys", Microsoft: true, Provision: "p",
		},
		"little": {Architecture: "amd64", Package: "p.deb", Out: "build/image"},
	} {
		o, err := absolute(o)
		if err != nil {
			t.Fatal(err)
		}
		arguments := assemblyOf(o, 1000, 1001)
		got, user, group, err := parseAssembly(arguments[1:])
		got.Progress, got.Change = nil, nil
		if err != nil || user != 1000 || group != 1001 || got.Architecture != o.Architecture || got.Package != o.Package || got.Out != o.Out ||
			got.Init != o.Init || got.Cache != o.Cache || got.Keys != o.Keys || got.Microsoft != o.Microsoft || got.Provision != o.Provision {
			t.Errorf("%s: %+v became %+v for %d:%d, %v", name, o, got, user, group, err)
		}
		for _, path := range []string{got.Package, got.Init, got.Out, got.Cache, got.Keys, got.Provision} {
			if path != "" && !filepath.IsAbs(path) {
				t.Errorf("%s: %q depends on where root is", name, path)
			}
		}
	}
}

func TestAnImageWithoutKeysSaysSo(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, secureboot.DB+secureboot.CertificateSuffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for name, c := range map[string]struct {
		keys, release string
		said          []string
	}{
		"both are there":     {full, "00", nil},
		"no Secure Boot key": {empty, "00", []string{"will not be signed"}},
		"no release key":     {full, "", []string{"will take no updates"}},
		"neither":            {empty, "", []string{"will not be signed", "will take no updates"}},
	} {
		o := build.Options{Keys: c.keys}
		missing := missingKeys(&o, func(string) string { return c.release })
		if len(missing) != len(c.said) || (o.Keys == "") != (c.keys == empty) {
			t.Errorf("%s: it says %q, and takes the keys in %q", name, missing, o.Keys)
			continue
		}
		for i, said := range c.said {
			if !strings.Contains(missing[i], said) {
				t.Errorf("%s: it says %q, without %q", name, missing[i], said)
			}
		}
	}
}

// Root builds the image, and gives the files to the user who called it.
func TestTheImageBelongsToItsBuilder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	o := build.Options{Out: filepath.Join(t.TempDir(), "image"), Keys: t.TempDir()}
	list, key := filepath.Join(o.Keys, "db"+secureboot.EnrolSuffix), filepath.Join(o.Keys, "db"+secureboot.KeySuffix)
	disk := filepath.Join(o.Out, build.DiskFile)
	if err := errors.Join(os.Mkdir(o.Out, 0o755), os.WriteFile(disk, nil, 0o600), os.WriteFile(list, nil, 0o600),
		os.WriteFile(key, nil, 0o600), give(o, 1000, 1001)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{o.Out: 1000, disk: 1000, list: 1000, key: 0} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if is := info.Sys().(*syscall.Stat_t); is.Uid != want {
			t.Errorf("%s belongs to %d", path, is.Uid)
		}
	}
}

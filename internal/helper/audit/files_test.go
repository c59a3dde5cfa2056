package audit

import (
	"context"
	"io/fs"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

func TestAFileThatIsTooOpenIsFound(t *testing.T) {
	file := func(path string, change func(*File)) func(*testing.T, *fake) {
		return func(_ *testing.T, f *fake) {
			file := f.stat[path]
			change(&file)
			f.stat[path] = file
		}
	}
	find(t, map[string]attack{
		"a readable key":        {file(generation.HostKey, func(f *File) { f.Mode = 0o644 }), []string{idFileModes}},
		"another's key":         {file(generation.HostKey, func(f *File) { f.UID = 33 }), []string{idFileModes}},
		"another's group":       {file("/etc/shadow", func(f *File) { f.GID = 0 }), []string{idFileModes}},
		"a link":                {file("/var/lib/bitbox-base/ssh", func(f *File) { f.Mode = fs.ModeSymlink | 0o777 }), []string{idFileModes}},
		"an open socket":        {file(generation.SystemSocket, func(f *File) { f.Mode = fs.ModeSocket | 0o666 }), []string{idFileModes}},
		"the group bit":         {file(generation.CertificateDirectory, func(f *File) { f.Mode = fs.ModeDir | 0o750 }), []string{idFileModes}},
		"missing":               {func(_ *testing.T, f *fake) { delete(f.stat, generation.SystemSocket) }, []string{idFileModes}},
		"missing, but optional": {func(_ *testing.T, f *fake) { delete(f.stat, generation.HostKey) }, []string{}},
		"writable binary":       {file("/usr/bin/bitbox-base", func(f *File) { f.Mode = 0o777 }), []string{idFileModes, idWorldWritable}},
		"setuid binary":         {file("/usr/bin/bitbox-base", func(f *File) { f.Mode |= fs.ModeSetuid }), []string{idFileModes, idSetuid}},
	})
}

func TestOwnersAndModesAreRestored(t *testing.T) {
	f := base(t)
	f.obeys = func(string) bool { return true }
	f.stat[generation.CertificateDirectory] = File{Mode: fs.ModeDir | 0o777}
	if err := Repair(context.Background(), f, idFileModes); err != nil {
		t.Fatal(err)
	}
	want := []string{chown + " -h -- root:www-data " + generation.CertificateDirectory, chmod + " -- 02750 " + generation.CertificateDirectory}
	if !slices.Equal(f.ran, want) {
		t.Errorf("ran %q", f.ran)
	}
	// A link in the place of the file must not be followed.
	f.ran = nil
	f.stat[generation.CertificateDirectory] = File{Mode: fs.ModeSymlink | 0o777}
	if err := Repair(context.Background(), f, idFileModes); err == nil || len(f.ran) > 0 {
		t.Errorf("%v; ran %q", err, f.ran)
	}
}

package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func picture(t *testing.T, width, height int) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewNRGBA(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "picture.png")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The files are read as the two systems read them: by their tables.
func TestEachPictureIsFoundInTheFile(t *testing.T) {
	small, large := picture(t, 16, 16), picture(t, 256, 256)
	folder := t.TempDir()
	windows, mac := filepath.Join(folder, "icon.ico"), filepath.Join(folder, "icon.icns")
	for _, path := range []string{windows, mac} {
		if err := run([]string{path, small, large}); err != nil {
			t.Fatal(err)
		}
	}
	sides := []int{16, 256}

	ico, _ := os.ReadFile(windows)
	if n := int(binary.LittleEndian.Uint16(ico[4:])); n != len(sides) {
		t.Fatalf("the .ico file has %d pictures", n)
	}
	for n, want := range sides {
		entry := ico[6+16*n:]
		length, offset := binary.LittleEndian.Uint32(entry[8:]), binary.LittleEndian.Uint32(entry[12:])
		if got, err := side(ico[offset : offset+length]); err != nil || got != want || entry[0] != byte(want) {
			t.Errorf("picture %d of the .ico file has %d pixels, its entry says %d; %v", n, got, entry[0], err)
		}
	}

	icns, _ := os.ReadFile(mac)
	if length := binary.BigEndian.Uint32(icns[4:]); string(icns[:4]) != "icns" || int(length) != len(icns) {
		t.Fatalf("the .icns file begins with %q", icns[:8])
	}
	for rest := icns[8:]; len(rest) > 0; sides = sides[1:] {
		length := binary.BigEndian.Uint32(rest[4:])
		if got, err := side(rest[8:length]); err != nil || got != sides[0] || macTypes[got] != string(rest[:4]) {
			t.Errorf("a picture of the .icns file has %d pixels and the type %s, %v", got, rest[:4], err)
		}
		rest = rest[length:]
	}
	if len(sides) > 0 {
		t.Errorf("the .icns file lacks %v", sides)
	}
}

func TestWhatIsNoIconIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		file, picture, want string
	}{
		"no square":       {"icon.ico", picture(t, 16, 17), "square"},
		"too large":       {"icon.ico", picture(t, 512, 512), "too large"},
		"a size of none":  {"icon.icns", picture(t, 48, 48), "no icon of 48"},
		"no PNG":          {"icon.ico", os.Args[0], "PNG"},
		"another system":  {"icon.xpm", picture(t, 16, 16), ".icns"},
		"no such picture": {"icon.ico", "gone.png", "gone.png"},
	} {
		if err := run([]string{filepath.Join(t.TempDir(), c.file), c.picture}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

//go:build linux

package window_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
)

// The pictures of the icon are made by hand (scripts/icons) after its drawing has changed.
func TestThePicturesOfTheIconAreThoseOfItsDrawing(t *testing.T) {
	const folder = "../../packaging/app"
	drawing, err := os.ReadFile(filepath.Join(folder, "icon.svg"))
	if err != nil {
		t.Fatal(err)
	}
	tab := chromiumtest.Start(t, chromiumtest.Options{}).Tab()
	draw := func(svg []byte, size int) image.Image {
		tab.Size(int64(size), int64(size))
		tab.Open("data:text/html;base64," + base64.StdEncoding.EncodeToString(fmt.Appendf(nil,
			`<!doctype html><style>body{margin:0}svg{display:block;width:%dpx;height:%dpx}</style>%s`, size, size, svg)))
		drawn, err := png.Decode(bytes.NewReader(tab.Picture()))
		if err != nil {
			t.Fatal(err)
		}
		return drawn
	}
	pictures, err := filepath.Glob(filepath.Join(folder, "icons/*.png"))
	if err != nil || len(pictures) == 0 {
		t.Fatalf("there are %d pictures, %v", len(pictures), err)
	}
	for _, path := range pictures {
		size, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".png"))
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		// Two programs smooth edges differently, and each edge counts more in a small picture.
		if off := difference(draw(drawing, size), picture); off > 0.03 {
			t.Errorf("%s differs from the drawing by %.3f; run scripts/icons", path, off)
		}
		other := bytes.ReplaceAll(drawing, []byte("#1f6fb2"), []byte("#b21f1f"))
		if off := difference(draw(other, size), picture); off < 0.03 {
			t.Errorf("%s differs from another drawing by %.3f only; this test proves nothing", path, off)
		}
	}
}

// difference is how far two pictures are apart, on white paper: 0 if they are equal, 1 for black and
// white.
func difference(a, b image.Image) float64 {
	if a.Bounds() != b.Bounds() {
		return 1
	}
	const full = 0xffff
	var sum float64
	for y := a.Bounds().Min.Y; y < a.Bounds().Max.Y; y++ {
		for x := a.Bounds().Min.X; x < a.Bounds().Max.X; x++ {
			r1, g1, b1, a1 := a.At(x, y).RGBA()
			r2, g2, b2, a2 := b.At(x, y).RGBA()
			for _, d := range []int{int(r1+full-a1) - int(r2+full-a2), int(g1+full-a1) - int(g2+full-a2), int(b1+full-a1) - int(b2+full-a2)} {
				sum += float64(max(d, -d))
			}
		}
	}
	return sum / (3 * full * float64(a.Bounds().Dx()*a.Bounds().Dy()))
}

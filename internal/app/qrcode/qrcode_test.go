package qrcode

import (
	"strings"
	"testing"

	"rsc.io/qr"
)

// modules reads a drawing back: true is light.
func modules(rows []string, utf8 bool) (all [][]bool) {
	for _, row := range rows {
		if !utf8 {
			var line []bool
			for n := 0; n < len(row); n += 2 {
				line = append(line, row[n:n+2] == "##")
			}
			all = append(all, line)
			continue
		}
		var upper, lower []bool
		for _, r := range row {
			upper, lower = append(upper, r == '█' || r == '▀'), append(lower, r == '█' || r == '▄')
		}
		all = append(all, upper, lower)
	}
	return all
}

func TestTheDrawingHasEachModuleAndALightFrame(t *testing.T) {
	const line = "192.168.1.20:50002:s"
	code, err := qr.Encode(line, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	for _, utf8 := range []bool{true, false} {
		rows, err := Draw(line, utf8)
		if err != nil {
			t.Fatal(err)
		}
		all := modules(rows, utf8)
		if want := code.Size + 2*Quiet; len(all) < want || len(all) > want+1 || len(all[0]) != want {
			t.Fatalf("utf8 %v: %d by %d modules, not %d", utf8, len(all[0]), len(all), want)
		}
		dark := 0
		for y := range all {
			for x := range all[y] {
				inside := x >= Quiet && y >= Quiet && x < code.Size+Quiet && y < code.Size+Quiet
				black := inside && code.Black(x-Quiet, y-Quiet)
				if all[y][x] == black {
					t.Fatalf("utf8 %v: the module at %d, %d is wrong", utf8, x-Quiet, y-Quiet)
				}
				if black {
					dark++
				}
			}
		}
		if dark < code.Size*code.Size/4 {
			t.Errorf("utf8 %v: only %d modules are dark", utf8, dark)
		}
	}
}

func TestATextThatIsTooLongIsRefused(t *testing.T) {
	if _, err := Draw(strings.Repeat("x", 4000), true); err == nil {
		t.Error("it was drawn")
	}
}

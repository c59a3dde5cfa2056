package picture

import (
	"encoding/xml"
	"errors"
	"html/template"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/app/qrcode"
)

// hostile is a text that a Base may send as a name.
const hostile = `</title><script>alert(1)</script><svg onload=alert(1)> "'& 123`

// pictures has one of each kind, with the worst that a Base may send.
func pictures(t *testing.T) map[string]template.HTML {
	t.Helper()
	w := Words{hostile, hostile}
	code, err := Code(w, hostile)
	if err != nil {
		t.Fatal(err)
	}
	var doors []Door
	for range 2 * maxDoors {
		doors = append(doors, Door{hostile, hostile, 65535, true, false}, Door{hostile, hostile, 0, false, false}, Door{"", "", 1, true, true})
	}
	return map[string]template.HTML{
		"curve":      Curve(w, []float64{1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64}, 0, math.MaxFloat64),
		"flat curve": Curve(w, []float64{3, 3}, 3, 3),
		"no curve":   Curve(w, nil, math.NaN(), math.NaN()),
		"dot":        Curve(w, []float64{1}, 0, 1),
		"code":       code,
		"wall":       Wall(w, doors),
		"empty wall": Wall(w, nil),
		"screen":     Screen(w, Asked{hostile, hostile}),
		"ring":       Ring(w, math.NaN(), hostile),
		"bar":        Bar(w, math.Inf(1)),
	}
}

func TestEachPictureIsWellFormedAndHasATitleAndNoMarkupOfOthers(t *testing.T) {
	for name, drawn := range pictures(t) {
		var title, description string
		decoder := xml.NewDecoder(strings.NewReader(string(drawn)))
		var open []string
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, drawn)
			}
			switch e := token.(type) {
			case xml.StartElement:
				open = append(open, e.Name.Local)
				if !strings.Contains(" svg title desc g rect path circle polyline polygon text ", " "+e.Name.Local+" ") {
					t.Errorf("%s: it has an element %s", name, e.Name.Local)
				}
				for _, a := range e.Attr {
					if a.Name.Local == "style" || strings.HasPrefix(a.Name.Local, "on") {
						t.Errorf("%s: it has the attribute %s", name, a.Name.Local)
					}
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") || strings.Contains(a.Value, "#") {
						t.Errorf("%s: %s=%q", name, a.Name.Local, a.Value)
					}
					if (a.Name.Local == "fill" || a.Name.Local == "stroke") && a.Value != "none" {
						t.Errorf("%s: a colour outside of the style sheet: %q", name, a.Value)
					}
				}
			case xml.EndElement:
				open = open[:len(open)-1]
			case xml.CharData:
				switch open[len(open)-1] {
				case "title":
					title += string(e)
				case "desc":
					description += string(e)
				}
			}
		}
		if title != hostile || description != hostile {
			t.Errorf("%s: title %q, description %q", name, title, description)
		}
		if !strings.HasPrefix(string(drawn), `<svg class="picture `) || !strings.Contains(string(drawn), ` role="img"`) {
			t.Errorf("%s: %.80s", name, drawn)
		}
	}
}

func TestACurveGoesFromItsOldestValueToItsNewest(t *testing.T) {
	points := regexp.MustCompile(`<polyline class="picture-line" points="([^"]*)"`)
	got := points.FindStringSubmatch(string(Curve(Words{}, []float64{0, 1, 0.5}, 0, 1)))
	if want := "3,45 120,3 237,24 "; got == nil || got[1] != want {
		t.Errorf("%q, not %q", got, want)
	}
	// A peak stays visible when there are more values than columns.
	many := make([]float64, 10*curveColumns)
	many[777] = 1
	peak := points.FindStringSubmatch(string(Curve(Words{}, many, 0, 1)))
	if peak == nil || len(strings.Fields(peak[1])) != curveColumns || strings.Count(peak[1], ",3 ") != 1 {
		t.Errorf("the peak is lost: %q", peak)
	}
}

func TestTheCodeHasEachModule(t *testing.T) {
	const text = "192.168.1.20:50002:s"
	drawn, err := Code(Words{}, text)
	if err != nil {
		t.Fatal(err)
	}
	code, err := qrcode.Make(text)
	if err != nil {
		t.Fatal(err)
	}
	dark := map[[2]int]bool{}
	for _, run := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(string(drawn), -1) {
		if run[3] != run[4] {
			t.Fatalf("a box that does not close: %s", run[0])
		}
		for n := range atoi(run[3]) {
			dark[[2]int{atoi(run[1]) + n - qrcode.Quiet, atoi(run[2]) - qrcode.Quiet}] = true
		}
	}
	for y := -1; y <= code.Size; y++ {
		for x := -1; x <= code.Size; x++ {
			if dark[[2]int{x, y}] != code.Dark(x, y) {
				t.Fatalf("the module at %d, %d is wrong", x, y)
			}
		}
	}
	if len(dark) < code.Size*code.Size/4 {
		t.Errorf("only %d modules are dark", len(dark))
	}
	if _, err := Code(Words{}, strings.Repeat("x", 4000)); err == nil {
		t.Error("a text that is too long was drawn")
	}
}

func atoi(text string) (n int) {
	for _, r := range text {
		n = 10*n + int(r-'0')
	}
	return n
}

// A code at the Base's place on the page would be compared with itself.
func TestTheScreenHasNoDigits(t *testing.T) {
	drawn := string(Screen(Words{"The screen", "It shows six digits."}, Asked{"Is it 482 913?", "Y 4 N 8"}))
	texts := regexp.MustCompile(`>([^<]*)<`).FindAllStringSubmatch(drawn, -1)
	if len(texts) < 4 || strings.Count(drawn, `class="picture-figure"`) != figures {
		t.Fatalf("%s", drawn)
	}
	for _, text := range texts {
		if strings.ContainsAny(text[1], "0123456789") {
			t.Errorf("it shows %q", text[1])
		}
	}
}

// A person must find on the Base's screen what the picture shows.
func TestTheScreenAsksWhatTheConsoleOfTheBaseAsks(t *testing.T) {
	console, err := os.ReadFile("../../../../internal/console/draw.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, asked := range []Asked{AskedForNumber, AskedForCode} {
		if !strings.Contains(string(console), `"  `+asked.Question+`"`) || !strings.Contains(string(console), `"`+asked.Answers) {
			t.Errorf("the console does not ask %q", asked)
		}
		if drawn := string(Screen(Words{}, asked)); !strings.Contains(drawn, asked.Question) || !strings.Contains(drawn, asked.Answers) {
			t.Errorf("the picture cuts %q", asked)
		}
	}
}

func TestAWallShowsWhichDoorsAreOpen(t *testing.T) {
	drawn := string(Wall(Words{}, []Door{
		{Name: "Apps", Port: 8845, Open: true, Locked: true}, {Name: "Electrum", Port: 50002, Note: "9 min", Open: true}, {Name: "SSH", Port: 22},
	}))
	if strings.Count(drawn, `class="picture-open"`) != 2 || strings.Count(drawn, `class="picture-closed"`) != 1 {
		t.Errorf("%s", drawn)
	}
	for _, text := range []string{">Apps<", ">8845<", ">Electrum<", ">50002<", ">9 min<", ">SSH<", ">22<"} {
		if !strings.Contains(drawn, text) {
			t.Errorf("it does not say %s", text)
		}
	}
}

func TestProgressStaysBetweenNothingAndAll(t *testing.T) {
	for part, want := range map[float64]string{-1: `width="0"`, 0.25: `width="60"`, 7: `width="240"`} {
		if drawn := string(Bar(Words{}, part)); !strings.Contains(drawn, `class="picture-done" x="0" y="0" `+want) {
			t.Errorf("%v: %s", part, drawn)
		}
	}
	if drawn := string(Ring(Words{}, 0.5, "50 %")); !strings.Contains(drawn, `stroke-dasharray="131.9 263.9"`) || !strings.Contains(drawn, ">50 %<") {
		t.Errorf("%s", drawn)
	}
}

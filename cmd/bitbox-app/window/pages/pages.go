// Package pages makes the pages of the window: a function from what is known of the Bases to HTML.
// It asks nobody and keeps nothing.
//
// Each screen is a file and a template of the same name: security.go has a struct with what the
// screen shows and a function that fills it, security.html writes it. frame.go has what all screens
// share, and screens.go the one table of them.
//
// # Parts
//
// A page is a list of parts. The server makes a page again whenever something has changed, compares
// each live part with the one that it has sent last, and sends the changed ones. The script
// (../static/app.js) morphs them, so a part must come out the same as long as nothing has changed:
// it has no time that goes by, but the moment at which something ends, and the script counts down.
// A form in which a person types is a part of its own, which is sent with the document alone. A page that
// comes to have other parts is sent as a document without its live parts, and then those.
//
// # What a template tells the script
//
//	data-key="…"     on each row of a list: rows are told apart by it. A row with a button must have
//	                 one, or the focus would go on to another row's button
//	data-until="…"   on <time>: the moment (Unix, milliseconds) to count down to; data-spoken names
//	                 what ends, if 30, 10 and 0 seconds are said aloud
//	data-say="…"     a name for a sentence that is said aloud when its text changes; data-spoken
//	                 is said in the place of the text
//	data-dead="…"    on the button of a yes: the id of its question. It answers after a second
//	data-tail        a text that is followed to its end, as long as its end is seen
//	data-copy="id"   on a button: copies the text of that element. Give it class="scripted"
//	data-drop        around a file field: a file may be dropped there
//	data-into="id"   on a file field: the file's text goes into that text area
//
// # What forms send
//
//	POST /pair                    address: host or host:port, several with spaces between; words: 1
//	POST /base/ID/deed/KIND       begins a deed of package owner; ../forms.go has its fields. The query
//	                              from=PAGE names the page, to which the deed leads back
//	POST /base/ID/audit           has the Base inspect itself again
//	POST /base/ID/lockdown        begins a lockdown, whose deed asks once
//	POST /deed/N/answer           question: its id; answer: yes or no; text: what was typed
//	POST /deed/N/stop
package pages

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/static"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Part is a piece of a page.
type Part struct {
	// ID is the id of the element whose content the part is.
	ID string
	// Class says how the style sheet places it, such as "wide".
	Class string
	HTML  template.HTML
	// Form: it is sent with the document alone, because a person types in it.
	Form bool
}

// Page is one page.
type Page struct {
	// Title is that of the document, and Status that of the answer (HTTP).
	Title  string
	Status int
	// Top and Side are the header and the links to the pages of a Base. They are live.
	Top, Side template.HTML
	// Parts are the page's own, in their order.
	Parts []Part
	// Language is that of the page (BCP 47).
	Language string
	// Class says how the style sheet lays out the parts; Bare: the page has no links beside it.
	Class string
	Bare  bool
}

// The status of a page (RFC 9110, section 15).
const (
	statusOK      = 200
	statusLocked  = 401
	statusNowhere = 404
)

// The ids of the parts that each page has.
const (
	topID  = "top"
	sideID = "side"
)

// Live lists the parts that the server compares and sends, the header first.
func (p Page) Live() []Part {
	live := []Part{{ID: topID, HTML: p.Top}, {ID: sideID, HTML: p.Side}}
	for _, part := range p.Parts {
		if !part.Form {
			live = append(live, part)
		}
	}
	return live
}

// Shape tells apart pages that have not the same parts in the same places, or not the same language: a
// page of another shape needs more than new content of its live parts.
func (p Page) Shape() string {
	var shape strings.Builder
	shape.WriteString(p.Language + "\n")
	for _, part := range p.Parts {
		fmt.Fprintf(&shape, "%s %s %t\n", part.ID, part.Class, part.Form)
	}
	sum := sha256.Sum256([]byte(shape.String()))
	return hex.EncodeToString(sum[:8])
}

// Bones is the page without the content of its live parts.
func (p Page) Bones() Page {
	p.Top, p.Side, p.Parts = "", "", slices.Clone(p.Parts)
	for n := range p.Parts {
		if !p.Parts[n].Form {
			p.Parts[n].HTML = ""
		}
	}
	return p
}

// Frame is what the server adds to a document.
type Frame struct {
	// Path of the page, with its query. The script asks for the stream of this page.
	Path string
	// Proof is the key with which the server proves itself to the script, 64 hex digits. A page
	// without a session has none, and opens no stream.
	Proof string
}

// Renderer makes pages in one language.
type Renderer struct {
	language  words.Language
	idle      time.Duration
	templates *template.Template
}

//go:embed *.html
var files embed.FS

// New returns a renderer. The window locks after idle without key or pointer.
func New(l words.Language, idle time.Duration) *Renderer {
	r := &Renderer{language: l, idle: idle}
	r.templates = template.Must(template.New("").Funcs(r.functions()).ParseFS(files, "*.html"))
	return r
}

// Document writes the whole document of a page.
func (r *Renderer) Document(w io.Writer, p Page, f Frame) error {
	if err := r.templates.ExecuteTemplate(w, "document", struct {
		Page                Page
		Frame               Frame
		Style, Script, Icon static.File
	}{p, f, static.Style, static.Script, static.Icon}); err != nil {
		return fmt.Errorf("write the page %s: %w", f.Path, err)
	}
	return nil
}

// render executes a template. It fails only if a template does not fit its struct, which the tests
// of each screen show.
func (r *Renderer) render(name string, data any) template.HTML {
	var b strings.Builder
	if err := r.templates.ExecuteTemplate(&b, name, data); err != nil {
		panic(fmt.Sprintf("the template %s: %v", name, err))
	}
	return template.HTML(inOrder(b.String()))
}

// inOrder marks each character that turns the direction of what follows, or is not there for a reader:
// with one of them in a name, a Base or an App could have a page read as another sentence. No text of the
// App has any.
func inOrder(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Bidi_Control, r) || unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\ufffd'
		}
		return r
	}, text)
}

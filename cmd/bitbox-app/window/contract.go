package window

import (
	"html/template"
	"io"
)

// Part is a part of a page.
type Part struct {
	ID   string
	HTML template.HTML
}

// Page is a page.
type Page struct {
	Title  string
	Parts  []Part
	Forms  []Part
	Status int
}

// Static is a static file, as a document names it.
type Static struct{ Path, Integrity string }

// Frame is what a document has beside its page.
type Frame struct {
	Proof, Path string
	Static      map[string]Static
}

// Renderer makes pages.
type Renderer interface {
	Page(path string) Page
	Enter() Page
	Notice(status int, sentence string) Page
	Document(w io.Writer, p Page, f Frame) error
}

// Owner follows Bases.
type Owner interface {
	Subscribe() (<-chan struct{}, func())
	UnderWay() bool
}

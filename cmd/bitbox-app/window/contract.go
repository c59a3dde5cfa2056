package window

import (
	"context"
	"io"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
)

// Owner follows the Bases and carries out deeds. It is *owner.Owner.
type Owner interface {
	// Run works until ctx ends.
	Run(ctx context.Context)
	State() owner.State
	Subscribe() (wake <-chan struct{}, unsubscribe func())
	Do(base string, d owner.Deed) (deed uint64, err error)
	Answer(deed, question uint64, a owner.Answer) error
	Stop(deed uint64)
}

// Renderer makes the pages. It is *pages.Renderer.
type Renderer interface {
	// Page is the page at a path, with its query. The one at /enter is shown to a browser without a
	// session; it gets an empty state.
	Page(path string, s owner.State, now time.Time) pages.Page
	// Notice is a page that says one sentence: why a request was refused, or why a form could not be
	// used. It has a link to /bases.
	Notice(status int, sentence string) pages.Page
	Document(w io.Writer, p pages.Page, f pages.Frame) error
}

// Language says the door's own sentences.
type Language interface {
	Say(key string, arguments ...any) string
}

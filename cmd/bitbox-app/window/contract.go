package window

import (
	"context"
	"io"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Owner follows the Bases and carries out deeds. It is *owner.Owner.
type Owner interface {
	// Run works until ctx ends.
	Run(ctx context.Context) error
	State() owner.State
	Subscribe() (wake <-chan struct{}, unsubscribe func())
	Do(base string, d owner.Deed) (deed uint64, err error)
	Answer(deed, question uint64, a owner.Answer) error
	Stop(deed uint64)
	// Refresh asks a Base again, and has it inspect itself if audit is set.
	Refresh(base string, audit bool)
	// Want has a part of a Base asked for a while; it is called again while somebody looks.
	Want(base string, w owner.Want)
}

// Renderer makes the pages. It is *pages.Renderer.
type Renderer interface {
	// Page is the page at a path, with its query. The one at /enter is shown to a browser without a
	// session; it gets an empty state.
	Page(path string, s owner.State, now time.Time) pages.Page
	// Wants are what has to be asked of a Base, by its id, while somebody looks at a page.
	Wants(path string, s owner.State) (base string, wants []owner.Want)
	// Notice is a page that says one sentence: why a request was refused, or why a form could not be
	// used. It has a link to /bases.
	Notice(status int, said words.Text) pages.Page
	Document(w io.Writer, p pages.Page, f pages.Frame) error
}

var (
	_ Renderer = (*pages.Renderer)(nil)
	_ Owner    = (*owner.Owner)(nil)
)

package window

import (
	"fmt"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
)

// The App may learn that it is an owner's after the document was sent, and before its stream is open.
func TestAFormThatAppearsBeforeTheStreamIsOpenComesWithTheDocument(t *testing.T) {
	document := pages.Page{Parts: []pages.Part{{ID: "now", HTML: "12:00"}}}
	later := pages.Page{Parts: []pages.Part{{ID: "now", HTML: "12:01"}, {ID: "open", HTML: "<form>", Form: true}}}
	written := func(p pages.Page) string { return fmt.Sprint(p.Parts) }
	for _, each := range []struct {
		shape string
		comes bool
	}{{document.Shape(), true}, {later.Shape(), false}, {"", false}} { // a page without a shape takes what it gets first
		sent := shown{parts: map[string]string{}, shape: each.shape}
		e, _ := sent.changed(later, written)
		comes := e.Parts[0].ID == ""
		if comes != each.comes || comes && (!strings.Contains(e.Parts[0].HTML, "<form>") || strings.Contains(e.Parts[0].HTML, "12:01")) {
			t.Errorf("a document of shape %q gets %q", each.shape, e.Parts)
		}
		if last := e.Parts[len(e.Parts)-1]; last != (part{"now", "12:01"}) {
			t.Errorf("a document of shape %q gets the live part %q", each.shape, last)
		}
		if _, again := sent.changed(later, written); again {
			t.Errorf("a document of shape %q gets all a second time", each.shape)
		}
	}
}

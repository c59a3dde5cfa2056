package window

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
)

// The App may learn that it is an owner's after the document was sent, and before its stream is open.
func TestAFormThatAppearsBeforeTheStreamIsOpenReloadsThePage(t *testing.T) {
	document := pages.Page{Parts: []pages.Part{{ID: "now"}}}
	later := pages.Page{Parts: []pages.Part{{ID: "now"}, {ID: "open", Form: true}}}
	for _, each := range []struct {
		shape   string
		reloads bool
	}{{document.Shape(), true}, {later.Shape(), false}, {"", false}} { // a page without a shape takes what it gets first
		sent := shown{parts: map[string]string{}, shape: each.shape}
		if e, _ := sent.changed(later); e.Reload != each.reloads {
			t.Errorf("a document of shape %q is reloaded: %t", each.shape, e.Reload)
		}
	}
}

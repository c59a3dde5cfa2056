package words_test

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Each deed that describes its change itself does it in German too; a fix is described by its finding.
func TestEachDeedIsSaidInGermanAndNoOther(t *testing.T) {
	for _, kind := range owner.Kinds() {
		d := owner.Deed{Kind: kind, Subject: "x", Text: "y"}
		if c := d.Change(); c.Text != "" && kind != owner.Fix && words.German.DeedChange(c, kind.String(), "x", "y").Lang != words.German.Tag {
			t.Errorf("%s has no German sentence", kind)
		}
	}
	for _, name := range words.DeedNames() {
		if _, known := owner.ParseDeed(name); !known {
			t.Errorf("German has words for %q, which is no deed", name)
		}
	}
}

package words_test

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// Each deed has a title in each language. One that describes its change itself does it in each language too; a
// fix is described by its finding.
func TestEachDeedIsSaidInEachLanguage(t *testing.T) {
	for _, kind := range owner.Kinds() {
		for _, l := range words.Languages() {
			if key := "deed.title." + kind.String(); kind != owner.Pair && l.Say(key) == key {
				t.Errorf("%s has no title for %s", l.Name, kind)
			}
			c := owner.Deed{Kind: kind, Subject: "x", Text: "y"}.Change()
			if said := l.Will(c); c.Text != "" && kind != owner.Fix && said.Lang != l.Tag {
				t.Errorf("%s has no sentence for %s: %+v", l.Name, kind, said)
			}
		}
	}
}

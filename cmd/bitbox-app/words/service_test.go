package words

import (
	"os"
	"regexp"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// English says what the Base says of its services, and German has words for each.
func TestEachServiceIsDescribedInEachLanguage(t *testing.T) {
	source, err := os.ReadFile("../../../internal/helper/services/services.go")
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`\{Name: "([a-z0-9-]+)", Description: "([^"]+)"`).FindAllSubmatch(source, -1)
	if len(table) < 10 {
		t.Fatalf("found %d services only", len(table))
	}
	for _, row := range table {
		s := &basev1.Service{Name: string(row[1]), Description: string(row[2])}
		if got := English.ServiceAbout(s); got != s.GetDescription() {
			t.Errorf("English says %q of %s, and the Base %q", got, s.GetName(), s.GetDescription())
		}
		if got := German.ServiceAbout(s); got == s.GetDescription() {
			t.Errorf("German has no words for %s", s.GetName())
		}
	}
}

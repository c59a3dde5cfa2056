package audit

import (
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
)

func TestADiskThatFailsIsReported(t *testing.T) {
	list := func(f *fake, verdict string) {
		f.files[chaindisk.RunDirectory+"/"+chaindisk.ListFile] = `{"disks":[{"name":"sda","model":"SSD","health":{"verdict":"` + verdict + `"}}]}`
	}
	find(t, map[string]attack{
		"well":           {func(_ *testing.T, f *fake) { list(f, "VERDICT_GOOD") }, []string{}},
		"tells nothing":  {func(_ *testing.T, f *fake) { list(f, "VERDICT_UNSPECIFIED") }, []string{}},
		"fails":          {func(_ *testing.T, f *fake) { list(f, "VERDICT_FAILING") }, []string{idDisk}},
		"a damaged list": {func(_ *testing.T, f *fake) { list(f, strings.Repeat("x", 10)) }, []string{unchecked + "disks"}},
	})
}

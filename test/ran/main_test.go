package main

import (
	"strings"
	"testing"
)

const stream = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"needs root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"q","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestC","Output":"loud\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestD","Output":"panic: crash\n"}
{"Action":"output","Package":"p","Output":"FAIL p\n"}
# p
`

func TestNamedTestsMustHaveRunAndPassed(t *testing.T) {
	for _, c := range []struct {
		named  []string
		strict bool
		want   bool
		says   string
	}{
		{[]string{"TestA"}, true, true, "2 passed, 1 failed, 1 skipped"},
		{[]string{"TestB"}, false, true, "TestB was skipped"},
		{[]string{"TestB"}, true, false, "TestB was skipped"},
		{[]string{"TestC"}, false, false, "loud"},
		{[]string{"TestD"}, false, false, "panic: crash"},
		{[]string{"TestGone"}, false, false, "TestGone did not run"},
	} {
		var out strings.Builder
		if got := report(strings.NewReader(stream), &out, c.named, c.strict); got != c.want {
			t.Errorf("%v, strict %v: good is %v, want %v", c.named, c.strict, got, c.want)
		}
		if !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: the report does not say %q:\n%s", c.named, c.says, out.String())
		}
		if strings.Contains(out.String(), "quiet") {
			t.Error("the output of a test that passed is shown")
		}
	}
}

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const stream = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"q","Test":"TestC"}
{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:1: loud\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"run","Package":"p","Test":"TestD"}
{"Action":"output","Package":"p","Test":"TestD","Output":"panic: crash\n"}
{"Action":"output","Package":"p","Output":"FAIL p\n"}
{"Action":"fail","Package":"p"}
{"Action":"pass","Package":"q","Elapsed":1.5}
{"ImportPath":"r [r.test]","Action":"build-output","Output":"does not build\n"}
{"Action":"fail","Package":"r"}
# p
`

func follow(t *testing.T, in string) (r *report, out, log *strings.Builder) {
	t.Helper()
	out, log = &strings.Builder{}, &strings.Builder{}
	r = &report{out: out, log: log, logFile: "the.log", now: time.Now, begun: time.Now()}
	if err := r.follow(strings.NewReader(in), nil); err != nil {
		t.Fatal(err)
	}
	return r, out, log
}

func TestNamedTestsMustHaveRunAndPassed(t *testing.T) {
	const passing = `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}
`
	for _, c := range []struct {
		stream, named string
		strict        bool
		want          bool
		says          string
	}{
		{passing, "TestA", true, true, "1 passed, 0 failed, 1 skipped"},
		{passing, "TestB", false, true, "TestB was skipped"},
		{passing, "TestB", true, false, "TestB was skipped"},
		{passing, "TestGone", false, false, "TestGone did not run"},
		{stream, "TestA", true, false, "2 passed, 2 failed, 1 skipped"},
		{stream, "TestC", false, false, "loud"},
		{stream, "TestD", false, false, "panic: crash"},
	} {
		r, out, _ := follow(t, c.stream)
		if got := r.finish([]string{c.named}, c.strict); got != c.want {
			t.Errorf("%v, strict %v: good is %v, want %v", c.named, c.strict, got, c.want)
		}
		if !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: the report does not say %q:\n%s", c.named, c.says, out)
		}
	}
}

func TestAFailureIsToldAtOnceInShortAndWholeInTheLog(t *testing.T) {
	long := "    e_test.go:1: the journal:\n"
	for i := range 500 {
		long += fmt.Sprintf("        line %d\n", i)
	}
	lines := fmt.Sprintf(`{"Action":"run","Package":"p","Test":"TestE"}
{"Action":"output","Package":"p","Test":"TestE","Output":%q}
{"Action":"output","Package":"p","Test":"TestE","Output":"    e_test.go:2: what was wrong\n"}
{"Action":"fail","Package":"p","Test":"TestE"}
`, long)
	_, out, log := follow(t, lines)
	if !strings.Contains(log.String(), "line 499") {
		t.Error("the log is not whole")
	}
	text := out.String()
	if n := strings.Count(text, "\n"); n > linesOfFailure+2 || !strings.Contains(text, "what was wrong") ||
		!strings.Contains(text, "FAIL p TestE") {
		t.Errorf("the failure is told in %d lines:\n%s", n, text)
	}
}

func TestOnlyWhatMattersIsShown(t *testing.T) {
	r, out, log := follow(t, stream)
	r.finish(nil, false)
	for _, want := range []string{"ok   q", "FAIL p", "TestD has not ended", "does not build", "# p", "skipped, 1 tests: needs root",
		"the.log"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "quiet") || !strings.Contains(log.String(), "quiet") {
		t.Error("the output of a test that passed belongs in the log, and nowhere else")
	}
}

func TestSilenceIsBrokenByWhatRuns(t *testing.T) {
	r, out, _ := follow(t, `{"Action":"run","Package":"p","Test":"TestLong"}`+"\n")
	r.sayWhatRuns()
	if out.Len() > 0 {
		t.Errorf("too early: %s", out)
	}
	r.now = func() time.Time { return time.Now().Add(2 * silence) }
	r.sayWhatRuns()
	if !strings.Contains(out.String(), "running: p TestLong (") {
		t.Errorf("it says %q", out)
	}
}

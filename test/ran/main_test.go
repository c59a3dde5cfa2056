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

// A package ran into its time limit. Go prints all stacks with whichever test it heard of last.
func TestATestThatHangsIsNamedWithItsStack(t *testing.T) {
	const own = "goroutine 7 [chan receive]:\np.deeper()\n\t/p_test.go:9\np.TestHangs(0x1)\n\t/p_test.go:5\ntesting.tRunner(0x1, 0x2)\n"
	const started = "goroutine 8 [select]:\np.TestHangs.func1()\n\t/p_test.go:4\ncreated by p.TestHangs in goroutine 7\n"
	dump := "panic: test timed out after 5m0s\n\trunning tests:\n\t\tTestHangs (5m0s)\n\ngoroutine 1 [chan receive]:\nmain.main()\n\n"
	dump += started
	for n := range 100 {
		dump += fmt.Sprintf("\ngoroutine %d [select]:\nelsewhere.func1()\n", 100+n)
	}
	dump += "\n" + own
	_, out, log := follow(t, `{"Action":"run","Package":"p","Test":"TestWaits"}
{"Action":"pause","Package":"p","Test":"TestWaits"}
{"Action":"run","Package":"p","Test":"TestHangs"}
{"Action":"pause","Package":"p","Test":"TestHangs"}
{"Action":"cont","Package":"p","Test":"TestHangs"}
`+fmt.Sprintf(`{"Action":"output","Package":"p","Test":"TestHangs","Output":%q}`, dump)+`
{"Action":"fail","Package":"p"}
`)
	text := out.String()
	for _, want := range []string{"TestWaits was still waiting for its turn", "TestHangs has not ended", "timed out after 5m0s",
		own, started} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "elsewhere") || !strings.Contains(log.String(), "goroutine 199") {
		t.Errorf("stacks of others belong in the log, and nowhere else:\n%s", text)
	}
	if strings.Index(text, own) > strings.Index(text, started) {
		t.Error("the test's own stack is not the first")
	}
}

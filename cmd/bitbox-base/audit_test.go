package main

import (
	"errors"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func finding(id string, severity basev1.Finding_Severity) *basev1.Finding {
	return &basev1.Finding{Id: id, Severity: severity, Title: "A title", Expected: "this", Found: "one\ntwo", Why: "Because.", Fix: "Does it.",
		Fixable: true}
}

func TestExitCodeOfAnAuditTellsTheSeverity(t *testing.T) {
	info := finding("a", basev1.Finding_SEVERITY_INFO)
	warning := finding("b", basev1.Finding_SEVERITY_WARNING)
	critical := finding("c", basev1.Finding_SEVERITY_CRITICAL)
	for _, c := range []struct {
		findings []*basev1.Finding
		code     int
	}{
		{nil, 0},
		{[]*basev1.Finding{info}, 0},
		{[]*basev1.Finding{info, warning}, exitWarning},
		{[]*basev1.Finding{warning, critical, info}, exitCritical},
	} {
		err := verdict(c.findings)
		if c.code == 0 {
			if err != nil {
				t.Errorf("%v: %v", c.findings, err)
			}
			continue
		}
		if code := exitCode(err); code != c.code {
			t.Errorf("%v: exit code %d, not %d", c.findings, code, c.code)
		}
	}
}

func TestFindingsAreDescribedInPlainWords(t *testing.T) {
	out := &strings.Builder{}
	if err := describeFindings(out, []*basev1.Finding{finding("firewall-ipv4", basev1.Finding_SEVERITY_CRITICAL)}); err != nil {
		t.Fatal(err)
	}
	want := `critical  A title (firewall-ipv4)
          expected  this
          found     one
                    two
          why       Because.
          to fix    Does it.
                    Type: bitbox-base audit fix firewall-ipv4
`
	if out.String() != want {
		t.Errorf("printed\n%s", out)
	}
	out.Reset()
	if err := describeFindings(out, nil); err != nil || out.String() != "Everything is as it should be.\n" {
		t.Errorf("%v: %q", err, out)
	}
}

func TestAuditWithoutAHelperSaysWhatToStart(t *testing.T) {
	p := &program{}
	root := p.rootCommand()
	root.SetArgs([]string{"audit"})
	err := root.Execute()
	if err == nil || errors.As(err, new(severe)) || !strings.Contains(err.Error(), "systemctl start") {
		t.Errorf("%v", err)
	}
	if code := exitCode(err); code != exitNotRunning {
		t.Errorf("exit code %d", code)
	}
}

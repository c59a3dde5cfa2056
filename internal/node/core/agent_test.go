package core

import "testing"

func TestAgentsAreSplit(t *testing.T) {
	for text, want := range map[string][2]string{
		"/Satoshi:29.4.3/Knots:20260508/": {"Bitcoin Core (Knots:20260508)", "29.4.3"},
		"/Satoshi:31.0.0/":                {"Bitcoin Core", "31.0.0"},
		"/Satoshi:31.0.0(mine)/":          {"Bitcoin Core", "31.0.0(mine)"},
		"/other:1/":                       {"a program like Bitcoin Core", "other:1"},
		"":                                {"a program like Bitcoin Core", ""},
		"/Satoshi:\x1b[2J/":               {"Bitcoin Core", "?[2J"},
	} {
		if software, version := agent(text); software != want[0] || version != want[1] {
			t.Errorf("%q: %q, %q", text, software, version)
		}
	}
}

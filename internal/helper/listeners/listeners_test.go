package listeners

import (
	"slices"
	"testing"
)

func TestUnitOfAControlGroup(t *testing.T) {
	for group, want := range map[string]string{
		"/system.slice/nginx.service":                  "nginx.service",
		"/system.slice/system-x.slice/x@1.service/sub": "x@1.service",
		"/user.slice/user-0.slice/session-1.scope":     "session-1.scope",
		"/init.scope":   "init.scope",
		"/":             "",
		"unreachable:1": "",
	} {
		if got := unitOf(group); got != want {
			t.Errorf("%s: %q, not %q", group, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tcp LISTEN 0 511 [::]:8845 [::]:* uid:33 ino:1 sk:2 cgroup:/x.service\n")
	f.Add("u_str LISTEN 0 5 @name 12 * 0 <->\n")
	f.Fuzz(func(t *testing.T, text string) {
		sockets, err := Parse(text)
		words := slices.ContainsFunc([]byte(text), func(b byte) bool { return b > ' ' && b < 0x7f })
		if err == nil && len(sockets) == 0 && words && !slices.Contains([]byte(text), '_') {
			t.Errorf("%q was read as nothing", text)
		}
	})
}

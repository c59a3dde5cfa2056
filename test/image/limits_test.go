//go:build linux && image

package image_test

import (
	"strings"
	"testing"
)

// A Middleware that was taken over, and a user who logs in, fill the disk up to a limit and no
// further, in bytes and in files; root goes on writing.
func TestNobodyFillsTheDiskOfTheImage(t *testing.T) {
	m := probed(t)
	a := m.Attacker(1)
	m.switchOn()
	m.answers(a)
	m.reach()
	t.Log(m.inside("grep ' /var ' /proc/mounts; systemctl is-active bitbox-base-limits.service; journalctl --no-pager --output=cat --unit=bitbox-base-limits.service; df -h /var | tail -1; df -i /var | tail -1"))
	state := "/var/lib/bitbox-base/middleware"
	for user, folder := range map[string]string{"bitbox-base": state, "base": "/var/tmp"} {
		for what, script := range map[string]string{
			"bytes": "head -c 400000000 /dev/zero >" + folder + "/crowd",
			"files": "mkdir " + folder + "/crowd && cd " + folder + "/crowd && seq 20000 | xargs touch",
		} {
			out, code, err := m.ask(asked, "setpriv --reuid="+user+" --regid="+user+" --clear-groups sh -c '"+script+
				"' 2>&1 | tail -1; rm -rf "+folder+"/crowd")
			if err != nil || !strings.Contains(out, "quota exceeded") {
				t.Errorf("%s is not limited in %s: %d %s (%v)", user, what, code, out, err)
			}
		}
	}
	// The attack can win: nothing limits a user without a limit.
	if out, _, err := m.ask(asked, "setpriv --reuid=games --regid=games --clear-groups sh -c 'head -c 400000000 /dev/zero >/var/tmp/crowd' 2>&1; rm -f /var/tmp/crowd"); err != nil || strings.Contains(out, "quota") {
		t.Errorf("everybody is limited, so this test shows nothing: %s (%v)", out, err)
	}
}

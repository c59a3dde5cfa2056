package audit

import (
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

func TestALoosenedFail2banIsFound(t *testing.T) {
	told := func(old, new string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) { f.replace(t, old, new, fail2ban, "-i") }
	}
	pattern := recorded(t, "fail2ban")
	pattern = pattern[strings.LastIndex(pattern, "The following regular"):strings.LastIndex(pattern, fail2banPrompt)]
	find(t, map[string]attack{
		"more tries":       {told("fail2ban> 5\n", "fail2ban> 500\n"), []string{idBansSettings}},
		"shorter ban":      {told("fail2ban> 3600\n", "fail2ban> 1\n"), []string{idBansSettings}},
		"spared addresses": {told("`- ::1\n", "|- ::1\n`- 10.0.0.0/8\n"), []string{idBansSettings}},
		"ignored lines":    {told("No regular expression is defined", "The following regular expression are defined:\n`- [0]: ."), []string{idBansSettings}},
		"another log":      {told("_SYSTEMD_UNIT=bitbox-base-ssh.service", "_SYSTEMD_UNIT=x.service"), []string{idBansSettings}},
		"no action":        {told("The jail sshd has the following actions:\nbitbox-base", "No actions for jail sshd"), []string{idBansSettings}},
		"no pattern":       {told(pattern, "No regular expression is defined\n"), []string{idBansSettings}},
		"a jail missing":   {told("bitbox-base-handshake, sshd", "sshd"), []string{idBansSettings}},
		"a jail too many":  {told("bitbox-base-handshake, sshd", "bitbox-base-handshake, sshd, rogue"), []string{idBansSettings}},
		"not running": {func(_ *testing.T, f *fake) {
			f.output[fail2ban+" -i"] = Output{Stdout: strings.Repeat(fail2banPrompt, 18), Stderr: "Failed to access socket path"}
		}, []string{idBansSilent}},
		"hung": {func(_ *testing.T, f *fake) { f.output[fail2ban+" -i"] = Output{Stdout: "x", Code: 255} }, []string{idBansSilent}},
	})
}

// The audit compares with what is rendered.
func TestTheConstantsAreThoseThatAreRendered(t *testing.T) {
	files, err := bruteforce.Render(generation.BansFor(factory().Posture))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ignoreip = " + strings.Join(neverBanned, " ") + "\n", "action = " + bruteforce.Actions[bruteforce.JailSSH] + "[", "action = " + bruteforce.Actions[bruteforce.JailHandshake] + "["} {
		if !strings.Contains(files["jail.conf"], line) {
			t.Errorf("jail.conf has no line %q", line)
		}
	}
}

package setup

import (
	"maps"
	"slices"
	"strings"
)

// banner is what stands before a login, where there is one. It names no system and
// no version.
const banner = `This system is private. Access is for its owner alone; all other access
is forbidden, and may be recorded in its log.
`

// loginSettings are those of login.defs(5). No user of a Base has a password;
// should somebody give one a password, these hold for it.
var loginSettings = map[string]string{
	// What a user makes is not for others.
	"UMASK": "027",
	// A password is changed within a year, and not back the same day.
	"PASS_MAX_DAYS": "365",
	"PASS_MIN_DAYS": "1",
	// Guessing costs time, where hashes are of the older kind.
	"SHA_CRYPT_MIN_ROUNDS": "65536",
	"SHA_CRYPT_MAX_ROUNDS": "131072",
}

// loginDefs sets them, each in the line where it stands or at the end, and leaves
// all else as it is.
func loginDefs(text string) string {
	missing := maps.Clone(loginSettings)
	var b strings.Builder
	for line := range strings.Lines(text) {
		name := ""
		if fields := strings.Fields(line); len(fields) > 0 {
			name = fields[0]
		}
		value, ours := loginSettings[name]
		if !ours {
			b.WriteString(line)
			continue
		}
		if _, first := missing[name]; first {
			b.WriteString(name + "\t" + value + "\n")
			delete(missing, name)
		}
	}
	if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
		b.WriteString("\n")
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		b.WriteString(name + "\t" + missing[name] + "\n")
	}
	return b.String()
}

package setup

import (
	"maps"
	"slices"
	"strings"
)

// banner is shown before a login, where one is possible. It names no system and no version.
const banner = `This system is private. Access is for its owner alone; all other access
is forbidden, and may be recorded in its log.
`

// loginSettings are settings of login.defs(5). No user of a Base has a password; if somebody sets
// one, these apply to it.
var loginSettings = map[string]string{
	// Files of a user are not readable by others.
	"UMASK": "027",
	// A password must be changed within a year, and not twice on one day.
	"PASS_MAX_DAYS": "365",
	"PASS_MIN_DAYS": "1",
	// Guessing is slow where hashes are of the older kind.
	"SHA_CRYPT_MIN_ROUNDS": "65536",
	"SHA_CRYPT_MAX_ROUNDS": "131072",
}

// loginDefs changes each of them in its line, or adds it at the end, and leaves everything else
// unchanged.
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

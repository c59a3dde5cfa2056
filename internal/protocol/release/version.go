package release

import (
	"cmp"
	"strings"
)

// Compare orders versions as dpkg does (deb-version(7)): negative if a is older than b, 0 if they
// are the same, positive if a is newer.
func Compare(a, b string) int {
	epochA, upstreamA, revisionA := split(a)
	epochB, upstreamB, revisionB := split(b)
	return cmp.Or(compareNumbers(epochA, epochB), compareParts(upstreamA, upstreamB), compareParts(revisionA, revisionB))
}

// Below tells whether a version is older than the oldest that is allowed; empty allows any.
func Below(version, oldest string) bool { return oldest != "" && Compare(version, oldest) < 0 }

// split divides a version: EPOCH:UPSTREAM-REVISION.
func split(version string) (epoch, upstream, revision string) {
	if before, after, found := strings.Cut(version, ":"); found {
		epoch, version = before, after
	}
	if i := strings.LastIndexByte(version, '-'); i >= 0 {
		return epoch, version[:i], version[i+1:]
	}
	return epoch, version, ""
}

// compareParts takes turns: what is no digit by its letters, then digits by their number.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		var textA, textB, numberA, numberB string
		textA, a = cutWhere(a, false)
		textB, b = cutWhere(b, false)
		for i := range max(len(textA), len(textB)) {
			if c := cmp.Compare(weight(textA, i), weight(textB, i)); c != 0 {
				return c
			}
		}
		numberA, a = cutWhere(a, true)
		numberB, b = cutWhere(b, true)
		if c := compareNumbers(numberA, numberB); c != 0 {
			return c
		}
	}
	return 0
}

// cutWhere takes what begins a text and consists of digits, or of none.
func cutWhere(text string, digits bool) (taken, rest string) {
	i := strings.IndexFunc(text, func(r rune) bool { return ('0' <= r && r <= '9') != digits })
	if i < 0 {
		i = len(text)
	}
	return text[:i], text[i:]
}

// weight orders one character: a tilde before the end, the end before letters, letters before
// all else.
func weight(text string, i int) int {
	switch {
	case i >= len(text):
		return 0
	case text[i] == '~':
		return -1
	case 'A' <= text[i] && text[i] <= 'Z' || 'a' <= text[i] && text[i] <= 'z':
		return int(text[i])
	}
	return int(text[i]) + 256
}

// compareNumbers has no largest one.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

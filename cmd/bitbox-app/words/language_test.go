package words

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// verbs are the places for arguments in a sentence, sorted, each once.
func verbs(sentence string) []string {
	all := regexp.MustCompile(`%(?:\[\d+\])?[^%\s]?`).FindAllString(strings.ReplaceAll(sentence, "%%", ""), -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// Each language has each sentence, with the same arguments in numbered places.
func TestEachLanguageSaysTheSame(t *testing.T) {
	for _, l := range Languages() {
		for _, key := range slices.Sorted(maps.Keys(l.sentences)) {
			want, known := english[key]
			got := verbs(l.sentences[key])
			switch {
			case !known:
				t.Errorf("%s has %q, and English does not", l.Name, key)
			case l.sentences[key] == "":
				t.Errorf("%s says nothing for %q", l.Name, key)
			case !slices.Equal(got, verbs(want)):
				t.Errorf("%s has the arguments %q in %q, and English %q", l.Name, got, key, verbs(want))
			}
			for _, verb := range got {
				if !regexp.MustCompile(`^%\[\d\][sdqv]$`).MatchString(verb) {
					t.Errorf("%s has %q in %q; number each place, as %%[1]s", l.Name, verb, key)
				}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(english)) {
			if _, known := l.sentences[key]; !known {
				t.Errorf("%s lacks %q", l.Name, key)
			}
		}
	}
}

func TestTheLanguageOfATag(t *testing.T) {
	for tag, want := range map[string]string{"": "en", "de": "de", "de-CH": "de", "de_AT.UTF-8": "de", "DE": "de", "C.UTF-8": "en",
		"fr": "en", "den": "en", "en_GB": "en"} {
		if got := In(tag).Tag; got != want {
			t.Errorf("%q is %s, not %s", tag, got, want)
		}
	}
}

package words

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A literal that looks like a key, and a key that is asked for, in Go and in templates.
var (
	literal   = regexp.MustCompile(`"([a-z]*\.[A-Za-z0-9.-]*)"`)
	askedFor  = regexp.MustCompile(`\b[sS]ay(?: |\()"([a-z][A-Za-z0-9.-]+[A-Za-z0-9])"`)
	countedBy = regexp.MustCompile(`\bCount\("([^"]+)"`)
)

// Each sentence is said somewhere in the App, by its key or by the beginning of it to which the rest is
// added, and each key that is asked for has its sentence.
func TestEachSentenceIsUsedAndEachUseHasASentence(t *testing.T) {
	literals, asked := map[string]bool{}, map[string]string{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if name := filepath.Base(path); err != nil || strings.HasSuffix(name, "_test.go") ||
			!slices.Contains([]string{".go", ".html"}, filepath.Ext(name)) || path == "../words/english.go" || path == "../words/german.go" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range literal.FindAllSubmatch(text, -1) {
			literals[string(found[1])] = true
		}
		for _, found := range askedFor.FindAllSubmatch(text, -1) {
			asked[string(found[1])] = path
		}
		for _, found := range countedBy.FindAllSubmatch(text, -1) {
			asked[string(found[1])+".one"], asked[string(found[1])+".many"] = path, path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		if _, known := english[key]; !known {
			t.Errorf("%s says %q, which has no sentence", asked[key], key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(english)) {
		if !isUsed(key, literals) {
			t.Errorf("nothing says %q", key)
		}
	}
}

// isUsed tells whether one of the literals is the key, or what stands before an ending that is added.
func isUsed(key string, literals map[string]bool) bool {
	if literals[key] {
		return true
	}
	for _, ending := range []string{".one", ".many", ".more"} {
		if begin, ended := strings.CutSuffix(key, ending); ended && literals[begin] {
			return true
		}
	}
	// The name of a page, and an ending.
	if _, ending, _ := strings.Cut(key, "."); literals["."+ending] {
		return true
	}
	for i, c := range key {
		if c == '.' && literals[key[:i+1]] {
			return true
		}
	}
	return false
}

// German is longer than English, but not by much: a sentence that is far longer breaks a button or
// says something else.
func TestNoGermanSentenceIsMuchLonger(t *testing.T) {
	for _, key := range slices.Sorted(maps.Keys(german)) {
		if most := len([]rune(english[key]))*8/5 + 24; len([]rune(german[key])) > most {
			t.Errorf("%s has %d characters, and at most %d make sense beside the English:\n%s\n%s", key, len([]rune(german[key])), most,
				german[key], english[key])
		}
	}
}

// The window addresses its owner as "Sie", spells with "ß", and uses the German words of
// docs/glossary.md.
func TestGermanIsFormalAndUsesTheWordsOfTheGlossary(t *testing.T) {
	texts := maps.Clone(german)
	for _, p := range germanProblems {
		texts[p.kind.Error()] = p.sentence
	}
	maps.Copy(texts, germanErrors)
	for id, f := range germanFindings {
		texts[id] = f.title + " " + f.why + " " + f.fix
	}
	for _, text := range germanTexts {
		texts[strings.Join(text.around, "%s")] = text.sentence
	}
	for wrong, why := range map[string]string{
		`(?i)\b(du|dich|dir|dein(e|em|en|er|es)?)\b`:                                  "address the owner as Sie",
		`(?i)(schliess|gross|ausser|weiss|heiss|strasse|massnahm|regelmässig|gemäss)`: "write ß",
		`\b(Eigentümer|Inhaber)\b.*\b(App|Base)\b`:                                    "an owner is a Besitzer",
		`\bFestplatte`:              "a disk is a Datenträger",
		`Gegenstelle`:               "a peer is a Peer",
		`Betreuer`:                  "an operator is a Betreiber",
		`Gerät der`:                 "the machine is the Maschine",
		`[Aa]ktualisierung`:         "an update is an Update",
		`unterschr`:                 "to sign is signieren",
		`Knoten`:                    "a node is a Node",
		`(?i)\bverbannt|\bBann`:     "a ban is a Sperre",
		`(?i)\bgepaart|\bpairing\b`: "to pair is koppeln",
	} {
		for _, key := range slices.Sorted(maps.Keys(texts)) {
			if regexp.MustCompile(wrong).MatchString(texts[key]) {
				t.Errorf("%s: %s:\n%s", key, why, texts[key])
			}
		}
	}
}

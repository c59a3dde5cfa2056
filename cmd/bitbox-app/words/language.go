package words

import (
	"fmt"
	"strings"
)

// Language is one of the languages that the window speaks. Commands and the full screen speak
// English.
type Language struct {
	// Tag is its name in HTML's lang attribute, of BCP 47: "en" or "de".
	Tag string
	// Name is what its speakers call it.
	Name string

	sentences map[string]string
	// date is the layout of a date before a time, day that of a day without its year, decimal the sign before the
	// tenths.
	date, day, decimal string
	future, done, told tense
	// problems, errors, findings and texts are the words for what English leaves to the client and the Base.
	problems []problem
	errors   map[string]string
	findings map[string]finding
	texts    []knownText
}

// The languages. Each has its sentences in a file of its own.
var (
	English = Language{Tag: "en", Name: "English", sentences: english, date: "2006-01-02 ", day: "2 Jan", decimal: ".",
		future: tense{"will be", "will be", ""}, done: tense{"is now", "is now", ""}, told: tense{"was", "is now", ""}}
	German = Language{Tag: "de", Name: "Deutsch", sentences: german, date: "02.01.2006, ", day: "2.1.", decimal: ",",
		future: tense{"wird", "wird", " sein"}, done: tense{"ist jetzt", "ist jetzt", ""}, told: tense{"wurde", "ist jetzt", ""},
		problems: germanProblems, errors: germanErrors, findings: germanFindings, texts: germanTexts}
)

// Languages are all of them; the first is for everybody whose language is not among them.
func Languages() []Language { return []Language{English, German} }

// In returns the language with this tag, of BCP 47 or as the environment has it: "de", "de-CH" and
// "de_AT.UTF-8" are German. An unknown one is English.
func In(tag string) Language {
	tag, _, _ = strings.Cut(strings.ToLower(strings.ReplaceAll(tag, "_", "-")), ".")
	for _, l := range Languages() {
		if tag == l.Tag || strings.HasPrefix(tag, l.Tag+"-") {
			return l
		}
	}
	return English
}

// Say returns the sentence with this key, with the arguments in its places. A key that the
// language does not have is a fault of the program, which a test finds; it is shown as it is.
func (l Language) Say(key string, args ...any) string {
	sentence, known := l.sentences[key]
	if !known {
		return key
	}
	return filled(sentence, args)
}

// filled puts arguments into the numbered places of a sentence, which may leave some out.
func filled(sentence string, args []any) string {
	if len(args) == 0 || !strings.Contains(sentence, "%") {
		return sentence
	}
	return fmt.Sprintf(sentence, args...)
}

// known returns the sentence with this key, or text for a key that the language does not have: a
// name that only a newer Base knows.
func (l Language) known(key, text string) string {
	if sentence, known := l.sentences[key]; known {
		return sentence
	}
	return text
}

// Count returns the sentence key+".one" for 1, and key+".many" for every other number, which is
// the first argument.
func (l Language) Count(key string, n int, args ...any) string {
	form := ".many"
	if n == 1 {
		form = ".one"
	}
	return l.Say(key+form, append([]any{n}, args...)...)
}

package words

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// A Base writes some texts for people itself, in English: why a service has failed, which step an update
// is at. They have no kind on the wire, because they nest (why an update was undone is why a service did
// not start), and because a Base of any version then says what it has always said. The App knows them by
// their formats, which a test compares with the Base's source. A text that a language does not know is
// left in English, and marked as such.

// byBase is a text that a Base has written.
type byBase string

// ByBase is a text that a Base has written, in English. A language that knows it says it.
func ByBase(text string) Said { return Said{args: []any{byBase(text)}} }

// ByBase says a text that a Base has written.
func (l Language) ByBase(text string) Text { return l.Said(ByBase(text)) }

// Within is a text as a part of a sentence: in quotation marks if it is in another language.
func (l Language) Within(text Text) string {
	if text.Lang != l.Tag && text.Text != "" {
		return l.Say("values.quoted", text.Text)
	}
	return text.Text
}

// Cited is a text that a Base has written, as a part of a sentence.
func (l Language) Cited(text string) string { return l.Within(l.ByBase(text)) }

// knownText is a text of a Base: what stands around its arguments, and how a language says it. An argument is
// a text of a Base too, unless its place is in quotation marks.
type knownText struct {
	around   []string
	sentence string
}

// byText makes a table of pairs: the format of a text of a Base, with %s for each argument, and its
// sentence. The first format that fits counts.
func byText(pairs [][2]string) []knownText {
	var table []knownText
	for _, pair := range pairs {
		table = append(table, knownText{strings.Split(pair[0], "%s"), pair[1]})
	}
	return table
}

const (
	// longestTold is the longest text of a Base that is looked up, in bytes, and mostLookups how often its
	// parts are: a Base that lies decides how it is made.
	longestTold = 1024
	mostLookups = 200
)

// knowsText says a text of a Base in the language, if it knows all of it.
func (l Language) knowsText(text string, lookups *int) (string, bool) {
	if len(text) > longestTold {
		return "", false
	}
	for _, known := range l.texts {
		if args, fits := known.arguments(text); fits {
			if said, is := l.fill(known.sentence, args, lookups); is {
				return said, true
			}
		}
		if *lookups >= mostLookups {
			break
		}
	}
	return "", false
}

// arguments are what stands in the places of a format; each has a byte at least.
func (t knownText) arguments(text string) (args []any, fits bool) {
	last := len(t.around) - 1
	rest, begins := strings.CutPrefix(text, t.around[0])
	if !begins || last == 0 {
		return nil, begins && rest == ""
	}
	for n, next := range t.around[1:] {
		arg, found := "", false
		if n == last-1 {
			arg, found = strings.CutSuffix(rest, next)
		} else {
			arg, rest, found = strings.Cut(rest, next)
		}
		if !found || arg == "" {
			return nil, false
		}
		args = append(args, arg)
	}
	return args, true
}

// places are those for arguments, at most three in a sentence.
var places = strings.NewReplacer("%[1]s", "", "%[2]s", "", "%[3]s", "")

// fill puts arguments into a sentence. One that is not in quotation marks is said in the language; a name
// or a number is left as it is.
func (l Language) fill(sentence string, args []any, lookups *int) (string, bool) {
	args, says := slices.Clone(args), strings.ContainsFunc(places.Replace(sentence), unicode.IsLetter)
	for n, arg := range args {
		text := arg.(string)
		if strings.Contains(sentence, fmt.Sprintf("„%%[%d]s“", n+1)) {
			continue
		}
		*lookups++
		said, known := "", false
		if *lookups < mostLookups {
			said, known = l.knowsText(text, lookups)
		}
		switch {
		case known:
			args[n], says = said, true
		case strings.Contains(text, " "):
			return "", false
		}
	}
	return filled(sentence, args), says // a list of names says nothing in any language
}

package words

import (
	"cmp"
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// Text is text for people, with its language in lang (BCP 47): what a Base or the client says is in
// English, and a page says so to screen readers.
type Text struct{ Text, Lang string }

// Problem says what went wrong, in a sentence. English says it as the client does. Another language
// has a sentence for each error of the client by its format, and one for each kind of error, for what the
// Base has said. An error that Failing has made is said in each; one that has no words stays English.
func (l Language) Problem(err error) Text {
	if err == nil {
		return Text{}
	}
	if failure := (*failure)(nil); errors.As(err, &failure) {
		return l.Said(failure.Said)
	}
	var known *client.Error
	if errors.As(err, &known) {
		if sentence := l.errors[cmp.Or(known.Format, known.Text)]; sentence != "" {
			args := make([]any, len(known.Args))
			for i, arg := range known.Args {
				args[i] = l.word(arg)
			}
			return Text{filled(sentence, args), l.Tag}
		}
	}
	for _, problem := range l.problems {
		if errors.Is(err, problem.kind) {
			return Text{problem.sentence, l.Tag}
		}
	}
	return Text{client.Explain(err), English.Tag}
}

// failure is an error that each language says.
type failure struct {
	Said
	kind error
}

// Failing is an error of a kind of package client whose sentence has this key.
func Failing(kind error, key string, args ...any) error { return &failure{Saying(key, args...), kind} }

func (f *failure) Error() string { return f.String() }

func (f *failure) Unwrap() error { return f.kind }

// problem is the sentence of a kind of error.
type problem struct {
	kind     error
	sentence string
}

// byFormat makes a table of pairs: the format of an error, and its sentence.
func byFormat(pairs [][2]string) map[string]string {
	table := map[string]string{}
	for _, pair := range pairs {
		table[pair[0]] = pair[1]
	}
	return table
}

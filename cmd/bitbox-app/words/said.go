package words

import (
	"fmt"
	"slices"
)

// Said is a sentence that is in no language yet: its key and its arguments, which are as in the
// changes of a posture, or sentences themselves. Package owner tells with it what is done, what was
// done, and what that leaves. The zero Said says nothing.
type Said struct {
	key  string
	args []any
}

// Seconds as an argument are written as Language.Duration writes them.
type Seconds uint64

// Saying is the sentence with this key.
func Saying(key string, args ...any) Said { return Said{key, args} }

// Plain is a text that is the same in each language, such as a name.
func Plain(text string) Said { return Said{args: []any{text}} }

// Typed tells whether a person has typed a sentence, in any language: the window may show another one than
// a command.
func Typed(s Said, typed string) bool {
	return slices.ContainsFunc(Languages(), func(l Language) bool { return l.Said(s).Text == typed })
}

// Empty tells whether it says nothing.
func (s Said) Empty() bool { return s.key == "" && len(s.args) == 0 }

// String says it in English, as the commands and the full screen do.
func (s Said) String() string { return English.Said(s).Text }

// Said says it in the language.
func (l Language) Said(s Said) Text {
	switch {
	case s.Empty():
		return Text{}
	case s.key == "":
		text, is := s.args[0].(byBase)
		if !is {
			return Text{fmt.Sprint(s.args...), l.Tag}
		}
		if said, known := l.knowsText(string(text), new(int)); known {
			return Text{said, l.Tag}
		}
		return Text{string(text), English.Tag}
	}
	args := make([]any, len(s.args))
	for i, arg := range s.args {
		args[i] = l.word(arg)
	}
	return Text{l.Say(s.key, args...), l.Tag}
}

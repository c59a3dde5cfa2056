package words

import (
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// The kinds of changes of a posture have their English sentences where the Base finds them too.
func init() {
	for what, sentence := range posture.Sentences() {
		english[changeKey(what)] = sentence
	}
}

func changeKey(what posture.ChangeKind) string { return "changes." + string(what) }

// tense is what the places of a change's sentence become: {be} for what is done, {is} for a state
// and {end} for what German puts at the end.
type tense struct{ be, is, end string }

// Change completes a change that is none of a posture with its kind and its sentence in English. The
// sentences stand under "changes.", without their full stop.
func Change(c client.PostureChange, kind string, args ...any) client.PostureChange {
	c.Kind, c.Args = posture.ChangeKind(kind), args
	c.Text = English.Will(c).Text
	return c
}

// Will says a change before it is made, in a sentence. The Base says how it repairs something, and German
// says it by the finding.
func (l Language) Will(c client.PostureChange) Text {
	if c.Field == "finding" {
		return l.Finding(&basev1.Finding{Id: c.Subject, Fix: c.Text}).Fix
	}
	return l.change(c, l.future, c.Text)
}

// Changed says what has changed, in a sentence.
func (l Language) Changed(c client.PostureChange) Text { return l.change(c, l.done, c.Done) }

// Told says a change as news of what somebody did, in a sentence.
func (l Language) Told(c client.PostureChange) Text { return l.change(c, l.told, c.Told) }

// change writes a change of a known kind in the language. One of an unknown kind has only its English.
func (l Language) change(c client.PostureChange, t tense, text string) Text {
	sentence, known := l.sentences[changeKey(c.Kind)]
	if !known {
		return Text{text, English.Tag}
	}
	sentence = strings.NewReplacer("{be}", t.be, "{is}", t.is, "{end}", t.end).Replace(sentence)
	if len(c.Args) > 0 {
		args := make([]any, len(c.Args))
		for i, arg := range c.Args {
			args[i] = l.word(arg)
		}
		sentence = fmt.Sprintf(sentence, args...)
	}
	return Text{sentence + ".", l.Tag}
}

// Bytes is the size of a file as an argument of a sentence.
type Bytes uint64

// word writes an argument of a change; posture.Word lists the types.
func (l Language) word(arg any) string {
	switch a := arg.(type) {
	case Said:
		return l.Within(l.Said(a))
	case basev1.Node_State:
		return l.nodeState(a)
	case posture.Kind:
		return l.known("values.api."+string(a), posture.Word(a))
	case posture.Place:
		if a.Shared {
			return l.Say("values.port.shared", a.Port)
		}
		return l.Say("values.port", a.Port)
	case time.Duration:
		return l.Length(a)
	case basev1.Network:
		return l.Network(a)
	case Bytes:
		return l.Size(uint64(a))
	case Seconds:
		return l.Duration(uint64(a))
	case posture.ForGood:
		return l.Say("values.good")
	case posture.Networks:
		return l.networks(a)
	case basev1.Role:
		return l.Role(a)
	case sshkey.Key:
		return l.key(a)
	case []sshkey.Key:
		names := list(a, l.key)
		if len(a) == 1 {
			return l.Say("values.key", names)
		}
		return l.Say("values.keys", names)
	}
	return fmt.Sprint(arg)
}

func (l Language) networks(n posture.Networks) string {
	texts := n.Strings()
	switch last := len(texts) - 1; last {
	case -1:
		return l.Say("values.every")
	case 0:
		return texts[0]
	default:
		return l.Say("values.and", strings.Join(texts[:last], ", "), texts[last])
	}
}

// key is the name of a key with its fingerprint, or the fingerprint alone.
func (l Language) key(k sshkey.Key) string {
	if k.Comment == "" {
		return k.Fingerprint
	}
	return l.Say("values.keyname", k.Comment, k.Fingerprint)
}

// Length writes how long something lasts as a person would say it, such as "1 day 3 hours".
func (l Language) Length(d time.Duration) string {
	if d < time.Second {
		return l.Say("values.moment")
	}
	if d < 2*time.Minute && d%time.Minute != 0 {
		return l.Count("values.second", int(d/time.Second))
	}
	var parts []string
	for _, unit := range []struct {
		length time.Duration
		key    string
	}{{24 * time.Hour, "values.day"}, {time.Hour, "values.hour"}, {time.Minute, "values.minute"}, {time.Second, "values.second"}} {
		if n := d / unit.length; n > 0 {
			parts = append(parts, l.Count(unit.key, int(n)))
			d -= n * unit.length
		}
	}
	return strings.Join(parts, " ")
}

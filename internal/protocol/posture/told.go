package posture

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// Message is a change for programs, as an event of a Base carries it.
func (c Change) Message() *basev1.PostureChange {
	m := &basev1.PostureChange{Kind: string(c.Kind), Field: c.Field, Subject: c.Subject, Before: c.Before, After: c.After}
	for _, arg := range c.Args {
		m.Arguments = append(m.Arguments, argumentMessage(arg))
	}
	return m
}

func argumentMessage(arg any) *basev1.ChangeArgument {
	switch a := arg.(type) {
	case Kind:
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Api{Api: string(a)}}
	case Place:
		if a.Shared {
			return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_SharedPort{SharedPort: uint32(a.Port)}}
		}
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Port{Port: uint32(a.Port)}}
	case time.Duration:
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Seconds{Seconds: uint64(a / time.Second)}}
	case ForGood:
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_ForGood{ForGood: true}}
	case Networks:
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Networks{Networks: &basev1.NetworkList{Networks: a.Strings()}}}
	case basev1.Role:
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Role{Role: a}}
	case sshkey.Key:
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Key{Key: keyMessage(a)}}
	case []sshkey.Key:
		list := &basev1.SSHKeyList{}
		for _, key := range a {
			list.Keys = append(list.Keys, keyMessage(key))
		}
		return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Keys{Keys: list}}
	}
	return &basev1.ChangeArgument{Value: &basev1.ChangeArgument_Text{Text: fmt.Sprint(arg)}}
}

func keyMessage(key sshkey.Key) *basev1.SSHKeyName {
	return &basev1.SSHKeyName{Comment: key.Comment, Fingerprint: key.Fingerprint}
}

// ReadChange reads a change that a Base tells of. ok is false if this version does not know its kind, or if it has
// other arguments than the sentence of its kind: then only the Base's own sentence can be shown.
func ReadChange(m *basev1.PostureChange) (c Change, ok bool) {
	c = Change{Kind: ChangeKind(m.GetKind()), Field: m.GetField(), Subject: m.GetSubject(), Before: m.GetBefore(), After: m.GetAfter()}
	sentence, known := sentences[c.Kind]
	if !known || len(m.GetArguments()) != places(sentence) {
		return Change{}, false
	}
	for _, argument := range m.GetArguments() {
		arg := readArgument(argument)
		if arg == nil {
			return Change{}, false
		}
		c.Args = append(c.Args, arg)
	}
	return c.Said(), true
}

// places counts the places for arguments in a sentence.
func places(sentence string) (n int) {
	for n < 9 && strings.Contains(sentence, fmt.Sprintf("%%[%d]s", n+1)) {
		n++
	}
	return n
}

// readArgument returns nil for what cannot be read.
func readArgument(argument *basev1.ChangeArgument) any {
	switch a := argument.GetValue().(type) {
	case *basev1.ChangeArgument_Text:
		return a.Text
	case *basev1.ChangeArgument_Api:
		return Kind(a.Api)
	case *basev1.ChangeArgument_Port:
		return readPlace(a.Port, false)
	case *basev1.ChangeArgument_SharedPort:
		return readPlace(a.SharedPort, true)
	case *basev1.ChangeArgument_Seconds:
		if a.Seconds <= uint64(longestTold/time.Second) {
			return time.Duration(a.Seconds) * time.Second
		}
	case *basev1.ChangeArgument_ForGood:
		return ForGood{}
	case *basev1.ChangeArgument_Networks:
		return readNetworks(a.Networks.GetNetworks())
	case *basev1.ChangeArgument_Role:
		return a.Role
	case *basev1.ChangeArgument_Key:
		return readKey(a.Key)
	case *basev1.ChangeArgument_Keys:
		keys := []sshkey.Key{}
		for _, key := range a.Keys.GetKeys() {
			keys = append(keys, readKey(key))
		}
		return keys
	}
	return nil
}

// readPlace returns nil if the number is none of a port: cut, it would be that of another one.
func readPlace(port uint32, shared bool) any {
	if port > math.MaxUint16 {
		return nil
	}
	return Place{Port: uint16(port), Shared: shared}
}

// longestTold bounds a length of time that a Base tells; no lease or ban lasts as long.
const longestTold = 100 * 365 * 24 * time.Hour

func readKey(key *basev1.SSHKeyName) sshkey.Key {
	return sshkey.Key{Comment: key.GetComment(), Fingerprint: key.GetFingerprint()}
}

// readNetworks returns nil if one of them is no network.
func readNetworks(texts []string) any {
	networks := Networks{}
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil
		}
		networks = append(networks, network)
	}
	return networks
}

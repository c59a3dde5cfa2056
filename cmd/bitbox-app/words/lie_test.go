package words

import (
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// A Base that lies tells a change with arguments of other types than its sentence has, and with numbers of
// any size.
func TestAChangeWithOtherArgumentsIsASentenceOrNone(t *testing.T) {
	arguments := []*basev1.ChangeArgument{
		nil, {}, {Value: &basev1.ChangeArgument_Text{Text: "%[9]s {be} \x1b[2J"}}, {Value: &basev1.ChangeArgument_Api{Api: "%d"}},
		{Value: &basev1.ChangeArgument_Port{Port: 1<<16 + 8845}}, {Value: &basev1.ChangeArgument_SharedPort{SharedPort: 1<<32 - 1}},
		{Value: &basev1.ChangeArgument_Seconds{Seconds: 1<<64 - 1}}, {Value: &basev1.ChangeArgument_Seconds{Seconds: 0}},
		{Value: &basev1.ChangeArgument_ForGood{}}, {Value: &basev1.ChangeArgument_Networks{}}, {Value: &basev1.ChangeArgument_Role{Role: 99}},
		{Value: &basev1.ChangeArgument_Key{}}, {Value: &basev1.ChangeArgument_Keys{}},
		{Value: &basev1.ChangeArgument_Keys{Keys: &basev1.SSHKeyList{Keys: []*basev1.SSHKeyName{nil, {}}}}},
	}
	read := 0
	for kind := range posture.Sentences() {
		for _, argument := range arguments {
			for n := range 9 {
				m := &basev1.PostureChange{Kind: string(kind)}
				for range n {
					m.Arguments = append(m.Arguments, argument)
				}
				c, known := posture.ReadChange(m)
				if !known {
					continue
				}
				read++
				for _, l := range []Language{English, German} {
					if text := l.Told(c).Text; text == "" || strings.Contains(text, "%!") {
						t.Errorf("%s with %v: %q", kind, argument, text)
					} else if strings.Contains(text, "8845") {
						t.Errorf("%s: another port than the one that was told: %q", kind, text)
					}
				}
			}
		}
	}
	if read == 0 {
		t.Error("no change was read")
	}
}

package host

import (
	"slices"
	"testing"
)

func TestOnlyTheConditionsThatKeptAUnitFromStartingAreNamed(t *testing.T) {
	met := condition{Type: "ConditionACPower", Parameter: "true", State: 1}
	unmet := condition{Type: "ConditionPathExists", Negated: true, Parameter: "/off", State: -1}
	unchecked := condition{Type: "ConditionUser", Parameter: "root"}
	trigger := condition{Type: "ConditionHost", Trigger: true, Parameter: "a", State: -1}
	metTrigger := condition{Type: "ConditionHost", Trigger: true, Parameter: "b", State: 1}
	for _, test := range []struct {
		conditions []condition
		want       []string
	}{
		{nil, nil},
		{[]condition{met, unchecked}, nil},
		{[]condition{met, unmet, unchecked}, []string{"ConditionPathExists=!/off"}},
		{[]condition{met, trigger}, []string{"ConditionHost=|a"}},
		{[]condition{trigger, metTrigger}, nil},
		{[]condition{trigger, unmet}, []string{"ConditionPathExists=!/off"}},
	} {
		if got := unmetOf(test.conditions); !slices.Equal(got, test.want) {
			t.Errorf("%v: %q, want %q", test.conditions, got, test.want)
		}
	}
}

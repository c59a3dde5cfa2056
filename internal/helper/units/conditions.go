package units

import (
	"context"
	"fmt"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Conditions is the part of systemd that knows why it did not start a unit.
type Conditions interface {
	// Unmet returns the conditions and assertions of a unit that kept it from starting last, as
	// they stand in the unit, such as "ConditionACPower=true". It returns none if systemd no
	// longer knows them, as after a reload of its units.
	Unmet(ctx context.Context, unit string) ([]string, error)
}

// Unmet says for people which conditions kept the unit of a service from starting.
func Unmet(ctx context.Context, systemd Conditions, s services.Service) (string, error) {
	unmet, err := systemd.Unmet(ctx, s.Unit)
	if err != nil {
		return "", reason.Errorf("ask systemd why %s did not start: %w", s.Name, err)
	}
	if len(unmet) == 0 {
		return fmt.Sprintf("a condition of its unit was not met; its log (%s) says which", s.Name), nil
	}
	var reasons []string
	for _, condition := range unmet {
		reasons = append(reasons, conditionWords(s, condition))
	}
	return strings.Join(reasons, "; "), nil
}

// conditionWords says what a condition of a unit wants, such as "ConditionACPower=true".
func conditionWords(s services.Service, condition string) string {
	switch condition {
	case s.Condition():
		return fmt.Sprintf("%s is switched off; enable it first", s.Name)
	case "ConditionACPower=true":
		return "the machine is not on mains power"
	}
	return "a condition of its unit is not met: " + harmless.Line(harmless.Word(condition))
}

package posture

import (
	"strings"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// An owner reads the reason alone. The journal of the helper names the verb.
func TestARefusalBeginsWithItsReason(t *testing.T) {
	a := newAttacked(t)
	garbage := []byte{0xff}
	operators := encode(resetOrder(a, a.operator, asItIs))
	for name, test := range map[string]struct {
		refused func() error
		want    error
	}{
		"document":                     {func() error { _, err := a.ledger.Submit(garbage, a.now); return err }, ErrMalformed},
		"confirmation":                 {func() error { _, err := a.ledger.Confirm(garbage, true, a.now); return err }, ErrMalformed},
		"reset":                        {func() error { _, _, err := a.ledger.Reset(garbage, a.now); return err }, ErrMalformed},
		"ban":                          {func() error { _, _, err := a.ledger.LiftBan(garbage, a.now); return err }, ErrMalformed},
		"disk":                         {func() error { _, _, err := a.ledger.UseDisk(garbage, a.now); return err }, ErrMalformed},
		"node":                         {func() error { _, _, err := a.ledger.NodeOrder(garbage, a.now); return err }, ErrMalformed},
		"node settings":                {func() error { _, _, err := a.ledger.ChangeNode(garbage, a.now); return err }, ErrMalformed},
		"pairing":                      {func() error { _, _, _, err := a.ledger.PairingOrder(garbage, a.now); return err }, ErrMalformed},
		"words":                        {func() error { _, _, _, err := a.ledger.PairingAnswer(garbage, a.now); return err }, ErrMalformed},
		"reset, signed by an operator": {func() error { _, _, err := a.ledger.Reset(operators, a.now); return err }, ErrNotOwner},
		"confirmation without a try": {func() error {
			_, err := a.ledger.Confirm(encode(a.confirmation(a.owner, func(*systemv1.TryConfirmation) {})), true, a.now)
			return err
		}, ErrNoTry},
		"a known App": {func() error { _, err := a.ledger.Enrol(a.ledger.Effective().Apps[0], "", a.now); return err }, ErrKnownApp},
	} {
		if err := test.refused(); err == nil || !strings.HasPrefix(reason.Of(err), test.want.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

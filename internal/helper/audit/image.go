package audit

import (
	"context"
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// runningImage tells what runs; nil: a Debian with the package.
func runningImage(system System) (*posture.RunningImage, error) {
	running, err := slot.LookWith(system.ReadFile)
	if errors.Is(err, slot.ErrNoImage) {
		return nil, nil
	}
	return &running, err
}

func checkImage(_ context.Context, system System, _ Expectation) ([]difference, error) {
	running, err := runningImage(system)
	if err != nil || running == nil || running.SecureBoot == "on" {
		return nil, err
	}
	found := map[string]string{"setup": "off, and keys can be enrolled", "none": "the machine has no UEFI variables"}[running.SecureBoot]
	if found == "" {
		found = running.SecureBoot
	}
	return []difference{{id: idSecureBoot, found: []string{found}}}, nil
}

package audit

import (
	"context"
	"fmt"
	"strings"
)

// checkEndpoints reminds of what has no end, so that nobody forgets it.
func checkEndpoints(_ context.Context, _ System, want Expectation) ([]difference, error) {
	var found []string
	for _, endpoint := range want.Posture.Endpoints {
		if !endpoint.UntilClosed {
			continue
		}
		from := "every network"
		if len(endpoint.From) > 0 {
			from = strings.Join(endpoint.From.Strings(), ", ")
		}
		found = append(found, fmt.Sprintf("%s on port %d, from %s", endpoint.Kind, endpoint.Port, from))
	}
	if found == nil {
		return nil, nil
	}
	return []difference{{id: idOpenForGood, found: found}}, nil
}

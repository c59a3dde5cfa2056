package owner

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// ReadNetworks reads networks such as 192.168.1.0/24, at most as many as can limit an extra API.
func ReadNetworks(texts []string) (networks []netip.Prefix, err error) {
	for _, text := range texts {
		network, err := client.ParseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not possible: %w", client.Printable(text), err)
		}
		networks = append(networks, network)
	}
	if len(networks) > client.MaxNetworks {
		return nil, fmt.Errorf("%d networks are too many: at most %d can be named", len(networks), client.MaxNetworks)
	}
	return networks, nil
}

// CheckLease refuses a length that no Base accepts.
func CheckLease(length time.Duration) error {
	if length < client.MinLease || length > client.MaxLease || length%time.Second != 0 {
		return fmt.Errorf("%s is not possible: 5m (minutes) to 7d are allowed, in whole seconds", commandline.FormatDuration(length))
	}
	return nil
}

// KeyLines writes keys one on a line.
func KeyLines(keys []sshkey.Key) string {
	var lines []string
	for _, key := range keys {
		lines = append(lines, key.Line)
	}
	return strings.Join(lines, "\n")
}

// Unusable is the error of an argument that cannot be used, in a sentence for the owner.
func Unusable(format string, args ...any) error {
	return &client.Error{Kind: client.ErrInvalid, Text: fmt.Sprintf(format, args...), Format: format, Args: args}
}

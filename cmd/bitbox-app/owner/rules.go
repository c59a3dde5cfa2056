package owner

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
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
		return fmt.Errorf("%s is not possible: 5m (minutes) to 7d are allowed, in whole seconds", timespan.Format(length))
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

// AppOf names the App that a change is the work of: its name, its ID, or the beginning of the key that an owner has
// signed with; empty: none is told.
func AppOf(e *systemv1.ChangeEntry) string {
	key := ""
	if e.GetActor() == systemv1.ChangeEntry_ACTOR_OWNER {
		key = hex.EncodeToString(e.GetSigningKey()[:min(len(e.GetSigningKey()), 8)])
	}
	return cmp.Or(e.GetAppName(), e.GetAppId(), key)
}

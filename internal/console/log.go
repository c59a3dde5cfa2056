package console

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// Log is the display of a Base without a terminal, until ctx ends or the authority fails: one
// line for each thing that a person should see, with the command to type.
func Log(ctx context.Context, authority pairing.Client, logger *slog.Logger) error {
	l := &logDisplay{logger: logger}
	return follow(ctx, authority, l.show)
}

type logDisplay struct {
	logger *slog.Logger
	shown  *systemv1.Snapshot // nil: none yet
}

func (l *logDisplay) show(s *systemv1.Snapshot) {
	before := l.shown
	l.shown = s
	if last := s.GetLast(); before != nil && last != nil && string(last.GetId()) != string(before.GetLast().GetId()) {
		l.logger.Info("pairing ended", "outcome", outcome(last))
	}
	if s.GetListening() != before.GetListening() {
		l.logger.Info("pairing requests", "listening", s.GetListening())
	}
	if asks := asksFor(s); asks != "" && s.GetWindowRole() != before.GetWindowRole() {
		l.logger.Info(asks)
	}
	if fresh := newNumbers(before.GetRequests(), s.GetRequests()); len(fresh) > 0 && s.GetCeremony() == nil {
		l.logger.Info("an App asks to be paired", "numbers", strings.Join(fresh, ", "),
			"accept", "bitbox-base pairing accept NUMBER"+roleFlag(s))
	}
	switch c := s.GetCeremony(); {
	case c != nil && answeredByOwner(c):
		if before.GetCeremony().GetPhase() != c.GetPhase() {
			l.logger.Info("an owner's App has accepted a request, and will confirm it", "number", noiseconn.FormatNumber(c.GetNumber()), "role",
				c.GetRole().Name(),
				"no", "bitbox-base pairing reject")
		}
	case c.GetPhase() == systemv1.Ceremony_PHASE_ACCEPTED && before.GetCeremony().GetPhase() != c.GetPhase():
		l.logger.Info("request accepted, waiting for its App", "number", noiseconn.FormatNumber(c.GetNumber()))
	case c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN && before.GetCeremony().GetCode() != c.GetCode():
		l.logger.Info("does the App show exactly this code?", "code", c.GetCode(), "app", c.GetAppName(), "role", c.GetRole().Name(),
			"yes", "bitbox-base pairing confirm", "no", "bitbox-base pairing reject")
	case c.GetBaseConfirmed() && !before.GetCeremony().GetBaseConfirmed():
		l.logger.Info("confirmed at the Base", "code", c.GetCode(), "app_confirmed", c.GetAppConfirmed())
	}
}

// roleFlag is the flag that a Base with an owner requires.
func roleFlag(s *systemv1.Snapshot) string {
	if s.GetPaired() && s.GetWindowRole() == basev1.Role_ROLE_UNSPECIFIED {
		return " --role viewer|operator|owner"
	}
	return ""
}

// newNumbers are the numbers that were not there before, as they are typed.
func newNumbers(before, now []uint32) []string {
	var fresh []string
	for _, number := range now {
		if !slices.Contains(before, number) {
			fresh = append(fresh, fmt.Sprintf("%06d", number))
		}
	}
	return fresh
}

package admission

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many lines refusals may write per second and in a burst, for each of the two kinds of
// reasons. A flood must not fill the disk, and harmless refusals must not hide the ones that
// count; so each kind has its own budget. One address alone cannot use up the budget of those
// that count: it can make fewer connections per second, and is banned after a few.
const (
	refusalLinesPerSecond = 100
	refusalLinesBurst     = 500
)

// refusalLog writes one line for each refusal, within the budgets. Refusals beyond them are
// counted, and the number is in the next line of their kind.
type refusalLog struct {
	logger *slog.Logger

	mu                 sync.Mutex
	counting, harmless refusalBudget
}

type refusalBudget struct {
	lines      *rate.Limiter
	suppressed int
}

func newRefusalLog(logger *slog.Logger) *refusalLog {
	budget := func() refusalBudget {
		return refusalBudget{lines: rate.NewLimiter(refusalLinesPerSecond, refusalLinesBurst)}
	}
	return &refusalLog{logger: logger, counting: budget(), harmless: budget()}
}

// refused logs that a connection from addr ended without a session. addr may be invalid if it is
// not known; against is invalid if the refusal counts against no address. err may be nil.
func (l *refusalLog) refused(addr, against netip.Addr, reason Reason, err error) {
	suppressed, fits := l.take(against.IsValid())
	if !fits {
		return
	}
	address := "unknown"
	if addr.IsValid() {
		address = addr.WithZone("").String()
	}
	var attributes []any
	if against.IsValid() {
		attributes = append(attributes, slog.String(refusalAgainst, against.String()))
	}
	attributes = append(attributes, slog.String("addr", address), slog.String("reason", string(reason)))
	if err != nil {
		attributes = append(attributes, slog.String("error", err.Error()))
	}
	if suppressed > 0 {
		attributes = append(attributes, slog.Int("suppressed", suppressed))
	}
	message := refusalMessage
	if reason == PairingRequest {
		message = requestMessage
	}
	l.logger.Info(message, attributes...)
}

// take takes a line from the budget and returns how many were suppressed since the last one.
func (l *refusalLog) take(counting bool) (suppressed int, fits bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	budget := &l.harmless
	if counting {
		budget = &l.counting
	}
	if !budget.lines.AllowN(time.Now(), 1) {
		budget.suppressed++
		return 0, false
	}
	suppressed, budget.suppressed = budget.suppressed, 0
	return suppressed, true
}

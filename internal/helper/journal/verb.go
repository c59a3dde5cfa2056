package journal

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
)

// Logs reads logs for those who ask the helper.
type Logs struct {
	Table  services.Table
	Source Source
	// Readers counts all who read.
	Readers *Readers
}

// ReadLogs sends what services have logged.
func (l *Logs) ReadLogs(ctx context.Context, c *caller.Call, request *systemv1.ReadLogs) (*systemv1.SystemReply, error) {
	q, err := Check(l.Table, request.GetRequest())
	if err != nil {
		return nil, err
	}
	give, err := l.Readers.Take(c.Who == caller.Middleware)
	if err != nil {
		return nil, err
	}
	defer give()
	return nil, q.Read(ctx, l.Source, func(logs *systemv1.LogsResult) error {
		return c.Send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Logs{Logs: logs}})
	})
}

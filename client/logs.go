package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// maxLogLines is how many entries of the past the Base gives at most.
const maxLogLines = 10_000

// ReadLogs yields what services have logged, and with Follow what they log from then on, until
// ctx ends. When the Base asks for a new connection it goes on there after the last entry.
// If something ends it before, it yields that as an error.
func (s *Session) ReadLogs(ctx context.Context, request *basev1.ReadLogsRequest) iter.Seq2[*basev1.LogEntry, error] {
	return func(yield func(*basev1.LogEntry, error) bool) {
		r := &readingLogs{session: s, request: request, yield: yield}
		for {
			err := r.once(ctx)
			if errors.Is(err, errMoved) {
				continue
			}
			if err != nil {
				yield(nil, err)
			}
			return
		}
	}
}

// readingLogs is one use of ReadLogs.
type readingLogs struct {
	session *Session
	request *basev1.ReadLogsRequest
	yield   func(*basev1.LogEntry, error) bool
	last    time.Time // of the last entry; zero: there was none
	same    int       // how many entries had this time
}

// once reads one stream to its end. nil: that is all, or the reader wants no more.
func (r *readingLogs) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := r.session.Services.ReadLogs(ctx, r.rest())
	if err != nil {
		return err
	}
	untilRetired(ctx, cancel, stream.Retired())
	skip := r.same
	for message, err := range stream.All() {
		switch {
		case err != nil && context.Cause(ctx) == errMoved:
			return errMoved
		case err != nil:
			return err
		}
		for _, entry := range message.GetEntries() {
			at := entry.GetTime().AsTime()
			if skip > 0 && at.Equal(r.last) {
				skip--
				continue
			}
			if skip = 0; !at.Equal(r.last) {
				r.last, r.same = at, 0
			}
			r.same++
			if !r.yield(entry, nil) {
				return nil
			}
		}
	}
	return nil
}

// rest asks for all at first, and then for what comes after the last entry. Others of the
// same time come once more.
func (r *readingLogs) rest() *basev1.ReadLogsRequest {
	if r.last.IsZero() {
		return r.request
	}
	request := proto.CloneOf(r.request)
	request.Since, request.Lines = timestamppb.New(r.last), maxLogLines
	return request
}

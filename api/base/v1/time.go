package basev1

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Stamp is a time on the wire, in seconds; absent if it is not known.
func Stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() || t.Unix() == 0 {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: t.Unix()}
}

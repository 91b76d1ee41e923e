package fanoutotel

import (
	"context"
	"errors"
	"strings"

	"github.com/gofanout/fanout"
)

// errorTypes are what error.type says of an error of a publish or of a call.
var errorTypes = []struct {
	is   error
	name string
}{
	{errUnreturned, "unreturned"}, {fanout.ErrQueueFull, "queue_full"}, {fanout.ErrClosed, "closed"}, {fanout.ErrInvalidMessage, "invalid_message"},
	{fanout.ErrUnconfirmed, "unconfirmed"}, {fanout.ErrWouldDeadlock, "would_deadlock"}, {fanout.ErrBatchTooLarge, "batch_too_large"},
	{fanout.ErrStale, "stale"}, {fanout.ErrSettled, "settled"}, {fanout.ErrUnknownID, "unknown_id"},
	{fanout.ErrInvalidOption, "invalid_option"}, {fanout.ErrUnsupported, "unsupported"},
	{context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"},
}

// errorType is error.type for err, "" for nil.
func errorType(err error) string {
	if err == nil {
		return ""
	}
	for _, t := range errorTypes {
		if errors.Is(err, t.is) {
			return t.name
		}
	}
	return "_OTHER"
}

// causeType is error.type for an attempt that ended so, "" if it did not fail.
func causeType(c fanout.Cause) string {
	switch c {
	case fanout.Acked, fanout.Snoozed, fanout.Released:
		return ""
	case fanout.TimedOut:
		return "timed_out"
	}
	return strings.ReplaceAll(c.String(), " ", "_")
}

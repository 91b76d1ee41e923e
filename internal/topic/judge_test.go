package topic

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/message"
)

func TestWhatAHandlerReturnsIsJudged(t *testing.T) {
	wrapped := fmt.Errorf("reserve: %w", errBusy)
	inPermanent := fmt.Errorf("handler: %w", message.Permanent(errBusy))
	joined := errors.Join(errBusy, message.Permanent(errBusy))
	twice := errors.Join(message.RetryAfter(errBusy, time.Minute), message.Permanent(errBusy))
	outer := message.Permanent(message.RetryAfter(errBusy, time.Minute))
	later := message.RetryAfter(message.Permanent(errBusy), time.Minute)
	closed := fmt.Errorf("publish: %w", message.ErrClosed)
	permanent, retry := message.Permanent(errBusy), message.RetryAfter(errBusy, time.Hour)
	for _, row := range []struct {
		name string
		err  error
		want message.Verdict
	}{
		{"nil acknowledges", nil, message.Verdict{Cause: message.Acked}},
		{"an error fails", errBusy, message.Verdict{Cause: message.Failed, Wait: message.FromBackoff, Err: errBusy}},
		{"a wrapped error fails", wrapped, message.Verdict{Cause: message.Failed, Wait: message.FromBackoff, Err: wrapped}},
		{"the end of the context fails", context.Canceled, message.Verdict{Cause: message.Failed, Wait: message.FromBackoff, Err: context.Canceled}},
		{"permanent", permanent, message.Verdict{Cause: message.PermanentlyFailed, Err: permanent}},
		{"permanent of a closed topic is not released", message.Permanent(closed), message.Verdict{Cause: message.PermanentlyFailed, Err: message.Permanent(closed)}},
		{"wrapped permanent", inPermanent, message.Verdict{Cause: message.PermanentlyFailed, Err: inPermanent}},
		{"joined permanent", joined, message.Verdict{Cause: message.PermanentlyFailed, Err: joined}},
		{"retry", retry, message.Verdict{Cause: message.Failed, Wait: time.Hour, Err: retry}},
		{"retry at once", message.RetryAfter(errBusy, 0), message.Verdict{Cause: message.Failed, Wait: time.Millisecond, Err: message.RetryAfter(errBusy, 0)}},
		{"retry in the past", message.RetryAfter(errBusy, -time.Hour), message.Verdict{Cause: message.Failed, Wait: time.Millisecond, Err: message.RetryAfter(errBusy, -1)}},
		{"the first of two that are joined", twice, message.Verdict{Cause: message.Failed, Wait: time.Minute, Err: twice}},
		{"the outer of two: permanent", outer, message.Verdict{Cause: message.PermanentlyFailed, Err: outer}},
		{"the outer of two: retry", later, message.Verdict{Cause: message.Failed, Wait: time.Minute, Err: later}},
		{"snooze", message.Snooze(time.Hour), message.Verdict{Cause: message.Snoozed, Wait: time.Hour}},
		{"snooze for nothing", message.Snooze(0), message.Verdict{Cause: message.Snoozed, Wait: time.Millisecond}},
		{"wrapped snooze", fmt.Errorf("not yet: %w", message.Snooze(time.Hour)), message.Verdict{Cause: message.Snoozed, Wait: time.Hour}},
		{"a closed topic releases", message.ErrClosed, message.Verdict{Cause: message.Released, Wait: message.FromBackoff, Err: message.ErrClosed}},
		{"a wrapped closed topic releases", closed, message.Verdict{Cause: message.Released, Wait: message.FromBackoff, Err: closed}},
	} {
		t.Run(row.name, func(t *testing.T) { require.Equal(t, row.want, message.Judge(row.err)) })
	}
}

func TestAPanicWithAnErrorWrapsIt(t *testing.T) {
	require.EqualError(t, callback.Error("no ink"), "panic: no ink")
	require.EqualError(t, callback.Error(7), "panic: 7")
	require.EqualError(t, callback.Error(errBusy), "panic: busy")
	require.ErrorIs(t, callback.Error(errBusy), errBusy)
	require.NotErrorIs(t, callback.Error("busy"), errBusy)
}

func TestAllCausesButAckedSnoozedAndReleasedSpendAnAttempt(t *testing.T) {
	free := map[message.Cause]bool{message.Acked: true, message.Snoozed: true, message.Released: true}
	for c := message.Acked; int(c) < message.Causes; c++ {
		require.Equal(t, !free[c], c.Spends(), "%v", c)
	}
}

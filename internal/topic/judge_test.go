package topic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

func TestWhatBecomesOfAMessage(t *testing.T) {
	const limit = message.MostPasses
	for _, row := range []struct {
		name    string
		v       message.Verdict
		most    int
		letters bool
		expired bool
		spent   uint32
		passes  uint16

		then      store.Fate
		spentNow  uint32
		passesNow uint16
	}{
		{name: "a failure spends an attempt", v: message.Verdict{Cause: message.Failed}, most: 3, spent: 1, then: store.Retries, spentNow: 2},
		{name: "the last attempt", v: message.Verdict{Cause: message.Failed}, most: 3, spent: 2, then: store.Dies, spentNow: 3},
		{name: "more than the last", v: message.Verdict{Cause: message.TimedOut}, most: 3, spent: 7, then: store.Dies, spentNow: 8},
		{name: "without a limit", v: message.Verdict{Cause: message.Failed}, most: message.Unlimited, spent: math.MaxUint32 - 1, then: store.Retries, spentNow: math.MaxUint32},
		{name: "permanent", v: message.Verdict{Cause: message.PermanentlyFailed}, most: message.Unlimited, then: store.Dies, spentNow: 1},
		{name: "a snooze spends none", v: message.Verdict{Cause: message.Snoozed, Wait: time.Second}, most: 1, then: store.Retries, passesNow: 1},
		{name: "a snooze too often", v: message.Verdict{Cause: message.Snoozed, Wait: 1}, most: 9, passes: limit - 1, then: store.Dies, passesNow: limit},
		{name: "passes don't overflow", v: message.Verdict{Cause: message.Released, Wait: 1}, most: 9, passes: limit, then: store.Dies, passesNow: limit},
		{name: "a release without a wait does not count", v: message.Verdict{Cause: message.Released}, most: 9, passes: limit - 1, then: store.Retries, passesNow: limit - 1},
		{name: "one that has expired", v: message.Verdict{Cause: message.Failed}, most: 3, expired: true, then: store.Expires, spentNow: 1},
		{name: "dead before it is expired", v: message.Verdict{Cause: message.Failed}, most: 1, expired: true, then: store.Dies, spentNow: 1},
		{name: "a letter never dies", v: message.Verdict{Cause: message.PermanentlyFailed}, most: 1, letters: true, expired: true, then: store.Retries, spentNow: 1},
		{name: "nor by snoozes", v: message.Verdict{Cause: message.Snoozed, Wait: 1}, most: 1, letters: true, passes: limit, then: store.Retries, passesNow: limit},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := &store.Store[int]{Set: &settings.Limits{MaxAttempts: row.most}, Letters: row.letters}
			then, spent, passes := q.Judge(row.v, row.spent, row.passes, row.expired)
			require.Equal(t, row.then, then)
			require.Equal(t, row.spentNow, spent)
			require.Equal(t, row.passesNow, passes)
		})
	}
}

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
	require.EqualError(t, queue.PanicError("no ink"), "panic: no ink")
	require.EqualError(t, queue.PanicError(7), "panic: 7")
	require.EqualError(t, queue.PanicError(errBusy), "panic: busy")
	require.ErrorIs(t, queue.PanicError(errBusy), errBusy)
	require.NotErrorIs(t, queue.PanicError("busy"), errBusy)
}

func TestAllCausesButAckedSnoozedAndReleasedSpendAnAttempt(t *testing.T) {
	free := map[message.Cause]bool{message.Acked: true, message.Snoozed: true, message.Released: true}
	for c := message.Acked; int(c) < message.Causes; c++ {
		require.Equal(t, !free[c], c.Spends(), "%v", c)
	}
}

func TestWhatIsLeftCountsNoHandlers(t *testing.T) {
	left := queue.Left{Ready: 1, Retrying: 2, Delayed: 3, InFlight: 4, Parked: 5, Released: 6, Running: 7}
	require.Equal(t, 1+2+3+4+5+6, left.Messages(), "handlers are no messages")
}

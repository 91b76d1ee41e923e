package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

func TestWhatBecomesOfAMessage(t *testing.T) {
	const limit = passesLimit
	for _, row := range []struct {
		name    string
		v       verdict
		most    int
		letters bool
		expired bool
		spent   uint32
		passes  uint16

		then      fate
		spentNow  uint32
		passesNow uint16
	}{
		{name: "a failure spends an attempt", v: verdict{cause: Failed}, most: 3, spent: 1, then: retries, spentNow: 2},
		{name: "the last attempt", v: verdict{cause: Failed}, most: 3, spent: 2, then: dies, spentNow: 3},
		{name: "more than the last", v: verdict{cause: TimedOut}, most: 3, spent: 7, then: dies, spentNow: 8},
		{name: "without a limit", v: verdict{cause: Failed}, most: Unlimited, spent: math.MaxUint32 - 1, then: retries, spentNow: math.MaxUint32},
		{name: "permanent", v: verdict{cause: PermanentlyFailed}, most: Unlimited, then: dies, spentNow: 1},
		{name: "a snooze spends none", v: verdict{cause: Snoozed, wait: time.Second}, most: 1, then: retries, passesNow: 1},
		{name: "a snooze too often", v: verdict{cause: Snoozed, wait: 1}, most: 9, passes: limit - 1, then: dies, passesNow: limit},
		{name: "passes don't overflow", v: verdict{cause: Released, wait: 1}, most: 9, passes: limit, then: dies, passesNow: limit},
		{name: "a release without a wait does not count", v: verdict{cause: Released}, most: 9, passes: limit - 1, then: retries, passesNow: limit - 1},
		{name: "one that has expired", v: verdict{cause: Failed}, most: 3, expired: true, then: expires, spentNow: 1},
		{name: "dead before it is expired", v: verdict{cause: Failed}, most: 1, expired: true, then: dies, spentNow: 1},
		{name: "a letter never dies", v: verdict{cause: PermanentlyFailed}, most: 1, letters: true, expired: true, then: retries, spentNow: 1},
		{name: "nor by snoozes", v: verdict{cause: Snoozed, wait: 1}, most: 1, letters: true, passes: limit, then: retries, passesNow: limit},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := &Queue[int]{set: &queueLimits{maxAttempts: row.most}, letters: row.letters}
			then, spent, passes := q.judge(row.v, row.spent, row.passes, row.expired)
			require.Equal(t, row.then, then)
			require.Equal(t, row.spentNow, spent)
			require.Equal(t, row.passesNow, passes)
		})
	}
}

func TestWhatAHandlerReturnsIsJudged(t *testing.T) {
	wrapped := fmt.Errorf("reserve: %w", errBusy)
	inPermanent := fmt.Errorf("handler: %w", Permanent(errBusy))
	joined := errors.Join(errBusy, Permanent(errBusy))
	twice := errors.Join(RetryAfter(errBusy, time.Minute), Permanent(errBusy))
	outer := Permanent(RetryAfter(errBusy, time.Minute))
	later := RetryAfter(Permanent(errBusy), time.Minute)
	closed := fmt.Errorf("publish: %w", ErrClosed)
	permanent, retry := Permanent(errBusy), RetryAfter(errBusy, time.Hour)
	for _, row := range []struct {
		name string
		err  error
		want verdict
	}{
		{"nil acknowledges", nil, verdict{cause: Acked}},
		{"an error fails", errBusy, verdict{cause: Failed, wait: fromBackoff, err: errBusy}},
		{"a wrapped error fails", wrapped, verdict{cause: Failed, wait: fromBackoff, err: wrapped}},
		{"the end of the context fails", context.Canceled, verdict{cause: Failed, wait: fromBackoff, err: context.Canceled}},
		{"permanent", permanent, verdict{cause: PermanentlyFailed, err: permanent}},
		{"permanent of a closed topic is not released", Permanent(closed), verdict{cause: PermanentlyFailed, err: Permanent(closed)}},
		{"wrapped permanent", inPermanent, verdict{cause: PermanentlyFailed, err: inPermanent}},
		{"joined permanent", joined, verdict{cause: PermanentlyFailed, err: joined}},
		{"retry", retry, verdict{cause: Failed, wait: time.Hour, err: retry}},
		{"retry at once", RetryAfter(errBusy, 0), verdict{cause: Failed, wait: time.Millisecond, err: RetryAfter(errBusy, 0)}},
		{"retry in the past", RetryAfter(errBusy, -time.Hour), verdict{cause: Failed, wait: time.Millisecond, err: RetryAfter(errBusy, -1)}},
		{"the first of two that are joined", twice, verdict{cause: Failed, wait: time.Minute, err: twice}},
		{"the outer of two: permanent", outer, verdict{cause: PermanentlyFailed, err: outer}},
		{"the outer of two: retry", later, verdict{cause: Failed, wait: time.Minute, err: later}},
		{"snooze", Snooze(time.Hour), verdict{cause: Snoozed, wait: time.Hour}},
		{"snooze for nothing", Snooze(0), verdict{cause: Snoozed, wait: time.Millisecond}},
		{"wrapped snooze", fmt.Errorf("not yet: %w", Snooze(time.Hour)), verdict{cause: Snoozed, wait: time.Hour}},
		{"a closed topic releases", ErrClosed, verdict{cause: Released, wait: fromBackoff, err: ErrClosed}},
		{"a wrapped closed topic releases", closed, verdict{cause: Released, wait: fromBackoff, err: closed}},
	} {
		t.Run(row.name, func(t *testing.T) { require.Equal(t, row.want, judge(row.err)) })
	}
}

func TestAPanicWithAnErrorWrapsIt(t *testing.T) {
	require.EqualError(t, panicError("no ink"), "panic: no ink")
	require.EqualError(t, panicError(7), "panic: 7")
	require.EqualError(t, panicError(errBusy), "panic: busy")
	require.ErrorIs(t, panicError(errBusy), errBusy)
	require.NotErrorIs(t, panicError("busy"), errBusy)
}

func TestAllCausesButAckedSnoozedAndReleasedSpendAnAttempt(t *testing.T) {
	free := map[Cause]bool{Acked: true, Snoozed: true, Released: true}
	for c := Acked; int(c) < message.Causes; c++ {
		require.Equal(t, !free[c], c.spends(), "%v", c)
	}
}

func TestWhatIsLeftCountsNoHandlers(t *testing.T) {
	left := Left{Ready: 1, Retrying: 2, Delayed: 3, InFlight: 4, Parked: 5, Released: 6, Running: 7}
	require.Equal(t, 1+2+3+4+5+6, left.messages(), "handlers are no messages")
}

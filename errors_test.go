package fanout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

var errNoOrder = errors.New("no such order")

// A codeError is an error with something to ask for by errors.As.
type codeError struct{ code int }

func (e *codeError) Error() string { return fmt.Sprintf("code %d", e.code) }

func sentinels() []error {
	return []error{
		ErrClosed, ErrQueueFull, ErrBatchTooLarge, ErrInvalidMessage,
		ErrStale, ErrSettled, ErrInvalidOption, ErrUnsupported,
	}
}

func TestEverySentinelIsItselfAndNoOther(t *testing.T) {
	texts := map[string]bool{}
	for i, a := range sentinels() {
		require.True(t, strings.HasPrefix(a.Error(), "fanout: "), "%v", a)
		require.False(t, texts[a.Error()], "%v is said by two", a)
		texts[a.Error()] = true
		for j, b := range sentinels() {
			require.Equal(t, i == j, errors.Is(a, b), "%v is %v", a, b)
			require.Equal(t, i == j, errors.Is(fmt.Errorf("publish: %w", a), b), "%v is %v", a, b)
		}
		require.NotErrorIs(t, a, context.Canceled)
		require.NotErrorIs(t, a, context.DeadlineExceeded)
	}
}

func TestOperationsReturnTheSentinelThatIsDocumentedAndNoOther(t *testing.T) {
	for _, row := range []struct {
		name string
		want error
		do   func(s *stage) error
	}{
		{"publish to a closed topic", ErrClosed, func(s *stage) error {
			return errors.Join(s.top.Close(), s.top.Publish(s.ctx, 1))
		}},
		{"open in a closed topic", ErrClosed, func(s *stage) error {
			_, err := openClosed(s)
			return err
		}},
		{"receive from a closed queue", ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().Receive(s.ctx)
			return err
		}},
		{"try to receive from a closed queue", ErrClosed, func(s *stage) error {
			_, _, err := s.closedQueue().TryReceive(s.ctx)
			return err
		}},
		{"receive a batch from a closed queue", ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().ReceiveBatch(s.ctx, 1)
			return err
		}},
		{"receive from a closed queue into a slice", ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().ReceiveInto(s.ctx, make([]Delivery[int], 1))
			return err
		}},
		{"subscribe to a closed queue", ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().Subscribe(s.ctx, handleNothing)
			return err
		}},
		{"redrive to a closed queue", ErrClosed, func(s *stage) error {
			_, err := s.closedQueue().Redrive(s.ctx)
			return err
		}},
		{"settle in a closed queue", ErrClosed, func(s *stage) error {
			s.closedQueue()
			return s.d.Ack(s.ctx)
		}},
		{"extend in a closed queue", ErrClosed, func(s *stage) error {
			s.closedQueue()
			return s.d.Extend(s.ctx, time.Minute)
		}},
		{"publish where a queue rejects", ErrQueueFull, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "small", WithCapacity(1), WithOverflow(Reject))
			return errors.Join(err, s.top.Publish(s.ctx, 1), s.top.Publish(s.ctx, 2))
		}},
		{"try to publish where it would wait", ErrQueueFull, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "small", WithCapacity(1))
			return errors.Join(err, s.top.Publish(s.ctx, 1), s.top.TryPublish(s.ctx, 2))
		}},
		{"publish a batch above a capacity", ErrBatchTooLarge, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "small", WithCapacity(1))
			return errors.Join(err, s.top.PublishMessages(s.ctx, make([]Message[int], 2)...))
		}},
		{"publish a negative delay", ErrInvalidMessage, func(s *stage) error {
			return s.top.PublishMessages(s.ctx, Message[int]{Delay: -1})
		}},
		{"settle twice", ErrSettled, func(s *stage) error {
			return errors.Join(s.d.Ack(s.ctx), s.d.Nack(s.ctx))
		}},
		{"extend what is settled", ErrSettled, func(s *stage) error {
			return errors.Join(s.d.Nack(s.ctx), s.d.Extend(s.ctx, time.Minute))
		}},
		{"settle too late", ErrStale, func(s *stage) error {
			time.Sleep(time.Minute)
			return s.d.Ack(s.ctx)
		}},
		{"extend too late", ErrStale, func(s *stage) error {
			time.Sleep(time.Minute)
			return s.d.Extend(s.ctx, time.Minute)
		}},
		{"settle what was peeked at", ErrStale, func(s *stage) error {
			ds, err := s.q.Peek(s.ctx, 1)
			return errors.Join(err, ds[0].Ack(s.ctx))
		}},
		{"settle the zero delivery", ErrStale, func(s *stage) error { return Delivery[int]{}.Ack(s.ctx) }},
		{"extend the zero delivery", ErrStale, func(s *stage) error { return Delivery[int]{}.Extend(s.ctx, 1) }},
		{"redrive a dead-letter queue", ErrUnsupported, func(s *stage) error {
			_, err := s.q.DeadLetters().Redrive(s.ctx)
			return err
		}},
		{"close a dead-letter queue", ErrUnsupported, func(s *stage) error { return s.q.DeadLetters().Close() }},
		{"open without a name", ErrInvalidOption, func(s *stage) error {
			_, err := s.top.OpenQueue(s.ctx, "")
			return err
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				s := newStage(t)
				err := row.do(s)
				require.Error(t, err)
				for _, e := range sentinels() {
					require.Equal(t, e == row.want, errors.Is(err, e), "%v is %v", err, e)
				}
			})
		})
	}
}

func openClosed(s *stage) (*Queue[int], error) {
	if err := s.top.Close(); err != nil {
		return nil, err
	}
	return s.top.OpenQueue(s.ctx, "other")
}

func (s *stage) closedQueue() *Queue[int] {
	if err := s.q.Close(); err != nil {
		panic(err)
	}
	return s.q
}

func TestErrorsNameTheTopicOrTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(1))
		require.EqualError(t, top.PublishMessages(ctx, make([]Message[int], 2)...),
			`fanout: publish to "payments": fanout: batch too large: 2 messages for queue "audit", which has a capacity of 1`)
		publish(t, top, 1)
		require.EqualError(t, top.TryPublish(ctx, 2),
			`fanout: publish to "payments": fanout: queue full: queue "audit"`)
		d := receive(t, q)
		require.NoError(t, d.Ack(ctx))
		require.EqualError(t, d.Ack(ctx), `fanout: delivery already settled: queue "audit"`)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := q.Receive(short)
		require.EqualError(t, err, `fanout: receive from "audit": context deadline exceeded`)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, q.DeadLetters().Close(),
			`fanout: unsupported: closing the dead-letter queue "audit/dead": close "audit" first`)
		require.NoError(t, top.Close())
		require.EqualError(t, top.Publish(ctx, 3), `fanout: publish to "payments": fanout: closed`)
		_, err = top.OpenQueue(ctx, "late")
		require.EqualError(t, err, `fanout: open queue "late" of topic "payments": fanout: closed`)
	})
}

func TestTheZeroDeliveryHasNothingToTell(t *testing.T) {
	var d Delivery[int]
	require.Empty(t, d.ID())
	require.Empty(t, d.Queue())
	require.Zero(t, d.Attempt())
	require.True(t, d.PublishedAt().IsZero())
	require.True(t, d.Deadline().IsZero())
	require.Nil(t, d.History())
	require.Nil(t, d.Attributes())
	_, ok := d.Attribute("region")
	require.False(t, ok)
}

// --- what ends up in a text ---

func TestAShutdownErrorTellsWhatIsLeftWhereAndWhy(t *testing.T) {
	all := Left{
		Queue: "audit", Ready: 1, Retrying: 2, Delayed: 3, InFlight: 4, Parked: 5, Released: 6, Running: 7,
	}
	for _, row := range []struct {
		err  *ShutdownError
		want string
	}{
		{
			&ShutdownError{Topic: "payments", Queues: []Left{{Queue: "audit", Ready: 2}}},
			`fanout: shutdown of topic "payments" left queue "audit": 2 ready`,
		},
		{
			&ShutdownError{
				Topic: "payments", Err: context.DeadlineExceeded,
				Queues: []Left{{Queue: "audit", Ready: 2, Running: 1}, {Queue: "inventory", Parked: 3}},
			},
			`fanout: shutdown of topic "payments" left queue "audit": 2 ready, 1 handler running; ` +
				`queue "inventory": 3 parked: context deadline exceeded`,
		},
		{
			&ShutdownError{Topic: "payments", Queues: []Left{all}},
			`fanout: shutdown of topic "payments" left queue "audit": 1 ready, 2 retrying, 3 delayed, ` +
				`4 in flight, 5 parked, 6 released, 7 handlers running`,
		},
	} {
		require.EqualError(t, row.err, row.want)
	}
	require.Equal(t, 1+2+3+4+5+6, all.messages(), "handlers are no messages")
	require.Equal(t, `queue "audit":`, Left{Queue: "audit"}.String())
}

func TestAShutdownErrorUnwrapsToWhyTheWaitEnded(t *testing.T) {
	var err error = &ShutdownError{Topic: "payments", Err: context.Canceled}
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, context.DeadlineExceeded)

	err = fmt.Errorf("main: %w", &ShutdownError{Topic: "payments"})
	require.NotErrorIs(t, err, context.Canceled)
	var left *ShutdownError
	require.ErrorAs(t, err, &left)
	require.Equal(t, "payments", left.Topic)
	require.NoError(t, left.Unwrap())
}

func TestShutdownReturnsAShutdownErrorInTheOrderOfTheQueuesNames(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		openQueue(t, top, "late", WithDelay(time.Hour))
		openQueue(t, top, "audit")
		openQueue(t, top, "none", WithFilter(func(int) bool { return false }))
		publish(t, top, 1, 2)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := top.Shutdown(short)
		require.EqualError(t, err, `fanout: shutdown of topic "payments" left queue "audit": 2 ready; `+
			`queue "late": 2 delayed: context deadline exceeded`)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, err, top.Shutdown(ctx), "the same again")
	})
}

func TestAShutdownErrorHasNoReasonIfOnlyTheDelayedAreLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		openQueue(t, top, "late", WithDelay(time.Hour))
		publish(t, top, 1)
		err := top.Shutdown(ctx)
		var left *ShutdownError
		require.ErrorAs(t, err, &left)
		require.Equal(t, []Left{{Queue: "late", Delayed: 1}}, left.Queues)
		require.NoError(t, left.Err)
	})
}

func TestAnAttemptTellsItselfInOneLine(t *testing.T) {
	for _, row := range []struct {
		attempt Attempt
		want    string
	}{
		{Attempt{Number: 1, Cause: TimedOut, Elapsed: 30 * time.Second}, "attempt 1: timed out after 30s"},
		{Attempt{Number: 2, Cause: Failed, Elapsed: 1234567, Err: errNoOrder}, "attempt 2: failed after 1.235ms: no such order"},
		{Attempt{Number: 3, Cause: Panicked, Err: errNoOrder, Stack: "goroutine 1"}, "attempt 3: panicked after 0s: no such order"},
	} {
		require.Equal(t, row.want, row.attempt.String())
	}
}

func TestEveryCauseHasANameOfItsOwn(t *testing.T) {
	want := map[Cause]string{
		0: "none", Acked: "acked", Failed: "failed", Panicked: "panicked", Exited: "exited",
		TimedOut: "timed out", Nacked: "nacked", PermanentlyFailed: "permanent", Expired: "expired",
		Snoozed: "snoozed", Released: "released",
	}
	require.Len(t, want, message.Causes)
	for c, name := range want {
		require.Equal(t, name, c.String())
	}
	require.Equal(t, "Cause(11)", Cause(len(want)).String())
	require.Equal(t, "Cause(255)", Cause(255).String())
}

func TestAllCausesButAckedSnoozedAndReleasedSpendAnAttempt(t *testing.T) {
	free := map[Cause]bool{Acked: true, Snoozed: true, Released: true}
	for c := Acked; int(c) < message.Causes; c++ {
		require.Equal(t, !free[c], c.spends(), "%v", c)
	}
}

func TestEveryOverflowHasTheNameOfItsConstant(t *testing.T) {
	require.Equal(t, "Block", Block.String())
	require.Equal(t, "Reject", Reject.String())
	require.Equal(t, "DropOldest", DropOldest.String())
	require.Equal(t, "DropNewest", DropNewest.String())
	require.Equal(t, "Overflow(0)", Overflow(0).String())
	require.Equal(t, "Overflow(5)", (DropNewest + 1).String())
}

func TestEveryDropReasonHasAName(t *testing.T) {
	require.Equal(t, "drop oldest", DroppedOldest.String())
	require.Equal(t, "drop newest", DroppedNewest.String())
	require.Equal(t, "close", DroppedByClose.String())
	require.Equal(t, "none", DropReason(0).String())
	require.Equal(t, "purge", DroppedByPurge.String())
	require.Equal(t, "delete", DroppedByDelete.String())
	require.Equal(t, "DropReason(6)", (DroppedByDelete + 1).String())
}

// --- outcomes ---

func TestAnOutcomeOfNoErrorIsNone(t *testing.T) {
	require.NoError(t, Permanent(nil))
	require.NoError(t, RetryAfter(nil, time.Minute))
	require.Error(t, Snooze(0), "a snooze needs no error")
}

func TestAnOutcomeWrapsItsError(t *testing.T) {
	inner := fmt.Errorf("reserve: %w", errors.Join(errNoOrder, &codeError{404}))
	for _, err := range []error{
		Permanent(inner),
		RetryAfter(inner, time.Minute),
		fmt.Errorf("handler: %w", Permanent(inner)),
		errors.Join(errBusy, RetryAfter(inner, time.Minute)),
		Permanent(RetryAfter(inner, time.Minute)),
	} {
		require.ErrorIs(t, err, errNoOrder)
		var code *codeError
		require.ErrorAs(t, err, &code)
		require.Equal(t, 404, code.code)
		require.NotErrorIs(t, err, ErrClosed)
	}
	require.NoError(t, errors.Unwrap(Snooze(time.Minute)))
}

func TestAnOutcomeSaysWhatItIs(t *testing.T) {
	require.EqualError(t, Permanent(errNoOrder), "no such order")
	require.EqualError(t, RetryAfter(errNoOrder, time.Minute), "no such order")
	require.EqualError(t, Snooze(time.Minute), "fanout: snooze for 1m0s")
	require.EqualError(t, Snooze(-1), "fanout: snooze for 1ms")
}

func TestWhatAHandlerReturnsIsJudged(t *testing.T) {
	wrapped := fmt.Errorf("reserve: %w", errNoOrder)
	inPermanent := fmt.Errorf("handler: %w", Permanent(errNoOrder))
	joined := errors.Join(errBusy, Permanent(errNoOrder))
	twice := errors.Join(RetryAfter(errBusy, time.Minute), Permanent(errNoOrder))
	outer := Permanent(RetryAfter(errBusy, time.Minute))
	later := RetryAfter(Permanent(errNoOrder), time.Minute)
	closed := fmt.Errorf("publish: %w", ErrClosed)
	permanent, retry := Permanent(errNoOrder), RetryAfter(errBusy, time.Hour)
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

func TestWhatAHandlerReturnsStaysInTheHistoryAsItWas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		publish(t, top, 1)
		for _, err := range []error{
			fmt.Errorf("reserve: %w", RetryAfter(&codeError{503}, time.Second)),
			fmt.Errorf("not yet: %w", Snooze(time.Second)),
			fmt.Errorf("reserve: %w", Permanent(&codeError{404})),
		} {
			d, rerr := q.Receive(ctx)
			require.NoError(t, rerr)
			require.NoError(t, d.Settle(ctx, err))
		}
		h := receive(t, q.DeadLetters()).History()
		require.Len(t, h, 3)
		var code *codeError
		require.ErrorAs(t, h[0].Err, &code)
		require.Equal(t, 503, code.code)
		require.EqualError(t, h[0].Err, "reserve: code 503")
		require.Equal(t, Snoozed, h[1].Cause)
		require.NoError(t, h[1].Err, "a snooze is no failure")
		require.ErrorAs(t, h[2].Err, &code)
		require.Equal(t, 404, code.code)
		require.EqualError(t, h[2].Err, "reserve: code 404")
	})
}

func TestAPanicWithAnErrorWrapsIt(t *testing.T) {
	require.EqualError(t, panicError("no ink"), "panic: no ink")
	require.EqualError(t, panicError(7), "panic: 7")
	require.EqualError(t, panicError(errBusy), "panic: busy")
	require.ErrorIs(t, panicError(errBusy), errBusy)
	require.NotErrorIs(t, panicError("busy"), errBusy)
}

// --- history ---

// numbers returns the numbers of a history's attempts.
func numbersOf(h *history) []int {
	var ns []int
	for _, a := range h.Attempts(0) {
		ns = append(ns, a.Number)
	}
	return ns
}

func TestAHistoryNumbersItsAttempts(t *testing.T) {
	var h *history
	for i := 1; i <= 5; i++ {
		h = h.With(kept{Attempt: message.Attempt{Number: 99, Cause: message.Failed, Elapsed: time.Duration(i)}})
		require.Len(t, h.Kept(), i)
	}
	require.Equal(t, []int{1, 2, 3, 4, 5}, numbersOf(h))
	for i, a := range h.Kept() {
		require.Equal(t, time.Duration(i+1), a.Elapsed)
	}
}

func TestAHistoryThatADeliveryCarriesDoesNotChange(t *testing.T) {
	var hs []*history
	var h *history
	for range 3 * 1000 {
		h = h.With(kept{Attempt: message.Attempt{Cause: message.Failed}})
		hs = append(hs, h)
	}
	for i, h := range hs {
		ns := numbersOf(h)
		require.Equal(t, i+1, ns[len(ns)-1])
		require.Equal(t, 1, ns[0])
	}
}

func TestHistoryReturnsACopy(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, RetryAfter(errBusy, time.Second)))
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		d.History()[0].Err = nil
		require.Equal(t, 1, d.History()[0].Number)
		require.ErrorIs(t, d.History()[0].Err, errBusy)
	})
}

func TestAttributesAreCopiedOnTheWayInAndOut(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		attributes := map[string]string{"region": "eu"}
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Attributes: attributes}))
		attributes["region"] = "us"
		d := receive(t, q)
		d.Attributes()["region"] = "us"
		require.Equal(t, map[string]string{"region": "eu"}, d.Attributes())
		require.NoError(t, d.Ack(ctx))
	})
}

func TestTheNumbersOfAHistoryGoOnThroughSnoozesAndRedrives(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithMaxAttempts(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, Snooze(time.Second)))
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Settle(ctx, errBusy))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		d = receive(t, q)
		require.Equal(t, 1, d.Attempt(), "counted anew")
		require.NoError(t, d.Nack(ctx))

		h := receive(t, q.DeadLetters()).History()
		require.Len(t, h, 3)
		for i, cause := range []Cause{Snoozed, Failed, Nacked} {
			require.Equal(t, i+1, h[i].Number)
			require.Equal(t, cause, h[i].Cause)
			require.Equal(t, "audit", h[i].Queue)
		}
	})
}

func TestAMessageThatIsRetriedWithoutLimitKeepsAHistoryOfLimitedLength(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithMaxAttempts(Unlimited), WithBackoff(Constant(time.Second)))
		publish(t, top, 1)
		for range 1500 {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			require.NoError(t, d.Nack(ctx))
		}
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1501, d.Attempt())
		ns := numbersOf(d.hist)
		require.Len(t, ns, 1000)
		require.Equal(t, 1, ns[0])
		require.Equal(t, 1500, ns[len(ns)-1])
	})
}

func TestPeekAndRedriveWantAContextThatGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := newStage(t)
		ended, end := context.WithCancelCause(ctx)
		end(errBusy)
		_, err := s.q.Peek(noContext, 1)
		require.ErrorIs(t, err, ErrInvalidOption)
		_, err = s.q.Peek(ended, 1)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, `"audit"`)
		_, err = s.q.Redrive(noContext)
		require.ErrorIs(t, err, ErrInvalidOption)
		_, err = s.q.Redrive(ended)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, `"audit"`)
		require.Equal(t, 1, s.q.DeadLetters().Stats().Ready)
		s.top.Close()
	})
}

func TestAMissingContextIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		s := subscribe(t, top, "push", handleNothing)
		yielded := 0
		for name, err := range map[string]error{
			"OpenQueue":           second(top.OpenQueue(noContext, "other")),
			"Topic.Subscribe":     second(top.Subscribe(noContext, "other", handleNothing)),
			"Queue.Subscribe":     second(q.Subscribe(noContext, handleNothing)),
			"Publish":             top.Publish(noContext, 1),
			"Receive":             second(q.Receive(noContext)),
			"ReceiveBatch":        second(q.ReceiveBatch(noContext, 1)),
			"ReceiveInto":         second(q.ReceiveInto(noContext, make([]Delivery[int], 1))),
			"Shutdown":            top.Shutdown(noContext),
			"Subscriber.Shutdown": s.Shutdown(noContext),
			"Deliveries": func() (err error) {
				for _, err = range q.Deliveries(noContext) {
					yielded++
				}
				return err
			}(),
		} {
			require.ErrorIs(t, err, ErrInvalidOption, name)
			require.ErrorIs(t, err, errNilContext, name)
		}
		require.Equal(t, 1, yielded)
		require.Len(t, top.Queues(), 2)
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Ack(ctx), "the topic is open still")
		top.Close()
	})
}

func second[A, B any](_ A, b B) B { return b }

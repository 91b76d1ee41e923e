package delivery

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
)

func TestTheZeroDeliveryIsOfNothing(t *testing.T) {
	var d Delivery[int]
	ctx := t.Context()
	require.Empty(t, d.ID()+d.OrderingKey()+d.Queue())
	require.Zero(t, d.PublishedAt())
	require.Zero(t, d.Deadline())
	require.Zero(t, d.Attempt())
	require.Zero(t, d.Sequence())
	require.Nil(t, d.Attributes())
	require.Nil(t, d.History())
	require.Nil(t, d.Encoded())
	_, ok := d.Attribute("a")
	require.False(t, ok)
	for _, err := range []error{d.Ack(ctx), d.Nack(ctx), d.NackAfter(ctx, 1), d.Release(ctx), d.Settle(ctx, nil), d.Extend(ctx, 1)} {
		require.EqualError(t, err, "fanout: stale delivery: the zero Delivery")
		require.ErrorIs(t, err, message.ErrStale)
	}
	require.False(t, AckHere[int](nil, message.Ref{}))
}

// A receipt is what an engine gave with a message.
type receipt string

func (r receipt) Encoded() []byte { return []byte(r) }

func TestADeliverySaysWhatItsMessageIs(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		elapse(time.Second)
		at := time.Now()
		x := &message.Extra{ID: "order-1", Key: "k", Attributes: map[string]string{"a": "1"}, Receipt: receipt("body")}
		h.items(message.Item[int]{Body: 7, Ext: x}, message.Item[int]{Body: 8}, message.Item[int]{Body: 9, Ext: &message.Extra{ID: "order-3"}})
		elapse(time.Second)
		d, plain, bare := receive(t, h.q), receive(t, h.q), receive(t, h.q)
		require.Equal(t, []any{7, "order-1", "k", "q", 1, uint64(1)}, []any{d.Body, d.ID(), d.OrderingKey(), d.Queue(), d.Attempt(), d.Sequence()})
		require.True(t, at.Equal(d.PublishedAt()))
		require.Equal(t, "body", string(d.Encoded()))
		value, ok := d.Attribute("a")
		require.Equal(t, "1", value)
		require.True(t, ok)
		_, ok = d.Attribute("b")
		require.False(t, ok)
		d.Attributes()["a"] = "2"
		require.Equal(t, map[string]string{"a": "1"}, d.Attributes(), "it is a copy")
		require.Nil(t, d.History())
		require.Equal(t, message.Item[int]{Body: 7, Ext: x, Seq: 1, At: h.Clock.At(at)}, d.Item())

		require.Equal(t, h.IDOf(2, h.Clock.At(at), nil), plain.ID())
		require.Equal(t, []any{8, "", uint64(2)}, []any{plain.Body, plain.OrderingKey(), plain.Sequence()})
		require.Nil(t, plain.Attributes())
		require.Nil(t, plain.Encoded())
		_, ok = plain.Attribute("a")
		require.False(t, ok)

		data, ok := EncodedOf(x)
		require.True(t, ok)
		require.Equal(t, "body", string(data))
		require.Nil(t, bare.Attributes())
		data, ok = EncodedOf(bare.Ext)
		require.Nil(t, data)
		require.False(t, ok)

		d.Forget()
		require.Zero(t, d.Body)
		require.Nil(t, d.Ext)
		require.NoError(t, d.Ack(ctx), "it owns its message still")
		h.end(t)
	})
}

// What becomes of a message, and when, by how its delivery ended.
func TestAMessageGoesOnAsItsDeliveryEnded(t *testing.T) {
	for name, row := range map[string]struct {
		end   func(d Delivery[int], ctx context.Context) error
		after counts
		wait  time.Duration // until it is ready again; -1: it is gone
		next  int           // the number of the next attempt
		cause message.Cause
	}{
		"acknowledged": {Delivery[int].Ack, counts{acked: 1}, -1, 0, message.Acked},
		"success":      {func(d Delivery[int], ctx context.Context) error { return d.Settle(ctx, nil) }, counts{acked: 1}, -1, 0, message.Acked},
		"nacked":       {Delivery[int].Nack, counts{retrying: 1}, time.Second, 2, message.Nacked},
		"nacked for a while": {func(d Delivery[int], ctx context.Context) error { return d.NackAfter(ctx, time.Minute) },
			counts{retrying: 1}, time.Minute, 2, message.Nacked},
		"nacked for no time": {func(d Delivery[int], ctx context.Context) error { return d.NackAfter(ctx, 0) },
			counts{retrying: 1}, time.Millisecond, 2, message.Nacked},
		"released": {Delivery[int].Release, counts{ready: 1}, 0, 1, message.Released},
		"failed":   {func(d Delivery[int], ctx context.Context) error { return d.Settle(ctx, errBusy) }, counts{retrying: 1}, time.Second, 2, message.Failed},
		"snoozed": {func(d Delivery[int], ctx context.Context) error { return d.Settle(ctx, message.Snooze(time.Hour)) },
			counts{delayed: 1}, time.Hour, 1, message.Snoozed},
		"permanent": {func(d Delivery[int], ctx context.Context) error { return d.Settle(ctx, message.Permanent(errBusy)) },
			counts{}, -1, 0, message.PermanentlyFailed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var told []notice.Event
				h := newHome(t, hooked(notice.Settled, func(e notice.Event) { told = append(told, e) }))
				h.publish(1)
				d := receive(t, h.q)
				began := time.Now()
				elapse(3 * time.Second)
				require.NoError(t, row.end(d, ctx))
				require.Equal(t, row.after, countsOf(h.q))
				require.Len(t, told, 1)
				require.Equal(t, []any{row.cause, 1, 3 * time.Second, d.ID()}, []any{told[0].Cause, told[0].Attempt, told[0].Elapsed, told[0].MessageID})
				require.ErrorIs(t, d.Ack(ctx), message.ErrSettled)
				require.Zero(t, d.Deadline())
				letters := 0
				if h.q.DeadNow() != nil {
					letters = countsOf(h.q.DeadNow()).ready
				}
				require.Equal(t, row.cause == message.PermanentlyFailed, letters == 1)
				if row.wait < 0 {
					elapse(2 * time.Hour)
					requireNone(t, h.q)
					h.end(t)
					return
				}
				if row.wait > 0 {
					elapse(row.wait - 1)
					requireNone(t, h.q)
					elapse(1)
				}
				d = receive(t, h.q)
				require.Equal(t, row.next, d.Attempt())
				require.Len(t, d.History(), 1)
				a := d.History()[0]
				require.Equal(t, []any{row.cause, "q", 3 * time.Second}, []any{a.Cause, a.Queue, a.Elapsed})
				require.True(t, began.Equal(a.Start))
				if row.cause == message.Failed {
					require.Equal(t, "busy", d.Hist.Last().Text, "the error was asked for its text")
				}
				h.end(t)
			})
		})
	}
}

func TestBadArgumentsAreNamed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		d := receive(t, h.q)
		require.EqualError(t, d.NackAfter(ctx, -1), "fanout: invalid option: NackAfter(-1ns): want a duration that is not negative")
		require.EqualError(t, d.Extend(ctx, 0), "fanout: invalid option: Extend(0s): want a positive duration")
		require.EqualError(t, d.Extend(ctx, -1), "fanout: invalid option: Extend(-1ns): want a positive duration")
		require.NoError(t, d.Ack(ctx), "nothing came of that")
		h.end(t)
	})
}

func TestADeliveryOwnsItsMessageUntilItsTimeoutPasses(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		d := receive(t, h.q)
		due := time.Now().Add(10 * time.Second)
		require.True(t, due.Equal(d.Deadline()))
		elapse(4 * time.Second)
		require.NoError(t, d.Extend(ctx, time.Second))
		require.True(t, due.Equal(d.Deadline()), "it is not made shorter")
		require.NoError(t, d.Extend(ctx, 10*time.Second))
		due = time.Now().Add(10 * time.Second)
		require.True(t, due.Equal(d.Deadline()))
		elapse(10*time.Second - 1)
		requireNone(t, h.q)
		require.True(t, due.Equal(d.Deadline()))
		elapse(1)
		next := receive(t, h.q)
		require.Equal(t, 2, next.Attempt())
		require.Equal(t, message.TimedOut, next.History()[0].Cause)
		require.Equal(t, 14*time.Second, next.History()[0].Elapsed)
		require.Zero(t, d.Deadline())
		for _, err := range []error{d.Ack(ctx), d.Nack(ctx), d.Release(ctx), d.Extend(ctx, time.Hour), d.Settle(ctx, errBusy)} {
			require.ErrorIs(t, err, message.ErrStale)
		}
		require.True(t, time.Now().Add(10*time.Second).Equal(next.Deadline()), "a stale delivery touches nothing")
		require.NoError(t, next.Extend(ctx, math.MaxInt64))
		elapse(1000 * time.Hour)
		require.NoError(t, next.Ack(ctx))
		require.Equal(t, counts{acked: 1}, countsOf(h.q))
		h.end(t)
	})
}

func TestADeliveryOfAClosedQueueSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		d := receive(t, h.q)
		require.NoError(t, lifecycle.Close(h.q))
		for _, err := range []error{d.Ack(ctx), d.Nack(ctx), d.Release(ctx), d.Extend(ctx, time.Hour)} {
			require.ErrorIs(t, err, message.ErrClosed)
		}
		require.Zero(t, d.Deadline())
		h.Release()
		<-h.Live.Awaitable()
	})
}

// asked is a backoff that says what it was asked for, and how long to wait for it.
func asked(of *[]int) setting {
	return backoff(settings.BackoffFunc(func(attempt int) time.Duration {
		*of = append(*of, attempt)
		return time.Duration(attempt) * time.Second
	}))
}

// A backoff is asked for the number of the attempt, and for a release for that of the
// releases in a row; not for the last attempt, nor if the wait is given.
func TestWhatABackoffIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var of []int
		h := newHome(t, asked(&of), attempts(4))
		h.publish(1)
		for _, row := range []struct {
			err   error
			asked []int
			wait  time.Duration
		}{
			{message.Release(errBusy), []int{1}, time.Second},
			{message.Release(errBusy), []int{2}, 2 * time.Second},
			{message.Release(errBusy), []int{3}, 3 * time.Second},
			{errBusy, []int{1}, time.Second},
			{message.Release(errBusy), []int{1}, time.Second},
			{errBusy, []int{2}, 2 * time.Second},
			{message.RetryAfter(errBusy, time.Minute), nil, time.Minute},
			{errBusy, nil, 0}, // the last one: it is dead
		} {
			of = nil
			d := receive(t, h.q)
			require.NoError(t, d.Settle(ctx, row.err))
			require.Equal(t, row.asked, of)
			if row.wait > 0 {
				elapse(row.wait - 1)
				requireNone(t, h.q)
			}
			elapse(1)
		}
		requireNone(t, h.q)
		require.Equal(t, 1, countsOf(h.q.DeadNow()).ready)

		of = nil
		settled := Delivery[int]{Receipt: Receipt[int]{Q: h.q, Ref: message.Ref{Stamp: 1, Attempt: 3}}}
		require.Error(t, settled.Settle(ctx, message.Release(errBusy)))
		require.Equal(t, []int{1}, of, "of a delivery that is over nothing is known")
		h.end(t)
	})
}

// One that spends no attempt waits as the backoff says even in the last one, and one that is
// dead waits for nothing.
func TestABackoffIsAskedForAReleaseOfTheLastAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var of []int
		h := newHome(t, asked(&of), attempts(1))
		h.publish(1)
		require.NoError(t, receive(t, h.q).Settle(ctx, message.Release(errBusy)))
		require.Equal(t, []int{1}, of)
		elapse(time.Second - 1)
		requireNone(t, h.q)
		elapse(1)
		of = nil
		require.NoError(t, receive(t, h.q).Settle(ctx, message.Permanent(errBusy)))
		require.Nil(t, of)
		dead := h.q.DeadNow()
		require.NoError(t, receive(t, dead).NackAfter(ctx, time.Minute))
		require.Nil(t, of, "the wait was given")
		elapse(time.Minute - 1)
		requireNone(t, dead)
		elapse(1)
		receive(t, dead)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		var of []int
		h := newHome(t, asked(&of))
		h.publish(1)
		require.NoError(t, receive(t, h.q).Settle(ctx, message.Permanent(errBusy)))
		require.Nil(t, of, "it has attempts left, and needs none")
		h.end(t)
	})
}

// Those of a dead-letter queue are tried for ever: each end asks the backoff.
func TestADeadLetterIsRetriedForEver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var of []int
		h := newHome(t, asked(&of), attempts(1))
		h.publish(1)
		require.NoError(t, receive(t, h.q).Settle(ctx, errBusy))
		require.Nil(t, of)
		dead := h.q.DeadNow()
		for k := range 5 {
			d := receive(t, dead)
			require.Equal(t, "q/dead", d.Queue())
			require.Equal(t, k+1, d.Attempt())
			require.Len(t, d.History(), k+1)
			require.True(t, time.Now().Add(10*time.Second).Equal(d.Deadline()))
			require.NoError(t, d.Settle(ctx, message.Permanent(errBusy)))
			require.Equal(t, from(1, k+2), of)
			elapse(time.Duration(k+1)*time.Second - 1)
			requireNone(t, dead)
			elapse(1)
		}
		d := receive(t, dead)
		require.NoError(t, d.Extend(ctx, time.Minute))
		require.True(t, time.Now().Add(time.Minute).Equal(d.Deadline()))
		elapse(time.Minute)
		require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
		require.NoError(t, receive(t, dead).Ack(ctx))
		require.Equal(t, counts{acked: 1}, countsOf(dead))
		h.end(t)
	})
}

func TestABackoffThatDoesNotReturnIsLoggedAndTheDefaultIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, backoff(settings.BackoffFunc(func(int) time.Duration { panic("boom") })))
		h.publish(1)
		require.NoError(t, receive(t, h.q).Nack(ctx))
		require.Contains(t, h.logs.String(), `msg="fanout: a backoff panicked" topic=payments queue=q panic=boom wait=`)
		elapse(50*time.Millisecond - 1)
		requireNone(t, h.q)
		elapse(50*time.Millisecond + 1)
		require.Equal(t, 2, receive(t, h.q).Attempt())
		h.end(t)
	})
}

func TestOnePeeksAtWhatStandsInTheWindowAndInTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2)
		require.NoError(t, receive(t, h.q).Nack(ctx))
		h.q.Locked(func() {
			waits := PeekedLocked(h.q, h.q.Store.InOrder()[0])
			require.Equal(t, []any{1, 2, 1, "q", uint64(1)}, []any{waits.Body, waits.Attempt(), len(waits.History()), waits.Queue(), waits.Sequence()})
			logged := InLog(h.q, h.q.Store.Cursor.Peek())
			require.Equal(t, []any{2, 1, 0, "q", uint64(2)}, []any{logged.Body, logged.Attempt(), len(logged.History()), logged.Queue(), logged.Sequence()})
		})
		require.Zero(t, h.q.Store.In(store.InFlight))
		h.end(t)
	})
}

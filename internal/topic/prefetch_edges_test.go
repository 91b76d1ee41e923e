package topic

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

// What can happen to a lease between two of its messages, and around its timer.
// How many messages are in a lease is nobody's to know: each test is made for
// several messages, and at some of them there is more in the lease on both sides.

// eachPlace runs f for several messages, each in a bubble of its own.
func eachPlace(t *testing.T, f func(t *testing.T, ctx context.Context, at int)) {
	t.Helper()
	for at := 8; at < 16; at++ {
		bubble(t, func(t *testing.T, ctx context.Context) { f(t, ctx, at) })
	}
}

// A pit is a queue whose handler fails for good at one message of 20, so that
// a hook runs between that message and the next.
func newPit(t *testing.T, at int, hook func(q *queue.Queue[int], d delivery.Delivery[int])) *queue.Queue[int] {
	var q *queue.Queue[int]
	var dead delivery.Delivery[int]
	top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(Event) { hook(q, dead) }}))
	q = openQueue(t, top, "q")
	_, err := subscribeTo(q, t.Context(), func(_ context.Context, d delivery.Delivery[int]) error {
		if d.Body == at {
			dead = d
			return message.Permanent(errBusy)
		}
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, top.PublishMessages(t.Context(), plainOnes(20)...))
	synctest.Wait()
	return q
}

func plainOnes(n int) []message.Published[int] {
	ms := make([]message.Published[int], n)
	for k := range ms {
		ms[k].Body = k
	}
	return ms
}

func TestAHookInTheMiddleOfALeaseFindsNothingInFlight(t *testing.T) {
	eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
		var stats []view.Stats
		var err error
		q := newPit(t, at, func(q *queue.Queue[int], d delivery.Delivery[int]) {
			stats = append(stats, view.StatsOf(q))
			err = d.Ack(ctx)
			time.Sleep(5 * time.Millisecond) // longer than a lease is left alone
			stats = append(stats, view.StatsOf(q))
		})
		time.Sleep(time.Hour) // longer than any timeout
		synctest.Wait()
		require.ErrorIs(t, err, message.ErrSettled)
		require.Len(t, stats, 2)
		for _, s := range stats {
			require.Equal(t, []int{0, 19 - at}, []int{s.InFlight, s.Ready})
		}
		require.EqualValues(t, 19, view.StatsOf(q).Acked)
		require.Zero(t, view.StatsOf(q).Unsettled())
		check(t, topicOf(q))
		topicOf(q).Close()
	})
}

func TestAHookInTheMiddleOfALeasePurgesOnlyWhatIsLeft(t *testing.T) {
	eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
		var dropped int
		q := newPit(t, at, func(q *queue.Queue[int], _ delivery.Delivery[int]) { dropped, _ = lifecycle.Purge(ctx, q) })
		require.Equal(t, 19-at, dropped)
		require.EqualValues(t, at, view.StatsOf(q).Acked)
		require.Zero(t, view.StatsOf(q).Unsettled())
		check(t, topicOf(q))
		topicOf(q).Close()
	})
}

func TestAHookThatExitsInTheMiddleOfALeaseLosesNothing(t *testing.T) {
	eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
		q := newPit(t, at, func(*queue.Queue[int], delivery.Delivery[int]) { runtime.Goexit() })
		require.EqualValues(t, 19, view.StatsOf(q).Acked)
		require.Equal(t, 1, view.StatsOf(q).Dead)
		require.Zero(t, view.StatsOf(q).Unsettled())
		check(t, topicOf(q))
		topicOf(q).Close()
		<-topicOf(q).Done()
	})
}

func TestWhatAHandlerOfALeaseSaysTooLateIsToldIfItIsAFailure(t *testing.T) {
	for _, row := range []struct {
		name    string
		first   func(d delivery.Delivery[int], q *queue.Queue[int]) error
		returns error
		late    int
	}{
		{"a success after an Ack", func(d delivery.Delivery[int], _ *queue.Queue[int]) error { return d.Ack(context.Background()) }, nil, 0},
		{"a failure after an Ack", func(d delivery.Delivery[int], _ *queue.Queue[int]) error { return d.Ack(context.Background()) }, errBusy, 1},
		{"a failure after the end", func(_ delivery.Delivery[int], q *queue.Queue[int]) error { return lifecycle.Close(q) }, errBusy, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
				told := 0
				top := newTopic[int](t, WithHooks(Hooks{Late: func(Event) { told++ }}))
				q := openQueue(t, top, "q")
				var first error
				_, err := subscribeTo(q, ctx, func(_ context.Context, d delivery.Delivery[int]) error {
					if d.Body != at {
						return nil
					}
					first = row.first(d, q)
					return row.returns
				})
				require.NoError(t, err)
				require.NoError(t, top.PublishMessages(ctx, plainOnes(20)...))
				synctest.Wait()
				require.NoError(t, first)
				require.Equal(t, row.late, told)
				top.Close()
			})
		})
	}
}

func TestTheContextOfAHandlerOfALeaseIsNotTheNextOnes(t *testing.T) {
	eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
		var done, timedOut context.Context
		top := newTopic[int](t)
		subscribe(t, top, "q", func(hctx context.Context, d delivery.Delivery[int]) error {
			switch {
			case d.Attempt() > 1:
			case d.Body == at:
				done = hctx
				return hctx.Err()
			case d.Body == at+1:
				timedOut = hctx
				<-hctx.Done()
			}
			return nil
		}, WithVisibilityTimeout(time.Second))
		require.NoError(t, top.PublishMessages(ctx, plainOnes(20)...))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(timedOut), message.ErrStale)
		require.NoError(t, done.Err())
		top.Close()
		<-top.Done()
	})
}

// requireInTime asserts when the handler was told that its visibility timeout
// of a second has passed: never early, and a millisecond late at most.
func requireInTime(t *testing.T, started, told time.Time) {
	t.Helper()
	require.False(t, told.IsZero(), "it has not been told")
	late := told.Sub(started) - time.Second
	require.True(t, 0 <= late && late <= time.Millisecond, "%v late", late)
}

func TestATimeoutInALeaseIsInTimeBehindAMessageThatWasExtended(t *testing.T) {
	for behind := 1; behind <= 2; behind++ {
		eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
			var started, told time.Time
			var extended error
			top := newTopic[int](t)
			s := subscribe(t, top, "q", func(hctx context.Context, d delivery.Delivery[int]) error {
				switch {
				case d.Attempt() > 1:
				case d.Body == at:
					extended = d.Extend(hctx, time.Hour)
					time.Sleep(10 * time.Millisecond)
				case d.Body == at+behind:
					started = time.Now()
					<-hctx.Done()
					told = time.Now()
				}
				return nil
			}, WithVisibilityTimeout(time.Second))
			require.NoError(t, top.PublishMessages(ctx, plainOnes(20)...))
			time.Sleep(5 * time.Second)
			synctest.Wait()
			require.NoError(t, extended)
			requireInTime(t, started, told)
			require.EqualValues(t, 20, view.StatsOf(s.Queue()).Acked)
			check(t, top)
			top.Close()
			<-top.Done()
		})
	}
}

// The timer comes for something else just before it is time to look at the
// lease, and what is due after that is far.
func TestATimeoutInALeaseIsInTimeBesideARetryThatIsFar(t *testing.T) {
	eachPlace(t, func(t *testing.T, ctx context.Context, at int) {
		var started, told time.Time
		top := newTopic[int](t)
		subscribe(t, top, "q", func(hctx context.Context, d delivery.Delivery[int]) error {
			switch {
			case d.Body < 0:
				return errBusy
			case d.Body == at && d.Attempt() == 1:
				started = time.Now()
				<-hctx.Done()
				told = time.Now()
			}
			return nil
		}, WithVisibilityTimeout(time.Second), WithBackoff(settings.Constant(time.Hour)))
		publish(t, top, -1)
		time.Sleep(500 * time.Microsecond)
		require.NoError(t, top.PublishMessages(ctx, plainOnes(20)...))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		requireInTime(t, started, told)
		top.Close()
		<-top.Done()
	})
}

// A hoard is a subscriber that takes more and more messages at a time, and then
// stands in the handler of the one that it gets as its nth.
type hoard struct {
	got           int
	at            int // the message in flight
	started, told time.Time
	release       chan bool
}

func newHoard(t *testing.T, q *queue.Queue[int], nth int) *hoard {
	h := &hoard{release: make(chan bool)}
	_, err := subscribeTo(q, t.Context(), func(ctx context.Context, d delivery.Delivery[int]) error {
		if h.got++; h.got == nth {
			h.at, h.started = d.Body, time.Now()
			select {
			case <-ctx.Done():
				h.told = time.Now()
			case <-h.release:
			}
		}
		return nil
	})
	require.NoError(t, err)
	return h
}

func TestWhatTwoLeasesGiveBackIsInTheOrderOfItsPublication(t *testing.T) {
	both := 0
	for nth := 8; nth < 24; nth++ {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q")
			require.NoError(t, top.PublishMessages(ctx, plainOnes(300)...))
			first := newHoard(t, q, nth)
			synctest.Wait()
			second := newHoard(t, q, nth) // takes what is behind
			synctest.Wait()
			require.Less(t, first.at, second.at)
			leases := 0
			q.Mu.Lock()
			for _, s := range q.Group.Subs {
				if s.Busy[0].(*workers.Worker[int]).Lease.Word.Place().Waiting() > 0 {
					leases++
				}
			}
			q.Mu.Unlock()
			if leases == 2 {
				both++
			}
			require.NoError(t, lifecycle.Pause(ctx, q)) // both give back
			require.NoError(t, lifecycle.Resume(ctx, q))
			ds, err := receiveBatch(q, ctx, 300)
			require.NoError(t, err)
			require.Len(t, ds, 300-2*nth)
			for k := range ds[1:] {
				require.Less(t, ds[k].Body, ds[k+1].Body)
			}
			require.NoError(t, ackBatchOf(q, ctx, ds...))
			close(first.release)
			close(second.release)
			synctest.Wait()
			require.EqualValues(t, 300, view.StatsOf(q).Acked)
			check(t, top)
			top.Close()
			<-top.Done()
		})
	}
	require.Positive(t, both, "never had both something to give back")
}

func TestTheTimeoutsOfSeveralLeasesAreInTime(t *testing.T) {
	for nth := 8; nth < 16; nth++ {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
			require.NoError(t, top.PublishMessages(ctx, plainOnes(600)...))
			hoards := []*hoard{newHoard(t, q, nth)}
			time.Sleep(100 * time.Microsecond)
			hoards = append(hoards, newHoard(t, q, nth))
			time.Sleep(850 * time.Microsecond)
			hoards = append(hoards, newHoard(t, q, nth)) // 50 µs before the first lease is looked at
			time.Sleep(5 * time.Second)
			synctest.Wait()
			for _, h := range hoards {
				requireInTime(t, h.started, h.told)
			}
			top.Close()
			<-top.Done()
		})
	}
}

func TestAReceiveBesideALeaseEndsThoughAllThatWasReadyHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGripAt(t, 0, 1)
		require.NoError(t, g.top.PublishMessages(ctx, message.Published[int]{Body: 1, TimeToLive: 1}, message.Published[int]{Body: 2, TimeToLive: 1}))
		time.Sleep(time.Nanosecond)
		requireEmpty(t, g.q)
		require.EqualValues(t, 2, view.StatsOf(g.q).Expired)
		require.Equal(t, 1, view.StatsOf(g.q).InFlight)
		check(t, g.top)
		g.end()
	})
}

package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/fakeengine"
)

// Rules that nothing else would notice the breach of.

// A message parked for want of room in the dead-letter queue leaves as letters are
// read, so the queue that it fills is not stuck, though all its consumers are
// handlers that wait for it.
func TestAHandlerWaitsForRoomThatAParkedMessageWillMake(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2), WithDeadLetterCapacity(1))
		published := make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 3 {
				published <- top.Publish(ctx, 4)
			}
			if d.Body < 3 {
				return Permanent(errBusy)
			}
			return nil
		})
		require.NoError(t, err)
		for n := range 3 {
			publish(t, top, n+1)
			synctest.Wait()
		}
		require.Empty(t, published, "it waits")
		st := q.Stats()
		require.Equal(t, []int{1, 1, 1}, []int{st.Parked, st.InFlight, st.Dead})
		require.NoError(t, receive(t, q.DeadLetters()).Ack(ctx)) // the parked one takes its place
		require.NoError(t, <-published)
		synctest.Wait()
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// Messages that come one by one are shared out evenly among subscribers that are
// all idle.
func TestIdleSubscribersTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		var got [3]int
		subs := make([]*Subscriber[int], len(got))
		for k := range got {
			var err error
			subs[k], err = q.Subscribe(ctx, func(context.Context, Delivery[int]) error { got[k]++; return nil }, WithConcurrency(k+1))
			require.NoError(t, err)
		}
		send := func(n int) {
			got = [3]int{}
			for k := range n {
				publish(t, top, k)
				synctest.Wait()
			}
		}
		send(30)
		require.Equal(t, [3]int{10, 10, 10}, got)
		require.NoError(t, subs[1].Shutdown(ctx))
		send(30)
		require.Equal(t, [3]int{15, 0, 15}, got)
		require.NoError(t, top.Close())
	})
}

// The queue's timer looks at what was prefetched a millisecond after it was
// taken. The visibility timeout of a message is never shorter for that.
func TestAPrefetchedMessageHasItsWholeVisibilityTimeout(t *testing.T) {
	const step, late = 300 * time.Microsecond, time.Millisecond
	consumers := map[string]func(ctx context.Context, q *Queue[int], do func(d Delivery[int], place int)){
		"a worker": func(ctx context.Context, q *Queue[int], do func(d Delivery[int], place int)) {
			_, _ = q.Subscribe(ctx, func(_ context.Context, d Delivery[int]) error {
				q.mu.Lock()
				place := q.subs[0].busy[0].load().started()
				q.mu.Unlock()
				do(d, place)
				return nil
			})
		},
		"a range": func(ctx context.Context, q *Queue[int], do func(d Delivery[int], place int)) {
			for d, err := range q.Deliveries(ctx) {
				if err != nil {
					return
				}
				q.mu.Lock()
				place := prefetchedIn(q) - waitingIn(q)
				q.mu.Unlock()
				do(d, place)
				_ = d.Ack(ctx)
			}
		},
	}
	for name, consume := range consumers {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second), WithMaxAttempts(Unlimited))
				var started time.Time
				over := make(chan struct{})
				first, slept := 0, 0
				go consume(ctx, q, func(d Delivery[int], place int) {
					if d.Body > 150 && place == 1 && first == 0 {
						first = d.Body
					}
					switch {
					case first == 0 || !started.IsZero():
					case slept < 2:
						slept++
						time.Sleep(step) // it is done in time, and the next one starts
					default:
						require.Equal(t, []int{3, first + 2}, []int{place, d.Body}, "they were prefetched together")
						started = time.Now()
						<-over
					}
				})
				synctest.Wait()
				bodies := make([]Message[int], 400)
				for k := range bodies {
					bodies[k].Body = k
				}
				require.NoError(t, top.PublishMessages(ctx, bodies...))
				time.Sleep(900 * time.Millisecond)
				synctest.Wait()
				require.False(t, started.IsZero())
				time.Sleep(time.Until(started.Add(time.Second)) - 1)
				synctest.Wait()
				require.Zero(t, q.Stats().TimedOut, "a nanosecond before its time")
				time.Sleep(late + 1)
				synctest.Wait()
				require.EqualValues(t, 1, q.Stats().TimedOut, "a millisecond after it")
				close(over)
				require.NoError(t, top.Close())
			})
		})
	}
}

// After a failed receive the poller waits longer at each failure that follows, and
// from the beginning again once it got something.
func TestAReceiveThatWorkedEndsTheBackoffOfThoseThatFailed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		top := newTopic[int](t, WithEngine(e))
		q := openQueue(t, top, "q")
		for n := range 5 {
			e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: n + 1, Err: errBusy})
		}
		got := make(chan time.Time, 3)
		_, err := q.Subscribe(ctx, func(context.Context, Delivery[int]) error { got <- time.Now(); return nil }, WithConcurrency(4))
		require.NoError(t, err)
		begun := time.Now()
		publish(t, top, 1)
		require.Equal(t, 100*time.Millisecond*(1+2+4+8+16), (<-got).Sub(begun))
		synctest.Wait()
		e.Heal()
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBusy}) // the one after the next message
		publish(t, top, 2)
		<-got
		synctest.Wait()
		begun = time.Now()
		publish(t, top, 3)
		require.LessOrEqual(t, (<-got).Sub(begun), 100*time.Millisecond)
		require.NoError(t, top.Close())
	})
}

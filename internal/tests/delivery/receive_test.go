// Whoever receives gets what is ready, in its turn, and nothing more.

package delivery_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestABatchWakesAsManyReceiversAsItHasMessages(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		got := make(chan int, 10)
		for range 5 {
			go func() {
				if d, err := q.Receive(ctx); err == nil {
					got <- d.Body // and keeps it: nothing else wakes the next
				}
			}()
		}
		synctest.Wait()
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1}, fanout.Message[int]{Body: 2}, fanout.Message[int]{Body: 3}))
		synctest.Wait()
		require.Len(t, got, 3)
		require.Equal(t, 3, q.Stats().InFlight)
		top.Close()
	})
}

func TestAReceivedBatchPassesOverWhatExpiredAndLeavesTheRestToOthers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(6))
		for n := range 6 {
			m := fanout.Message[int]{Body: n}
			if n == 1 || n == 2 {
				m.TimeToLive = time.Second
			}
			require.NoError(t, top.PublishMessages(ctx, m))
		}
		time.Sleep(time.Second)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		require.Equal(t, []int{0, 3, 4}, kit.BodiesOf(ds))
		require.EqualValues(t, 2, q.Stats().Expired)
		kit.Publish(t, top, 6, 7) // what expired has made room
		require.Equal(t, []int{5, 6, 7}, kit.Bodies(t, q))
		kit.Check(t, top)
		top.Close()
	})
}

func TestTryReceiveReturnsTheErrorOfItsContext(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1)
		ended, end := context.WithCancelCause(ctx)
		end(kit.ErrBusy)
		_, ok, err := q.TryReceive(ended)
		require.False(t, ok)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.Equal(t, 1, q.Stats().Ready)
		top.Close()
	})
}

func TestALoopOverDeliveriesCanBeLeftAndTakesNothingMore(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2, 3)
		var got []int
		for d, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
			if d.Body == 2 {
				break
			}
		}
		require.Equal(t, []int{1, 2}, got)
		require.Equal(t, []int{3}, kit.Bodies(t, q))
		top.Close()
	})
}

func TestAShutdownGoesOnOnceAReceiveHasFoundThatTheRestHasExpired(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(time.Minute))
		kit.Publish(t, top, 1, 2)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, done, "nobody has looked")
		kit.RequireEmpty(t, q)
		synctest.Wait()
		require.Len(t, done, 1)
		require.NoError(t, <-done)
		require.Equal(t, 2, q.Stats().Dead)
	})
}

func TestAReceiveTellsOfWhatHadExpiredBeforeTheMessageThatItGets(t *testing.T) {
	for name, receive := range map[string]func(t *testing.T, q *fanout.Queue[int]) []fanout.Delivery[int]{
		"one": func(t *testing.T, q *fanout.Queue[int]) []fanout.Delivery[int] {
			return []fanout.Delivery[int]{kit.Receive(t, q)}
		},
		"a batch": func(t *testing.T, q *fanout.Queue[int]) []fanout.Delivery[int] {
			ds, err := q.ReceiveBatch(t.Context(), 10)
			require.NoError(t, err)
			return ds
		},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				var dead []string
				top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{DeadLettered: func(e fanout.Event) { dead = append(dead, e.MessageID) }}))
				q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(3))
				require.NoError(t, top.PublishMessages(ctx,
					fanout.Message[int]{ID: "a", Body: 1, TimeToLive: time.Second}, fanout.Message[int]{ID: "b", Body: 2, TimeToLive: time.Second}, fanout.Message[int]{Body: 3}))
				time.Sleep(time.Second)
				require.Equal(t, []int{3}, kit.BodiesOf(receive(t, q)))
				require.Equal(t, []string{"a", "b"}, dead)
				top.Close()
			})
		})
	}
}

func TestTheNextOfAKeyIsForWhoeverWaitsOnceTheFirstIsAcknowledged(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 1, OrderingKey: "k"}, fanout.Message[int]{Body: 2, OrderingKey: "k"}))
		first := kit.Receive(t, q)
		got := make(chan fanout.Delivery[int], 1)
		go func() {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			got <- d
		}()
		synctest.Wait()
		require.Empty(t, got)
		require.NoError(t, first.Ack(ctx))
		synctest.Wait()
		require.Len(t, got, 1, "the receiver sleeps beside a message")
		require.NoError(t, (<-got).Ack(ctx))
		top.Close()
	})
}

func TestAReceiverThatEndsIsNotWokenForAnother(t *testing.T) {
	for first := range 3 { // of three that wait one ends
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q")
			got := make(chan int, 3)
			for k := range 3 {
				wait := time.Hour
				if k == first {
					wait = time.Second
				}
				go func() {
					brief, cancel := context.WithTimeout(ctx, wait)
					defer cancel()
					if d, err := q.Receive(brief); err == nil {
						got <- d.Body
						_ = d.Ack(ctx)
					}
				}()
				synctest.Wait()
			}
			kit.Elapse(2 * time.Second)
			for n := range 2 {
				kit.Publish(t, top, n)
				synctest.Wait()
				require.Len(t, got, n+1, "a receiver sleeps beside a message")
			}
			top.Close()
		})
	}
}

// After a failed receive the poller waits longer at each failure that follows, and
// from the beginning again once it got something.
func TestAReceiveThatWorkedEndsTheBackoffOfThoseThatFailed(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		top := kit.NewTopic[int](t, fanout.WithEngine(e))
		q := kit.OpenQueue(t, top, "q")
		for n := range 5 {
			e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: n + 1, Err: kit.ErrBusy})
		}
		got := make(chan time.Time, 3)
		_, err := q.Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error { got <- time.Now(); return nil }, fanout.WithConcurrency(4))
		require.NoError(t, err)
		begun := time.Now()
		kit.Publish(t, top, 1)
		require.Equal(t, 100*time.Millisecond*(1+2+4+8+16), (<-got).Sub(begun))
		synctest.Wait()
		e.Heal()
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: kit.ErrBusy}) // the one after the next message
		kit.Publish(t, top, 2)
		<-got
		synctest.Wait()
		begun = time.Now()
		kit.Publish(t, top, 3)
		require.LessOrEqual(t, (<-got).Sub(begun), 100*time.Millisecond)
		require.NoError(t, top.Close())
	})
}

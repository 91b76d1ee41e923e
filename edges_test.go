package fanout

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// More edges of promises: of publishing, receiving and ending.

func TestAPublishWhoseContextHasEndedPublishesNothingThoughThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		ended, end := context.WithCancelCause(ctx)
		end(errBusy)
		for name, err := range map[string]error{
			"Publish":            top.Publish(ended, 1),
			"TryPublish":         top.TryPublish(ended, 1),
			"PublishMessages":    top.PublishMessages(ended, Message[int]{Body: 1}, Message[int]{Body: 2}),
			"TryPublishMessages": top.TryPublishMessages(ended, Message[int]{Body: 1}),
		} {
			require.ErrorIs(t, err, context.Canceled, name)
			require.ErrorIs(t, err, errBusy, name)
			require.ErrorContains(t, err, `"payments"`, name)
		}
		require.Zero(t, q.Stats().Published)
		require.Zero(t, top.Stats().Published)
		top.Close()
	})
}

func TestNobodyOvertakesABatchThatWaitsForMoreRoomThanThereIs(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2))
		publish(t, top, 1)
		go func() { _ = top.PublishMessages(ctx, Message[int]{Body: 2}, Message[int]{Body: 3}) }()
		synctest.Wait()
		require.ErrorIs(t, top.TryPublish(ctx, 4), ErrQueueFull)
		require.ErrorIs(t, top.TryPublishMessages(ctx, Message[int]{Body: 4}), ErrQueueFull)
		go func() { _ = top.Publish(ctx, 4) }()
		synctest.Wait()
		go func() { _ = top.PublishMessages(ctx, Message[int]{Body: 5}) }()
		synctest.Wait()
		require.Equal(t, 3, top.Stats().Waiting)
		require.Equal(t, []int{1}, bodies(t, q))
		var got []int
		for range 5 {
			d := receive(t, q)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
			check(t, top)
		}
		require.Equal(t, to(1, 5), got)
		top.Close()
	})
}

func TestABatchOfPlainMessagesIsHookedAndRetainedAsAnyOther(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var ids []string
		top := newTopic[int](t, WithRetention(2), WithHooks(Hooks{Published: func(e Event) { ids = append(ids, e.MessageID) }}))
		q := openQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1}, Message[int]{Body: 2}, Message[int]{Body: 3}))
		require.Len(t, ids, 3)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		for k, d := range ds {
			require.Equal(t, ids[k], d.ID())
		}
		require.Equal(t, []int{2, 3}, bodies(t, openQueue(t, top, "late", WithReplay(5))))
		top.Close()
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(2))
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1}, Message[int]{Body: 2}, Message[int]{Body: 3}))
		require.Equal(t, []int{2, 3}, bodies(t, openQueue(t, top, "late", WithReplay(5))))
		top.Close()
	})
}

func TestABatchWakesAsManyReceiversAsItHasMessages(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		got := make(chan int, 10)
		for range 5 {
			go func() {
				if d, err := q.Receive(ctx); err == nil {
					got <- d.Body // and keeps it: nothing else wakes the next
				}
			}()
		}
		synctest.Wait()
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1}, Message[int]{Body: 2}, Message[int]{Body: 3}))
		synctest.Wait()
		require.Len(t, got, 3)
		require.Equal(t, 3, q.Stats().InFlight)
		top.Close()
	})
}

func TestAReceivedBatchPassesOverWhatExpiredAndLeavesTheRestToOthers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(6))
		for n := range 6 {
			m := Message[int]{Body: n}
			if n == 1 || n == 2 {
				m.TimeToLive = time.Second
			}
			require.NoError(t, top.PublishMessages(ctx, m))
		}
		time.Sleep(time.Second)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		require.Equal(t, []int{0, 3, 4}, bodiesOf(ds))
		require.EqualValues(t, 2, q.Stats().Expired)
		publish(t, top, 6, 7) // what expired has made room
		require.Equal(t, []int{5, 6, 7}, bodies(t, q))
		check(t, top)
		top.Close()
	})
}

func TestTryReceiveReturnsTheErrorOfItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1)
		ended, end := context.WithCancelCause(ctx)
		end(errBusy)
		_, ok, err := q.TryReceive(ended)
		require.False(t, ok)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBusy)
		require.Equal(t, 1, q.Stats().Ready)
		top.Close()
	})
}

func TestALoopOverDeliveriesCanBeLeftAndTakesNothingMore(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2, 3)
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
		require.Equal(t, []int{3}, bodies(t, q))
		top.Close()
	})
}

func TestOfSeveralRateLimitsTheOneThatEndsFirstCounts(t *testing.T) {
	for _, fastFirst := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q")
			began := time.Now()
			var at []time.Duration
			handle := func(context.Context, Delivery[int]) error {
				at = append(at, time.Since(began))
				return nil
			}
			rates := []float64{1, 0.1}
			if !fastFirst {
				rates = []float64{0.1, 1}
			}
			for _, r := range rates {
				_, err := q.Subscribe(ctx, handle, WithRateLimit(r))
				require.NoError(t, err)
			}
			publish(t, top, to(1, 5)...)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			require.Equal(t, []time.Duration{0, 0, time.Second, 2 * time.Second, 3 * time.Second}, at)
			top.Close()
			<-top.Done()
		})
	}
}

func TestWhatASubscriberReleasesGoesToAReceiverAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		s := subscribe(t, top, "q", func(ctx context.Context, _ Delivery[int]) error {
			<-ctx.Done()
			return ctx.Err()
		})
		publish(t, top, 1)
		synctest.Wait()
		got := make(chan Delivery[int], 1)
		go func() {
			if d, err := s.Queue().Receive(ctx); err == nil {
				got <- d
			}
		}()
		synctest.Wait()
		ended, end := context.WithCancel(ctx)
		end()
		require.ErrorIs(t, s.Shutdown(ended), context.Canceled)
		synctest.Wait()
		require.Len(t, got, 1)
		d := <-got
		require.Equal(t, 1, d.Attempt(), "a release spends none")
		require.Equal(t, Released, d.History()[0].Cause)
		require.NoError(t, d.Ack(ctx))
		<-s.Done()
		top.Close()
	})
}

func TestAShutdownWaitsForEachQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		var qs []*Queue[int]
		for _, name := range []string{"a", "b", "c", "d"} {
			qs = append(qs, openQueue(t, top, name))
		}
		publish(t, top, 1)
		var ds []Delivery[int]
		for _, q := range qs {
			ds = append(ds, receive(t, q))
		}
		require.NoError(t, ds[0].Ack(ctx))
		require.NoError(t, ds[2].Ack(ctx))
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		for _, k := range []int{3, 1} {
			synctest.Wait()
			require.Empty(t, done)
			require.NoError(t, ds[k].Ack(ctx))
		}
		require.NoError(t, <-done)
	})
}

func TestARedriveThatWaitsChangesPlacesWithWhatIsParkedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(1), WithMaxAttempts(1), WithDeadLetterCapacity(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		publish(t, top, 2)
		d := receive(t, q)
		done := make(chan int, 1)
		go func() {
			n, err := q.Redrive(ctx)
			require.NoError(t, err)
			done <- n
		}()
		synctest.Wait()
		require.Empty(t, done)
		require.NoError(t, d.Nack(ctx)) // no room for it among the dead
		synctest.Wait()
		require.Len(t, done, 1)
		require.Equal(t, 1, <-done)
		require.Equal(t, []int{1}, bodies(t, q))
		require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
		check(t, top)
		top.Close()
	})
}

func TestWhatWasReceivedAndMovedIsForgottenOnceItIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, to(1, 100)...)
		for n := range 100 {
			d := receive(t, q)
			require.NoError(t, d.Extend(ctx, time.Hour))
			if n%2 == 0 {
				require.NoError(t, d.Ack(ctx))
			} else {
				require.NoError(t, d.NackAfter(ctx, time.Hour))
			}
		}
		require.Zero(t, q.leases.moved.len())
		publish(t, top, 101)
		require.NoError(t, receive(t, q).Extend(ctx, time.Hour))
		_, err := q.Purge(ctx)
		require.NoError(t, err)
		require.Zero(t, q.leases.moved.len())
		top.Close()
	})
}

// A hand's room and messages count for queues that wait, that drop, and that get
// messages with delays of their own.
func TestMessagesWithADelayOfTheirOwnFindTheRoomThatAHandHasMade(t *testing.T) {
	for _, row := range []struct {
		overflow Overflow
		dropped  []int // of 0 to 19 and the delayed 100 to 112
		err      error
	}{
		{Block, nil, ErrQueueFull},
		{Reject, nil, ErrQueueFull},
		{DropNewest, to(110, 112), nil},
		{DropOldest, to(11, 13), nil},
	} {
		t.Run(row.overflow.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				g := newGrip(t, 20, WithCapacity(20), WithOverflow(row.overflow))
				for n := range 13 {
					err := g.top.TryPublishMessages(ctx, Message[int]{Body: 100 + n, Delay: time.Second})
					if n < 10 {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, row.err)
					}
					check(t, g.top)
				}
				require.Equal(t, 20, g.q.Stats().Unsettled())
				require.EqualValues(t, len(row.dropped), g.q.Stats().Dropped)
				g.release <- nil
				time.Sleep(time.Second)
				synctest.Wait()
				want := append(to(0, 19), to(100, 109)...)
				if row.overflow == DropOldest {
					want = append(want, to(110, 112)...)
				}
				var kept []int
				for _, n := range want {
					if len(row.dropped) == 0 || n < row.dropped[0] || n > row.dropped[len(row.dropped)-1] {
						kept = append(kept, n)
					}
				}
				require.ElementsMatch(t, kept, g.order())
				g.end()
			})
		})
	}
}

func TestABlockQueueSeesTheRoomThatAHandHasMadeAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20, WithCapacity(20))
		for n := range 10 {
			require.NoError(t, g.top.TryPublish(ctx, 20+n))
		}
		require.ErrorIs(t, g.top.TryPublish(ctx, 30), ErrQueueFull)
		check(t, g.top)
		g.end()
	})
}

func TestAStuckHandlersContextTellsHowLongItsTimeoutWas(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		causes := make(chan error, 1)
		top := newTopic[int](t)
		time.Sleep(time.Hour) // the topic's clock is not at its start
		subscribe(t, top, "audit", func(ctx context.Context, d Delivery[int]) error {
			if d.Attempt() == 1 {
				<-ctx.Done()
				causes <- context.Cause(ctx)
			}
			return nil
		}, WithVisibilityTimeout(7*time.Second))
		publish(t, top, 1)
		err := <-causes
		require.ErrorIs(t, err, ErrStale)
		require.EqualError(t, errors.Unwrap(err), ErrStale.Error())
		require.ErrorContains(t, err, `queue "audit": the visibility timeout of 7s has passed`)
		top.Close()
	})
}

func TestStatsCountTheWorkersThatWereStarted(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		s := subscribe(t, top, "audit", func(_ context.Context, d Delivery[int]) error {
			if d.Body == 3 {
				require.NoError(t, d.Ack(context.Background()))
				runtime.Goexit()
			}
			return nil
		})
		for body, want := range []uint64{1, 2, 3, 5} { // whoever exits has a successor, who finds nothing
			publish(t, top, body)
			synctest.Wait()
			stats := s.Queue().Stats()
			require.Equal(t, want, stats.WorkersStarted)
			require.Zero(t, stats.Workers)
		}
		top.Close()
	})
}

// What dies goes to the dead-letter queue, its own or a shared one, and is parked while that is full.

package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowDeadLetterQueue(t *testing.T) {
	t.Run("of its own", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithTimeToLive(time.Hour))
			require.Nil(t, q.View().DeadLetters(), "made when first needed")
			d := q.DeadLetters()
			require.Equal(t, "q/dead", d.Name())
			require.Equal(t, 1024, d.Stats().Capacity)
			require.Same(t, d, d.DeadLetters(), "it has none of its own")
			kit.Publish(t, top, 1)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			kit.Elapse(24 * time.Hour) // no time to live
			for n := range 20 {        // no limit of attempts
				l, err := d.Receive(ctx)
				require.NoError(t, err)
				require.Equal(t, n+1, l.Attempt())
				require.NoError(t, l.Settle(ctx, fanout.Permanent(kit.ErrBusy)))
			}
			_, err := d.Redrive(ctx)
			require.ErrorIs(t, err, fanout.ErrUnsupported)
			require.ErrorIs(t, d.Close(), fanout.ErrUnsupported)
			kit.Check(t, top)
			top.Close()
		})
	})
	t.Run("shared", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			first := kit.NewTopic[int](t)
			q := func(top *fanout.Topic[int], name string, d *fanout.Queue[int]) *fanout.Queue[int] {
				return kit.OpenQueue(t, top, name, fanout.WithDeadLetterQueue(d), fanout.WithMaxAttempts(1))
			}
			kit.Elapse(time.Minute)
			dead, err := fanout.NewDeadLetterQueue[int]("dead", kit.Silent)
			require.NoError(t, err)
			kit.Elapse(time.Minute)
			second, err := fanout.NewTopic[int]("refunds", kit.Silent)
			require.NoError(t, err)
			a, b, c := q(first, "a", dead), q(first, "b", dead), q(second, "c", dead)
			require.Same(t, dead, a.DeadLetters())

			ids := map[*fanout.Queue[int]]string{}
			times := map[*fanout.Queue[int]]time.Time{}
			kit.Publish(t, first, 1)
			kit.Elapse(time.Second)
			kit.Publish(t, second, 2)
			for _, s := range []*fanout.Queue[int]{c, b, a} {
				d := kit.Receive(t, s)
				ids[s], times[s] = d.ID(), d.PublishedAt()
				require.NoError(t, d.Nack(ctx))
				kit.Elapse(time.Second)
			}
			require.Equal(t, []int{2, 1, 1}, kit.Bodies(t, dead), "in the order they died")
			ls, err := dead.Peek(ctx, fanout.Unlimited)
			require.NoError(t, err)
			for k, s := range []*fanout.Queue[int]{c, b, a} {
				require.Equal(t, ids[s], ls[k].ID())
				require.Equal(t, times[s], ls[k].PublishedAt())
				require.Equal(t, s.Name(), ls[k].History()[0].Queue)
				require.Equal(t, "dead", ls[k].Queue())
			}

			for _, s := range []*fanout.Queue[int]{b, c} {
				n, err := s.Redrive(ctx)
				require.NoError(t, err)
				require.Equal(t, 1, n, "only its own")
				d := kit.Receive(t, s)
				require.Equal(t, ids[s], d.ID())
				require.Equal(t, times[s], d.PublishedAt())
				require.Equal(t, []fanout.Cause{fanout.Nacked}, kit.CausesOf(d))
				require.Equal(t, 1, d.Attempt())
				require.NoError(t, d.Nack(ctx)) // and dead again
			}
			n, err := a.Redrive(ctx, fanout.RedriveIDs(ids[c]))
			require.ErrorIs(t, err, fanout.ErrUnknownID)
			require.Zero(t, n, "not by another's ID")
			require.Equal(t, []int{1, 1, 2}, kit.Bodies(t, dead))
			require.Equal(t, 3, a.Stats().Dead)
			kit.Check(t, first)
			kit.Check(t, second)
			kit.CheckDeadLetters(t, dead)

			// The end of a topic doesn't close it; a consumer takes the letters of all.
			first.Close()
			<-first.Done()
			require.Equal(t, "a", kit.Receive(t, dead).History()[0].Queue)
			_, err = a.Redrive(ctx)
			require.ErrorIs(t, err, fanout.ErrClosed)
			n, err = c.Redrive(ctx)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.NoError(t, dead.Close())
			require.NoError(t, dead.Close(), "again")
			second.Close()
		})
	})
	t.Run("shared and full", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			tops := []*fanout.Topic[int]{kit.NewTopic[int](t), kit.NewTopic[int](t)}
			dead, err := fanout.NewDeadLetterQueue[int]("dead", fanout.WithDeadLetterCapacity(1), kit.Silent)
			require.NoError(t, err)
			var qs []*fanout.Queue[int]
			for k, top := range tops {
				q := kit.OpenQueue(t, top, fmt.Sprint(k), fanout.WithDeadLetterQueue(dead), fanout.WithMaxAttempts(1), fanout.WithCapacity(2))
				qs = append(qs, q)
				kit.Publish(t, top, 10*k+1, 10*k+2)
				require.NoError(t, kit.Receive(t, q).Nack(ctx))
				require.NoError(t, kit.Receive(t, q).Nack(ctx))
			}
			require.Equal(t, [2]int{1, 2}, [2]int{qs[0].Stats().Parked, qs[1].Stats().Parked})
			blocked := kit.Waiting(ctx, tops[1], fanout.Message[int]{Body: 13})
			took := map[int]bool{}
			for range 4 {
				d := kit.Receive(t, dead)
				require.False(t, took[d.Body])
				took[d.Body] = true
				require.NoError(t, d.Ack(ctx))
				kit.CheckDeadLetters(t, dead)
				kit.Check(t, tops[0])
				kit.Check(t, tops[1])
			}
			require.Len(t, took, 4, "of both sources")
			require.NoError(t, kit.RequireDecided(t, blocked), "who waited for the room of what was parked")
			require.Zero(t, qs[0].Stats().Unsettled())

			// What is dead once it is closed is parked, and stays.
			require.NoError(t, kit.Receive(t, qs[1]).Nack(ctx))
			kit.Publish(t, tops[1], 14)
			require.NoError(t, kit.Receive(t, qs[1]).Nack(ctx))
			require.NoError(t, dead.Close())
			_, err = dead.Receive(ctx)
			require.ErrorIs(t, err, fanout.ErrClosed)
			require.Equal(t, []int{13}, kit.Bodies(t, dead), "its letters can be looked at")
			kit.Publish(t, tops[0], 3)
			require.NoError(t, kit.Receive(t, qs[0]).Nack(ctx))
			require.Equal(t, [2]int{1, 1}, [2]int{qs[0].Stats().Parked, qs[1].Stats().Parked})
			kit.Check(t, tops[0])
			for _, top := range tops {
				var left *fanout.ShutdownError
				require.ErrorAs(t, top.Shutdown(ctx), &left)
				require.Equal(t, 1, left.Queues[0].Parked)
				<-top.Done()
			}
		})
	})
	t.Run("of one key", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t, fanout.WithOrdering())
			q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithBackoff(fanout.Constant(time.Hour)))
			kit.PublishAll(t, top, kit.Keyed("a", 1, 2)...)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			dead := q.DeadLetters()
			require.NoError(t, kit.Receive(t, dead).Nack(ctx)) // for an hour, and the other is behind it
			kit.RequireEmpty(t, dead)
			got := make(chan int, 1)
			go func() {
				if d, err := dead.Receive(ctx); err == nil {
					got <- d.Body
				}
			}()
			synctest.Wait()
			n, err := q.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body == 1 }))
			require.NoError(t, err)
			require.Equal(t, 1, n)
			synctest.Wait()
			require.Len(t, got, 1, "the head was redriven: its key goes on")
			kit.Check(t, top)
			top.Close()
		})
	})
}

func TestADeadLetterQueueHidesAndBacksOffAsItsQueueDoes(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(7*time.Second), fanout.WithBackoff(fanout.Constant(3*time.Second)))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		d := q.DeadLetters()
		letter := kit.Receive(t, d)
		require.Equal(t, time.Now().Add(7*time.Second), letter.Deadline())
		require.NoError(t, letter.Nack(ctx))
		time.Sleep(3*time.Second - 1)
		kit.RequireEmpty(t, d)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		kit.Receive(t, d)
		top.Close()
	})
}

func TestALetterThatFailsForEverKeepsAHistoryOfLimitedLength(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		for range 1500 {
			require.NoError(t, kit.Receive(t, q.DeadLetters()).NackAfter(ctx, 0))
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		h := kit.Receive(t, q.DeadLetters()).History()
		require.Len(t, h, 1000)
		require.Equal(t, "q", h[0].Queue, "the first attempt is kept")
		top.Close()
	})
}

func TestTheDeadLettersOfAClosedQueueAreClosedWithItsTopic(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		top.Close()
		_, _, err := q.DeadLetters().TryReceive(ctx) // made only now
		require.ErrorIs(t, err, fanout.ErrClosed)
		<-top.Done()
	})
}

func TestAReceiverThatWaitsForDeadLettersGetsTheFirst(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		got := make(chan fanout.Delivery[int], 1)
		go func() {
			d, err := q.DeadLetters().Receive(ctx)
			require.NoError(t, err)
			got <- d
		}()
		synctest.Wait()
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		synctest.Wait()
		require.Len(t, got, 1, "the receiver sleeps on")
		require.NoError(t, (<-got).Ack(ctx))
		top.Close()
	})
}

func TestADeadLetterQueueWhoseTopicIsClosedIsClosed(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		require.ErrorIs(t, q.DeadLetters().Close(), fanout.ErrUnsupported)
		require.NoError(t, top.Close())
		require.NoError(t, q.DeadLetters().Close())
		require.NoError(t, q.Close())
		<-top.Done()
	})
}

func TestCombinationOfSharedDeadLettersWithATimeToLiveAndAKey(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		kit.Elapse(time.Minute)
		dead, err := fanout.NewDeadLetterQueue[int]("dead", kit.Silent)
		require.NoError(t, err)
		kit.Elapse(time.Minute)
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterQueue(dead), fanout.WithTimeToLive(10*time.Second), fanout.WithMaxAttempts(1))
		other := kit.OpenQueue(t, top, "other", fanout.WithDeadLetterQueue(dead), fanout.WithMaxAttempts(1))
		kit.PublishAll(t, top, kit.Keyed("a", 1, 2, 3)...)
		kit.Elapse(10 * time.Second)
		kit.RequireEmpty(t, q) // all have expired
		require.Equal(t, []int{1, 2, 3}, kit.Bodies(t, dead))
		require.NoError(t, kit.Receive(t, other).Nack(ctx))
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, []int{1}, kit.Bodies(t, dead))
		kit.Elapse(10*time.Second - 1) // it began anew
		for _, want := range []int{1, 2} {
			d := kit.Receive(t, q)
			require.Equal(t, want, d.Body)
			kit.RequireEmpty(t, q) // one of a key
			require.NoError(t, d.Ack(ctx))
		}
		kit.Elapse(1)
		kit.RequireEmpty(t, q)
		require.Equal(t, []int{1, 3}, kit.Bodies(t, dead))
		kit.CheckDeadLetters(t, dead)
		kit.Check(t, top)
		top.Close()
		require.NoError(t, dead.Close())
	})
}

func TestADeadLetterQueueMadeDuringAShutdownGivesOutLetters(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		require.NoError(t, kit.Receive(t, q.DeadLetters()).Ack(ctx))
		require.NoError(t, kit.Receive(t, q).Ack(ctx))
		require.NoError(t, <-done)
	})
}

func TestADeadLetterQueueDropsWhatWasPublishedFirst(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterCapacity(2), fanout.WithDeadLetterOverflow(fanout.DropOldest))
		kit.Publish(t, top, 1, 2, 3)
		one, two, three := kit.Receive(t, q), kit.Receive(t, q), kit.Receive(t, q)
		for _, d := range []fanout.Delivery[int]{two, one, three} { // die in another order
			require.NoError(t, d.Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		require.Equal(t, []int{2, 3}, kit.Bodies(t, q.DeadLetters()))
		top.Close()
	})
}

package fanout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// What a queue offers, feature by feature: one test for each row of that table,
// named after it. The promises that hold for all of them are in promise_*_test.go.

// elapse lets d pass, and all that it brings about.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func publishAll[T any](t *testing.T, top *Topic[T], ms ...Message[T]) {
	t.Helper()
	require.NoError(t, top.PublishMessages(context.Background(), ms...))
}

// deadBodies peeks at the dead letters.
func deadBodies[T any](t *testing.T, q *Queue[T]) []T {
	t.Helper()
	return bodies(t, q.DeadLetters())
}

// causesOf are the causes in a delivery's history.
func causesOf[T any](d Delivery[T]) (cs []Cause) {
	for _, a := range d.History() {
		cs = append(cs, a.Cause)
	}
	return cs
}

// A diary says what happened when, since it was begun.
type diary struct {
	began time.Time

	mu    sync.Mutex
	lines []string
}

func newDiary() *diary { return &diary{began: time.Now()} }

func (y *diary) note(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.lines = append(y.lines, fmt.Sprintf("%v: ", time.Since(y.began))+fmt.Sprintf(format, args...))
}

// read returns the lines since the last time.
func (y *diary) read() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	lines := y.lines
	y.lines = nil
	return lines
}

// waiting publishes in a goroutine, and returns where the error will come.
func waiting[T any](ctx context.Context, top *Topic[T], ms ...Message[T]) <-chan error {
	errs := make(chan error, 1)
	go func() { errs <- top.PublishMessages(ctx, ms...) }()
	synctest.Wait()
	return errs
}

func requireWaiting(t *testing.T, errs <-chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-errs:
		require.Fail(t, "it does not wait", "it returned %v", err)
	default:
	}
}

func requireDecided(t *testing.T, errs <-chan error) error {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-errs:
		return err
	default:
		require.Fail(t, "it waits")
		return nil
	}
}

// --- capacity, overflow ---

func TestRowCapacity(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(3), WithOverflow(Reject), WithBackoff(Constant(time.Minute)))
		require.Equal(t, 1024, openQueue(t, top, "default").Stats().Capacity)
		wide := openQueue(t, top, "wide", WithCapacity(Unlimited))
		publish(t, top, 1, 2, 3)
		require.ErrorIs(t, top.Publish(ctx, 4), ErrQueueFull, "what is ready counts")
		d := receive(t, q)
		require.ErrorIs(t, top.Publish(ctx, 4), ErrQueueFull, "what is in flight counts")
		require.NoError(t, d.Nack(ctx))
		require.ErrorIs(t, top.Publish(ctx, 4), ErrQueueFull, "what is retrying counts")
		require.NoError(t, receive(t, q).Settle(ctx, Snooze(time.Hour)))
		require.ErrorIs(t, top.Publish(ctx, 4), ErrQueueFull, "what is snoozed counts")
		check(t, top)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		publish(t, top, 4)
		require.ErrorIs(t, top.Publish(ctx, 5), ErrQueueFull, "what is dead does not")
		require.Equal(t, []int{1, 2, 3, 4}, bodies(t, wide))
		check(t, top)
		top.Close()
	})
}

func TestRowOverflow(t *testing.T) {
	odd := WithFilter(func(b int) bool { return b%2 != 0 })
	even := WithFilter(func(b int) bool { return b%2 == 0 })

	t.Run("Block", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(2))
			publish(t, top, 1, 2)
			a, b := waiting(ctx, top, Message[int]{Body: 3}, Message[int]{Body: 4}), waiting(ctx, top, Message[int]{Body: 5})
			elapse(time.Hour)
			require.NoError(t, receive(t, q).Ack(ctx))
			requireWaiting(t, a)
			requireWaiting(t, b) // it came later, and there would be room
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, requireDecided(t, a))
			requireWaiting(t, b)
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, requireDecided(t, b))
			require.Equal(t, []int{4, 5}, bodies(t, q))
			require.ErrorIs(t, top.PublishMessages(ctx, make([]Message[int], 3)...), ErrBatchTooLarge)
			check(t, top)
			top.Close()
		})
	})
	t.Run("Block, another queue", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			o := openQueue(t, top, "odd", WithCapacity(1), odd)
			e := openQueue(t, top, "even", WithCapacity(3), even)
			publish(t, top, 1)
			a := waiting(ctx, top, Message[int]{Body: 3})
			publish(t, top, 2) // shares no queue with it
			b := waiting(ctx, top, Message[int]{Body: 4}, Message[int]{Body: 5})
			c := waiting(ctx, top, Message[int]{Body: 6}) // shares one with b, which came before
			requireWaiting(t, c)
			soon, cancel := context.WithCancel(ctx)
			d := waiting(soon, top, Message[int]{Body: 7})
			cancel() // has all looked at again
			require.ErrorIs(t, requireDecided(t, d), context.Canceled)
			requireWaiting(t, c)
			require.NoError(t, receive(t, o).Ack(ctx))
			require.NoError(t, requireDecided(t, a))
			requireWaiting(t, b)
			requireWaiting(t, c)
			require.NoError(t, receive(t, o).Ack(ctx))
			require.NoError(t, requireDecided(t, b))
			require.NoError(t, requireDecided(t, c))
			require.Equal(t, []int{2, 4, 6}, bodies(t, e))
			require.Equal(t, []int{5}, bodies(t, o))
			check(t, top)
			top.Close()
		})
	})
	t.Run("Reject", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(2), WithOverflow(Reject))
			old := openQueue(t, top, "old", WithCapacity(1), WithOverflow(DropOldest))
			publish(t, top, 1)
			err := top.PublishMessages(ctx, Message[int]{Body: 2}, Message[int]{Body: 3})
			require.ErrorIs(t, err, ErrQueueFull)
			require.ErrorContains(t, err, `"q" holds 1`)
			require.Equal(t, []int{1}, bodies(t, q))
			require.Equal(t, []int{1}, bodies(t, old), "for all queues")
			require.ErrorIs(t, top.PublishMessages(ctx, make([]Message[int], 3)...), ErrBatchTooLarge)
			check(t, top)
			top.Close()
		})
	})
	for _, filtered := range []bool{false, true} {
		options := func(o Overflow) []QueueOption {
			os := []QueueOption{WithCapacity(3), WithOverflow(o), WithBackoff(Constant(time.Hour))}
			if filtered {
				os = append(os, WithFilter(func(int) bool { return true }))
			}
			return os
		}
		t.Run(fmt.Sprintf("DropOldest, filtered %t", filtered), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", options(DropOldest)...)
				publish(t, top, 1, 2, 3)
				d := receive(t, q)
				publish(t, top, 4)
				require.Equal(t, []int{3, 4}, bodies(t, q), "2 is the oldest that is not in flight")
				require.NoError(t, d.Nack(ctx))
				publish(t, top, 5)
				require.Equal(t, []int{3, 4, 5}, bodies(t, q), "1 was published first")
				publishAll(t, top, make([]Message[int], 5)...)
				require.Equal(t, []int{0, 0, 0}, bodies(t, q), "a batch above the capacity is no error")
				require.Equal(t, uint64(7), q.Stats().Dropped)
				check(t, top)
				top.Close()
			})
		})
		t.Run(fmt.Sprintf("DropNewest, filtered %t", filtered), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", options(DropNewest)...)
				publishAll(t, top, []Message[int]{{Body: 1}, {Body: 2}, {Body: 3}, {Body: 4}}...)
				publish(t, top, 5)
				require.Equal(t, []int{1, 2, 3}, bodies(t, q))
				require.NoError(t, receive(t, q).Ack(ctx))
				publish(t, top, 6, 7)
				require.Equal(t, []int{2, 3, 6}, bodies(t, q))
				require.Equal(t, uint64(3), q.Stats().Dropped)
				check(t, top)
				top.Close()
			})
		})
	}
	t.Run("an idle queue pins no memory", func(t *testing.T) {
		type big [1 << 10]byte
		top := newTopic[*big](t)
		openQueue(t, top, "old", WithCapacity(8), WithOverflow(DropOldest))
		openQueue(t, top, "new", WithCapacity(8), WithOverflow(DropNewest))
		before := heap()
		for range 10_000 {
			publish(t, top, new(big))
		}
		require.Less(t, heap()-before, int64(256<<10))
		check(t, top)
		top.Close()
	})
}

// --- visibility, attempts, backoff, settling ---

func TestRowVisibilityTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(10*time.Second))
		publish(t, top, 1, 2)
		d := receive(t, q)
		short := receive(t, q, WithVisibilityTimeout(time.Second))
		require.Equal(t, time.Now().Add(10*time.Second), d.Deadline())
		elapse(time.Second)
		require.ErrorIs(t, short.Ack(ctx), ErrStale)
		require.NoError(t, receive(t, q).Ack(ctx))

		require.NoError(t, d.Extend(ctx, time.Second), "never to an earlier one")
		require.Equal(t, time.Now().Add(9*time.Second), d.Deadline())
		require.NoError(t, d.Extend(ctx, 20*time.Second), "from the call")
		require.Equal(t, time.Now().Add(20*time.Second), d.Deadline())
		check(t, top)
		elapse(20*time.Second - 1)
		requireEmpty(t, q)
		elapse(1)
		require.Equal(t, 2, receive(t, q).Attempt(), "without backoff")
		require.ErrorIs(t, d.Extend(ctx, time.Hour), ErrStale)
		require.True(t, d.Deadline().IsZero())
		check(t, top)
		top.Close()
	})
	t.Run("counts from the handler's start", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				time.Sleep(900 * time.Millisecond)
				return nil
			}, WithVisibilityTimeout(time.Second))
			publish(t, top, 1, 2, 3, 4)
			synctest.Wait()
			st := s.Queue().Stats()
			require.Equal(t, [2]int{3, 1}, [2]int{st.Ready, st.InFlight}, "what no handler has begun is ready")
			elapse(3600 * time.Millisecond)
			st = s.Queue().Stats()
			require.Equal(t, [2]uint64{4, 0}, [2]uint64{st.Acked, st.TimedOut})
			check(t, top)
			top.Close()
		})
	})
}

func TestRowMaxAttempts(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		for name, n := range map[string]int{"1": 1, "3": 3, "unlimited": Unlimited} {
			var tries atomic.Int32
			s := subscribe(t, top, name, func(ctx context.Context, d Delivery[int]) error {
				if int32(d.Attempt()) != tries.Add(1) {
					t.Errorf("attempt %d is the %d", d.Attempt(), tries.Load())
				}
				return errBusy
			}, WithMaxAttempts(n), WithBackoff(Constant(time.Second)))
			publish(t, top, 1)
			elapse(99 * time.Second)
			check(t, top)
			if n == Unlimited {
				require.Equal(t, int32(100), tries.Load())
				require.Equal(t, 1, s.Queue().Stats().Retrying)
			} else {
				require.Equal(t, int32(n), tries.Load())
				require.Equal(t, []int{1}, deadBodies(t, s.Queue()))
			}
			require.NoError(t, s.Queue().Close())
		}
		top.Close()
	})
}

func TestRowBackoff(t *testing.T) {
	for name, row := range map[string]struct {
		b           Backoff
		least, most []time.Duration
	}{
		"constant":    {Constant(7 * time.Second), []time.Duration{7e9, 7e9, 7e9}, []time.Duration{7e9, 7e9, 7e9}},
		"exponential": {Exponential(time.Second, 3*time.Second), []time.Duration{5e8, 1e9, 15e8}, []time.Duration{1e9, 2e9, 3e9}},
		"function": {BackoffFunc(func(n int) time.Duration { return time.Duration(n*n) * time.Second }),
			[]time.Duration{1e9, 4e9, 9e9}, []time.Duration{1e9, 4e9, 9e9}},
		"at least a millisecond": {BackoffFunc(func(int) time.Duration { return 0 }),
			[]time.Duration{1e6, 1e6, 1e6}, []time.Duration{1e6, 1e6, 1e6}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithBackoff(row.b))
				publish(t, top, 1)
				for k := range row.least {
					require.NoError(t, receive(t, q).Nack(ctx))
					nacked := time.Now()
					d, err := q.Receive(ctx)
					require.NoError(t, err)
					require.GreaterOrEqual(t, time.Since(nacked), row.least[k])
					require.LessOrEqual(t, time.Since(nacked), row.most[k])
					require.NoError(t, d.Settle(ctx, Snooze(1))) // spends none: the same attempt again
					elapse(time.Millisecond)
				}
				check(t, top)
				top.Close()
			})
		})
	}
}

func TestRowSettle(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		late := make(chan Event, 10)
		top := newTopic[int](t, WithHooks(Hooks{Late: func(e Event) { late <- e }}))
		q := openQueue(t, top, "q", WithBackoff(Constant(time.Minute)))
		over, cancel := context.WithCancel(ctx)
		cancel()
		publish(t, top, 1, 2, 3)
		require.NoError(t, receive(t, q).Ack(over), "even with a cancelled context")
		a, b := receive(t, q), receive(t, q)
		require.NoError(t, a.Nack(over))
		require.NoError(t, b.NackAfter(over, 5*time.Second))
		require.ErrorIs(t, a.Ack(ctx), ErrSettled)
		elapse(5 * time.Second)
		require.Equal(t, 3, receive(t, q).Body)
		elapse(55 * time.Second)
		requireBodies := func(want ...int) {
			t.Helper()
			for _, w := range want {
				require.Equal(t, w, receive(t, q).Body)
			}
			requireEmpty(t, q)
		}
		requireBodies(3, 2) // 3 timed out half a minute ago
		require.NoError(t, q.Close())

		// In a push handler the first settlement wins.
		y := newDiary()
		s, err := top.Subscribe(ctx, "push", func(ctx context.Context, d Delivery[int]) error {
			y.note("%d, attempt %d", d.Body, d.Attempt())
			switch {
			case d.Body == 1:
				_ = d.Ack(ctx)
				return errBusy // too late: to hook and log
			case d.Body == 2 && d.Attempt() == 1:
				_ = d.NackAfter(ctx, time.Second)
				return nil // fine
			}
			return nil
		})
		require.NoError(t, err)
		publish(t, top, 1, 2)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1, attempt 1", "0s: 2, attempt 1", "1s: 2, attempt 2"}, y.read())
		require.Len(t, late, 1)
		e := <-late
		require.Equal(t, errBusy, e.Err)
		require.Equal(t, Failed, e.Cause)
		require.Equal(t, "push", e.Queue)
		require.Equal(t, uint64(2), s.Queue().Stats().Acked)
		check(t, top)
		top.Close()
	})
}

// --- dead letters ---

func TestRowDeadLetterQueue(t *testing.T) {
	t.Run("of its own", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithMaxAttempts(1), WithTimeToLive(time.Hour))
			require.Nil(t, q.dead, "made when first needed")
			d := q.DeadLetters()
			require.Equal(t, "q/dead", d.Name())
			require.Equal(t, 1024, d.Stats().Capacity)
			require.Same(t, d, d.DeadLetters(), "it has none of its own")
			publish(t, top, 1)
			require.NoError(t, receive(t, q).Nack(ctx))
			elapse(24 * time.Hour) // no time to live
			for n := range 20 {    // no limit of attempts
				l, err := d.Receive(ctx)
				require.NoError(t, err)
				require.Equal(t, n+1, l.Attempt())
				require.NoError(t, l.Settle(ctx, Permanent(errBusy)))
			}
			_, err := d.Redrive(ctx)
			require.ErrorIs(t, err, ErrUnsupported)
			require.ErrorIs(t, d.Close(), ErrUnsupported)
			check(t, top)
			top.Close()
		})
	})
	t.Run("shared", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			first := newTopic[int](t)
			q := func(top *Topic[int], name string, d *Queue[int]) *Queue[int] {
				return openQueue(t, top, name, WithDeadLetterQueue(d), WithMaxAttempts(1))
			}
			elapse(time.Minute)
			dead, err := NewDeadLetterQueue[int]("dead", silent)
			require.NoError(t, err)
			elapse(time.Minute)
			second, err := NewTopic[int]("refunds", silent)
			require.NoError(t, err)
			a, b, c := q(first, "a", dead), q(first, "b", dead), q(second, "c", dead)
			require.Same(t, dead, a.DeadLetters())

			ids := map[*Queue[int]]string{}
			times := map[*Queue[int]]time.Time{}
			publish(t, first, 1)
			elapse(time.Second)
			publish(t, second, 2)
			for _, s := range []*Queue[int]{c, b, a} {
				d := receive(t, s)
				ids[s], times[s] = d.ID(), d.PublishedAt()
				require.NoError(t, d.Nack(ctx))
				elapse(time.Second)
			}
			require.Equal(t, []int{2, 1, 1}, bodies(t, dead), "in the order they died")
			ls, err := dead.Peek(ctx, Unlimited)
			require.NoError(t, err)
			for k, s := range []*Queue[int]{c, b, a} {
				require.Equal(t, ids[s], ls[k].ID())
				require.Equal(t, times[s], ls[k].PublishedAt())
				require.Equal(t, s.Name(), ls[k].History()[0].Queue)
				require.Equal(t, "dead", ls[k].Queue())
			}

			for _, s := range []*Queue[int]{b, c} {
				n, err := s.Redrive(ctx)
				require.NoError(t, err)
				require.Equal(t, 1, n, "only its own")
				d := receive(t, s)
				require.Equal(t, ids[s], d.ID())
				require.Equal(t, times[s], d.PublishedAt())
				require.Equal(t, []Cause{Nacked}, causesOf(d))
				require.Equal(t, 1, d.Attempt())
				require.NoError(t, d.Nack(ctx)) // and dead again
			}
			n, err := a.Redrive(ctx, RedriveIDs(ids[c]))
			require.ErrorIs(t, err, ErrUnknownID)
			require.Zero(t, n, "not by another's ID")
			require.Equal(t, []int{1, 1, 2}, bodies(t, dead))
			require.Equal(t, 3, a.Stats().Dead)
			check(t, first)
			check(t, second)
			require.NoError(t, dead.checkLocked(0))

			// The end of a topic doesn't close it; a consumer takes the letters of all.
			first.Close()
			<-first.Done()
			require.Equal(t, "a", receive(t, dead).History()[0].Queue)
			_, err = a.Redrive(ctx)
			require.ErrorIs(t, err, ErrClosed)
			n, err = c.Redrive(ctx)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.NoError(t, dead.Close())
			require.NoError(t, dead.Close(), "again")
			<-dead.core.live.awaitable()
			second.Close()
		})
	})
	t.Run("shared and full", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			tops := []*Topic[int]{newTopic[int](t), newTopic[int](t)}
			dead, err := NewDeadLetterQueue[int]("dead", WithDeadLetterCapacity(1), silent)
			require.NoError(t, err)
			var qs []*Queue[int]
			for k, top := range tops {
				q := openQueue(t, top, fmt.Sprint(k), WithDeadLetterQueue(dead), WithMaxAttempts(1), WithCapacity(2))
				qs = append(qs, q)
				publish(t, top, 10*k+1, 10*k+2)
				require.NoError(t, receive(t, q).Nack(ctx))
				require.NoError(t, receive(t, q).Nack(ctx))
			}
			require.Equal(t, [2]int{1, 2}, [2]int{qs[0].Stats().Parked, qs[1].Stats().Parked})
			blocked := waiting(ctx, tops[1], Message[int]{Body: 13})
			took := map[int]bool{}
			for range 4 {
				d := receive(t, dead)
				require.False(t, took[d.Body])
				took[d.Body] = true
				require.NoError(t, d.Ack(ctx))
				require.NoError(t, dead.checkLocked(0))
				check(t, tops[0])
				check(t, tops[1])
			}
			require.Len(t, took, 4, "of both sources")
			require.NoError(t, requireDecided(t, blocked), "who waited for the room of what was parked")
			require.Zero(t, qs[0].Stats().Unsettled())

			// What is dead once it is closed is parked, and stays.
			require.NoError(t, receive(t, qs[1]).Nack(ctx))
			publish(t, tops[1], 14)
			require.NoError(t, receive(t, qs[1]).Nack(ctx))
			require.NoError(t, dead.Close())
			_, err = dead.Receive(ctx)
			require.ErrorIs(t, err, ErrClosed)
			require.Equal(t, []int{13}, bodies(t, dead), "its letters can be looked at")
			publish(t, tops[0], 3)
			require.NoError(t, receive(t, qs[0]).Nack(ctx))
			require.Equal(t, [2]int{1, 1}, [2]int{qs[0].Stats().Parked, qs[1].Stats().Parked})
			check(t, tops[0])
			for _, top := range tops {
				var left *ShutdownError
				require.ErrorAs(t, top.Shutdown(ctx), &left)
				require.Equal(t, 1, left.Queues[0].Parked)
				<-top.Done()
			}
		})
	})
	t.Run("of one key", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithOrdering())
			q := openQueue(t, top, "q", WithMaxAttempts(1), WithBackoff(Constant(time.Hour)))
			publishAll(t, top, keyed("a", 1, 2)...)
			require.NoError(t, receive(t, q).Nack(ctx))
			require.NoError(t, receive(t, q).Nack(ctx))
			dead := q.DeadLetters()
			require.NoError(t, receive(t, dead).Nack(ctx)) // for an hour, and the other is behind it
			requireEmpty(t, dead)
			got := make(chan int, 1)
			go func() {
				if d, err := dead.Receive(ctx); err == nil {
					got <- d.Body
				}
			}()
			synctest.Wait()
			n, err := q.Redrive(ctx, RedriveIf(func(d Delivery[int]) bool { return d.Body == 1 }))
			require.NoError(t, err)
			require.Equal(t, 1, n)
			synctest.Wait()
			require.Len(t, got, 1, "the head was redriven: its key goes on")
			check(t, top)
			top.Close()
		})
	})
}

// --- handlers ---

func TestRowConcurrency(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		var running, most atomic.Int32
		free := make(chan struct{})
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			switch {
			case d.Body < 0:
				<-free // whatever its context says
			case d.Body%3 == 0:
				runtime.Goexit()
			}
			time.Sleep(time.Millisecond)
			return nil
		}, WithConcurrency(3), WithVisibilityTimeout(time.Second), WithMaxAttempts(2), WithBackoff(Constant(time.Second)))
		q := s.Queue()
		publish(t, top, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		elapse(10 * time.Second)
		require.Equal(t, int32(3), most.Load())
		require.Equal(t, uint64(6), q.Stats().Acked, "a worker that exits is replaced")
		require.Equal(t, 3, q.Stats().Dead)
		require.Zero(t, q.Stats().Workers)

		publish(t, top, -1, -2, -3, 10)
		elapse(time.Second)
		st := q.Stats()
		require.Equal(t, [4]int{3, 3, 0, 4}, [4]int{st.Workers, st.Stuck, st.InFlight, st.Ready}, "each stuck handler keeps its worker")
		for _, want := range []int{-1, 10, -2, -3} { // their messages go to others, in turn with the backlog
			d := receive(t, q)
			require.Equal(t, want, d.Body)
			require.NoError(t, d.Ack(ctx))
		}
		publish(t, top, 11)
		elapse(time.Hour)
		require.Equal(t, 1, q.Stats().Ready)
		check(t, top)
		close(free)
		elapse(time.Second)
		require.Equal(t, int32(3), most.Load())
		st = q.Stats()
		require.Equal(t, [3]int{0, 0, 0}, [3]int{st.Workers, st.Stuck, st.Unsettled()})
		check(t, top)
		top.Close()
	})
}

func TestRowHandlerContext(t *testing.T) {
	type key struct{}
	// Each row ends the run of a handler that waits for its context.
	for name, row := range map[string]struct {
		end   func(ctx context.Context, top *Topic[int], s *Subscriber[int])
		after time.Duration
		is    error
	}{
		"time-out":        {func(context.Context, *Topic[int], *Subscriber[int]) {}, 10 * time.Second, ErrStale},
		"close":           {func(_ context.Context, top *Topic[int], _ *Subscriber[int]) { top.Close() }, 0, ErrClosed},
		"close the queue": {func(_ context.Context, _ *Topic[int], s *Subscriber[int]) { _ = s.Queue().Close() }, 0, ErrClosed},
		"purge": {func(ctx context.Context, _ *Topic[int], s *Subscriber[int]) {
			_, _ = s.Queue().Purge(ctx)
		}, 0, ErrStale},
		"end of shutdown": {func(ctx context.Context, top *Topic[int], _ *Subscriber[int]) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			_ = top.Shutdown(ctx)
		}, 3 * time.Second, ErrClosed},
		"end of the subscriber's": {func(ctx context.Context, _ *Topic[int], s *Subscriber[int]) {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			_ = s.Shutdown(ctx)
		}, 3 * time.Second, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				causes := make(chan error, 1)
				var after time.Duration
				s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
					if d.Attempt() > 1 {
						return nil
					}
					if _, ok := ctx.Deadline(); ok || ctx.Err() != nil || ctx.Value(key{}) != nil {
						t.Error("a deadline, an error, or a value of the publisher's")
					}
					began := time.Now()
					<-ctx.Done()
					after = time.Since(began)
					if ctx.Err() != context.Canceled {
						t.Errorf("it says %v", ctx.Err())
					}
					causes <- context.Cause(ctx)
					return nil
				}, WithVisibilityTimeout(10*time.Second))
				pub, cancel := context.WithCancel(context.WithValue(ctx, key{}, 1))
				require.NoError(t, top.Publish(pub, 1))
				cancel() // is not the handler's
				synctest.Wait()
				require.Empty(t, causes)
				row.end(ctx, top, s)
				elapse(time.Minute)
				err := <-causes
				require.ErrorIs(t, err, row.is)
				require.ErrorContains(t, err, `"q"`)
				require.Equal(t, row.after, after)
				top.Close()
				<-top.Done()
			})
		})
	}
	t.Run("a return does not cancel it", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			var kept context.Context
			subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				if d.Body == 1 {
					kept = ctx
					ctx.Done()
				}
				return nil
			})
			publish(t, top, 1, 2)
			synctest.Wait()
			top.Close()
			<-top.Done()
			require.NoError(t, kept.Err())
		})
	})
}

func TestHandlersWithATimeoutLeaveTheTopicsEndToTheTopic(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		subscribe(t, top, "q", func(context.Context, Delivery[int]) error { return nil }, WithHandlerTimeout(time.Second))
		for n := range 5 {
			publish(t, top, n)
			synctest.Wait()
		}
		require.True(t, isOpen(top.Done()))
		began := time.Now()
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
		require.Zero(t, time.Since(began), "no timer of a handler's is waited for")
	})
}

func TestRowHandlerTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		y := newDiary()
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			if d.Attempt() > 1 {
				y.note("attempt %d", d.Attempt())
				return nil
			}
			<-ctx.Done()
			cause := context.Cause(ctx)
			y.note("deadline exceeded: %t", errors.Is(cause, context.DeadlineExceeded))
			time.Sleep(5 * time.Second)
			if d.Body == 2 {
				return nil
			}
			return cause
		}, WithHandlerTimeout(10*time.Second), WithVisibilityTimeout(20*time.Second), WithBackoff(Constant(time.Second)))
		publish(t, top, 1)
		elapse(12 * time.Second)
		require.Equal(t, 1, s.Queue().Stats().InFlight, "the delivery goes on")
		require.Zero(t, s.Queue().Stats().Stuck)
		elapse(time.Minute)
		require.Equal(t, []string{"10s: deadline exceeded: true", "16s: attempt 2"}, y.read())
		st := s.Queue().Stats()
		require.Equal(t, [3]uint64{1, 0, 1}, [3]uint64{st.Failed, st.TimedOut, st.Acked}, "its error counts as any")
		publish(t, top, 2)
		elapse(time.Minute)
		st = s.Queue().Stats()
		require.Equal(t, [3]uint64{1, 0, 2}, [3]uint64{st.Failed, st.TimedOut, st.Acked}, "and so does its success")
		check(t, top)
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
	})
}

// --- when messages are delivered ---

func TestRowDelay(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q", WithDelay(10*time.Second))
		plain := openQueue(t, top, "plain")
		publishAll(t, top, Message[int]{Body: 1}, Message[int]{Body: 2, Delay: 5 * time.Second})
		require.Equal(t, 2, q.Stats().Delayed)
		require.Equal(t, 1, plain.Stats().Delayed, "a message's delay holds in all queues")
		elapse(5*time.Second - 1)
		requireEmpty(t, q)
		elapse(1)
		require.Equal(t, 2, receive(t, q).Body)
		require.Equal(t, 2, receive(t, plain).Body, "what has become due goes first after the backlog's turn")
		require.Equal(t, 1, receive(t, plain).Body)
		elapse(5*time.Second - 1)
		requireEmpty(t, q)
		elapse(1)
		require.Equal(t, 1, receive(t, q).Body)
		check(t, top)

		err := top.PublishMessages(ctx, Message[int]{Body: 3, OrderingKey: "k", Delay: 1})
		require.ErrorIs(t, err, ErrUnsupported)
		publishAll(t, top, keyed("k", 4, 5)...)
		elapse(10 * time.Second)
		d := receive(t, q)
		require.Equal(t, 4, d.Body)
		requireEmpty(t, q)
		require.NoError(t, d.Ack(ctx))
		require.Equal(t, 5, receive(t, q).Body)
		check(t, top)
		top.Close()
	})
}

func TestRowTimeToLive(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithRetention(10))
		y := newDiary()
		q := openQueue(t, top, "q", WithTimeToLive(10*time.Second), WithBackoff(Constant(time.Second)), WithMaxAttempts(9))
		forever := openQueue(t, top, "forever")
		publishAll(t, top, Message[int]{Body: 1}, Message[int]{Body: 2, TimeToLive: 5 * time.Second}, Message[int]{Body: 3, TimeToLive: time.Minute})
		elapse(5 * time.Second)
		require.Equal(t, 3, q.Stats().Ready, "nothing comes to see: it dies when its turn comes")
		elapse(5*time.Second - 1)
		d := receive(t, q)
		require.Equal(t, 1, d.Body, "a nanosecond before its end")
		e := receive(t, q)
		require.Equal(t, 3, e.Body, "2 has expired")
		require.Equal(t, []int{2}, deadBodies(t, q))
		require.Equal(t, uint64(1), q.Stats().Expired)
		require.Equal(t, uint64(2), q.Stats().Delivered)

		elapse(10 * time.Second)
		require.NoError(t, e.Nack(ctx), "it may fail and be retried")
		require.NoError(t, d.Nack(ctx), "one in flight may finish, but not fail")
		require.Equal(t, []int{1, 2}, deadBodies(t, q))
		ls, err := q.DeadLetters().Peek(ctx, 10)
		require.NoError(t, err)
		require.Equal(t, []Cause{Nacked, Expired}, causesOf(ls[0]))
		require.Equal(t, []Cause{Expired}, causesOf(ls[1]))
		require.Equal(t, 1, q.Stats().Retrying)
		check(t, top)

		n, err := q.Redrive(ctx) // begins anew
		require.NoError(t, err)
		require.Equal(t, 2, n)
		elapse(5*time.Second - 1)
		require.Equal(t, 1, receive(t, q).Body)
		require.Equal(t, 2, receive(t, q).Body)
		require.Equal(t, 3, receive(t, q).Body)
		y.note("now")
		require.Equal(t, []string{"24.999999998s: now"}, y.read())
		require.Equal(t, 1, receive(t, forever).Body)
		require.Equal(t, 3, receive(t, forever).Body, "a message's own holds in all queues")
		requireEmpty(t, forever)

		late := openQueue(t, top, "late", WithReplay(10))
		require.Equal(t, []int{1, 3}, bodies(t, late), "a replay skips what has expired")
		later := openQueue(t, top, "later", WithReplay(10), WithTimeToLive(time.Second))
		require.Equal(t, []int{3}, bodies(t, later))
		check(t, top)
		top.Close()
	})
	t.Run("exactly at its end", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithTimeToLive(10*time.Second))
			publish(t, top, 1)
			got := make(chan int, 2)
			elapse(10 * time.Second)
			go func() {
				for d, err := range q.Deliveries(ctx) {
					if err == nil {
						got <- d.Body
					}
				}
			}()
			synctest.Wait()
			require.Empty(t, got)
			require.Equal(t, []int{1}, deadBodies(t, q))
			publish(t, top, 2)
			synctest.Wait()
			require.Equal(t, 2, <-got)
			check(t, top)
			top.Close()
		})
	})
}

// --- ordering, deduplication, filters, replay, redrive ---

func TestRowOrdering(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		err := newTopic[int](t).PublishMessages(ctx, keyed("a", 1)...)
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorContains(t, err, "OrderingKey")

		top := newTopic[int](t, WithOrdering())
		y := newDiary()
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("%d", d.Body)
			time.Sleep(time.Second)
			return nil
		}, WithConcurrency(8))
		publishAll(t, top, keyed("a", 1, 2, 3)...)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1", "1s: 2", "2s: 3"}, y.read())
		check(t, top)
		top.Close()
	})
}

func withID(body int, id string) Message[int] { return Message[int]{Body: body, DeduplicationID: id} }

func TestRowDeduplication(t *testing.T) {
	const window = 5 * time.Minute
	t.Run("window", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithDeduplication(window, 10))
			q := openQueue(t, top, "q")
			publishAll(t, top, withID(1, "x"))
			require.NoError(t, receive(t, q).Ack(ctx))
			publishAll(t, top, withID(2, "x")) // remembered after the ack
			elapse(window - 1)
			publishAll(t, top, withID(3, "x"), withID(4, "y"), withID(5, "y"), Message[int]{Body: 6})
			require.Equal(t, []int{4, 6}, bodies(t, q))
			elapse(1)
			publishAll(t, top, withID(7, "x"), withID(8, "y"))
			require.Equal(t, []int{4, 6, 7}, bodies(t, q))
			require.Equal(t, uint64(4), top.Stats().Published)
			require.Equal(t, 4, top.Stats().Duplicates)

			elapse(time.Second)
			publishAll(t, top, withID(9, "z")) // a second after x, for which the timer comes
			elapse(window - 1)
			publishAll(t, top, withID(10, "z"))
			elapse(1)
			publishAll(t, top, withID(11, "z"))
			require.Equal(t, []int{4, 6, 7, 9, 11}, bodies(t, q))
			check(t, top)
			top.Close()
			<-top.Done()
		})
	})
	t.Run("a duplicate needs no room", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithDeduplication(window, 10))
			q := openQueue(t, top, "q", WithCapacity(1))
			openQueue(t, top, "even", WithFilter(func(b int) bool { return b%2 == 0 }), WithCapacity(1), WithOverflow(Reject))
			publishAll(t, top, withID(2, "x"))
			publishAll(t, top, withID(2, "x"), withID(4, "x"))
			other := waiting(ctx, top, Message[int]{Body: 1})
			require.NoError(t, top.TryPublishMessages(ctx, withID(2, "x")), "not even while others wait")
			requireWaiting(t, other)
			require.Equal(t, []int{2}, bodies(t, q))
			require.NoError(t, receive(t, q).Ack(ctx))
			require.NoError(t, requireDecided(t, other))
			check(t, top)
			top.Close()
		})
	})
	t.Run("filters see the right ones of a batch", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			var told []int
			top := newTopic[int](t, WithDeduplication(window, 10), WithHooks(Hooks{Published: func(e Event) { told = append(told, int(e.Seq)) }}))
			even := openQueue(t, top, "even", WithFilter(func(b int) bool { return b%2 == 0 }))
			odd := openQueue(t, top, "odd", WithFilter(func(b int) bool { return b%2 == 1 }))
			publishAll(t, top, withID(1, "a"), withID(2, "b"), withID(3, "a"), withID(4, "c"), withID(5, "b"), withID(6, "b"), withID(7, "d"))
			require.Equal(t, []int{2, 4}, bodies(t, even))
			require.Equal(t, []int{1, 7}, bodies(t, odd))
			require.Equal(t, []int{1, 2, 3, 4}, told)
			check(t, top)
			top.Close()
		})
	})
	t.Run("most IDs", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithDeduplication(window, 2))
			q := openQueue(t, top, "q")
			publishAll(t, top, withID(1, "x"), withID(2, "y"), withID(3, "z"))
			st := top.Stats()
			require.Equal(t, [2]uint64{2, 1}, [2]uint64{uint64(st.Remembered), uint64(st.Forgotten)})
			publishAll(t, top, withID(4, "y"), withID(5, "z"), withID(6, "x")) // x was forgotten, and now y is
			require.Equal(t, []int{1, 2, 3, 6}, bodies(t, q))
			require.Equal(t, 2, top.Stats().Forgotten)
			top.Close()
		})
	})
	t.Run("the memory is given back", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithDeduplication(window, 100_000))
			for n := range 1000 {
				publishAll(t, top, withID(n, fmt.Sprint(n)))
			}
			elapse(window + window/8)
			top.mu.Lock() // nobody asked, but the timer
			require.Zero(t, top.dedup.Len())
			require.False(t, top.dedup.armed)
			top.mu.Unlock()
			top.Close()
			<-top.Done()
		})
	})
	t.Run("a closed topic has no timer", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithDeduplication(window, 10))
			publishAll(t, top, withID(1, "x"))
			top.Close()
			start := time.Now()
			<-top.Done()
			require.Zero(t, time.Since(start))
		})
	})
}

func TestRowFilter(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		asked := 0
		body := openQueue(t, top, "body", WithFilter(func(b int) bool { asked++; return b > 1 }))
		message := openQueue(t, top, "message", WithMessageFilter(func(m Message[int]) bool {
			return m.OrderingKey == "k" || m.ID == "i" || m.TimeToLive == time.Hour
		}))
		policy := openQueue(t, top, "policy", WithFilterPolicy(`{"region": ["eu", {"prefix": "us-"}], "cents": [{"numeric": [">=", 100]}]}`))
		several := openQueue(t, top, "several", WithFilter(func(b int) bool { return b%2 == 0 }),
			WithMessageFilter(func(m Message[int]) bool { return m.Body > 2 }), WithFilterPolicy(`{"region": [{"exists": true}]}`))
		none := openQueue(t, top, "none", WithFilter(func(int) bool { return false }), WithCapacity(1), WithOverflow(Reject))
		region := func(r, cents string) map[string]string { return map[string]string{"region": r, "cents": cents} }
		publishAll(t, top,
			Message[int]{Body: 1, Attributes: region("eu", "99")},
			Message[int]{Body: 2, ID: "i", Attributes: region("us-east", "100")},
			Message[int]{Body: 3, OrderingKey: "k", Attributes: region("us", "1e3")},
			Message[int]{Body: 4, TimeToLive: time.Hour, Attributes: region("eu", "250.5")},
			Message[int]{Body: 6},
		)
		require.Equal(t, []int{2, 3, 4, 6}, bodies(t, body))
		require.Equal(t, []int{2, 3, 4}, bodies(t, message))
		require.Equal(t, []int{2, 4}, bodies(t, policy))
		require.Equal(t, []int{4}, bodies(t, several))
		require.Empty(t, bodies(t, none), "and it never refuses")
		require.Equal(t, 5, asked, "once for each message")
		require.Equal(t, 4, body.Stats().Unsettled())

		p := openQueue(t, top, "panics", WithFilter(func(b int) bool { panic(errBusy) }))
		err := top.Publish(ctx, 7)
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, `"panics"`)
		require.Equal(t, []int{2, 3, 4, 6}, bodies(t, body), "it is in none")
		require.NoError(t, p.Close())
		publish(t, top, 7)
		check(t, top)
		_, err = top.OpenQueue(ctx, "bad", WithFilterPolicy(`{"region": [{"no-such": 1}]}`))
		require.ErrorIs(t, err, ErrInvalidOption)
		require.ErrorContains(t, err, "region")
		top.Close()
	})
}

func TestRowReplay(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		_, err := newTopic[int](t).OpenQueue(ctx, "q", WithReplay(1))
		require.ErrorIs(t, err, ErrUnsupported)

		top := newTopic[int](t, WithRetention(6))
		start := time.Now()
		ids := map[int]string{}
		all := openQueue(t, top, "all")
		for n := range 10 {
			publishAll(t, top, Message[int]{Body: n, Attributes: map[string]string{"n": fmt.Sprint(n)}})
			d := receive(t, all)
			ids[n] = d.ID()
			require.NoError(t, d.Ack(ctx))
			elapse(time.Second)
		}
		require.Equal(t, 6, top.Stats().Retained)
		require.Empty(t, bodies(t, openQueue(t, top, "none")))
		require.Equal(t, []int{8, 9}, bodies(t, openQueue(t, top, "two", WithReplay(2))))
		q := openQueue(t, top, "retention", WithReplay(100))
		require.Equal(t, []int{4, 5, 6, 7, 8, 9}, bodies(t, q))
		require.Equal(t, []int{7, 8, 9}, bodies(t, openQueue(t, top, "capacity", WithReplay(6), WithCapacity(3), WithOverflow(DropNewest))))
		require.Equal(t, []int{6, 8}, bodies(t, openQueue(t, top, "filter", WithReplay(2), WithFilter(func(b int) bool { return b%2 == 0 }))))
		delayed := openQueue(t, top, "delay", WithReplay(6), WithDelay(3*time.Second)) // 7 s to 9 s are not due
		synctest.Wait()
		require.Equal(t, [2]int{4, 2}, [2]int{delayed.Stats().Ready, delayed.Stats().Delayed})
		_, err = top.OpenQueue(ctx, "panics", WithReplay(2), WithFilter(func(int) bool { panic("boom") }))
		require.ErrorContains(t, err, `filter of queue "panics"`)
		require.Nil(t, top.Queue("panics"))

		publish(t, top, 10)
		check(t, top)
		for _, n := range []int{4, 5, 6, 7, 8, 9, 10} { // the past, then the present
			d := receive(t, q)
			require.Equal(t, n, d.Body)
			if n < 10 {
				require.Equal(t, ids[n], d.ID())
				require.Equal(t, start.Add(time.Duration(n)*time.Second), d.PublishedAt())
				require.Equal(t, map[string]string{"n": fmt.Sprint(n)}, d.Attributes())
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.Equal(t, 7, q.Stats().Published)
		check(t, top)
		top.Close()
	})
}

func TestRowRedrive(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(2), WithBackoff(Constant(time.Second)))
		other := openQueue(t, top, "other")
		for n := range 4 {
			publishAll(t, top, Message[int]{Body: n, ID: fmt.Sprint(n)})
			require.NoError(t, receive(t, q).Nack(ctx))
			elapse(time.Second)
			require.NoError(t, receive(t, q).Nack(ctx))
		}
		publish(t, top, 4)
		inHand := receive(t, q.DeadLetters())
		n, err := q.Redrive(ctx, RedriveIDs("1", "0"))
		require.ErrorIs(t, err, ErrUnknownID)
		require.Equal(t, 1, n, "0 is in a consumer's hand")
		n, err = q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.NoError(t, inHand.Ack(ctx))
		require.Equal(t, 5, other.Stats().Unsettled(), "never to the others")
		for _, want := range []int{4, 1, 2, 3} { // what started last was due: it is the backlog's turn
			d := receive(t, q)
			require.Equal(t, want, d.Body)
			require.Equal(t, 1, d.Attempt(), "attempts start anew")
			if want < 4 {
				require.Equal(t, []Cause{Nacked, Nacked}, causesOf(d), "the history stays")
				require.NoError(t, d.Nack(ctx))
			}
		}
		elapse(time.Second)
		require.Equal(t, 2, receive(t, q).Attempt(), "once more both of them")
		require.Equal(t, uint64(3), q.Stats().Redriven)
		n, err = q.Redrive(ctx)
		require.NoError(t, err)
		require.Zero(t, n)
		check(t, top)
		top.Close()
	})
}

// --- batches ---

func TestRowBatch(t *testing.T) {
	t.Run("publish and receive", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(6))
			got := make(chan []int, 10)
			go func() {
				for {
					ds, err := q.ReceiveBatch(ctx, 4)
					if err != nil {
						close(got)
						return
					}
					var bs []int
					for _, d := range ds {
						bs = append(bs, d.Body)
						_ = d.Ack(ctx)
					}
					got <- bs
				}
			}()
			synctest.Wait()
			require.NoError(t, top.PublishMessages(ctx))
			publish(t, top, 1) // returns as soon as there is one
			synctest.Wait()
			require.Equal(t, []int{1}, <-got)
			publishAll(t, top, []Message[int]{{Body: 2}, {Body: 3}, {Body: 4}, {Body: 5}, {Body: 6}, {Body: 7}}...)
			synctest.Wait()
			require.Equal(t, []int{2, 3, 4, 5}, <-got)
			require.Equal(t, []int{6, 7}, <-got)
			check(t, top)
			top.Close()
			synctest.Wait()
			_, open := <-got
			require.False(t, open)
		})
	})
	t.Run("handler", func(t *testing.T) {
		// Each row says what a batch handler does with 1, 2 and 3, and what becomes
		// of those. It settles 2 itself if it is told to.
		for _, row := range []struct {
			name    string
			settle  func(d Delivery[int]) error // of message 2
			do      func() error
			acked   uint64
			dead    []int
			history []Cause // of message 1, in the end
		}{
			{"nil", nil, func() error { return nil }, 3, nil, nil},
			{"nil, one nacked", func(d Delivery[int]) error { return d.Nack(t.Context()) }, func() error { return nil }, 2, []int{2}, nil},
			{"error", nil, func() error { return errBusy }, 0, []int{1, 2, 3}, []Cause{Failed, Failed}},
			{"error, one acked", func(d Delivery[int]) error { return d.Ack(t.Context()) }, func() error { return errBusy }, 1, []int{1, 3}, []Cause{Failed, Failed}},
			{"panic, one acked", func(d Delivery[int]) error { return d.Ack(t.Context()) }, func() error { panic("boom") }, 1, []int{1, 3}, []Cause{Panicked, Panicked}},
			{"exit, one acked", func(d Delivery[int]) error { return d.Ack(t.Context()) }, func() error { runtime.Goexit(); return nil }, 1, []int{1, 3}, []Cause{Exited, Exited}},
			{"permanent, one acked", func(d Delivery[int]) error { return d.Ack(t.Context()) }, func() error { return Permanent(errBusy) }, 1, []int{1, 3}, []Cause{PermanentlyFailed}},
			{"too long", nil, func() error { time.Sleep(15 * time.Second); return nil }, 0, []int{1, 2, 3}, []Cause{TimedOut, TimedOut}},
		} {
			t.Run(row.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var late, stuck atomic.Int32
					top := newTopic[int](t, WithHooks(Hooks{Late: func(Event) { late.Add(1) }, Stuck: func(Event) { stuck.Add(1) }}))
					y := newDiary()
					s, err := top.SubscribeBatch(ctx, "q", func(ctx context.Context, ds []Delivery[int]) error {
						var bs []int
						for _, d := range ds {
							bs = append(bs, d.Body)
							if d.Body == 2 && row.settle != nil {
								if err := row.settle(d); err != nil {
									t.Error(err)
								}
							}
						}
						y.note("%v", bs)
						return row.do()
					}, WithBatchSize(4), WithMaxAttempts(2), WithBackoff(Constant(time.Minute)), WithVisibilityTimeout(10*time.Second))
					require.NoError(t, err)
					publishAll(t, top, []Message[int]{{Body: 1}, {Body: 2}, {Body: 3}}...)
					synctest.Wait()
					require.Equal(t, []string{"0s: [1 2 3]"}, y.read())
					check(t, top)
					elapse(time.Hour)
					q := s.Queue()
					require.Equal(t, row.acked, q.Stats().Acked)
					require.Zero(t, q.Stats().Unsettled())
					require.Zero(t, q.Stats().Workers)
					require.ElementsMatch(t, row.dead, deadBodies(t, q))
					if row.history != nil {
						ls, err := q.DeadLetters().Peek(ctx, 1)
						require.NoError(t, err)
						require.Equal(t, row.history, causesOf(ls[0]))
					}
					require.Zero(t, late.Load(), "a batch of which some were settled is nothing to tell")
					require.Equal(t, row.name == "too long", stuck.Load() > 0)
					check(t, top)
					require.NoError(t, top.Shutdown(ctx))
					<-top.Done()
				})
			})
		}
	})
	t.Run("visibility timeout", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithVisibilityTimeout(10*time.Second))
			y := newDiary()
			_, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []Delivery[int]) error {
				y.note("%d messages, attempt %d", len(ds), ds[0].Attempt())
				if ds[0].Attempt() == 1 {
					if err := ds[0].Ack(ctx); err != nil {
						t.Error(err)
					}
					<-ctx.Done()
					y.note("%t", errors.Is(context.Cause(ctx), ErrStale))
					if err := ds[1].Ack(ctx); !errors.Is(err, ErrStale) {
						t.Error(err)
					}
				}
				return nil
			})
			require.NoError(t, err)
			publishAll(t, top, []Message[int]{{Body: 1}, {Body: 2}, {Body: 3}}...)
			synctest.Wait()
			elapse(10*time.Second - 1)
			require.Equal(t, 2, q.Stats().InFlight)
			elapse(1)
			require.Equal(t, []string{"0s: 3 messages, attempt 1", "10s: true", "10s: 2 messages, attempt 2"}, y.read())
			require.Equal(t, [2]uint64{2, 3}, [2]uint64{q.Stats().TimedOut, q.Stats().Acked})
			check(t, top)
			top.Close()
		})
	})
	t.Run("one message of a key", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithOrdering())
			y := newDiary()
			q := openQueue(t, top, "q")
			publishAll(t, top, append(keyed("a", 1, 2, 3), keyed("b", 4, 5)...)...)
			_, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []Delivery[int]) error {
				var bs []int
				for _, d := range ds {
					bs = append(bs, d.Body)
				}
				y.note("%v", bs)
				return nil
			})
			require.NoError(t, err)
			elapse(time.Second)
			require.Equal(t, []string{"0s: [1 4]", "0s: [2 5]", "0s: [3]"}, y.read())
			check(t, top)
			top.Close()
		})
	})
}

// --- running a queue ---

func TestRowPauseAndResume(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		y := newDiary()
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("%d", d.Body)
			time.Sleep(time.Second)
			return nil
		}, WithCapacity(4))
		q := s.Queue()
		publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, q.Pause(ctx))
		require.NoError(t, q.Pause(ctx), "again")
		require.True(t, q.Stats().Paused)
		elapse(time.Minute)
		require.Equal(t, []string{"0s: 1"}, y.read())
		require.Equal(t, uint64(1), q.Stats().Acked, "what is in flight goes on")
		requireEmpty(t, q)
		got := make(chan int, 1)
		go func() {
			if d, err := q.Receive(ctx); err == nil {
				got <- d.Body
				_ = d.Ack(ctx)
			}
		}()
		publish(t, top, 3, 4, 5) // fills it
		full := waiting(ctx, top, Message[int]{Body: 6})
		requireWaiting(t, full)
		require.Empty(t, got, "receivers wait")
		check(t, top)
		require.NoError(t, q.Resume(ctx))
		synctest.Wait()
		require.NoError(t, q.Resume(ctx), "again")
		require.Equal(t, 2, <-got)
		require.NoError(t, requireDecided(t, full))
		elapse(time.Minute)
		require.Equal(t, []string{"1m0s: 3", "1m1s: 4", "1m2s: 5", "1m3s: 6"}, y.read())

		require.NoError(t, q.Pause(ctx))
		publish(t, top, 7)
		start := time.Now()
		var left *ShutdownError
		require.ErrorAs(t, top.Shutdown(ctx), &left)
		require.Zero(t, time.Since(start), "nobody waits for a paused queue")
		require.Equal(t, []Left{{Queue: "q", Ready: 1}}, left.Queues)
		require.ErrorIs(t, q.Resume(ctx), ErrClosed)
	})
}

func TestRowPurgeAndClose(t *testing.T) {
	t.Run("purge", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			lost := map[DropReason]int{}
			top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) { lost[e.Reason] += e.Count }}))
			q := openQueue(t, top, "q", WithBackoff(Constant(time.Minute)), WithCapacity(7), WithMaxAttempts(2), WithDeadLetterCapacity(1))
			other := openQueue(t, top, "other", WithFilter(func(int) bool { return true }))
			publish(t, top, 1, 2, 3, 4, 5)
			publishAll(t, top, Message[int]{Body: 6, Delay: time.Hour})
			require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
			require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy))) // parked
			require.NoError(t, receive(t, q).Nack(ctx))
			d := receive(t, q)
			publish(t, top, 7, 8)
			blocked := waiting(ctx, top, Message[int]{Body: 9})
			requireWaiting(t, blocked)
			n, err := q.Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 7, n)
			require.Equal(t, map[DropReason]int{DroppedByPurge: 7}, lost)
			require.ErrorIs(t, d.Ack(ctx), ErrStale)
			require.NoError(t, requireDecided(t, blocked))
			require.Equal(t, []int{9}, bodies(t, q))
			require.Equal(t, []int{1}, deadBodies(t, q), "dead letters stay")
			require.Equal(t, 9, other.Stats().Unsettled())
			check(t, top)
			elapse(2 * time.Hour)
			require.Equal(t, 1, q.Stats().Unsettled(), "nothing comes back")
			n, err = other.Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 9, n)
			n, err = q.DeadLetters().Purge(ctx)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			n, err = q.DeadLetters().Purge(ctx)
			require.NoError(t, err)
			require.Zero(t, n)
			check(t, top)
			top.Close()
			_, err = q.Purge(ctx)
			require.ErrorIs(t, err, ErrClosed)
		})
	})
	t.Run("purge keys", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t, WithOrdering())
			q := openQueue(t, top, "q")
			publishAll(t, top, keyed("a", 1, 2)...)
			receive(t, q)
			requireEmpty(t, q)
			_, err := q.Purge(ctx)
			require.NoError(t, err)
			publishAll(t, top, append(keyed("b", 3), keyed("a", 4)...)...)
			require.Equal(t, 3, receive(t, q).Body)
			require.Equal(t, 4, receive(t, q).Body, "no key remembers what was purged")
			check(t, top)
			top.Close()
		})
	})
	t.Run("close a queue", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			lost := map[DropReason]int{}
			top := newTopic[int](t, WithHooks(Hooks{Dropped: func(e Event) { lost[e.Reason] += e.Count }}))
			q := openQueue(t, top, "q", WithMaxAttempts(1))
			publish(t, top, 1, 2, 3)
			require.NoError(t, receive(t, q).Nack(ctx))
			d := receive(t, q)
			require.NoError(t, q.Close())
			require.NoError(t, q.Close(), "again")
			require.ErrorIs(t, d.Ack(ctx), ErrClosed)
			require.Equal(t, map[DropReason]int{DroppedByClose: 2}, lost)
			require.Equal(t, uint64(2), q.Stats().Left)
			require.Equal(t, []int{2, 3}, []int{q.Leftovers()[0].Body, q.Leftovers()[1].Body})
			require.Equal(t, []int{1}, deadBodies(t, q), "its dead letters stay readable")
			require.Equal(t, 1, receive(t, q.DeadLetters()).Body)
			again := openQueue(t, top, "q")
			publish(t, top, 4)
			require.Equal(t, []int{4}, bodies(t, again), "its name is free")
			check(t, top)
			top.Close()
			<-top.Done()
		})
	})
	t.Run("shut a subscriber down", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				time.Sleep(5 * time.Second)
				return nil
			})
			publish(t, top, 1, 2)
			synctest.Wait()
			start := time.Now()
			require.NoError(t, s.Shutdown(ctx))
			require.Equal(t, 5*time.Second, time.Since(start))
			<-s.Done()
			require.Equal(t, []int{2}, bodies(t, s.Queue()), "the queue stays open")
			require.NoError(t, s.Shutdown(ctx), "again")
			check(t, top)
			top.Close()
		})
	})
}

func TestRowRateLimit(t *testing.T) {
	// Each row is a subscriber that is given ten messages at once, and ten more a
	// minute later, and says when it got them.
	for name, row := range map[string]struct {
		options []WorkerOption
		work    time.Duration
		want    []string
	}{
		"one worker": {[]WorkerOption{WithRateLimit(2)}, 0,
			[]string{"0s", "500ms", "1s", "1.5s", "2s", "2.5s", "3s", "3.5s", "4s", "4.5s"}},
		"one slow worker": {[]WorkerOption{WithRateLimit(2)}, 700 * time.Millisecond,
			[]string{"0s", "700ms", "1.4s", "2.1s", "2.8s", "3.5s", "4.2s", "4.9s", "5.6s", "6.3s"}},
		"several slow workers": {[]WorkerOption{WithRateLimit(2), WithConcurrency(4)}, 1700 * time.Millisecond,
			[]string{"0s", "500ms", "1s", "1.5s", "2s", "2.5s", "3s", "3.5s", "4s", "4.5s"}},
		"batches": {[]WorkerOption{WithRateLimit(2), WithBatchSize(4)}, 0,
			[]string{"0s", "0s", "0s", "0s", "2s", "2s", "2s", "2s", "4s", "4s"}},
		"a message in three seconds": {[]WorkerOption{WithRateLimit(1. / 3)}, 0,
			[]string{"0s", "3s", "6s", "9s", "12s", "15s", "18s", "21s", "24s", "27s"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q")
				var mu sync.Mutex
				var got []string
				start := time.Now()
				_, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []Delivery[int]) error {
					mu.Lock()
					for range ds {
						got = append(got, time.Since(start).Round(time.Microsecond).String())
					}
					mu.Unlock()
					time.Sleep(row.work)
					return nil
				}, append([]WorkerOption{WithBatchSize(1)}, row.options...)...)
				require.NoError(t, err)
				for range 2 { // a pause saves nothing up
					publishAll(t, top, make([]Message[int], 10)...)
					synctest.Wait()
					check(t, top)
					elapse(time.Minute)
					require.Equal(t, row.want, got)
					check(t, top)
					require.False(t, q.alarm.armed)
					start, got = time.Now(), nil
				}
				top.Close()
			})
		})
	}
	t.Run("receivers are not limited", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			y := newDiary()
			s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				y.note("%d", d.Body)
				return nil
			}, WithRateLimit(1))
			publish(t, top, 1, 2, 3, 4)
			synctest.Wait()
			require.Equal(t, 2, receive(t, s.Queue()).Body)
			require.Equal(t, 3, receive(t, s.Queue()).Body)
			elapse(time.Second)
			require.Equal(t, []string{"0s: 1", "1s: 4"}, y.read())
			got := make(chan int, 9)
			go func() {
				for d, err := range s.Queue().Deliveries(ctx) {
					if err == nil {
						got <- d.Body
						_ = d.Ack(ctx)
					}
				}
			}()
			synctest.Wait()
			publish(t, top, 5, 6, 7)
			synctest.Wait()
			require.Len(t, got, 3)
			check(t, top)
			top.Close()
		})
	})
	t.Run("pause, resume and close while limited", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			y := newDiary()
			s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				y.note("%d", d.Body)
				return nil
			}, WithRateLimit(0.1))
			q := s.Queue()
			publish(t, top, 1, 2, 3)
			synctest.Wait()
			require.NoError(t, q.Pause(ctx))
			elapse(15 * time.Second)
			require.NoError(t, q.Resume(ctx))
			elapse(time.Second)
			require.Equal(t, []string{"0s: 1", "15s: 2"}, y.read())
			elapse(9*time.Second - 1)
			publish(t, top, 4)
			require.NoError(t, q.Resume(ctx)) // looks for somebody to wake, before the time
			synctest.Wait()
			require.Empty(t, y.read())
			elapse(1)
			require.Equal(t, []string{"25s: 3"}, y.read())
			q.mu.Lock()
			require.True(t, q.alarm.armed)
			q.mu.Unlock()
			check(t, top)
			start := time.Now()
			top.Close()
			<-top.Done()
			require.Zero(t, time.Since(start), "no timer remains")
			require.False(t, q.alarm.armed)
		})
	})
}

// --- what is told ---

func TestRowHooks(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		var events []string
		seqs := map[string][]uint64{}
		start := time.Now()
		hook := func(name string) func(Event) {
			return func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				var x strings.Builder
				fmt.Fprintf(&x, "%v %s %s/%s %s", e.Time.Sub(start), name, e.Topic, e.Queue, e.MessageID)
				for _, f := range []struct {
					name  string
					value any
					zero  bool
				}{
					{"attempt", e.Attempt, e.Attempt == 0}, {"cause", e.Cause, e.Cause == 0}, {"err", e.Err, e.Err == nil},
					{"elapsed", e.Elapsed, e.Elapsed == 0}, {"wait", e.Wait, e.Wait == 0}, {"reason", e.Reason, e.Reason == 0},
					{"subscriber", e.Subscriber != "", e.Subscriber == ""}, {"stack", e.Stack != "", e.Stack == ""},
					{"depth", func() any {
						if e.Stats == nil {
							return nil
						}
						return e.Stats.Unsettled()
					}(), e.Stats == nil},
					{"count", e.Count, e.Count == 1},
				} {
					if !f.zero {
						fmt.Fprintf(&x, ", %s %v", f.name, f.value)
					}
				}
				events = append(events, x.String())
				seqs[e.Queue] = append(seqs[e.Queue], e.Seq)
			}
		}
		top := newTopic[int](t, WithHooks(Hooks{
			Published: hook("published"), Delivered: hook("delivered"), Settled: hook("settled"), DeadLettered: hook("dead-lettered"),
			Parked: hook("parked"), Redriven: hook("redriven"), Dropped: hook("dropped"), Stuck: hook("stuck"),
			StuckStack: hook("stuck stack"), Stalled: hook("stalled"), Late: hook("late"),
		}))
		next := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, want, events)
			events = nil
		}
		message := func(id string) Message[int] { return Message[int]{ID: id} }
		q := openQueue(t, top, "q", WithCapacity(2), WithMaxAttempts(2), WithDeadLetterCapacity(1), WithBackoff(Constant(3*time.Second)))
		old := openQueue(t, top, "old", WithCapacity(1), WithOverflow(DropOldest), WithFilter(func(int) bool { return true }))

		publishAll(t, top, message("a"))
		next("0s published payments/ a")
		d := receive(t, q)
		next("0s delivered payments/q a, attempt 1")
		elapse(time.Second)
		require.NoError(t, d.Settle(ctx, errBusy))
		next("1s settled payments/q a, attempt 1, cause failed, err busy, elapsed 1s, wait 3s")
		elapse(3 * time.Second)
		d = receive(t, q)
		elapse(time.Second)
		require.NoError(t, d.Settle(ctx, errBusy))
		next("4s delivered payments/q a, attempt 2", "5s settled payments/q a, attempt 2, cause failed, err busy, elapsed 1s",
			"5s dead-lettered payments/q a, attempt 2, cause failed, err busy, elapsed 1s")
		publishAll(t, top, message("b"))
		next("5s dropped payments/old a, reason drop oldest", "5s published payments/ b")
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		next("5s delivered payments/q b, attempt 1", "5s settled payments/q b, attempt 1, cause permanent, err busy",
			"5s parked payments/q b, attempt 1, cause permanent, err busy")
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		next("5s redriven payments/q a", "5s dead-lettered payments/q b, attempt 1, cause permanent, err busy")
		require.NoError(t, receive(t, q).Ack(ctx))
		next("5s delivered payments/q a, attempt 1", "5s settled payments/q a, attempt 1, cause acked")

		require.NoError(t, old.Close())
		next("5s dropped payments/old , reason close")
		s, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			if d.Attempt() == 1 {
				time.Sleep(40 * time.Second)
				return errBusy
			}
			return nil
		})
		require.NoError(t, err)
		publishAll(t, top, message("c"), message("d"))
		synctest.Wait()
		mu.Lock()
		events = nil
		mu.Unlock()
		full := waiting(ctx, top, message("e"))
		elapse(10 * time.Second)
		next("15s stalled payments/q , elapsed 10s, depth 2")
		elapse(10*time.Second + 1) // not to the instant at which more than one happens
		mu.Lock()
		events = nil
		mu.Unlock()
		elapse(10*time.Second - 1)
		mu.Lock()
		slices.Sort(events)
		require.Equal(t, []string{
			"35s settled payments/q c, attempt 1, cause timed out, elapsed 30s",
			"35s stalled payments/q , elapsed 30s, depth 2",
			"35s stuck payments/q c, attempt 1, elapsed 30s, subscriber true",
			"35s stuck stack payments/q c, attempt 1, elapsed 30s, subscriber true, stack true",
		}, events)
		events = nil
		mu.Unlock()
		elapse(10 * time.Second)
		mu.Lock()
		require.Contains(t, events, "45s late payments/q c, attempt 1, cause failed, err busy, subscriber true")
		require.Contains(t, events, "45s delivered payments/q c, attempt 2")
		mu.Unlock()
		require.NoError(t, requireDecided(t, full))
		_, err = q.Purge(ctx)
		require.NoError(t, err)
		elapse(2 * time.Minute)
		require.NoError(t, s.Shutdown(ctx))
		check(t, top)
		top.Close()
		<-top.Done()

		mu.Lock()
		for queue, got := range seqs {
			slices.Sort(got) // calls may overtake each other
			for k := range got {
				require.Equal(t, uint64(k+1), got[k], "queue %q", queue)
			}
		}
		require.Len(t, seqs[""], 5, "one for each message")
		mu.Unlock()
	})
	t.Run("calls of one goroutine come in order", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			var last uint64
			var n int
			hook := func(e Event) {
				n++
				require.Equal(t, last+1, e.Seq)
				last = e.Seq
			}
			top := newTopic[int](t, WithHooks(Hooks{Delivered: hook, Settled: hook, DeadLettered: hook, Dropped: hook, Redriven: hook}))
			q := openQueue(t, top, "q", WithMaxAttempts(1), WithCapacity(3), WithOverflow(DropNewest))
			publish(t, top, 1, 2, 3, 4)
			require.NoError(t, receive(t, q).Nack(ctx))
			require.NoError(t, receive(t, q).Ack(ctx))
			_, err := q.Redrive(ctx)
			require.NoError(t, err)
			require.Equal(t, 7, n)
			top.Close()
		})
	})
	t.Run("a panic is recovered and logged", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			var log syncBuffer
			boom := func(Event) { panic("boom") }
			top, err := NewTopic[int]("payments", WithLogger(log.logger()), WithHooks(Hooks{
				Published: boom, Delivered: boom, Settled: boom, DeadLettered: boom, Parked: boom, Redriven: boom,
				Dropped: boom, Stuck: boom, StuckStack: boom, Stalled: boom, Late: boom,
			}))
			require.NoError(t, err)
			s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
				time.Sleep(2 * time.Second)
				return errBusy
			}, WithMaxAttempts(2), WithVisibilityTimeout(time.Second), WithDeadLetterCapacity(1))
			publish(t, top, 1, 2)
			elapse(time.Hour)
			st := s.Queue().Stats()
			require.Equal(t, [3]int{1, 1, 0}, [3]int{st.Dead, st.Parked, st.Workers})
			require.Contains(t, log.String(), "a hook panicked")
			check(t, top)
			top.Close()
			<-top.Done()
		})
	})
}

func TestRowMessageID(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		type stream struct {
			top     *Topic[int]
			q, twin *Queue[int]
			last    string
		}
		var streams []*stream
		seen := map[string]bool{}
		for range 20 { // topics that are made, and publish, at the same instants
			x := &stream{top: newTopic[int](t)}
			x.q = openQueue(t, x.top, "q")
			x.twin = openQueue(t, x.top, "twin", WithFilter(func(int) bool { return true }))
			streams = append(streams, x)
		}
		for n := range 50 {
			if n%10 == 0 {
				elapse(1234567 * time.Nanosecond)
			}
			for _, x := range streams {
				publishAll(t, x.top, Message[int]{Body: n}, Message[int]{Body: n})
				for range 2 {
					d := receive(t, x.q)
					id, err := uuid.Parse(d.ID())
					require.NoError(t, err)
					require.Equal(t, uuid.Version(7), id.Version())
					require.Equal(t, uuid.RFC4122, id.Variant())
					require.Equal(t, d.ID(), receive(t, x.twin).ID(), "the same in every queue")
					sec, ns := id.Time().UnixTime()
					require.Equal(t, time.Now().UnixMilli(), time.Unix(sec, ns).UnixMilli())
					require.Equal(t, time.Now(), d.PublishedAt(), "one clock reading for a call")
					require.Greater(t, d.ID(), x.last, "they sort in the order of publication")
					require.False(t, seen[d.ID()])
					x.last, seen[d.ID()] = d.ID(), true
					require.NoError(t, d.Ack(ctx))
				}
			}
		}
		for _, x := range streams {
			publishAll(t, x.top, Message[int]{ID: "mine"})
			require.Equal(t, "mine", receive(t, x.q).ID())
			x.top.Close()
		}
	})
}

func TestRowPprofLabels(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		free := make(chan struct{})
		labelled := func(ctx context.Context, d Delivery[int]) error {
			if _, ok := pprof.Label(ctx, "queue"); ok {
				t.Error("its context carries labels")
			}
			<-free
			return nil
		}
		_, file, line, _ := runtime.Caller(0)
		_, err := top.Subscribe(ctx, "q", labelled)
		require.NoError(t, err)
		publish(t, top, 1)
		synctest.Wait()
		var profile bytes.Buffer
		require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
		require.Contains(t, profile.String(), fmt.Sprintf(`# labels: {"queue":"q", "subscriber":"%s:%d", "topic":"payments"}`,
			site(file), line+1))
		close(free)
		top.Close()
		<-top.Done()
	})
}

// site is a file as subscribers are named by it.
func site(file string) string {
	return filepath.Join(filepath.Base(filepath.Dir(file)), filepath.Base(file))
}

// --- interceptors ---

func TestInterceptorsStandAroundPublishesAndHandlersTheFirstOutermost(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		around := func(name string) Interceptor {
			return func(ctx context.Context, info Info, next func(context.Context) error) error {
				y.note("%s begins: %q %q %d %q %d", name, info.Topic, info.Queue, info.Messages, info.MessageID, info.Attempt)
				err := next(ctx)
				y.note("%s ends: %v", name, err)
				return err
			}
		}
		top := newTopic[int](t, WithPublishInterceptor(around("p1"), around("p2")), WithPublishInterceptor(around("p3")),
			WithHandlerInterceptor(around("t1"), around("t2")))
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("handler")
			return errBusy
		}, WithHandlerInterceptor(around("s1")), WithHandlerInterceptor(around("s2")), WithMaxAttempts(1))
		publishAll(t, top, Message[int]{ID: "a"}, Message[int]{Delay: time.Hour})
		synctest.Wait()
		want := []string{
			`0s: p1 begins: "payments" "" 2 "a" 0`, `0s: p2 begins: "payments" "" 2 "a" 0`, `0s: p3 begins: "payments" "" 2 "a" 0`,
			`0s: p3 ends: <nil>`, `0s: p2 ends: <nil>`, `0s: p1 ends: <nil>`,
			`0s: t1 begins: "payments" "q" 1 "a" 1`, `0s: t2 begins: "payments" "q" 1 "a" 1`,
			`0s: s1 begins: "payments" "q" 1 "a" 1`, `0s: s2 begins: "payments" "q" 1 "a" 1`,
			`0s: handler`, `0s: s2 ends: busy`, `0s: s1 ends: busy`, `0s: t2 ends: busy`, `0s: t1 ends: busy`,
		}
		got := y.read()
		require.ElementsMatch(t, want, got)
		for _, part := range [][]string{want[:6], want[6:]} { // handlers may begin before the publish returns
			var order []string
			for _, line := range got {
				if slices.Contains(part, line) {
					order = append(order, line)
				}
			}
			require.Equal(t, part, order)
		}
		for _, publish := range []func() error{
			func() error { return top.Publish(ctx, 1) },
			func() error { return top.TryPublish(ctx, 1) },
			func() error { return top.TryPublishMessages(ctx, Message[int]{}) },
		} {
			require.NoError(t, publish())
			synctest.Wait()
			require.Len(t, y.read(), len(want))
		}
		check(t, top)
		top.Close()
	})
}

func TestAttributesThatAPublishInterceptorSetsReachFiltersAndHandlers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		top := newTopic[int](t,
			WithPublishInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
				region, ok := info.Attribute("region")
				y.note("publish: %q %t", region, ok)
				info.SetAttribute("trace", "t-17")
				trace, _ := info.Attribute("trace")
				y.note("set: %q", trace)
				return next(ctx)
			}),
			WithHandlerInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
				trace, _ := info.Attribute("trace")
				info.SetAttribute("trace", "changed") // does nothing here
				y.note("handle: %q", trace)
				return next(ctx)
			}))
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			y.note("handler: %v", d.Attributes())
			return nil
		}, WithFilterPolicy(`{"trace": ["t-17"]}`))
		publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, []string{`0s: publish: "" false`, `0s: set: "t-17"`, `0s: handle: "t-17"`, `0s: handler: map[trace:t-17]`}, y.read())
		mine := map[string]string{"region": "eu"}
		publishAll(t, top, Message[int]{Body: 2, Attributes: mine}, Message[int]{Body: 3, Attributes: mine})
		synctest.Wait()
		require.Equal(t, []string{
			`0s: publish: "eu" true`, `0s: set: "t-17"`,
			`0s: handle: "t-17"`, `0s: handler: map[region:eu trace:t-17]`,
			`0s: handle: "t-17"`, `0s: handler: map[region:eu trace:t-17]`,
		}, y.read(), "on all messages of a call")
		require.Equal(t, map[string]string{"region": "eu"}, mine, "the publisher's map is its own")
		check(t, top)
		top.Close()
	})
}

func TestAnInterceptorCanRefuseAPublishOrSkipAHandler(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var refuse, skip, twice error
		calls := 1
		told := 0
		top := newTopic[int](t, WithHooks(Hooks{Published: func(Event) { told++ }}),
			WithPublishInterceptor(func(ctx context.Context, _ Info, next func(context.Context) error) error {
				for range calls {
					if err := next(ctx); err != nil {
						return err
					}
				}
				return refuse
			}))
		ran := 0
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error { ran++; return twice },
			WithMaxAttempts(1), WithHandlerInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
				switch {
				case skip != nil:
					return skip
				case info.MessageID == "skip":
					return nil
				}
				return errors.Join(next(ctx), nil)
			}))
		publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, [2]int{1, 1}, [2]int{ran, told})

		calls, refuse = 0, errBusy // an error, and next was not called
		require.ErrorIs(t, top.Publish(ctx, 2), errBusy)
		refuse = nil // no error: it publishes nothing
		require.NoError(t, top.Publish(ctx, 3))
		synctest.Wait()
		require.Equal(t, [2]int{1, 1}, [2]int{ran, told})

		calls = 1
		publishAll(t, top, Message[int]{ID: "skip"}) // nil acknowledges
		synctest.Wait()
		require.Equal(t, 1, ran)
		require.Equal(t, uint64(2), s.Queue().Stats().Acked)
		skip = Permanent(errBusy) // its error settles as the handler's would
		publish(t, top, 4)
		synctest.Wait()
		require.Equal(t, 1, ran)
		require.Equal(t, uint64(1), s.Queue().Stats().PermanentlyFailed)
		skip, twice = nil, Snooze(time.Hour) // and an outcome goes through it
		publish(t, top, 5)
		synctest.Wait()
		require.Equal(t, 2, ran)
		require.Equal(t, 1, s.Queue().Stats().Delayed)
		check(t, top)

		_, err := NewTopic[int]("x", WithPublishInterceptor(nil))
		require.ErrorIs(t, err, ErrInvalidOption)
		_, err = NewTopic[int]("x", WithHandlerInterceptor(nil))
		require.ErrorIs(t, err, ErrInvalidOption)
		top.Close()
	})
}

// --- reports of what is stuck or stalled, automatic extension ---

// napInTheHandler is what a handler is stuck in.
//
//go:noinline
func napInTheHandler(d time.Duration) { time.Sleep(d) }

func TestAStuckHandlerIsReportedWithItsSubscriberAndItsStackOnceAMinute(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		var stuck, stacks []Event
		add := func(to *[]Event) func(Event) {
			return func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				*to = append(*to, e)
			}
		}
		top := newTopic[int](t, WithHooks(Hooks{Stuck: add(&stuck), StuckStack: add(&stacks)}))
		nap := func(ctx context.Context, d Delivery[int]) error {
			napInTheHandler(10*time.Minute - 1)
			return nil
		}
		_, file, line, _ := runtime.Caller(0)
		s, err := top.Subscribe(ctx, "q", nap, WithConcurrency(9), WithVisibilityTimeout(10*time.Second), WithMaxAttempts(1))
		require.NoError(t, err)
		counts := func() [3]int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return [3]int{len(stuck), len(stacks), s.Queue().Stats().Stuck}
		}
		publish(t, top, 1, 2, 3)
		elapse(10*time.Second - 1)
		require.Equal(t, [3]int{}, counts())
		elapse(1)
		require.Equal(t, [3]int{3, 1, 3}, counts(), "at that instant, and one stack")
		mu.Lock()
		for _, e := range append(slices.Clone(stuck), stacks...) {
			require.Equal(t, fmt.Sprintf("%s:%d", site(file), line+1), e.Subscriber)
			require.Equal(t, 10*time.Second, e.Elapsed)
			require.Equal(t, "q", e.Queue)
			require.Equal(t, 1, e.Attempt)
			require.NotEmpty(t, e.MessageID)
		}
		require.Contains(t, stacks[0].Stack, "napInTheHandler")
		require.Contains(t, stacks[0].Stack, "rows_test.go")
		require.Equal(t, 1, strings.Count(stacks[0].Stack, "napInTheHandler("), "of that one only")
		mu.Unlock()

		elapse(50*time.Second - 1)
		publish(t, top, 4) // stuck a nanosecond before a minute has passed
		elapse(1)
		publish(t, top, 5) // and when it has
		elapse(10*time.Second - 1)
		require.Equal(t, [3]int{4, 1, 4}, counts())
		elapse(1)
		require.Equal(t, [3]int{5, 2, 5}, counts())
		require.Equal(t, 5, s.Queue().Stats().Dead)
		check(t, top)
		elapse(10 * time.Minute)
		require.Equal(t, [3]int{5, 2, 0}, counts())
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
	})
}

func TestASubscriberIsNamedByTheLineThatMadeItWhicheverWay(t *testing.T) {
	ctx := t.Context()
	top := newTopic[int](t)
	q := openQueue(t, top, "q")
	batch := func(context.Context, []Delivery[int]) error { return nil }
	_, file, line, _ := runtime.Caller(0)
	a, _ := top.Subscribe(ctx, "a", handleNothing)
	b, _ := top.SubscribeBatch(ctx, "b", batch)
	c, _ := q.Subscribe(ctx, handleNothing)
	d, _ := q.SubscribeBatch(ctx, batch)
	for k, s := range []*Subscriber[int]{a, b, c, d} {
		require.Equal(t, fmt.Sprintf("%s:%d", site(file), line+1+k), s.site)
	}
	top.Close()
}

func TestAutoExtendMovesTheDeadlineAsItPassesUpToItsLongest(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		stuck := make(chan Event, 9)
		top := newTopic[int](t, WithHooks(Hooks{Stuck: func(e Event) { stuck <- e }}))
		y := newDiary()
		var work, extend time.Duration
		var hand Delivery[int]
		s := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			hand = d
			if extend > 0 {
				if err := d.Extend(ctx, extend); err != nil {
					t.Error(err)
				}
			}
			done := time.NewTimer(work)
			defer done.Stop()
			select {
			case <-ctx.Done():
				y.note("%t", errors.Is(context.Cause(ctx), ErrStale))
			case <-done.C:
				y.note("done")
			}
			return nil
		}, WithVisibilityTimeout(10*time.Second), WithAutoExtend(35*time.Second), WithMaxAttempts(1))
		q := s.Queue()
		deadline := func() time.Duration {
			synctest.Wait()
			return hand.Deadline().Sub(y.began)
		}

		work = 25 * time.Second
		publish(t, top, 1)
		require.Equal(t, 35*time.Second, deadline(), "the last instant is known from the start")
		elapse(10 * time.Second)
		require.Equal(t, 35*time.Second, deadline())
		check(t, top)
		elapse(time.Minute)
		require.Equal(t, []string{"25s: done"}, y.read())
		require.Equal(t, [2]uint64{1, 0}, [2]uint64{q.Stats().Acked, q.Stats().TimedOut})

		work, y.began = time.Hour, time.Now()
		publish(t, top, 2)
		elapse(30 * time.Second)
		require.Equal(t, 35*time.Second, deadline(), "no further than its longest")
		elapse(5*time.Second - 1)
		require.Equal(t, 1, q.Stats().InFlight)
		require.Empty(t, stuck)
		elapse(1)
		require.Equal(t, []string{"35s: true"}, y.read())
		require.Len(t, stuck, 1)
		require.Equal(t, 35*time.Second, (<-stuck).Elapsed)
		require.Equal(t, 1, q.Stats().Dead)

		work, extend, y.began = time.Hour, 50*time.Second, time.Now()
		publish(t, top, 3) // the handler's own goes beyond
		elapse(time.Minute)
		require.Equal(t, []string{"50s: true"}, y.read())

		publish(t, top, 4) // not for those who receive
		_ = s.Shutdown(ctx)
		check(t, top)
		top.Close()
		<-top.Done()
	})
	t.Run("a receiver's delivery is not extended", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
			publish(t, top, 1)
			d := receive(t, q)
			_, err := q.Subscribe(ctx, handleNothing, WithAutoExtend(time.Hour))
			require.NoError(t, err)
			elapse(time.Second)
			require.ErrorIs(t, d.Ack(ctx), ErrStale)
			require.Equal(t, uint64(1), q.Stats().Acked)
			top.Close()
		})
	})
}

func TestALongWaitIsReportedEveryTenSecondsWithTheQueueItIsFor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		y := newDiary()
		var log syncBuffer
		top, err := NewTopic[int]("payments", WithLogger(log.logger()), WithHooks(Hooks{Stalled: func(e Event) {
			y.note("%s %v %d of %d", e.Queue, e.Elapsed, e.Stats.Unsettled(), e.Stats.Capacity)
		}}))
		require.NoError(t, err)
		a := openQueue(t, top, "a", WithCapacity(1), WithMaxAttempts(1))
		b := openQueue(t, top, "b", WithCapacity(2))
		publish(t, top, 1)
		full := waiting(ctx, top, Message[int]{Body: 2})
		elapse(10*time.Second - 1)
		require.Empty(t, y.read())
		elapse(15*time.Second + 1)
		require.Equal(t, []string{"10s: a 10s 1 of 1", "20s: a 20s 1 of 1"}, y.read())
		require.NoError(t, receive(t, a).Nack(ctx)) // dead
		require.NoError(t, requireDecided(t, full))
		elapse(time.Minute)
		require.Empty(t, y.read(), "no timer remains of it")

		y.began = time.Now()
		full = waiting(ctx, top, Message[int]{Body: 3})
		elapse(12 * time.Second)
		require.NoError(t, receive(t, a).Ack(ctx)) // now it waits for b
		elapse(8 * time.Second)
		require.Equal(t, []string{"10s: a 10s 1 of 1", "20s: b 20s 2 of 2"}, y.read())
		require.NoError(t, receive(t, b).Ack(ctx))
		require.NoError(t, requireDecided(t, full))

		y.began = time.Now()
		soon, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		n, err := a.Redrive(soon) // a redrive's wait, too
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, n)
		require.Equal(t, []string{"10s: a 10s 1 of 1"}, y.read())
		require.Equal(t, 5, strings.Count(log.String(), "waits for room"))
		check(t, top)
		top.Close()
	})
}

func TestRowRateLimitLeavesNoTimerWhenNobodyWaitsForIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for name, end := range map[string]func(s *Subscriber[int]) error{
			"a receiver took it": func(s *Subscriber[int]) error { return receive(t, s.Queue()).Ack(ctx) },
			"purged":             func(s *Subscriber[int]) error { _, err := s.Queue().Purge(ctx); return err },
			"shut down":          func(s *Subscriber[int]) error { return s.Shutdown(ctx) },
		} {
			top := newTopic[int](t)
			s := subscribe(t, top, "q", func(context.Context, Delivery[int]) error { return nil }, WithRateLimit(0.001))
			publish(t, top, 1, 2)
			synctest.Wait()
			require.Equal(t, 1, s.Queue().Stats().Ready)
			require.True(t, s.Queue().alarm.armed)
			require.NoError(t, end(s), name)
			time.Sleep(handAge) // a timer that was armed for a moment goes by itself
			synctest.Wait()
			require.False(t, s.Queue().alarm.armed, name)
			check(t, top)
			top.Close()
		}
	})
}

func TestRowConcurrencyAnInterceptorThatLeavesNextRunningKeepsItsDelivery(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		gate := make(chan struct{})
		late := make(chan Delivery[int], 1)
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				late <- d
			}
			return nil
		}, WithHandlerInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
			if info.MessageID == "first" {
				go func() {
					<-gate
					_ = next(ctx)
				}()
				return nil // gives up waiting
			}
			return next(ctx)
		}))
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1, ID: "first"}, Message[int]{Body: 2}))
		synctest.Wait()
		close(gate)
		require.Equal(t, "first", (<-late).ID())
		require.NoError(t, top.Shutdown(ctx))
	})
}

// askingContext asks the queue whenever it is asked.
type askingContext struct {
	context.Context
	q *Queue[int]
}

func (c askingContext) Err() error {
	c.q.Stats()
	return c.Context.Err()
}

func TestPromise05NoLockIsHeldWhileAContextIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2)
		asking := askingContext{ctx, q}
		_, err := q.Receive(asking)
		require.NoError(t, err)
		_, ok, err := q.TryReceive(asking)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, top.Publish(asking, 3))
		_, err = q.Peek(asking, 1)
		require.NoError(t, err)
		top.Close()
	})
}

func TestPromise10AHookThatBlocksKeepsNoShutdownOfASubscriberWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		release := make(chan struct{})
		top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(Event) { <-release }}))
		s := subscribe(t, top, "q", func(context.Context, Delivery[int]) error { return nil }, WithTimeToLive(time.Second))
		q := s.Queue()
		require.NoError(t, q.Pause(ctx))
		publish(t, top, 1)
		time.Sleep(time.Second)
		require.NoError(t, q.Resume(ctx)) // its worker tells that the message has expired
		synctest.Wait()
		start := time.Now()
		soon, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(soon), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		close(release)
		<-s.Done()
		top.Close()
		<-top.Done()
	})
}

// A deleted queue is gone with all that it held and its dead letters, in this process and on the engine.

package ending_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// A lossBook is what a hook was told of losses.
type lossBook struct {
	mu   sync.Mutex
	lost []string
}

func (b *lossBook) hooks() fanout.TopicOption {
	return fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lost = append(b.lost, fmt.Sprintf("%s: %d by %v", e.Queue, e.Count, e.Reason))
	}})
}

func (b *lossBook) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.lost...)
}

func TestDeleteLeavesNothingOfAQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		top := kit.NewTopic[int](t, book.hooks())
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(1), fanout.WithBackoff(fanout.Constant(time.Hour)), fanout.WithCapacity(6))
		other := kit.OpenQueue(t, top, "other")
		kit.Publish(t, top, 1, 2, 3, 4)
		for range 2 { // one is dead, one parked
			require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		held := kit.Receive(t, q)
		kit.PublishAll(t, top, fanout.Message[int]{Body: 5, Delay: time.Hour}, fanout.Message[int]{Body: 6})
		letter := kit.Receive(t, q.DeadLetters())
		s := q.Stats()
		require.Equal(t, []int{1, 1, 1, 1, 1, 1}, []int{s.Ready, s.InFlight, s.Delayed, s.Retrying, s.Parked, s.Dead})
		blocked := make(chan error, 1)
		go func() {
			blocked <- top.PublishMessages(ctx, fanout.Message[int]{Body: 7}, fanout.Message[int]{Body: 8})
		}()
		received := make(chan error, 1)
		go func() {
			_, err := q.DeadLetters().Receive(ctx)
			received <- err
		}()
		synctest.Wait()
		require.Empty(t, blocked, "the queue is full")

		require.NoError(t, q.Delete(ctx))
		synctest.Wait()
		require.NoError(t, <-blocked, "nobody waits for it any more")
		require.ErrorIs(t, <-received, fanout.ErrClosed)
		require.Equal(t, []string{"q: 5 by delete", "q/dead: 1 by delete"}, book.told())
		require.ErrorIs(t, held.Ack(ctx), fanout.ErrClosed)
		require.ErrorIs(t, letter.Ack(ctx), fanout.ErrClosed)
		require.Empty(t, q.Leftovers())
		require.Empty(t, top.Leftovers())
		_, err := q.Redrive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
		for _, d := range []*fanout.Queue[int]{q, q.DeadLetters()} {
			_, err := d.Receive(ctx)
			require.ErrorIs(t, err, fanout.ErrClosed)
			left, err := d.Peek(ctx, fanout.Unlimited)
			require.NoError(t, err)
			require.Empty(t, left)
			s := d.Stats()
			require.Zero(t, s.Unsettled()+s.Dead+int(s.Left))
			require.Equal(t, uint64(s.Published)+s.Redriven, s.Acked+s.DeadLettered+s.Dropped)
		}
		require.EqualValues(t, 5, q.Stats().Dropped)
		require.EqualValues(t, 1, q.DeadLetters().Stats().Dropped)
		require.NoError(t, q.Delete(ctx), "again")
		require.NoError(t, q.Close())
		require.Len(t, book.told(), 2)

		require.Equal(t, 8, other.Stats().Unsettled())
		again := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 9)
		require.Equal(t, []int{9}, kit.Bodies(t, again))
		require.Zero(t, again.Stats().Dead, "it does not take over what was deleted")
		kit.Check(t, top)
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDeleteCancelsTheHandlersOfTheQueueAndOfItsLetters(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		causes := make(chan error, 2)
		wait := func(ctx context.Context, _ fanout.Delivery[int]) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		}
		q := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Body == 1 {
				return fanout.Permanent(kit.ErrBusy)
			}
			return wait(ctx, d)
		}).Queue()
		_, err := q.DeadLetters().Subscribe(ctx, wait)
		require.NoError(t, err)
		kit.Publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, q.Delete(ctx))
		for range 2 {
			require.ErrorIs(t, <-causes, fanout.ErrClosed)
		}
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDeleteAfterClose(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		top := kit.NewTopic[int](t, book.hooks())
		open := func() *fanout.Queue[int] {
			q := kit.OpenQueue(t, top, "q")
			kit.Publish(t, top, 1, 2)
			require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
			require.NoError(t, q.Close())
			return q
		}
		q := open()
		require.Len(t, q.Leftovers(), 1)
		require.NoError(t, q.Delete(ctx))
		require.Equal(t, []string{"q: 1 by close", "q/dead: 1 by delete"}, book.told(), "what is left was told of when the queue was closed")
		require.Empty(t, q.Leftovers())
		require.Zero(t, q.DeadLetters().Stats().Unsettled())
		s := q.Stats()
		require.Equal(t, []uint64{2, 1, 1, 0}, []uint64{uint64(s.Published), s.DeadLettered, s.Dropped, s.Left})

		old := open()
		q = kit.OpenQueue(t, top, "q")
		require.Equal(t, 1, q.Stats().Dead, "it has taken over the letters")
		require.NoError(t, old.Delete(ctx))
		require.Empty(t, old.Leftovers())
		require.Equal(t, 1, q.Stats().Dead, "which are its own now")
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.Equal(t, []int{1}, kit.Bodies(t, q))

		require.NoError(t, q.Close())
		old = q
		q = open()
		require.NoError(t, q.DeadLetters().Close())
		require.Equal(t, 1, q.Stats().Dead)
		require.NoError(t, q.DeadLetters().Delete(ctx), "its queue is closed")
		require.Zero(t, q.Stats().Dead)
		require.Len(t, q.Leftovers(), 1)
		require.NoError(t, old.Delete(ctx))
		require.NoError(t, top.Close())
	})
}

func TestDeleteAfterTheEndOfTheTopic(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		top := kit.NewTopic[int](t, book.hooks())
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		require.NoError(t, top.Close())
		<-top.Done()
		require.Equal(t, 1, q.DeadLetters().Stats().Unsettled(), "letters can be looked at")
		require.NoError(t, q.Delete(ctx))
		require.Empty(t, top.Leftovers())
		require.Zero(t, q.DeadLetters().Stats().Unsettled())
		require.Equal(t, []string{"q: 1 by close", "q/dead: 1 by delete"}, book.told())
		require.NoError(t, q.DeadLetters().Delete(ctx))
		<-top.Done()
	})
}

func TestDeleteLeavesTheLettersInASharedQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		shared, err := fanout.NewDeadLetterQueue[int]("shared", kit.Silent, book.hooks().(fanout.DeadLetterOption))
		require.NoError(t, err)
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(shared))
		kit.Publish(t, top, 1, 2)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		require.NoError(t, q.Delete(ctx))
		require.Empty(t, q.Leftovers())
		require.Equal(t, 1, shared.Stats().Unsettled())
		q = kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(shared))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))

		require.NoError(t, shared.Delete(ctx))
		require.Equal(t, []string{"shared: 1 by delete"}, book.told())
		require.Zero(t, shared.Stats().Unsettled())
		require.NoError(t, shared.Delete(ctx))
		kit.Publish(t, top, 3)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		require.Equal(t, 1, q.Stats().Parked, "as when it is closed")
		require.NoError(t, top.Close())

		kept, err := fanout.NewDeadLetterQueue[int]("kept", kit.Silent)
		require.NoError(t, err)
		top = kit.NewTopic[int](t)
		q = kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(kept))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		require.NoError(t, kept.Close())
		require.Equal(t, 1, kept.Stats().Unsettled(), "Close keeps letters")
		require.NoError(t, kept.Delete(ctx))
		require.Zero(t, kept.Stats().Unsettled())
		require.NoError(t, top.Close())
	})
}

func TestWhatDeleteRefuses(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		top := kit.NewTopic[int](t, on())
		q := kit.OpenQueue(t, top, "q")
		var none context.Context
		require.ErrorIs(t, q.Delete(none), fanout.ErrInvalidOption)
		err := q.DeadLetters().Delete(ctx)
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, `deleting the dead-letter queue "q/dead": delete "q"`)
		kit.Publish(t, top, 1)
		require.Equal(t, []int{1}, taken(t, q), "both are open still")
		require.NoError(t, q.Delete(ctx))
		require.NoError(t, q.DeadLetters().Delete(ctx), "it is gone")
		require.NoError(t, q.DeadLetters().Close())
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

// Closing the dead-letter queue of a closed queue has nothing to do, on an engine too.
func TestTheDeadLetterQueueOfAClosedQueueCanBeClosed(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		top := kit.NewTopic[int](t, on())
		q := kit.OpenQueue(t, top, "q")
		d := q.DeadLetters()
		require.ErrorIs(t, d.Close(), fanout.ErrUnsupported)
		require.NoError(t, q.Close())
		require.NoError(t, d.Close())
		require.NoError(t, d.Close())
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

// twoProcesses opens queue q of a topic in two processes.
func twoProcesses(t *testing.T, options ...fanout.TopicOption) (e *fakeengine.Engine, top *fanout.Topic[int], here, there *fanout.Queue[int]) {
	t.Helper()
	e = fakeengine.New(fakeengine.Config{})
	top = kit.NewTopic[int](t, append(options, fanout.WithEngine(e))...)
	elsewhere := kit.NewTopic[int](t, fanout.WithEngine(e.Sibling()))
	t.Cleanup(func() {
		require.NoError(t, top.Close())
		require.NoError(t, elsewhere.Close())
	})
	return e, top, kit.OpenQueue(t, top, "q"), kit.OpenQueue(t, elsewhere, "q")
}

func TestDeleteRemovesTheQueueFromTheEngine(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		_, top, q, there := twoProcesses(t, book.hooks())
		other := kit.OpenQueue(t, top, "other")
		kit.Publish(t, top, 1, 2, 3)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		held, elsewhere := kit.Receive(t, q), kit.Receive(t, there)
		received := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := there.Receive(ctx)
				received <- err
			}()
		}
		synctest.Wait()
		require.NoError(t, q.Delete(ctx))
		for range 2 {
			require.ErrorIs(t, <-received, fanout.ErrClosed)
		}
		require.Equal(t, []string{"q: 2 by delete", "q/dead: 1 by delete"}, book.told())
		require.EqualValues(t, 2, q.Stats().Dropped)
		require.ErrorIs(t, held.Ack(ctx), fanout.ErrClosed)
		require.Error(t, elsewhere.Ack(ctx))
		require.NoError(t, q.Delete(ctx), "again")
		kit.Publish(t, top, 4)
		again := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 5)
		require.Equal(t, []int{5}, taken(t, again), "it is a new one")
		letters, err := again.DeadLetters().Peek(ctx, fanout.Unlimited)
		require.NoError(t, err)
		require.Empty(t, letters)
		require.Equal(t, []int{1, 2, 3, 4, 5}, taken(t, other))
		require.NoError(t, q.Delete(ctx), "the old one is gone, and stays so")
		kit.Publish(t, top, 6)
		require.Equal(t, []int{6}, taken(t, again))
	})
}

func TestDeleteThatTheEngineFailsCanBeTriedAgain(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		e, top, q, there := twoProcesses(t, book.hooks())
		kit.Publish(t, top, 1)
		e.Inject(fakeengine.Fault{Op: fakeengine.Delete, Nth: 1, Err: kit.ErrBusy})
		err := q.Delete(ctx)
		require.ErrorIs(t, err, kit.ErrBusy)
		require.ErrorContains(t, err, `fanout: delete of "q": `)
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed, "it is closed here")
		require.Equal(t, 1, bodyOf(t, there), "and still there")
		require.Empty(t, book.told())

		e.Inject(fakeengine.Fault{Op: fakeengine.Delete, Nth: 1, Latency: time.Hour})
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, q.Delete(soon), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))

		require.NoError(t, q.Delete(ctx))
		require.Equal(t, []string{"q: 1 by delete"}, book.told())
		_, err = there.Receive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

// taken receives and acknowledges all that is ready.
func taken(t *testing.T, q *fanout.Queue[int]) (bodies []int) {
	t.Helper()
	for {
		d, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		if !ok {
			return bodies
		}
		require.NoError(t, d.Ack(t.Context()))
		bodies = append(bodies, d.Body)
	}
}

func bodyOf(t *testing.T, q *fanout.Queue[int]) int {
	t.Helper()
	return kit.Receive(t, q).Body
}

func TestDeleteOnAnEngineLeavesWhatWasOpenedAgain(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		_, top, q, _ := twoProcesses(t)
		kit.Publish(t, top, 1)
		require.NoError(t, q.Close())
		again := kit.OpenQueue(t, top, "q")
		err := q.Delete(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
		require.ErrorContains(t, err, "it was opened again")
		require.Equal(t, 1, bodyOf(t, again))
		require.NoError(t, again.Close())
		require.NoError(t, q.Delete(ctx), "now it is nobody's")

		q = kit.OpenQueue(t, top, "q")
		require.NoError(t, top.Close())
		err = q.Delete(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed, "the engine was let go")
	})
}

// Hooks are called when others can open queues again.
func TestAHookMayOpenTheQueueThatIsBeingDeleted(t *testing.T) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		var top *fanout.Topic[int]
		opened := make(chan error, 1)
		top = kit.NewTopic[int](t, on(), fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
			if e.Reason == fanout.DroppedByDelete {
				_, err := top.OpenQueue(ctx, "q")
				opened <- err
			}
		}}))
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1)
		require.NoError(t, q.Delete(ctx))
		require.NoError(t, <-opened)
		kit.Publish(t, top, 2)
		require.Equal(t, []int{2}, taken(t, top.Queue("q")))
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDeleteWaitsForAQueueThatIsBeingOpened(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		e, top, q, _ := twoProcesses(t)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenQueue, Nth: 1, Latency: time.Minute})
		go top.OpenQueue(ctx, "slow")
		synctest.Wait()
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, q.Delete(soon), context.DeadlineExceeded)
		kit.Publish(t, top, 1)
		require.Equal(t, 1, bodyOf(t, q), "it stays open")
		start := time.Now()
		require.NoError(t, q.Delete(ctx))
		require.Equal(t, 59*time.Second, time.Since(start))
	})
}

func TestAnEngineThatDoesNotKeepDeletionRefusesDelete(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithEngine(fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Deletion}})))
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1)
		err := q.Delete(ctx)
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, `delete of "q": fanout: unsupported: Delete on engine "fake": it does not support deletion of queues; switched off; switch it on`)
		require.Equal(t, 1, bodyOf(t, q), "it stays open")
		require.NoError(t, top.Close())
	})
}

// Queues come and are deleted, by two at once, while others publish: all books balance, and
// publishers never wait for one that is gone.
func TestDeleteBesidePublishers(t *testing.T) {
	ctx := t.Context()
	top := kit.NewTopic[int](t)
	kept := kit.OpenQueue(t, top, "kept", fanout.WithCapacity(fanout.Unlimited))
	const publishers, each, rounds = 4, 500, 100
	var all sync.WaitGroup
	for range publishers {
		all.Go(func() {
			for k := range each {
				if err := top.Publish(ctx, k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for round := range rounds {
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(8), fanout.WithMaxAttempts(1))
		for range round % 4 {
			if d, ok, err := q.TryReceive(ctx); err == nil && ok {
				require.NoError(t, d.Nack(ctx))
			}
			runtime.Gosched()
		}
		var deletes sync.WaitGroup
		for range 2 {
			deletes.Go(func() {
				if err := q.Delete(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		deletes.Wait()
		s, d := q.Stats(), q.DeadLetters().Stats()
		require.Zero(t, s.Unsettled()+int(s.Left)+d.Unsettled())
		require.Equal(t, uint64(s.Published), s.Dropped+s.DeadLettered)
		require.Equal(t, s.DeadLettered, uint64(d.Published))
		require.Equal(t, uint64(d.Published), d.Dropped)
	}
	all.Wait()
	require.Equal(t, publishers*each, kept.Stats().Unsettled())
	kit.Check(t, top)
	require.NoError(t, top.Close())
	<-top.Done()
	if _, err := top.OpenQueue(ctx, "q"); !errors.Is(err, fanout.ErrClosed) {
		t.Error(err)
	}
}

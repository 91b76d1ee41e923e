package fanout

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

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A lossBook is what a hook was told of losses.
type lossBook struct {
	mu   sync.Mutex
	lost []string
}

func (b *lossBook) hooks() TopicOption {
	return WithHooks(Hooks{Dropped: func(e Event) {
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
	bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		top := newTopic[int](t, book.hooks())
		q := openQueue(t, top, "q", WithMaxAttempts(2), WithDeadLetterCapacity(1), WithBackoff(Constant(time.Hour)), WithCapacity(6))
		other := openQueue(t, top, "other")
		publish(t, top, 1, 2, 3, 4)
		for range 2 { // one is dead, one parked
			require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		}
		require.NoError(t, receive(t, q).Nack(ctx))
		held := receive(t, q)
		publishAll(t, top, Message[int]{Body: 5, Delay: time.Hour}, Message[int]{Body: 6})
		letter := receive(t, q.DeadLetters())
		s := q.Stats()
		require.Equal(t, []int{1, 1, 1, 1, 1, 1}, []int{s.Ready, s.InFlight, s.Delayed, s.Retrying, s.Parked, s.Dead})
		blocked := make(chan error, 1)
		go func() { blocked <- top.PublishMessages(ctx, Message[int]{Body: 7}, Message[int]{Body: 8}) }()
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
		require.ErrorIs(t, <-received, ErrClosed)
		require.Equal(t, []string{"q: 5 by delete", "q/dead: 1 by delete"}, book.told())
		require.ErrorIs(t, held.Ack(ctx), ErrClosed)
		require.ErrorIs(t, letter.Ack(ctx), ErrClosed)
		require.Empty(t, q.Leftovers())
		require.Empty(t, top.Leftovers())
		_, err := q.Redrive(ctx)
		require.ErrorIs(t, err, ErrClosed)
		for _, d := range []*Queue[int]{q, q.DeadLetters()} {
			_, err := d.Receive(ctx)
			require.ErrorIs(t, err, ErrClosed)
			left, err := d.Peek(ctx, Unlimited)
			require.NoError(t, err)
			require.Empty(t, left)
			require.Zero(t, d.win.Len(), "nothing is pinned")
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
		again := openQueue(t, top, "q")
		publish(t, top, 9)
		require.Equal(t, []int{9}, bodies(t, again))
		require.Zero(t, again.Stats().Dead, "it does not take over what was deleted")
		check(t, top)
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDeleteCancelsTheHandlersOfTheQueueAndOfItsLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		causes := make(chan error, 2)
		wait := func(ctx context.Context, _ Delivery[int]) error {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		}
		q := subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				return Permanent(errBusy)
			}
			return wait(ctx, d)
		}).Queue()
		_, err := q.DeadLetters().Subscribe(ctx, wait)
		require.NoError(t, err)
		publish(t, top, 1, 2)
		synctest.Wait()
		require.NoError(t, q.Delete(ctx))
		for range 2 {
			require.ErrorIs(t, <-causes, ErrClosed)
		}
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDeleteAfterClose(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		top := newTopic[int](t, book.hooks())
		open := func() *Queue[int] {
			q := openQueue(t, top, "q")
			publish(t, top, 1, 2)
			require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
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
		require.Empty(t, top.orphans)

		old := open()
		q = openQueue(t, top, "q")
		require.Equal(t, 1, q.Stats().Dead, "it has taken over the letters")
		require.NoError(t, old.Delete(ctx))
		require.Empty(t, old.Leftovers())
		require.Equal(t, 1, q.Stats().Dead, "which are its own now")
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.Equal(t, []int{1}, bodies(t, q))

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
	bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		top := newTopic[int](t, book.hooks())
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
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
	bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		shared, err := NewDeadLetterQueue[int]("shared", silent, book.hooks().(DeadLetterOption))
		require.NoError(t, err)
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1), WithDeadLetterQueue(shared))
		publish(t, top, 1, 2)
		require.NoError(t, receive(t, q).Nack(ctx))
		require.NoError(t, q.Delete(ctx))
		require.Empty(t, q.Leftovers())
		require.Equal(t, 1, shared.Stats().Unsettled())
		q = openQueue(t, top, "q", WithMaxAttempts(1), WithDeadLetterQueue(shared))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.NoError(t, receive(t, q).Nack(ctx))

		require.NoError(t, shared.Delete(ctx))
		require.Equal(t, []string{"shared: 1 by delete"}, book.told())
		require.Zero(t, shared.Stats().Unsettled())
		require.NoError(t, shared.Delete(ctx))
		publish(t, top, 3)
		require.NoError(t, receive(t, q).Nack(ctx))
		require.Equal(t, 1, q.Stats().Parked, "as when it is closed")
		require.NoError(t, top.Close())

		kept, err := NewDeadLetterQueue[int]("kept", silent)
		require.NoError(t, err)
		top = newTopic[int](t)
		q = openQueue(t, top, "q", WithMaxAttempts(1), WithDeadLetterQueue(kept))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		require.NoError(t, kept.Close())
		require.Equal(t, 1, kept.Stats().Unsettled(), "Close keeps letters")
		require.NoError(t, kept.Delete(ctx))
		require.Zero(t, kept.Stats().Unsettled())
		require.NoError(t, top.Close())
	})
}

func TestWhatDeleteRefuses(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		top := newTopic[int](t, on())
		q := openQueue(t, top, "q")
		var none context.Context
		require.ErrorIs(t, q.Delete(none), ErrInvalidOption)
		err := q.DeadLetters().Delete(ctx)
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorContains(t, err, `deleting the dead-letter queue "q/dead": delete "q"`)
		publish(t, top, 1)
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
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		top := newTopic[int](t, on())
		q := openQueue(t, top, "q")
		d := q.DeadLetters()
		require.ErrorIs(t, d.Close(), ErrUnsupported)
		require.NoError(t, q.Close())
		require.NoError(t, d.Close())
		require.NoError(t, d.Close())
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

// twoProcesses opens queue q of a topic in two processes.
func twoProcesses(t *testing.T, options ...TopicOption) (e *fakeengine.Engine, top *Topic[int], here, there *Queue[int]) {
	t.Helper()
	e = fakeengine.New(fakeengine.Config{})
	top = newTopic[int](t, append(options, WithEngine(e))...)
	elsewhere := newTopic[int](t, WithEngine(e.Sibling()))
	t.Cleanup(func() {
		require.NoError(t, top.Close())
		require.NoError(t, elsewhere.Close())
	})
	return e, top, openQueue(t, top, "q"), openQueue(t, elsewhere, "q")
}

func TestDeleteRemovesTheQueueFromTheEngine(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		_, top, q, there := twoProcesses(t, book.hooks())
		other := openQueue(t, top, "other")
		publish(t, top, 1, 2, 3)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		held, elsewhere := receive(t, q), receive(t, there)
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
			require.ErrorIs(t, <-received, ErrClosed)
		}
		require.Equal(t, []string{"q: 2 by delete", "q/dead: 1 by delete"}, book.told())
		require.EqualValues(t, 2, q.Stats().Dropped)
		require.ErrorIs(t, held.Ack(ctx), ErrClosed)
		require.Error(t, elsewhere.Ack(ctx))
		require.NoError(t, q.Delete(ctx), "again")
		publish(t, top, 4)
		again := openQueue(t, top, "q")
		publish(t, top, 5)
		require.Equal(t, []int{5}, taken(t, again), "it is a new one")
		letters, err := again.DeadLetters().Peek(ctx, Unlimited)
		require.NoError(t, err)
		require.Empty(t, letters)
		require.Equal(t, []int{1, 2, 3, 4, 5}, taken(t, other))
		require.NoError(t, q.Delete(ctx), "the old one is gone, and stays so")
		publish(t, top, 6)
		require.Equal(t, []int{6}, taken(t, again))
	})
}

func TestDeleteThatTheEngineFailsCanBeTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var book lossBook
		e, top, q, there := twoProcesses(t, book.hooks())
		publish(t, top, 1)
		e.Inject(fakeengine.Fault{Op: fakeengine.Delete, Nth: 1, Err: errBusy})
		err := q.Delete(ctx)
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, `fanout: delete of "q": `)
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, ErrClosed, "it is closed here")
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
		require.ErrorIs(t, err, ErrClosed)
	})
}

// taken receives and acknowledges all that is ready.
func taken(t *testing.T, q *Queue[int]) (bodies []int) {
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

func bodyOf(t *testing.T, q *Queue[int]) int {
	t.Helper()
	return receive(t, q).Body
}

func TestDeleteOnAnEngineLeavesWhatWasOpenedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		_, top, q, _ := twoProcesses(t)
		publish(t, top, 1)
		require.NoError(t, q.Close())
		again := openQueue(t, top, "q")
		err := q.Delete(ctx)
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorContains(t, err, "it was opened again")
		require.Equal(t, 1, bodyOf(t, again))
		require.NoError(t, again.Close())
		require.NoError(t, q.Delete(ctx), "now it is nobody's")

		q = openQueue(t, top, "q")
		require.NoError(t, top.Close())
		err = q.Delete(ctx)
		require.ErrorIs(t, err, ErrClosed, "the engine was let go")
	})
}

// Hooks are called when others can open queues again.
func TestAHookMayOpenTheQueueThatIsBeingDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		var top *Topic[int]
		opened := make(chan error, 1)
		top = newTopic[int](t, on(), WithHooks(Hooks{Dropped: func(e Event) {
			if e.Reason == DroppedByDelete {
				_, err := top.OpenQueue(ctx, "q")
				opened <- err
			}
		}}))
		q := openQueue(t, top, "q")
		publish(t, top, 1)
		require.NoError(t, q.Delete(ctx))
		require.NoError(t, <-opened)
		publish(t, top, 2)
		require.Equal(t, []int{2}, taken(t, top.Queue("q")))
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDeleteWaitsForAQueueThatIsBeingOpened(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e, top, q, _ := twoProcesses(t)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenQueue, Nth: 1, Latency: time.Minute})
		go top.OpenQueue(ctx, "slow")
		synctest.Wait()
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, q.Delete(soon), context.DeadlineExceeded)
		publish(t, top, 1)
		require.Equal(t, 1, bodyOf(t, q), "it stays open")
		start := time.Now()
		require.NoError(t, q.Delete(ctx))
		require.Equal(t, 59*time.Second, time.Since(start))
	})
}

func TestAnEngineThatDoesNotKeepDeletionRefusesDelete(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithEngine(fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Deletion}})))
		q := openQueue(t, top, "q")
		publish(t, top, 1)
		err := q.Delete(ctx)
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorContains(t, err, `delete of "q": fanout: unsupported: Delete on engine "fake": it does not support deletion of queues; switched off; switch it on`)
		require.Equal(t, 1, bodyOf(t, q), "it stays open")
		require.NoError(t, top.Close())
	})
}

// Queues come and are deleted, by two at once, while others publish: all books balance, and
// publishers never wait for one that is gone.
func TestDeleteBesidePublishers(t *testing.T) {
	ctx := t.Context()
	top := newTopic[int](t)
	kept := openQueue(t, top, "kept", WithCapacity(Unlimited))
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
		q := openQueue(t, top, "q", WithCapacity(8), WithMaxAttempts(1))
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
	check(t, top)
	require.NoError(t, top.Close())
	<-top.Done()
	if _, err := top.OpenQueue(ctx, "q"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

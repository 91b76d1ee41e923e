// The promises by their numbers, 1 to 9 without 8: all or none, bounds, at least once, settling, isolation, retries, histories, dead letters.

package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// The tests in this file are the promises of the package, one by one.
// `go test -list Promise .` is their table of contents.

// --- 1. All or none ---

func TestPromise01AllOrNoneThroughAFullRejectQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		a := kit.OpenQueue(t, top, "a")
		full := kit.OpenQueue(t, top, "full", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
		dropper := kit.OpenQueue(t, top, "dropper", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest))
		kit.Publish(t, top, 1)

		for _, try := range []func() error{
			func() error { return top.Publish(ctx, 2) },
			func() error { return top.TryPublish(ctx, 2) },
			func() error { return top.PublishMessages(ctx, fanout.Message[int]{Body: 2}) },
			func() error { return top.PublishMessages(ctx, fanout.Message[int]{Body: 2, Delay: time.Second}) },
		} {
			err := try()
			require.ErrorIs(t, err, fanout.ErrQueueFull)
			require.ErrorContains(t, err, `"full"`)
			require.Equal(t, []int{1}, kit.Bodies(t, a))
			require.Equal(t, []int{1}, kit.Bodies(t, full))
			require.Equal(t, []int{1}, kit.Bodies(t, dropper), "nothing is dropped for a message that is refused")
			require.Zero(t, dropper.Stats().Dropped)
			fanout.Check(t, top)
		}
		require.Equal(t, uint64(1), top.Stats().Published)
		top.Close()
	})
}

func TestPromise01AllOrNoneWhenTheContextEndsWhileWaiting(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		a := kit.OpenQueue(t, top, "a")
		full := kit.OpenQueue(t, top, "full", fanout.WithCapacity(1))
		kit.Publish(t, top, 1)

		gone, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, top.Publish(gone, 2), context.Canceled)

		start := time.Now()
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		err := top.Publish(short, 2)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `"full"`)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, []int{1}, kit.Bodies(t, a))

		// Nothing is left behind: room made later is for those who come later.
		require.NoError(t, kit.Receive(t, full).Ack(ctx))
		kit.Publish(t, top, 3)
		require.Equal(t, []int{1, 3}, kit.Bodies(t, a))
		require.Equal(t, []int{3}, kit.Bodies(t, full))
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise01AllOrNoneWhenItsOnlyRoomGiverIsCancelled(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		s := kit.Subscribe(t, top, "full", func(ctx context.Context, d fanout.Delivery[int]) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, fanout.WithCapacity(1))
		kit.Publish(t, top, 1)
		err := make(chan error)
		go func() { err <- top.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)

		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.Error(t, s.Shutdown(soon))
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting, "the message is back in its queue, which is still full")
		require.NoError(t, s.Queue().Close())
		require.NoError(t, <-err, "a queue that closes leaves the wait")
		require.Equal(t, uint64(2), top.Stats().Published)
		top.Close()
	})
}

func TestPromise01AllOrNoneWhenTheTopicEndsWhileWaiting(t *testing.T) {
	for name, end := range map[string]func(*fanout.Topic[int], context.Context){
		"Close": func(top *fanout.Topic[int], ctx context.Context) { top.Close() },
		"Shutdown": func(top *fanout.Topic[int], ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_ = top.Shutdown(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				a := kit.OpenQueue(t, top, "a")
				kit.OpenQueue(t, top, "full", fanout.WithCapacity(1))
				kit.Publish(t, top, 1)
				err := make(chan error)
				go func() { err <- top.Publish(ctx, 2) }()
				synctest.Wait()
				go end(top, ctx)
				require.ErrorIs(t, <-err, fanout.ErrClosed)
				<-top.Done()
				require.Equal(t, []fanout.Message[int]{{Body: 1, ID: a.Leftovers()[0].ID}}, a.Leftovers())
				for _, err := range []error{top.Publish(ctx, 3), top.TryPublish(ctx, 3), top.PublishMessages(ctx, fanout.Message[int]{})} {
					require.ErrorIs(t, err, fanout.ErrClosed)
				}
				_, err2 := top.OpenQueue(ctx, "late")
				require.ErrorIs(t, err2, fanout.ErrClosed)
			})
		})
	}
}

func TestPromise01AllOrNoneOfABatch(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		a := kit.OpenQueue(t, top, "a", fanout.WithCapacity(100))
		b := kit.OpenQueue(t, top, "b", fanout.WithCapacity(3))
		batch := func(bodies ...int) (ms []fanout.Message[int]) {
			for _, n := range bodies {
				ms = append(ms, fanout.Message[int]{Body: n})
			}
			return ms
		}
		err := top.PublishMessages(ctx, batch(1, 2, 3, 4)...)
		require.ErrorIs(t, err, fanout.ErrBatchTooLarge)
		require.ErrorContains(t, err, "4 messages")
		require.ErrorContains(t, err, `"b"`)
		require.NoError(t, top.PublishMessages(ctx, batch(1, 2)...))
		require.ErrorIs(t, top.TryPublishMessages(ctx, batch(3, 4)...), fanout.ErrQueueFull, "one fits, two don't: none goes in")
		require.Equal(t, []int{1, 2}, kit.Bodies(t, a))

		done := make(chan error)
		go func() { done <- top.PublishMessages(ctx, batch(3, 4)...) }()
		synctest.Wait()
		require.Equal(t, []int{1, 2}, kit.Bodies(t, a))
		require.NoError(t, kit.Receive(t, b).Ack(ctx))
		require.NoError(t, <-done)
		require.Equal(t, []int{1, 2, 3, 4}, kit.Bodies(t, a))
		require.Equal(t, []int{2, 3, 4}, kit.Bodies(t, b))
		require.NoError(t, top.PublishMessages(ctx), "no message is no error")
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise01AllOrNoneWhenAFilterPanics(t *testing.T) {
	top := kit.NewTopic[int](t)
	defer top.Close()
	a := kit.OpenQueue(t, top, "a")
	kit.OpenQueue(t, top, "odd", fanout.WithFilter(func(n int) bool {
		if n < 0 {
			panic("negative")
		}
		return n%2 == 1
	}))
	err := top.Publish(t.Context(), -1)
	require.ErrorContains(t, err, `filter of queue "odd"`)
	require.ErrorContains(t, err, "negative")
	require.Empty(t, kit.Bodies(t, a))
	kit.Publish(t, top, 1)
	require.Equal(t, []int{1}, kit.Bodies(t, a))
}

func TestPromise01PublishesWaitInTheOrderOfTheirArrival(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		a := kit.OpenQueue(t, top, "a", fanout.WithCapacity(2))
		kit.Publish(t, top, 0, 0)
		for n := 1; n <= 5; n++ {
			go func() {
				if n == 3 { // a batch that needs both places does not starve
					_ = top.PublishMessages(ctx, fanout.Message[int]{Body: 3}, fanout.Message[int]{Body: 3})
					return
				}
				_ = top.Publish(ctx, n)
			}()
			synctest.Wait()
		}
		require.Equal(t, 5, top.Stats().Waiting)
		require.ErrorIs(t, top.TryPublish(ctx, 6), fanout.ErrQueueFull)
		var got []int
		for range 8 {
			d := kit.Receive(t, a)
			got = append(got, d.Body)
			require.NoError(t, d.Ack(ctx))
			synctest.Wait()
			fanout.Check(t, top)
		}
		require.Equal(t, []int{0, 0, 1, 2, 3, 3, 4, 5}, got)
		top.Close()
	})
}

func TestPromise01ALaterPublishOvertakesOnlyIfItSharesNoQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		even := kit.OpenQueue(t, top, "even", fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n%2 == 0 }))
		odd := kit.OpenQueue(t, top, "odd", fanout.WithCapacity(1), fanout.WithFilter(func(n int) bool { return n%2 == 1 }))
		kit.Publish(t, top, 0)
		waiting := make(chan error)
		go func() { waiting <- top.Publish(ctx, 2) }()
		synctest.Wait()
		kit.Publish(t, top, 1) // for odd only: goes by
		require.Equal(t, []int{1}, kit.Bodies(t, odd))
		go func() { waiting <- top.Publish(ctx, 4) }()
		synctest.Wait()
		require.Equal(t, 2, top.Stats().Waiting)
		for _, want := range []int{0, 2, 4} {
			d := kit.Receive(t, even)
			require.Equal(t, want, d.Body)
			require.NoError(t, d.Ack(ctx))
			if want < 4 {
				require.NoError(t, <-waiting)
			}
		}
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise01AllOrNoneWithQueuesComingAndGoing(t *testing.T) {
	// One queue stays from the first to the last; others come and go. What one
	// of those got between two messages is what the first queue got between them.
	ctx := t.Context()
	top := kit.NewTopic[int](t)
	all := kit.OpenQueue(t, top, "all", fanout.WithCapacity(fanout.Unlimited))
	var published atomic.Int64
	var publishers, others sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		publishers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if rand.IntN(3) == 0 {
					if top.PublishMessages(ctx, fanout.Message[int]{Body: n}, fanout.Message[int]{Body: n}) == nil {
						published.Add(2)
					}
				} else if top.TryPublish(ctx, n) == nil {
					published.Add(1)
				}
				runtime.Gosched()
			}
		})
	}
	var got [4][][]uint64
	for g := range got {
		others.Go(func() {
			for n := range 100 {
				q := kit.OpenQueue(t, top, fmt.Sprint(g), fanout.WithCapacity(1+rand.IntN(8)))
				var seqs []uint64
				for range rand.IntN(200) {
					d, ok, err := q.TryReceive(ctx)
					if !ok || err != nil {
						runtime.Gosched()
						continue
					}
					seqs = append(seqs, fanout.Sequence(d))
					_ = d.Ack(ctx)
				}
				if n%2 == 0 {
					fanout.Check(t, top)
				}
				_ = q.Close()
				got[g] = append(got[g], seqs)
			}
		})
	}
	others.Wait()
	close(stop)
	publishers.Wait()
	var order []uint64
	for {
		d, ok, err := all.TryReceive(ctx)
		require.NoError(t, err)
		if !ok {
			break
		}
		order = append(order, fanout.Sequence(d))
		_ = d.Ack(ctx)
	}
	require.Len(t, order, int(published.Load()), "nil means that it is in the queue, an error that it is not")
	require.True(t, slices.IsSorted(order))
	for _, runs := range got {
		for _, seqs := range runs {
			for k := 1; k < len(seqs); k++ {
				require.Equal(t, seqs[k-1]+1, seqs[k], "a message is missing in between")
			}
		}
	}
	top.Close()
	<-top.Done()
}

// --- 2. Bounded ---

func TestPromise02CapacityCountsReadyDelayedRetryingParkedAndInFlight(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(5), fanout.WithOverflow(fanout.Reject), fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(1),
			fanout.WithBackoff(fanout.Constant(time.Hour)))
		kit.Publish(t, top, 1, 2)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy))) // fills the dead-letter queue
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy))) // parked
		kit.Publish(t, top, 3, 4)
		require.NoError(t, kit.Receive(t, q).Nack(ctx)) // retrying
		kit.Receive(t, q)                               // in flight
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 5, Delay: time.Minute}))
		kit.Publish(t, top, 6) // ready
		s := q.Stats()
		require.Equal(t, [6]int{1, 1, 1, 1, 1, 1}, [6]int{s.Ready, s.Delayed, s.Retrying, s.InFlight, s.Parked, s.Dead})
		require.Equal(t, 5, s.Unsettled())
		depth, err := q.Depth(ctx)
		require.NoError(t, err)
		require.Equal(t, 5, depth.Unsettled())
		require.ErrorIs(t, top.Publish(ctx, 7), fanout.ErrQueueFull)
		fanout.Check(t, top)

		d, err := q.DeadLetters().Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Ack(ctx)) // room for what is parked
		kit.Publish(t, top, 7)
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise02DroppingQueuesAreBoundedToo(t *testing.T) {
	for _, row := range []struct {
		overflow fanout.Overflow
		left     []int
	}{
		{fanout.DropOldest, []int{5, 6, 7, 8}},
		{fanout.DropNewest, []int{0, 1, 2, 3}},
	} {
		for _, direct := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v direct %t", row.overflow, direct), func(t *testing.T) {
				top := kit.NewTopic[int](t)
				options := []fanout.QueueOption{fanout.WithCapacity(4), fanout.WithOverflow(row.overflow)}
				if direct {
					options = append(options, fanout.WithFilter(func(int) bool { return true }))
				}
				q := kit.OpenQueue(t, top, "q", options...)
				for n := range 9 {
					kit.Publish(t, top, n)
					fanout.Check(t, top)
				}
				require.Equal(t, row.left, kit.Bodies(t, q))
				require.Equal(t, uint64(5), q.Stats().Dropped)
				require.Equal(t, 9, q.Stats().Published)

				batch := make([]fanout.Message[int], 10)
				for n := range batch {
					batch[n].Body = 100 + n
				}
				require.NoError(t, top.PublishMessages(t.Context(), batch...), "larger than the capacity")
				fanout.Check(t, top)
				if row.overflow == fanout.DropOldest {
					require.Equal(t, []int{106, 107, 108, 109}, kit.Bodies(t, q))
				} else {
					require.Equal(t, row.left, kit.Bodies(t, q))
				}
				top.Close()
			})
		}
	}
}

func TestPromise02DropOldestSparesWhatIsInFlight(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		for _, direct := range []bool{false, true} {
			top := kit.NewTopic[int](t)
			options := []fanout.QueueOption{fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropOldest), fanout.WithBackoff(fanout.Constant(time.Minute))}
			if direct {
				options = append(options, fanout.WithFilter(func(int) bool { return true }))
			}
			q := kit.OpenQueue(t, top, "q", options...)
			kit.Publish(t, top, 0, 1, 2)
			inHand := []fanout.Delivery[int]{kit.Receive(t, q), kit.Receive(t, q), kit.Receive(t, q)}
			kit.Publish(t, top, 3) // everything is in flight: the new one is dropped
			require.Empty(t, kit.Bodies(t, q))
			require.NoError(t, inHand[1].Nack(ctx)) // retrying: the oldest that can be dropped
			kit.Publish(t, top, 4)
			require.Equal(t, []int{4}, kit.Bodies(t, q))
			require.NoError(t, inHand[0].Nack(ctx))
			kit.Publish(t, top, 5) // 0 is older than 4
			require.Equal(t, []int{4, 5}, kit.Bodies(t, q))
			require.NoError(t, inHand[2].Ack(ctx))
			require.Equal(t, uint64(3), q.Stats().Dropped)
			fanout.Check(t, top)
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 6, Delay: time.Second}, fanout.Message[int]{Body: 7}))
			require.Equal(t, []int{5, 6, 7}, kit.Bodies(t, q))
			fanout.Check(t, top)
			top.Close()
		}
	})
}

func TestPromise02AnIdleQueueWithAMillionPlacesCostsAlmostNothing(t *testing.T) {
	top := kit.NewTopic[int](t)
	defer top.Close()
	before := kit.Heap()
	for n := range 100 {
		kit.OpenQueue(t, top, fmt.Sprint(n), fanout.WithCapacity(1_000_000))
	}
	require.Less(t, (kit.Heap()-before)/100, int64(2048))
	runtime.KeepAlive(top)
}

func TestPromise02AFloodKeepsMemoryFlat(t *testing.T) {
	type payload [64]byte
	top := kit.NewTopic[*payload](t)
	for n := range 4 {
		kit.Subscribe(t, top, fmt.Sprint(n), func(context.Context, fanout.Delivery[*payload]) error { return nil }, fanout.WithCapacity(256))
	}
	kit.OpenQueue(t, top, "paused newest", fanout.WithCapacity(256), fanout.WithOverflow(fanout.DropNewest))
	kit.OpenQueue(t, top, "paused oldest", fanout.WithCapacity(256), fanout.WithOverflow(fanout.DropOldest))
	before := kit.Heap()
	for range 50_000 {
		require.NoError(t, top.Publish(t.Context(), new(payload)))
	}
	require.Less(t, kit.Heap()-before, int64(1<<20), "50,000 messages of 64 bytes went through queues of 256")
	top.Close()
	<-top.Done()
}

// --- 3. At least once ---

func TestPromise03EveryMessageIsDeliveredUntilItIsAcknowledged(t *testing.T) {
	// Handlers fail in every way; every message is acknowledged exactly once in
	// the end, and never delivered after.
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		const messages = 500
		top := kit.NewTopic[int](t)
		type ledger struct {
			sync.Mutex
			acked, after [messages]int
		}
		var books [3]ledger
		for k := range books {
			kit.Subscribe(t, top, fmt.Sprint(k), func(ctx context.Context, d fanout.Delivery[int]) error {
				l := &books[k]
				l.Lock()
				if l.acked[d.Body] > 0 {
					l.after[d.Body]++
				}
				l.Unlock()
				switch (d.Body + d.Attempt()*7) % 6 {
				case 0:
					return kit.ErrBusy
				case 1:
					panic("boom")
				case 2:
					runtime.Goexit()
				case 3:
					<-ctx.Done() // times out
					return context.Cause(ctx)
				case 4:
					if len(d.History()) < 3 {
						return fanout.Snooze(time.Second)
					}
				}
				if err := d.Ack(ctx); err != nil {
					return err
				}
				l.Lock()
				l.acked[d.Body]++
				l.Unlock()
				return nil
			}, fanout.WithConcurrency(1+k*7), fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithVisibilityTimeout(time.Second), fanout.WithCapacity(50))
		}
		for n := range messages {
			kit.Publish(t, top, n)
		}
		time.Sleep(time.Hour) // Shutdown would not wait for snoozes
		require.NoError(t, top.Shutdown(ctx))
		for k := range books {
			for n := range messages {
				require.Equal(t, 1, books[k].acked[n], "queue %d, message %d", k, n)
				require.Zero(t, books[k].after[n])
			}
		}
		<-top.Done()
	})
}

func TestPromise03EveryLossIsCountedHookedAndLogged(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var log kit.Buffer
		var mu sync.Mutex
		hooked := map[fanout.DropReason]int{}
		top, err := fanout.NewTopic[int]("payments", fanout.WithLogger(log.Logger()), fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
			mu.Lock()
			defer mu.Unlock()
			hooked[e.Reason] += e.Count
			if e.Count == 1 && e.Reason != fanout.DroppedByClose && e.MessageID == "" {
				t.Error("a dropped message is named")
			}
		}}))
		require.NoError(t, err)
		oldest := kit.OpenQueue(t, top, "oldest", fanout.WithCapacity(2), fanout.WithOverflow(fanout.DropOldest))
		newest := kit.OpenQueue(t, top, "newest", fanout.WithCapacity(2), fanout.WithOverflow(fanout.DropNewest))
		for n := range 12 {
			kit.Publish(t, top, n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 2, strings.Count(log.String(), "queue=oldest"), "the first at once, the others after a second:\n%s", log.String())
		require.Contains(t, log.String(), `queue=oldest count=9 reason="drop oldest"`)
		require.NoError(t, oldest.Close())
		require.NoError(t, top.Close())
		require.Equal(t, map[fanout.DropReason]int{fanout.DroppedOldest: 10, fanout.DroppedNewest: 10, fanout.DroppedByClose: 4}, hooked)
		require.Equal(t, [2]uint64{10, 2}, [2]uint64{oldest.Stats().Dropped, oldest.Stats().Left})
		require.Equal(t, [2]uint64{10, 2}, [2]uint64{newest.Stats().Dropped, newest.Stats().Left})
		require.Equal(t, 2, strings.Count(log.String(), "count=2 reason=close"), "%s", log.String())
		<-top.Done()
	})
}

// --- 4. A delivery is fenced ---

func TestPromise04ALateSettlementIsStaleAndTouchesNothing(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(time.Second))
		kit.Publish(t, top, 1)
		old := kit.Receive(t, q)
		time.Sleep(time.Second)
		synctest.Wait()
		requireStale := func() {
			t.Helper()
			require.ErrorIs(t, old.Ack(ctx), fanout.ErrStale)
			require.ErrorIs(t, old.Nack(ctx), fanout.ErrStale)
			require.ErrorIs(t, old.NackAfter(ctx, time.Hour), fanout.ErrStale)
			require.ErrorIs(t, old.Extend(ctx, time.Hour), fanout.ErrStale)
			require.ErrorIs(t, old.Settle(ctx, fanout.Permanent(kit.ErrBusy)), fanout.ErrStale)
			require.True(t, old.Deadline().IsZero())
		}
		requireStale()
		newer := kit.Receive(t, q)
		require.Equal(t, 2, newer.Attempt())
		requireStale()
		require.Equal(t, 1, q.Stats().InFlight)
		require.NoError(t, newer.Ack(ctx))
		requireStale()
		kit.Publish(t, top, 2) // the entry is used again
		kit.Receive(t, q)
		requireStale()
		require.ErrorIs(t, newer.Ack(ctx), fanout.ErrSettled)
		require.Equal(t, 1, q.Stats().InFlight)
		fanout.Check(t, top)
		top.Close()
		require.ErrorIs(t, old.Ack(ctx), fanout.ErrClosed)
	})
}

func TestPromise04ASecondSettlementIsSettled(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		first := map[string]func(fanout.Delivery[int]) error{
			"Ack":       func(d fanout.Delivery[int]) error { return d.Ack(ctx) },
			"Nack":      func(d fanout.Delivery[int]) error { return d.Nack(ctx) },
			"NackAfter": func(d fanout.Delivery[int]) error { return d.NackAfter(ctx, 0) },
			"Permanent": func(d fanout.Delivery[int]) error { return d.Settle(ctx, fanout.Permanent(kit.ErrBusy)) },
			"Snooze":    func(d fanout.Delivery[int]) error { return d.Settle(ctx, fanout.Snooze(time.Second)) },
		}
		for name, settle := range first {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q")
			kit.Publish(t, top, 1)
			d := kit.Receive(t, q)
			require.NoError(t, settle(d), name)
			before := q.Stats()
			copied := d
			for _, second := range first {
				require.ErrorIs(t, second(copied), fanout.ErrSettled, name)
			}
			require.ErrorIs(t, d.Extend(ctx, time.Second), fanout.ErrSettled)
			require.Equal(t, before, q.Stats(), name)
			top.Close()
		}
	})
}

func TestPromise04OneOfManyConcurrentSettlementsWins(t *testing.T) {
	top := kit.NewTopic[int](t)
	q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithVisibilityTimeout(2*time.Millisecond), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	ctx := t.Context()
	for n := range 300 {
		kit.Publish(t, top, n)
		var acked atomic.Int32
		for acked.Load() == 0 {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			var wg sync.WaitGroup
			var won atomic.Int32
			for k := range 4 {
				wg.Go(func() {
					if n%3 == 0 && k == 0 {
						time.Sleep(2 * time.Millisecond) // about when the timeout passes
					}
					var err error
					if k%2 == 0 {
						if err = d.Ack(ctx); err == nil {
							acked.Add(1)
						}
					} else if n%5 == 0 && d.Attempt() < 3 {
						err = d.Nack(ctx)
					} else {
						err = fanout.ErrSettled
					}
					if err == nil {
						won.Add(1)
					} else if !errors.Is(err, fanout.ErrSettled) && !errors.Is(err, fanout.ErrStale) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, won.Load(), int32(1))
		}
		require.Equal(t, int32(1), acked.Load())
		require.Zero(t, q.Stats().Unsettled())
	}
	top.Close()
	<-top.Done()
}

func TestPromise04AHandlerThatKeepsItsDeliverySettlesLateInVain(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		kept := make(chan fanout.Delivery[int], 2)
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			kept <- d
			return nil
		})
		kit.Publish(t, top, 1, 2)
		synctest.Wait()
		d1, d2 := <-kept, <-kept
		require.ErrorIs(t, d1.Nack(ctx), fanout.ErrSettled)
		require.ErrorIs(t, d2.Ack(ctx), fanout.ErrSettled)
		require.Equal(t, []int{1, 2}, []int{d1.Body, d2.Body})
		require.Equal(t, uint64(2), top.Queue("q").Stats().Acked)
		require.NoError(t, top.Shutdown(ctx))
	})
}

// --- 5. Isolation ---

func TestPromise05ABadHandlerAffectsNoOtherSubscriber(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		var good atomic.Int32
		kit.Subscribe(t, top, "good", func(context.Context, fanout.Delivery[int]) error { good.Add(1); return nil })
		forever := make(chan struct{})
		for name, h := range map[string]fanout.Handler[int]{
			"slow":    func(context.Context, fanout.Delivery[int]) error { time.Sleep(time.Hour); return nil },
			"failing": func(context.Context, fanout.Delivery[int]) error { return kit.ErrBusy },
			"panics":  func(context.Context, fanout.Delivery[int]) error { panic(kit.ErrBusy) },
			"blocked": func(context.Context, fanout.Delivery[int]) error { <-forever; return nil },
			"exits":   func(context.Context, fanout.Delivery[int]) error { runtime.Goexit(); return nil },
		} {
			kit.Subscribe(t, top, name, h, fanout.WithConcurrency(2), fanout.WithVisibilityTimeout(time.Minute))
		}
		start := time.Now()
		for n := range 100 {
			kit.Publish(t, top, n)
		}
		synctest.Wait()
		require.Equal(t, int32(100), good.Load())
		require.Equal(t, start, time.Now(), "nobody waited for anybody")
		require.Equal(t, 100, top.Queue("blocked").Stats().Unsettled())

		time.Sleep(time.Minute)
		synctest.Wait()
		s := top.Queue("blocked").Stats()
		require.Equal(t, 2, s.Stuck)
		require.Equal(t, uint64(2), s.TimedOut)
		require.Equal(t, 2, s.Workers, "a stuck handler keeps its worker")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Positive(t, top.Queue("exits").Stats().Exited)
		require.Equal(t, 100, top.Queue("exits").Stats().Dead, "each attempt of each message had a worker")
		require.Equal(t, 100, top.Queue("panics").Stats().Dead)
		top.Close()
		close(forever)
		<-top.Done()
	})
}

func TestPromise05AStuckHandlersMessageGoesToOthersAndItsContextIsCancelled(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		type seen struct {
			attempt int
			at      time.Duration
			cause   error
		}
		start := time.Now()
		log := make(chan seen, 10)
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			if d.Attempt() == 1 {
				_, has := ctx.Deadline()
				require.False(t, has)
				<-ctx.Done()
				log <- seen{1, time.Since(start), context.Cause(ctx)}
				time.Sleep(time.Hour) // does not listen
				return kit.ErrBusy
			}
			log <- seen{d.Attempt(), time.Since(start), ctx.Err()}
			return nil
		}, fanout.WithConcurrency(2), fanout.WithVisibilityTimeout(10*time.Second))
		kit.Publish(t, top, 1)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		a, b := <-log, <-log
		if a.attempt == 2 {
			a, b = b, a
		}
		require.Equal(t, 10*time.Second, a.at)
		require.ErrorIs(t, a.cause, fanout.ErrStale)
		require.ErrorContains(t, a.cause, "10s")
		require.Equal(t, seen{2, 10 * time.Second, nil}, b)
		require.Equal(t, 1, s.Queue().Stats().Stuck)
		require.NoError(t, top.Shutdown(ctx))
		require.Zero(t, s.Queue().Stats().Stuck)
		require.Equal(t, time.Hour+10*time.Second, time.Since(start), "Shutdown waited for the stuck handler")
	})
}

func TestPromise05NoLockIsHeldWhileUserCodeRuns(t *testing.T) {
	// Every piece of user code calls back into everything.
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var top *fanout.Topic[int]
		var calls atomic.Int32
		poke := func() {
			calls.Add(1)
			top.Stats()
			for _, q := range top.Queues() {
				q.Stats()
				_, _ = q.Peek(ctx, 1)
				q.DeadLetters().Stats()
			}
			if calls.Load() < 2000 { // publishing calls filters and hooks again
				_ = top.TryPublish(ctx, -1)
			}
		}
		hook := func(fanout.Event) { poke() }
		top = kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{
			Published: hook, Delivered: hook, Settled: hook, DeadLettered: hook, Parked: hook,
			Redriven: hook, Dropped: hook, Stuck: hook, Late: hook,
		}))
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			poke()
			if d.Body < 0 {
				return nil
			}
			switch d.Body % 3 {
			case 0:
				return kit.ErrBusy
			case 1:
				time.Sleep(2 * time.Second)
			}
			return fanout.Permanent(kit.ErrBusy)
		}, fanout.WithConcurrency(3), fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(2), fanout.WithDeadLetterCapacity(2),
			fanout.WithFilter(func(int) bool { poke(); return true }),
			fanout.WithBackoff(fanout.BackoffFunc(func(int) time.Duration { poke(); return time.Second })))
		kit.OpenQueue(t, top, "small", fanout.WithCapacity(2), fanout.WithOverflow(fanout.DropOldest))
		for n := range 10 {
			kit.Publish(t, top, n)
		}
		time.Sleep(time.Minute)
		_, err := top.Queue("q").Redrive(ctx, fanout.RedriveIf(func(fanout.Delivery[int]) bool { poke(); return true }))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Positive(t, calls.Load())
		top.Close()
		<-top.Done()
	})
}

// --- 6. No poison spin ---

func TestPromise06AFailedMessageWaitsAndIsDeadLetteredAfterMaxAttempts(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		start := time.Now()
		var at []time.Duration
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			at = append(at, time.Since(start))
			return kit.ErrBusy
		}, fanout.WithMaxAttempts(4), fanout.WithBackoff(fanout.Constant(3*time.Second)))
		kit.Publish(t, top, 1)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 3 * time.Second, 6 * time.Second, 9 * time.Second}, at)
		require.Equal(t, 1, s.Queue().Stats().Dead)
		require.Equal(t, uint64(4), s.Queue().Stats().Failed)
		fanout.Check(t, top)
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestPromise06NoRetryComesInLessThanAMillisecond(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		for name, outcome := range map[string]func() error{
			"failed":     func() error { return kit.ErrBusy },
			"RetryAfter": func() error { return fanout.RetryAfter(kit.ErrBusy, 0) },
			"negative":   func() error { return fanout.RetryAfter(kit.ErrBusy, -time.Hour) },
			"snoozed":    func() error { return fanout.Snooze(0) },
			"panicked":   func() error { panic("boom") },
			"exited":     func() error { runtime.Goexit(); return nil },
			"released":   func() error { return fanout.ErrClosed },
		} {
			top := kit.NewTopic[int](t)
			var calls atomic.Int32
			kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error {
				calls.Add(1)
				return outcome()
			}, fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithConcurrency(4), fanout.WithBackoff(fanout.BackoffFunc(func(int) time.Duration { return -1 })))
			kit.Publish(t, top, 1)
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			require.Equal(t, int32(101), calls.Load(), name)
			top.Close()
			<-top.Done()
		}
	})
}

func TestPromise06ExponentialBackoffIsUniformBetweenHalfAndWhole(t *testing.T) {
	b := fanout.Exponential(100*time.Millisecond, time.Second)
	for attempt, whole := range []time.Duration{0, 100, 200, 400, 800, 1000, 1000} {
		if attempt == 0 {
			continue
		}
		whole *= time.Millisecond
		least, most, sum := whole, time.Duration(0), time.Duration(0)
		const n = 2000
		for range n {
			d := fanout.After(b, attempt)
			least, most, sum = min(least, d), max(most, d), sum+d
		}
		require.GreaterOrEqual(t, least, whole/2)
		require.LessOrEqual(t, most, whole)
		require.Less(t, least, whole*55/100, "the lower end is reached")
		require.Greater(t, most, whole*95/100, "the upper end is reached")
		require.InDelta(t, float64(whole)*.75, float64(sum/n), float64(whole)*.02)
	}
	require.LessOrEqual(t, fanout.After(b, math.MaxInt), time.Second)
}

// --- 7. Attempts are counted by cause ---

func TestPromise07AttemptsAreCountedByCauseAndTheDeadLetterTellsAll(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[string](t)
		start := time.Now()
		var mu sync.Mutex
		var attempts []int
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[string]) error {
			mu.Lock()
			attempts = append(attempts, d.Attempt())
			mu.Unlock()
			switch len(d.History()) {
			case 0:
				time.Sleep(100 * time.Millisecond)
				return kit.ErrBusy
			case 1:
				panic("boom")
			case 2:
				runtime.Goexit()
			case 3:
				return fanout.Snooze(time.Minute)
			case 4:
				time.Sleep(2 * time.Second) // times out
				return nil
			case 5:
				return fmt.Errorf("downstream: %w", fanout.ErrClosed)
			case 6:
				return d.NackAfter(ctx, 5*time.Second)
			case 7:
				return fanout.RetryAfter(kit.ErrBusy, time.Hour)
			}
			return fmt.Errorf("no such order: %w", fanout.Permanent(kit.ErrBusy))
		}, fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(100), fanout.WithBackoff(fanout.Constant(10*time.Second)), fanout.WithConcurrency(2))
		kit.Publish(t, top, "x")
		time.Sleep(2 * time.Hour)
		synctest.Wait()

		st := s.Queue().Stats()
		require.Equal(t, [9]uint64{0, 2, 1, 1, 1, 1, 1, 1, 1}, [9]uint64{
			st.Acked, st.Failed, st.Panicked, st.Exited, st.TimedOut, st.Nacked, st.PermanentlyFailed, st.Snoozed, st.ReleasedCount,
		})
		require.Equal(t, []int{1, 2, 3, 4, 4, 5, 5, 6, 7}, attempts, "a snooze and a release spend none")

		dead, err := s.Queue().DeadLetters().Peek(ctx, 10)
		require.NoError(t, err)
		require.Len(t, dead, 1)
		type line struct {
			number  int
			cause   fanout.Cause
			start   time.Duration
			elapsed time.Duration
			err     string
		}
		var got []line
		for _, a := range dead[0].History() {
			l := line{a.Number, a.Cause, a.Start.Sub(start), a.Elapsed, ""}
			if a.Err != nil {
				l.err = a.Err.Error()
			}
			got = append(got, l)
			require.Equal(t, a.Cause == fanout.Panicked, a.Stack != "")
			require.Equal(t, "q", a.Queue)
		}
		const s10, ms = 10 * time.Second, time.Millisecond
		require.Equal(t, []line{
			{1, fanout.Failed, 0, 100 * ms, "busy"},
			{2, fanout.Panicked, 10100 * ms, 0, "panic: boom"},
			{3, fanout.Exited, 20100 * ms, 0, ""},
			{4, fanout.Snoozed, 30100 * ms, 0, ""},
			{5, fanout.TimedOut, 90100 * ms, time.Second, ""},
			{6, fanout.Released, 91100 * ms, 0, "downstream: fanout: closed"},
			{7, fanout.Nacked, 101100 * ms, 0, ""},
			{8, fanout.Failed, 106100 * ms, 0, "busy"},
			{9, fanout.PermanentlyFailed, time.Hour + 106100*ms, 0, "no such order: busy"},
		}, got)
		require.Contains(t, dead[0].History()[1].Stack, "promise_test.go")

		n, err := s.Queue().Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		synctest.Wait()
		require.Equal(t, 1, attempts[len(attempts)-1], "a redrive starts a fresh count")
		dead, _ = s.Queue().DeadLetters().Peek(ctx, 10)
		require.Len(t, dead[0].History(), 10, "and keeps the history")
		require.NoError(t, top.Shutdown(ctx))
	})
}

func TestPromise07AMessageSnoozedAThousandTimesIsDead(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		s := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { return fanout.Snooze(time.Second) })
		kit.Publish(t, top, 1)
		time.Sleep(999 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, s.Queue().Stats().Dead)
		require.Equal(t, uint64(1000), s.Queue().Stats().Snoozed)
		dead, _ := s.Queue().DeadLetters().Peek(ctx, 1)
		h := dead[0].History()
		require.Len(t, h, 1000)
		require.Equal(t, 1000, h[999].Number)
		require.NoError(t, top.Shutdown(ctx))
	})
}

// Promises 10 to 12 are in promise_time_test.go.

// --- 9. Nothing is lost on the way to the dead ---

func TestPromise09WhatFindsTheDeadLetterQueueFullIsParkedUntilThereIsRoom(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var parkedIDs []string
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Parked: func(e fanout.Event) { parkedIDs = append(parkedIDs, e.MessageID) }}))
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(4), fanout.WithOverflow(fanout.Reject), fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(2))
		kit.Publish(t, top, 1, 2, 3, 4)
		for range 4 {
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			fanout.Check(t, top)
		}
		require.Equal(t, []int{1, 2}, kit.Bodies(t, q.DeadLetters()))
		s := q.Stats()
		require.Equal(t, [3]int{2, 2, 2}, [3]int{s.Parked, s.Dead, s.Unsettled()})
		require.Len(t, parkedIDs, 2)
		kit.RequireEmpty(t, q)
		kit.Publish(t, top, 5, 6)
		require.ErrorIs(t, top.Publish(ctx, 7), fanout.ErrQueueFull, "parked messages count against the capacity")

		require.NoError(t, kit.Receive(t, q.DeadLetters()).Ack(ctx))
		require.Equal(t, []int{2, 3}, kit.Bodies(t, q.DeadLetters()))
		require.Equal(t, 1, q.Stats().Parked)
		kit.Publish(t, top, 7)
		n, err := q.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body == 2 }))
		require.NoError(t, err)
		require.Equal(t, 1, n, "the queue is full, but what is parked gives way")
		require.Equal(t, []int{3, 4}, kit.Bodies(t, q.DeadLetters()))
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		n, err = q.Redrive(soon)
		require.Zero(t, n, "the queue is full")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise09AParkedMessageMovesWhenARedriveMakesRoom(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(1))
		kit.Publish(t, top, 1, 2, 3)
		for range 3 {
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, []int{2}, kit.Bodies(t, q.DeadLetters()))
		require.Equal(t, 1, q.Stats().Parked)
		require.Equal(t, 1, kit.Receive(t, q).Body)
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise09AQueueFullOfParkedMessagesCanBeRedriven(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(2))
		for n := range 4 {
			kit.Publish(t, top, n)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		require.Equal(t, [2]int{2, 2}, [2]int{q.Stats().Parked, q.Stats().Dead})
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, []int{0, 1}, kit.Bodies(t, q), "the letters took the places of the parked, and these theirs")
		require.Equal(t, []int{2, 3}, kit.Bodies(t, q.DeadLetters()))
		fanout.Check(t, top)
		for range 2 {
			require.NoError(t, kit.Receive(t, q).Ack(ctx))
		}
		n, err = q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		fanout.Check(t, top)
		top.Close()
	})
}

func TestPromise09DeadLettersAreDroppedOnlyIfAsked(t *testing.T) {
	top := kit.NewTopic[int](t)
	q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(2), fanout.WithDeadLetterOverflow(fanout.DropOldest))
	kit.Publish(t, top, 1, 2, 3, 4)
	for range 4 {
		require.NoError(t, kit.Receive(t, q).Nack(t.Context()))
		fanout.Check(t, top)
	}
	require.Equal(t, []int{3, 4}, kit.Bodies(t, q.DeadLetters()))
	require.Zero(t, q.Stats().Parked)
	require.Equal(t, uint64(2), q.DeadLetters().Stats().Dropped)
	top.Close()
}

func TestPromise09AMessageIsNeverInNeitherQueue(t *testing.T) {
	// Sampled all along: each message is in its queue or among the dead.
	top := kit.NewTopic[int](t)
	const n = 200
	s := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { return fanout.Permanent(kit.ErrBusy) },
		fanout.WithConcurrency(4), fanout.WithDeadLetterCapacity(10), fanout.WithCapacity(n))
	batch := make([]fanout.Message[int], n)
	require.NoError(t, top.PublishMessages(t.Context(), batch...))
	q := s.Queue()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if s := q.Stats(); s.Unsettled()+s.Dead+int(s.Redriven) < n {
				t.Errorf("%d of %d messages are somewhere: %+v", s.Unsettled()+s.Dead, n, s)
				return
			}
			runtime.Gosched()
		}
	})
	for range 300 {
		_, err := q.Redrive(t.Context())
		require.NoError(t, err)
		runtime.Gosched()
	}
	close(stop)
	wg.Wait()
	top.Close()
	<-top.Done()
}

package fanout

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// What stands here are the edges of promises: values at a limit, states that
// meet seldom, and what one thing must not keep another from.

// Dead letters.

func TestADeadLetterQueueHidesAndBacksOffAsItsQueueDoes(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithVisibilityTimeout(7*time.Second), WithBackoff(Constant(3*time.Second)))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		d := q.DeadLetters()
		letter := receive(t, d)
		require.Equal(t, time.Now().Add(7*time.Second), letter.Deadline())
		require.NoError(t, letter.Nack(ctx))
		time.Sleep(3*time.Second - 1)
		requireEmpty(t, d)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		receive(t, d)
		top.Close()
	})
}

func TestALetterThatFailsForEverKeepsAHistoryOfLimitedLength(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		for range 1500 {
			require.NoError(t, receive(t, q.DeadLetters()).NackAfter(ctx, 0))
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		h := receive(t, q.DeadLetters()).History()
		require.Len(t, h, 1000)
		require.Equal(t, "q", h[0].Queue, "the first attempt is kept")
		top.Close()
	})
}

func TestTheDeadLettersOfAClosedQueueAreClosedWithItsTopic(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		top.Close()
		_, _, err := q.DeadLetters().TryReceive(ctx) // made only now
		require.ErrorIs(t, err, ErrClosed)
		<-top.Done()
	})
}

func TestAReceiverThatWaitsForDeadLettersGetsTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		got := make(chan Delivery[int], 1)
		go func() {
			d, err := q.DeadLetters().Receive(ctx)
			require.NoError(t, err)
			got <- d
		}()
		synctest.Wait()
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		synctest.Wait()
		require.Len(t, got, 1, "the receiver sleeps on")
		require.NoError(t, (<-got).Ack(ctx))
		top.Close()
	})
}

func TestALetterOfASharedDeadLetterQueueComesBackToItsPlace(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		shared, err := NewDeadLetterQueue[int]("shared", silent)
		require.NoError(t, err)
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithDeadLetterQueue(shared))
		publish(t, top, 1, 2, 3)
		one, two, three := receive(t, q), receive(t, q), receive(t, q)
		for _, d := range []Delivery[int]{three, one} {
			require.NoError(t, d.Settle(ctx, Permanent(errBusy)))
		}
		require.NoError(t, two.NackAfter(ctx, 0))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, moved)
		require.Equal(t, []int{1, 2, 3}, bodies(t, q), "the order of publication")
		top.Close()
		require.NoError(t, shared.Close())
	})
}

func TestTheTimeToLiveOfAMessageBeginsAnewWithARedrive(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 1, TimeToLive: time.Minute}))
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		time.Sleep(time.Hour)
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		time.Sleep(time.Minute - 1)
		require.NoError(t, receive(t, q).NackAfter(ctx, 0))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		requireEmpty(t, q)
		require.EqualValues(t, 1, q.Stats().Expired)
		top.Close()
	})
}

func TestPeekAndRedriveWantAContextThatGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		s := newStage(t)
		ended, end := context.WithCancelCause(ctx)
		end(errBusy)
		_, err := s.q.Peek(noContext, 1)
		require.ErrorIs(t, err, ErrInvalidOption)
		_, err = s.q.Peek(ended, 1)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, `"audit"`)
		_, err = s.q.Redrive(noContext)
		require.ErrorIs(t, err, ErrInvalidOption)
		_, err = s.q.Redrive(ended)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, `"audit"`)
		require.Equal(t, 1, s.q.DeadLetters().Stats().Ready)
		s.top.Close()
	})
}

func TestAPanicInRedriveIfMovesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1))
		publish(t, top, 1, 2)
		for range 2 {
			require.NoError(t, receive(t, q).Nack(ctx))
		}
		moved, err := q.Redrive(ctx, RedriveIf(func(d Delivery[int]) bool {
			if d.Body == 2 {
				panic(errBusy)
			}
			return true
		}))
		require.ErrorIs(t, err, errBusy)
		require.ErrorContains(t, err, "RedriveIf: panic")
		require.Zero(t, moved)
		require.Equal(t, []int{1, 2}, bodies(t, q.DeadLetters()))
		top.Close()
	})
}

func TestARedriveThatEndsEarlyNamesItsQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithMaxAttempts(1), WithCapacity(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		publish(t, top, 2)
		brief, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		moved, err := q.Redrive(brief)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `redrive of "audit"`)
		require.Zero(t, moved)
		top.Close()
	})
}

func TestARedriveOfALetterThatIsTriedAgainLeavesNoTimer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		require.NoError(t, receive(t, q.DeadLetters()).NackAfter(ctx, time.Hour))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		check(t, top)
		top.Close()
	})
}

// What becomes of a letter between the choice and the move: RedriveIf runs
// without a lock, so it can do there what another consumer might.
func TestARedriveLeavesALetterThatSomebodyTookMeanwhile(t *testing.T) {
	for _, row := range []struct {
		name  string
		first func(t *testing.T, q *Queue[int], letter Delivery[int])
		moved []int
	}{
		{"in hand", func(*testing.T, *Queue[int], Delivery[int]) {}, []int{2, 3}},
		{"acknowledged", func(t *testing.T, _ *Queue[int], letter Delivery[int]) {
			require.NoError(t, letter.Ack(t.Context()))
		}, []int{2, 3}},
		{"acknowledged, and another one died since", func(t *testing.T, q *Queue[int], letter Delivery[int]) {
			require.NoError(t, letter.Ack(t.Context()))
			require.NoError(t, receive(t, q).Nack(t.Context()))
		}, []int{2, 3}},
		{"redriven", func(t *testing.T, q *Queue[int], letter Delivery[int]) {
			require.NoError(t, letter.NackAfter(t.Context(), 0))
			moved, err := q.Redrive(t.Context(), RedriveIDs(letter.ID()))
			require.NoError(t, err)
			require.Equal(t, 1, moved)
		}, []int{1, 2, 3}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithMaxAttempts(1))
				publish(t, top, 1, 2, 3, 4)
				for range 3 {
					require.NoError(t, receive(t, q).Nack(ctx))
				}
				was := q.Stats()
				var letter Delivery[int]
				moved, err := q.Redrive(ctx, RedriveIf(func(d Delivery[int]) bool {
					if d.Body == 1 {
						letter = receive(t, q.DeadLetters())
						require.Equal(t, 1, letter.Body)
						row.first(t, q, letter)
					}
					return true
				}))
				require.NoError(t, err)
				require.Equal(t, 2, moved)
				check(t, top)
				got := bodies(t, q)
				if q.Stats().DeadLettered == was.DeadLettered {
					row.moved = append(row.moved, 4)
				} else {
					require.Equal(t, []int{4}, bodies(t, q.DeadLetters()))
				}
				require.Equal(t, row.moved, got)
				if row.name == "in hand" {
					require.NoError(t, letter.Ack(ctx))
				}
				top.Close()
			})
		})
	}
}

// Fences.

// A message that was tried before is kept apart from those that are fresh; its
// place is the same at every attempt, and another message's after that.
func TestAStaleDeliveryOfARetryTouchesNothing(t *testing.T) {
	for name, use := range map[string]func(ctx context.Context, q *Queue[int], d Delivery[int]) error{
		"Ack":       func(ctx context.Context, _ *Queue[int], d Delivery[int]) error { return d.Ack(ctx) },
		"AckBatch":  func(ctx context.Context, q *Queue[int], d Delivery[int]) error { return q.AckBatch(ctx, d) },
		"Nack":      func(ctx context.Context, _ *Queue[int], d Delivery[int]) error { return d.Nack(ctx) },
		"NackAfter": func(ctx context.Context, _ *Queue[int], d Delivery[int]) error { return d.NackAfter(ctx, time.Hour) },
		"Settle": func(ctx context.Context, _ *Queue[int], d Delivery[int]) error {
			return d.Settle(ctx, Permanent(errBusy))
		},
		"Extend": func(ctx context.Context, _ *Queue[int], d Delivery[int]) error { return d.Extend(ctx, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Minute))
				publish(t, top, 1)
				require.NoError(t, receive(t, q).NackAfter(ctx, 0))
				time.Sleep(time.Millisecond)
				synctest.Wait()
				stale := receive(t, q)
				time.Sleep(time.Minute)
				synctest.Wait()
				newer := receive(t, q)
				require.Equal(t, []int{2, 3}, []int{stale.Attempt(), newer.Attempt()})
				was, until := q.Stats(), newer.Deadline()
				require.ErrorIs(t, use(ctx, q, stale), ErrStale)
				require.Equal(t, was, q.Stats())
				require.Equal(t, until, newer.Deadline())
				require.True(t, stale.Deadline().IsZero())
				require.NoError(t, newer.Ack(ctx))
				require.ErrorIs(t, use(ctx, q, newer), ErrSettled)

				publish(t, top, 2) // takes the place
				require.NoError(t, receive(t, q).NackAfter(ctx, 0))
				time.Sleep(time.Millisecond)
				synctest.Wait()
				other := receive(t, q)
				require.ErrorIs(t, use(ctx, q, stale), ErrStale)
				require.ErrorIs(t, use(ctx, q, newer), ErrSettled)
				require.NoError(t, other.Ack(ctx))
				top.Close()
			})
		})
	}
}

// Room.

func TestDropOldestFindsWhatStandsBehindItsKey(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q", WithCapacity(3), WithOverflow(DropOldest))
		send := func(body int) {
			require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: body, OrderingKey: "k"}))
		}
		send(1)
		send(2)
		d := receive(t, q)
		requireEmpty(t, q) // 2 stands behind 1
		require.Equal(t, 1, q.Stats().Blocked)
		send(3)
		send(4)
		require.Equal(t, []int{3, 4}, bodies(t, q))
		check(t, top)
		require.NoError(t, d.Ack(ctx))
		top.Close()
	})
}

func TestWhatAFullQueueDroppedIsNotKept(t *testing.T) {
	top := newTopic[*[1 << 16]byte](t)
	q := openQueue(t, top, "q", WithCapacity(1), WithOverflow(DropOldest))
	old := new([1 << 16]byte)
	dropped := weak.Make(old)
	publish(t, top, old)
	old = nil
	publish(t, top, new([1 << 16]byte))
	runtime.GC()
	require.Nil(t, dropped.Value(), "an idle queue pins what it dropped")
	require.EqualValues(t, 1, q.Stats().Dropped)
	top.Close()
}

func TestAQueueWithRoomAfterAllDropsNothing(t *testing.T) {
	// A consumer may make room between a publisher's look and its lock.
	for _, o := range []Overflow{DropOldest, DropNewest} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(2), WithOverflow(o))
			publish(t, top, 1)
			top.mu.Lock()
			head := top.log.Head()
			its := []item[int]{{body: 2, seq: 2}}
			top.log.Append(its[0])
			q.overflow(its, head)
			require.False(t, top.pending.Any(), "something is to be told")
			top.log.Publish()
			top.seq++
			top.mu.Unlock()
			require.Zero(t, q.Stats().Dropped)
			require.Zero(t, q.win.Len(), "it stays in the log")
			require.Equal(t, []int{1, 2}, bodies(t, q))
			check(t, top)
			top.Close()
		})
	}
}

// Waiting for room.

func TestAWaitThatEndsLetsThoseBehindItGoOn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		full := openQueue(t, top, "full", WithCapacity(1), WithFilter(func(n int) bool { return n < 3 }))
		free := openQueue(t, top, "free")
		publish(t, top, 1)
		brief, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		go func() { _ = top.Publish(brief, 2) }() // for both
		synctest.Wait()
		var published time.Duration
		began := time.Now()
		go func() {
			require.NoError(t, top.Publish(ctx, 3)) // for "free", behind the other
			published = time.Since(began)
		}()
		synctest.Wait()
		require.Equal(t, 2, top.Stats().Waiting)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, time.Minute, published)
		require.Equal(t, []int{1, 3}, bodies(t, free))
		require.Equal(t, []int{1}, bodies(t, full))
		top.Close()
	})
}

func TestARedriveThatWaitsTellsOfWhatItHasMoved(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		redriven := 0
		top := newTopic[int](t, WithHooks(Hooks{Redriven: func(Event) { redriven++ }}))
		q := openQueue(t, top, "q", WithCapacity(2), WithMaxAttempts(1), WithDeadLetterCapacity(2))
		publish(t, top, 1, 2)
		for range 2 {
			require.NoError(t, receive(t, q).Nack(ctx))
		}
		publish(t, top, 3)
		done := make(chan int, 1)
		go func() {
			n, err := q.Redrive(ctx)
			require.NoError(t, err)
			done <- n
		}()
		synctest.Wait()
		require.Empty(t, done)
		require.Equal(t, 1, redriven)
		require.NoError(t, receive(t, q).Ack(ctx))
		require.Equal(t, 2, <-done)
		require.Equal(t, 2, redriven)
		top.Close()
	})
}

func TestWhoeverStandsBehindAnotherIsStillRejectedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		openQueue(t, top, "block", WithCapacity(1))
		openQueue(t, top, "reject", WithCapacity(1), WithOverflow(Reject), WithFilter(func(n int) bool { return n != 2 }))
		publish(t, top, 1)
		go func() { _ = top.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)
		err := top.Publish(ctx, 3)
		require.ErrorIs(t, err, ErrQueueFull)
		require.ErrorContains(t, err, `"reject"`)
		top.Close()
	})
}

func TestADuplicateNeedsNoRoomThoughItHasWaitedForSome(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Hour, 10))
		x := openQueue(t, top, "x", WithCapacity(2), WithFilter(func(n int) bool { return n < 10 }))
		y := openQueue(t, top, "y", WithFilter(func(n int) bool { return n >= 10 }))
		other := openQueue(t, top, "other", WithFilter(func(n int) bool { return n < 0 }))
		publish(t, top, 1, 2)
		go func() { _ = top.PublishMessages(ctx, Message[int]{Body: 3}, Message[int]{Body: 4}) }()
		synctest.Wait()
		duplicate := make(chan error, 1)
		go func() { duplicate <- top.PublishMessages(ctx, Message[int]{Body: 5, DeduplicationID: "id"}) }()
		synctest.Wait()
		require.Equal(t, 2, top.Stats().Waiting)
		require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: 10, DeduplicationID: "id"}))
		require.NoError(t, other.Close()) // all who wait are looked at
		synctest.Wait()
		require.Len(t, duplicate, 1)
		require.NoError(t, <-duplicate)
		require.EqualValues(t, 1, top.Stats().Duplicates)
		require.Equal(t, []int{10}, bodies(t, y))
		require.Equal(t, []int{1, 2}, bodies(t, x))
		top.Close()
	})
}

// Waking.

func TestDoneComesWhenTheLastOfManyThatAPublishWokeIsHome(t *testing.T) {
	for _, n := range []int{1, wakesItself - 1, wakesItself, wakesItself + 1, 2*wakesItself + 1, 5 * wakesItself} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var handled atomic.Int64
				for k := range n {
					subscribe(t, top, strconv.Itoa(k), func(context.Context, Delivery[int]) error {
						handled.Add(1)
						return nil
					})
				}
				for k := range 5 {
					publish(t, top, k)
					synctest.Wait()
					require.EqualValues(t, (k+1)*n, handled.Load())
					require.LessOrEqual(t, len(top.sleep.list), n)
					require.EqualValues(t, n+1, top.live.n.Load(), "each queue, and the topic")
				}
				top.Close()
				<-top.Done()
				synctest.Wait()
				require.Zero(t, top.live.n.Load())
			})
		})
	}
}

// What is over is let go of.

func TestATopicWithoutQueuesKeepsNothing(t *testing.T) {
	top := newTopic[*[1 << 16]byte](t)
	q := openQueue(t, top, "q")
	body := new([1 << 16]byte)
	held := weak.Make(body)
	publish(t, top, body)
	body = nil
	require.NoError(t, q.Close())
	q = openQueue(t, top, "q") // the one before is gone, with its leftovers
	require.NoError(t, q.Close())
	runtime.GC()
	require.Nil(t, held.Value())
	top.Close()
}

func TestSegmentsAreAQuarterOfTheSmallestCapacity(t *testing.T) {
	top := newTopic[int](t)
	openQueue(t, top, "large", WithCapacity(400))
	small := openQueue(t, top, "small", WithCapacity(40))
	require.Equal(t, 10, top.segment)
	require.NoError(t, small.Close())
	require.Equal(t, 100, top.segment)
	top.Close()
}

func TestAQueueKeepsNoSubscriberThatWasShutDown(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		for range 3 {
			s, err := q.Subscribe(ctx, handleNothing)
			require.NoError(t, err)
			require.NoError(t, s.Shutdown(ctx))
		}
		require.Empty(t, q.subs)
		top.Close()
	})
}

// Shutting down.

func TestAShutdownWaitsForNoneBehindAReleasedHead(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q")
		for body := range 2 {
			require.NoError(t, top.PublishMessages(ctx, Message[int]{Body: body, OrderingKey: "k"}))
		}
		publish(t, top, 2) // without a key
		d, other := receive(t, q), receive(t, q)
		require.Equal(t, 1, q.Stats().Blocked)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		// As one that could not publish to the closing topic.
		require.NoError(t, d.Settle(ctx, fmt.Errorf("onwards: %w", top.Publish(ctx, 3))))
		synctest.Wait()
		require.Empty(t, done)
		stats := q.Stats()
		require.Equal(t, []int{1, 1, 1}, []int{stats.Released, stats.Blocked, stats.InFlight})
		depth, err := q.Depth(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, depth.Unsettled())
		require.NoError(t, other.Ack(ctx))
		var left *ShutdownError
		require.ErrorAs(t, <-done, &left)
		require.Equal(t, []Left{{Queue: "q", Released: 1, Blocked: 1}}, left.Queues)
		require.NoError(t, left.Err)
	})
}

// Publishing from handlers.

func TestAHandlersPublishWaitsForAConsumerThatHasAMessageInHand(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2))
		publish(t, top, 1, 2)
		d := receive(t, q)
		published := make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 2 {
				published <- top.Publish(ctx, 3)
			}
			return nil
		})
		require.NoError(t, err)
		synctest.Wait()
		require.Empty(t, published, "it could go on, once the receiver has settled")
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-published)
		top.Close()
	})
}

func TestAHandlersPublishWaitsForAReceiverThatWillGetAMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2))
		publish(t, top, 1, 2)
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Second)) // 1 comes again
		waiting, published := make(chan bool), make(chan error, 1)
		s, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 2 {
				<-waiting
				published <- top.Publish(ctx, 3)
			}
			return nil
		})
		require.NoError(t, err)
		synctest.Wait() // 2 is the handler's
		got := make(chan Delivery[int], 1)
		go func() {
			if d, err := q.Receive(ctx); err == nil {
				got <- d
			}
		}()
		synctest.Wait()
		waiting <- true
		synctest.Wait()
		require.Empty(t, published, "a receiver is there for what is tried again")
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, (<-got).Ack(ctx))
		require.NoError(t, <-published)
		require.NoError(t, top.Close())
		<-s.Done()
	})
}

func TestAHandlersPublishDoesNotWaitForAReceiverThatGetsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(1))
		waiting, published := make(chan bool), make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			<-waiting
			published <- top.Publish(ctx, 2)
			return nil
		})
		require.NoError(t, err)
		publish(t, top, 1)
		synctest.Wait()
		go func() { _, _ = q.Receive(ctx) }()
		synctest.Wait()
		require.Equal(t, 1, q.Stats().InFlight)
		waiting <- true
		require.ErrorIs(t, <-published, ErrWouldDeadlock)
		top.Close()
	})
}

func TestAHandlersPublishWaitsForAWorkerThatWillGetAMessage(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(2))
		publish(t, top, 1, 2)
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Second)) // 1 comes again
		published := make(chan error, 1)
		_, err := q.Subscribe(ctx, func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 2 {
				published <- top.Publish(ctx, 3)
			}
			return nil
		}, WithConcurrency(2))
		require.NoError(t, err)
		synctest.Wait()
		require.Empty(t, published, "the other worker is there for what is tried again")
		time.Sleep(time.Second)
		require.NoError(t, <-published)
		synctest.Wait()
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

func TestAHandlersPublishThatStandsBehindItsOwnQueueWouldDeadlock(t *testing.T) {
	// The batch waits for "mine" and wants "other" too; what comes later for
	// "other" stands behind it. Only the handler could make room in "mine".
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		waiting, published := make(chan bool), make(chan error, 1)
		mine, err := top.Subscribe(ctx, "mine", func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				<-waiting
				published <- top.Publish(ctx, -1)
			}
			return nil
		}, WithCapacity(1), WithFilter(func(n int) bool { return n > 0 }))
		require.NoError(t, err)
		openQueue(t, top, "other")
		publish(t, top, 1)
		go func() { _ = top.Publish(ctx, 2) }()
		synctest.Wait()
		require.Equal(t, 1, top.Stats().Waiting)
		waiting <- true
		require.ErrorIs(t, <-published, ErrWouldDeadlock)
		synctest.Wait()
		require.EqualValues(t, 2, mine.Queue().Stats().Acked)
		top.Close()
	})
}

func TestAHandlersPublishIsNotHeldBackByAWaitThatIsNotItsOwn(t *testing.T) {
	// The first waiter waits for "mine", which only the handler could empty; the
	// handler's publish wants "other", where a receiver has the message in hand.
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		waiting, published := make(chan bool), make(chan error, 1)
		_, err := top.Subscribe(ctx, "mine", func(ctx context.Context, d Delivery[int]) error {
			if d.Body == 1 {
				<-waiting
				published <- top.Publish(ctx, -2)
			}
			return nil
		}, WithCapacity(1), WithFilter(func(n int) bool { return n > 0 }))
		require.NoError(t, err)
		other := openQueue(t, top, "other", WithCapacity(1), WithFilter(func(n int) bool { return n < 0 }))
		publish(t, top, 1, -1)
		d := receive(t, other)
		go func() { _ = top.Publish(ctx, 2) }()
		synctest.Wait()
		waiting <- true
		synctest.Wait()
		require.Empty(t, published)
		require.Equal(t, 2, top.Stats().Waiting)
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-published)
		top.Close()
	})
}

func TestAHandlerKeepsNothingOfThePublishesThatItWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		in, out := newTopic[int](t), newTopic[int](t)
		q := openQueue(t, out, "out", WithCapacity(1))
		kept := make(chan int, 1)
		subscribe(t, in, "in", func(ctx context.Context, d Delivery[int]) error {
			for n := range 10 {
				if err := out.Publish(ctx, n); err != nil {
					return err
				}
			}
			kept <- len(runOf(ctx).waits)
			return nil
		})
		publish(t, in, 1)
		for range 10 {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			synctest.Wait() // the next one waits
			require.NoError(t, d.Ack(ctx))
		}
		require.Zero(t, <-kept)
		in.Close()
		out.Close()
	})
}

// Identity.

func TestAnIDTellsTheTimeOfPublicationToAQuarterOfAMicrosecond(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		time.Sleep(5*time.Millisecond + 625*time.Microsecond)
		publish(t, top, 1)
		d := receive(t, q)
		id := strings.Split(d.ID(), "-")
		ms, err := strconv.ParseInt(id[0]+id[1], 16, 64)
		require.NoError(t, err)
		require.Equal(t, d.PublishedAt().UnixMilli(), ms)
		require.Equal(t, fmt.Sprintf("7%03x", 625*4096/1000), id[2])
		top.Close()
	})
}

func TestWithoutRandomnessThereIsNoTopic(t *testing.T) {
	uuid.SetRand(iotest.ErrReader(io.ErrNoProgress))
	defer uuid.SetRand(nil)
	_, err := NewTopic[int]("payments")
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.ErrorContains(t, err, `"payments"`)
	_, err = NewDeadLetterQueue[int]("dead")
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.ErrorContains(t, err, `"dead"`)
}

// What is remembered.

func TestDeduplicationKeepsNoMoreThanItRemembers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Hour, 100))
		for n := range 5000 {
			require.NoError(t, top.PublishMessages(ctx, Message[int]{DeduplicationID: strconv.Itoa(n)}))
		}
		require.Equal(t, 100, top.Stats().Remembered)
		require.EqualValues(t, 4900, top.Stats().Forgotten)
		top.Close()
	})
}

func TestDeduplicationForgetsWhatIsOverBeforeWhatIsNot(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Second, 2))
		publishAt := func(id string, at time.Duration) {
			time.Sleep(at)
			synctest.Wait()
			require.NoError(t, top.PublishMessages(ctx, Message[int]{DeduplicationID: id}))
		}
		publishAt("a", 0)
		publishAt("b", 10*time.Millisecond)
		publishAt("c", 1040*time.Millisecond) // b's second is over, though nobody has looked since
		publishAt("d", 0)
		require.Zero(t, top.Stats().Forgotten, "there was room for both")
		require.Equal(t, 2, top.Stats().Remembered)
		require.NoError(t, top.Close())
	})
}

func TestForgettingLeavesTheTopicsEndToTheTopic(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Second, 2))
		for n := range 5 {
			require.NoError(t, top.PublishMessages(ctx, Message[int]{DeduplicationID: strconv.Itoa(n)}))
			elapse(2 * time.Second)
		}
		require.Zero(t, top.Stats().Remembered)
		require.True(t, isOpen(top.Done()))
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

// Reports.

// A logBook keeps what is logged, and when.
type logBook struct {
	slog.Handler
	began time.Time
	mu    sync.Mutex
	lines []string
}

func newLogBook() *logBook { return &logBook{Handler: slog.DiscardHandler, began: time.Now()} }

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("%v %s", r.Time.Sub(b.began), r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "count" {
			line += fmt.Sprintf(" %v", a.Value)
		}
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

func TestASharedDeadLetterQueueHasHooksAndALogOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		delivered, book := 0, newLogBook()
		shared, err := NewDeadLetterQueue[int]("shared", WithLogger(slog.New(book)),
			WithHooks(Hooks{Delivered: func(Event) { delivered++ }}), WithVisibilityTimeout(3*time.Second))
		require.NoError(t, err)
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithDeadLetterQueue(shared), WithMaxAttempts(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		d := receive(t, shared)
		require.Equal(t, time.Now().Add(3*time.Second), d.Deadline())
		require.Equal(t, 1, delivered)
		_, err = shared.Purge(ctx)
		require.NoError(t, err)
		require.Len(t, book.lines, 1)
		top.Close()
		require.NoError(t, shared.Close())
	})
}

func TestTheStackOfAStuckHandlerIsFoundAmongMany(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		stacks := make(chan string, 1)
		top := newTopic[int](t, WithHooks(Hooks{StuckStack: func(e Event) { stacks <- e.Stack }}))
		var wg sync.WaitGroup
		stop := make(chan bool)
		for range 1000 { // a dump of more than is looked at first
			wg.Go(func() { <-stop })
		}
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			standStill(stop)
			return nil
		}, WithVisibilityTimeout(time.Second), WithMaxAttempts(1))
		publish(t, top, 1)
		require.Contains(t, <-stacks, "standStill")
		close(stop)
		wg.Wait()
		synctest.Wait()
		top.Close()
	})
}

//go:noinline
func standStill(stop <-chan bool) { <-stop }

// Arguments.

func TestAFilterForAnotherTypeIsRefusedByTheNameOfItsOption(t *testing.T) {
	top := newTopic[int](t)
	for name, o := range map[string]QueueOption{
		"WithFilter was given a func(string) bool":                        WithFilter(func(string) bool { return true }),
		"WithMessageFilter was given a func(fanout.Message[string]) bool": WithMessageFilter(func(Message[string]) bool { return true }),
		"WithFilter was given a func(fanout.Message[int]) bool":           WithFilter(func(Message[int]) bool { return true }),
	} {
		_, err := top.OpenQueue(t.Context(), "q", o)
		require.ErrorIs(t, err, ErrInvalidOption)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "but the topic carries int")
	}
	top.Close()
}

func TestAnInterceptorCanBeAskedAboutNoMessages(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		called := 0
		top := newTopic[int](t, WithPublishInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
			called++
			_, ok := info.Attribute("region")
			require.False(t, ok)
			require.Zero(t, info.Messages)
			require.Empty(t, info.MessageID)
			require.Nil(t, info.Body())
			info.SetAttribute("region", "eu")
			return next(ctx)
		}))
		require.NoError(t, top.PublishMessages(ctx))
		require.Equal(t, 1, called)
		_, ok := Info{}.Attribute("region")
		require.False(t, ok)
		Info{}.SetAttribute("region", "eu") // nothing to set
		require.Nil(t, Info{}.Body())
		top.Close()
	})
}

func TestAMissingContextIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		s := subscribe(t, top, "push", handleNothing)
		yielded := 0
		for name, err := range map[string]error{
			"OpenQueue":           second(top.OpenQueue(noContext, "other")),
			"Topic.Subscribe":     second(top.Subscribe(noContext, "other", handleNothing)),
			"Queue.Subscribe":     second(q.Subscribe(noContext, handleNothing)),
			"Publish":             top.Publish(noContext, 1),
			"Receive":             second(q.Receive(noContext)),
			"ReceiveBatch":        second(q.ReceiveBatch(noContext, 1)),
			"ReceiveInto":         second(q.ReceiveInto(noContext, make([]Delivery[int], 1))),
			"Shutdown":            top.Shutdown(noContext),
			"Subscriber.Shutdown": s.Shutdown(noContext),
			"Deliveries": func() (err error) {
				for _, err = range q.Deliveries(noContext) {
					yielded++
				}
				return err
			}(),
		} {
			require.ErrorIs(t, err, ErrInvalidOption, name)
			require.ErrorIs(t, err, errNilContext, name)
		}
		require.Equal(t, 1, yielded)
		require.Len(t, top.Queues(), 2)
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Ack(ctx), "the topic is open still")
		top.Close()
	})
}

func second[A, B any](_ A, b B) B { return b }

func TestAContextThatHasEndedOpensNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		ended, end := context.WithCancelCause(ctx)
		end(errBusy)
		q, err := top.OpenQueue(ended, "q")
		require.Nil(t, q)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBusy)
		s, err := top.Subscribe(ended, "q", handleNothing)
		require.Nil(t, s)
		require.ErrorIs(t, err, errBusy)
		require.Empty(t, top.Queues())
		s, err = openQueue(t, top, "q").Subscribe(ended, handleNothing)
		require.Nil(t, s)
		require.ErrorIs(t, err, errBusy)
		top.Close()
	})
}

func TestAClosedTopicStillTellsItsQueues(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		a, b := openQueue(t, top, "a"), openQueue(t, top, "b")
		top.Close()
		require.Same(t, b, top.Queue("b"))
		require.Same(t, a, top.Queue("a"))
		require.Nil(t, top.Queue("c"))
		require.Equal(t, []*Queue[int]{a, b}, top.Queues())
	})
}

func TestAHandlerThatLooksAtItsContextLateSeesWhyItEnded(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		causes := make(chan error, 1)
		subscribe(t, top, "q", func(ctx context.Context, d Delivery[int]) error {
			if d.Attempt() == 1 {
				time.Sleep(2 * time.Second)
				causes <- context.Cause(ctx)
			}
			return nil
		}, WithVisibilityTimeout(time.Second))
		publish(t, top, 1)
		require.ErrorIs(t, <-causes, ErrStale)
		synctest.Wait()
		top.Close()
	})
}

func TestADeadLetterQueueWhoseTopicIsClosedIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		require.ErrorIs(t, q.DeadLetters().Close(), ErrUnsupported)
		require.NoError(t, top.Close())
		require.NoError(t, q.DeadLetters().Close())
		require.NoError(t, q.Close())
		<-top.Done()
	})
}

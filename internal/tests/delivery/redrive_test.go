// A redrive moves letters back to their queue, each once, in order, as there is room.

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

func TestRowRedrive(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Second)))
		other := kit.OpenQueue(t, top, "other")
		for n := range 4 {
			kit.PublishAll(t, top, fanout.Message[int]{Body: n, ID: fmt.Sprint(n)})
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
			kit.Elapse(time.Second)
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		kit.Publish(t, top, 4)
		inHand := kit.Receive(t, q.DeadLetters())
		n, err := q.Redrive(ctx, fanout.RedriveIDs("1", "0"))
		require.ErrorIs(t, err, fanout.ErrUnknownID)
		require.Equal(t, 1, n, "0 is in flight")
		n, err = q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.NoError(t, inHand.Ack(ctx))
		require.Equal(t, 5, other.Stats().Unsettled(), "never to the others")
		for _, want := range []int{4, 1, 2, 3} { // what started last was due: it is the backlog's turn
			d := kit.Receive(t, q)
			require.Equal(t, want, d.Body)
			require.Equal(t, 1, d.Attempt(), "attempts start anew")
			if want < 4 {
				require.Equal(t, []fanout.Cause{fanout.Nacked, fanout.Nacked}, kit.CausesOf(d), "the history stays")
				require.NoError(t, d.Nack(ctx))
			}
		}
		kit.Elapse(time.Second)
		require.Equal(t, 2, kit.Receive(t, q).Attempt(), "once more both of them")
		require.Equal(t, uint64(3), q.Stats().Redriven)
		n, err = q.Redrive(ctx)
		require.NoError(t, err)
		require.Zero(t, n)
		kit.Check(t, top)
		top.Close()
	})
}

func TestCombinationOfARedriveWithAFullQueue(t *testing.T) {
	for _, policy := range []fanout.Overflow{fanout.Block, fanout.Reject, fanout.DropOldest, fanout.DropNewest} {
		t.Run(policy.String(), func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithOverflow(policy), fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(time.Hour))
				for n := range 4 {
					kit.Publish(t, top, n)
					require.NoError(t, kit.Receive(t, q).Nack(ctx))
				}
				kit.Publish(t, top, 10, 11)
				a, b := kit.Receive(t, q), kit.Receive(t, q)
				start := time.Now()
				soon, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				type result struct {
					n     int
					err   error
					after time.Duration
				}
				done := make(chan result, 1)
				go func() {
					n, err := q.Redrive(soon)
					done <- result{n, err, time.Since(start)}
				}()
				kit.Elapse(3 * time.Second)
				require.Equal(t, 1, top.Stats().Waiting)
				var p <-chan error
				if policy == fanout.Block {
					p = kit.Waiting(ctx, top, fanout.Message[int]{Body: 12})
				}
				require.NoError(t, a.Ack(ctx))
				synctest.Wait()
				require.Equal(t, []int{0}, kit.Bodies(t, q))
				require.NoError(t, b.Ack(ctx))
				synctest.Wait()
				if policy == fanout.Block { // in turn with publishers
					require.NoError(t, kit.RequireDecided(t, p))
					require.Equal(t, []int{0, 12}, kit.Bodies(t, q))
					require.NoError(t, kit.Receive(t, q).Ack(ctx))
					synctest.Wait()
					require.Equal(t, []int{1, 12}, kit.Bodies(t, q))
				} else {
					require.Equal(t, []int{0, 1}, kit.Bodies(t, q))
				}
				kit.Check(t, top)
				kit.Elapse(time.Minute)
				r := <-done
				require.Equal(t, 2, r.n)
				require.ErrorIs(t, r.err, context.DeadlineExceeded)
				require.Equal(t, 10*time.Second, r.after)
				require.Equal(t, []int{2, 3}, kit.DeadBodies(t, q))
				require.Zero(t, q.Stats().Dropped)
				kit.Check(t, top)

				// The queue closes under one that waits.
				go func() {
					n, err := q.Redrive(ctx)
					done <- result{n, err, 0}
				}()
				synctest.Wait()
				require.NoError(t, q.Close())
				r = <-done
				require.Zero(t, r.n)
				require.ErrorIs(t, r.err, fanout.ErrClosed)
				require.Equal(t, []int{2, 3}, kit.DeadBodies(t, q))
				top.Close()
				<-top.Done()
			})
		})
	}
}

func TestALetterOfASharedDeadLetterQueueComesBackToItsPlace(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		shared, err := fanout.NewDeadLetterQueue[int]("shared", kit.Silent)
		require.NoError(t, err)
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterQueue(shared))
		kit.Publish(t, top, 1, 2, 3)
		one, two, three := kit.Receive(t, q), kit.Receive(t, q), kit.Receive(t, q)
		for _, d := range []fanout.Delivery[int]{three, one} {
			require.NoError(t, d.Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		require.NoError(t, two.NackAfter(ctx, 0))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, moved)
		require.Equal(t, []int{1, 2, 3}, kit.Bodies(t, q), "the order of publication")
		top.Close()
		require.NoError(t, shared.Close())
	})
}

func TestAPanicInRedriveIfMovesNothing(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1, 2)
		for range 2 {
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		moved, err := q.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[int]) bool {
			if d.Body == 2 {
				panic(kit.ErrBusy)
			}
			return true
		}))
		require.ErrorIs(t, err, kit.ErrBusy)
		require.ErrorContains(t, err, "RedriveIf: panic")
		require.Zero(t, moved)
		require.Equal(t, []int{1, 2}, kit.Bodies(t, q.DeadLetters()))
		top.Close()
	})
}

func TestARedriveThatEndsEarlyNamesItsQueue(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "audit", fanout.WithMaxAttempts(1), fanout.WithCapacity(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		kit.Publish(t, top, 2)
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
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		require.NoError(t, kit.Receive(t, q.DeadLetters()).NackAfter(ctx, time.Hour))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		kit.Check(t, top)
		top.Close()
	})
}

// What becomes of a letter between the choice and the move: RedriveIf runs
// without a lock, so it can do there what another consumer might.
func TestARedriveLeavesALetterThatSomebodyTookMeanwhile(t *testing.T) {
	for _, row := range []struct {
		name  string
		first func(t *testing.T, q *fanout.Queue[int], letter fanout.Delivery[int])
		moved []int
	}{
		{"in flight", func(*testing.T, *fanout.Queue[int], fanout.Delivery[int]) {}, []int{2, 3}},
		{"acknowledged", func(t *testing.T, _ *fanout.Queue[int], letter fanout.Delivery[int]) {
			require.NoError(t, letter.Ack(t.Context()))
		}, []int{2, 3}},
		{"acknowledged, and another one died since", func(t *testing.T, q *fanout.Queue[int], letter fanout.Delivery[int]) {
			require.NoError(t, letter.Ack(t.Context()))
			require.NoError(t, kit.Receive(t, q).Nack(t.Context()))
		}, []int{2, 3}},
		{"redriven", func(t *testing.T, q *fanout.Queue[int], letter fanout.Delivery[int]) {
			require.NoError(t, letter.NackAfter(t.Context(), 0))
			moved, err := q.Redrive(t.Context(), fanout.RedriveIDs(letter.ID()))
			require.NoError(t, err)
			require.Equal(t, 1, moved)
		}, []int{1, 2, 3}},
	} {
		t.Run(row.name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
				kit.Publish(t, top, 1, 2, 3, 4)
				for range 3 {
					require.NoError(t, kit.Receive(t, q).Nack(ctx))
				}
				was := q.Stats()
				var letter fanout.Delivery[int]
				moved, err := q.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[int]) bool {
					if d.Body == 1 {
						letter = kit.Receive(t, q.DeadLetters())
						require.Equal(t, 1, letter.Body)
						row.first(t, q, letter)
					}
					return true
				}))
				require.NoError(t, err)
				require.Equal(t, 2, moved)
				kit.Check(t, top)
				got := kit.Bodies(t, q)
				if q.Stats().DeadLettered == was.DeadLettered {
					row.moved = append(row.moved, 4)
				} else {
					require.Equal(t, []int{4}, kit.Bodies(t, q.DeadLetters()))
				}
				require.Equal(t, row.moved, got)
				if row.name == "in flight" {
					require.NoError(t, letter.Ack(ctx))
				}
				top.Close()
			})
		})
	}
}

func TestARedriveThatWaitsTellsOfWhatItHasMoved(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		redriven := 0
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Redriven: func(fanout.Event) { redriven++ }}))
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(2), fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(2))
		kit.Publish(t, top, 1, 2)
		for range 2 {
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		kit.Publish(t, top, 3)
		done := make(chan int, 1)
		go func() {
			n, err := q.Redrive(ctx)
			require.NoError(t, err)
			done <- n
		}()
		synctest.Wait()
		require.Empty(t, done)
		require.Equal(t, 1, redriven)
		require.NoError(t, kit.Receive(t, q).Ack(ctx))
		require.Equal(t, 2, <-done)
		require.Equal(t, 2, redriven)
		top.Close()
	})
}

func TestARedriveThatWaitsChangesPlacesWithWhatIsParkedMeanwhile(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1), fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		kit.Publish(t, top, 2)
		d := kit.Receive(t, q)
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
		require.Equal(t, []int{1}, kit.Bodies(t, q))
		require.Equal(t, []int{2}, kit.Bodies(t, q.DeadLetters()))
		kit.Check(t, top)
		top.Close()
	})
}

func TestARedriveThatWaitsSwapsWithWhatIsParkedLater(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1), fanout.WithDeadLetterCapacity(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		kit.Publish(t, top, 2)
		two := kit.Receive(t, q)
		done := make(chan error, 1)
		go func() {
			moved, err := q.Redrive(ctx)
			if err == nil && moved != 1 {
				err = fmt.Errorf("moved %d", moved)
			}
			done <- err
		}()
		synctest.Wait()
		// Now both queues are full, and would wait for each other for ever.
		require.NoError(t, two.Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		require.NoError(t, <-done)
		require.Equal(t, 1, kit.Receive(t, q).Body)
		require.Equal(t, []int{2}, kit.Bodies(t, q.DeadLetters()))
		require.NoError(t, top.Close())
	})
}

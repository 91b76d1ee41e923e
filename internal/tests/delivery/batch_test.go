// A batch handler settles all its messages together, or each as it says.

package delivery_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestRowBatch(t *testing.T) {
	t.Run("publish and receive", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(6))
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
			kit.Publish(t, top, 1) // returns as soon as there is one
			synctest.Wait()
			require.Equal(t, []int{1}, <-got)
			kit.PublishAll(t, top, []fanout.Message[int]{{Body: 2}, {Body: 3}, {Body: 4}, {Body: 5}, {Body: 6}, {Body: 7}}...)
			synctest.Wait()
			require.Equal(t, []int{2, 3, 4, 5}, <-got)
			require.Equal(t, []int{6, 7}, <-got)
			kit.Check(t, top)
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
			settle  func(d fanout.Delivery[int]) error // of message 2
			do      func() error
			acked   uint64
			dead    []int
			history []fanout.Cause // of message 1, in the end
		}{
			{"nil", nil, func() error { return nil }, 3, nil, nil},
			{"nil, one nacked", func(d fanout.Delivery[int]) error { return d.Nack(t.Context()) }, func() error { return nil }, 2, []int{2}, nil},
			{"error", nil, func() error { return kit.ErrBusy }, 0, []int{1, 2, 3}, []fanout.Cause{fanout.Failed, fanout.Failed}},
			{"error, one acked", func(d fanout.Delivery[int]) error { return d.Ack(t.Context()) }, func() error { return kit.ErrBusy }, 1, []int{1, 3}, []fanout.Cause{fanout.Failed, fanout.Failed}},
			{"panic, one acked", func(d fanout.Delivery[int]) error { return d.Ack(t.Context()) }, func() error { panic("boom") }, 1, []int{1, 3}, []fanout.Cause{fanout.Panicked, fanout.Panicked}},
			{"exit, one acked", func(d fanout.Delivery[int]) error { return d.Ack(t.Context()) }, func() error { runtime.Goexit(); return nil }, 1, []int{1, 3}, []fanout.Cause{fanout.Exited, fanout.Exited}},
			{"permanent, one acked", func(d fanout.Delivery[int]) error { return d.Ack(t.Context()) }, func() error { return fanout.Permanent(kit.ErrBusy) }, 1, []int{1, 3}, []fanout.Cause{fanout.PermanentlyFailed}},
			{"too long", nil, func() error { time.Sleep(15 * time.Second); return nil }, 0, []int{1, 2, 3}, []fanout.Cause{fanout.TimedOut, fanout.TimedOut}},
		} {
			t.Run(row.name, func(t *testing.T) {
				kit.Bubble(t, func(t *testing.T, ctx context.Context) {
					var late, stuck atomic.Int32
					top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Late: func(fanout.Event) { late.Add(1) }, Stuck: func(fanout.Event) { stuck.Add(1) }}))
					y := kit.NewDiary()
					s, err := top.SubscribeBatch(ctx, "q", func(ctx context.Context, ds []fanout.Delivery[int]) error {
						var bs []int
						for _, d := range ds {
							bs = append(bs, d.Body)
							if d.Body == 2 && row.settle != nil {
								if err := row.settle(d); err != nil {
									t.Error(err)
								}
							}
						}
						y.Note("%v", bs)
						return row.do()
					}, fanout.WithBatchSize(4), fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Minute)), fanout.WithVisibilityTimeout(10*time.Second))
					require.NoError(t, err)
					kit.PublishAll(t, top, []fanout.Message[int]{{Body: 1}, {Body: 2}, {Body: 3}}...)
					synctest.Wait()
					require.Equal(t, []string{"0s: [1 2 3]"}, y.Read())
					kit.Check(t, top)
					kit.Elapse(time.Hour)
					q := s.Queue()
					require.Equal(t, row.acked, q.Stats().Acked)
					require.Zero(t, q.Stats().Unsettled())
					require.Zero(t, q.Stats().Workers)
					require.ElementsMatch(t, row.dead, kit.DeadBodies(t, q))
					if row.history != nil {
						ls, err := q.DeadLetters().Peek(ctx, 1)
						require.NoError(t, err)
						require.Equal(t, row.history, kit.CausesOf(ls[0]))
					}
					require.Zero(t, late.Load(), "a batch of which some were settled is nothing to tell")
					require.Equal(t, row.name == "too long", stuck.Load() > 0)
					kit.Check(t, top)
					require.NoError(t, top.Shutdown(ctx))
					<-top.Done()
				})
			})
		}
	})
	t.Run("visibility timeout", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t)
			q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(10*time.Second))
			y := kit.NewDiary()
			_, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[int]) error {
				y.Note("%d messages, attempt %d", len(ds), ds[0].Attempt())
				if ds[0].Attempt() == 1 {
					if err := ds[0].Ack(ctx); err != nil {
						t.Error(err)
					}
					<-ctx.Done()
					y.Note("%t", errors.Is(context.Cause(ctx), fanout.ErrStale))
					if err := ds[1].Ack(ctx); !errors.Is(err, fanout.ErrStale) {
						t.Error(err)
					}
				}
				return nil
			})
			require.NoError(t, err)
			kit.PublishAll(t, top, []fanout.Message[int]{{Body: 1}, {Body: 2}, {Body: 3}}...)
			synctest.Wait()
			kit.Elapse(10*time.Second - 1)
			require.Equal(t, 2, q.Stats().InFlight)
			kit.Elapse(1)
			require.Equal(t, []string{"0s: 3 messages, attempt 1", "10s: true", "10s: 2 messages, attempt 2"}, y.Read())
			require.Equal(t, [2]uint64{2, 3}, [2]uint64{q.Stats().TimedOut, q.Stats().Acked})
			kit.Check(t, top)
			top.Close()
		})
	})
	t.Run("one message of a key", func(t *testing.T) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) {
			top := kit.NewTopic[int](t, fanout.WithOrdering())
			y := kit.NewDiary()
			q := kit.OpenQueue(t, top, "q")
			kit.PublishAll(t, top, append(kit.Keyed("a", 1, 2, 3), kit.Keyed("b", 4, 5)...)...)
			_, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[int]) error {
				var bs []int
				for _, d := range ds {
					bs = append(bs, d.Body)
				}
				y.Note("%v", bs)
				return nil
			})
			require.NoError(t, err)
			kit.Elapse(time.Second)
			require.Equal(t, []string{"0s: [1 4]", "0s: [2 5]", "0s: [3]"}, y.Read())
			kit.Check(t, top)
			top.Close()
		})
	})
}

func TestCombinationOfAutoExtendWithABatchAndAShutdownOfTheSubscriber(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		y := kit.NewDiary()
		q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(10*time.Second))
		s, err := q.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[int]) error {
			y.Note("%d", len(ds))
			<-ctx.Done()
			y.Note("%t", errors.Is(context.Cause(ctx), fanout.ErrClosed))
			return context.Cause(ctx)
		}, fanout.WithAutoExtend(time.Hour))
		require.NoError(t, err)
		kit.PublishAll(t, top, make([]fanout.Message[int], 3)...)
		kit.Elapse(25 * time.Second)
		require.Equal(t, 3, q.Stats().InFlight)
		kit.Check(t, top)
		soon, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(soon), context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, []string{"0s: 3", "40s: true"}, y.Read())
		require.Equal(t, [2]int{3, 0}, [2]int{q.Stats().Ready, q.Stats().InFlight})
		require.Equal(t, 1, kit.Receive(t, q).Attempt(), "released: no attempt is spent")
		kit.Check(t, top)
		top.Close()
		<-top.Done()
	})
}

// The slice is used again for the next batch; what was copied out of it stays as it was.
func TestDeliveriesCopiedOutOfABatchStayAsTheyWere(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2, 3)
		var kept [][]fanout.Delivery[int]
		_, err := q.SubscribeBatch(ctx, func(_ context.Context, ds []fanout.Delivery[int]) error {
			kept = append(kept, slices.Clone(ds))
			return nil
		}, fanout.WithBatchSize(1))
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, kept, 3)
		for k, ds := range kept {
			require.Equal(t, k+1, ds[0].Body)
			require.NotEmpty(t, ds[0].ID())
			require.ErrorIs(t, ds[0].Ack(ctx), fanout.ErrSettled)
		}
		top.Close()
	})
}

func TestABatchHandlerMayChangeItsSlice(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2, 3)
		_, err := q.SubscribeBatch(ctx, func(_ context.Context, ds []fanout.Delivery[int]) error {
			clear(ds)
			return nil
		}, fanout.WithBatchSize(2))
		require.NoError(t, err)
		synctest.Wait()
		require.EqualValues(t, 3, q.Stats().Acked)
		top.Close()
	})
}

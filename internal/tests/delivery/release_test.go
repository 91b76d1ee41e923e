// What is released spends no attempt, keeps its place and backs off.

package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// Messages that are given back without having spent an attempt.

// workersOf are the ways in which a worker can hold its message.
var workersOf = map[string]struct {
	topic   []fanout.TopicOption
	options []fanout.SubscribeOption
	batch   bool
}{
	"prefetched": {},
	"alone":      {topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {}})}},
	"timed":      {options: []fanout.SubscribeOption{fanout.WithHandlerTimeout(time.Hour)}},
	"in a batch": {batch: true},
}

func TestAHandlerThatRunsOnAfterItsSubscribersShutdownKeepsItsMessage(t *testing.T) {
	for name, w := range workersOf {
		for how, row := range map[string]struct {
			after  time.Duration // the shutdown
			err    func(ctx context.Context) error
			causes []fanout.Cause
			late   int
		}{
			"acknowledges":          {time.Second, func(context.Context) error { return nil }, nil, 0},
			"says it was cancelled": {time.Second, func(ctx context.Context) error { return fmt.Errorf("query: %w", ctx.Err()) }, []fanout.Cause{fanout.Released}, 0},
			"says why":              {time.Second, context.Cause, []fanout.Cause{fanout.Released}, 0},
			"fails":                 {time.Second, func(context.Context) error { return kit.ErrBusy }, []fanout.Cause{fanout.Failed}, 0},
			"fails for ever":        {time.Second, func(ctx context.Context) error { return fanout.RetryAfter(ctx.Err(), time.Second) }, []fanout.Cause{fanout.Failed}, 0},
			"times out":             {11 * time.Second, func(context.Context) error { return kit.ErrBusy }, []fanout.Cause{fanout.TimedOut}, 1},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				kit.Bubble(t, func(t *testing.T, ctx context.Context) {
					late := 0
					hooks := fanout.WithHooks(fanout.Hooks{Late: func(fanout.Event) { late++ }})
					top := kit.NewTopic[int](t, append([]fanout.TopicOption{hooks}, w.topic...)...)
					q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(10*time.Second), fanout.WithBackoff(fanout.Constant(time.Second)))
					ended, end := context.WithCancel(ctx)
					end()
					var s *fanout.Subscriber[int]
					handle := func(ctx context.Context, _ fanout.Delivery[int]) error {
						err := s.Shutdown(ended)
						if !errors.Is(err, context.Canceled) || !errors.Is(context.Cause(ctx), fanout.ErrClosed) {
							t.Errorf("Shutdown: %v; the context: %v", err, context.Cause(ctx))
						}
						time.Sleep(row.after)
						return row.err(ctx)
					}
					var err error
					if w.batch {
						s, err = q.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[int]) error { return handle(ctx, ds[0]) })
					} else {
						s, err = q.Subscribe(ctx, handle, workerOptions(w.options)...)
					}
					require.NoError(t, err)
					kit.Publish(t, top, 1)
					synctest.Wait()
					require.Equal(t, 1, q.Stats().InFlight, "it runs still")
					kit.Check(t, top)
					kit.Elapse(9 * time.Second)
					require.Equal(t, row.late, q.Stats().InFlight)
					kit.Elapse(time.Second)
					<-s.Done()
					require.Equal(t, row.late, late)
					if row.causes == nil {
						require.EqualValues(t, 1, q.Stats().Acked)
						kit.RequireEmpty(t, q)
					} else {
						d := kit.Receive(t, q)
						require.Equal(t, row.causes, kit.CausesOf(d))
						require.NoError(t, d.Ack(ctx))
					}
					kit.Check(t, top)
					top.Close()
				})
			})
		}
	}
}

func workerOptions(options []fanout.SubscribeOption) (of []fanout.WorkerOption) {
	for _, o := range options {
		of = append(of, o.(fanout.WorkerOption))
	}
	return of
}

// What is released backs off by the number of releases in a row.
func TestReleasesBackOffByTheirNumberInARow(t *testing.T) {
	for name, w := range workersOf {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, w.topic...)
				q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(fanout.BackoffFunc(func(n int) time.Duration { return time.Duration(n) * time.Second })))
				y := kit.NewDiary()
				var attempts []int
				n := 0
				handle := func(_ context.Context, d fanout.Delivery[int]) error {
					attempts = append(attempts, d.Attempt())
					y.Note("%d", len(d.History()))
					n++
					switch n {
					case 3:
						return fmt.Errorf("a connection: %w", fanout.ErrClosed)
					case 5:
						return kit.ErrBusy
					case 8:
						return fanout.Snooze(time.Second)
					case 10:
						return nil
					}
					return fmt.Errorf("not now: %w", fanout.Release(kit.ErrBusy))
				}
				var err error
				if w.batch {
					_, err = q.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[int]) error { return handle(ctx, ds[0]) })
				} else {
					_, err = q.Subscribe(ctx, handle, workerOptions(w.options)...)
				}
				require.NoError(t, err)
				kit.Publish(t, top, 1)
				kit.Elapse(time.Minute)
				require.Equal(t, []string{
					"0s: 0", "1s: 1", "3s: 2", "6s: 3", "10s: 4", // one to four in a row, then a failure
					"11s: 5", "12s: 6", "14s: 7", // two in a row, then a snooze
					"15s: 8", "16s: 9",
				}, y.Read())
				require.Equal(t, []int{1, 1, 1, 1, 1, 2, 2, 2, 2, 2}, attempts)
				require.Equal(t, []uint64{7, 1, 1, 1}, []uint64{q.Stats().ReleasedCount, q.Stats().Failed, q.Stats().Snoozed, q.Stats().Acked})
				kit.Check(t, top)
				top.Close()
			})
		})
	}
}

func TestAThousandReleasesAreEnough(t *testing.T) {
	for name, row := range map[string]struct {
		attempts int
		snoozes  func(n int) bool
		longest  int
	}{
		"releases":             {fanout.Unlimited, func(int) bool { return false }, 1000},
		"releases and snoozes": {5, func(n int) bool { return n < 500 && n%4 == 3 }, 500},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				longest := 0
				q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(row.attempts), fanout.WithBackoff(fanout.BackoffFunc(func(n int) time.Duration {
					longest = max(longest, n)
					return time.Millisecond
				})))
				kit.Publish(t, top, 1)
				for n := range 1000 {
					d, err := q.Receive(ctx)
					require.NoError(t, err)
					end := fanout.Release(kit.ErrBusy)
					if row.snoozes(n) {
						end = fanout.Snooze(time.Millisecond)
					}
					require.NoError(t, d.Settle(ctx, end))
				}
				kit.RequireEmpty(t, q)
				require.Equal(t, []int{0, 1}, []int{q.Stats().Unsettled(), q.Stats().Dead})
				require.Equal(t, row.longest, longest)
				n, err := q.Redrive(ctx)
				require.NoError(t, err)
				require.Equal(t, 1, n)
				longest = 0
				require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Release(kit.ErrBusy)))
				require.Equal(t, 1, longest, "a redrive starts a fresh count")
				d, err := q.Receive(ctx)
				require.NoError(t, err)
				require.Equal(t, 1, d.Attempt())
				require.NoError(t, d.Settle(ctx, fanout.Release(nil)), "as nil")
				require.Zero(t, q.Stats().Unsettled())
				top.Close()
			})
		})
	}
}

func TestAReleasedDeliveryOfAKeyKeepsItsPlaceAndOthersAreWoken(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t, fanout.WithOrdering())
		q := kit.OpenQueue(t, top, "q")
		kit.PublishAll(t, top, append(kit.Keyed("a", 1, 2), kit.Keyed("b", 11)...)...)
		d := kit.Receive(t, q)
		require.Equal(t, 11, kit.Receive(t, q).Body)
		kit.RequireEmpty(t, q)
		got := make(chan int, 2)
		go func() {
			for range 2 {
				d, err := q.Receive(ctx)
				if err != nil {
					return
				}
				got <- d.Body
				_ = d.Ack(ctx)
			}
		}()
		synctest.Wait()
		require.Empty(t, got)
		require.NoError(t, d.Release(ctx))
		require.Equal(t, 1, <-got)
		require.Equal(t, 2, <-got)
		kit.Check(t, top)
		top.Close()
	})
}

func TestReleasedLettersAreReadyInTheOrderOfTheirReleases(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1, 2, 3)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		for _, d := range ds {
			require.NoError(t, d.Nack(ctx))
		}
		letters, err := q.DeadLetters().ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		for _, k := range []int{1, 2, 0} {
			require.NoError(t, letters[k].Release(ctx))
		}
		kit.Check(t, top)
		for _, want := range []int{2, 3, 1} {
			require.Equal(t, want, kit.Receive(t, q.DeadLetters()).Body)
		}
		top.Close()
	})
}

func TestWhatIsReleasedWhileTheTopicShutsDownIsLeftOver(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2, 3)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.NoError(t, ds[0].Release(ctx))
		require.NoError(t, ds[1].Settle(ctx, fanout.Release(kit.ErrBusy)))
		require.NoError(t, ds[2].Ack(ctx))
		var left *fanout.ShutdownError
		require.ErrorAs(t, <-done, &left)
		require.Equal(t, []fanout.Left{{Queue: "q", Released: 2}}, left.Queues)
		require.Len(t, q.Leftovers(), 2)
	})
}

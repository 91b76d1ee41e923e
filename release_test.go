package fanout

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Messages that are given back without having spent an attempt.

// workersOf are the ways in which a worker can hold its message.
var workersOf = map[string]struct {
	topic   []TopicOption
	options []SubscribeOption
	batch   bool
}{
	"prefetched": {},
	"alone":      {topic: []TopicOption{WithHooks(Hooks{Settled: func(Event) {}})}},
	"timed":      {options: []SubscribeOption{WithHandlerTimeout(time.Hour)}},
	"in a batch": {batch: true},
}

func TestAHandlerThatRunsOnAfterItsSubscribersShutdownKeepsItsMessage(t *testing.T) {
	for name, w := range workersOf {
		for how, row := range map[string]struct {
			after  time.Duration // the shutdown
			err    func(ctx context.Context) error
			causes []Cause
			late   int
		}{
			"acknowledges":          {time.Second, func(context.Context) error { return nil }, nil, 0},
			"says it was cancelled": {time.Second, func(ctx context.Context) error { return fmt.Errorf("query: %w", ctx.Err()) }, []Cause{Released}, 0},
			"says why":              {time.Second, context.Cause, []Cause{Released}, 0},
			"fails":                 {time.Second, func(context.Context) error { return errBusy }, []Cause{Failed}, 0},
			"fails for ever":        {time.Second, func(ctx context.Context) error { return RetryAfter(ctx.Err(), time.Second) }, []Cause{Failed}, 0},
			"times out":             {11 * time.Second, func(context.Context) error { return errBusy }, []Cause{TimedOut}, 1},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					late := 0
					hooks := WithHooks(Hooks{Late: func(Event) { late++ }})
					top := newTopic[int](t, append([]TopicOption{hooks}, w.topic...)...)
					q := openQueue(t, top, "q", WithVisibilityTimeout(10*time.Second), WithBackoff(Constant(time.Second)))
					ended, end := context.WithCancel(ctx)
					end()
					var s *Subscriber[int]
					handle := func(ctx context.Context, _ Delivery[int]) error {
						err := s.Shutdown(ended)
						if !errors.Is(err, context.Canceled) || !errors.Is(context.Cause(ctx), ErrClosed) {
							t.Errorf("Shutdown: %v; the context: %v", err, context.Cause(ctx))
						}
						time.Sleep(row.after)
						return row.err(ctx)
					}
					var err error
					if w.batch {
						s, err = q.SubscribeBatch(ctx, func(ctx context.Context, ds []Delivery[int]) error { return handle(ctx, ds[0]) })
					} else {
						s, err = q.Subscribe(ctx, handle, workerOptions(w.options)...)
					}
					require.NoError(t, err)
					publish(t, top, 1)
					synctest.Wait()
					require.Equal(t, 1, q.Stats().InFlight, "it runs still")
					check(t, top)
					elapse(9 * time.Second)
					require.Equal(t, row.late, q.Stats().InFlight)
					elapse(time.Second)
					<-s.Done()
					require.Equal(t, row.late, late)
					if row.causes == nil {
						require.EqualValues(t, 1, q.Stats().Acked)
						requireEmpty(t, q)
					} else {
						d := receive(t, q)
						require.Equal(t, row.causes, causesOf(d))
						require.NoError(t, d.Ack(ctx))
					}
					check(t, top)
					top.Close()
				})
			})
		}
	}
}

func workerOptions(options []SubscribeOption) (of []WorkerOption) {
	for _, o := range options {
		of = append(of, o.(WorkerOption))
	}
	return of
}

// What is released backs off by the number of releases in a row.
func TestReleasesBackOffByTheirNumberInARow(t *testing.T) {
	for name, w := range workersOf {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, w.topic...)
				q := openQueue(t, top, "q", WithBackoff(BackoffFunc(func(n int) time.Duration { return time.Duration(n) * time.Second })))
				y := newDiary()
				var attempts []int
				n := 0
				handle := func(_ context.Context, d Delivery[int]) error {
					attempts = append(attempts, d.Attempt())
					y.note("%d", len(d.History()))
					n++
					switch n {
					case 3:
						return fmt.Errorf("a connection: %w", ErrClosed)
					case 5:
						return errBusy
					case 8:
						return Snooze(time.Second)
					case 10:
						return nil
					}
					return fmt.Errorf("not now: %w", Release(errBusy))
				}
				var err error
				if w.batch {
					_, err = q.SubscribeBatch(ctx, func(ctx context.Context, ds []Delivery[int]) error { return handle(ctx, ds[0]) })
				} else {
					_, err = q.Subscribe(ctx, handle, workerOptions(w.options)...)
				}
				require.NoError(t, err)
				publish(t, top, 1)
				elapse(time.Minute)
				require.Equal(t, []string{
					"0s: 0", "1s: 1", "3s: 2", "6s: 3", "10s: 4", // one to four in a row, then a failure
					"11s: 5", "12s: 6", "14s: 7", // two in a row, then a snooze
					"15s: 8", "16s: 9",
				}, y.read())
				require.Equal(t, []int{1, 1, 1, 1, 1, 2, 2, 2, 2, 2}, attempts)
				require.Equal(t, []uint64{7, 1, 1, 1}, []uint64{q.Stats().ReleasedCount, q.Stats().Failed, q.Stats().Snoozed, q.Stats().Acked})
				check(t, top)
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
		"releases":             {Unlimited, func(int) bool { return false }, 1000},
		"releases and snoozes": {5, func(n int) bool { return n < 500 && n%4 == 3 }, 500},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				longest := 0
				q := openQueue(t, top, "q", WithMaxAttempts(row.attempts), WithBackoff(BackoffFunc(func(n int) time.Duration {
					longest = max(longest, n)
					return time.Millisecond
				})))
				publish(t, top, 1)
				for n := range 1000 {
					d, err := q.Receive(ctx)
					require.NoError(t, err)
					end := Release(errBusy)
					if row.snoozes(n) {
						end = Snooze(time.Millisecond)
					}
					require.NoError(t, d.Settle(ctx, end))
				}
				requireEmpty(t, q)
				require.Equal(t, []int{0, 1}, []int{q.Stats().Unsettled(), q.Stats().Dead})
				require.Equal(t, row.longest, longest)
				n, err := q.Redrive(ctx)
				require.NoError(t, err)
				require.Equal(t, 1, n)
				longest = 0
				require.NoError(t, receive(t, q).Settle(ctx, Release(errBusy)))
				require.Equal(t, 1, longest, "a redrive starts a fresh count")
				d, err := q.Receive(ctx)
				require.NoError(t, err)
				require.Equal(t, 1, d.Attempt())
				require.NoError(t, d.Settle(ctx, Release(nil)), "as nil")
				require.Zero(t, q.Stats().Unsettled())
				top.Close()
			})
		})
	}
}

func TestWhatADeliveryReleasesIsReadyAtItsPlace(t *testing.T) {
	for name, options := range map[string][]QueueOption{
		"out of the log": nil,
		"filtered":       {WithFilter(func(int) bool { return true })},
		"drops":          {WithOverflow(DropOldest)},
		"with a TTL":     {WithTimeToLive(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", append(options, WithMaxAttempts(1))...)
				publish(t, top, 1, 2, 3, 4, 5, 6)
				for range 3 * passesLimit { // it may go on for ever
					ds, err := q.ReceiveBatch(ctx, 4)
					require.NoError(t, err)
					require.NoError(t, ds[2].Ack(ctx))
					for _, k := range []int{3, 0, 1} {
						require.NoError(t, ds[k].Release(ctx))
						require.ErrorIs(t, ds[k].Release(ctx), ErrSettled)
					}
					check(t, top)
					require.Equal(t, 5, q.Stats().Ready)
					for _, want := range []int{1, 2, 4, 5, 6} {
						d := receive(t, q)
						require.Equal(t, []int{want, 1}, []int{d.Body, d.Attempt()})
						require.NoError(t, d.Ack(ctx))
					}
					publish(t, top, 1, 2, 3, 4, 5, 6)
					if name != "out of the log" {
						break
					}
				}
				top.Close()
			})
		})
	}
}

func TestAReleasedDeliveryOfAKeyKeepsItsPlaceAndOthersAreWoken(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q")
		publishAll(t, top, append(keyed("a", 1, 2), keyed("b", 11)...)...)
		d := receive(t, q)
		require.Equal(t, 11, receive(t, q).Body)
		requireEmpty(t, q)
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
		check(t, top)
		top.Close()
	})
}

func TestReleasedLettersAreReadyInTheOrderOfTheirReleases(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1))
		publish(t, top, 1, 2, 3)
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
		check(t, top)
		for _, want := range []int{2, 3, 1} {
			require.Equal(t, want, receive(t, q.DeadLetters()).Body)
		}
		top.Close()
	})
}

func TestWhatIsReleasedWhileTheTopicShutsDownIsLeftOver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2, 3)
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.NoError(t, ds[0].Release(ctx))
		require.NoError(t, ds[1].Settle(ctx, Release(errBusy)))
		require.NoError(t, ds[2].Ack(ctx))
		var left *ShutdownError
		require.ErrorAs(t, <-done, &left)
		require.Equal(t, []Left{{Queue: "q", Released: 2}}, left.Queues)
		require.Len(t, q.Leftovers(), 2)
	})
}

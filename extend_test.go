package fanout

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Automatic extension costs no tick: in memory nothing but its end can happen to
// a handler, so that the timer is armed for the last instant at once.
func TestAutoExtendDoesNotTick(t *testing.T) {
	const longest = time.Hour
	handlers := map[string]struct {
		queue  []QueueOption
		batch  bool
		option []WorkerOption
	}{
		"by the log":        {},
		"a batch":           {batch: true, option: []WorkerOption{WithBatchSize(4)}},
		"a filter":          {queue: []QueueOption{WithFilter(func(int) bool { return true })}},
		"a time to live":    {queue: []QueueOption{WithTimeToLive(2 * longest)}},
		"a handler timeout": {option: []WorkerOption{WithHandlerTimeout(2 * longest)}},
	}
	for name, c := range handlers {
		for _, vis := range []time.Duration{time.Microsecond, time.Millisecond, 20 * time.Second} {
			t.Run(name+" "+vis.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var stuck atomic.Int64
					top := newTopic[int](t, WithHooks(Hooks{Stuck: func(Event) { stuck.Add(1) }}))
					q := openQueue(t, top, "q", append(c.queue, WithVisibilityTimeout(vis), WithMaxAttempts(1))...)
					began := time.Now()
					options := append(c.option, WithAutoExtend(longest))
					release := make(chan struct{})
					var err error
					if c.batch {
						_, err = q.SubscribeBatch(ctx, func(context.Context, []Delivery[int]) error { <-release; return nil }, options...)
					} else {
						_, err = q.Subscribe(ctx, func(context.Context, Delivery[int]) error { <-release; return nil }, options...)
					}
					require.NoError(t, err)
					publish(t, top, 1)
					elapse(3 * time.Millisecond) // the look at a hand, and the timer that is armed for a moment only
					synctest.Wait()
					q.locked(func() {
						at, ok := q.win.NextDue()
						if !ok { // a batch in hand
							at = q.alarm.checkAt
						}
						require.Equal(t, longest, q.core.time(at).Sub(began))
						require.True(t, q.alarm.armed)
						require.Equal(t, at, q.alarm.at, "the timer comes before")
					})
					elapse(longest - 3*time.Millisecond - 1)
					require.Equal(t, 1, q.Stats().InFlight)
					require.Zero(t, stuck.Load())
					elapse(1)
					require.Equal(t, uint64(1), q.Stats().TimedOut)
					synctest.Wait()
					require.EqualValues(t, 1, stuck.Load())
					close(release)
					synctest.Wait()
					check(t, top)
					require.NoError(t, top.Close())
				})
			})
		}
	}
}

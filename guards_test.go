package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Rules that nothing else would notice the breach of.

// The queue's timer looks at what was prefetched a millisecond after it was
// taken. The visibility timeout of a message is never shorter for that.
func TestAPrefetchedMessageHasItsWholeVisibilityTimeout(t *testing.T) {
	const step, late = 300 * time.Microsecond, time.Millisecond
	consumers := map[string]func(ctx context.Context, q *Queue[int], do func(d Delivery[int], place int)){
		"a worker": func(ctx context.Context, q *Queue[int], do func(d Delivery[int], place int)) {
			_, _ = q.Subscribe(ctx, func(_ context.Context, d Delivery[int]) error {
				q.mu.Lock()
				place := q.subs[0].busy[0].load().started()
				q.mu.Unlock()
				do(d, place)
				return nil
			})
		},
		"a range": func(ctx context.Context, q *Queue[int], do func(d Delivery[int], place int)) {
			for d, err := range q.Deliveries(ctx) {
				if err != nil {
					return
				}
				q.mu.Lock()
				place := prefetchedIn(q) - waitingIn(q)
				q.mu.Unlock()
				do(d, place)
				_ = d.Ack(ctx)
			}
		},
	}
	for name, consume := range consumers {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second), WithMaxAttempts(Unlimited))
				var started time.Time
				over := make(chan struct{})
				first, slept := 0, 0
				go consume(ctx, q, func(d Delivery[int], place int) {
					if d.Body > 150 && place == 1 && first == 0 {
						first = d.Body
					}
					switch {
					case first == 0 || !started.IsZero():
					case slept < 2:
						slept++
						time.Sleep(step) // it is done in time, and the next one starts
					default:
						require.Equal(t, []int{3, first + 2}, []int{place, d.Body}, "they were prefetched together")
						started = time.Now()
						<-over
					}
				})
				synctest.Wait()
				bodies := make([]Message[int], 400)
				for k := range bodies {
					bodies[k].Body = k
				}
				require.NoError(t, top.PublishMessages(ctx, bodies...))
				time.Sleep(900 * time.Millisecond)
				synctest.Wait()
				require.False(t, started.IsZero())
				time.Sleep(time.Until(started.Add(time.Second)) - 1)
				synctest.Wait()
				require.Zero(t, q.Stats().TimedOut, "a nanosecond before its time")
				time.Sleep(late + 1)
				synctest.Wait()
				require.EqualValues(t, 1, q.Stats().TimedOut, "a millisecond after it")
				close(over)
				require.NoError(t, top.Close())
			})
		})
	}
}

package topic

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/view"
)

// A lease is 1 message long, then 2, 4 and so on up to 64, as long as handlers
// take no time, which in virtual time they don't, and none goes beyond a segment
// of the log: of 300 messages, 0 and 1 begin a lease, 2 ends one, and the others
// stand here and there in leases of every length.
const ofPrefetched = 300

var inPrefetched = []int{0, 1, 2, 6, 7, 20, 62, 63, 64, 126, 127, 150, 190, 191, 299}

// publishOnce publishes 0 to n-1 in one batch, so that all of them wait at once.
func publishOnce(t *testing.T, top *Topic[int], n int) {
	t.Helper()
	ms := make([]message.Published[int], n)
	for k := range ms {
		ms[k].Body = k
	}
	require.NoError(t, top.PublishMessages(t.Context(), ms...))
}

// from returns k to n-1.
func from(k, n int) (list []int) {
	for ; k < n; k++ {
		list = append(list, k)
	}
	return list
}

// got collects what handlers were given, and when.
type got struct {
	mutex chan struct{}
	began time.Time
	what  []int
	when  map[int][]time.Duration
}

func newGot() *got {
	return &got{mutex: make(chan struct{}, 1), began: time.Now(), when: map[int][]time.Duration{}}
}

func (g *got) add(body int) {
	g.mutex <- struct{}{}
	g.what = append(g.what, body)
	g.when[body] = append(g.when[body], time.Since(g.began))
	<-g.mutex
}

func TestPromise11TheTimeoutOfAMessageInALeaseIsNeverEarlyAndAMillisecondLateAtMost(t *testing.T) {
	for _, timeout := range []time.Duration{100 * time.Microsecond, 5 * time.Millisecond, time.Second} {
		for _, slow := range inPrefetched {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				var took time.Duration
				g := newGot()
				s := subscribe(t, top, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
					g.add(d.Body)
					if d.Body == slow && took == 0 {
						began := time.Now()
						<-ctx.Done()
						took = time.Since(began)
						require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
						require.ErrorIs(t, d.Ack(ctx), message.ErrStale)
					}
					return nil
				}, WithVisibilityTimeout(timeout))
				publishOnce(t, top, ofPrefetched)
				elapse(time.Minute)
				if slow <= 1 {
					require.Equal(t, timeout, took, "message %d, the first of its lease", slow)
				}
				require.GreaterOrEqual(t, took, timeout)
				require.LessOrEqual(t, took, timeout+time.Millisecond)
				require.Len(t, g.when[slow], 2, "it is delivered again")
				stats := view.StatsOf(s.Queue())
				require.EqualValues(t, ofPrefetched, stats.Acked)
				require.EqualValues(t, 1, stats.TimedOut)
				check(t, top)
				require.NoError(t, top.Close())
			})
		}
	}
}

func TestALeaseForgetsWhatIsDone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[*watched](t)
		n := 0
		hold := make(chan struct{})
		subscribe(t, top, "q", func(_ context.Context, d delivery.Delivery[*watched]) error {
			if n++; n == 90 { // of the lease from 63 to 126
				<-hold
			}
			return nil
		})
		q := top.Queue("q")
		require.NoError(t, lifecycle.Pause(ctx, q))
		all := publishWatched(t, top, 200)
		require.NoError(t, lifecycle.Resume(ctx, q))
		synctest.Wait()
		require.Equal(t, 90, n)
		func() { // others take the rest, so that the log has no use for the segment
			ds, err := receiveBatch(q, ctx, 110)
			require.NoError(t, err)
			require.Len(t, ds, 110)
			require.NoError(t, ackBatchOf(q, ctx, ds...))
		}()
		require.Zero(t, alive(all[:89]))
		close(hold)
		synctest.Wait()
		require.Equal(t, 90, n)
		require.NoError(t, top.Close())
	})
}

// Allocations are counted over many messages, for what a consumer allocates when it is woken,
// and what a pool drops, not to show. They are counted in a bubble, where time stands still:
// so the timer never looks at a lease, however long a busy machine takes over it.

func TestAPublishAllocatesOnceAtMostAndADeliveryNothing(t *testing.T) {
	for _, queues := range []int{1, 4, 16} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[*int](t)
			handled := make(chan struct{}, queues)
			const n = 1000
			for k := range queues {
				count := 0
				subscribe(t, top, fmt.Sprint(k), func(context.Context, delivery.Delivery[*int]) error {
					if count++; count%n == 0 {
						handled <- struct{}{}
					}
					return nil
				})
			}
			body := new(int)
			batch := make([]message.Published[*int], n)
			for k := range batch {
				batch[k].Body = body
			}
			await := func() {
				for range queues {
					<-handled
				}
			}
			singly := testing.AllocsPerRun(20, func() {
				for range n {
					if err := top.In.Publish(ctx, body); err != nil {
						t.Error(err)
					}
				}
				await()
			})
			batched := testing.AllocsPerRun(20, func() {
				if err := top.PublishMessages(ctx, batch...); err != nil {
					t.Error(err)
				}
				await()
			})
			require.LessOrEqual(t, singly/n, 1.0, "per publish and its %d deliveries", queues)
			require.Less(t, singly/n/float64(queues), amortised+1.0/float64(queues), "per delivery")
			require.Less(t, batched/n/float64(queues), amortised, "per delivery of a batch to %d queues", queues)
			require.NoError(t, top.Close())
		})
	}
}

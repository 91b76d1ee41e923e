package workers

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
)

func TestWhatHappensToABatch(t *testing.T) {
	const n, size, second = 40, 20, 25 // message 25 is in the second batch
	type scene struct {
		q *queue.Queue[int]
		s *Subscriber[int]
		y *diary
	}
	failed := []string{"0s: 0-19", "0s: 20-39", "1s: 20-39"}
	quiet := failed[:2]
	for name, row := range map[string]struct {
		inHandler func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error // with 20 to 39
		want      []string
		acked     int
		after     func(t *testing.T, c *scene)
	}{
		"nothing": {func(t *testing.T, c *scene, _ context.Context, ds []delivery.Delivery[int]) error { return nil }, quiet, n, nil},
		"stats and a peek": {func(t *testing.T, c *scene, _ context.Context, ds []delivery.Delivery[int]) error {
			homeOf(c.q).publish(n)
			s := view.StatsOf(c.q)
			require.Equal(t, []int{20, 20, 1, 40}, []int{int(s.Acked), s.InFlight, s.Ready, int(s.Delivered)})
			require.Equal(t, []int{n}, waiting(t, c.q))
			return nil
		}, append(slices.Clone(quiet), "0s: 40-40"), n + 1, nil},
		"an error": {func(*testing.T, *scene, context.Context, []delivery.Delivery[int]) error { return errBusy }, failed, n, nil},
		"a panic":  {func(*testing.T, *scene, context.Context, []delivery.Delivery[int]) error { panic("boom") }, failed, n, nil},
		"Goexit": {func(*testing.T, *scene, context.Context, []delivery.Delivery[int]) error {
			runtime.Goexit()
			return nil
		}, failed, n, nil},
		"a nack of one": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			require.NoError(t, ds[5].Nack(ctx))
			require.ErrorIs(t, ds[5].Ack(ctx), message.ErrSettled)
			s := view.StatsOf(c.q)
			require.Equal(t, []int{19, 1}, []int{s.InFlight, s.Retrying})
			return nil
		}, append(slices.Clone(quiet), "1s: 25-25"), n, nil},
		"an error after some were acknowledged": {func(t *testing.T, _ *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			for _, d := range ds[1:19] {
				require.NoError(t, d.Ack(ctx))
			}
			return errBusy
		}, append(slices.Clone(quiet), "1s: 20-39"), n, nil},
		"an extension of one": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			require.NoError(t, ds[5].Extend(ctx, time.Hour))
			require.Equal(t, time.Now().Add(time.Hour), ds[5].Deadline())
			require.Equal(t, time.Now().Add(10*time.Second), ds[6].Deadline())
			<-ctx.Done()
			require.Equal(t, 1, view.StatsOf(c.q).InFlight)
			require.EqualValues(t, 19, view.StatsOf(c.q).TimedOut)
			return nil
		}, append(slices.Clone(quiet), "10s: 20-39"), n, nil},
		"another goroutine that settles": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			var wg sync.WaitGroup
			for _, d := range ds {
				wg.Go(func() { require.NoError(t, d.Ack(ctx)) })
			}
			wg.Wait()
			require.EqualValues(t, n, view.StatsOf(c.q).Acked)
			return errBusy // too late
		}, quiet, n, nil},
		"a pause": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			homeOf(c.q).publish(n)
			return lifecycle.Pause(ctx, c.q)
		}, quiet, n, func(t *testing.T, c *scene) { require.Equal(t, 1, view.StatsOf(c.q).Ready) }},
		"a purge": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			dropped, err := lifecycle.Purge(ctx, c.q)
			require.NoError(t, err)
			require.Equal(t, 20, dropped)
			require.ErrorIs(t, context.Cause(ctx), message.ErrStale)
			require.ErrorIs(t, ds[3].Ack(ctx), message.ErrStale)
			return nil
		}, quiet, 20, nil},
		"a close": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			require.NoError(t, lifecycle.Close(c.q))
			require.ErrorIs(t, context.Cause(ctx), message.ErrClosed)
			require.ErrorIs(t, ds[3].Ack(ctx), message.ErrClosed)
			return nil
		}, quiet, 20, func(t *testing.T, c *scene) { require.Len(t, lifecycle.Leftovers(c.q), 20) }},
		"a shutdown that ends early": {func(t *testing.T, c *scene, ctx context.Context, ds []delivery.Delivery[int]) error {
			ended, end := context.WithCancel(ctx)
			end()
			require.ErrorIs(t, c.s.Shutdown(ended), context.Canceled)
			require.ErrorIs(t, context.Cause(ctx), message.ErrClosed)
			require.NoError(t, ds[3].Ack(ctx))
			return nil
		}, quiet, n, func(t *testing.T, c *scene) {
			require.False(t, isOpen(c.s.Done()))
			require.Zero(t, view.StatsOf(c.q).Ready)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, visible(10*time.Second), backoff(time.Second))
				c := &scene{y: newDiary()}
				var before []delivery.Delivery[int]
				c.s = h.subscribeBatch(t, func(ctx context.Context, ds []delivery.Delivery[int]) error {
					c.y.note("%d-%d", ds[0].Body, ds[len(ds)-1].Body)
					if ds[0].Body != size || ds[0].Attempt() > 1 {
						before = slices.Clone(ds)
						return nil
					}
					require.ErrorIs(t, before[3].Nack(ctx), message.ErrSettled, "the batch before is done")
					require.True(t, before[4].Deadline().IsZero())
					return row.inHandler(t, c, ctx, ds)
				}, batchesOf(size))
				c.q = c.s.Queue()
				h.publish(from(0, n)...)
				elapse(2 * time.Minute)
				require.Equal(t, row.want, c.y.read())
				require.EqualValues(t, row.acked, view.StatsOf(c.q).Acked)
				if row.after != nil {
					row.after(t, c)
				}
				synctest.Wait()
				h.end(t)
			})
		})
	}
}

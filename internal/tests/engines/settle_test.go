// A settlement on an engine is settled once, or stale.

package engines_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// TestASecondSettlementWaitsForTheFirst on an engine, and returns ErrSettled only
// if the first has settled the delivery.
func TestASecondSettlementWaitsForTheFirst(t *testing.T) {
	second := map[string]func(ctx context.Context, d fanout.Delivery[string]) error{
		"Ack":    func(ctx context.Context, d fanout.Delivery[string]) error { return d.Ack(ctx) },
		"Nack":   func(ctx context.Context, d fanout.Delivery[string]) error { return d.Nack(ctx) },
		"Extend": func(ctx context.Context, d fanout.Delivery[string]) error { return d.Extend(ctx, time.Minute) },
	}
	for name, settle := range second {
		for first, broken := range map[string]error{"works": nil, "fails": errBroken} {
			t.Run(name+" while an Ack that "+first+" is on its way", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := fakeengine.New(fakeengine.Config{})
					top := onEngine(t, e)
					q := engineQueue(t, top)
					require.NoError(t, top.Publish(t.Context(), "a"))
					d := next(t, q)
					e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: time.Second, Err: broken})
					acked := make(chan error, 1)
					go func() { acked <- d.Ack(context.Background()) }()
					synctest.Wait()

					soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					defer cancel()
					err := settle(soon, d)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.NotErrorIs(t, err, fanout.ErrSettled)
					require.Empty(t, acked)

					begun := time.Now()
					err = settle(t.Context(), d)
					require.Equal(t, 999*time.Millisecond, time.Since(begun), "until the first has its answer")
					if broken != nil {
						require.ErrorIs(t, <-acked, errBroken)
						require.NoError(t, err)
					} else {
						require.NoError(t, <-acked)
						require.ErrorIs(t, err, fanout.ErrSettled)
					}
					require.NoError(t, top.Close())
					<-top.Done()
				})
			})
		}
	}
}

// TestWhatIsTakenBackWhileItsSettlementFailsIsStale: nobody has settled it.
func TestWhatIsTakenBackWhileItsSettlementFailsIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: time.Second})
		acked := make(chan error, 1)
		go func() { acked <- d.Ack(context.Background()) }()
		synctest.Wait()
		_, err := q.Purge(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, d.Ack(t.Context()), fanout.ErrStale)
		require.ErrorIs(t, <-acked, fanout.ErrStale)
		require.ErrorIs(t, d.Ack(t.Context()), fanout.ErrStale, "and stays so")
		endTopic(t, top)
	})
}

// A delivery that is released on an engine spends no attempt and comes again.

package engines_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func TestReleasesOnAnEngine(t *testing.T) {
	for name, c := range map[string]fakeengine.Config{
		"that keeps states": {},
		"that keeps none":   {Without: []engine.Feature{engine.State}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				top := onEngine(t, fakeengine.New(c))
				q := engineQueue(t, top, fanout.WithMaxAttempts(1), fanout.WithBackoff(fanout.BackoffFunc(func(n int) time.Duration {
					return time.Duration(n) * time.Second
				})))
				require.NoError(t, top.Publish(t.Context(), "a"))
				begun := time.Now()
				for n := range 50 {
					d := next(t, q)
					require.Equal(t, time.Duration(n*(n+1)/2)*time.Second, time.Since(begun), "release %d", n)
					require.Equal(t, 1, d.Attempt())
					require.NoError(t, d.Settle(t.Context(), fanout.Release(errBroken)))
				}
				d := next(t, q)
				released := time.Now()
				require.NoError(t, d.Release(t.Context()))
				require.ErrorIs(t, d.Release(t.Context()), fanout.ErrSettled)
				d = next(t, q)
				require.Equal(t, released, time.Now(), "ready at once")
				h := d.History()
				require.Equal(t, []int{51, 1}, []int{h[len(h)-1].Number, d.Attempt()})
				require.NoError(t, d.Ack(t.Context()))
				endTopic(t, top)
			})
		})
	}
}

func TestAHandlerOnAnEngineKeepsItsMessageWhenItsShutdownRunsOut(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want [2]uint64 // acknowledged, released
	}{
		"acknowledges":  {nil, [2]uint64{1, 0}},
		"was cancelled": {fmt.Errorf("query: %w", context.Canceled), [2]uint64{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late := 0
				top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithHooks(fanout.Hooks{Late: func(fanout.Event) { late++ }}))
				q := engineQueue(t, top)
				ended, end := context.WithCancel(t.Context())
				end()
				var s *fanout.Subscriber[string]
				started := make(chan bool)
				s, err := q.Subscribe(t.Context(), func(ctx context.Context, d fanout.Delivery[string]) error {
					<-started
					if err := s.Shutdown(ended); !errors.Is(err, context.Canceled) || !errors.Is(context.Cause(ctx), fanout.ErrClosed) {
						return err
					}
					time.Sleep(time.Second)
					return row.err
				})
				require.NoError(t, err)
				close(started)
				require.NoError(t, top.Publish(t.Context(), "a"))
				synctest.Wait()
				<-s.Done()
				require.Zero(t, late)
				require.Equal(t, row.want, [2]uint64{q.Stats().Acked, q.Stats().ReleasedCount})
				if row.err != nil {
					require.Equal(t, 1, next(t, q).Attempt())
				}
				endTopic(t, top)
			})
		})
	}
}

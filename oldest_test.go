package fanout

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOldestAgeCountsWhatWaitsInAHand(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGripAt(t, 3, 7)
		time.Sleep(100 * time.Microsecond)
		publish(t, g.top, 7)
		g.q.mu.Lock()
		inLog, waiting := g.q.inLogLocked(), g.q.waitingLocked()
		g.q.mu.Unlock()
		require.Equal(t, []int{1, 3}, []int{inLog, waiting})
		time.Sleep(100 * time.Microsecond)
		require.Equal(t, 200*time.Microsecond, g.q.Stats().OldestAge)
		g.end()
	})
}

func TestOldestAgeCountsWhatALoopHasNotYielded(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit")
		require.NoError(t, top.PublishMessages(ctx, plainOnes(7)...))
		time.Sleep(100 * time.Microsecond)
		publish(t, top, 7)
		n := 0
		for d, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			if n++; n == 4 {
				q.mu.Lock()
				waiting := q.waitingLocked()
				q.mu.Unlock()
				require.Positive(t, waiting)
				time.Sleep(100 * time.Microsecond)
				require.Equal(t, 200*time.Microsecond, q.Stats().OldestAge)
				break
			}
			require.NoError(t, d.Ack(ctx))
		}
		require.NoError(t, top.Close())
	})
}

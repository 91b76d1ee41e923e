package topic

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/queue"
)

func TestAListOfSleepersThatWasTakenHoldsNoneOfItsQueues(t *testing.T) {
	var s queue.IdleQueues[int]
	a, b, c := &queue.Queue[int]{IdleAt: queue.NotIdle}, &queue.Queue[int]{IdleAt: queue.NotIdle}, &queue.Queue[int]{IdleAt: queue.NotIdle}
	s.Remove(a) // is in none
	for range 3 {
		for _, q := range []*queue.Queue[int]{a, b, c} {
			require.True(t, s.Add(q))
			require.False(t, s.Add(q))
		}
		require.EqualValues(t, 3, s.N.Load())
		require.Equal(t, []*queue.Queue[int]{a, b, c}, s.TakeLocked())
		require.Zero(t, s.N.Load())

		s.Remove(a)
		require.True(t, s.Add(b))
		s.Remove(c)
		require.True(t, s.Add(c))
		require.True(t, s.Add(a))
		s.Remove(b)
		require.False(t, s.Add(a))
		require.Equal(t, []*queue.Queue[int]{a, c}, s.List)
		s.Remove(a)
		require.True(t, s.Add(a))
		require.Equal(t, []*queue.Queue[int]{c, a}, s.TakeLocked())
	}
}

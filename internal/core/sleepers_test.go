package core

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAListOfSleepersThatWasTakenHoldsNoneOfItsQueues(t *testing.T) {
	var s sleepers[int]
	a, b, c := &Queue[int]{sleepAt: awake}, &Queue[int]{sleepAt: awake}, &Queue[int]{sleepAt: awake}
	s.remove(a) // is in none
	for range 3 {
		for _, q := range []*Queue[int]{a, b, c} {
			require.True(t, s.add(q))
			require.False(t, s.add(q))
		}
		require.EqualValues(t, 3, s.n.Load())
		require.Equal(t, []*Queue[int]{a, b, c}, s.takeLocked())
		require.Zero(t, s.n.Load())

		s.remove(a)
		require.True(t, s.add(b))
		s.remove(c)
		require.True(t, s.add(c))
		require.True(t, s.add(a))
		s.remove(b)
		require.False(t, s.add(a))
		require.Equal(t, []*Queue[int]{a, c}, s.list)
		s.remove(a)
		require.True(t, s.add(a))
		require.Equal(t, []*Queue[int]{c, a}, s.takeLocked())
	}
}

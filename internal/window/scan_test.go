package window

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAScanMeetsEachEntryOnceWhileOthersComeAndGo(t *testing.T) {
	var w Window[int]
	_, more := w.Scan(0, 1, func(int32) { t.Error("a window that never held anything") })
	require.False(t, more)
	held := fill(&w, 20*chunkLen)
	for k, i := range held {
		if k%3 > 0 || k/chunkLen == 7 { // of one chunk all
			w.Remove(i)
		}
	}
	met, calls := make(map[int]int), 0
	for from, more := int32(0), true; more; calls++ {
		last := int32(-1)
		from, more = w.Scan(from, 3*chunkLen, func(i int32) {
			require.Greater(t, i, last)
			last = i
			met[*w.At(i)]++
		})
		for range chunkLen {
			w.Remove(w.Add(-1))
			w.Add(-1)
		}
	}
	require.GreaterOrEqual(t, calls, 7)
	for k := 0; k < len(held); k += 3 {
		want := 1
		if k/chunkLen == 7 {
			want = 0
		}
		require.Equal(t, want, met[k+1], "value %d", k+1)
	}
	for k, n := range met {
		require.True(t, k == -1 || n == 1)
	}
	_, more = w.Scan(1<<30, 1, func(int32) { t.Error("there is no such number") })
	require.False(t, more)
}

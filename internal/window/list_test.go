package window

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPushAfterPutsAnEntryAtItsPlace(t *testing.T) {
	for seed := range uint64(10) {
		var (
			w    Window[int]
			l    List
			want []int32
			r    = rand.New(rand.NewPCG(seed, 10))
		)
		_, ok := l.Last()
		require.False(t, ok)
		for range 150 {
			if len(want) > 0 && r.IntN(3) == 0 {
				k := r.IntN(len(want))
				w.Pull(&l, want[k])
				w.Remove(want[k])
				want = slices.Delete(want, k, k+1)
			} else {
				i, at := w.Add(1), r.IntN(len(want)+1)
				if at == 0 {
					w.PushAfter(&l, i, -1, false)
				} else {
					w.PushAfter(&l, i, want[at-1], true)
				}
				want = slices.Insert(want, at, i)
			}
			require.NoError(t, check(&w, &l))
			got := []int32{}
			for i, ok := l.Last(); ok; i, ok = w.Prev(i) {
				got = append(got, i)
			}
			slices.Reverse(got)
			require.True(t, slices.Equal(want, got), "the list is %v, it should be %v", got, want)
			got = got[:0]
			for i, ok := l.First(); ok && len(got) <= len(want); i, ok = w.Next(i) {
				got = append(got, i)
			}
			require.True(t, slices.Equal(want, got), "the list is %v, from its end %v", got, want)
			first, ok := l.First()
			require.Equal(t, len(want) > 0, ok)
			require.True(t, !ok || first == want[0])
		}
	}
}

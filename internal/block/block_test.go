package block_test

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/message"
)

func TestThereAreAsManyPlacesAsWanted(t *testing.T) {
	var p block.Pool
	for wanted := range block.Len + 1 {
		size := int(block.SizeFor[wanted])
		require.GreaterOrEqual(t, size, wanted)
		require.Contains(t, []int{1, block.Small, block.Medium, block.Len}, size)
		require.Len(t, block.Places[int](&p, wanted), size)
		if wanted > 0 {
			exact := block.Exactly[int](&p, wanted)
			require.Len(t, exact, wanted)
			require.Equal(t, wanted, cap(exact))
		}
	}
}

// Each place has an instant of its own, and a block of any size can be given back.
func TestPlacesAndInstantsAreApart(t *testing.T) {
	var p block.Pool
	for n := 1; n <= block.Len; n++ {
		for range 3 {
			items := block.Exactly[[3]int](&p, n)
			require.Equal(t, make([]message.Item[[3]int], n), items)
			starts := unsafe.Slice(block.Starts(items), n)
			for k := range items {
				items[k], starts[k] = message.Item[[3]int]{Seq: 1, At: 2, Body: [3]int{3, 4, 5}}, int64(k)
			}
			for k := range items {
				require.Equal(t, int64(k), starts[k])
				require.Equal(t, [3]int{3, 4, 5}, items[k].Body)
			}
			clear(items)
			block.Return(&p, items)
		}
	}
}

func TestPlacesAreUsedAgain(t *testing.T) {
	for _, size := range []int{block.Small, block.Medium, block.Len} {
		var p block.Pool
		var had []*message.Item[string]
		again := false
		for range 100 { // the race detector has the pool forget some
			items := block.Places[string](&p, size)
			again = again || slices.Contains(had, &items[0])
			had = append(had, &items[0])
			block.Return(&p, items[:1])
		}
		require.True(t, again, "of %d", size)
	}
}

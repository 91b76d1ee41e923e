package block_test

import (
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/message"
)

// TestABlockIsAsAMap: whatever is cleared and moved, each message that is left is found in its
// place, and so is the instant at which it began; what was let go of is gone.
func TestABlockIsAsAMap(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var pool block.Pool
		n := rnd.IntN(block.Len) + 1
		b := block.Block[int]{Items: block.Exactly[int](&pool, n), Present: ^uint64(0), Began: 1}
		starts := map[int]int64{}
		for k, now := 0, int64(1); k < n; {
			some := min(rnd.IntN(5)+1, n-k)
			if k > 0 && rnd.IntN(3) == 0 {
				now++
			}
			if k == 0 {
				b.BeginAll(now)
			} else {
				b.Begin(k, some, k, now)
			}
			for range some {
				b.Items[k] = message.Item[int]{Seq: uint64(k) + 1, Body: k + 1}
				starts[k] = now
				k++
			}
		}
		live := uint64(1)<<n - 1
		for live != 0 {
			dead := live & rnd.Uint64() & rnd.Uint64()
			if bits.OnesCount64(live) == 1 || rnd.IntN(4) == 0 {
				dead = live & -live
			}
			b.Clear(dead)
			live &^= dead
			if live != 0 && rnd.IntN(2) == 0 {
				b.Move(&pool, block.Exactly[int](&pool, bits.OnesCount64(live)), live, nil)
				require.Len(t, b.Items, bits.OnesCount64(live))
			}
			if live != 0 && rnd.IntN(8) == 0 {
				k := bits.TrailingZeros64(live)
				b.Begin(b.Place(k), 1, len(b.Items), 100)
				starts[k] = 100
			}
			kept := 0
			for p := range b.Items {
				if b.Items[p] != (message.Item[int]{}) {
					kept++
				}
			}
			require.Equal(t, bits.OnesCount64(live), kept)
			for x := live; x != 0; x &= x - 1 {
				k := bits.TrailingZeros64(x)
				require.Equal(t, k+1, b.Items[b.Place(k)].Body)
				require.Equal(t, starts[k], b.Start(k))
				require.Equal(t, starts[k], b.StartAt(b.Place(k)))
			}
		}
		had := b.Items
		had[0].Body = 1
		b.Drop(&pool, 1)
		require.Nil(t, b.Items)
		require.Zero(t, had[0])
		require.Equal(t, b.Began, b.Start(0), "of starts nothing is left")
	}
}

func TestAllThatBeginAtOneInstantNeedNoInstantEach(t *testing.T) {
	var pool block.Pool
	b := block.Block[int]{Items: block.Places[int](&pool, block.Len), Present: ^uint64(0)}
	b.BeginAll(5)
	b.Begin(3, 4, 3, 5)
	require.Equal(t, int64(5), b.Start(6))
	b.Begin(7, 1, 7, 6)
	require.Equal(t, int64(5), b.Start(6))
	require.Equal(t, int64(6), b.Start(7))
	b.BeginAll(9)
	require.Equal(t, int64(9), b.Start(7))
}

package block

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

// filled is a block of messages 1 to n, of which every second began late.
func filled(n int) *Block[int] {
	var pool Pool
	b := &Block[int]{Items: Exactly[int](&pool, n), Present: ^uint64(0)}
	for k := range n {
		b.Items[k].Seq = uint64(k) + 1
		b.Begin(k, 1, k, int64(10+k/2))
	}
	return b
}

func TestNothingIsKeptOfMessagesThatWentThroughNothing(t *testing.T) {
	var ps Pasts
	ps.Put(0, 4, message.Past{})
	require.Equal(t, Pasts{}, ps)
	require.True(t, ps.Fit(4))
	require.Zero(t, ps.Spent(3))
	require.Nil(t, ps.History(3))
	require.Zero(t, ps.Of(3, 1))
	require.Equal(t, 4, ps.Alike(0, 4))
}

func TestMessagesAreAlikeThatHaveTheSameHistoryAndAttempts(t *testing.T) {
	var ps Pasts
	h := message.Together(new(message.Origin), message.Group{})
	for p, past := range []message.Past{{Spent: 1, Hist: h}, {Spent: 1, Hist: h}, {Spent: 2, Hist: h}, {Spent: 2}} {
		ps.Put(p, 4, past)
	}
	ps.Put(3, 4, message.Past{Spent: 2})
	require.True(t, ps.Fit(4))
	require.False(t, ps.Fit(3))
	for p, end := range []int{2, 2, 3, 4} {
		require.Equal(t, end, ps.Alike(p, 4))
		require.Equal(t, p+1, ps.Alike(p, p+1))
	}
	require.Equal(t, uint32(2), ps.Spent(2))
	require.Same(t, h, ps.History(2))
	require.Nil(t, ps.History(3))

	b := filled(4)
	TimeOut(b, &ps, 0b1111, 50, new(message.Origin))
	require.Equal(t, uint32(3), ps.Spent(2))
	require.Equal(t, 2, ps.Alike(0, 4), "one history is shared, not how many attempts were spent")
	require.Equal(t, 4, ps.Alike(2, 4))
	require.Same(t, ps.History(0), ps.History(3))
}

func TestWhatIsMovedKeepsItsPast(t *testing.T) {
	var pool Pool
	b, ps := filled(16), Pasts{}
	for p := range 16 {
		ps.Put(p, 16, message.Past{Spent: uint32(p + 1), Passes: uint16(p)})
	}
	live := uint64(0b1000_0100_0010_0001)
	b.Move(&pool, Exactly[int](&pool, 4), live, &ps)
	require.True(t, ps.Fit(4))
	for _, k := range []int{0, 5, 10, 15} {
		p := b.Place(k)
		require.Equal(t, uint64(k+1), b.Items[p].Seq)
		require.Equal(t, message.Past{Spent: uint32(k + 1), Passes: uint16(k)}, ps.Of(p, uint64(k+1)))
		require.Equal(t, int64(10+k/2), b.Start(k))
	}
}

func TestMessagesTimeOutTogetherSoOften(t *testing.T) {
	clock, err := message.NewClock()
	require.NoError(t, err)
	origin := &message.Origin{Clock: clock, Queue: "q"}
	b, ps := filled(4), Pasts{}
	for n := range together {
		require.True(t, MayTimeOut(b, &ps, 0b1111, math.MaxInt))
		require.True(t, MayTimeOut(b, &ps, 0b1111, n+2))
		require.False(t, MayTimeOut(b, &ps, 0b1111, n+1), "one more would be the last attempt")
		TimeOut(b, &ps, 0b1111, int64(100+n), origin)
		require.Equal(t, uint32(n+1), ps.Spent(0))
	}
	require.False(t, MayTimeOut(b, &ps, 0b1111, math.MaxInt))
	kept := ps.Of(3, 4).Hist.Kept()
	require.Len(t, kept, together)
	var long *message.History
	for range 2*together + 1 {
		long = long.With(kept[0])
	}
	ps = Pasts{}
	ps.Put(1, 4, message.Past{Spent: 3, Hist: long})
	require.True(t, MayTimeOut(b, &ps, 0b1101, math.MaxInt))
	require.False(t, MayTimeOut(b, &ps, 0b0010, math.MaxInt), "its history would be copied")
	ps.Put(1, 4, message.Past{Spent: 3})
	require.True(t, MayTimeOut(b, &ps, 0b1111, 5))
	require.False(t, MayTimeOut(b, &ps, 0b1111, 4))
	require.True(t, MayTimeOut(b, &ps, 0b1101, 4))
}

package block

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

// What each message has been through is the same whether they timed out together or alone.
func TestWhatTimedOutTogetherHasTheHistoryOfEach(t *testing.T) {
	clock, err := message.NewClock()
	require.NoError(t, err)
	o := &message.Origin{Clock: clock, Queue: "q"}
	busy := (*message.History)(nil).With(message.Kept{Attempt: message.Attempt{Cause: message.Failed}})
	for name, row := range map[string]struct {
		own    bool // the third has failed before
		starts []int64
	}{
		"all began together":           {false, []int64{10, 10, 10, 10}},
		"each by itself":               {false, []int64{10, 20, 30, 40}},
		"the first before the others":  {false, []int64{10, 30, 30, 30}},
		"together, one failed before":  {true, []int64{10, 10, 10, 10}},
		"by itself, one failed before": {true, []int64{10, 20, 30, 40}},
		"the last before the others":   {false, []int64{10, 10, 10, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			b, ps := filled(4), Pasts{}
			b.BeginAll(row.starts[0])
			for p, at := range row.starts {
				b.Begin(p, 1, 4, at)
			}
			if row.own {
				ps.Put(2, 4, message.Past{Hist: busy, Spent: 1, Passes: 3})
			}
			const late = 0b1110 // the first was acknowledged
			TimeOut(b, &ps, late, 100, o)
			again := filled(4)
			again.BeginAll(200)
			TimeOut(again, &ps, 0b1100, 300, o)
			for p := 1; p < 4; p++ {
				seq := b.Items[p].Seq
				var want []message.Attempt
				if row.own && p == 2 {
					want = append(want, message.Attempt{Number: 1, Cause: message.Failed})
				}
				want = append(want,
					message.Attempt{Number: len(want) + 1, Cause: message.TimedOut, Queue: "q", Start: clock.Time(row.starts[p]), Elapsed: time.Duration(100 - row.starts[p])},
					message.Attempt{Number: len(want) + 2, Cause: message.TimedOut, Queue: "q", Start: clock.Time(200), Elapsed: 100})
				past := ps.Of(p, seq)
				require.Equal(t, want, past.Hist.Attempts(seq), "of the one at place %d", p)
				require.EqualValues(t, len(want), past.Spent)
				require.EqualValues(t, len(want), ps.Spent(p))
			}
		})
	}
}

// A history that is just short enough does not keep a message from timing out with others.
func TestAShortHistoryMayTimeOutTogether(t *testing.T) {
	b, ps := filled(4), Pasts{}
	var h *message.History
	for range 2 * together {
		h = h.With(message.Kept{Attempt: message.Attempt{Cause: message.Failed}})
	}
	ps.Put(1, 4, message.Past{Hist: h})
	require.True(t, MayTimeOut(b, &ps, 0b1111, 100))
	ps.Put(1, 4, message.Past{Hist: h.With(message.Kept{})})
	require.False(t, MayTimeOut(b, &ps, 0b1111, 100))
}

// Places that are given back are empty, and are those that are given out next.
func TestPlacesThatAreGivenBackAreEmpty(t *testing.T) {
	requireEmpty := func(items []message.Item[int]) {
		t.Helper()
		for _, it := range items[:cap(items)] {
			require.Equal(t, message.Item[int]{}, it)
		}
	}
	full := func(pool *Pool) *Block[int] {
		b := &Block[int]{Items: Places[int](pool, Len)[:Len], Present: ^uint64(0)}
		for p := range b.Items {
			b.Items[p] = message.Item[int]{Seq: uint64(p + 1), Body: p}
		}
		return b
	}
	again := func(name string, end func(pool *Pool, b *Block[int])) {
		seen := false
		for range 100 { // a pool may lose some
			pool := new(Pool)
			b := full(pool)
			was := b.Items
			end(pool, b)
			requireEmpty(was)
			next := Places[int](pool, Len)
			seen = seen || &next[:1][0] == &was[0]
		}
		require.True(t, seen, name)
	}
	again("moved", func(pool *Pool, b *Block[int]) {
		b.Move(pool, Exactly[int](pool, 2), 1<<5|1<<60, nil)
		require.Equal(t, []uint64{6, 61}, []uint64{b.Items[b.Place(5)].Seq, b.Items[b.Place(60)].Seq})
	})
	again("dropped", func(pool *Pool, b *Block[int]) {
		b.Drop(pool, Len)
		require.Nil(t, b.Items)
	})

	pool := new(Pool)
	b := full(pool)
	b.Move(pool, Places[int](pool, Small)[:3], 1<<5|1<<60|1<<61, nil)
	was := b.Items
	b.Drop(pool, 1) // one that has shrunk may have something in any place
	requireEmpty(was)
}

// What is let go of is that of the bits, and no other.
func TestOnlyWhatIsOverIsCleared(t *testing.T) {
	for _, dead := range []uint64{0b1, 0b110, 0b1011, 0b1111, 0b1001} {
		b := filled(4)
		b.Clear(dead)
		for k := range 4 {
			require.Equal(t, dead>>k&1 == 1, b.Items[k].Seq == 0, "of %b the one with index %d", dead, k)
		}
	}
	b := &Block[int]{Items: make([]message.Item[int], Len), Present: ^uint64(0)}
	for p := range b.Items {
		b.Items[p].Seq = 1
	}
	b.Clear(^uint64(0))
	for p := range b.Items {
		require.Zero(t, b.Items[p].Seq)
	}
}

func TestAPlaceIsAnItemAndAnInstant(t *testing.T) {
	require.Equal(t, 4*8+8, PlaceLen[int]())
	require.Equal(t, 3*8+80+8, PlaceLen[[80]byte]())
}

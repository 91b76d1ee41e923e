package lease

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/message"
)

type large = [1024]byte

func TestAMessageIsMovedWhenAQuarterOfItsBlockIsLeft(t *testing.T) {
	f := newFixture[int](t)
	r := f.receive(64, 100, 0)
	f.receive(1, 100, 0) // the block of the 64 is not filled any more
	at := func() *message.Item[int] { return &f.slots.At(r[63].Block).Lease.block.Items[0] }
	was, moved := at(), map[int]int{}
	for left := 63; left > 0; left-- {
		require.True(t, f.Ack(r[63-left]))
		require.NoError(t, f.Check())
		if at() != was {
			was = at()
			moved[left] = cap(f.slots.At(r[63].Block).Lease.block.Items)
		}
	}
	require.Equal(t, map[int]int{16: block.Medium, 4: block.Small, 1: 1}, moved)
}

// TestABlockInStepShrinksAsOthersDo has a consumer begin 24 large messages, of which only some are
// in flight at the end. It has detached two when the lease gets a block, of just 24 places.
func TestABlockInStepShrinksAsOthersDo(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		for _, open := range []int{4, 10} {
			f := newFixture[large](t)
			l := f.inStep(24, 100, 0)
			first := f.First(l)
			require.True(t, f.Detach(l, 0))
			require.True(t, f.Next(l))
			require.True(t, f.Detach(l, 1))
			require.Equal(t, 24, cap(l.block.Items))
			refs := []message.Ref{first, first.Next(1)}
			for k := 2; k < 24; k++ {
				require.True(t, f.Next(l))
				if leaves && k >= open || !leaves && k < 26-open { // the first are left, or the last
					require.True(t, f.Ack(first.Next(k)))
					continue
				}
				refs = append(refs, first.Next(k))
				require.True(t, f.Detach(l, int64(k)))
			}
			if leaves {
				f.End(l, 24)
			}
			for left := open; left > 0; left-- {
				require.LessOrEqual(t, cap(l.block.Items), 4*left)
				require.NoError(t, f.Check())
				require.True(t, f.Ack(refs[open-left]))
			}
		}
	}
}

func TestABlockInStepShrinksWhenItsCurrentMessageIsTakenOut(t *testing.T) {
	f := newFixture[large](t)
	for _, back := range []bool{false, true} {
		l := f.inStep(24, 100, 0)
		first := f.First(l)
		f.Detach(l, 0)
		f.Next(l)
		f.Detach(l, 1)
		f.Next(l)
		if back { // what waits is taken back, and the current one is over
			_, ok := f.Extract(first.Next(2), 2)
			require.True(t, ok)
			f.TakeBack(l, func(Out[large]) {})
		} else { // the last is taken out, and nothing waits
			for range 21 {
				_, ok := l.Word.Step(l.Word.Place())
				require.True(t, ok)
			}
			_, ok := f.Extract(first.Next(23), 2)
			require.True(t, ok)
		}
		require.Equal(t, 2, cap(l.block.Items), "two are in flight")
		require.Equal(t, uint64(0b11), l.block.Present)
		f.End(l, 2)
		require.NoError(t, f.Check())
	}
}

func TestWhatAConsumerHasGonePastIsLetGoWhenItsLeaseIsLookedAt(t *testing.T) {
	for _, n := range []int{4, 5} {
		f := newFixture[int](t)
		l := f.inStep(n, 100, 0)
		for range 2 { // with the second the lease has its messages in a block
			require.True(t, f.Detach(l, 0))
			require.True(t, f.Next(l))
		}
		_, ok := l.Word.Step(l.Word.Place())
		require.True(t, ok)
		require.NotZero(t, l.block.Items[2])
		if n == 4 { // nothing waits any more
			f.Count()
		} else {
			require.True(t, f.Detach(l, 0))
		}
		require.Zero(t, l.block.Items[2])
	}
}

func TestWhatIsDoneIsCountedUnderTheLock(t *testing.T) {
	f := newFixture[int](t)
	l := f.inStep(4, 100, 0)
	require.True(t, l.Word.AckCurrent(f.First(l).Stamp))
	require.Equal(t, 4, f.Held(), "nobody has looked")
	require.True(t, f.Next(l))
	require.Equal(t, 3, f.Held())
	_, ok := l.Word.Step(l.Word.Place())
	require.True(t, ok)
	f.TakeBack(l, func(Out[int]) {})
	require.Equal(t, 1, f.Held(), "the current one")
	f.Tally()
	f.inStep(1, 100, 0)
	began, _ := f.Tally()
	require.Equal(t, 1, began, "nothing waits that could begin without the lock")
}

func TestALeaseThatIsUsedAgainForgetsItsDeadline(t *testing.T) {
	f := newFixture[int](t)
	l := f.whole(f.items(1), 100, 0)
	require.True(t, f.AckWhole(l))
	require.True(t, f.Again(l, 1, 50))
	at, stamp, ok := f.NextDue()
	require.True(t, ok)
	require.Equal(t, int64(150), at)
	require.Equal(t, f.First(l).Stamp, stamp)
}

func TestATableOfOneConsumerIsOneAllocation(t *testing.T) {
	f := newFixture[int](t)
	pool := new(block.Pool)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() {
		table := New[int](&f.stamps, pool, f.origin)
		l := table.InStep(f, 1, 0, 100)
		table.Ack(table.First(l))
		table.End(l, 0)
	}), 1.0)
}

func TestATableThatHadManyConsumersKeepsRoomForFew(t *testing.T) {
	f := newFixture[int](t)
	var ls []*Lease[int]
	for range 1000 {
		ls = append(ls, f.inStep(1, 100, 0))
	}
	for len(ls) > 0 {
		l := ls[0]
		ls = ls[1:]
		f.Ack(f.First(l))
		f.End(l, 0)
		require.LessOrEqual(t, cap(f.steps), max(64, 4*len(ls)+4))
	}
	require.GreaterOrEqual(t, cap(f.steps), 16, "of few it keeps the room")
	require.LessOrEqual(t, len(f.heads), headsLen)
}

func TestABlockIsFilledUntilItIsFull(t *testing.T) {
	f := newFixture[int](t)
	var blocks []int32
	for range 5 { // each is settled before the next
		r := f.receive(1, 100, 0)[0]
		require.False(t, f.Spare())
		require.True(t, f.Ack(r))
		blocks = append(blocks, r.Block)
	}
	require.Equal(t, blocks[0], blocks[3], "four places")
	require.Equal(t, Len-1, f.filling.Room(), "a block was filled: the next is a large one")
	require.True(t, f.Spare())
	l := f.inStep(1, 100, 0)
	f.Ack(f.First(l))
	require.False(t, f.Spare(), "a consumer has a lease")
	f.End(l, 0)
	require.True(t, f.Spare())
}

// TestWhatRestAndTrimGiveBack has a consumer whose lease keeps two that are over, and the places of
// callers' messages.
func TestWhatRestAndTrimGiveBack(t *testing.T) {
	testGivenBack[int](t, true)
	testGivenBack[large](t, false)
}

func testGivenBack[T comparable](t *testing.T, keepsPlaces bool) {
	var none message.Item[T]
	for _, trim := range []bool{false, true} {
		f := newFixture[T](t)
		var over []*Lease[T] // what is left of them is kept, for the next
		for range 4 {
			over = append(over, f.whole(f.items(1), 100, 0))
		}
		for _, l := range over {
			require.True(t, f.AckWhole(l))
			f.End(l, 0)
		}
		l := f.inStep(4, 100, 0)
		f.Detach(l, 0)
		f.Next(l)
		f.Detach(l, 0)
		f.Next(l)
		_, ok := l.Word.Step(l.Word.Place())
		require.True(t, ok)
		r := f.receive(3, 100, 0)
		f.Ack(r[0])
		f.Ack(r[1])
		filled := f.filling

		delivered := uint64(7)
		if trim {
			delivered = 0 // as it was told last
		}
		require.False(t, f.Rest(delivered), "something is in flight")
		require.Equal(t, none, l.block.Items[2], "what the consumer has gone past")
		require.Equal(t, keepsPlaces, f.filling == filled, "a large block is more than it may keep")
		require.NoError(t, f.Check())
		if trim {
			require.Empty(t, f.heads)
		}
		require.True(t, f.Ack(r[2]))

		f.TakeBack(l, func(Out[T]) {})
		for _, k := range []int{0, 1, 3} {
			require.True(t, f.Ack(f.First(l).Next(k)))
		}
		require.False(t, f.Rest(8), "a consumer has a lease")
		f.End(l, 0)
		require.True(t, f.Rest(9), "it has kept something")
		require.False(t, f.Rest(9))
		require.Zero(t, f.bytes())
	}
}

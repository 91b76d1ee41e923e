package lease

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
)

func TestANilTableIsEmpty(t *testing.T) {
	var none *Table[int]
	require.Zero(t, none.Counts())
	for name, n := range map[string]int{"held": none.Held(), "waiting": none.Waiting(), "timed": none.Timed(), "timed out": none.TimedOut()} {
		require.Zero(t, n, name)
	}
	require.Nil(t, none.FirstAhead())
	require.Empty(t, none.Leases())
	require.Empty(t, none.InFlight())
	require.False(t, none.Steps())
	require.False(t, none.Spare())
	require.False(t, none.Ack(message.Ref{}))
	_, open := none.Open(message.Ref{})
	require.Zero(t, open)
	_, _, ok := none.NextDue()
	require.False(t, ok)
	_, ok = none.Oldest()
	require.False(t, ok)
	_, ok = none.TimeOut(1, due.Never, 2)
	require.False(t, ok)
	_, ok = none.FirstTimedOut()
	require.False(t, ok)
	_, ok = none.TakeTimedOut(1, 1, 1)
	require.False(t, ok)
	_, ok = none.PopTimedOut()
	require.False(t, ok)
	began, acked := none.Tally()
	require.Zero(t, began+acked)
	none.Count()
	none.Clean()
	none.Trim()
}

func TestADeliveryThatIsOverHasNoPast(t *testing.T) {
	f := newFixture[int](t)
	r := f.receive(2, 100, 0)
	_, ok := f.Past(r[1])
	require.True(t, ok)
	require.True(t, f.Ack(r[1]))
	_, ok = f.Past(r[1])
	require.False(t, ok)
	l := f.inStep(1, 100, 0)
	_, ok = f.Past(f.First(l))
	require.True(t, ok)
	require.True(t, f.Ack(f.First(l)))
	_, ok = f.Past(f.First(l))
	require.False(t, ok)
	out, ok := f.Extract(f.First(l), 0)
	require.False(t, ok)
	require.Zero(t, out)
}

func TestALeaseIsLookedAtAfterItsAgeOrItsTimeout(t *testing.T) {
	f := newFixture[int](t)
	l := f.inStep(2, 100, 1000)
	for age, want := range map[int64]int64{0: 1000, 1: 1001, 99: 1099, 100: 1100, 101: 1100, math.MaxInt64: 1100} {
		require.Equal(t, want, l.CheckAt(age))
	}
	long := f.inStep(2, math.MaxInt64, 1000)
	require.Equal(t, int64(math.MaxInt64), long.CheckAt(math.MaxInt64))
}

// TestWhatTimesOutTogether has a block of four, of which the first two are due, in each state in
// which it may be; in some each message times out alone.
func TestWhatTimesOutTogether(t *testing.T) {
	callers := func(f *fixture[int]) { f.receive(4, 100, 0) }
	old := func(spent uint32, x *message.Extra) func(f *fixture[int]) {
		return func(f *fixture[int]) {
			l := f.Fill(4, 100)
			for range 4 {
				it := f.items(1)[0]
				it.Ext = x
				f.AddPast(l, it, message.Past{Spent: spent}, 0)
			}
		}
	}
	for name, row := range map[string]struct {
		begin    func(f *fixture[int])
		most     int
		together bool
	}{
		"they are callers'":        {callers, 2, true},
		"the first attempt is all": {callers, 1, false},
		"each has to be told of":   {callers, 0, false},
		"one attempt is left":      {old(1, nil), 3, true},
		"no attempt is left":       {old(1, nil), 2, false},
		"told of, with a past":     {old(1, nil), 0, false},
		"with attributes":          {old(0, &message.Extra{ID: "x"}), 2, true},
		"with keys":                {old(0, &message.Extra{Key: "k"}), 2, false},
		"of a consumer":            {func(f *fixture[int]) { f.whole(f.items(4), 100, 0) }, 2, false},
		"left by their consumer":   {func(f *fixture[int]) { f.End(f.whole(f.items(4), 100, 0), 0) }, 2, true},
		"left, with a time to live": {func(f *fixture[int]) {
			items := f.items(4)
			items[3].Ext = &message.Extra{TTL: 1}
			f.End(f.whole(items, 100, 0), 0)
		}, 2, false},
		"extended to what they have": {func(f *fixture[int]) { f.Extend(f.receive(4, 100, 0)[1], 100, 0) }, 2, true},
		"extended":                   {func(f *fixture[int]) { f.Extend(f.receive(4, 100, 0)[1], 101, 0) }, 2, false},
		"an extended one is over": {func(f *fixture[int]) {
			r := f.receive(5, 100, 0)[4]
			f.Extend(r, 101, 0)
			f.Ack(r)
		}, 2, true},
		"some have timed out": {func(f *fixture[int]) {
			f.receive(2, 100, -50)
			f.receive(2, 100, 0)
			_, ok := f.TimeOut(50, due.Never, 2)
			require.True(t, ok)
		}, 2, false},
	} {
		f := newFixture[int](t)
		row.begin(f)
		_, first, ok := f.NextDue()
		require.True(t, ok)
		e, ok := f.TimeOut(100, due.Instant{At: 100, Stamp: first + 2}, row.most)
		require.True(t, ok)
		require.Equal(t, row.together, e.Several, name)
		require.NoError(t, f.Check(), name)
		if row.together {
			require.Equal(t, 2, e.Len(), "%s: what is to come after another does", name)
			for stamp, n := range e.Runs() {
				require.Equal(t, []uint64{first, 2}, []uint64{stamp, uint64(n)}, name)
			}
		}
	}
}

func TestWhatTimedOutIsTakenInPlaceWhileOthersAreReceived(t *testing.T) {
	f := newFixture[int](t)
	r := f.receive(4, 100, 0)
	require.True(t, f.Ack(r[3]))
	callers := f.receive(8, 100, 10) // in another block, which is filled
	_, ok := f.TimeOut(100, due.Never, 5)
	require.True(t, ok)
	more := f.receive(1, 100, 100)
	require.Equal(t, callers[7].Block, more[0].Block, "that another block times out is nothing to it")

	_, ok = f.TakeTimedOut(0, 100, 100)
	require.False(t, ok, "none is wanted")
	again, ok := f.TakeTimedOut(1, 100, 100)
	require.True(t, ok)
	require.Len(t, again.Items, 1)
	for _, it := range f.slots.At(r[0].Block).Lease.block.Items {
		require.NotEqual(t, uint64(4), it.Seq, "it is over")
	}
	_, ok = f.TakeTimedOut(2, 200, 150)
	require.False(t, ok, "the block has another timeout")
	rest, ok := f.TakeTimedOut(2, 100, 150)
	require.True(t, ok)
	for k, r := range []message.Ref{again.First, rest.First, rest.First.Next(1)} {
		at, ok := f.Deadline(r, 150)
		require.True(t, ok)
		require.Equal(t, []int64{200, 250, 250}[k], at)
		require.Equal(t, int32(2), r.Attempt)
	}
	require.NoError(t, f.Check())
}

func TestWhatIsFilledAndTimesOutIsNotFilledAnyMore(t *testing.T) {
	f := newFixture[int](t)
	r := f.receive(2, 100, 0)
	_, ok := f.TimeOut(100, due.Never, 5)
	require.True(t, ok)
	require.NotEqual(t, r[0].Block, f.receive(1, 100, 100)[0].Block)
	_, ok = f.TakeTimedOut(2, 100, 100)
	require.True(t, ok)
	require.NoError(t, f.Check())
}

func TestABlockOfWhichTheOthersWereSettledIsTakenAgainInPlace(t *testing.T) {
	f := newFixture[int](t)
	f.receive(2, 100, 0)
	others := f.receive(2, 100, 50)
	_, ok := f.TimeOut(100, due.Never, 5)
	require.True(t, ok)
	for _, r := range others {
		require.True(t, f.Ack(r))
	}
	again, ok := f.TakeTimedOut(5, 300, 120)
	require.True(t, ok)
	at, stamp, ok := f.NextDue()
	require.True(t, ok)
	require.Equal(t, int64(420), at, "the timeout is the one it is taken with")
	require.Equal(t, again.First.Stamp, stamp)
}

func TestWhatWasTakenAgainInPartKeepsOneAttemptWhenItIsTakenOut(t *testing.T) {
	f := newFixture[int](t)
	f.receive(2, 100, 0)
	_, ok := f.TimeOut(100, due.Never, 5)
	require.True(t, ok)
	_, ok = f.TakeTimedOut(1, 100, 100)
	require.True(t, ok)
	out, ok := f.PopTimedOut()
	require.True(t, ok)
	require.Equal(t, uint32(1), out.Past.Spent)
	require.Len(t, out.Past.Hist.Attempts(out.Item.Seq), 1)
}

func TestAMessageKeepsWhenItBegan(t *testing.T) {
	f := newFixture[int](t)
	l := f.inStep(2, 100, 10)
	first := f.First(l)
	out, ok := f.Extract(first, 50)
	require.True(t, ok)
	require.Equal(t, int64(10), out.Start, "the first began when it was taken")
	require.True(t, f.Next(l))
	out, ok = f.Extract(first.Next(1), 70)
	require.True(t, ok)
	require.Equal(t, int64(70), out.Start, "its consumer knows nothing better than now")
	require.True(t, f.Done(l))
}

func TestHowMuchIsBegunDependsOnHowLargeMessagesAre(t *testing.T) {
	require.Equal(t, block.Small, least[int]())
	require.Equal(t, 1, least[[32 << 10]byte]())

	small, large := newFixture[int](t), newFixture[[1024]byte](t)
	require.Equal(t, Len, small.Fill(Len+1, 100).Room())
	require.Equal(t, block.Small, newFixture[int](t).Fill(1, 100).Room())
	for k := range Len { // a block of callers' was filled: the next is a large one
		small.receive(1, 100, 0)
		large.receive(1, 100, 0)
		require.LessOrEqual(t, len(large.filling.block.Items), 4*(k+1), "a few places for each message")
	}
	small.receive(1, 100, 0)
	require.Equal(t, Len-1, small.filling.Room())
}

package lease

import (
	"math"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/slots"
)

// A fixture is a table whose messages have numbers that count up.
type fixture[T any] struct {
	*Table[T]
	stamps counter
	seq    uint64
	kept   map[*Lease[T]][]message.Item[T] // of consumers
}

// Message is what the consumers of a fixture keep.
func (f *fixture[T]) Message(l *Lease[T], k int) message.Item[T] { return f.kept[l][k] }
func (f *fixture[T]) At(l *Lease[T], k int) int64                { return f.kept[l][k].At }
func (f *fixture[T]) Began(now int64) int64                      { return now }

func newFixture[T any](t testing.TB) *fixture[T] {
	f := &fixture[T]{kept: map[*Lease[T]][]message.Item[T]{}}
	f.Table = New[T](&f.stamps, new(block.Pool), origin(t))
	return f
}

func (f *fixture[T]) items(n int) []message.Item[T] {
	items := make([]message.Item[T], n)
	for k := range items {
		f.seq++
		items[k].Seq = f.seq
	}
	return items
}

// receive puts n messages in flight for callers.
func (f *fixture[T]) receive(n int, vis, now int64) (refs []message.Ref) {
	for len(refs) < n {
		l := f.Fill(n-len(refs), vis)
		k := l.Len()
		f.Add(l, f.items(min(n-len(refs), l.Room())), now)
		r := f.Run(l, k)
		for j := range r.Items {
			refs = append(refs, r.First.Next(j))
		}
	}
	return refs
}

func (f *fixture[T]) inStep(n int, vis, now int64) *Lease[T] {
	return f.inStepOf(f.items(n), vis, now)
}

func (f *fixture[T]) inStepOf(items []message.Item[T], vis, now int64) *Lease[T] {
	l := f.InStep(f, len(items), now, vis)
	f.kept[l] = items
	return l
}

func (f *fixture[T]) whole(items []message.Item[T], vis, now int64) *Lease[T] {
	l := f.Whole(f, len(items), now, vis)
	f.kept[l] = items
	return l
}

func (f *fixture[T]) timeOutOne(t *testing.T, now int64) message.Ref {
	t.Helper()
	e, ok := f.TimeOut(now, due.Never, 0)
	require.True(t, ok)
	return message.Ref{Stamp: e.Out.Stamp}
}

func TestOfOneInstantTheLowerStampTimesOutFirst(t *testing.T) {
	f := newFixture[int](t)
	step := f.inStep(64, 100, 0) // stamps 1 to 64
	callers := f.receive(3, 100, 5)
	_, ok := step.Word.Step(step.Word.Place())
	require.True(t, ok)
	require.True(t, f.Detach(step, 5)) // 2: as late as the callers' in another block
	late := f.receive(1, 100, 6)
	short := f.receive(1, 99, 6) // due with the first, and taken after them

	for _, want := range []uint64{2, callers[0].Stamp, callers[1].Stamp, callers[2].Stamp, short[0].Stamp} {
		at, stamp, ok := f.NextDue()
		require.True(t, ok)
		require.Equal(t, int64(105), at)
		require.Equal(t, want, stamp)
		_, ok = f.TimeOut(104, due.Never, 0)
		require.False(t, ok, "too early")
		_, ok = f.TimeOut(200, due.Instant{At: 105, Stamp: want}, 0)
		require.False(t, ok, "an entry of that instant with a lower stamp is first")
		require.Equal(t, want, f.timeOutOne(t, 105).Stamp)
		require.NoError(t, f.Check())
	}
	at, stamp, _ := f.NextDue()
	require.Equal(t, int64(106), at)
	require.Equal(t, late[0].Stamp, stamp)
}

func TestBlocksThatTimeOutTogetherDoNotOvertakeEachOther(t *testing.T) {
	f := newFixture[int](t)
	a := f.receive(2, 100, 0)
	l := f.whole(f.items(1), 100, 10)
	f.End(l, 10)
	a = append(a, f.receive(1, 100, 20)...) // behind the worker's, in the first block
	require.Equal(t, a[0].Block, a[2].Block)

	var order []uint64
	for e, ok := f.TimeOut(1000, due.Never, math.MaxInt); ok; e, ok = f.TimeOut(1000, due.Never, math.MaxInt) {
		for first, n := range e.Runs() {
			for k := range n {
				order = append(order, first+uint64(k))
			}
		}
	}
	require.Equal(t, []uint64{a[0].Stamp, a[1].Stamp, f.stamp(l, 0), a[2].Stamp}, order)
}

func (f *fixture[T]) stamp(*Lease[T], int) uint64 { return 5 } // the first block has four places

func TestABlockOfWhichSomeAreInFlightStillIsNotTakenAgainInPlace(t *testing.T) {
	f := newFixture[int](t)
	refs := f.receive(2, 100, 0)
	more := f.receive(2, 100, 50)
	e, ok := f.TimeOut(100, due.Never, 10)
	require.True(t, ok)
	require.Equal(t, 2, e.Len())
	_, ok = f.TakeTimedOut(10, 100, 100)
	require.False(t, ok)
	for range 2 {
		out, ok := f.PopTimedOut()
		require.True(t, ok)
		require.Equal(t, uint32(1), out.Past.Spent)
		require.Len(t, out.Past.Hist.Attempts(out.Item.Seq), 1)
	}
	require.False(t, f.Ack(refs[0]))
	require.True(t, f.Ack(more[0]))
	require.NoError(t, f.Check())

	again, ok := f.TimeOut(150, due.Never, 10)
	require.True(t, ok)
	require.Equal(t, 1, again.Len())
	r, ok := f.TakeTimedOut(10, 100, 150)
	require.True(t, ok, "nothing else of it is in flight")
	require.NotEqual(t, more[1].Stamp, r.First.Stamp)
	require.False(t, f.Ack(more[1]), "its delivery is over")
	require.True(t, f.Ack(r.First))
}

func TestAMessageThatTimesOutOverAndOverHasItsWholeHistory(t *testing.T) {
	const together = 8 // as block has it
	f := newFixture[int](t)
	f.receive(64, 100, 0)
	now := int64(0)
	for attempt := 2; attempt <= together+1; attempt++ {
		now += 100
		e, ok := f.TimeOut(now, due.Never, math.MaxInt)
		require.True(t, ok)
		require.Equal(t, 64, e.Len())
		n := 0
		for r, ok := f.TakeTimedOut(10, 100, now); ok; r, ok = f.TakeTimedOut(10, 100, now) {
			require.Equal(t, int32(attempt), r.First.Attempt)
			h := r.History.Attempts(r.Items[0].Seq)
			require.Len(t, h, attempt-1)
			for k, a := range h {
				require.Equal(t, k+1, a.Number)
				require.Equal(t, message.TimedOut, a.Cause)
				require.EqualValues(t, 100, a.Elapsed)
				require.Equal(t, f.origin.Clock.Time(int64(100*k)), a.Start)
			}
			n += len(r.Items)
		}
		require.Equal(t, 64, n)
		require.NoError(t, f.Check())
	}
	e, ok := f.TimeOut(now+100, due.Never, math.MaxInt)
	require.True(t, ok)
	require.False(t, e.Several, "after eight in a row each has a history of its own")
	require.Equal(t, uint32(together), e.Out.Past.Spent)
	require.Len(t, e.Out.Past.Hist.Attempts(e.Out.Item.Seq), together)
}

func TestMessagesWithAPastAreInABlockWithOthers(t *testing.T) {
	f := newFixture[int](t)
	l := f.Gather(f, 5, 100)
	f.Add(l, f.items(1), 0)
	old := message.Past{Hist: (*message.History)(nil).With(message.Kept{Attempt: message.Attempt{Cause: message.Failed}}), Spent: 1, Passes: 3}
	f.AddPast(l, f.items(1)[0], old, 0)
	f.Add(l, f.items(3), 0)
	var attempts []int32
	for k := 0; k < l.Len(); {
		r := f.Run(l, k)
		for range r.Items {
			attempts = append(attempts, r.First.Attempt)
		}
		require.Equal(t, k == 1, r.History != nil)
		k += len(r.Items)
	}
	require.Equal(t, []int32{1, 2, 1, 1, 1}, attempts)
	var outs []Out[int]
	f.TakeBack(l, func(Out[int]) { require.Fail(t, "nothing waits: all has begun") })
	for k := range l.Len() - 1 {
		out, ok := f.Extract(message.Ref{Stamp: f.slot(l).Base + uint64(k) + 1, Block: l.due.ID}, 0)
		require.True(t, ok)
		outs = append(outs, out)
	}
	require.Len(t, outs, 4)
	require.Equal(t, old, outs[0].Past)
	require.Zero(t, outs[1].Past)
	require.NoError(t, f.Check())
}

func TestMessagesOfDifferentAttemptsAreDifferentRuns(t *testing.T) {
	f := newFixture[int](t)
	l := f.Gather(f, 3, 100)
	for k := range 3 {
		f.AddPast(l, f.items(1)[0], message.Past{Spent: uint32(k / 2)}, 0)
	}
	require.Len(t, f.Run(l, 0).Items, 2)
	require.Equal(t, int32(2), f.Run(l, 2).First.Attempt)
	_, ok := f.TimeOut(100, due.Never, 5)
	require.True(t, ok, "its consumer has it: one")
	f.End(l, 100)
	e, ok := f.TimeOut(100, due.Never, 5)
	require.True(t, ok)
	require.True(t, e.Several)
	for want := range int32(2) {
		r, ok := f.TakeTimedOut(5, 100, 100)
		require.True(t, ok)
		require.Len(t, r.Items, 1)
		require.Equal(t, want+2, r.First.Attempt)
	}
}

func TestWhatABlockHeldBeforeIsLetGoWhenItIsLeft(t *testing.T) {
	f := newFixture[*int](t)
	items := f.items(64)
	for k := range items {
		items[k].Body = new(int)
	}
	l := f.inStepOf(items, 100, 0)
	f.TakeBack(l, func(Out[*int]) {})
	f.Ack(f.First(l))
	f.End(l, 0)
	l = f.inStepOf(items, 100, 0)
	for range 63 {
		l.Word.Step(l.Word.Place())
	}
	f.Count()
	_, acked := f.Tally()
	require.Equal(t, 1+63, acked)
	f.Ack(message.Ref{Stamp: l.Word.Place().Stamp(), Block: l.due.ID})
	f.End(l, 0)
	l = f.Gather(f, 64, 100)
	f.Add(l, items, 0)
	f.AckWhole(l)
	f.End(l, 0)
	l = f.Gather(f, 64, 100)
	f.Add(l, items[:20], 0)
	f.End(l, 0)
	for _, it := range l.block.Items[l.n:] {
		require.Nil(t, it.Body)
	}
}

func TestABlockThatWasClearedWhileItWasFilledShrinksToo(t *testing.T) {
	f := newFixture[*int](t)
	refs := f.receive(1, 100, 0)
	l := f.Fill(64, 200) // another block, of 64 places
	f.Add(l, f.items(40), 0)
	r := f.Run(l, 0).First
	for k := range 35 { // with the last of them the block lets go of all that are over
		require.True(t, f.Ack(r.Next(k)))
	}
	f.Add(l, f.items(12), 0) // seventeen are left
	f.Fill(1, 100)
	require.Equal(t, Len, cap(l.block.Items))
	require.True(t, f.Ack(r.Next(35)))
	require.NoError(t, f.Check())
	require.Equal(t, block.Medium, cap(l.block.Items))
	require.True(t, f.Ack(refs[0]))
}

func TestWhatTimedOutIsForgottenAsItIsTaken(t *testing.T) {
	f := newFixture[int](t)
	now := int64(0)
	for range 2000 {
		now += 100
		f.receive(64, 100, now)
		_, ok := f.TimeOut(now+100, due.Never, 5)
		require.True(t, ok)
		if f.timedOut > 64 { // one block is always left
			for range 64 {
				_, ok := f.PopTimedOut()
				require.True(t, ok)
			}
		}
	}
	require.LessOrEqual(t, f.ranked.Bytes(), 16*256)
	require.NoError(t, f.Check())
	for range 64 {
		f.PopTimedOut()
	}
	f.receive(1, 100, now)
	f.TimeOut(now+100, due.Never, 5)
	require.Len(t, f.ranked.All(), 1)
}

func TestATableThatWasFullKeepsLittle(t *testing.T) {
	f := newFixture[*int](t)
	refs := f.receive(64_000, 100, 0)
	for _, r := range refs[1:] {
		f.Ack(r)
	}
	f.Trim()
	require.LessOrEqual(t, f.bytes(), 20<<10)
	f.Ack(refs[0])
	f.Trim()
	require.Zero(t, f.bytes())
	require.NoError(t, f.Check())
}

func TestATableThatIsBusyIsKeptUntilTheNextLook(t *testing.T) {
	f := newFixture[*int](t)
	look := func(now int64, delivered uint64) (again bool) {
		for _, r := range f.receive(3*Len, 100, now) {
			require.True(t, f.Ack(r))
		}
		return f.Rest(delivered)
	}
	require.True(t, look(0, 3*Len))
	kept := slices.Clone(f.heads)
	require.NotEmpty(t, kept)
	require.True(t, look(1, 6*Len))
	for _, l := range f.heads {
		require.True(t, slices.Contains(kept, l), "what it kept was used")
	}
	require.False(t, f.Rest(6*Len), "nothing was")
	require.Zero(t, f.bytes())
	require.False(t, (*Table[int])(nil).Rest(1))
}

func TestPlacesThatAreOverAreGivenToOtherTables(t *testing.T) {
	pool, origin := new(block.Pool), origin(t)
	var stamps [2]counter
	tables := [2]*Table[*int]{New[*int](&stamps[0], pool, origin), New[*int](&stamps[1], pool, origin)}
	items := make([]message.Item[*int], Len)
	for k := range items {
		items[k] = message.Item[*int]{Seq: uint64(k), Body: new(int)}
	}
	var used [2]map[*message.Item[*int]]bool
	used[0], used[1] = map[*message.Item[*int]]bool{}, map[*message.Item[*int]]bool{}
	again := false
	for round := range 20 { // the race detector has the pool forget some
		top := tables[round%2]
		var r Run[*int]
		top.Take(&r, items, Len, 100, int64(round))
		used[round%2][&r.Items[0]] = true
		again = again || used[1-round%2][&r.Items[0]]
		first, open := top.Open(r.First)
		require.Equal(t, r.First.Stamp, first)
		top.AckOpen(r.First.Block, open)
		require.Equal(t, make([]message.Item[*int], Len), r.Items, "they are empty")
		require.NoError(t, top.Check())
	}
	require.True(t, again)
}

func TestALeaseIsLeftOnlyWhenNothingWaits(t *testing.T) {
	f := newFixture[int](t)
	l := f.inStep(2, 100, 0)
	require.Panics(t, func() { f.End(l, 0) })
}

func TestAnAcknowledgementOfTheLastMessageInStepIsMadeUnderTheLock(t *testing.T) {
	f := newFixture[int](t)
	l := f.inStep(1, 100, 0)
	r := f.First(l)
	require.False(t, l.Word.AckCurrent(r.Stamp))
	require.True(t, f.Ack(r))
	require.False(t, f.Ack(r))
	require.True(t, f.Done(l))
	began, acked := f.Tally()
	require.Equal(t, []int{1, 1}, []int{began, acked})
	f.End(l, 0)
	require.NoError(t, f.Check())
}

func TestADeadlineBeyondTheEndOfTimeIsTheEnd(t *testing.T) {
	f := newFixture[int](t)
	f.receive(1, math.MaxInt64, 10)
	at, _, _ := f.NextDue()
	require.Equal(t, int64(math.MaxInt64), at)
	_, ok := f.TimeOut(math.MaxInt64-1, due.Never, 10)
	require.False(t, ok)
}

func TestADeliveryThatIsOverHasNoDeadline(t *testing.T) {
	f := newFixture[int](t)
	refs := f.receive(2, 100, 10)
	require.True(t, f.Ack(refs[0]))
	_, ok := f.Deadline(refs[0], 20)
	require.False(t, ok)
	at, ok := f.Deadline(refs[1], 20)
	require.True(t, ok)
	require.Equal(t, int64(110), at)
	for _, r := range []message.Ref{{}, {Stamp: 1 << 60, Block: refs[1].Block}, {Stamp: refs[1].Stamp, Block: 77}, {Stamp: refs[1].Stamp, Block: -1}} {
		require.False(t, f.Ack(r))
	}
}

func TestThirtyTwoThousandLeasesNeedNoWalk(t *testing.T) {
	// Deadlines out of order and consumers that leave in any order: what is done for
	// one does not grow with the others. Counted in the comparisons of the heap.
	f := newFixture[int](t)
	var ls []*Lease[int]
	const n = 32_000
	for k := range n {
		l := f.whole(f.items(1), int64(1_000_000-k), 0) // each is due before all others
		ls = append(ls, l)
	}
	require.Zero(t, f.due.Outside(), "the line takes them at its front")
	for k := range n {
		l := f.whole(f.items(1), int64(970_000+k*7919%29_000), 0)
		ls = append(ls, l)
	}
	require.Positive(t, f.due.Outside())
	for k := range ls {
		l := ls[(k*7919)%len(ls)]
		require.True(t, f.AckWhole(l))
		f.End(l, 0)
	}
	require.Zero(t, f.Held())
	require.Zero(t, f.due.Outside())
	require.NoError(t, f.Check())
}

// TestWhatIsKeptPinsLittle: for any pattern of acknowledgements, a kept message
// pins at most four times itself and 48 bytes, beside 8 KiB a queue.
func TestWhatIsKeptPinsLittle(t *testing.T) {
	testPins[*int](t, "a pointer")
	testPins[[1024]byte](t, "a KiB")
	testPins[struct {
		p *int
		b [100]byte
	}](t, "108 bytes")
}

func testPins[T any](t *testing.T, name string) {
	var none T
	for _, every := range []int{1, 2, 3, 4, 5, 8, 16, 17, 63, 64} {
		for _, size := range []int{1, 7, 64} { // how many are received at once
			f := newFixture[T](t)
			var refs []message.Ref
			for len(refs) < 6400 {
				refs = append(refs, f.receive(min(size, 6400-len(refs)), 100, 0)...)
			}
			require.LessOrEqual(t, f.bytes(), 6400*(int(unsafe.Sizeof(none))+48)+8<<10, "%s: all in flight", name)
			kept := len(refs)
			for k, r := range refs {
				if k%every != 0 {
					require.True(t, f.Ack(r))
					kept--
				}
			}
			f.Trim()
			require.NoError(t, f.Check())
			assert.LessOrEqual(t, f.bytes(), 4*kept*(int(unsafe.Sizeof(none))+48)+8<<10,
				"%s: one of %d is kept, %d received at once", name, every, size)
		}
	}
}

func TestABlockThatAConsumerHasIsNoExceptionOnceItIsLookedAt(t *testing.T) {
	f := newFixture[[1024]byte](t)
	l := f.inStep(64, 100, 0)
	for range 20 {
		_, ok := l.Word.Step(l.Word.Place())
		require.True(t, ok)
	}
	f.Detach(l, 1)
	f.TakeBack(l, func(Out[[1024]byte]) {})
	f.Trim()
	require.LessOrEqual(t, f.bytes(), 4*1072+8<<10)
	require.True(t, f.Ack(message.Ref{Stamp: 21, Block: 0}))
	f.End(l, 1)
	require.NoError(t, f.Check())
}

func TestWhatIsOverIsLetGo(t *testing.T) {
	f := newFixture[*[64]byte](t)
	freed := 0
	items := func(n int) []message.Item[*[64]byte] {
		items := f.items(n)
		for k := range items {
			items[k].Body = new([64]byte)
			runtime.SetFinalizer(items[k].Body, func(*[64]byte) { freed++ })
		}
		return items
	}
	collect := func() int {
		for range 3 {
			runtime.GC()
		}
		done := make(chan int)
		b := new([64]byte)
		runtime.SetFinalizer(b, func(*[64]byte) { done <- freed }) // in the goroutine of the others
		b = nil
		for {
			runtime.GC()
			select {
			case n := <-done:
				return n
			default:
				runtime.Gosched()
			}
		}
	}
	step := f.inStepOf(items(50), 100, 0)
	require.True(t, f.Detach(step, 0))
	require.True(t, f.Next(step))
	require.True(t, f.Detach(step, 0)) // with the second the lease has its messages in a block
	delete(f.kept, step)               // the consumer has none of them any more
	first := f.slot(step).Base
	require.True(t, f.Next(step))
	for range 17 {
		require.True(t, f.Ack(message.Ref{Stamp: step.Word.Place().Stamp(), Block: step.due.ID}))
		require.True(t, f.Next(step))
	}
	require.True(t, f.Ack(message.Ref{Stamp: first, Block: step.due.ID}))
	require.True(t, f.Ack(message.Ref{Stamp: first + 1, Block: step.due.ID}))
	batch := f.Gather(f, 10, 100)
	f.Add(batch, items(10), 0)
	tenth := f.Run(batch, 0).First
	require.True(t, f.Ack(f.Run(batch, 3).First))
	f.Clean()
	require.Equal(t, 20, collect(), "a busy consumer's")
	require.True(t, step.Word.AckCurrent(step.Word.Place().Stamp()))
	f.Clean()
	require.Equal(t, 21, collect(), "the current one of a range is acknowledged")
	f.TakeBack(step, func(Out[*[64]byte]) {})
	require.Equal(t, 51, collect(), "what is taken back is not the table's")
	f.End(step, 0)
	f.End(batch, 0)
	f.Clean()
	require.Equal(t, 51, collect(), "nine of the batch are in flight")
	for k := range 10 {
		f.Ack(tenth.Next(k))
	}
	f.Clean()
	require.Equal(t, 60, collect())
	left := f.inStepOf(items(3), 100, 0) // a consumer that leaves hands over what is in flight, and nothing else
	require.True(t, f.Detach(left, 0))
	f.TakeBack(left, func(Out[*[64]byte]) {})
	f.End(left, 0)
	delete(f.kept, left)
	f.Clean()
	require.Equal(t, 62, collect())
	require.Equal(t, 1, f.Held())
	runtime.KeepAlive(f)
}

func TestSizes(t *testing.T) {
	require.LessOrEqual(t, int(unsafe.Sizeof(Lease[*int]{})), 144)
	require.LessOrEqual(t, int(unsafe.Sizeof(slots.Slot[*Lease[*int]]{})), 40)
	require.Equal(t, 16, int(unsafe.Sizeof(message.Ref{})))
}

func TestNoAllocationADelivery(t *testing.T) {
	var f *fixture[*int]
	var again *Lease[*int]
	items := make([]message.Item[*int], 64)
	now := int64(0)
	for name, round := range map[string]func(){
		"in step": func() {
			l := f.inStepOf(items, 1000, now)
			for p, ok := l.Word.Step(l.Word.Place()); ok; p, ok = l.Word.Step(p) {
			}
			f.Ack(message.Ref{Stamp: l.Word.Place().Stamp(), Block: l.due.ID})
			f.End(l, now)
		},
		"in step, one by one": func() {
			l := f.inStepOf(items[:1], 1000, now)
			f.Ack(f.First(l))
			f.End(l, now)
		},
		"again": func() {
			if again == nil {
				again = f.inStepOf(items, 1000, now)
			} else {
				require.True(t, f.Again(again, 64, now))
			}
			for p, ok := again.Word.Step(again.Word.Place()); ok; p, ok = again.Word.Step(p) {
			}
			f.Ack(f.First(again).Next(63))
		},
		"detached": func() {
			l := f.inStepOf(items, 1000, now)
			for more := true; more; more = f.Next(l) {
				f.Detach(l, now)
			}
			for k := range 64 {
				f.Ack(message.Ref{Stamp: l.Word.Place().Stamp() - uint64(k), Block: l.due.ID})
			}
			f.End(l, now)
		},
		"whole": func() {
			l := f.whole(items, 1000, now)
			f.AckWhole(l)
			f.End(l, now)
		},
		"gathered": func() {
			l := f.Gather(f, 64, 1000)
			f.Add(l, items, now)
			f.AckWhole(l)
			f.End(l, now)
		},
		"received and acknowledged singly": func() {
			l := f.Fill(1, 1000)
			k := l.Len()
			f.Add(l, items[:1], now)
			f.Ack(f.Run(l, k).First)
		},
		"received in bulk": func() {
			l := f.Fill(64, 1000)
			k := l.Len()
			n := f.Add(l, items, now)
			r := f.Run(l, k).First
			_, open := f.Open(r)
			f.AckOpen(r.Block, open&mask(k, n))
		},
	} {
		f = newFixture[*int](t)         // nothing of another round can be used
		held := f.receive(1, 1000, now) // something else is in flight
		n := testing.AllocsPerRun(200, func() {
			now++
			round()
			f.NextDue()
		})
		require.Zero(t, f.Held()-1, name)
		if name == "detached" { // it shrinks on its way out: three smaller blocks
			require.LessOrEqual(t, n, 7.0, name)
		} else {
			require.Zero(t, n, name)
		}
		require.True(t, f.Ack(held[0]))
		require.NoError(t, f.Check())
	}
}

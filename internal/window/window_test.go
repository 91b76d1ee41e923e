package window

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
)

// flood is more than any table or heap keeps for itself.
const flood = 100_000

// fill adds n entries and returns their numbers.
func fill(w *Window[int], n int) []int32 {
	all := make([]int32, n)
	for k := range all {
		all[k] = w.Add(k + 1)
	}
	return all
}

// kept counts the chunks that w has.
func kept[E any](w *Window[E]) (n int) {
	for _, c := range w.chunks {
		if c != nil {
			n++
		}
	}
	return n
}

func TestTheZeroWindowIsEmpty(t *testing.T) {
	var w Window[int]
	var l List
	require.NoError(t, check(&w, &l))
	require.Zero(t, w.Len())
	require.Zero(t, l.Len())
	_, ok := w.Pop(&l)
	require.False(t, ok)
	_, ok = w.NextDue()
	require.False(t, ok)
	_, ok = w.PopDue(math.MaxInt64)
	require.False(t, ok)
	_, _, ok = w.Lowest()
	require.False(t, ok)
	require.False(t, w.Holds(0))
	require.False(t, w.Owns(0, 0))
	require.False(t, w.Owns(0, 1))
	w.All(func(int32) bool { t.Error("All found an entry"); return true })
}

func TestAllStopsWhenToldTo(t *testing.T) {
	var w Window[int]
	held := fill(&w, 3*chunkLen)
	for k := 0; k < len(held); k += 2 {
		w.Remove(held[k])
	}
	found := make(map[int32]bool)
	w.All(func(i int32) bool {
		require.False(t, found[i])
		found[i] = true
		return true
	})
	require.Len(t, found, len(held)/2)
	for k := 1; k < len(held); k += 2 {
		require.True(t, found[held[k]])
	}
	n := 0
	w.All(func(int32) bool { n++; return n < 5 })
	require.Equal(t, 5, n)
}

func TestAnEntryKeepsItsPlaceWhileOthersComeAndGo(t *testing.T) {
	var w Window[int]
	held := fill(&w, 10*chunkLen)
	stays := held[3*chunkLen+2]
	v, m := w.At(stays), w.Meta(stays)
	stamp := m.Stamp
	for _, i := range held {
		if i != stays {
			w.Remove(i)
		}
	}
	fill(&w, 50*chunkLen)
	require.Same(t, v, w.At(stays))
	require.Same(t, m, w.Meta(stays))
	require.True(t, w.Owns(stays, stamp))
	require.Equal(t, 3*chunkLen+3, *v)
}

// --- deadlines ---

func TestDeadlinesComeDueInOrderHoweverTheyWereScheduled(t *testing.T) {
	const n = 1000
	for name, at := range map[string]func(k int) int64{
		"rising":  func(k int) int64 { return int64(k) },
		"falling": func(k int) int64 { return int64(-k) },
		"equal":   func(int) int64 { return 7 },
		"mixed":   func(k int) int64 { return int64(k * 7919 % 101) },
		"extreme": func(k int) int64 { return []int64{math.MaxInt64, math.MinInt64, 0}[k%3] },
	} {
		t.Run(name, func(t *testing.T) {
			var w Window[int]
			want := make([]int64, n)
			for k := range n {
				want[k] = at(k)
				w.Schedule(w.Add(k), at(k))
			}
			slices.Sort(want)
			require.NoError(t, check(&w))
			lastStamp := uint64(0)
			for k, deadline := range want {
				next, ok := w.NextDue()
				require.True(t, ok)
				require.Equal(t, deadline, next)
				if deadline > math.MinInt64 {
					_, ok = w.PopDue(deadline - 1)
					require.False(t, ok, "an entry came before its time")
				}
				i, ok := w.PopDue(deadline)
				require.True(t, ok)
				m := w.Meta(i)
				require.Equal(t, deadline, m.Deadline)
				if k > 0 && want[k-1] == deadline {
					require.Greater(t, m.Stamp, lastStamp, "among equals the first to come is the first")
				}
				lastStamp = m.Stamp
			}
			_, ok := w.PopDue(math.MaxInt64)
			require.False(t, ok)
			require.NoError(t, check(&w))
		})
	}
}

func TestEqualDeadlinesAreServedInOrderAcrossLineAndHeap(t *testing.T) {
	var w Window[int]
	late := w.Add(0)
	w.Schedule(late, 100)
	first := w.Add(1)
	w.Schedule(first, 50) // earlier than the line's last: to the heap
	w.Unschedule(late)
	second := w.Add(2)
	w.Schedule(second, 50) // the line is empty: to the line
	third := w.Add(3)
	w.Schedule(late, 90)
	w.Schedule(third, 50) // to the heap again
	require.NoError(t, check(&w))
	require.EqualValues(t, inHeap, w.Meta(first).where)
	require.EqualValues(t, inLine, w.Meta(second).where)
	require.EqualValues(t, inHeap, w.Meta(third).where)
	for _, want := range []int32{first, second, third, late} {
		i, ok := w.PopDue(1000)
		require.True(t, ok)
		require.Equal(t, want, i)
	}
}

func TestAnEntryThatIsRescheduledWaitsForItsNewDeadlineOnly(t *testing.T) {
	var w Window[int]
	last := w.Add(0)
	w.Schedule(last, 1000)
	i := w.Add(1)
	for _, at := range []int64{50, 20, 70, 50, 50} { // all of them go to the heap
		w.Schedule(i, at)
		require.NoError(t, check(&w))
		next, ok := w.NextDue()
		require.True(t, ok)
		require.Equal(t, at, next)
		w.Unschedule(i)
	}
	w.Schedule(i, 60)
	_, ok := w.PopDue(59)
	require.False(t, ok)
	got, ok := w.PopDue(60)
	require.True(t, ok)
	require.Equal(t, i, got)
	_, ok = w.PopDue(999)
	require.False(t, ok, "an earlier scheduling came due as well")
}

func TestADeadlineDoesNotPassToTheNextHolderOfTheEntry(t *testing.T) {
	var w Window[int]
	last := w.Add(0)
	w.Schedule(last, 1000)
	i := w.Add(1)
	w.Schedule(i, 50)
	w.Rank(i, 1)
	w.Unschedule(i)
	w.Remove(i)
	require.Equal(t, i, w.Add(2), "the test needs the same entry again")
	_, ok := w.PopDue(999)
	require.False(t, ok)
	_, _, ok = w.Lowest()
	require.False(t, ok)
	w.Schedule(i, 50)
	got, ok := w.PopDue(50)
	require.True(t, ok)
	require.Equal(t, i, got)
	_, ok = w.PopDue(999)
	require.False(t, ok)
}

func TestAnEntryThatComesBackStandsBehindThoseWithItsDeadline(t *testing.T) {
	var w Window[int]
	last, i, other := w.Add(0), w.Add(1), w.Add(2)
	w.Schedule(last, 1000)
	w.Schedule(i, 50) // to the heap, as the next two
	w.Unschedule(i)
	w.Restamp(other)
	w.Schedule(other, 50)
	w.Restamp(i)
	w.Schedule(i, 50)
	for _, want := range []int32{other, i} {
		got, ok := w.PopDue(50)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	_, ok := w.PopDue(50)
	require.False(t, ok)
}

func TestDeadlinesInOrderNeedNoHeap(t *testing.T) {
	var w Window[int]
	for k := range 100 {
		w.Schedule(w.Add(k), int64(k/3))
	}
	require.Empty(t, w.heap.items)
	require.Equal(t, 100, w.line.Len())
}

func TestAHeapIsInOrderAfterItWasCleared(t *testing.T) {
	for gone := range 64 {
		var w Window[int]
		w.Schedule(w.Add(0), 1000)
		var held []int32
		for k := range 64 {
			i := w.Add(k)
			held = append(held, i)
			w.Schedule(i, int64(k*37%64))
		}
		for _, i := range held[:gone] { // nobody asks what is due meanwhile
			w.Unschedule(i)
		}
		w.Schedule(w.Add(64), 64)
		require.Len(t, w.heap.items, 65-gone, "the heap was not cleared")
		require.NoError(t, check(&w))
		last := int64(-1)
		for range 65 - gone {
			i, ok := w.PopDue(64)
			require.True(t, ok)
			require.Greater(t, w.Meta(i).Deadline, last)
			last = w.Meta(i).Deadline
		}
	}
}

// --- ranks ---

func TestLowestFollowsTheRanksUntilTheirStampsChange(t *testing.T) {
	var w Window[int]
	held := fill(&w, 500)
	for k, i := range held {
		w.Rank(i, int64(k*7919%500))
	}
	rand.New(rand.NewPCG(1, 4)).Shuffle(len(held), func(a, b int) { held[a], held[b] = held[b], held[a] })
	for want := range int64(500) {
		i, rank, ok := w.Lowest()
		require.True(t, ok)
		require.Equal(t, want, rank)
		require.EqualValues(t, want, (*w.At(i)-1)*7919%500)
		if want%2 == 0 {
			w.Restamp(i)
		} else {
			w.Remove(i)
		}
	}
	_, _, ok := w.Lowest()
	require.False(t, ok)
	require.NoError(t, check(&w))
}

// --- memory ---

func TestAHeapDropsWhatNoLongerCounts(t *testing.T) {
	var w Window[int]
	last := w.Add(0)
	w.Schedule(last, math.MaxInt64)
	i := w.Add(1)
	for k := range int64(flood) {
		w.Schedule(i, 1+k) // earlier than the line's last: to the heap
		w.Rank(i, k)
		w.Unschedule(i)
		w.Restamp(i)
	}
	const most = 128 + 128/8 // append rounds up to what the allocator has, which is more where an int has 32 bits
	require.LessOrEqual(t, cap(w.heap.items), most)
	require.LessOrEqual(t, cap(w.elder.items), most)
	require.NoError(t, check(&w))
}

func TestMemoryIsGivenBackInWhateverOrderEntriesGo(t *testing.T) {
	for name, order := range map[string]func([]int32){
		"first in first out": func([]int32) {},
		"last in first out":  slices.Reverse[[]int32],
		"random": func(s []int32) {
			rand.New(rand.NewPCG(1, 5)).Shuffle(len(s), func(a, b int) { s[a], s[b] = s[b], s[a] })
		},
		"one of each chunk, then the next": func(s []int32) {
			slices.SortFunc(s, func(a, b int32) int {
				if d := a%chunkLen - b%chunkLen; d != 0 {
					return int(d)
				}
				return int(a - b)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w Window[int]
			for _, n := range []int{flood, flood / 20} { // the second finds what the first left
				held := fill(&w, n)
				for k, i := range held {
					w.Rank(i, int64(k))
					w.Schedule(i, int64(k%3*1000)-int64(k)) // to the line and the heap
				}
				order(held)
				for k, i := range held {
					w.Unschedule(i)
					w.Remove(i)
					if left := n - k - 1; left == n/5 || left == 7 {
						require.NoError(t, check(&w))
						require.LessOrEqual(t, kept(&w), left+1, "chunks are kept that hold nothing")
					}
				}
				require.Zero(t, w.Len())
				require.Equal(t, 1, kept(&w))
				require.LessOrEqual(t, cap(w.chunks), 4)
				require.LessOrEqual(t, cap(w.open), 4)
				require.LessOrEqual(t, cap(w.holes), 4)
				require.LessOrEqual(t, cap(w.heap.items), 4)
				require.LessOrEqual(t, cap(w.elder.items), 4)
				require.NoError(t, check(&w))
			}
		})
	}
}

func TestTheTablesOfAWindowInUseDoNotGrow(t *testing.T) {
	var w Window[int]
	stays := w.Add(0)
	for range 10 {
		for _, i := range fill(&w, 10*chunkLen) {
			w.Remove(i)
		}
		require.NoError(t, check(&w))
		require.LessOrEqual(t, len(w.chunks), 11, "chunks that were given back leave their places unused")
	}
	require.True(t, w.Holds(stays))
}

func TestAnIdleWindowThatIsUsedNowAndThenAllocatesNothing(t *testing.T) {
	var w Window[int]
	var l List
	w.Remove(w.Add(1))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		i := w.Add(1)
		w.Push(&l, i)
		w.Pop(&l)
		w.Schedule(i, 1)
		w.PopDue(1)
		w.Remove(i)
	}))
}

func TestAWindowAtTheEdgeOfAChunkAllocatesNothing(t *testing.T) {
	var w Window[int]
	fill(&w, chunkLen)
	w.Remove(w.Add(1))
	require.Zero(t, testing.AllocsPerRun(100, func() { w.Remove(w.Add(1)) }),
		"a chunk is given back and made again for every entry")
}

// addPointers adds n entries that point at memory of their own.
//
//go:noinline
func addPointers(w *Window[*[64]byte], n int) (held []int32, refs []weak.Pointer[[64]byte]) {
	for range n {
		p := new([64]byte)
		held, refs = append(held, w.Add(p)), append(refs, weak.Make(p))
	}
	return held, refs
}

func TestWhatARemovedEntryHeldIsCollected(t *testing.T) {
	var w Window[*[64]byte]
	held, refs := addPointers(&w, 3*chunkLen)
	for k, i := range held {
		if k%3 == 0 {
			w.Remove(i)
		}
	}
	for range 3 {
		runtime.GC()
	}
	for k, ref := range refs {
		require.Equal(t, k%3 == 0, ref.Value() == nil, "entry %d", k)
	}
	runtime.KeepAlive(&w)
}

// --- stamps ---

func TestAStaleStampNeverMatchesAgain(t *testing.T) {
	const n, rounds = 10 * chunkLen, 30
	var w Window[int]
	r := rand.New(rand.NewPCG(1, 6))
	var stale, valid []pass
	for round := range rounds {
		for _, i := range fill(&w, n) {
			valid = append(valid, pass{i, w.Meta(i).Stamp})
		}
		for k := range valid {
			if r.IntN(4) == 0 {
				stale = append(stale, valid[k])
				valid[k].stamp = w.Restamp(valid[k].i)
			}
		}
		r.Shuffle(len(valid), func(a, b int) { valid[a], valid[b] = valid[b], valid[a] })
		left := 0
		if round%3 > 0 { // else everything goes, and so do the tables
			left = r.IntN(2 * chunkLen)
		}
		for _, p := range valid[left:] {
			require.True(t, w.Owns(p.i, p.stamp))
			w.Remove(p.i)
		}
		stale, valid = append(stale, valid[left:]...), valid[:left]
		require.NoError(t, check(&w))
		for _, p := range valid {
			require.True(t, w.Owns(p.i, p.stamp))
		}
		for _, p := range stale {
			if w.Owns(p.i, p.stamp) {
				require.Fail(t, "a stale stamp matches", "entry %d, stamp %d", p.i, p.stamp)
			}
		}
	}
}

func TestAnEntryBeyondTheTablesIsNotHeld(t *testing.T) {
	var w Window[int]
	held := fill(&w, flood)
	last := pass{held[flood-1], w.Meta(held[flood-1]).Stamp}
	require.True(t, w.Holds(last.i))
	require.True(t, w.Owns(last.i, last.stamp))
	for _, i := range held {
		w.Remove(i)
	}
	require.False(t, w.Holds(last.i))
	require.False(t, w.Owns(last.i, last.stamp))
	require.False(t, w.Owns(last.i, 0))
	for _, i := range held {
		if w.Holds(i) {
			require.Fail(t, "an empty window holds an entry", "entry %d", i)
		}
	}
}

// --- benchmarks ---

func BenchmarkAddScheduleUnscheduleRemoveInOrder(b *testing.B) {
	var w Window[[8]int64]
	b.ReportAllocs()
	for at := int64(0); b.Loop(); at++ {
		i := w.Add([8]int64{})
		w.Schedule(i, at)
		w.Unschedule(i)
		w.Remove(i)
	}
}

// many is what the larger benchmarks hold.
const many = 1_000_000

func fillMany(w *Window[[8]int64]) []int32 {
	held := make([]int32, many)
	for k := range held {
		held[k] = w.Add([8]int64{})
	}
	return held
}

func shuffle(s []int32) {
	rand.New(rand.NewPCG(1, 7)).Shuffle(len(s), func(a, b int) { s[a], s[b] = s[b], s[a] })
}

// One entry goes at random and another comes, with a million held throughout.
func BenchmarkReplaceAtRandomAmongAMillion(b *testing.B) {
	var w Window[[8]int64]
	held := fillMany(&w)
	shuffle(held)
	b.ReportAllocs()
	for k := 0; b.Loop(); k = (k + 1) % many {
		w.Remove(held[k])
		held[k] = w.Add([8]int64{})
	}
}

// A million are held and all go; an operation is the whole of it.
func BenchmarkRemoveAMillion(b *testing.B) {
	for name, order := range map[string]func([]int32){
		"in order": func([]int32) {}, "at random": shuffle,
	} {
		b.Run(name, func(b *testing.B) {
			var w Window[[8]int64]
			for b.Loop() {
				b.StopTimer()
				held := fillMany(&w)
				order(held)
				b.StartTimer()
				for _, i := range held {
					w.Remove(i)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/entry")
		})
	}
}

// A million are scheduled and all come due; an operation is the whole of it.
func BenchmarkPopDueOfAMillion(b *testing.B) {
	for name, at := range map[string]func(k int) int64{
		"in order":  func(k int) int64 { return int64(k) },
		"at random": func(k int) int64 { return int64(uint32(k) * 2654435761) },
	} {
		b.Run(name, func(b *testing.B) {
			var w Window[[8]int64]
			held := fillMany(&w)
			for b.Loop() {
				b.StopTimer()
				for k, i := range held {
					w.Schedule(i, at(k))
				}
				b.StartTimer()
				for n := range many {
					if _, ok := w.PopDue(math.MaxInt64); !ok {
						b.Fatalf("only %d were due", n)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/entry")
		})
	}
}

// Stamps that are reserved are given to no entry that comes after.
func TestReservedStampsAreNobodyElses(t *testing.T) {
	var w Window[int]
	i := w.Add(1)
	require.EqualValues(t, 1, w.Meta(i).Stamp)
	require.EqualValues(t, 2, w.Reserve(3))
	require.EqualValues(t, 5, w.Meta(w.Add(2)).Stamp)
	require.EqualValues(t, 6, w.Reserve(1))
	w.Restamp(i)
	require.EqualValues(t, 7, w.Meta(i).Stamp)
}

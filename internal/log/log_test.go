package log

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
)

// check walks the invariants of l that can be seen from the log itself.
func check[E any](t *testing.T, l *Log[E]) {
	t.Helper()
	require.LessOrEqual(t, l.Published(), l.Head())
	require.Positive(t, l.size)
	if l.tail == nil {
		return
	}
	require.Nil(t, l.tail.next)
	require.LessOrEqual(t, l.tail.base, l.head)
	require.LessOrEqual(t, l.head, l.tail.end())
}

// checkCursor walks the segments from c to the tail: they follow each other
// without a gap, and the cursor stands in one of them.
func checkCursor[E any](t *testing.T, l *Log[E], c Cursor[E]) {
	t.Helper()
	require.NotNil(t, c.seg)
	require.LessOrEqual(t, c.seg.base, c.pos)
	require.LessOrEqual(t, c.pos, l.head)
	s := c.seg
	for ; s.next != nil; s = s.next {
		if s.end() != s.next.base {
			require.Fail(t, "a gap", "segment [%d,%d) before %d", s.base, s.end(), s.next.base)
		}
	}
	require.Same(t, l.tail, s)
}

// value is what the tests append at a position.
func value(pos int64) int64 { return 3*pos + 1 }

func appendNext(l *Log[int64]) { l.Append(value(l.Head())) }

func appendN(l *Log[int64], n int) {
	for range n {
		appendNext(l)
	}
}

func TestAnEmptyLogHasNothingPublished(t *testing.T) {
	l := New[int64](4)
	check(t, l)
	require.Zero(t, l.Head())
	require.Zero(t, l.Published())
	l.Publish()
	require.Zero(t, l.Published())
	require.Nil(t, l.tail, "an empty log without cursors allocates no segment")
}

func TestASegmentHoldsAtLeastOneElement(t *testing.T) {
	for _, size := range []int{-1, 0, 1} {
		l := New[int64](size)
		c := l.Cursor()
		appendN(l, 3)
		checkCursor(t, l, c)
		require.Len(t, l.tail.items, 1)
		for pos := range int64(3) {
			require.Equal(t, value(pos), *c.Next())
		}
	}
}

func TestWhatIsAppendedIsPublishedLater(t *testing.T) {
	l := New[int64](2)
	appendN(l, 3)
	require.EqualValues(t, 3, l.Head())
	require.Zero(t, l.Published())
	l.Publish()
	require.EqualValues(t, 3, l.Published())
	appendNext(l)
	require.EqualValues(t, 4, l.Head())
	require.EqualValues(t, 3, l.Published())
	check(t, l)
}

func TestACursorReadsWhatIsAppendedAfterItInOrder(t *testing.T) {
	for size := 1; size <= 9; size++ {
		for before := range 2*size + 2 {
			t.Run(fmt.Sprintf("segments of %d, made after %d", size, before), func(t *testing.T) {
				l := New[int64](size)
				appendN(l, before)
				c := l.Cursor()
				checkCursor(t, l, c)
				require.EqualValues(t, before, c.Pos())
				appendN(l, 3*size+1)
				l.Publish()
				checkCursor(t, l, c)
				for pos := int64(before); pos < l.Published(); pos++ {
					require.Equal(t, pos, c.Pos())
					require.Equal(t, value(pos), *c.Peek())
					require.Equal(t, pos, c.Pos(), "Peek stays")
					require.Equal(t, value(pos), *c.Next())
					checkCursor(t, l, c)
				}
				require.Equal(t, l.Published(), c.Pos())
			})
		}
	}
}

func TestACursorThatCaughtUpContinuesInTheNextSegment(t *testing.T) {
	for size := 1; size <= 4; size++ {
		l := New[int64](size)
		c := l.Cursor()
		for pos := range int64(20) {
			appendNext(l)
			require.Equal(t, value(pos), *c.Next())
			check(t, l)
			checkCursor(t, l, c)
		}
	}
}

func TestAScanSeesWhatIsPublishedAndMovesNothing(t *testing.T) {
	l := New[int64](2)
	c := l.Cursor()
	appendN(l, 5)
	l.Publish()
	appendNext(l)
	c.Next()
	var seen []int64
	c.Scan(func(e *int64) bool {
		seen = append(seen, *e)
		return true
	})
	require.Equal(t, []int64{value(1), value(2), value(3), value(4)}, seen)
	require.EqualValues(t, 1, c.Pos())
	c.Scan(func(e *int64) bool {
		require.Equal(t, value(1), *e, "it ends when f says so")
		return false
	})
	for pos, want := range map[int64][]int64{0: {value(1), value(2)}, 3: {value(3), value(4)}, 4: {value(4)}, 5: nil, 9: nil} {
		seen = nil
		c.ScanFrom(pos, func(e *int64) bool {
			seen = append(seen, *e)
			return len(seen) < 2
		})
		require.Equal(t, want, seen, "from position %d", pos)
	}
	require.Equal(t, value(1), *c.Next())
}

func TestASegmentThatAllHaveLeftIsWrittenAnew(t *testing.T) {
	l := New[int64](firstSize)
	fast, slow := l.Cursor(), l.Cursor()
	appendNext(l)
	first := l.tail
	appendN(l, firstSize)
	l.Publish()
	fast.SkipTo(l.Head())
	require.EqualValues(t, 1, first.readers.Load())
	require.Equal(t, value(0), *slow.Peek(), "somebody reads it still")
	for range firstSize + 1 {
		slow.Next()
	}
	require.Zero(t, first.readers.Load())
	require.Equal(t, make([]int64, firstSize), first.items, "what it held is gone")
	require.Nil(t, first.next)

	last := l.Cursor()
	appendN(l, firstSize)
	for _, c := range []*Cursor[int64]{&fast, &slow, &last} {
		require.Equal(t, value(c.Pos()), *c.Next())
		c.Close()
		require.Equal(t, Cursor[int64]{}, *c)
		c.Close()
	}
	require.Zero(t, l.readers)
	require.Zero(t, l.tail.readers.Load())
}

func TestTheFirstSegmentsAreShort(t *testing.T) {
	l := New[int64](64)
	c := l.Cursor()
	appendN(l, firstSize+4*firstSize+64+1)
	var sizes []int
	for s := c.seg; s != nil; s = s.next {
		sizes = append(sizes, len(s.items))
	}
	require.Equal(t, []int{0, firstSize, 4 * firstSize, 64, 64}, sizes)
}

func TestASegmentThatIsTooLongIsNotUsedAgain(t *testing.T) {
	l := New[int64](64)
	c := l.Cursor()
	for range 20 { // more than the pool forgets under the race detector
		l.Resize(64)
		appendN(l, 200)
		for c.Pos() < l.Head() {
			c.Next()
		}
		l.Resize(4)
		last := l.tail
		appendN(l, 300)
		for s := last.next; s != nil; s = s.next {
			require.Len(t, s.items, 4)
		}
		for c.Pos() < l.Head() {
			c.Next()
		}
	}
}

func TestResizeChangesTheSegmentsMadeFromThenOn(t *testing.T) {
	l := New[int64](4)
	c := l.Cursor()
	appendN(l, 2)
	l.Resize(1)
	appendN(l, 2)
	require.EqualValues(t, 0, l.tail.base, "the segment in use stays as it is")
	appendN(l, 2)
	l.Resize(8)
	appendN(l, 8)
	l.Resize(0)
	appendN(l, 2)

	var sizes []int
	for s := c.seg; s != nil; s = s.next {
		sizes = append(sizes, len(s.items))
	}
	require.Equal(t, []int{0, 4, 1, 1, 4, 8}, sizes)
	checkCursor(t, l, c)
	for pos := range l.Head() {
		require.Equal(t, value(pos), *c.Next())
	}
}

func TestSkipToLandsOnItsPositionInAnySegment(t *testing.T) {
	const held = 12
	for size := 1; size <= held+1; size++ {
		for from := range int64(held + 1) {
			for to := from; to <= held; to++ {
				l := New[int64](size)
				c := l.Cursor()
				appendN(l, held)
				for range from {
					c.Next()
				}
				c.SkipTo(to)
				require.Equal(t, to, c.Pos())
				checkCursor(t, l, c)
				require.True(t, c.pos < c.seg.end() || c.seg == l.tail,
					"a skip leaves the cursor in a segment it has passed")
				appendNext(l)
				for pos := to; pos <= held; pos++ {
					require.Equal(t, value(pos), *c.Next())
				}
			}
		}
	}
}

func TestALogGoesOnAfterForget(t *testing.T) {
	for size := 1; size <= 4; size++ {
		for held := range 6 {
			l := New[int64](size)
			appendN(l, held)
			l.Publish()
			l.Forget()
			check(t, l)
			require.EqualValues(t, held, l.Head(), "positions are never given twice")
			require.EqualValues(t, held, l.Published())
			c := l.Cursor()
			appendN(l, 5)
			checkCursor(t, l, c)
			for pos := int64(held); pos < l.Head(); pos++ {
				require.Equal(t, value(pos), *c.Next())
			}

			l.Forget()
			appendNext(l) // without a cursor that asked for a segment
			check(t, l)
			c = l.Cursor()
			appendNext(l)
			require.Equal(t, value(l.Head()-1), *c.Next())
		}
	}
}

// The model of a log is a position: what stands at it follows from value.
func TestALogFollowsItsModel(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := New[int64](1 + r.IntN(8))
		var (
			head, published int64
			cursors         []*Cursor[int64]
			at              []int64
		)
		for range 1000 {
			k := 0
			if len(cursors) > 0 {
				k = r.IntN(len(cursors))
			}
			switch op := r.IntN(20); {
			case op < 6:
				appendNext(l)
				head++
			case op < 8:
				l.Publish()
				published = head
			case op == 8:
				l.Resize(r.IntN(8))
			case op == 9 && len(cursors) < 5:
				c := l.Cursor()
				cursors, at = append(cursors, &c), append(at, head)
			case op == 10 && r.IntN(10) == 0:
				for _, c := range cursors {
					c.Close()
				}
				cursors, at = nil, nil
				l.Forget()
			case op == 11 && len(cursors) > 0:
				at[k] += r.Int64N(head - at[k] + 1)
				cursors[k].SkipTo(at[k])
			case op > 11 && len(cursors) > 0 && at[k] < head:
				require.Equal(t, value(at[k]), *cursors[k].Peek())
				require.Equal(t, value(at[k]), *cursors[k].Next())
				at[k]++
			}
			check(t, l)
			require.Equal(t, head, l.Head())
			require.Equal(t, published, l.Published())
			require.EqualValues(t, len(cursors), l.readers)
			readers := map[*segment[int64]]int32{}
			for _, c := range cursors {
				for s := c.seg; s != nil; s = s.next {
					readers[s]++
				}
			}
			for s, n := range readers {
				require.Equal(t, n, s.readers.Load())
			}
			for k, c := range cursors {
				require.Equal(t, at[k], c.Pos())
				checkCursor(t, l, *c)
			}
		}
	}
}

// A reader of the concurrent test. Its mutex keeps it from reading while the
// writer skips it forward.
type reader struct {
	mu      sync.Mutex
	cursor  Cursor[int64]
	read    int64
	skipped int64
}

// run reads until it stands at end, and returns the first position at which it
// found something else than what belongs there.
func (r *reader) run(l *Log[int64], end int64) (bad int64) {
	for {
		r.mu.Lock()
		for r.cursor.Pos() < l.Published() {
			pos := r.cursor.Pos()
			if *r.cursor.Next() != value(pos) {
				r.mu.Unlock()
				return pos
			}
			if r.read++; r.read%64 == 0 {
				break // lets the writer in
			}
		}
		done := r.cursor.Pos() == end
		r.mu.Unlock()
		if done {
			return -1
		}
		runtime.Gosched()
	}
}

func TestReadersFollowAWriterWithoutItsLock(t *testing.T) {
	end := int64(100_000)
	if testing.Short() {
		end = 5_000
	}
	for _, size := range []int{1, 3, 64} {
		t.Run(fmt.Sprintf("segments of %d", size), func(t *testing.T) {
			var (
				mu      sync.Mutex // guards what the writer calls
				wg      sync.WaitGroup
				readers [4]reader
				joined  [4]int64
				bad     [4]int64
			)
			l := New[int64](size)
			for k := range readers {
				r := &readers[k]
				if k < 2 {
					r.cursor = l.Cursor()
				}
				wg.Go(func() {
					if k >= 2 { // joins when it comes to run, most often midway
						mu.Lock()
						r.mu.Lock()
						r.cursor = l.Cursor()
						joined[k] = r.cursor.Pos()
						r.mu.Unlock()
						mu.Unlock()
					}
					bad[k] = r.run(l, end)
				})
			}
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(1, uint64(size)))
				for done := false; !done; {
					mu.Lock()
					for range min(1+rnd.Int64N(10), end-l.Head()) {
						appendNext(l)
					}
					l.Publish()
					if rnd.IntN(50) == 0 {
						l.Resize(1 + rnd.IntN(2*size))
					}
					if rnd.IntN(20) == 0 {
						r := &readers[1]
						r.mu.Lock()
						to := r.cursor.Pos() + (l.Head()-r.cursor.Pos())/2
						r.skipped += to - r.cursor.Pos()
						r.cursor.SkipTo(to)
						r.mu.Unlock()
					}
					done = l.Head() == end
					mu.Unlock()
				}
			})
			wg.Wait()
			check(t, l)
			for k := range readers {
				r := &readers[k]
				require.EqualValues(t, -1, bad[k], "reader %d read something else", k)
				require.Equal(t, end, joined[k]+r.read+r.skipped, "reader %d missed or repeated something", k)
				checkCursor(t, l, r.cursor)
			}
		})
	}
}

// --- memory ---

// A payload has a pointer and a size of its own, so that it is not allocated
// together with others.
type payload struct {
	self *payload
	_    [64]byte
}

// appendPayloads appends n elements and returns weak pointers to them.
//
//go:noinline
func appendPayloads(l *Log[*payload], n int) []weak.Pointer[payload] {
	refs := make([]weak.Pointer[payload], n)
	for k := range refs {
		p := &payload{}
		p.self = p
		refs[k] = weak.Make(p)
		l.Append(p)
	}
	l.Publish()
	return refs
}

// alive collects garbage until want of refs are left or it gives up, and
// returns which are.
func alive(refs []weak.Pointer[payload], want int) (left []int) {
	for range 10 {
		runtime.GC()
		left = []int{}
		for k, ref := range refs {
			if ref.Value() != nil {
				left = append(left, k)
			}
		}
		if len(left) <= want {
			break
		}
	}
	return left
}

func TestAPassedSegmentIsCollected(t *testing.T) {
	l := New[*payload](4)
	c := l.Cursor()
	refs := appendPayloads(l, 12)
	require.Len(t, alive(refs, 12), 12)

	for range 4 {
		c.Next()
	}
	require.Len(t, alive(refs, 12), 12, "the cursor still stands in the first segment")
	c.Next()
	require.Equal(t, []int{4, 5, 6, 7, 8, 9, 10, 11}, alive(refs, 8))
	for range 4 {
		c.Next()
	}
	require.Equal(t, []int{8, 9, 10, 11}, alive(refs, 4))
	runtime.KeepAlive(l)
	runtime.KeepAlive(&c)
}

func TestTheSlowestCursorKeepsTheSegments(t *testing.T) {
	l := New[*payload](1)
	slow, fast := l.Cursor(), l.Cursor()
	refs := appendPayloads(l, 6)
	for range 6 {
		fast.Next()
	}
	slow.Next()
	slow.Next()
	require.Equal(t, []int{1, 2, 3, 4, 5}, alive(refs, 5))
	slow.Close()
	require.Equal(t, []int{5}, alive(refs, 1))
	runtime.KeepAlive(l)
	runtime.KeepAlive(&fast)
}

func TestALogWithoutCursorsKeepsItsLastSegment(t *testing.T) {
	l := New[*payload](4)
	refs := appendPayloads(l, 10)
	require.Equal(t, []int{8, 9}, alive(refs, 2))
	runtime.KeepAlive(l)
}

func TestSkipToLetsGoOfSegments(t *testing.T) {
	l := New[*payload](2)
	c := l.Cursor()
	refs := appendPayloads(l, 8)
	c.SkipTo(5)
	require.Equal(t, []int{4, 5, 6, 7}, alive(refs, 4))
	c.SkipTo(6)
	require.Equal(t, []int{6, 7}, alive(refs, 2), "the cursor stands at the start of a segment")
	c.SkipTo(8)
	require.Equal(t, []int{6, 7}, alive(refs, 2), "there is no segment after the last")
	refs = append(refs, appendPayloads(l, 1)...)
	c.SkipTo(8)
	require.Equal(t, []int{8}, alive(refs, 1), "a skip to the cursor's own place lets go too")
	runtime.KeepAlive(l)
	runtime.KeepAlive(&c)
}

func TestForgetLetsGoOfTheLastSegment(t *testing.T) {
	l := New[*payload](4)
	refs := appendPayloads(l, 10)
	l.Forget()
	require.Empty(t, alive(refs, 0))
	runtime.KeepAlive(l)
}

// --- benchmarks ---

func BenchmarkAppendPublishNext(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("segment=%d", size), func(b *testing.B) {
			l := New[[4]int64](size)
			c := l.Cursor()
			b.ReportAllocs()
			for b.Loop() {
				l.Append([4]int64{})
				l.Publish()
				c.Next()
			}
		})
	}
}

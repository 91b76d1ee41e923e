package window

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkSpans walks the invariant of s.
func checkSpans(s *Spans) error {
	for k, r := range s.ranges {
		if r.lo > r.hi {
			return fmt.Errorf("range %d is %v", k, r)
		}
		if r.lo < s.floor {
			return fmt.Errorf("range %v is below %d", r, s.floor)
		}
		if k > 0 && s.ranges[k-1].hi+1 >= r.lo {
			return fmt.Errorf("ranges %v and %v are adjacent or out of order", s.ranges[k-1], r)
		}
	}
	if len(s.ranges) > maxSpans {
		return fmt.Errorf("%d ranges", len(s.ranges))
	}
	return nil
}

// A spansModel is a set of stamps, one by one.
type spansModel struct {
	has        map[uint64]bool
	floor, end uint64
}

func newSpansModel() *spansModel { return &spansModel{has: map[uint64]bool{}} }

// add puts stamp into the set, which stands for the given number of ranges above
// the floor. If stamp is a range of its own and there are too many, all up to the
// end of the older half goes in first, and the floor is above that.
func (m *spansModel) add(stamp uint64, ranges int) {
	if ranges == maxSpans && !m.has[stamp] && !(stamp > m.floor && m.has[stamp-1]) && !m.has[stamp+1] {
		starts := 0
		for _, x := range slices.Sorted(maps.Keys(m.has)) {
			if x < m.floor {
				continue
			}
			if x == m.floor || !m.has[x-1] {
				starts++
			}
			if starts > maxSpans/2 {
				break
			}
			m.end = x
		}
		for x := range m.end + 1 {
			m.has[x] = true
		}
		m.floor = m.end + 1
	}
	m.has[stamp] = true
}

func requireSame(t *testing.T, m *spansModel, s *Spans, upTo uint64) {
	t.Helper()
	require.NoError(t, checkSpans(s))
	for x := range upTo {
		if s.Has(x) != m.has[x] {
			require.Fail(t, "the set is not what it should be", "Has(%d) is %v", x, s.Has(x))
		}
	}
}

func TestSpansFollowTheirModel(t *testing.T) {
	for seed := range uint64(10) {
		const upTo = 300
		r := rand.New(rand.NewPCG(seed, 8))
		m, s := newSpansModel(), &Spans{}
		for range upTo {
			x := r.Uint64N(upTo)
			m.add(x, len(s.ranges))
			s.Add(x)
			requireSame(t, m, s, upTo+1)
		}
	}
}

func TestRunsOfStampsAreAsEachOfThem(t *testing.T) {
	for seed := range uint64(20) {
		const upTo = 400
		r := rand.New(rand.NewPCG(seed, 11))
		m, s := newSpansModel(), &Spans{}
		for range upTo {
			from, n := r.Uint64N(upTo-16), 1+r.IntN(16)
			for x := from; x < from+uint64(n); x++ {
				if m.has[x] { // none of a run is there yet, or all are
					n = int(x - from)
				}
			}
			if n == 0 {
				continue
			}
			for x := from; x < from+uint64(n); x++ {
				m.add(x, len(s.ranges))
			}
			s.AddRun(from, n)
			requireSame(t, m, s, upTo+1)
		}
	}
}

func TestSpansFollowTheirModelBeyondWhatTheyRemember(t *testing.T) {
	const upTo = 5 * maxSpans
	for name, next := range map[string]func(r *rand.Rand, k uint64) uint64{
		"every second": func(_ *rand.Rand, k uint64) uint64 { return 2 * k },
		"at random":    func(r *rand.Rand, _ uint64) uint64 { return r.Uint64N(upTo) },
		"mostly rising": func(r *rand.Rand, k uint64) uint64 {
			return max(2*k, 100) - r.Uint64N(100)
		},
		"falling":        func(_ *rand.Rand, k uint64) uint64 { return upTo - 2*k },
		"now and then 0": func(_ *rand.Rand, k uint64) uint64 { return 2 * k * min(k%5, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 9))
			m, s := newSpansModel(), &Spans{}
			most := 0
			for k := range uint64(2*maxSpans + 100) {
				x := next(r, k)
				m.add(x, len(s.ranges))
				s.Add(x)
				most = max(most, len(s.ranges))
				require.True(t, s.Has(x), "what was added last is remembered")
				if k%1024 == 0 || len(s.ranges) < most-maxSpans/4 { // it has just forgotten
					requireSame(t, m, s, upTo)
					most = len(s.ranges)
				}
			}
			requireSame(t, m, s, upTo)
		})
	}
}

func TestStampsThatFollowEachOtherAreOneRange(t *testing.T) {
	var s Spans
	for x := range uint64(flood) {
		s.Add(x + 1)
	}
	require.Equal(t, []span{{1, flood}}, s.ranges)
	for x := range uint64(flood) {
		s.Add(x + 1) // again
	}
	require.Equal(t, []span{{1, flood}}, s.ranges)
	require.False(t, s.Has(0))
	require.True(t, s.Has(1))
	require.True(t, s.Has(flood))
	require.False(t, s.Has(flood+1))
}

func TestAStampJoinsTheRangesThatItStandsBetween(t *testing.T) {
	for _, row := range []struct {
		name string
		add  []uint64
		want []span
	}{
		{"alone", []uint64{5}, []span{{5, 5}}},
		{"twice", []uint64{5, 5}, []span{{5, 5}}},
		{"before", []uint64{5, 4}, []span{{4, 5}}},
		{"after", []uint64{5, 6}, []span{{5, 6}}},
		{"between", []uint64{5, 7, 6}, []span{{5, 7}}},
		{"between longer ones", []uint64{4, 5, 7, 8, 6}, []span{{4, 8}}},
		{"between, others around", []uint64{1, 5, 7, 11, 6}, []span{{1, 1}, {5, 7}, {11, 11}}},
		{"not adjacent before", []uint64{5, 3}, []span{{3, 3}, {5, 5}}},
		{"not adjacent after", []uint64{5, 7}, []span{{5, 5}, {7, 7}}},
		{"inside", []uint64{4, 5, 6, 5}, []span{{4, 6}}},
		{"at both ends of what there is", []uint64{0, math.MaxUint64}, []span{{0, 0}, {math.MaxUint64, math.MaxUint64}}},
		{"at both ends, twice", []uint64{0, math.MaxUint64, 0, math.MaxUint64}, []span{{0, 0}, {math.MaxUint64, math.MaxUint64}}},
		{"next to both ends", []uint64{0, math.MaxUint64, 1, math.MaxUint64 - 1}, []span{{0, 1}, {math.MaxUint64 - 1, math.MaxUint64}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var s Spans
			for _, x := range row.add {
				s.Add(x)
				require.NoError(t, checkSpans(&s))
			}
			require.Equal(t, row.want, s.ranges)
		})
	}
}

func TestSpansForgetTheOlderHalf(t *testing.T) {
	var s Spans
	for k := range uint64(maxSpans) {
		s.Add(2 * k)
	}
	require.Len(t, s.ranges, maxSpans)
	require.True(t, s.Has(0))

	s.Add(2*maxSpans - 1) // joins the last
	s.Add(2*maxSpans - 2) // is there already
	require.Len(t, s.ranges, maxSpans, "what makes no range of its own drives nothing out")

	s.Add(4 * maxSpans)
	require.NoError(t, checkSpans(&s))
	require.Len(t, s.ranges, maxSpans/2+1)
	require.Equal(t, uint64(maxSpans-1), s.floor)
	require.True(t, s.Has(0), "too long ago to tell")
	require.True(t, s.Has(1), "too long ago to tell, even if it was never there")
	require.True(t, s.Has(maxSpans-2))
	require.False(t, s.Has(maxSpans-1))
	require.True(t, s.Has(maxSpans))
	require.False(t, s.Has(maxSpans+1))
	require.True(t, s.Has(2*maxSpans-1))
	require.True(t, s.Has(4*maxSpans))
}

func TestSpansHaveAnOldStampThatComesLate(t *testing.T) {
	var s Spans
	for k := range uint64(maxSpans) {
		s.Add(10 + 2*k)
	}
	s.Add(3)
	require.NoError(t, checkSpans(&s))
	require.True(t, s.Has(3))
	require.True(t, s.Has(10))
	require.Len(t, s.ranges, maxSpans/2, "it is among those that are forgotten")

	s.AddRun(s.floor-3, 3) // all below
	require.Len(t, s.ranges, maxSpans/2)
	s.AddRun(s.floor-3, 4) // the last of them is not
	require.NoError(t, checkSpans(&s))
	require.True(t, s.Has(s.floor))
	require.False(t, s.Has(s.floor+2))
}

func TestSpansStayBoundedForever(t *testing.T) {
	var s Spans
	for k := range uint64(flood) {
		s.Add(3 * k)
	}
	require.NoError(t, checkSpans(&s))
	require.LessOrEqual(t, cap(s.ranges), 2*maxSpans)
}

func BenchmarkSpansAdd(b *testing.B) {
	for _, step := range []uint64{1, 2} {
		b.Run(fmt.Sprintf("every=%d", step), func(b *testing.B) {
			var s Spans
			b.ReportAllocs()
			for x := uint64(0); b.Loop(); x += step {
				s.Add(x)
			}
		})
	}
}

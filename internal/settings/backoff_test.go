// A backoff waits as long as it says.

package settings

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnOverflowPolicyDropsOrDoesNot(t *testing.T) {
	require.False(t, Block.Drops())
	require.False(t, Reject.Drops())
	require.True(t, DropOldest.Drops())
	require.True(t, DropNewest.Drops())
}

// requireWithin draws often and checks that each wait is one that Exponential
// promises for a whole wait of w: in [w/2, w], and never under a millisecond.
func requireWithin(t *testing.T, b *Backoff, attempt int, w time.Duration) {
	t.Helper()
	for range 50 {
		d := b.After(attempt)
		require.GreaterOrEqual(t, d, max(w/2, time.Millisecond))
		require.LessOrEqual(t, d, max(w, time.Millisecond))
	}
}

func TestExponentialBackoffStaysBetweenHalfAndWhole(t *testing.T) {
	for _, row := range []struct {
		name           string
		first, longest time.Duration
	}{
		{"the default", 100 * time.Millisecond, 30 * time.Second},
		{"no growth", time.Second, time.Second},
		{"a longest wait that is no multiple", 3 * time.Millisecond, 100 * time.Millisecond},
		{"the shortest", 1, 1},
		{"under a millisecond at first", time.Microsecond, time.Second},
		{"the longest", 1, math.MaxInt64},
		{"long at once", math.MaxInt64, math.MaxInt64},
		{"one short of the longest", math.MaxInt64 - 1, math.MaxInt64},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := Exponential(row.first, row.longest)
			require.NoError(t, b.err)
			w := row.first
			for attempt := 1; attempt <= 70; attempt++ {
				requireWithin(t, b, attempt, w)
				if w > row.longest/2 {
					w = row.longest
				} else {
					w *= 2
				}
			}
			requireWithin(t, b, math.MaxInt, row.longest)
			requireWithin(t, b, math.MaxInt32, row.longest)
		})
	}
}

func TestExponentialBackoffStaysBetweenHalfAndWholeForAnyValues(t *testing.T) {
	for range 2000 {
		longest := time.Duration(1 + rand.Int64N(math.MaxInt64)>>rand.N(63))
		first := 1 + rand.N(longest)
		b := Exponential(first, longest)
		require.NoError(t, b.err, "Exponential(%d, %d)", first, longest)
		attempt := 1 + rand.N(80)
		w := first
		for range attempt - 1 {
			w = min(longest, w+min(w, math.MaxInt64-w))
		}
		d := b.After(attempt)
		require.GreaterOrEqual(t, d, max(w/2, time.Millisecond), "Exponential(%d, %d) after %d", first, longest, attempt)
		require.LessOrEqual(t, d, max(w, time.Millisecond), "Exponential(%d, %d) after %d", first, longest, attempt)
	}
}

func TestExponentialBackoffIsUniformBothEndsIncluded(t *testing.T) {
	b := Exponential(8, 8)
	drawn := map[time.Duration]int{}
	for range 5000 {
		drawn[b.wait(1)]++
	}
	require.Len(t, drawn, 5)
	for d := time.Duration(4); d <= 8; d++ {
		require.InDelta(t, 1000, drawn[d], 200, "drawn %v", drawn)
	}
}

func TestConstantBackoffIsExact(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, time.Second, 3*time.Hour + 1, math.MaxInt64} {
		for _, attempt := range []int{1, 2, 100, math.MaxInt} {
			require.Equal(t, d, Constant(d).After(attempt))
		}
	}
}

func TestNoBackoffIsUnderAMillisecond(t *testing.T) {
	for _, b := range []*Backoff{
		Constant(1),
		Exponential(1, 2),
		BackoffFunc(func(int) time.Duration { return 0 }),
		BackoffFunc(func(int) time.Duration { return -time.Hour }),
		BackoffFunc(func(int) time.Duration { return math.MinInt64 }),
	} {
		require.Equal(t, time.Millisecond, b.After(1))
	}
}

func TestAPanickingBackoffFuncFallsBackToTheDefault(t *testing.T) {
	b := BackoffFunc(func(attempt int) time.Duration { panic(attempt) })
	requireWithin(t, b, 1, 100*time.Millisecond)
	requireWithin(t, b, 2, 200*time.Millisecond)
	requireWithin(t, b, 100, 30*time.Second)
}

// The options in force are those that were given last, whatever their order, and else the documented defaults; a backoff waits as long as it says.

package fanout

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDefaultsAreThoseThatTheDocumentationStates(t *testing.T) {
	s := defaultQueueSettings()
	require.Equal(t, 1024, s.capacity)
	require.Equal(t, Block, s.overflow)
	require.Equal(t, 30*time.Second, s.visibility)
	require.Equal(t, 5, s.maxAttempts)
	require.Zero(t, s.delay)
	require.Empty(t, s.filters)
	require.Equal(t, 1024, s.deadCapacity)
	require.Equal(t, Block, s.deadOverflow)
	requireWithin(t, s.backoff, 1, 100*time.Millisecond)
	requireWithin(t, s.backoff, 2, 200*time.Millisecond)
	requireWithin(t, s.backoff, 100, 30*time.Second)
}

func see(t *testing.T, options ...SubscribeOption) seen {
	t.Helper()
	q, s := defaultQueueSettings(), subscriberSettings{subscriberLimits: subscriberLimits{concurrency: 1}}
	q.backoff = Constant(time.Second)
	require.NoError(t, applyAll(options, func(o SubscribeOption) error { return o.applySubscribe(&q, &s) }))
	return seen{
		capacity: q.capacity, maxAttempts: q.maxAttempts, deadCapacity: q.deadCapacity,
		filters: len(q.filters), concurrency: s.concurrency,
		overflow: q.overflow, deadOverflow: q.deadOverflow,
		visibility: q.visibility, delay: q.delay, backoff: q.backoff.after(1),
	}
}

// seen is what of settings can be compared, over a default backoff that doesn't vary.
type seen struct {
	capacity, maxAttempts, deadCapacity, filters, concurrency int
	overflow, deadOverflow                                    Overflow
	visibility, delay, backoff                                time.Duration
}

func TestOfTwoEqualOptionsTheLastWins(t *testing.T) {
	for _, row := range []struct {
		name        string
		first, last SubscribeOption
	}{
		{"WithCapacity", WithCapacity(7), WithCapacity(9)},
		{"WithOverflow", WithOverflow(Reject), WithOverflow(DropOldest)},
		{"WithVisibilityTimeout", WithVisibilityTimeout(time.Hour), WithVisibilityTimeout(time.Minute)},
		{"WithMaxAttempts", WithMaxAttempts(Unlimited), WithMaxAttempts(1)},
		{"WithBackoff", WithBackoff(Constant(time.Hour)), WithBackoff(Constant(time.Minute))},
		{"WithDelay", WithDelay(time.Hour), WithDelay(0)},
		{"WithDeadLetterCapacity", WithDeadLetterCapacity(9), WithDeadLetterCapacity(7)},
		{"WithDeadLetterOverflow", WithDeadLetterOverflow(DropOldest), WithDeadLetterOverflow(Block)},
		{"WithConcurrency", WithConcurrency(9), WithConcurrency(7)},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NotEqual(t, see(t, row.first), see(t, row.last))
			require.Equal(t, see(t, row.last), see(t, row.first, row.last))
			require.Equal(t, see(t, row.first), see(t, row.last, row.first))
		})
	}
}

func TestTheOrderOfOptionsDoesNotMatter(t *testing.T) {
	options := []SubscribeOption{
		WithCapacity(7), WithOverflow(DropOldest), WithVisibilityTimeout(time.Hour), WithMaxAttempts(3),
		WithBackoff(Constant(time.Minute)), WithDelay(time.Second), WithConcurrency(4),
		WithDeadLetterCapacity(9), WithDeadLetterOverflow(DropOldest),
		WithFilter(func(i int) bool { return i > 1 }), WithFilter(func(i int) bool { return i < 9 }),
	}
	want := seen{
		capacity: 7, maxAttempts: 3, deadCapacity: 9, filters: 2, concurrency: 4,
		overflow: DropOldest, deadOverflow: DropOldest,
		visibility: time.Hour, delay: time.Second, backoff: time.Minute,
	}
	for range 200 {
		require.Equal(t, want, see(t, options...))
		rand.Shuffle(len(options), func(i, j int) { options[i], options[j] = options[j], options[i] })
	}
}

func TestAnOverflowPolicyDropsOrDoesNot(t *testing.T) {
	require.False(t, Block.drops())
	require.False(t, Reject.drops())
	require.True(t, DropOldest.drops())
	require.True(t, DropNewest.drops())
}

// requireWithin draws often and checks that each wait is one that Exponential
// promises for a whole wait of w: in [w/2, w], and never under a millisecond.
func requireWithin(t *testing.T, b Backoff, attempt int, w time.Duration) {
	t.Helper()
	for range 50 {
		d := b.after(attempt)
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
		d := b.after(attempt)
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
			require.Equal(t, d, Constant(d).after(attempt))
		}
	}
}

func TestNoBackoffIsUnderAMillisecond(t *testing.T) {
	for _, b := range []Backoff{
		Constant(1),
		Exponential(1, 2),
		BackoffFunc(func(int) time.Duration { return 0 }),
		BackoffFunc(func(int) time.Duration { return -time.Hour }),
		BackoffFunc(func(int) time.Duration { return math.MinInt64 }),
	} {
		require.Equal(t, time.Millisecond, b.after(1))
	}
}

func TestAPanickingBackoffFuncFallsBackToTheDefault(t *testing.T) {
	b := BackoffFunc(func(attempt int) time.Duration { panic(attempt) })
	requireWithin(t, b, 1, 100*time.Millisecond)
	requireWithin(t, b, 2, 200*time.Millisecond)
	requireWithin(t, b, 100, 30*time.Second)

	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithBackoff(b))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Nack(ctx))
		nacked := time.Now()
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(nacked), 50*time.Millisecond)
		require.LessOrEqual(t, time.Since(nacked), 100*time.Millisecond)
		require.NoError(t, d.Ack(ctx))
	})
}

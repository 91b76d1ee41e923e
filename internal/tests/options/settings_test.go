// The options in force are those that were given last, whatever their order, and else the documented defaults.

package options_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

func TestTheDefaultsAreThoseThatTheDocumentationStates(t *testing.T) {
	require.Equal(t, seen{
		QueueSettings: fanout.QueueSettings{
			Capacity: 1024, MaxAttempts: 5, DeadLetterCapacity: 1024, Overflow: fanout.Block, DeadLetterOverflow: fanout.Block,
			VisibilityTimeout: 30 * time.Second, Backoff: "Exponential(100ms, 30s)",
		},
		concurrency: 1, accepted: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
	}, see(t))
}

// see returns what of the settings in force can be compared.
func see(t *testing.T, options ...fanout.SubscribeOption) (s seen) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		defer top.Close() //nolint:errcheck // it returns nil
		var mu sync.Mutex
		sub := kit.Subscribe(t, top, "q", func(_ context.Context, d fanout.Delivery[int]) error {
			mu.Lock()
			defer mu.Unlock()
			s.accepted = append(s.accepted, d.Body)
			return nil
		}, options...)
		for k := range 10 {
			kit.Publish(t, top, k)
		}
		kit.Elapse(time.Hour)
		slices.Sort(s.accepted)
		s.QueueSettings = sub.Queue().View().Settings()
		s.concurrency = sub.Queue().View().Subscribers()[0].Concurrency
	})
	return s
}

// seen is what see has seen.
type seen struct {
	fanout.QueueSettings
	concurrency int
	accepted    []int // of the bodies 0 to 9
}

func TestOfTwoEqualOptionsTheLastWins(t *testing.T) {
	for _, row := range []struct {
		name        string
		first, last fanout.SubscribeOption
	}{
		{"WithCapacity", fanout.WithCapacity(7), fanout.WithCapacity(9)},
		{"WithOverflow", fanout.WithOverflow(fanout.Reject), fanout.WithOverflow(fanout.DropOldest)},
		{"WithVisibilityTimeout", fanout.WithVisibilityTimeout(time.Hour), fanout.WithVisibilityTimeout(time.Minute)},
		{"WithMaxAttempts", fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithMaxAttempts(1)},
		{"WithBackoff", fanout.WithBackoff(fanout.Constant(time.Hour)), fanout.WithBackoff(fanout.Constant(time.Minute))},
		{"WithDelay", fanout.WithDelay(time.Hour), fanout.WithDelay(0)},
		{"WithDeadLetterCapacity", fanout.WithDeadLetterCapacity(9), fanout.WithDeadLetterCapacity(7)},
		{"WithDeadLetterOverflow", fanout.WithDeadLetterOverflow(fanout.DropOldest), fanout.WithDeadLetterOverflow(fanout.Block)},
		{"WithConcurrency", fanout.WithConcurrency(9), fanout.WithConcurrency(7)},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NotEqual(t, see(t, row.first), see(t, row.last))
			require.Equal(t, see(t, row.last), see(t, row.first, row.last))
			require.Equal(t, see(t, row.first), see(t, row.last, row.first))
		})
	}
}

func TestTheOrderOfOptionsDoesNotMatter(t *testing.T) {
	options := []fanout.SubscribeOption{
		fanout.WithCapacity(7), fanout.WithOverflow(fanout.DropOldest), fanout.WithVisibilityTimeout(time.Hour), fanout.WithMaxAttempts(3),
		fanout.WithBackoff(fanout.Constant(time.Minute)), fanout.WithDelay(time.Second), fanout.WithConcurrency(4),
		fanout.WithDeadLetterCapacity(9), fanout.WithDeadLetterOverflow(fanout.DropOldest),
		fanout.WithFilter(func(i int) bool { return i > 1 }), fanout.WithFilter(func(i int) bool { return i < 9 }),
	}
	want := seen{
		QueueSettings: fanout.QueueSettings{
			Capacity: 7, MaxAttempts: 3, DeadLetterCapacity: 9, Filtered: true, Overflow: fanout.DropOldest, DeadLetterOverflow: fanout.DropOldest,
			VisibilityTimeout: time.Hour, Delay: time.Second, Backoff: "Constant(1m0s)",
		},
		concurrency: 4, accepted: []int{2, 3, 4, 5, 6, 7, 8},
	}
	for range 50 {
		require.Equal(t, want, see(t, options...))
		rand.Shuffle(len(options), func(i, j int) { options[i], options[j] = options[j], options[i] })
	}
}

func TestARateLimitMayBeOneANanosecond(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		_, err := q.Subscribe(ctx, kit.HandleNothing, fanout.WithRateLimit(1e9))
		require.NoError(t, err)
		_, err = q.Subscribe(ctx, kit.HandleNothing, fanout.WithRateLimit(1.1e9))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.NoError(t, top.Close())
	})
}

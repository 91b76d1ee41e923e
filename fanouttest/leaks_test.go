package fanouttest

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A quietTB is a test that notes its failures and goes on.
type quietTB struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (q *quietTB) Errorf(format string, args ...any) {
	q.errors = append(q.errors, fmt.Sprintf(format, args...))
}
func (q *quietTB) Failed() bool       { return false }
func (q *quietTB) Cleanup(end func()) { q.cleanups = append(q.cleanups, end) }
func (q *quietTB) end() []string {
	for _, end := range slices.Backward(q.cleanups) {
		end()
	}
	return q.errors
}

// handled has n queues of a topic handle one message each.
func handled(t *testing.T, tb TB, n int, h fanout.Handler[int]) *Kit {
	k := New(tb)
	numbers := NewTopic[int](k, "numbers")
	for q := range n {
		_, err := numbers.Subscribe(context.Background(), fmt.Sprint("q", q), h)
		require.NoError(t, err)
	}
	require.NoError(t, numbers.Publish(context.Background(), 1))
	k.Settle(context.Background())
	return k
}

func TestTheCountOfGoroutinesIsExact(t *testing.T) {
	before, ok := goroutinesCreated()
	known := slices.ContainsFunc(metrics.All(), func(d metrics.Description) bool { return d.Name == "/sched/goroutines-created:goroutines" })
	require.Equal(t, known, ok)
	if !ok {
		return // before Go 1.26 the kit looks at the goroutines themselves
	}
	for range 1000 {
		var wg sync.WaitGroup
		wg.Go(func() {})
		wg.Wait()
		after, _ := goroutinesCreated()
		require.Greater(t, after, before)
		before = after
	}
}

// Whatever the process does meanwhile (a collection of garbage begins) is a
// reason to look closer, so that it takes several tries to see that there is
// none: but one in a hundred must do.
func TestATestWithoutLeaksIsNotLookedAtCloser(t *testing.T) {
	if _, ok := goroutinesCreated(); !ok {
		return // before Go 1.26 the kit looks at the goroutines themselves
	}
	for name, h := range map[string]fanout.Handler[int]{
		"returns": func(context.Context, fanout.Delivery[int]) error { return nil },
		"exits": func(_ context.Context, d fanout.Delivery[int]) error {
			if err := d.Ack(context.Background()); err != nil {
				return err
			}
			runtime.Goexit()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			// A queue's timer comes after a millisecond, and is not counted: on a busy machine
			// few tests end before that.
			spared := false
			for n := 0; n < 2000 && (n < 100 || !spared); n++ {
				tb := &quietTB{TB: t}
				k := handled(t, tb, 1+7/(1+n/100), h)
				require.Empty(t, tb.end())
				spared = spared || !k.mayHaveStrays(k.members())
			}
			require.True(t, spared)
		})
	}
}

func TestALeakIsFoundThoughOthersEnd(t *testing.T) {
	begun, others, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var ending, leaked sync.WaitGroup
	for range 100 {
		ending.Go(func() { begun <- struct{}{}; <-others })
		<-begun
	}
	tb := &quietTB{TB: t}
	handled(t, tb, 1, func(context.Context, fanout.Delivery[int]) error {
		leaked.Go(func() { <-release })
		return nil
	})
	close(others) // there are fewer goroutines now than there were at first
	ending.Wait()
	errors := tb.end()
	require.Len(t, errors, 1)
	require.Contains(t, errors[0], "a goroutine that a handler started")
	close(release)
	leaked.Wait()
}

func TestOfTestsInParallelTheOneThatLeaksFails(t *testing.T) {
	release := make(chan struct{})
	var tests, leaked sync.WaitGroup
	errors := make([][]string, 16)
	for n := range errors {
		tests.Go(func() {
			tb := &quietTB{TB: t}
			handled(t, tb, 4, func(context.Context, fanout.Delivery[int]) error {
				if n == 7 {
					leaked.Go(func() { <-release })
				}
				return nil
			})
			errors[n] = tb.end()
		})
	}
	tests.Wait()
	for n, found := range errors {
		require.Equal(t, n == 7, len(found) == 1, "test %d: %q", n, found)
	}
	close(release)
	leaked.Wait()
}

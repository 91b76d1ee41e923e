package fanouttest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

var _ fanouttest.TB = (*fakeTB)(nil)

// A fakeTB notes what a test is told, and goes on.
type fakeTB struct {
	mu       sync.Mutex // guards the fields below
	errors   []string
	logs     []string
	cleanups []func()
	fatal    bool
}

func (f *fakeTB) Helper()      {}
func (f *fakeTB) Name() string { return "fake" }
func (f *fakeTB) Logf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs = append(f.logs, fmt.Sprintf(format, args...))
}
func (f *fakeTB) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	f.mu.Lock()
	f.fatal = true
	f.mu.Unlock()
	runtime.Goexit()
}
func (f *fakeTB) Cleanup(end func()) { f.cleanups = append(f.cleanups, end) }
func (f *fakeTB) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.errors) > 0
}

// failures runs body as a test, to its end, and returns what failed in it.
func failures(body func(tb *fakeTB)) (*fakeTB, []string) {
	tb := &fakeTB{}
	var wg sync.WaitGroup
	wg.Go(func() { body(tb) })
	wg.Wait()
	for _, end := range slices.Backward(tb.cleanups) {
		end()
	}
	return tb, tb.errors
}

// requireFailure wants one failure, with all the texts in it.
func requireFailure(t *testing.T, failed []string, texts ...string) {
	t.Helper()
	require.Len(t, failed, 1, "%s", strings.Join(failed, "\n"))
	for _, text := range texts {
		require.Contains(t, failed[0], text)
	}
}

// both runs test in real and in virtual time.
func both(t *testing.T, test func(t *testing.T)) {
	t.Run("real time", test)
	t.Run("virtual time", func(t *testing.T) { synctest.Test(t, test) })
}

// order is the body of most topics here: the compiler compiles the library once for
// each type of bodies in a package, pointers together and structs of the same fields.
type order struct {
	ID    string
	Cents int
}

func cents(n ...int) (orders []order) {
	for _, n := range n {
		orders = append(orders, order{Cents: n})
	}
	return orders
}

func subscribe[T any](tb fanouttest.TB, t *fanouttest.Topic[T], queue string, h fanout.Handler[T], options ...fanout.SubscribeOption) *fanout.Queue[T] {
	s, err := t.Subscribe(context.Background(), queue, h, options...)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return s.Queue()
}

func publish[T any](tb fanouttest.TB, t *fanouttest.Topic[T], bodies ...T) {
	for _, b := range bodies {
		if err := t.Publish(context.Background(), b); err != nil {
			tb.Fatalf("%v", err)
		}
	}
}

func ack[T any](context.Context, fanout.Delivery[T]) error { return nil }

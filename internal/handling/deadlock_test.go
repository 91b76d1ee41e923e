package handling

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

// A fakeQueue is full, and its room depends on the handlers of its runs.
type fakeQueue struct {
	name string
	free bool
	runs []*Run

	mu    sync.Mutex
	looks int
}

func (q *fakeQueue) Label() string { return q.name }

func (q *fakeQueue) Locked(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

func (q *fakeQueue) WaitState() (s State) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.looks++
	s.Free = q.free
	for _, r := range q.runs {
		s.Runs = append(s.Runs, r.waits)
	}
	return s
}

// run has one more handler of the queue run, which waits for each list of queues.
func (q *fakeQueue) run(waits ...[]Queue) *Run {
	r := &Run{queue: q}
	for _, on := range waits {
		r.Add(waitOn(on...))
	}
	q.runs = append(q.runs, r)
	return r
}

func waitOn(qs ...Queue) *Wait { return &Wait{Blockers: func() []Queue { return qs }} }

// What would never go on is refused, and nothing else.
func TestACycleIsFound(t *testing.T) {
	var a, b, c, d *fakeQueue
	for name, row := range map[string]struct {
		make func()         // the runs of others
		on   func() []Queue // what the new publish, of a's handler, waits for
		says string         // empty: it may go on
	}{
		"for its own queue":                {func() {}, func() []Queue { return []Queue{a} }, "a -> a"},
		"for a queue whose handlers run":   {func() { b.run() }, func() []Queue { return []Queue{b} }, ""},
		"for nothing any more":             {func() {}, func() []Queue { return nil }, ""},
		"for one that waits for it":        {func() { b.run([]Queue{a}) }, func() []Queue { return []Queue{b} }, "a -> b -> a"},
		"for one that waits for another":   {func() { b.run([]Queue{c}); c.run() }, func() []Queue { return []Queue{b} }, ""},
		"a long way":                       {func() { b.run([]Queue{c}); c.run([]Queue{d}); d.run([]Queue{a}) }, func() []Queue { return []Queue{b} }, "a -> b -> c -> d -> a"},
		"a long way, of which one is free": {func() { b.run([]Queue{c}); c.run([]Queue{d}); c.free = true; d.run([]Queue{a}) }, func() []Queue { return []Queue{b} }, ""},
		"another of its handlers runs":     {func() { b.run([]Queue{a}); b.run() }, func() []Queue { return []Queue{b} }, ""},
		"another waits for one that runs":  {func() { b.run([]Queue{a}); b.run([]Queue{c}); c.run() }, func() []Queue { return []Queue{b} }, ""},
		"all of its handlers wait":         {func() { b.run([]Queue{a}); b.run([]Queue{b}) }, func() []Queue { return []Queue{b} }, "a -> b -> a"},
		"one of its publishes was decided": {func() { b.run([]Queue{}, []Queue{a}) }, func() []Queue { return []Queue{b} }, "a -> b -> a"},
		"all of its publishes were":        {func() { b.run([]Queue{}) }, func() []Queue { return []Queue{b} }, ""},
		"the second of two queues":         {func() { b.run(); c.run([]Queue{a}) }, func() []Queue { return []Queue{b, c} }, "a -> c -> a"},
		"two that wait for each other":     {func() { b.run([]Queue{c}); c.run([]Queue{b}) }, func() []Queue { return []Queue{b} }, "a -> b -> c"},
		"many ways to the same":            {func() { b.run([]Queue{c, d}, []Queue{d, c}); c.run([]Queue{d}); d.run([]Queue{b}) }, func() []Queue { return []Queue{b, c, d} }, "a -> b -> c -> d"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c, d = &fakeQueue{name: "a"}, &fakeQueue{name: "b"}, &fakeQueue{name: "c"}, &fakeQueue{name: "d"}
			row.make()
			r, w := a.run(), waitOn(row.on()...)
			r.Add(w)
			err := r.Deadlock(w)
			if row.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, message.ErrWouldDeadlock)
				require.EqualError(t, err, "fanout: would deadlock: handlers of each queue would wait for room in the next: "+row.says)
			}
			for _, q := range []*fakeQueue{a, b, c, d} {
				require.LessOrEqual(t, q.looks, 1, "each is looked at once")
			}
		})
	}
}

// A queue that is found to be free frees those that depend on it, in any order.
func TestAQueueAtTheEndOfALongChainFreesAll(t *testing.T) {
	const n = 60
	qs := make([]*fakeQueue, n)
	for k := range qs {
		qs[k] = &fakeQueue{name: fmt.Sprint(k)}
	}
	for k := range n - 1 {
		qs[k+1].run([]Queue{qs[(k+2)%n]})
	}
	r := qs[0].run()
	w := waitOn(qs[1])
	r.Add(w)
	require.ErrorIs(t, r.Deadlock(w), message.ErrWouldDeadlock)
	qs[n-1].run() // one that does not wait
	require.NoError(t, r.Deadlock(w))
}

// The waits of a run come and go in any order, and its context knows them.
func TestARunKnowsItsWaits(t *testing.T) {
	q := &fakeQueue{name: "q"}
	all := NewContexts(q, worker{})
	ctx := &all.All[3]
	require.Nil(t, ctx.Waits())
	require.False(t, ctx.Runs(nil))
	r := RunOf(ctx)
	require.NotNil(t, r)
	require.Same(t, r, RunOf(context.WithValue(ctx, q, 1)), "a context that comes from it")
	require.Nil(t, RunOf(t.Context()))
	require.True(t, ctx.Runs(r))
	require.False(t, ctx.Runs(RunOf(&all.All[4])))
	require.False(t, all.All[5].Runs(r))
	require.Equal(t, "q", r.Label())
	require.Equal(t, "topic of q", r.Topic())

	ws := []*Wait{waitOn(), waitOn(), waitOn(), waitOn()}
	for k, w := range ws {
		r.Add(w)
		require.Equal(t, k+1, r.Waits())
	}
	require.Equal(t, ws, ctx.Waits())
	for k, gone := range []int{1, 3, 0, 2} {
		r.Remove(ws[gone])
		require.NotContains(t, ctx.Waits(), ws[gone])
		require.Equal(t, 3-k, r.Waits())
		for at, w := range ctx.Waits() {
			require.Equal(t, at, w.at)
		}
		require.Nil(t, r.waits[:len(ws)][3-k], "nothing is kept of it")
	}
}

type worker struct{}

func (worker) TopicOf(r *Run) any { return "topic of " + r.Label() }

// Each context of a chunk is of one run, whichever are asked, and in whatever order.
func TestEachContextIsOfItsOwnRun(t *testing.T) {
	all := NewContexts(&fakeQueue{name: "q"}, worker{})
	order := []int{5, 0, 255, 7, 6, 100, 8}
	runs := map[*Run]int{}
	for _, k := range order {
		runs[RunOf(&all.All[k])] = k
	}
	require.Len(t, runs, len(order))
	for r, k := range runs {
		require.Same(t, r, RunOf(&all.All[k]))
	}
	all.All[7].Cancel(message.ErrStale)
	for k := range all.All {
		ctx := &all.All[k]
		require.Equal(t, k == 7, ctx.Err() != nil)
		require.Equal(t, k == 7, ctx.CancelledFor(message.ErrStale))
		require.False(t, ctx.CancelledFor(message.ErrClosed))
	}
	_, set := all.All[7].Deadline()
	require.False(t, set)
}

// A value that nobody has set is none, before and after the run was cancelled.
func TestAContextHasNoValuesOfItsOwn(t *testing.T) {
	all := NewContexts(&fakeQueue{}, worker{})
	ctx := &all.All[1]
	require.Nil(t, ctx.Value("a"))
	require.NotNil(t, RunOf(ctx))
	require.Nil(t, ctx.Value("a"))
	ctx.Cancel(message.ErrStale)
	require.Nil(t, ctx.Value("a"))
}

// Whoever holds a context keeps it from being cancelled.
func TestAContextThatIsHeldIsNotCancelled(t *testing.T) {
	ctx := &NewContexts(nil, nil).All[1]
	held := false
	ctx.Hold(func() { held = !ctx.state().mu.TryLock() })
	require.True(t, held)
	ctx.Cancel(message.ErrStale)
	require.Error(t, ctx.Err())
}

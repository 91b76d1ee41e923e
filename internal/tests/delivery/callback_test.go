// Whatever a callback of the user's does, return, panic or end its goroutine, nothing is lost and nobody waits for ever.

package delivery_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// badly are the ways in which a callback may end.
var badly = map[string]func(){
	"return": func() {},
	"panic":  func() { panic("a bug of the user's") },
	"Goexit": runtime.Goexit,
}

// A culprit is the user's code of a test: one callback of it ends badly, the
// first times that it is called.
type culprit struct {
	name string
	end  func()

	mu    sync.Mutex
	left  int
	calls int
}

// at is what each callback does first.
func (c *culprit) at(name string) {
	if name != c.name {
		return
	}
	c.mu.Lock()
	c.calls++
	bad := c.left > 0
	c.left--
	c.mu.Unlock()
	if bad {
		c.end()
	}
}

func (c *culprit) hook(name string) func(fanout.Event) { return func(fanout.Event) { c.at(name) } }

func (c *culprit) hooks() fanout.Hooks {
	return fanout.Hooks{
		Published: c.hook("Published"), Delivered: c.hook("Delivered"), Settled: c.hook("Settled"),
		DeadLettered: c.hook("DeadLettered"), Parked: c.hook("Parked"), Redriven: c.hook("Redriven"),
		Dropped: c.hook("Dropped"), Stuck: c.hook("Stuck"), StuckStack: c.hook("StuckStack"),
		Stalled: c.hook("Stalled"), Late: c.hook("Late"), EngineFailed: c.hook("EngineFailed"),
	}
}

// A culpritLogger is a slog handler.
type culpritLogger struct{ *culprit }

func (l culpritLogger) Enabled(context.Context, slog.Level) bool { return true }
func (l culpritLogger) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l culpritLogger) WithGroup(string) slog.Handler            { return l }
func (l culpritLogger) Handle(_ context.Context, r slog.Record) error {
	l.at("logger")
	r.Attrs(func(a slog.Attr) bool { _ = a.Value.String(); return true })
	return nil
}

// A culpritError is what handlers return, or panic with.
type culpritError struct{ *culprit }

func (e culpritError) Error() string { e.at("Error"); return "a bad error" }
func (e culpritError) Is(error) bool { e.at("Is"); return false }
func (e culpritError) As(any) bool   { e.at("As"); return false }
func (e culpritError) Unwrap() error { e.at("Unwrap"); return nil }

// A culpritValue is what handlers panic with.
type culpritValue struct{ *culprit }

func (v culpritValue) String() string { v.at("String"); return "a bad value" }

// A culpritContext is given to publishes and receives.
type culpritContext struct {
	context.Context
	*culprit
}

func (c culpritContext) Done() <-chan struct{} { c.at("ctx.Done"); return c.Context.Done() }
func (c culpritContext) Err() error            { c.at("ctx.Err"); return c.Context.Err() }
func (c culpritContext) Value(key any) any     { c.at("ctx.Value"); return c.Context.Value(key) }

// A culpritCodec is for engines.
type culpritCodec struct{ *culprit }

func (c culpritCodec) Encode(body any) ([]byte, error) { c.at("Encode"); return json.Marshal(body) }
func (c culpritCodec) Decode(data []byte, body any) error {
	c.at("Decode")
	return json.Unmarshal(data, body)
}
func (c culpritCodec) ContentType() string { c.at("ContentType"); return "application/json" }

// call runs f in a goroutine of its own, as a user does whose goroutine may end,
// and reports whether f returned.
func call(f func()) (returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
		returned = true
	}()
	<-done
	return returned
}

// A trial is a program that calls each callback, with one that ends badly.
type trial struct {
	t   *testing.T
	c   *culprit
	top *fanout.Topic[int]

	mu   sync.Mutex
	done map[string]map[int]int // by queue and body, how often it was handled
	hist map[string][]fanout.Attempt
}

func newTrial(t *testing.T, c *culprit, options ...fanout.TopicOption) *trial {
	all := append([]fanout.TopicOption{
		fanout.WithHooks(fanout.Hooks{}), fanout.WithHooks(c.hooks()), fanout.WithLogger(slog.New(culpritLogger{c})), fanout.WithDeduplication(time.Hour, 1000),
		fanout.WithPublishInterceptor(func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
			c.at("publish interceptor")
			return next(ctx)
		}),
		fanout.WithHandlerInterceptor(func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
			c.at("handler interceptor")
			return next(ctx)
		}),
	}, options...)
	top, err := fanout.NewTopic[int]("payments", all...)
	require.NoError(t, err)
	return &trial{t: t, c: c, top: top, done: map[string]map[int]int{}, hist: map[string][]fanout.Attempt{}}
}

// ctx is what the user's goroutines give to calls.
func (r *trial) ctx() context.Context { return culpritContext{context.Background(), r.c} }

// publish publishes until it is accepted. What was not accepted has left nothing
// behind, its deduplication ID least of all.
func (r *trial) publish(bodies ...int) {
	for _, body := range bodies {
		for accepted := false; !accepted; {
			before := r.top.Stats().Published
			var err error
			if r.top.View().Engine() != "" { // it counts what it gives to the engine
				accepted = call(func() {
					err = r.top.PublishMessages(r.ctx(), fanout.Message[int]{Body: body, DeduplicationID: fmt.Sprint(body)})
				}) && err == nil
				continue
			}
			returned := call(func() {
				err = r.top.PublishMessages(r.ctx(), fanout.Message[int]{Body: body, DeduplicationID: fmt.Sprint(body)})
			})
			accepted = r.top.Stats().Published > before
			require.Zero(r.t, r.top.Stats().Waiting, "its place in line is given up")
			require.Zero(r.t, r.top.Stats().Duplicates, "no ID is remembered of what was not published")
			if returned && err == nil {
				require.True(r.t, accepted)
			}
		}
	}
}

// handled counts what was handled, and keeps its history.
func (r *trial) handled(d fanout.Delivery[int]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done[d.Queue()] == nil {
		r.done[d.Queue()] = map[int]int{}
	}
	r.done[d.Queue()][d.Body]++
	r.hist[d.Queue()] = append(r.hist[d.Queue()], d.History()...)
}

func (r *trial) subscribe(name string, h fanout.Handler[int], options ...fanout.SubscribeOption) *fanout.Queue[int] {
	s, err := r.top.Subscribe(context.Background(), name, h, options...)
	require.NoError(r.t, err)
	return s.Queue()
}

func (r *trial) options(more ...fanout.QueueOption) fanout.QueueOption {
	c := r.c
	return fanout.QueueOptions(append(more,
		fanout.WithBackoff(fanout.BackoffFunc(func(int) time.Duration { c.at("backoff"); return time.Second })),
		fanout.WithFilter(func(int) bool { c.at("filter"); return true }),
		fanout.WithMessageFilter(func(fanout.Message[int]) bool { c.at("message filter"); return true }))...)
}

// fail is a handler's that fails in another way at each of the first attempts.
func (r *trial) fail(attempt int) error {
	switch attempt {
	case 1:
		return culpritError{r.c}
	case 2:
		panic(culpritError{r.c})
	case 3:
		panic(culpritValue{r.c})
	case 4:
		return fmt.Errorf("%w", fanout.Permanent(nil)) // a wrapped nothing
	}
	return nil
}

// until calls f in a goroutine of its own until it has returned true.
func (r *trial) until(f func() bool) {
	for tries := 0; ; tries++ {
		require.Less(r.t, tries, 100)
		ok := false
		if call(func() { ok = f() }) && ok {
			return
		}
	}
}

// end shuts the topic down, and finds everything at its place.
func (r *trial) end() {
	err := errors.New("never")
	r.until(func() bool { err = r.top.Shutdown(context.Background()); return true })
	require.NoError(r.t, err)
	<-r.top.Done()
	require.Empty(r.t, r.top.Leftovers())
	require.Zero(r.t, r.top.Stats().Waiting)
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	require.NotZero(r.t, r.c.calls, "the callback was never called")
}

// settles checks that a queue's messages were all handled, each failed attempt
// having ended when its handler did.
func (r *trial) settles(q *fanout.Queue[int], bodies ...int) {
	r.inTime(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.ElementsMatch(r.t, bodies, slices.Collect(maps.Keys(r.done[q.Name()])), q.Name())
}

// inTime checks that no attempt ended later than its handler did.
func (r *trial) inTime(q *fanout.Queue[int]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.hist[q.Name()] {
		require.NotEqual(r.t, fanout.TimedOut, a.Cause, "queue %s: %v", q.Name(), a)
	}
}

// handledOf is how many different messages of a queue were handled.
func (r *trial) handledOf(q *fanout.Queue[int]) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.done[q.Name()])
}

// callbacks in memory, and what else is tried with each.
var culprits = []string{
	"filter", "message filter", "publish interceptor", "handler interceptor", "backoff", "logger", "RedriveIf",
	"Published", "Delivered", "Settled", "DeadLettered", "Parked", "Redriven", "Dropped", "Stuck", "StuckStack", "Stalled", "Late",
	"Error", "Is", "As", "Unwrap", "String", "ctx.Done", "ctx.Err", "ctx.Value",
}

func TestCallbacksMayEndAsTheyLike(t *testing.T) {
	for _, name := range culprits {
		for how, end := range badly {
			for _, times := range []int{1, 2, 5} {
				t.Run(fmt.Sprintf("%s/%s/%d times", name, how, times), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := &culprit{name: name, end: end, left: times}
						inMemory(newTrial(t, c))
					})
				})
			}
		}
	}
}

func inMemory(r *trial) {
	t, ctx, c := r.t, context.Background(), r.c
	// Failing handlers, singly, from the log and by a batch.
	failing := r.subscribe("failing", func(_ context.Context, d fanout.Delivery[int]) error {
		if err := r.fail(d.Attempt()); err != nil {
			return err
		}
		r.handled(d)
		return nil
	}, r.options(fanout.WithMaxAttempts(100), fanout.WithVisibilityTimeout(time.Hour)))
	plain := r.subscribe("plain", func(_ context.Context, d fanout.Delivery[int]) error {
		if err := r.fail(d.Attempt()); err != nil {
			return err
		}
		r.handled(d)
		return nil
	}, fanout.WithMaxAttempts(100), fanout.WithVisibilityTimeout(time.Hour), fanout.WithBackoff(fanout.BackoffFunc(func(int) time.Duration { c.at("backoff"); return time.Second })))
	bs, err := r.top.SubscribeBatch(ctx, "batch", func(_ context.Context, ds []fanout.Delivery[int]) error {
		if err := r.fail(ds[0].Attempt()); err != nil {
			return err
		}
		for _, d := range ds {
			r.handled(d)
		}
		return nil
	}, r.options(fanout.WithMaxAttempts(100), fanout.WithVisibilityTimeout(time.Hour)), fanout.WithBatchSize(3))
	require.NoError(t, err)
	require.NoError(t, bs.Queue().Pause(ctx)) // so that it gets them together
	// A handler that is late.
	late := r.subscribe("late", func(_ context.Context, d fanout.Delivery[int]) error {
		if d.Attempt() == 1 {
			time.Sleep(3 * time.Second)
			return culpritError{c}
		}
		r.handled(d)
		return nil
	}, r.options(fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(100)), fanout.WithConcurrency(2))
	// Dead letters, of which one finds no room.
	dying := r.subscribe("dying", func(_ context.Context, d fanout.Delivery[int]) error {
		if len(d.History()) == 0 {
			return culpritError{c}
		}
		r.handled(d)
		return nil
	}, r.options(fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(time.Hour), fanout.WithDeadLetterCapacity(1)))
	// One that drops, and one that blocks.
	dropping, err := r.top.OpenQueue(ctx, "dropping", fanout.WithCapacity(2), fanout.WithOverflow(fanout.DropOldest))
	require.NoError(t, err)
	full, err := r.top.OpenQueue(ctx, "full", fanout.WithCapacity(2))
	require.NoError(t, err)

	r.publish(1, 2)
	require.NoError(t, bs.Queue().Resume(ctx))
	time.Sleep(time.Minute)
	synctest.Wait()
	r.settles(failing, 1, 2)
	r.settles(plain, 1, 2)
	r.settles(bs.Queue(), 1, 2)
	require.Equal(t, 2, r.handledOf(late))

	// A publisher waits in line for longer than a stall, with another behind it.
	var waiting sync.WaitGroup
	for _, body := range []int{3, 4} {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			call(func() {
				_ = r.top.PublishMessages(r.ctx(), fanout.Message[int]{Body: body, DeduplicationID: fmt.Sprint(body)})
			})
		}()
		synctest.Wait()
	}
	time.Sleep(31 * time.Second)
	// A receiver gives up its place in line as well.
	take := func(q *fanout.Queue[int], n int) {
		for want := q.Stats().Acked + uint64(n); q.Stats().Acked < want; {
			call(func() {
				d, ok, err := q.TryReceive(ctx, fanout.WithVisibilityTimeout(time.Second))
				require.NoError(t, err)
				if !ok {
					time.Sleep(2 * time.Second) // one whose receiver ended comes again
					return
				}
				_ = d.Ack(ctx)
			})
		}
	}
	take(full, 2)
	waiting.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	held := full.Stats().Unsettled() // those that were not given up
	require.Zero(t, r.top.Stats().Waiting, "all have been decided, or have given up")
	require.EqualValues(t, 2+held, r.top.Stats().Published)
	take(full, held)
	time.Sleep(time.Minute)
	synctest.Wait()
	published := int(r.top.Stats().Published)

	// Receivers of a queue that has nothing, until one message comes.
	received := make(chan int, 10)
	for range 3 {
		go call(func() {
			d, err := full.Receive(r.ctx(), fanout.WithVisibilityTimeout(time.Minute))
			if err == nil {
				received <- d.Body
				_ = d.Ack(ctx)
			}
		})
		synctest.Wait()
	}
	r.publish(5)
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	if len(received) == 0 { // all have ended: then it is ready
		take(full, 1)
	}
	published++

	// The dead come back.
	synctest.Wait()
	for back := 0; r.handledOf(dying) < published && back < 100; back++ {
		call(func() {
			_, _ = dying.Redrive(ctx, fanout.RedriveIf(func(fanout.Delivery[int]) bool { c.at("RedriveIf"); return true }))
		})
		time.Sleep(time.Minute)
		synctest.Wait()
	}
	for _, q := range []*fanout.Queue[int]{failing, plain, bs.Queue(), late, dying} {
		require.Equal(t, published, r.handledOf(q), q.Name())
		require.Zero(t, q.Stats().Unsettled(), q.Name())
		require.EqualValues(t, published, q.Stats().Acked, q.Name())
		require.Zero(t, q.Stats().Stuck, q.Name())
	}
	for _, q := range []*fanout.Queue[int]{failing, plain, bs.Queue(), dying} {
		r.inTime(q)
	}
	require.EqualValues(t, published, int(dropping.Stats().Dropped)+dropping.Stats().Unsettled())
	// Whoever waits in line is gone by now.
	require.NoError(t, full.Close())
	for _, q := range []*fanout.Queue[int]{dropping} {
		take(q, q.Stats().Unsettled())
	}
	kit.Check(t, r.top)
	r.end()
}

func TestCallbacksOnAnEngineMayEndAsTheyLike(t *testing.T) {
	for _, name := range []string{
		"Encode", "Decode", "ContentType", "filter", "message filter", "publish interceptor", "handler interceptor", "backoff", "logger",
		"RedriveIf", "Published", "Delivered", "Settled", "DeadLettered", "Redriven", "EngineFailed", "Error", "Is", "As", "Unwrap", "String",
	} {
		for how, end := range badly {
			for _, times := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s/%s/%d times", name, how, times), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						e := fakeengine.New(fakeengine.Config{})
						c := &culprit{name: name, end: end, left: times}
						onEngine(newTrial(t, c, fanout.WithEngine(e), fanout.WithCodec(culpritCodec{c})), e)
					})
				})
			}
		}
	}
}

func onEngine(r *trial, e *fakeengine.Engine) {
	t, ctx, c := r.t, context.Background(), r.c
	failing := r.subscribe("failing", func(_ context.Context, d fanout.Delivery[int]) error {
		if err := r.fail(d.Attempt()); err != nil {
			return err
		}
		r.handled(d)
		return nil
	}, r.options(fanout.WithMaxAttempts(100), fanout.WithVisibilityTimeout(time.Hour)))
	dying := r.subscribe("dying", func(_ context.Context, d fanout.Delivery[int]) error {
		if len(d.History()) == 0 {
			return fanout.Permanent(culpritError{c})
		}
		r.handled(d)
		return nil
	}, r.options(fanout.WithMaxAttempts(100), fanout.WithVisibilityTimeout(time.Hour)))
	e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 3, Err: kit.ErrBusy})
	r.publish(1, 2)
	time.Sleep(10 * time.Minute)
	synctest.Wait()
	r.publish(3)
	for back := 0; r.handledOf(dying) < 3 && back < 20; back++ {
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		call(func() {
			_, _ = dying.Redrive(ctx, fanout.RedriveIf(func(fanout.Delivery[int]) bool { c.at("RedriveIf"); return true }))
		})
	}
	time.Sleep(10 * time.Minute)
	synctest.Wait()
	r.settles(failing, 1, 2, 3)
	r.settles(dying, 1, 2, 3)
	for _, q := range []*fanout.Queue[int]{failing, dying} {
		n, err := q.Depth(ctx)
		require.NoError(t, err)
		require.Zero(t, n.Unsettled())
	}
	r.end()
}

func TestABackoffThatDoesNotReturnIsLoggedAndTheDefaultHolds(t *testing.T) {
	for how, want := range map[string]string{"panic": "a backoff panicked", "Goexit": "a backoff exited"} {
		t.Run(how, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				var out kit.Buffer
				top := kit.NewTopic[int](t, fanout.WithLogger(out.Logger()))
				q := kit.OpenQueue(t, top, "q", fanout.WithBackoff(fanout.BackoffFunc(func(int) time.Duration { badly[how](); return 0 })))
				kit.PublishOnce(t, top, 1)
				began := time.Now()
				require.NoError(t, kit.Receive(t, q).Nack(ctx), "the caller goes on")
				require.Equal(t, 1, q.Stats().Retrying)
				_, err := q.Receive(ctx)
				require.NoError(t, err)
				waited := time.Since(began)
				require.GreaterOrEqual(t, waited, 50*time.Millisecond)
				require.LessOrEqual(t, waited, 100*time.Millisecond)
				require.Contains(t, out.String(), want)
				require.Contains(t, out.String(), "queue=q")
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestAPublisherThatExitsGivesUpItsPlaceInLine(t *testing.T) {
	for how, end := range badly {
		t.Run(how, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				c := &culprit{name: "ctx.Done", end: end, left: 1}
				top := kit.NewTopic[int](t, fanout.WithDeduplication(time.Hour, 10))
				q := kit.OpenQueue(t, top, "q", fanout.WithCapacity(1))
				require.NoError(t, top.Publish(ctx, 1))
				waits := fanout.Message[int]{Body: 2, DeduplicationID: "2"}
				gone := make(chan bool, 1)
				go func() {
					gone <- !call(func() { _ = top.PublishMessages(culpritContext{ctx, c}, waits) })
				}()
				synctest.Wait()
				if how == "return" {
					require.Equal(t, 1, top.Stats().Waiting, "it stands in line")
				} else {
					require.True(t, <-gone)
					require.Zero(t, top.Stats().Waiting, "its place is given up")
				}
				require.NoError(t, kit.Receive(t, q).Ack(ctx))
				synctest.Wait()
				if how != "return" {
					require.EqualValues(t, 1, top.Stats().Published, "nothing is published for it")
					require.NoError(t, top.PublishMessages(ctx, waits))
					require.Zero(t, top.Stats().Duplicates, "nor is its ID remembered")
				}
				require.EqualValues(t, 2, top.Stats().Published)
				require.NoError(t, kit.Receive(t, q).Ack(ctx))
				kit.Check(t, top)
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestAReceiverThatExitsGivesUpItsPlaceInLine(t *testing.T) {
	for _, how := range []string{"panic", "Goexit"} {
		t.Run(how, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				c := &culprit{name: "ctx.Done", end: badly[how], left: 1}
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q")
				require.False(t, call(func() { _, _ = q.Receive(culpritContext{ctx, c}) }))
				received := make(chan int, 1)
				go func() {
					if d, err := q.Receive(ctx); err == nil {
						received <- d.Body
						_ = d.Ack(ctx)
					}
				}()
				synctest.Wait()
				require.NoError(t, top.Publish(ctx, 7))
				synctest.Wait()
				require.Len(t, received, 1, "nobody else is woken for it")
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestEventsBehindAHookThatExitsAreTold(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		told, other := 0, 0
		var out kit.Buffer
		top := kit.NewTopic[int](t, fanout.WithLogger(out.Logger()), fanout.WithHooks(fanout.Hooks{
			Redriven: func(fanout.Event) { told++; runtime.Goexit() },
			Dropped:  func(fanout.Event) { runtime.Goexit() },
		}), fanout.WithHooks(fanout.Hooks{Redriven: func(fanout.Event) { other++ }}))
		q := kit.OpenQueue(t, top, "q")
		kit.PublishOnce(t, top, 3)
		for range 3 {
			require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		}
		require.False(t, call(func() { _, _ = q.Redrive(ctx) }))
		require.Equal(t, []int{3, 3}, []int{told, other})
		require.Equal(t, 3, q.Stats().Ready)
		require.False(t, call(func() { _, _ = q.Purge(ctx) }))
		require.Contains(t, out.String(), "messages dropped", "the log has what the hook exited from")
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

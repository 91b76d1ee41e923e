// Options of any scope, number and value: none panics, the first bad one is named with its value, and what is accepted works.

package options_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// FuzzOptions: whatever the options and their values, in whatever scope and
// number, nothing panics; the first bad value is ErrInvalidOption that names the
// option and the value; and what has been accepted works.
//
// The input is a program: each choice takes its bytes, and where there are none
// left it takes the first alternative.
func FuzzOptions(f *testing.F) {
	for k := range 40 {
		program := make([]byte, 60)
		for i := range program {
			program[i] = byte(k*37 + i*(k+3)*11)
		}
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		kit.Bubble(t, func(t *testing.T, ctx context.Context) { newOptionsRun(t, ctx, program).run() })
	})
}

// optionsMessage is what the programs publish.
var optionsMessage = fanout.Message[int]{Body: 7, Attributes: map[string]string{"region": "eu", "cents": "2"}}

// An optionsRun is one program.
type optionsRun struct {
	t       *testing.T
	ctx     context.Context
	program []byte

	// What the options that were accepted say, the defaults where none does.
	ordering   bool
	retention  int
	capacity   int
	replay     int
	attempts   int
	delay, ttl time.Duration
	// unsure says that a filter may accept messages or not.
	unsure bool
	// shared is the dead-letter queue that was given to the queue.
	shared *fanout.Queue[int]
	// lettersOwn is an option that can't stand beside it.
	lettersOwn string
}

func newOptionsRun(t *testing.T, ctx context.Context, program []byte) *optionsRun {
	return &optionsRun{t: t, ctx: ctx, program: program, capacity: 1024, attempts: 5}
}

// An aspirant is an option about to be used. bad is empty if its value is good,
// and otherwise what the error must say of it beside its name.
type aspirant[O any] struct {
	option O
	name   string
	bad    string
	accept func() // what holds once it has been accepted
}

// verdictOf returns what must become of options, used together: nil, or what
// the error says.
func verdictOf[O any](as []aspirant[O]) (says []string) {
	for k, a := range as {
		if a.name == "" {
			return []string{fmt.Sprintf("option %d is nil", k)}
		}
		if a.bad != "" {
			return []string{a.name, a.bad}
		}
	}
	return nil
}

func optionsOf[O any](as []aspirant[O]) (options []O) {
	for _, a := range as {
		options = append(options, a.option)
	}
	return options
}

// judge checks err against what the options deserve, and reports whether they
// were accepted.
func judgeOptions[O any](t *testing.T, as []aspirant[O], err error) bool {
	t.Helper()
	says := verdictOf(as)
	if says == nil {
		return true
	}
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
	return false
}

func (r *optionsRun) draw(n int) int {
	if len(r.program) == 0 {
		return 0
	}
	b := r.program[0]
	r.program = r.program[1:]
	return int(b) % n
}

func (r *optionsRun) bits() int64 {
	var b [8]byte
	r.program = r.program[copy(b[:], r.program):]
	return int64(binary.LittleEndian.Uint64(b[:]))
}

func (r *optionsRun) number() int {
	beyond := int64(math.MaxInt32) + 1 // another edge where an int has 32 bits
	edge := []int{1, 2, 3, 10, 1024, 0, -1, math.MinInt, math.MaxInt32, int(beyond), fanout.Unlimited - 1, fanout.Unlimited}
	if k := r.draw(len(edge) + 1); k < len(edge) {
		return edge[k]
	}
	return int(r.bits())
}

func (r *optionsRun) duration() time.Duration {
	edge := []time.Duration{
		time.Second, time.Millisecond, 1, time.Minute, 24 * time.Hour, 1000 * 24 * time.Hour,
		0, -1, -time.Second, math.MinInt64, math.MaxInt64 - 1, math.MaxInt64,
	}
	if k := r.draw(len(edge) + 1); k < len(edge) {
		return edge[k]
	}
	return time.Duration(r.bits())
}

func (r *optionsRun) rate() float64 {
	edge := []float64{
		1, 0.5, 1000, 1e9, 1e9 + 1, 2e9, 1.0 / (365 * 24 * 3600), 1.0 / (366 * 24 * 3600),
		0, math.Copysign(0, -1), -1, math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64, math.MaxFloat64,
	}
	if k := r.draw(len(edge) + 1); k < len(edge) {
		return edge[k]
	}
	return math.Float64frombits(uint64(r.bits()))
}

// badIf is what an error says of value v if it is bad.
func badIf(bad bool, v any) string {
	if bad {
		if v == fanout.Unlimited {
			return "Unlimited"
		}
		return fmt.Sprint(v)
	}
	return ""
}

// several draws up to four options.
func several[O any](r *optionsRun, one func() aspirant[O]) (as []aspirant[O]) {
	for range r.draw(5) {
		as = append(as, one())
	}
	return as
}

// topicOption draws an option for NewTopic.
func (r *optionsRun) topicOption() aspirant[fanout.TopicOption] {
	switch r.draw(8) {
	case 0:
		return aspirant[fanout.TopicOption]{fanout.WithOrdering(), "WithOrdering", "", func() { r.ordering = true }}
	case 1:
		n := r.number()
		return aspirant[fanout.TopicOption]{fanout.WithRetention(n), "WithRetention", badIf(n < 1 || n == fanout.Unlimited, n), func() { r.retention = n }}
	case 2:
		window, most := r.duration(), r.number()
		bad := badIf(most < 1, most)
		if window <= 0 {
			bad = window.String()
		}
		return aspirant[fanout.TopicOption]{fanout.WithDeduplication(window, most), "WithDeduplication", bad, nil}
	case 3:
		return aspirant[fanout.TopicOption]{fanout.WithHooks(fanout.Hooks{}), "WithHooks", "", nil}
	case 4:
		if r.draw(4) == 1 {
			return aspirant[fanout.TopicOption]{fanout.WithLogger(nil), "WithLogger", "nil", nil}
		}
		return aspirant[fanout.TopicOption]{kit.Silent, "WithLogger", "", nil}
	case 5:
		is, bad := r.interceptors()
		return aspirant[fanout.TopicOption]{fanout.WithPublishInterceptor(is...), "WithPublishInterceptor", bad, nil}
	case 6:
		is, bad := r.interceptors()
		return aspirant[fanout.TopicOption]{fanout.WithHandlerInterceptor(is...), "WithHandlerInterceptor", bad, nil}
	}
	return aspirant[fanout.TopicOption]{}
}

// interceptors draws interceptors that do nothing, and perhaps a nil one.
func (r *optionsRun) interceptors() (is []fanout.Interceptor, bad string) {
	for range r.draw(3) {
		if r.draw(5) == 1 {
			is, bad = append(is, nil), "nil"
		} else {
			is = append(is, func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error { return next(ctx) })
		}
	}
	return is, bad
}

// queueOption draws an option for OpenQueue. What is wrong only for this topic
// (a filter or a dead-letter queue of another type) is not drawn here.
func (r *optionsRun) queueOption() aspirant[fanout.QueueOption] {
	switch r.draw(15) {
	case 0:
		n := r.number()
		return aspirant[fanout.QueueOption]{fanout.WithCapacity(n), "WithCapacity", badIf(n < 1, n), func() { r.capacity = n }}
	case 1:
		o := fanout.Overflow(r.draw(256))
		return aspirant[fanout.QueueOption]{fanout.WithOverflow(o), "WithOverflow", badIf(o < fanout.Block || o > fanout.DropNewest, o), nil}
	case 2:
		d := r.duration()
		return aspirant[fanout.QueueOption]{fanout.WithVisibilityTimeout(d), "WithVisibilityTimeout", badIf(d <= 0, d), nil}
	case 3:
		n := r.number()
		return aspirant[fanout.QueueOption]{fanout.WithMaxAttempts(n), "WithMaxAttempts", badIf(n < 1, n), func() { r.attempts = n }}
	case 4:
		b, bad := r.backoff()
		return aspirant[fanout.QueueOption]{fanout.WithBackoff(b), "WithBackoff", bad, nil}
	case 5:
		d := r.duration()
		return aspirant[fanout.QueueOption]{fanout.WithDelay(d), "WithDelay", badIf(d < 0, d), func() { r.delay = d }}
	case 6:
		d := r.duration()
		return aspirant[fanout.QueueOption]{fanout.WithTimeToLive(d), "WithTimeToLive", badIf(d <= 0, d), func() { r.ttl = d }}
	case 7:
		n := r.number()
		return aspirant[fanout.QueueOption]{fanout.WithReplay(n), "WithReplay", badIf(n < 1, n), func() { r.replay = n }}
	case 8:
		if r.draw(4) == 1 {
			return aspirant[fanout.QueueOption]{fanout.WithFilter[int](nil), "WithFilter", "nil", nil}
		}
		return aspirant[fanout.QueueOption]{fanout.WithFilter(func(int) bool { return true }), "WithFilter", "", nil}
	case 9:
		if r.draw(4) == 1 {
			return aspirant[fanout.QueueOption]{fanout.WithMessageFilter[int](nil), "WithMessageFilter", "nil", nil}
		}
		return aspirant[fanout.QueueOption]{fanout.WithMessageFilter(func(fanout.Message[int]) bool { return true }), "WithMessageFilter", "", nil}
	case 10:
		return r.filterPolicy()
	case 11:
		n := r.number()
		return aspirant[fanout.QueueOption]{fanout.WithDeadLetterCapacity(n), "WithDeadLetterCapacity", badIf(n < 1, n), func() {
			r.lettersOwn = fmt.Sprintf("WithDeadLetterCapacity(%d)", n)
		}}
	case 12:
		o := fanout.Overflow(r.draw(256))
		return aspirant[fanout.QueueOption]{fanout.WithDeadLetterOverflow(o), "WithDeadLetterOverflow", badIf(o != fanout.Block && o != fanout.DropOldest, o), func() {
			r.lettersOwn = fmt.Sprintf("WithDeadLetterOverflow(%v)", o)
		}}
	case 13:
		return r.deadLetterQueue()
	}
	return aspirant[fanout.QueueOption]{}
}

func (r *optionsRun) backoff() (b fanout.Backoff, bad string) {
	switch r.draw(4) {
	case 0:
		d := r.duration()
		return fanout.Constant(d), badIf(d <= 0, fmt.Sprintf("Constant(%v)", d))
	case 1:
		first, longest := r.duration(), r.duration()
		return fanout.Exponential(first, longest), badIf(first <= 0 || longest < first, fmt.Sprintf("Exponential(%v, %v)", first, longest))
	case 2:
		switch d := r.duration(); r.draw(3) {
		case 0:
			return fanout.BackoffFunc(func(int) time.Duration { return d }), ""
		case 1:
			return fanout.BackoffFunc(func(int) time.Duration { panic(d) }), ""
		}
		return fanout.BackoffFunc(nil), "BackoffFunc(nil)"
	}
	return fanout.Backoff{}, "Backoff{}"
}

func (r *optionsRun) filterPolicy() aspirant[fanout.QueueOption] {
	switch r.draw(5) {
	case 0:
		return aspirant[fanout.QueueOption]{fanout.WithFilterPolicy(`{"region": [{"prefix": "e"}], "cents": [{"numeric": [">", 1]}]}`), "WithFilterPolicy", "", nil}
	case 1:
		return aspirant[fanout.QueueOption]{fanout.WithFilterPolicy(`{"region": ["us"]}`), "WithFilterPolicy", "", func() { r.unsure = true }}
	case 2:
		return aspirant[fanout.QueueOption]{fanout.WithFilterPolicy(`{"region": [{"prefix": 1}]}`), "WithFilterPolicy", "region", nil}
	case 3:
		return aspirant[fanout.QueueOption]{fanout.WithFilterPolicy(""), "WithFilterPolicy", "policy", nil}
	}
	return aspirant[fanout.QueueOption]{fanout.WithFilterPolicy(`{"k": []}`), "WithFilterPolicy", "k", nil}
}

func (r *optionsRun) deadLetterQueue() aspirant[fanout.QueueOption] {
	switch r.draw(4) {
	case 0:
		d, err := fanout.NewDeadLetterQueue[int]("shared", kit.Silent)
		require.NoError(r.t, err)
		return aspirant[fanout.QueueOption]{fanout.WithDeadLetterQueue(d), "WithDeadLetterQueue", "", func() { r.shared = d }}
	case 1:
		top := kit.NewTopic[int](r.t)
		d := kit.OpenQueue(r.t, top, "not for the dead")
		top.Close()
		return aspirant[fanout.QueueOption]{fanout.WithDeadLetterQueue(d), "WithDeadLetterQueue", `"not for the dead"`, nil}
	case 2:
		top := kit.NewTopic[int](r.t)
		d := kit.OpenQueue(r.t, top, "alive").DeadLetters()
		top.Close()
		return aspirant[fanout.QueueOption]{fanout.WithDeadLetterQueue(d), "WithDeadLetterQueue", `"alive/dead"`, nil}
	}
	return aspirant[fanout.QueueOption]{fanout.WithDeadLetterQueue[int](nil), "WithDeadLetterQueue", "nil", nil}
}

// workerOption draws an option for a subscriber.
func (r *optionsRun) workerOption() aspirant[fanout.WorkerOption] {
	switch r.draw(7) {
	case 0:
		n := r.number()
		return aspirant[fanout.WorkerOption]{fanout.WithConcurrency(n), "WithConcurrency", badIf(n < 1, n), nil}
	case 1:
		n := r.number()
		return aspirant[fanout.WorkerOption]{fanout.WithBatchSize(n), "WithBatchSize", badIf(n < 1, n), nil}
	case 2:
		f := r.rate()
		every := 1e9 / f // one a nanosecond and one a year are good
		return aspirant[fanout.WorkerOption]{fanout.WithRateLimit(f), "WithRateLimit", badIf(!(f > 0) || every < 1 || every > 365*24*3600e9, f), nil}
	case 3:
		d := r.duration()
		return aspirant[fanout.WorkerOption]{fanout.WithAutoExtend(d), "WithAutoExtend", badIf(d <= 0 || d > fanout.MaxAutoExtend, d), nil}
	case 4:
		d := r.duration()
		return aspirant[fanout.WorkerOption]{fanout.WithHandlerTimeout(d), "WithHandlerTimeout", badIf(d <= 0, d), nil}
	case 5:
		is, bad := r.interceptors()
		return aspirant[fanout.WorkerOption]{fanout.WithHandlerInterceptor(is...), "WithHandlerInterceptor", bad, nil}
	}
	return aspirant[fanout.WorkerOption]{}
}

// anyOption draws an option for Topic.Subscribe, which takes those of the queue
// and of its workers.
func (r *optionsRun) anyOption() aspirant[fanout.SubscribeOption] {
	if r.draw(2) == 0 {
		a := r.queueOption()
		return aspirant[fanout.SubscribeOption]{a.option, a.name, a.bad, a.accept}
	}
	a := r.workerOption()
	return aspirant[fanout.SubscribeOption]{a.option, a.name, a.bad, a.accept}
}

func (r *optionsRun) run() {
	defer func() {
		if r.shared != nil {
			require.NoError(r.t, r.shared.Close())
		}
	}()
	r.tryDeadLetterQueue()
	as := several(r, r.topicOption)
	top, err := fanout.NewTopic[int]("payments", append(optionsOf(as), kit.Silent)...)
	if !judgeOptions(r.t, as, err) {
		require.Nil(r.t, top)
		return
	}
	require.NoError(r.t, err)
	accept(as)
	require.NoError(r.t, top.PublishMessages(r.ctx, optionsMessage, optionsMessage)) // for who replays
	if r.draw(2) == 0 {
		r.pull(top)
	} else {
		r.push(top)
	}
	top.Close()
	<-top.Done()
	require.NoError(r.t, kit.Invariants(top))
}

func accept[O any](as []aspirant[O]) {
	for _, a := range as {
		if a.accept != nil {
			a.accept()
		}
	}
}

// tryDeadLetterQueue makes a dead-letter queue.
func (r *optionsRun) tryDeadLetterQueue() {
	as := several(r, func() aspirant[fanout.DeadLetterOption] {
		switch r.draw(5) {
		case 0:
			n := r.number()
			return aspirant[fanout.DeadLetterOption]{fanout.WithDeadLetterCapacity(n), "WithDeadLetterCapacity", badIf(n < 1, n), nil}
		case 1:
			o := fanout.Overflow(r.draw(256))
			return aspirant[fanout.DeadLetterOption]{fanout.WithDeadLetterOverflow(o), "WithDeadLetterOverflow", badIf(o != fanout.Block && o != fanout.DropOldest, o), nil}
		case 2:
			d := r.duration()
			return aspirant[fanout.DeadLetterOption]{fanout.WithVisibilityTimeout(d), "WithVisibilityTimeout", badIf(d <= 0, d), nil}
		case 3:
			if r.draw(2) == 1 {
				return aspirant[fanout.DeadLetterOption]{fanout.WithLogger(nil), "WithLogger", "nil", nil}
			}
			return aspirant[fanout.DeadLetterOption]{fanout.WithHooks(fanout.Hooks{}), "WithHooks", "", nil}
		}
		return aspirant[fanout.DeadLetterOption]{}
	})
	d, err := fanout.NewDeadLetterQueue[int]("lost", optionsOf(as)...)
	if !judgeOptions(r.t, as, err) {
		require.Nil(r.t, d)
		return
	}
	require.NoError(r.t, err)
	kit.RequireEmpty(r.t, d)
	require.NoError(r.t, d.Close())
}

// opened reports whether a queue that was asked for with good options had to be
// opened, and was.
func (r *optionsRun) opened(err error) bool {
	r.t.Helper()
	if r.shared != nil && r.lettersOwn != "" {
		require.ErrorIs(r.t, err, fanout.ErrInvalidOption)
		require.ErrorContains(r.t, err, r.lettersOwn)
		return false
	}
	if r.replay > 0 && r.retention == 0 {
		require.ErrorIs(r.t, err, fanout.ErrUnsupported)
		require.ErrorContains(r.t, err, fmt.Sprintf("WithReplay(%d)", r.replay))
		return false
	}
	require.NoError(r.t, err)
	return true
}

// pull opens a queue, receives and acknowledges, lets a message die, and
// redrives it.
func (r *optionsRun) pull(top *fanout.Topic[int]) {
	as := several(r, r.queueOption)
	q, err := top.OpenQueue(r.ctx, "audit", optionsOf(as)...)
	if !judgeOptions(r.t, as, err) {
		require.Nil(r.t, q)
		require.Empty(r.t, top.Queues())
		return
	}
	accept(as)
	if !r.opened(err) {
		return
	}
	if !r.unsure {
		replayed := min(r.replay, r.retention, r.capacity, 2)
		require.Equal(r.t, replayed, q.Stats().Unsettled())
	}
	_, err = q.Purge(r.ctx)
	require.NoError(r.t, err)

	vis := several(r, func() aspirant[fanout.ReceiveOption] {
		if r.draw(5) == 1 {
			return aspirant[fanout.ReceiveOption]{}
		}
		d := r.duration()
		return aspirant[fanout.ReceiveOption]{fanout.WithVisibilityTimeout(d), "WithVisibilityTimeout", badIf(d <= 0, d), nil}
	})
	if !r.publish(top, q) {
		return
	}
	d, ok, err := q.TryReceive(r.ctx, optionsOf(vis)...)
	if !judgeOptions(r.t, vis, err) {
		require.False(r.t, ok)
		d, ok, err = q.TryReceive(r.ctx)
	}
	require.NoError(r.t, err)
	require.True(r.t, ok)
	require.Equal(r.t, 7, d.Body)
	require.NoError(r.t, d.Ack(r.ctx))
	require.Zero(r.t, q.Stats().Unsettled())

	require.True(r.t, r.publish(top, q))
	require.NoError(r.t, kit.Receive(r.t, q).Nack(r.ctx))
	if s := q.Stats(); r.attempts > 1 {
		require.Equal(r.t, 1, s.Retrying)
		return
	}
	require.Equal(r.t, 1, q.DeadLetters().Stats().Unsettled())
	r.redrive(q)
}

// publish publishes a message and waits until it is ready. It reports whether
// it can be.
func (r *optionsRun) publish(top *fanout.Topic[int], q *fanout.Queue[int]) bool {
	m := optionsMessage
	if r.ordering {
		m.OrderingKey = "customer"
	}
	before := q.Stats()
	require.NoError(r.t, top.TryPublishMessages(r.ctx, m))
	s := q.Stats()
	if r.unsure && s.Published == before.Published {
		return false
	}
	require.Equal(r.t, 1, s.Unsettled())
	if r.delay == 0 {
		require.Equal(r.t, 1, s.Ready)
		return true
	}
	require.Equal(r.t, 1, s.Delayed)
	if r.delay > 20*365*24*time.Hour {
		return false // synctest's clock doesn't go that far
	}
	time.Sleep(r.delay)
	synctest.Wait()
	require.Equal(r.t, 1, q.Stats().Ready)
	if r.ttl > 0 && r.ttl <= r.delay {
		kit.RequireEmpty(r.t, q)
		s := q.Stats()
		require.Equal(r.t, 1, s.Dead)
		require.EqualValues(r.t, 1, s.Expired)
		return false
	}
	return true
}

// redrive sends the dead letter back, or not.
func (r *optionsRun) redrive(q *fanout.Queue[int]) {
	selected, panics := true, false
	as := several(r, func() aspirant[fanout.RedriveOption] {
		switch r.draw(5) {
		case 0:
			return aspirant[fanout.RedriveOption]{fanout.RedriveIf(func(d fanout.Delivery[int]) bool { return d.Body == 7 }), "RedriveIf", "", nil}
		case 1:
			return aspirant[fanout.RedriveOption]{fanout.RedriveIDs("none"), "RedriveIDs", "", func() { selected = false }}
		case 2:
			return aspirant[fanout.RedriveOption]{fanout.RedriveIf[int](nil), "RedriveIf", "nil", nil}
		case 3:
			return aspirant[fanout.RedriveOption]{fanout.RedriveIf(func(fanout.Delivery[int]) bool { panic("fuzz") }), "RedriveIf", "", func() { panics = true }}
		}
		return aspirant[fanout.RedriveOption]{}
	})
	moved, err := q.Redrive(r.ctx, optionsOf(as)...)
	if !judgeOptions(r.t, as, err) {
		require.Zero(r.t, moved)
		return
	}
	accept(as)
	if panics && err != nil {
		require.ErrorContains(r.t, err, "panic: fuzz")
		require.Zero(r.t, moved)
		return
	}
	require.NoError(r.t, err)
	if !selected {
		require.Zero(r.t, moved)
		return
	}
	require.Equal(r.t, 1, moved)
	require.NoError(r.t, kit.Receive(r.t, q).Ack(r.ctx))
}

// push subscribes, in one of the ways there are, and has a message handled.
func (r *optionsRun) push(top *fanout.Topic[int]) {
	handled := make(chan int, 10)
	one := func(_ context.Context, d fanout.Delivery[int]) error {
		handled <- d.Body
		return nil
	}
	batch := func(ctx context.Context, ds []fanout.Delivery[int]) error { return one(ctx, ds[0]) }

	var s *fanout.Subscriber[int]
	if how := r.draw(4); how < 2 {
		as := several(r, r.anyOption)
		var err error
		if how == 0 {
			s, err = top.Subscribe(r.ctx, "audit", one, optionsOf(as)...)
		} else {
			s, err = top.SubscribeBatch(r.ctx, "audit", batch, optionsOf(as)...)
		}
		if !judgeOptions(r.t, as, err) {
			require.Nil(r.t, s)
			require.Empty(r.t, top.Queues())
			return
		}
		if how == 0 && batchSizeIn(as) {
			requireBatchSizeRefused(r.t, s, err)
			require.Empty(r.t, top.Queues())
			return
		}
		accept(as)
		if !r.opened(err) {
			return
		}
	} else {
		q := kit.OpenQueue(r.t, top, "audit")
		as := several(r, r.workerOption)
		var err error
		if how == 2 {
			s, err = q.Subscribe(r.ctx, one, optionsOf(as)...)
		} else {
			s, err = q.SubscribeBatch(r.ctx, batch, optionsOf(as)...)
		}
		if !judgeOptions(r.t, as, err) {
			require.Nil(r.t, s)
			return
		}
		if how == 2 && batchSizeIn(as) {
			requireBatchSizeRefused(r.t, s, err)
			return
		}
		require.NoError(r.t, err)
	}
	if r.replay > 0 { // a rate limit would have the new one wait for these
		return
	}
	q := s.Queue()
	before := q.Stats().Published
	require.NoError(r.t, top.TryPublishMessages(r.ctx, optionsMessage))
	if r.unsure && q.Stats().Published == before || r.delay > 20*365*24*time.Hour {
		return
	}
	time.Sleep(r.delay)
	synctest.Wait()
	if r.ttl > 0 && r.ttl <= r.delay {
		require.Empty(r.t, handled)
		require.EqualValues(r.t, 1, q.Stats().Expired)
		return
	}
	require.Len(r.t, handled, 1)
	require.Equal(r.t, 7, <-handled)
	require.EqualValues(r.t, 1, q.Stats().Acked)
}

func batchSizeIn[O any](as []aspirant[O]) bool {
	return slices.ContainsFunc(as, func(a aspirant[O]) bool { return a.name == "WithBatchSize" })
}

// requireBatchSizeRefused requires that a plain handler was refused for it.
func requireBatchSizeRefused(t *testing.T, s *fanout.Subscriber[int], err error) {
	t.Helper()
	require.Nil(t, s)
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	require.ErrorContains(t, err, "WithBatchSize(")
}

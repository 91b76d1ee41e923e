package topic

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/ranges"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/workers"
)

// The tests of this package see its inside, and call it as users of package fanout do: by
// options. Here is what of that package they use. Its own tests are its own.

// amortised is the most allocations a delivery that count as none: contexts are made 256 at
// a time, the race detector makes every pool forget a quarter of what it is given, and a
// consumer allocates when it is woken. One for each lease would be more.
const amortised = 0.013

// A Handler is a OneHandler that is given a copy.
type Handler[T any] func(ctx context.Context, d delivery.Delivery[T]) error

// allSettings is all that an option can set.
type allSettings struct {
	top     settings.Topic
	queue   settings.Queue
	sub     settings.Subscriber
	vis     time.Duration
	letters settings.Letters
	filters any // []Filter[T]
	keep    any // []func(*Delivery[T]) bool
	dead    any // *Queue[T]
}

// An option is any of package fanout's.
type option func(*allSettings)

type (
	TopicOption      = option
	QueueOption      = option
	WorkerOption     = option
	SubscribeOption  = option
	ReceiveOption    = option
	RedriveOption    = option
	DeadLetterOption = option
	Attempt          = message.Attempt
)

func set(options []option) *allSettings {
	s := &allSettings{queue: settings.DefaultQueue(), sub: settings.DefaultSubscriber(), top: settings.Topic{Partial: func(_ string, _ map[int]error, err error) error { return err }}}
	for _, o := range options {
		o(s)
	}
	return s
}

func WithOrdering() option { return func(s *allSettings) { s.top.Ordering = true } }
func WithDeduplication(window time.Duration, most int) option {
	return func(s *allSettings) { s.top.DedupWindow, s.top.DedupMax = window, most }
}
func WithRetention(n int) option        { return func(s *allSettings) { s.top.Retention = n } }
func WithLogger(l *slog.Logger) option  { return func(s *allSettings) { s.top.Logger = l } }
func WithEngine(e engine.Engine) option { return func(s *allSettings) { s.top.Engine = e } }
func WithCapacity(n int) option {
	return func(s *allSettings) { s.queue.Capacity, s.queue.Asked.Capacity = n, true }
}
func WithOverflow(o settings.Overflow) option {
	return func(s *allSettings) { s.queue.Overflow, s.queue.Asked.Overflow = o, true }
}
func WithMaxAttempts(n int) option           { return func(s *allSettings) { s.queue.MaxAttempts = n } }
func WithBackoff(b *settings.Backoff) option { return func(s *allSettings) { s.queue.Backoff = b } }
func WithDelay(d time.Duration) option       { return func(s *allSettings) { s.queue.Delay = d } }
func WithTimeToLive(d time.Duration) option  { return func(s *allSettings) { s.queue.TTL = d } }
func WithReplay(n int) option                { return func(s *allSettings) { s.queue.Replay = n } }
func WithConcurrency(n int) option           { return func(s *allSettings) { s.sub.Concurrency = n } }
func WithBatchSize(n int) option {
	return func(s *allSettings) { s.sub.Batch, s.sub.BatchAsked = n, true }
}
func WithAutoExtend(d time.Duration) option { return func(s *allSettings) { s.sub.AutoExtend = d } }
func WithHandlerTimeout(d time.Duration) option {
	return func(s *allSettings) { s.sub.HandlerTimeout = d }
}
func WithRateLimit(perSecond float64) option {
	return func(s *allSettings) { s.sub.Every = time.Duration(float64(time.Second) / perSecond) }
}
func WithVisibilityTimeout(d time.Duration) option {
	return func(s *allSettings) { s.vis, s.queue.Visibility, s.queue.Asked.Visibility = d, d, true }
}
func WithDeadLetterCapacity(n int) option {
	return func(s *allSettings) { s.queue.DeadCapacity, s.queue.Asked.DeadCapacity = n, true }
}
func WithDeadLetterOverflow(o settings.Overflow) option {
	return func(s *allSettings) { s.queue.DeadOverflow = o }
}
func WithDeadLetterQueue[T any](d *queue.Queue[T]) option { return func(s *allSettings) { s.dead = d } }
func WithFilter[T any](keep func(T) bool) option {
	return func(s *allSettings) {
		fs, _ := s.filters.([]filter.Filter[T])
		s.filters = append(fs, filter.Filter[T]{Body: keep})
	}
}
func WithMessageFilter[T any](keep func(message.Published[T]) bool) option {
	return func(s *allSettings) {
		fs, _ := s.filters.([]filter.Filter[T])
		s.filters = append(fs, filter.Filter[T]{Message: func(m *message.Published[T]) bool { return keep(*m) }})
	}
}

func WithPublishInterceptor(is ...intercept.Interceptor) option {
	return func(s *allSettings) { s.top.Publishing = append(s.top.Publishing, is...) }
}
func WithQueueInterceptor(is ...intercept.Interceptor) option {
	return func(s *allSettings) { s.top.Calls = append(s.top.Calls, is...) }
}
func WithHandlerInterceptor(is ...intercept.Interceptor) option {
	return func(s *allSettings) {
		s.top.Handling, s.sub.Interceptors = append(s.top.Handling, is...), append(s.sub.Interceptors, is...)
	}
}
func RedriveIDs(ids ...string) option {
	return func(s *allSettings) {
		s.letters.IDs = map[string]bool{}
		for _, id := range ids {
			s.letters.IDs[id] = false
		}
	}
}
func RedriveIf[T any](keep func(delivery.Delivery[T]) bool) option {
	return func(s *allSettings) {
		k, _ := s.keep.([]func(*delivery.Delivery[T]) bool)
		s.keep = append(k, func(d *delivery.Delivery[T]) bool { return keep(*d) })
	}
}

// An Event is what a hook is told.
type Event = notice.Event

// Hooks are listeners by name.
type Hooks struct {
	Published, Delivered, Settled, DeadLettered, Parked, Redriven, Dropped, Stuck, StuckStack, Stalled, EngineFailed, Late func(Event)
}

func WithHooks(h Hooks) option {
	return func(s *allSettings) {
		s.top.Listen = append(s.top.Listen, func(l *notice.Listeners) {
			for k, f := range []func(Event){
				h.Published, h.Delivered, h.Settled, h.DeadLettered, h.Parked, h.Redriven, h.Dropped, h.Stuck, h.StuckStack, h.Stalled, h.EngineFailed, h.Late, h.Late,
			} {
				if f != nil {
					l.Hook(notice.Kind(k), func(e *notice.Event) { f(*e) })
				}
			}
		})
	}
}

func NewTopic[T any](name string, options ...option) (*Topic[T], error) {
	return New[T](name, set(options).top)
}

func NewDeadLetterQueue[T any](name string, options ...option) (*queue.Queue[T], error) {
	s := set(options)
	return deadletter.NewShared[T](name, s.top, s.queue)
}

func (t *Topic[T]) OpenQueue(ctx context.Context, name string, options ...option) (*queue.Queue[T], error) {
	s := set(options)
	filters, _ := s.filters.([]filter.Filter[T])
	dead, _ := s.dead.(*queue.Queue[T])
	return t.Open(ctx, name, s.queue, filters, dead)
}

func (t *Topic[T]) Subscribe(ctx context.Context, name string, h Handler[T], options ...option) (*workers.Subscriber[T], error) {
	q, err := t.OpenQueue(ctx, name, options...)
	if err != nil {
		return nil, err
	}
	return subscribeTo(q, ctx, h, options...)
}

func (t *Topic[T]) SubscribeBatch(ctx context.Context, name string, h workers.BatchHandler[T], options ...option) (*workers.Subscriber[T], error) {
	q, err := t.OpenQueue(ctx, name, options...)
	if err != nil {
		return nil, err
	}
	return subscribeBatchTo(q, ctx, h, options...)
}

func subscribeTo[T any](q *queue.Queue[T], _ context.Context, h Handler[T], options ...option) (*workers.Subscriber[T], error) {
	return workers.Start(q, workers.OneHandler[T](h), nil, set(options).sub)
}

func subscribeBatchTo[T any](q *queue.Queue[T], _ context.Context, h workers.BatchHandler[T], options ...option) (*workers.Subscriber[T], error) {
	return workers.Start(q, nil, h, set(options).sub)
}

func (t *Topic[T]) PublishMessages(ctx context.Context, ms ...message.Published[T]) error {
	return t.In.PublishBatch(ctx, ms)
}

func (t *Topic[T]) TryPublishMessages(ctx context.Context, ms ...message.Published[T]) error {
	return t.In.TryPublishBatch(ctx, ms)
}

func Shutdown(ctx context.Context, topics ...ending.Topic) error {
	var errs []error
	for _, l := range ending.End(ctx, topics...) {
		errs = append(errs, l)
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func (t *Topic[T]) Shutdown(ctx context.Context) error { return Shutdown(ctx, t) }

func visOf[T any](q *queue.Queue[T], options []option) time.Duration {
	if len(options) == 0 {
		return q.Visibility()
	}
	if vis := set(options).vis; vis > 0 {
		return vis
	}
	return q.Visibility()
}

func receiveFrom[T any](q *queue.Queue[T], ctx context.Context, options ...option) (delivery.Delivery[T], error) {
	var d delivery.Delivery[T]
	err := delivery.TakeOne(ctx, q, &d, visOf(q, options))
	return d, err
}

func tryReceiveFrom[T any](q *queue.Queue[T], ctx context.Context, options ...option) (delivery.Delivery[T], bool, error) {
	var d delivery.Delivery[T]
	ok, err := delivery.TryTake(ctx, q, &d, visOf(q, options))
	return d, ok, err
}

func receiveInto[T any](q *queue.Queue[T], ctx context.Context, ds []delivery.Delivery[T], options ...option) (int, error) {
	return delivery.TakeInto(ctx, q, ds, visOf(q, options))
}

func receiveBatch[T any](q *queue.Queue[T], ctx context.Context, most int, options ...option) ([]delivery.Delivery[T], error) {
	return delivery.TakeBatch(ctx, q, most, visOf(q, options))
}

func deliveriesOf[T any](q *queue.Queue[T], ctx context.Context, options ...option) iter.Seq2[delivery.Delivery[T], error] {
	return func(yield func(delivery.Delivery[T], error) bool) {
		r := ranges.New(q, visOf(q, options))
		defer r.Leave()
		var err error
		for err == nil {
			var d *delivery.Delivery[T]
			if d, err = r.Next(ctx); err == nil && !yield(*d, nil) {
				return
			}
		}
		if !r.IsOver(err) {
			yield(delivery.Delivery[T]{}, err)
		}
	}
}

func ackBatchOf[T any](q *queue.Queue[T], ctx context.Context, ds ...delivery.Delivery[T]) error {
	failed := delivery.AckAll(ctx, q, ds)
	if failed == nil {
		return nil
	}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(failed)) {
		errs = append(errs, failed[k])
	}
	return errors.Join(errs...)
}

func redriveTo[T any](q *queue.Queue[T], ctx context.Context, options ...option) (int, error) {
	s := set(options)
	c := &deadletter.Choice[T]{Letters: s.letters}
	c.Keep, _ = s.keep.([]func(*delivery.Delivery[T]) bool)
	return deadletter.Redrive(ctx, q, c)
}

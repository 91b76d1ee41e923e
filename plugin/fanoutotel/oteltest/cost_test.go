package oteltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

// A setting is what there may be behind the API.
type setting struct {
	name    string
	tracers trace.TracerProvider
	meters  metric.MeterProvider
}

func settings() (all []setting) {
	tracers := []struct {
		name string
		p    trace.TracerProvider
	}{
		{"no-op", nooptrace.NewTracerProvider()},
		{"never sampled", sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))},
		{"sampled", sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(dropped{}))},
	}
	for _, t := range tracers {
		all = append(all, setting{t.name + ", no metrics", t.p, noopmetric.NewMeterProvider()})
		all = append(all, setting{t.name + ", metrics", t.p, sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))})
	}
	return all
}

// dropped is a processor that drops all.
type dropped struct{}

func (dropped) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (dropped) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (dropped) Shutdown(context.Context) error                  { return nil }
func (dropped) ForceFlush(context.Context) error                { return nil }

// bare makes the OpenTelemetry calls that fanoutotel makes of a message, with the same
// attributes and in the same order, but without the library: no topic, no queue, no
// interceptor, no goroutine. What a message carries is in a map of its own.
type bare struct {
	tracer    trace.Tracer
	sent      messagingconv.ClientSentMessages
	consumed  messagingconv.ClientConsumedMessages
	operation messagingconv.ClientOperationDuration
	process   messagingconv.ProcessDuration
	send      calls
	handling  []calls // of each queue

	carriers [atOnce]propagation.MapCarrier // of messages that are published and not handled yet
}

// calls are what the calls of one place have in common.
type calls struct {
	start  []trace.SpanStartOption
	record []metric.RecordOption
	add    []metric.AddOption
}

func callsOf(kind trace.SpanKind, as ...attribute.KeyValue) calls {
	set := metric.WithAttributeSet(attribute.NewSet(as...))
	return calls{[]trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(as...)}, []metric.RecordOption{set}, []metric.AddOption{set}}
}

func newBare(tb testing.TB, s setting, queues int) *bare {
	b := &bare{tracer: s.tracers.Tracer("bare")}
	m := s.meters.Meter("bare")
	buckets := metric.WithExplicitBucketBoundaries(advised...)
	var errs [4]error
	b.sent, errs[0] = messagingconv.NewClientSentMessages(m)
	b.consumed, errs[1] = messagingconv.NewClientConsumedMessages(m)
	b.operation, errs[2] = messagingconv.NewClientOperationDuration(m, buckets)
	b.process, errs[3] = messagingconv.NewProcessDuration(m, buckets)
	require.NoError(tb, errors.Join(errs[:]...))
	b.send = callsOf(trace.SpanKindProducer, semconv.MessagingSystemKey.String("fanout"), semconv.MessagingOperationName("publish"),
		semconv.MessagingDestinationName("payments"), semconv.MessagingOperationTypeKey.String("send"))
	for q := range queues {
		b.handling = append(b.handling, callsOf(trace.SpanKindConsumer, semconv.MessagingSystemKey.String("fanout"), semconv.MessagingOperationName("process"),
			semconv.MessagingDestinationName("payments"), semconv.MessagingOperationTypeKey.String("process"), semconv.MessagingDestinationSubscriptionName(fmt.Sprint("q", q))))
	}
	return b
}

const messageID = "0198c0de-7000-7000-8000-000000000001"

func (b *bare) publish(ctx context.Context) propagation.MapCarrier {
	began := time.Now()
	ctx, span := b.tracer.Start(ctx, "publish payments", b.send.start...)
	if span.IsRecording() {
		span.SetAttributes(semconv.MessagingMessageID(messageID))
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	span.End()
	b.operation.Inst().Record(ctx, time.Since(began).Seconds(), b.send.record...)
	b.sent.Inst().Add(ctx, 1, b.send.add...)
	return carrier
}

func (b *bare) handle(ctx context.Context, of *calls, carrier propagation.TextMapCarrier) {
	began := time.Now()
	ctx = propagation.TraceContext{}.Extract(ctx, carrier)
	parent := trace.SpanContextFromContext(ctx)
	ctx, span := b.tracer.Start(ctx, "process payments", of.start...)
	if span.IsRecording() {
		span.AddLink(trace.Link{SpanContext: parent})
		span.SetAttributes(semconv.MessagingMessageID(messageID), attribute.Int("messaging.fanout.attempt", 1), attribute.String("messaging.fanout.cause", "acked"))
	}
	span.End()
	b.process.Inst().Record(ctx, time.Since(began).Seconds(), of.record...)
	b.consumed.Inst().Add(ctx, 1, of.add...)
}

// run makes the calls of n messages in the order in which a flow's are made.
func (b *bare) run(n int) (all phases) {
	for n > 0 {
		some := min(n, atOnce)
		began := cpuTime()
		for k := range some {
			b.carriers[k] = b.publish(context.Background())
		}
		published := cpuTime()
		for q := range b.handling {
			for k := range some {
				b.handle(context.Background(), &b.handling[q], b.carriers[k])
			}
		}
		all.add(began, published, cpuTime())
		n -= some
	}
	return all
}

// phases are the processor times of publishes, and of the deliveries that followed.
type phases [2]time.Duration

const (
	publishes = iota
	deliveries
)

func (p *phases) add(began, published, handled time.Duration) {
	p[publishes] += published - began
	p[deliveries] += handled - published
}

// runMoved is run with the stack eight bytes further down. The SDK copies attributes of 64
// bytes from stack frame to stack frame in moves of 16, and these take some hundred
// nanoseconds a call longer if they cross cache lines. Whether they do is decided by the sizes
// of all frames above.
//
//go:noinline
func (b *bare) runMoved(n int) phases {
	var room [2]uint64
	fill(&room)
	return b.run(n)
}

//go:noinline
func (b *bare) runUnmoved(n int) phases {
	var room [1]uint64
	fill(&room)
	return b.run(n)
}

//go:noinline
func fill[T any](room *T) { *room = *new(T) }

// atOnce is how many messages are in the queues at most: they stay in the cache.
const atOnce = 256

// A flow publishes messages to queues and waits until all are handled, again and again.
type flow struct {
	run func(n int) phases
	end func()
}

// newFlow makes one of a topic of T with the options. With written it makes the OpenTelemetry
// calls itself, around its publishes and in its handlers.
func newFlow[T any](tb testing.TB, queues int, written *bare, options ...fanout.TopicOption) flow {
	ctx := context.Background()
	top, err := fanout.NewTopic[T]("payments", options...)
	require.NoError(tb, err)
	handled := make(chan struct{}, queues)
	left := make([]int, queues)
	for q := range queues {
		done := func(context.Context, fanout.Delivery[T]) error {
			if left[q]--; left[q] == 0 {
				handled <- struct{}{}
			}
			return nil
		}
		handler := done
		if written != nil {
			c := new(deliveryCarrier[T])
			handler = func(ctx context.Context, d fanout.Delivery[T]) error {
				c.Delivery = d
				written.handle(ctx, &written.handling[q], c)
				return done(ctx, d)
			}
		}
		_, err = top.Subscribe(ctx, fmt.Sprint("q", q), handler, fanout.WithCapacity(atOnce))
		require.NoError(tb, err)
	}
	var body T
	publish := top.Publish
	if written != nil {
		publish = func(ctx context.Context, body T) error {
			return top.PublishMessages(ctx, fanout.Message[T]{Body: body, Attributes: written.publish(ctx)})
		}
	}
	return flow{
		run: func(n int) (all phases) {
			for n > 0 {
				some := min(n, atOnce)
				for q := range left {
					left[q] = some
				}
				began := cpuTime()
				for range some {
					if publish(ctx, body) != nil {
						panic("not published")
					}
				}
				published := cpuTime()
				for range queues {
					<-handled
				}
				all.add(began, published, cpuTime())
				n -= some
			}
			return all
		},
		end: func() {
			require.NoError(tb, top.Close())
			<-top.Done()
		},
	}
}

// A deliveryCarrier carries a trace in a delivery's attributes.
type deliveryCarrier[T any] struct{ fanout.Delivery[T] }

func (c *deliveryCarrier[T]) Get(name string) string {
	value, _ := c.Attribute(name)
	return value
}
func (c *deliveryCarrier[T]) Set(string, string) {}
func (c *deliveryCarrier[T]) Keys() []string     { return nil }

// BenchmarkCost states what fanoutotel itself costs: the processor time of a flow with it,
// less that of the same OpenTelemetry calls with the same providers. These calls are made
//
//   - bare, in a loop without the library; then what the flow costs without fanoutotel is taken
//     off too: own-ns;
//   - by hand, around the publishes and in the handlers of a topic without fanoutotel, with a
//     carrier that is used again: over-written-ns;
//   - by hand as well, of a topic with interceptors that only call next: over-surrounded-ns.
//
// Where the stack happens to be makes a difference to the SDK, see runMoved. So the bare loop
// runs at two places, and all else with bodies of 8, 16 and 24 bytes, which move the frames of
// a worker. Of each what suits it best is taken; own-worst-ns is of the body that suits least.
//
// All take turns. With one processor the workers run when the publisher waits, so the time of
// publishes and that of deliveries are measured apart. The numbers are medians over the
// rounds; low and high are the quartiles. The garbage is collected between the turns. Before
// it all, the same of interceptors that only call next. Run it with -cpu 1 -benchtime 60x.
func BenchmarkCost(b *testing.B) {
	for _, queues := range []int{1, 4} {
		of := fmt.Sprintf("queues=%d", queues)
		b.Run("interceptors alone/"+of, func(b *testing.B) {
			measure(b, queues, nil, fanout.WithPublishInterceptor(pass), fanout.WithHandlerInterceptor(pass))
		})
		for _, s := range settings() {
			b.Run(s.name+"/"+of, func(b *testing.B) {
				i, err := fanoutotel.New(fanoutotel.WithTracerProvider(s.tracers), fanoutotel.WithMeterProvider(s.meters))
				require.NoError(b, err)
				measure(b, queues, &s, i.Topic())
			})
		}
	}
}

// pass is an interceptor that does nothing.
func pass(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
	return next(ctx)
}

// What takes turns with bodies of one size.
const (
	without = iota
	with
	written
	surrounded
	kinds
)

// turns are what takes turns with bodies of type T; s is nil if nothing is measured by hand.
func turns[T any](b *testing.B, queues int, s *setting, options []fanout.TopicOption) (runs [kinds]func(n int) phases) {
	start := func(written *bare, options ...fanout.TopicOption) func(n int) phases {
		f := newFlow[T](b, queues, written, options...)
		b.Cleanup(f.end)
		return f.run
	}
	runs[without], runs[with] = start(nil), start(nil, options...)
	runs[written], runs[surrounded] = runs[without], runs[without]
	if s != nil {
		runs[written] = start(newBare(b, *s, queues))
		runs[surrounded] = start(newBare(b, *s, queues), fanout.WithPublishInterceptor(pass), fanout.WithHandlerInterceptor(pass))
	}
	return runs
}

func measure(b *testing.B, queues int, s *setting, options ...fanout.TopicOption) {
	const each = 4 * atOnce
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	heap := make([]byte, 256<<20) // never touched: with it what is free is not given back to the system
	defer runtime.KeepAlive(heap)
	bodies := [][kinds]func(n int) phases{turns[[1]int](b, queues, s, options), turns[[2]int](b, queues, s, options), turns[[3]int](b, queues, s, options)}
	bares := []func(n int) phases{func(int) phases { return phases{} }}
	if s != nil {
		bare := newBare(b, *s, queues)
		bares = []func(n int) phases{bare.runUnmoved, bare.runMoved}
	}
	timed := func(run func(n int) phases) [2]float64 { // nanoseconds a publish and a delivery
		runtime.GC()
		all := run(each)
		return [2]float64{float64(all[publishes]) / each, float64(all[deliveries]) / float64(each*queues)}
	}
	var bare [2][2][]float64        // of each phase, at each place, in each round
	var took [2][kinds][3][]float64 // of each phase, more than without, with each body, in each round
	round := func() {
		for place, run := range bares {
			for phase, ns := range timed(run) {
				bare[phase][place] = append(bare[phase][place], ns)
			}
		}
		for body, runs := range bodies {
			base := timed(runs[without])
			for kind := with; kind < kinds; kind++ {
				for phase, ns := range timed(runs[kind]) {
					took[phase][kind][body] = append(took[phase][kind][body], ns-base[phase])
				}
			}
		}
	}
	for range 5 {
		round()
	}
	clear(bare[:])
	clear(took[:])
	for b.Loop() {
		round()
	}
	b.ReportMetric(0, "ns/op")
	byMedian := func(x, y []float64) int { return cmp.Compare(median(x), median(y)) }
	for phase, name := range map[int]string{publishes: "publish", deliveries: "delivery"} {
		best := func(kind int) []float64 { return slices.MinFunc(took[phase][kind][:], byMedian) }
		less := func(x, y []float64) (ns []float64) {
			for r := range x {
				ns = append(ns, x[r]-y[r])
			}
			slices.Sort(ns)
			return ns
		}
		bare := slices.MinFunc(bare[phase][:len(bares)], byMedian)
		b.ReportMetric(median(bare), "bare-ns/"+name)
		b.ReportMetric(median(less(slices.MaxFunc(took[phase][with][:], byMedian), bare)), "own-worst-ns/"+name)
		for of, ns := range map[string][]float64{
			"own": less(best(with), bare), "over-written": less(best(with), best(written)), "over-surrounded": less(best(with), best(surrounded)),
		} {
			b.ReportMetric(ns[len(ns)/2], of+"-ns/"+name)
			b.ReportMetric(ns[len(ns)/4], of+"-low-ns/"+name)
			b.ReportMetric(ns[len(ns)-1-len(ns)/4], of+"-high-ns/"+name)
		}
	}
}

func median(ns []float64) float64 { return slices.Sorted(slices.Values(ns))[len(ns)/2] }

// A delivery allocates what the bare OpenTelemetry calls do, and nothing of our own; a
// publish what fixes its ID before interceptors, and keeps it. That is counted in a bubble, where
// time stands still: so queues do nothing by time, however long a busy machine takes.
func TestWhatAPublishAndADeliveryAllocateOfTheirOwn(t *testing.T) {
	synctest.Test(t, whatAPublishAndADeliveryAllocate)
}

func whatAPublishAndADeliveryAllocate(t *testing.T) {
	const runs = 500
	each := func(f func(n int)) float64 {
		f(runs)
		return testing.AllocsPerRun(4, func() { f(runs) }) / runs
	}
	flowOf := func(queues int, options ...fanout.TopicOption) float64 {
		f := newFlow[int](t, queues, nil, options...)
		defer f.end()
		return each(func(n int) { f.run(n) })
	}
	plain1, plain5 := flowOf(1), flowOf(5)
	for _, s := range settings() {
		o := newBare(t, s, 1)
		carrier := o.publish(t.Context())
		publish := each(func(n int) {
			for range n {
				o.publish(t.Context())
			}
		})
		handle := each(func(n int) {
			for range n {
				o.handle(t.Context(), &o.handling[0], carrier)
			}
		})
		i, err := fanoutotel.New(fanoutotel.WithTracerProvider(s.tracers), fanoutotel.WithMeterProvider(s.meters))
		require.NoError(t, err)
		with1, with5 := flowOf(1, i.Topic()), flowOf(5, i.Topic())
		delivery := ((with5 - plain5) - (with1 - plain1)) / 4
		published := with1 - plain1 - delivery
		t.Logf("%-28s delivery: bare %.2f, ours %.2f more; publish: bare %.2f, ours %.2f more", s.name, handle, delivery-handle, publish, published-publish)
		require.LessOrEqual(t, delivery-handle, deliveryOwn, s.name)
		most := publishOwn
		if _, ok := s.tracers.(nooptrace.TracerProvider); ok {
			most = publishOwnNoOps
		}
		require.LessOrEqual(t, published-publish, most, s.name)
	}
}

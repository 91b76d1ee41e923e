package oteltest

import (
	"context"
	"fmt"
	"testing"
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

// bare makes the OpenTelemetry calls that the conventions ask for, without a queue.
type bare struct {
	tracer    trace.Tracer
	sent      messagingconv.ClientSentMessages
	consumed  messagingconv.ClientConsumedMessages
	operation messagingconv.ClientOperationDuration
	process   messagingconv.ProcessDuration
	sendOf    []trace.SpanStartOption
	processOf []trace.SpanStartOption
	record    []metric.RecordOption
	add       []metric.AddOption
}

func newBare(s setting) *bare {
	b := &bare{tracer: s.tracers.Tracer("bare")}
	m := s.meters.Meter("bare")
	b.sent, _ = messagingconv.NewClientSentMessages(m)
	b.consumed, _ = messagingconv.NewClientConsumedMessages(m)
	b.operation, _ = messagingconv.NewClientOperationDuration(m)
	b.process, _ = messagingconv.NewProcessDuration(m)
	as := []attribute.KeyValue{
		semconv.MessagingSystemKey.String("fanout"), semconv.MessagingOperationName("publish"), semconv.MessagingDestinationName("payments"),
		semconv.MessagingOperationTypeKey.String("send"), semconv.MessagingDestinationSubscriptionName("q"),
	}
	b.sendOf = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(as...)}
	b.processOf = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(as...)}
	set := metric.WithAttributeSet(attribute.NewSet(as...))
	b.record, b.add = []metric.RecordOption{set}, []metric.AddOption{set}
	return b
}

func (b *bare) publish(ctx context.Context) propagation.MapCarrier {
	began := time.Now()
	ctx, span := b.tracer.Start(ctx, "publish payments", b.sendOf...)
	if span.IsRecording() {
		span.SetAttributes(semconv.MessagingMessageID("0198c0de-7000-7000-8000-000000000001"))
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	span.End()
	b.operation.Inst().Record(ctx, time.Since(began).Seconds(), b.record...)
	b.sent.Inst().Add(ctx, 1, b.add...)
	return carrier
}

func (b *bare) handle(ctx context.Context, carrier propagation.MapCarrier) {
	began := time.Now()
	ctx = propagation.TraceContext{}.Extract(ctx, carrier)
	parent := trace.SpanContextFromContext(ctx)
	ctx, span := b.tracer.Start(ctx, "process payments", b.processOf...)
	if span.IsRecording() {
		span.AddLink(trace.Link{SpanContext: parent})
		span.SetAttributes(semconv.MessagingMessageID("0198c0de-7000-7000-8000-000000000001"), attribute.Int("messaging.fanout.attempt", 1), attribute.String("messaging.fanout.cause", "acked"))
	}
	span.End()
	b.process.Inst().Record(ctx, time.Since(began).Seconds(), b.record...)
	b.consumed.Inst().Add(ctx, 1, b.add...)
}

// A flow publishes messages to queues and waits until all are handled, again and again.
type flow struct {
	run func(n int)
	end func()
}

// newFlow makes one of a topic with the options.
func newFlow(tb testing.TB, queues int, options ...fanout.TopicOption) flow {
	ctx := context.Background()
	top, err := fanout.NewTopic[int]("payments", options...)
	require.NoError(tb, err)
	handled := make(chan struct{}, queues)
	left := make([]int, queues)
	for q := range queues {
		_, err = top.Subscribe(ctx, fmt.Sprint("q", q), func(context.Context, fanout.Delivery[int]) error {
			if left[q]--; left[q] == 0 {
				handled <- struct{}{}
			}
			return nil
		}, fanout.WithCapacity(256))
		require.NoError(tb, err)
	}
	return flow{
		run: func(n int) {
			for n > 0 {
				some := min(n, 256) // what is in the queues stays in the cache
				for q := range left {
					left[q] = some
				}
				for k := range some {
					if top.Publish(ctx, k) != nil {
						panic("not published")
					}
				}
				for range queues {
					<-handled
				}
				n -= some
			}
		},
		end: func() {
			require.NoError(tb, top.Close())
			<-top.Done()
		},
	}
}

// BenchmarkCost states what a message costs, published and handled in each queue: without
// fanoutotel, with it, and as bare OpenTelemetry calls without a queue. What fanoutotel
// itself costs is the difference. Run it with -cpu 1, and look at cpu-ns/op.
func BenchmarkCost(b *testing.B) {
	for _, queues := range []int{1, 4} {
		b.Run(fmt.Sprintf("queues=%d/not installed", queues), func(b *testing.B) { measureFlow(b, newFlow(b, queues)) })
		for _, s := range settings() {
			b.Run(fmt.Sprintf("queues=%d/%s/bare", queues, s.name), func(b *testing.B) {
				o := newBare(s)
				measure(b, func(n int) {
					for range n {
						c := o.publish(context.Background())
						for range queues {
							o.handle(context.Background(), c)
						}
					}
				})
			})
			b.Run(fmt.Sprintf("queues=%d/%s/fanoutotel", queues, s.name), func(b *testing.B) {
				i, err := fanoutotel.New(fanoutotel.WithTracerProvider(s.tracers), fanoutotel.WithMeterProvider(s.meters))
				require.NoError(b, err)
				measureFlow(b, newFlow(b, queues, i.Topic()))
			})
		}
	}
}

func measureFlow(b *testing.B, f flow) {
	measure(b, f.run)
	f.end()
}

func measure(b *testing.B, run func(n int)) {
	run(1000)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	run(b.N)
	used := cpuTime() - before
	b.StopTimer()
	b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
}

// A delivery allocates what the bare OpenTelemetry calls do, and nothing of our own; a
// publish what fixes its ID before interceptors, and keeps it.
func TestWhatAPublishAndADeliveryAllocateOfTheirOwn(t *testing.T) {
	const runs = 500
	each := func(f func(n int)) float64 {
		f(runs)
		return testing.AllocsPerRun(4, func() { f(runs) }) / runs
	}
	flowOf := func(queues int, options ...fanout.TopicOption) float64 {
		f := newFlow(t, queues, options...)
		defer f.end()
		return each(f.run)
	}
	plain1, plain5 := flowOf(1), flowOf(5)
	for _, s := range settings() {
		o := newBare(s)
		carrier := o.publish(t.Context())
		publish := each(func(n int) {
			for range n {
				o.publish(t.Context())
			}
		})
		handle := each(func(n int) {
			for range n {
				o.handle(t.Context(), carrier)
			}
		})
		i, err := fanoutotel.New(fanoutotel.WithTracerProvider(s.tracers), fanoutotel.WithMeterProvider(s.meters))
		require.NoError(t, err)
		with1, with5 := flowOf(1, i.Topic()), flowOf(5, i.Topic())
		delivery := ((with5 - plain5) - (with1 - plain1)) / 4
		published := with1 - plain1 - delivery
		t.Logf("%-28s delivery: bare %.2f, ours %.2f more; publish: bare %.2f, ours %.2f more", s.name, handle, delivery-handle, publish, published-publish)
		require.LessOrEqual(t, delivery-handle, deliveryOwn, s.name)
		require.LessOrEqual(t, published-publish, publishOwn, s.name)
	}
}

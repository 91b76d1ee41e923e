// Package oteltest holds what fanoutotel records against OpenTelemetry's conventions,
// with the SDK.
package oteltest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

func TestLinksOnly(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		as := *memory
		as.systems = [2]string{"aws.sns", "aws_sqs"}
		b := newBenchAt(t, &as, fanoutotel.WithLinksOnly())
		top := b.topic("payments")
		_, err := top.Subscribe(ctx, "q", func(context.Context, fanout.Delivery[int]) error { return nil })
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: "a"}))
		synctest.Wait()
		spans := b.spans()
		require.Equal(t, []string{"0 producer publish payments id=a", "1 consumer process payments name=q id=a attempt=1 cause=acked link 0"}, lines(spans))
		require.Equal(t, "aws.sns", attributesOf(spans[0])["messaging.system"])
		require.Equal(t, "aws_sqs", attributesOf(spans[1])["messaging.system"])
		require.NoError(t, top.Close())
	})
}

// The ordering key is told by the spans of single messages, if that is asked for.
func TestWithOrderingKey(t *testing.T) {
	for want, options := range map[string][]fanoutotel.Option{"": nil, "ann": {fanoutotel.WithOrderingKey()}} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			b := newBench(t, options...)
			top, err := fanout.NewTopic[int]("payments", b.Topic(), fanout.WithOrdering())
			require.NoError(t, err)
			pulled, err := top.OpenQueue(ctx, "pulled")
			require.NoError(t, err)
			_, err = top.Subscribe(ctx, "pushed", func(context.Context, fanout.Delivery[int]) error { return nil })
			require.NoError(t, err)
			ann, nobody := fanout.Message[int]{ID: "a", OrderingKey: "ann"}, fanout.Message[int]{ID: "b"}
			require.NoError(t, top.PublishMessages(ctx, ann))
			require.NoError(t, top.PublishMessages(ctx, nobody, ann))
			for range 3 {
				d, err := pulled.Receive(ctx)
				require.NoError(t, err)
				require.NoError(t, d.Ack(ctx))
			}
			elapse(time.Second)
			told := map[string]int{}
			for _, s := range b.spans() {
				as := attributesOf(s)
				key, has := as["messaging.fanout.ordering_key"]
				require.Equal(t, as["messaging.message.id"] == "a" && want != "", has, s.Name())
				if has {
					require.Equal(t, want, key)
					told[s.Name()]++
				}
			}
			if want != "" {
				require.Equal(t, map[string]int{"publish payments": 1, "create payments": 1, "process payments": 2, "receive payments": 2, "ack payments": 2}, told)
			}
			require.NoError(t, top.Close())
		})
	}
}

// By default the providers are the global ones at the time of New, and the propagator is W3C
// Trace Context, whatever the global one is: tracestate travels, baggage does not.
func TestTheDefaults(t *testing.T) {
	tracers, meters, propagator := otel.GetTracerProvider(), otel.GetMeterProvider(), otel.GetTextMapPropagator()
	t.Cleanup(func() {
		otel.SetTracerProvider(tracers)
		otel.SetMeterProvider(meters)
		otel.SetTextMapPropagator(propagator)
	})
	install := func() (*tracetest.SpanRecorder, *metric.ManualReader) {
		spans, reader := tracetest.NewSpanRecorder(), metric.NewManualReader()
		otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
		otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
		return spans, reader
	}
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	spans, reader := install()
	i, err := fanoutotel.New()
	require.NoError(t, err)
	laterSpans, laterReader := install()

	top, err := fanout.NewTopic[int]("payments", i.Topic())
	require.NoError(t, err)
	states := make(chan string, 1)
	_, err = top.Subscribe(t.Context(), "q", func(ctx context.Context, d fanout.Delivery[int]) error {
		_, carried := d.Attribute("baggage")
		states <- fmt.Sprint(trace.SpanContextFromContext(ctx).TraceState(), carried)
		return nil
	})
	require.NoError(t, err)
	bag, err := baggage.Parse("customer=ann")
	require.NoError(t, err)
	state, err := trace.ParseTraceState("vendor=value")
	require.NoError(t, err)
	ctx := trace.ContextWithSpanContext(baggage.ContextWithBaggage(t.Context(), bag),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state}))
	require.NoError(t, top.Publish(ctx, 1))
	require.Equal(t, "vendor=value false", <-states)
	require.NoError(t, top.Close())
	<-top.Done()

	require.Len(t, spans.Ended(), 2)
	require.Empty(t, laterSpans.Ended())
	for r, want := range map[*metric.ManualReader]int{reader: 1, laterReader: 0} {
		var got metricdata.ResourceMetrics
		require.NoError(t, r.Collect(t.Context(), &got))
		require.Len(t, got.ScopeMetrics, want)
	}
}

// What a propagator of the user's carries beside the trace reaches the handler, whether its
// span is a child, has a link alone, or follows none.
func TestWhatAPropagatorCarriesBesideTheTraceReachesTheHandler(t *testing.T) {
	both := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	for name, c := range map[string]struct {
		options []fanoutotel.Option
		spans   []string
	}{
		"child": {[]fanoutotel.Option{fanoutotel.WithPropagator(both)}, []string{"0 producer publish payments id=a", "1 consumer process payments name=q id=a attempt=1 cause=acked parent 0 link 0"}},
		"link":  {[]fanoutotel.Option{fanoutotel.WithPropagator(both), fanoutotel.WithLinksOnly()}, []string{"0 producer publish payments id=a", "1 consumer process payments name=q id=a attempt=1 cause=acked link 0"}},
		"no trace": {[]fanoutotel.Option{fanoutotel.WithPropagator(propagation.NewCompositeTextMapPropagator(propagation.Baggage{}))},
			[]string{"0 producer publish payments id=a", "1 consumer process payments name=q id=a attempt=1 cause=acked"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				b := newBench(t, c.options...)
				top := b.topic("payments")
				q, err := top.OpenQueue(ctx, "q")
				require.NoError(t, err)
				bag, err := baggage.Parse("customer=ann")
				require.NoError(t, err)
				require.NoError(t, top.PublishMessages(baggage.ContextWithBaggage(ctx, bag), fanout.Message[int]{ID: "a"}))
				elapse(time.Second) // for spans to have an order
				var got []string
				_, err = q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
					require.True(t, trace.SpanFromContext(ctx).IsRecording())
					got = append(got, baggage.FromContext(ctx).String())
					return nil
				})
				require.NoError(t, err)
				synctest.Wait()
				require.Equal(t, []string{"customer=ann"}, got)
				require.Equal(t, c.spans, lines(b.spans()))
				require.NoError(t, top.Close())
			})
		})
	}
}

// A context that the user set is not changed, for each message.
func TestTheUsersOwnTraceparentIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const own = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
		b := newBench(t)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "q")
		require.NoError(t, err)
		mine := fanout.Message[int]{ID: "mine", Attributes: map[string]string{"traceparent": own}}
		require.NoError(t, top.PublishMessages(ctx, mine))
		single := b.spans()
		require.Equal(t, []string{"0 client publish payments id=mine link ?"}, lines(single))
		require.Equal(t, "00f067aa0ba902b7", single[0].Links()[0].SpanContext.SpanID().String())
		require.NoError(t, top.PublishMessages(ctx, mine, fanout.Message[int]{ID: "b"}))
		batch := b.spans()
		require.Equal(t, []string{"0 producer create payments id=b", "1 client publish payments message_count=2 link ? link 0"}, lines(batch))
		for _, want := range []string{own, own, fmt.Sprintf("00-%s-%s-01", batch[0].SpanContext().TraceID(), batch[0].SpanContext().SpanID())} {
			d, err := q.Receive(ctx)
			require.NoError(t, err)
			got, _ := d.Attribute("traceparent")
			require.Equal(t, want, got)
		}
		require.NoError(t, top.Close())
	})
}

func TestObserve(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "q", fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropNewest))
		require.NoError(t, err)
		_, err = top.OpenQueue(ctx, "unlimited", fanout.WithCapacity(fanout.Unlimited))
		require.NoError(t, err)
		stop, err := b.Observe(fanoutotel.Of(top))
		require.NoError(t, err)
		for k := range 4 {
			require.NoError(t, top.Publish(ctx, k))
		}
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Settle(ctx, fanout.Permanent(errBusy)))
		_, err = q.Receive(ctx)
		require.NoError(t, err)
		elapse(2 * time.Second)
		got := map[string]string{}
		for name, m := range b.metrics() {
			of := func(as attribute.Set, v any) {
				name := name
				queue, _ := as.Value("messaging.destination.subscription.name")
				if queue.AsString() == "unlimited" {
					require.NotEqual(t, "fanout.queue.capacity", name)
					return
				}
				if reason, ok := as.Value("messaging.fanout.reason"); ok {
					name += " " + reason.AsString()
				}
				got[name] = fmt.Sprint(v, " ", m.Unit)
			}
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					of(p.Attributes, p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range d.DataPoints {
					of(p.Attributes, p.Value)
				}
			}
		}
		maps.DeleteFunc(got, func(name, _ string) bool { return !strings.HasPrefix(name, "fanout.") })
		require.Equal(t, map[string]string{
			"fanout.queue.ready": "1 {message}", "fanout.queue.in_flight": "1 {message}", "fanout.queue.delayed": "0 {message}", "fanout.queue.retrying": "0 {message}",
			"fanout.queue.blocked": "0 {message}", "fanout.queue.parked": "0 {message}", "fanout.queue.dead": "1 {message}", "fanout.queue.capacity": "3 {message}",
			"fanout.queue.unsettled": "2 {message}", "fanout.queue.workers": "0 {worker}", "fanout.queue.stuck": "0 {worker}", "fanout.queue.oldest_age": "2 s",
			"fanout.topic.publishers_waiting": "0 {call}", "fanout.queue.dropped drop newest": "1 {message}",
		}, got)
		require.NoError(t, stop())
		_, observed := b.metrics()["fanout.queue.ready"]
		require.False(t, observed)
		_, err = b.Observe(fanoutotel.Of[int](nil))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.NoError(t, top.Close())
	})
}

func TestLogHandlerAddsTheTraceOutsideOfGroups(t *testing.T) {
	var out bytes.Buffer
	plain := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if groups == nil && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	log := slog.New(fanoutotel.LogHandler(plain))
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	const ids = "trace_id=01000000000000000000000000000000 span_id=0200000000000000"
	for want, l := range map[string]*slog.Logger{
		"msg=m k=1 " + ids:                    log,
		"msg=m a=b k=1 " + ids:                log.With("a", "b"),
		"msg=m " + ids + " g.k=1":             log.WithGroup("g"),
		"msg=m a=b " + ids + " g.c=d g.h.k=1": log.With("a", "b").WithGroup("g").With("c", "d").WithGroup("h"),
	} {
		out.Reset()
		l.InfoContext(ctx, "m", "k", 1)
		require.Equal(t, "level=INFO "+want+"\n", out.String())
		out.Reset()
		l.InfoContext(t.Context(), "m", "k", 1)
		require.Equal(t, strings.Fields("level=INFO "+strings.ReplaceAll(want, ids, "")), strings.Fields(out.String()), "without a span")
	}
}

func TestOptionsThatCanNotBe(t *testing.T) {
	for want, o := range map[string]fanoutotel.Option{
		"option 0 is nil": nil, "WithTracerProvider": fanoutotel.WithTracerProvider(nil), "WithMeterProvider": fanoutotel.WithMeterProvider(nil),
		"WithPropagator": fanoutotel.WithPropagator(nil), `WithSystem("", "x")`: fanoutotel.WithSystem("", "x"), "WithMaxParentAge(0s)": fanoutotel.WithMaxParentAge(0),
	} {
		_, err := fanoutotel.New(o)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, want)
	}
	i, err := fanoutotel.New() // the globals, which do nothing here
	require.NoError(t, err)
	top, err := fanout.NewTopic[int]("payments", i.Topic())
	require.NoError(t, err)
	require.NoError(t, top.Publish(t.Context(), 1))
	require.NoError(t, top.Close())
}

func TestSharedDeadLettersAreTracedToo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		d, err := fanout.NewDeadLetterQueue[int]("shared", b.DeadLetters())
		require.NoError(t, err)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "q", fanout.WithDeadLetterQueue(d))
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: "a"}))
		got, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, got.Settle(ctx, fanout.Permanent(errBusy)))
		b.spans()
		_, err = d.Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error { return nil }, b.Worker())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"0 consumer process shared name=shared id=a attempt=1 cause=acked parent ? link ?"}, lines(b.spans()))
		require.NoError(t, top.Close())
		require.NoError(t, d.Close())
	})
}

// Two topics on one engine stand for two processes, each with providers of its own.
func TestATraceGoesOnInAnotherProcess(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		here, there := newBench(t), newBench(t)
		topic := func(b *bench) *fanout.Topic[int] {
			top, err := fanout.NewTopic[int]("payments", fanout.WithEngine(e), b.Topic(), fanout.WithLogger(slog.New(slog.DiscardHandler)))
			require.NoError(t, err)
			return top
		}
		publisher, consumer := topic(here), topic(there)
		_, err := consumer.Subscribe(ctx, "q", func(_ context.Context, d fanout.Delivery[int]) error {
			if d.Attempt() == 1 {
				return errBusy
			}
			return nil
		}, fanout.WithBackoff(fanout.Constant(time.Second)))
		require.NoError(t, err)
		pulled, err := consumer.OpenQueue(ctx, "pulled")
		require.NoError(t, err)
		stop, err := there.Observe(fanoutotel.Of(consumer))
		require.NoError(t, err)
		require.NoError(t, publisher.PublishMessages(ctx, fanout.Message[int]{ID: "a"}))
		elapse(time.Minute)
		d, err := pulled.Receive(ctx)
		require.NoError(t, err)
		held := there.metrics()["fanout.queue.in_flight"].Data.(metricdata.Sum[int64]).DataPoints
		require.Len(t, held, 2)
		require.EqualValues(t, 1, held[0].Value+held[1].Value, "as the engine knows it")
		unsettled, ok := there.metrics()["fanout.queue.unsettled"].Data.(metricdata.Sum[int64])
		require.True(t, ok, "what the queues hold is known")
		require.Len(t, unsettled.DataPoints, 2, "an empty queue too")
		require.EqualValues(t, 1, unsettled.DataPoints[0].Value+unsettled.DataPoints[1].Value, "what the engine holds")
		require.NoError(t, d.Ack(ctx))
		sent, got := here.spans(), there.spans()
		require.Equal(t, []string{"0 producer publish payments id=a"}, lines(sent))
		require.Equal(t, []string{
			"0 consumer process payments name=q id=a attempt=1 cause=failed type=failed parent ? link ?", "1 consumer process payments name=q id=a attempt=2 cause=acked parent ? link ?",
			"2 client receive payments name=pulled id=a attempt=1 link ?", "3 client ack payments name=pulled id=a attempt=1 cause=acked link ?",
		}, lines(got))
		for _, s := range got {
			require.Equal(t, sent[0].SpanContext().SpanID(), s.Links()[0].SpanContext.SpanID())
		}
		require.Equal(t, sent[0].SpanContext().SpanID(), got[1].Parent().SpanID())
		there.checkMetricsOf("messaging.process.duration", "messaging.client.consumed.messages", "messaging.client.operation.duration")
		here.checkMetricsOf("messaging.client.sent.messages", "messaging.client.operation.duration")
		require.NoError(t, stop())
		require.NoError(t, publisher.Close())
		require.NoError(t, consumer.Close())
	})
}

func TestATopicsLogLinesHaveThePublishersTrace(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var out bytes.Buffer
		b := newBench(t)
		top, err := fanout.NewTopic[int]("payments", b.Topic(), fanout.WithLogger(slog.New(fanoutotel.LogHandler(slog.NewTextHandler(&out, nil)))))
		require.NoError(t, err)
		q, err := top.OpenQueue(ctx, "q")
		require.NoError(t, err)
		require.NoError(t, top.Publish(ctx, 1))
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Settle(ctx, fanout.Permanent(errBusy)))
		sent := b.spans()[0].SpanContext()
		require.Contains(t, out.String(), "trace_id="+sent.TraceID().String()+" span_id="+sent.SpanID().String())
		require.NoError(t, top.Close())
	})
}

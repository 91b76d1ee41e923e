// Package oteltest holds what fanoutotel records against OpenTelemetry's conventions,
// with the SDK.
package oteltest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

// What the conventions (1.43) say of messaging spans, by operation.type, and "" for an
// internal span.
var spanRules = map[string]struct {
	kinds         []trace.SpanKind
	operations    []string
	required, may []string
}{
	"create":  {[]trace.SpanKind{trace.SpanKindProducer}, []string{"create"}, nil, nil},
	"send":    {[]trace.SpanKind{trace.SpanKindProducer, trace.SpanKindClient}, []string{"publish"}, nil, nil},
	"receive": {[]trace.SpanKind{trace.SpanKindClient}, []string{"receive"}, []string{"messaging.destination.subscription.name"}, nil},
	"process": {[]trace.SpanKind{trace.SpanKindConsumer}, []string{"process"}, []string{"messaging.destination.subscription.name"}, nil},
	"settle":  {[]trace.SpanKind{trace.SpanKindClient}, []string{"ack", "nack", "release", "snooze", "extend"}, []string{"messaging.destination.subscription.name"}, nil},
	"":        {[]trace.SpanKind{trace.SpanKindInternal}, []string{"redrive"}, []string{"messaging.destination.subscription.name"}, nil},
}

var (
	always   = []string{"messaging.system", "messaging.operation.name", "messaging.destination.name"}
	optional = []string{
		"messaging.operation.type", "messaging.destination.subscription.name", "messaging.message.id", "messaging.batch.message_count",
		"error.type", "messaging.fanout.attempt", "messaging.fanout.cause", "messaging.fanout.ordering_key",
	}
	errorTypes = []string{
		"failed", "panicked", "exited", "timed_out", "nacked", "permanent", "expired", "queue_full", "closed", "invalid_message", "unconfirmed",
		"would_deadlock", "batch_too_large", "stale", "settled", "unknown_id", "invalid_option", "unsupported", "timeout", "canceled", "unreturned", "_OTHER",
	}
)

// What the conventions say of metrics.
var metricRules = map[string]struct {
	unit, kind string
	attributes []string // required; others may be those of spans, but for IDs and counts
}{
	"messaging.client.operation.duration": {"s", "histogram", []string{"messaging.operation.name", "messaging.system", "messaging.operation.type", "messaging.destination.name"}},
	"messaging.process.duration":          {"s", "histogram", []string{"messaging.operation.name", "messaging.system", "messaging.destination.name"}},
	"messaging.client.sent.messages":      {"{message}", "counter", []string{"messaging.operation.name", "messaging.system", "messaging.destination.name"}},
	"messaging.client.consumed.messages":  {"{message}", "counter", []string{"messaging.operation.name", "messaging.system", "messaging.destination.name"}},
}

var advised = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// A bench is an instrumentation that records all.
type bench struct {
	t        *testing.T
	recorder *tracetest.SpanRecorder
	tracers  *sdktrace.TracerProvider
	reader   *metric.ManualReader
	*fanoutotel.Instrumentation
}

func newBench(t *testing.T, options ...fanoutotel.Option) *bench {
	b := &bench{t: t, recorder: tracetest.NewSpanRecorder(), reader: metric.NewManualReader()}
	b.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b.recorder))
	meters := metric.NewMeterProvider(metric.WithReader(b.reader))
	var err error
	b.Instrumentation, err = fanoutotel.New(append([]fanoutotel.Option{fanoutotel.WithTracerProvider(b.tracers), fanoutotel.WithMeterProvider(meters)}, options...)...)
	require.NoError(t, err)
	return b
}

func (b *bench) topic(name string) *fanout.Topic[int] {
	top, err := fanout.NewTopic[int](name, b.Topic(), fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(b.t, err)
	return top
}

func attributesOf(s sdktrace.ReadOnlySpan) map[string]string {
	as := map[string]string{}
	for _, a := range s.Attributes() {
		as[string(a.Key)] = a.Value.String()
	}
	return as
}

// ordered returns spans in the order of their beginnings, those of one instant behind what
// they follow: a handler may end before the publish does.
func ordered(spans []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	byID := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	for _, s := range spans {
		byID[s.SpanContext().SpanID()] = s
	}
	var depth func(c trace.SpanContext) int
	depth = func(c trace.SpanContext) int {
		s := byID[c.SpanID()]
		if s == nil {
			return 0
		}
		n := depth(s.Parent())
		for _, l := range s.Links() {
			n = max(n, depth(l.SpanContext))
		}
		return n + 1
	}
	slices.SortStableFunc(spans, func(a, b sdktrace.ReadOnlySpan) int {
		return cmp.Or(a.StartTime().Compare(b.StartTime()), cmp.Compare(depth(a.SpanContext()), depth(b.SpanContext())))
	})
	return spans
}

// spans returns the spans ended since the last time, each held against the conventions.
func (b *bench) spans() []sdktrace.ReadOnlySpan {
	b.t.Helper()
	spans := ordered(b.recorder.Ended())
	b.recorder.Reset()
	for _, s := range spans {
		as := attributesOf(s)
		rule, ok := spanRules[as["messaging.operation.type"]]
		require.True(b.t, ok, "operation.type %q", as["messaging.operation.type"])
		require.Contains(b.t, rule.kinds, s.SpanKind(), s.Name())
		require.Contains(b.t, rule.operations, as["messaging.operation.name"])
		require.Equal(b.t, as["messaging.operation.name"]+" "+as["messaging.destination.name"], s.Name())
		for _, name := range append(slices.Clone(always), rule.required...) {
			require.NotEmpty(b.t, as[name], "%s of %s", name, s.Name())
		}
		for name := range as {
			require.Contains(b.t, append(slices.Clone(always), optional...), name, s.Name())
		}
		e, failed := as["error.type"]
		require.Equal(b.t, failed, s.Status().Code == codes.Error, "%s: %v", s.Name(), s.Status())
		if failed {
			require.Contains(b.t, errorTypes, e)
		}
		_, one := as["messaging.message.id"]
		_, many := as["messaging.batch.message_count"]
		require.False(b.t, one && many, "%s: %v", s.Name(), as)
		require.True(b.t, s.SpanContext().IsValid())
	}
	return spans
}

// lines are spans as text: kind, name, and what tells them apart. Spans are named by their
// place among those of this call.
func lines(spans []sdktrace.ReadOnlySpan) (ls []string) {
	named := map[trace.SpanID]string{}
	for k, s := range spans {
		named[s.SpanContext().SpanID()] = fmt.Sprint(k)
	}
	name := func(c trace.SpanContext) string {
		if n, ok := named[c.SpanID()]; ok {
			return n
		}
		return "?"
	}
	for k, s := range spans {
		l := fmt.Sprintf("%d %v %s", k, s.SpanKind(), s.Name())
		as := attributesOf(s)
		for _, a := range []string{"messaging.destination.subscription.name", "messaging.message.id", "messaging.batch.message_count", "messaging.fanout.attempt", "messaging.fanout.cause", "error.type"} {
			if v, ok := as[a]; ok {
				l += " " + a[strings.LastIndex(a, ".")+1:] + "=" + v
			}
		}
		if s.Parent().IsValid() {
			l += " parent " + name(s.Parent())
		}
		for _, link := range s.Links() {
			l += " link " + name(link.SpanContext)
		}
		ls = append(ls, l)
	}
	return ls
}

func (b *bench) metrics() map[string]metricdata.Metrics {
	b.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(b.t, b.reader.Collect(b.t.Context(), &all))
	found := map[string]metricdata.Metrics{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}

var errBusy = errors.New("busy: order 4711 of Ann")

func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestSpansOfPublishesAndHandlers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		top := b.topic("payments")
		_, err := top.Subscribe(ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			switch d.Body {
			case 1:
				return nil
			case 2:
				if d.Attempt() == 1 {
					return errBusy
				}
				return nil
			case 3:
				panic("oh")
			case 4:
				runtime.Goexit()
			case 5:
				<-ctx.Done()
				return nil
			case 6:
				return fanout.Permanent(errBusy)
			case 7:
				if d.Attempt() == 1 && len(d.History()) == 0 {
					return fanout.Snooze(time.Second)
				}
			case 8:
				return d.Nack(ctx)
			}
			return nil
		}, fanout.WithBackoff(fanout.Constant(time.Second)), fanout.WithVisibilityTimeout(10*time.Second), fanout.WithMaxAttempts(2))
		require.NoError(t, err)
		one := func(body int) []string {
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: body, ID: fmt.Sprint("m", body)}))
			elapse(time.Minute)
			return lines(b.spans())
		}
		send := func(n int) string { return fmt.Sprintf("0 producer publish payments id=m%d", n) }
		run := func(k, n, attempt int, end string) string {
			return fmt.Sprintf("%d consumer process payments name=q id=m%d attempt=%d cause=%s parent 0 link 0", k, n, attempt, end)
		}
		require.Equal(t, []string{send(1), run(1, 1, 1, "acked")}, one(1))
		require.Equal(t, []string{send(2), run(1, 2, 1, "failed type=failed"), run(2, 2, 2, "acked")}, one(2))
		require.Equal(t, []string{send(3), run(1, 3, 1, "panicked type=panicked"), run(2, 3, 2, "panicked type=panicked")}, one(3))
		require.Equal(t, []string{send(4), run(1, 4, 1, "exited type=exited"), run(2, 4, 2, "exited type=exited")}, one(4))
		require.Equal(t, []string{send(5), run(1, 5, 1, "timed out type=timed_out"), run(2, 5, 2, "timed out type=timed_out")}, one(5))
		require.Equal(t, []string{send(6), run(1, 6, 1, "permanent type=permanent")}, one(6))
		require.Equal(t, []string{send(7), run(1, 7, 1, "snoozed"), run(2, 7, 1, "acked")}, one(7))
		settled := one(8)
		require.Len(t, settled, 5)
		require.Equal(t, "2 client nack payments name=q id=m8 attempt=1 cause=nacked parent 1 link 0", settled[2])

		require.ErrorIs(t, top.PublishMessages(ctx, fanout.Message[int]{Delay: -1}), fanout.ErrInvalidMessage)
		require.NoError(t, top.Close())
		require.ErrorIs(t, top.Publish(ctx, 9), fanout.ErrClosed)
		closed := b.spans()
		require.Len(t, closed, 1)
		require.Equal(t, "closed", attributesOf(closed[0])["error.type"])
		b.checkMetrics()
	})
}

// checkMetrics holds the metrics against the conventions.
func (b *bench) checkMetrics() {
	b.t.Helper()
	b.checkMetricsOf(slices.Collect(maps.Keys(metricRules))...)
}

func (b *bench) checkMetricsOf(names ...string) {
	t, found := b.t, b.metrics()
	for _, name := range names {
		rule := metricRules[name]
		m, ok := found[name]
		require.True(t, ok, name)
		require.Equal(t, rule.unit, m.Unit, name)
		require.NotEmpty(t, m.Description)
		var sets []attribute.Set
		switch d := m.Data.(type) {
		case metricdata.Histogram[float64]:
			require.Equal(t, "histogram", rule.kind, name)
			for _, p := range d.DataPoints {
				require.Equal(t, advised, p.Bounds, name)
				sets = append(sets, p.Attributes)
			}
		case metricdata.Sum[int64]:
			require.Equal(t, "counter", rule.kind, name)
			require.True(t, d.IsMonotonic)
			for _, p := range d.DataPoints {
				sets = append(sets, p.Attributes)
			}
		default:
			require.Fail(t, "unknown data", "%s: %T", name, m.Data)
		}
		require.NotEmpty(t, sets)
		for _, set := range sets {
			for _, a := range rule.attributes {
				require.True(t, set.HasValue(attribute.Key(a)), "%s without %s", name, a)
			}
			for _, a := range set.ToSlice() {
				require.Contains(t, append([]string{"messaging.operation.type", "messaging.destination.subscription.name", "error.type"}, always...), string(a.Key), name)
				if a.Key == "error.type" {
					require.Contains(t, errorTypes, a.Value.AsString())
				}
			}
		}
	}
}

func (b *bench) sum(name string) (n int64) {
	for _, p := range b.metrics()[name].Data.(metricdata.Sum[int64]).DataPoints {
		n += p.Value
	}
	return n
}

func TestMessagesAreCountedOnceSentAndOnceADelivery(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "pulled")
		require.NoError(t, err)
		_, err = top.SubscribeBatch(ctx, "pushed", func(ctx context.Context, ds []fanout.Delivery[int]) error { return nil })
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{}, fanout.Message[int]{}, fanout.Message[int]{}))
		ds, err := q.ReceiveBatch(ctx, 3)
		require.NoError(t, err)
		require.NoError(t, q.AckBatch(ctx, ds...))
		synctest.Wait()
		require.EqualValues(t, 3, b.sum("messaging.client.sent.messages"))
		require.EqualValues(t, 6, b.sum("messaging.client.consumed.messages"))
		b.spans()
		b.checkMetrics()
		require.NoError(t, top.Close())
	})
}

func TestSpansOfPullConsumers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "q", fanout.WithMaxAttempts(1))
		require.NoError(t, err)
		send := func(ids ...string) {
			for _, id := range ids {
				require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: id}))
			}
		}
		send("a")
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Extend(ctx, time.Minute))
		require.NoError(t, d.Ack(ctx))
		require.ErrorIs(t, d.Ack(ctx), fanout.ErrSettled)
		_, ok, err := q.TryReceive(ctx)
		require.False(t, ok)
		require.NoError(t, err)
		require.Equal(t, []string{
			"0 producer publish payments id=a", "1 client receive payments name=q id=a attempt=1 link 0", "2 client extend payments name=q id=a attempt=1 link 0",
			"3 client ack payments name=q id=a attempt=1 cause=acked link 0", "4 client ack payments name=q id=a attempt=1 cause=acked type=settled link 0",
		}, lines(b.spans()), "a look at an empty queue is no span")

		send("b", "c")
		for d, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			require.NoError(t, d.Settle(ctx, errBusy))
			if d.ID() == "c" {
				break
			}
		}
		elapse(time.Hour)
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		ds, err := q.ReceiveBatch(ctx, 5)
		require.NoError(t, err)
		require.Len(t, ds, 2)
		require.Equal(t, []string{
			"0 producer publish payments id=b", "1 producer publish payments id=c",
			"2 client receive payments name=q id=b attempt=1 link 0", "3 client nack payments name=q id=b attempt=1 cause=failed link 0",
			"4 client receive payments name=q id=c attempt=1 link 1", "5 client nack payments name=q id=c attempt=1 cause=failed link 1",
			"6 internal redrive payments name=q message_count=2", "7 client receive payments name=q message_count=2 link 0 link 1",
		}, lines(b.spans()))
		soon, cancel := context.WithCancel(ctx)
		cancel()
		_, err = q.Receive(soon)
		require.Error(t, err)
		require.Equal(t, []string{"0 client receive payments name=q type=canceled"}, lines(b.spans()))
		require.NoError(t, top.Close())
	})
}

func TestABatchHasASpanForEachMessageAndLinks(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for name, c := range map[string]struct {
			options []fanoutotel.Option
			want    []string
		}{
			"with": {nil, []string{
				"0 producer create payments id=a", "1 producer create payments id=b", "2 client publish payments message_count=2 link 0 link 1",
				"3 consumer process payments name=q message_count=2 cause=acked link 0 link 1",
			}},
			"without": {[]fanoutotel.Option{fanoutotel.WithoutCreateSpans()}, []string{
				"0 producer publish payments message_count=2", "1 consumer process payments name=q message_count=2 cause=acked link 0 link 0",
			}},
		} {
			b := newBench(t, c.options...)
			top := b.topic("payments")
			q, err := top.OpenQueue(ctx, "q")
			require.NoError(t, err)
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: "a"}, fanout.Message[int]{ID: "b"}))
			_, err = q.SubscribeBatch(ctx, func(context.Context, []fanout.Delivery[int]) error { return nil })
			require.NoError(t, err)
			synctest.Wait()
			require.Equal(t, c.want, lines(b.spans()), name)
			require.NoError(t, top.Close())
		}
	})
}

func TestOneTraceFromThePublisherToTheHandlerOfWhatItsHandlerPublishes(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		orders, parcels := b.topic("orders"), b.topic("parcels")
		_, err := orders.Subscribe(ctx, "ship", func(ctx context.Context, d fanout.Delivery[int]) error { return parcels.Publish(ctx, d.Body) })
		require.NoError(t, err)
		_, err = parcels.Subscribe(ctx, "carry", func(context.Context, fanout.Delivery[int]) error { return nil })
		require.NoError(t, err)
		request, root := b.tracers.Tracer("test").Start(ctx, "request")
		require.NoError(t, orders.Publish(request, 1))
		synctest.Wait()
		parent := root.SpanContext().SpanID()
		byName := map[string]sdktrace.ReadOnlySpan{}
		for _, s := range b.spans() {
			byName[s.Name()] = s
		}
		for _, name := range []string{"publish orders", "process orders", "publish parcels", "process parcels"} {
			s := byName[name]
			require.NotNil(t, s, name)
			require.Equal(t, root.SpanContext().TraceID(), s.SpanContext().TraceID(), name)
			require.Equal(t, parent, s.Parent().SpanID(), name)
			parent = s.SpanContext().SpanID()
		}
		require.NoError(t, orders.Close())
		require.NoError(t, parcels.Close())
	})
}

func TestAFanOutToThreeQueuesIsOneTrace(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t)
		top := b.topic("payments")
		for _, name := range []string{"a", "b", "c"} {
			_, err := top.Subscribe(ctx, name, func(context.Context, fanout.Delivery[int]) error { return nil })
			require.NoError(t, err)
		}
		require.NoError(t, top.Publish(ctx, 1))
		synctest.Wait()
		spans := b.spans()
		require.Len(t, spans, 4)
		sent := spans[slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool { return s.SpanKind() == trace.SpanKindProducer })]
		queues := map[string]bool{}
		for _, s := range spans {
			if s.SpanKind() == trace.SpanKindConsumer {
				require.Equal(t, sent.SpanContext().SpanID(), s.Parent().SpanID())
				queues[attributesOf(s)["messaging.destination.subscription.name"]] = true
			}
		}
		require.Equal(t, []string{"a", "b", "c"}, slices.Sorted(maps.Keys(queues)))
		require.NoError(t, top.Close())
	})
}

func TestARedriveAfterAnHourBeginsATraceOfItsOwnWithALink(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for after, child := range map[time.Duration]bool{time.Hour: false, time.Minute: true} {
			b := newBench(t)
			top := b.topic("payments")
			broken := true
			s, err := top.Subscribe(ctx, "q", func(context.Context, fanout.Delivery[int]) error {
				if broken {
					return fanout.Permanent(errBusy)
				}
				return nil
			})
			require.NoError(t, err)
			require.NoError(t, top.Publish(ctx, 1))
			elapse(after)
			broken = false
			n, err := s.Queue().Redrive(ctx)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			synctest.Wait()
			spans := b.spans()
			require.Len(t, spans, 4)
			sent, last := spans[0].SpanContext(), spans[3]
			require.Equal(t, child, last.SpanContext().TraceID() == sent.TraceID(), after)
			require.Equal(t, sent.SpanID(), last.Links()[0].SpanContext.SpanID())
			require.NoError(t, top.Close())
		}
	})
}

func TestLinksOnly(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		b := newBench(t, fanoutotel.WithLinksOnly(), fanoutotel.WithSystem("aws.sns", "aws_sqs"))
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

// What a delivery allocates beside what OpenTelemetry does: the run that interceptors
// are told of, and next.
func TestAPublishAndADeliveryAllocateLittleOfTheirOwn(t *testing.T) {
	const runs = 1000
	ctx := t.Context()
	cost := func(options ...fanout.TopicOption) float64 {
		top, err := fanout.NewTopic[int]("payments", options...)
		require.NoError(t, err)
		done := make(chan struct{})
		_, err = top.Subscribe(ctx, "q", func(context.Context, fanout.Delivery[int]) error { done <- struct{}{}; return nil })
		require.NoError(t, err)
		each := testing.AllocsPerRun(runs, func() {
			if top.Publish(ctx, 1) != nil {
				panic("not published")
			}
			<-done
		})
		require.NoError(t, top.Close())
		return each
	}
	pass := func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error { return next(ctx) }
	seam := cost(fanout.WithPublishInterceptor(pass), fanout.WithHandlerInterceptor(pass))
	bare := cost()
	t.Logf("allocations a publish and a delivery: plain %v, through interceptors that do nothing %v", bare, seam)
	require.LessOrEqual(t, seam-bare, 9.0)
	i, err := fanoutotel.New(fanoutotel.WithTracerProvider(nooptrace.NewTracerProvider()), fanoutotel.WithMeterProvider(noopmetric.NewMeterProvider()))
	require.NoError(t, err)
	all := cost(i.Topic())
	t.Logf("and with no-op providers %v", all)
	require.LessOrEqual(t, all-seam, 14.0)
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

package oteltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
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

// A bench is an instrumentation that records all, and where its topics are.
type bench struct {
	t        *testing.T
	place    *place
	engine   fanout.TopicOption
	recorder *tracetest.SpanRecorder
	tracers  *sdktrace.TracerProvider
	reader   *metric.ManualReader
	*fanoutotel.Instrumentation
}

func newBench(t *testing.T, options ...fanoutotel.Option) *bench {
	return newBenchAt(t, memory, options...)
}

func newBenchAt(t *testing.T, p *place, options ...fanoutotel.Option) *bench {
	b := &bench{t: t, place: p, engine: p.open(t), recorder: tracetest.NewSpanRecorder(), reader: metric.NewManualReader()}
	b.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b.recorder))
	meters := metric.NewMeterProvider(metric.WithReader(b.reader))
	var err error
	b.Instrumentation, err = fanoutotel.New(append([]fanoutotel.Option{
		fanoutotel.WithTracerProvider(b.tracers), fanoutotel.WithMeterProvider(meters), fanoutotel.WithSystem(p.systems[0], p.systems[1]),
	}, options...)...)
	require.NoError(t, err)
	return b
}

func (b *bench) topic(name string) *fanout.Topic[int] {
	top, err := fanout.NewTopic[int](name, b.Topic(), b.engine, fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(b.t, err)
	return top
}

// end closes a topic and waits for its end.
func (b *bench) end(top *fanout.Topic[int]) {
	require.NoError(b.t, top.Close())
	<-top.Done()
}

// want waits for the spans that have the lines, and returns them.
func (b *bench) want(wanted ...string) []sdktrace.ReadOnlySpan {
	b.t.Helper()
	b.place.wait(b.t, func() bool { return len(b.recorder.Ended()) >= len(wanted) })
	spans := b.spans()
	require.Equal(b.t, wanted, lines(spans), b.place.name)
	return spans
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
		system := b.place.systems[1]
		if as["messaging.destination.subscription.name"] == "" {
			system = b.place.systems[0]
		}
		require.Equal(b.t, system, as["messaging.system"], s.Name())
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

// A place is where topics keep their queues.
type place struct {
	name    string
	systems [2]string // messaging.system of publishes and of queues
	virtual bool      // time is
	unit    time.Duration
	open    func(t *testing.T) fanout.TopicOption
}

var memory = &place{"memory", [2]string{"fanout", "fanout"}, true, time.Second, func(*testing.T) fanout.TopicOption { return fanout.TopicOptions() }}

var places = []*place{memory,
	{"aws", [2]string{"aws.sns", "aws_sqs"}, true, time.Second, func(t *testing.T) fanout.TopicOption {
		a := fakeaws.New(t)
		return onAWS(t, a.SNS(), a.SQS())
	}},
	{"nats", [2]string{"nats", "nats"}, false, 50 * time.Millisecond, func(t *testing.T) fanout.TopicOption {
		s := startNATS(t, server.Options{DontListen: true})
		return onNATS(t, "", nats.InProcessServer(s))
	}},
}

func onAWS(t testing.TB, topics *sns.Client, queues *sqs.Client) fanout.TopicOption {
	e, err := fanoutaws.New(topics, queues, fanoutaws.WithPollTime(time.Second))
	require.NoError(t, err)
	return fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone))
}

func startNATS(t *testing.T, o server.Options) *server.Server {
	o.NoSigs, o.NoLog, o.JetStream, o.StoreDir, o.SyncInterval = true, true, true, t.TempDir(), time.Minute
	s, err := server.NewServer(&o)
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(t, s.ReadyForConnections(30*time.Second))
	return s
}

func onNATS(t testing.TB, url string, options ...nats.Option) fanout.TopicOption {
	nc, err := nats.Connect(url, append(fanoutnats.ConnectOptions(), options...)...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	e, err := fanoutnats.New(js)
	require.NoError(t, err)
	return fanout.WithEngine(e, fanout.Without(engine.Bounded))
}

// wait waits until done. In virtual time it waits a minute, and then what comes too late or
// should not come is found.
func (p *place) wait(t *testing.T, done func() bool) {
	t.Helper()
	if p.virtual {
		elapse(time.Minute)
		return
	}
	require.Eventually(t, done, 30*time.Second, time.Millisecond)
}

// on runs a test in each place, or in those of virtual time.
func on(t *testing.T, of []*place, test func(t *testing.T, ctx context.Context, p *place)) {
	for _, p := range of {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			if !p.virtual {
				test(t, t.Context(), p)
				return
			}
			bubble(t, func(t *testing.T, ctx context.Context) { test(t, ctx, p) })
		})
	}
}

func bubble(t *testing.T, f func(t *testing.T, ctx context.Context)) {
	synctest.Test(t, func(t *testing.T) { f(t, t.Context()) })
}

var errBusy = errors.New("busy: order 4711 of Ann")

func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
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

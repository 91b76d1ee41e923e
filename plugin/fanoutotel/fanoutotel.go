// Package fanoutotel traces and measures topics of package fanout by
// OpenTelemetry's conventions for messaging, with its API alone.
//
//	telemetry, err := fanoutotel.New()
//	orders, err := fanout.NewTopic[Order]("orders", telemetry.Topic())
//	stop, err := telemetry.Observe(fanoutotel.Of(orders))
//
// A publish, each attempt of a handler, each receive and each settlement that your code
// calls is a span. The publisher's trace context travels in the message's attributes
// traceparent and tracestate, as W3C Trace Context has them, so that a trace goes on in
// each handler, in other processes too.
package fanoutotel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// scope is the name of the tracer and the meter.
const scope = "github.com/gofanout/fanout/plugin/fanoutotel"

// An Instrumentation traces and measures topics. All methods may be called
// concurrently. It is made by [New], owns no goroutine and needs no end.
type Instrumentation struct {
	set    settings
	tracer trace.Tracer
	meter  metric.Meter

	sent      messagingconv.ClientSentMessages
	consumed  messagingconv.ClientConsumedMessages
	operation messagingconv.ClientOperationDuration
	process   messagingconv.ProcessDuration
	dropped   metric.Int64Counter

	fields   []string  // that the propagator sets
	w3c      bool      // it is W3C Trace Context and no other
	epoch    time.Time // the zero of all instants
	carriers sync.Pool
	places   places
}

// New returns an Instrumentation. Without options it takes the global TracerProvider
// and MeterProvider, as they are now, and W3C Trace Context to carry a trace: no
// baggage. It returns [fanout.ErrInvalidOption] for a bad option, or what the
// MeterProvider returns.
func New(options ...Option) (*Instrumentation, error) {
	i := &Instrumentation{set: settings{
		propagator: propagation.TraceContext{}, publishing: "fanout", consuming: "fanout", parentAge: 5 * time.Minute,
	}}
	for k, o := range options {
		if o == nil {
			return nil, fmt.Errorf("%w: fanoutotel.New: option %d is nil", fanout.ErrInvalidOption, k)
		}
		if err := o(&i.set); err != nil {
			return nil, err
		}
	}
	if i.set.tracers == nil {
		i.set.tracers = otel.GetTracerProvider()
	}
	if i.set.meters == nil {
		i.set.meters = otel.GetMeterProvider()
	}
	i.fields = i.set.propagator.Fields()
	_, i.w3c = i.set.propagator.(propagation.TraceContext)
	i.epoch = time.Now()
	i.tracer = i.set.tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	i.meter = i.set.meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	return i, i.instruments()
}

// buckets are those that the conventions advise.
var buckets = metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

func (i *Instrumentation) instruments() (err error) {
	if i.sent, err = messagingconv.NewClientSentMessages(i.meter); err != nil {
		return err
	}
	if i.consumed, err = messagingconv.NewClientConsumedMessages(i.meter); err != nil {
		return err
	}
	if i.operation, err = messagingconv.NewClientOperationDuration(i.meter, buckets); err != nil {
		return err
	}
	if i.process, err = messagingconv.NewProcessDuration(i.meter, buckets); err != nil {
		return err
	}
	i.dropped, err = i.meter.Int64Counter("fanout.queue.dropped", metric.WithUnit("{message}"),
		metric.WithDescription("Number of messages that were lost in a way that was chosen, by reason."))
	return err
}

// Topic returns the option for [fanout.NewTopic].
func (i *Instrumentation) Topic() fanout.TopicOption {
	return fanout.TopicOptions(
		fanout.WithPublishInterceptor((&nearby{i: i}).aroundPublish),
		fanout.WithHandlerInterceptor(i.aroundHandler()),
		fanout.WithQueueInterceptor(i.aroundQueue),
		fanout.WithHooks(fanout.Hooks{Dropped: i.onDrop}),
	)
}

// DeadLetters returns the option for [fanout.NewDeadLetterQueue]. Handlers of such a
// queue need [Instrumentation.Worker] too.
func (i *Instrumentation) DeadLetters() fanout.DeadLetterOption {
	return fanout.WithQueueInterceptor(i.aroundQueue)
}

// Worker returns an option that traces and measures the handlers of one subscriber,
// where the topic was not made with [Instrumentation.Topic].
func (i *Instrumentation) Worker() fanout.WorkerOption {
	return fanout.WithHandlerInterceptor(i.aroundHandler())
}

func (i *Instrumentation) onDrop(e fanout.Event) {
	i.dropped.Add(context.Background(), int64(e.Count), metric.WithAttributes(
		semconv.MessagingDestinationName(e.Topic), semconv.MessagingDestinationSubscriptionName(e.Queue),
		attribute.String("messaging.fanout.reason", e.Reason.String())))
}

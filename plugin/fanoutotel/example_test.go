package fanoutotel_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

// One option on each topic, and what its queues hold is reported when metrics are
// collected.
func ExampleNew() {
	ctx := context.Background()
	telemetry, err := fanoutotel.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	orders, _ := fanout.NewTopic[string]("orders", telemetry.Topic())
	stop, _ := telemetry.Observe(fanoutotel.Of(orders))
	defer stop()

	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body, "in trace", trace.SpanContextFromContext(ctx).TraceID())
		return nil
	})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0: 1}, SpanID: trace.SpanID{0: 2}})
	orders.Publish(trace.ContextWithSpanContext(ctx, span), "o-17")
	orders.Shutdown(ctx)
	// Output:
	// bill o-17 in trace 01000000000000000000000000000000
}

// Baggage travels if it is asked for.
func ExampleWithPropagator() {
	_, err := fanoutotel.New(fanoutotel.WithPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})))
	fmt.Println(err)
	// Output:
	// <nil>
}

// A topic on SNS and SQS is told as that.
func ExampleWithSystem() {
	_, err := fanoutotel.New(fanoutotel.WithSystem("aws.sns", "aws_sqs"))
	fmt.Println(err)
	// Output:
	// <nil>
}

// Records have the trace and the span of their context.
func ExampleLogHandler() {
	text := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // for the sake of the example
		}
		return a
	}})
	log := slog.New(fanoutotel.LogHandler(text))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0: 1}, SpanID: trace.SpanID{0: 2}})
	log.InfoContext(trace.ContextWithSpanContext(context.Background(), span), "billed", "order", "o-17")
	// Output:
	// level=INFO msg=billed order=o-17 trace_id=01000000000000000000000000000000 span_id=0200000000000000
}

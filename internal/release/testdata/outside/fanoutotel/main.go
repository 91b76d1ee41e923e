// A handler sees the trace of the publisher.
//
// go get github.com/gofanout/fanout/plugin/fanoutotel
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

func main() {
	ctx := context.Background()
	telemetry, err := fanoutotel.New()
	if err != nil {
		log.Fatal(err)
	}
	orders, err := fanout.NewTopic[string]("orders", telemetry.Topic())
	if err != nil {
		log.Fatal(err)
	}
	seen := make(chan trace.TraceID, 1)
	_, err = orders.Subscribe(ctx, "billing", func(ctx context.Context, _ fanout.Delivery[string]) error {
		seen <- trace.SpanContextFromContext(ctx).TraceID()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	want := trace.TraceID{0: 1}
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: want, SpanID: trace.SpanID{0: 2}})
	if err := orders.Publish(trace.ContextWithSpanContext(ctx, span), "o-17"); err != nil {
		log.Fatal(err)
	}
	if got := <-seen; got != want {
		log.Fatalf("the handler is in trace %v: want %v", got, want)
	}
	if err := orders.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(os.Stdout, "the handler is in the publisher's trace")
}

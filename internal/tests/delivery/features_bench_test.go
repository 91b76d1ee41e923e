package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofanout/fanout"
)

// A feature is what a user turns on, and what its messages have. Its cost is told as a
// multiple of the plain delivery of the same run.
type feature struct {
	name    string
	topic   []fanout.TopicOption
	queue   []fanout.SubscribeOption
	message *fanout.Message[*benchBody] // nil: nothing but a body
	handler fanout.Handler[*benchBody]  // nil: one that returns
}

// heard keeps hooks and interceptors from being optimised away.
var heard atomic.Int64

func features() []feature {
	hooks := fanout.Hooks{Published: func(fanout.Event) {}, Settled: func(fanout.Event) {}}
	pass := func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error { return next(ctx) }
	hear := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		if len(info.MessageID) != 36 || info.Attempt != 1 {
			heard.Add(1)
		}
		return next(ctx)
	}
	type key struct{}
	return []feature{
		{name: "plain"},
		{name: "hook Published", topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Published: hooks.Published})}},
		{name: "hook Settled", topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Settled: hooks.Settled})}},
		{name: "hook Delivered", topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Delivered: hooks.Settled})}},
		{name: "hooks Published and Settled", topic: []fanout.TopicOption{fanout.WithHooks(hooks)}},
		{name: "interceptor", queue: []fanout.SubscribeOption{fanout.WithHandlerInterceptor(hear)}},
		{name: "two interceptors", queue: []fanout.SubscribeOption{fanout.WithHandlerInterceptor(pass, hear)}},
		{name: "ttl of the queue", queue: []fanout.SubscribeOption{fanout.WithTimeToLive(time.Hour)}},
		{name: "ttl of the message", message: &fanout.Message[*benchBody]{TimeToLive: time.Hour}},
		{name: "rate limit", queue: []fanout.SubscribeOption{fanout.WithRateLimit(1e9)}},
		{name: "handler timeout", queue: []fanout.SubscribeOption{fanout.WithHandlerTimeout(time.Hour)}},
		{name: "own ID", message: &fanout.Message[*benchBody]{ID: "0123456789"}},
		{name: "attribute", message: &fanout.Message[*benchBody]{Attributes: map[string]string{"kind": "order"}}},
		{name: "ctx.Err", handler: func(ctx context.Context, _ fanout.Delivery[*benchBody]) error { return ctx.Err() }},
		{name: "ctx.Value", handler: func(ctx context.Context, _ fanout.Delivery[*benchBody]) error {
			if ctx.Value(key{}) != nil {
				heard.Add(1)
			}
			return nil
		}},
		{name: "ctx.Done", handler: func(ctx context.Context, _ fanout.Delivery[*benchBody]) error {
			select {
			case <-ctx.Done():
				heard.Add(1)
			default:
			}
			return nil
		}},
		{
			name: "all", topic: []fanout.TopicOption{fanout.WithHooks(hooks)},
			queue: []fanout.SubscribeOption{fanout.WithHandlerInterceptor(pass, hear), fanout.WithTimeToLive(time.Hour), fanout.WithRateLimit(1e9)},
		},
	}
}

// BenchmarkFeatures delivers to four queues with a handler each, one message at a time. It
// tells the processor time of a delivery.
func BenchmarkFeatures(b *testing.B) {
	const queues = 4
	for _, f := range features() {
		b.Run(f.name, func(b *testing.B) {
			ctx := context.Background()
			top, err := fanout.NewTopic[*benchBody]("bench", f.topic...)
			if err != nil {
				b.Fatal(err)
			}
			handler := f.handler
			if handler == nil {
				handler = func(context.Context, fanout.Delivery[*benchBody]) error { return nil }
			}
			for k := range queues {
				if _, err := top.Subscribe(ctx, fmt.Sprint(k), handler, f.queue...); err != nil {
					b.Fatal(err)
				}
			}
			body := new(benchBody)
			message := fanout.Message[*benchBody]{Body: body}
			if f.message != nil {
				message = *f.message
				message.Body = body
			}
			b.ReportAllocs()
			before := processorTime()
			for b.Loop() {
				if f.message == nil {
					err = top.Publish(ctx, body)
				} else {
					err = top.PublishMessages(ctx, message)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if err := top.Shutdown(ctx); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(processorTime()-before)/float64(b.N*queues), "cpu-ns/delivery")
		})
	}
}

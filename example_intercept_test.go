package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// An interceptor around publishes sees each of a topic, and can refuse it.
func ExampleWithPublishInterceptor() {
	ctx := context.Background()
	wantRegion := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		if _, ok := info.Attribute("region"); !ok {
			return errors.New("no region")
		}
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithPublishInterceptor(wantRegion))
	orders.OpenQueue(ctx, "billing")

	fmt.Println(orders.Publish(ctx, "o-17"))
	fmt.Println(orders.PublishMessages(ctx, fanout.Message[string]{
		Body: "o-18", Attributes: map[string]string{"region": "eu"},
	}))
	// Output:
	// fanout: publish to "orders": no region
	// <nil>
}

// Given to the topic it stands around all handlers; given to Subscribe, around
// those of one subscriber.
func ExampleWithHandlerInterceptor() {
	ctx := context.Background()
	announce := func(who string) fanout.Interceptor {
		return func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			fmt.Println(who, "before", info.Queue)
			err := next(ctx)
			fmt.Println(who, "after", info.Queue, err)
			return err
		}
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHandlerInterceptor(announce("topic")))
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	}, fanout.WithHandlerInterceptor(announce("subscriber")))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// topic before billing
	// subscriber before billing
	// bill o-17
	// subscriber after billing <nil>
	// topic after billing <nil>
}

// Logging: a line for each run of a handler.
func ExampleWithHandlerInterceptor_logging() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" {
				return slog.Attr{} // for the sake of the example
			}
			return a
		},
	}))
	logging := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		begin := time.Now()
		err := next(ctx)
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelError
		}
		logger.Log(ctx, level, "handled", "queue", info.Queue, "message", info.MessageID,
			"attempt", info.Attempt, "took", time.Since(begin), "error", err)
		return err
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHandlerInterceptor(logging))
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if d.Attempt() == 1 {
			return errors.New("busy")
		}
		return nil
	}, fanout.WithBackoff(fanout.Constant(time.Millisecond)))

	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})
	orders.Shutdown(ctx)
	// Output:
	// level=ERROR msg=handled queue=billing message=payment-4711 attempt=1 error=busy
	// level=INFO msg=handled queue=billing message=payment-4711 attempt=2 error=<nil>
}

// Time-out: what a handler calls may take as long as its queue is allowed.
// Where one time-out for a subscriber is enough, use WithHandlerTimeout.
func ExampleWithHandlerInterceptor_timeout() {
	ctx := context.Background()
	allowed := map[string]time.Duration{"billing": time.Millisecond}
	bounded := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		d, ok := allowed[info.Queue]
		if !ok {
			return next(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHandlerInterceptor(bounded))
	callBank := func(ctx context.Context) error {
		<-ctx.Done() // the bank doesn't answer
		return context.Cause(ctx)
	}
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return callBank(ctx)
	}, fanout.WithMaxAttempts(1))
	billing := orders.Queue("billing")

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	letters, _ := billing.DeadLetters().Peek(ctx, 1)
	fmt.Println(letters[0].History()[0].Err)
	// Output:
	// context deadline exceeded
}

// Trace: the publisher's trace goes on in each handler. It travels in an
// attribute, as the header traceparent of W3C Trace Context does between
// services; with a tracing library the context would hold its span instead.
func ExampleWithHandlerInterceptor_traceparent() {
	ctx := context.Background()
	type traceKey struct{}
	send := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		if parent, ok := ctx.Value(traceKey{}).(string); ok {
			info.SetAttribute("traceparent", parent)
		}
		return next(ctx)
	}
	take := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		parent, ok := info.Attribute("traceparent")
		fields := strings.Split(parent, "-") // version, trace, span, flags
		if !ok || len(fields) != 4 {
			return next(ctx)
		}
		fields[2] = "b7ad6b7169203331" // the handler's own span; random in earnest
		return next(context.WithValue(ctx, traceKey{}, strings.Join(fields, "-")))
	}
	shipments, _ := fanout.NewTopic[string]("shipments", fanout.WithPublishInterceptor(send))
	parcels, _ := shipments.OpenQueue(ctx, "parcels")
	orders, _ := fanout.NewTopic[string]("orders",
		fanout.WithPublishInterceptor(send), fanout.WithHandlerInterceptor(take))
	orders.Subscribe(ctx, "shipping", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("ship", d.Body, ctx.Value(traceKey{}))
		return shipments.Publish(ctx, d.Body) // the trace goes on from here
	})

	request := context.WithValue(ctx, traceKey{}, "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01")
	orders.Publish(request, "o-17")
	orders.Shutdown(ctx)
	d, _ := parcels.Receive(ctx)
	fmt.Println(d.Attribute("traceparent"))
	d.Ack(ctx)
	// Output:
	// ship o-17 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
	// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 true
}

// One interceptor bounds how long any publisher waits for room.
func ExampleInterceptor() {
	ctx := context.Background()
	patience := func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithPublishInterceptor(patience))
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1))

	fmt.Println(orders.Publish(ctx, "o-17"))
	fmt.Println(errors.Is(orders.Publish(ctx, "o-18"), context.DeadlineExceeded))
	// Output:
	// <nil>
	// true
}

func ExampleInfo() {
	ctx := context.Background()
	tell := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		fmt.Printf("topic %q queue %q messages %d first %q attempt %d body %v\n",
			info.Topic, info.Queue, info.Messages, info.MessageID, info.Attempt, info.Body())
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders",
		fanout.WithPublishInterceptor(tell), fanout.WithHandlerInterceptor(tell))
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	})

	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})
	orders.Shutdown(ctx)
	// Output:
	// topic "orders" queue "" messages 1 first "payment-4711" attempt 0 body o-17
	// topic "orders" queue "billing" messages 1 first "payment-4711" attempt 1 body o-17
}

// An interceptor can leave the handler out: here for orders that are tests.
func ExampleInfo_Attribute() {
	ctx := context.Background()
	skipTests := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		if v, _ := info.Attribute("test"); v == "yes" {
			return nil // acknowledges
		}
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHandlerInterceptor(skipTests))
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("bill", d.Body)
		return nil
	})

	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17", Attributes: map[string]string{"test": "yes"}},
		fanout.Message[string]{Body: "o-18"},
	)
	orders.Shutdown(ctx)
	// Output:
	// bill o-18
}

func ExampleInfo_SetAttribute() {
	ctx := context.Background()
	stamp := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		info.SetAttribute("source", "web shop")
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithPublishInterceptor(stamp))
	billing, _ := orders.OpenQueue(ctx, "billing")

	orders.Publish(ctx, "o-17")
	d, _ := billing.Receive(ctx)
	fmt.Println(d.Attribute("source"))
	d.Ack(ctx)
	// Output:
	// web shop true
}

// An interceptor around what callers do with queues counts what they receive, and
// what they give back.
func ExampleWithQueueInterceptor() {
	ctx := context.Background()
	counts := map[string]int{}
	count := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		err := next(ctx)
		name := info.Operation.String()
		if info.Operation == fanout.OpSettle {
			name = info.Cause.String()
		}
		counts[name] += info.Len() // of a receive, those that came
		return err
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithQueueInterceptor(count))
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17"}, fanout.Message[string]{Body: "o-18"})

	ds, _ := billing.ReceiveBatch(ctx, 10)
	ds[0].Ack(ctx)
	ds[1].Release(ctx)
	fmt.Println(counts)
	// Output:
	// map[acked:1 receive:2 released:1]
}

// Each message of a batch has its own trace, and keeps it if the publisher set one.
func ExampleInfo_Message() {
	ctx := context.Background()
	trace := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		for k := range info.Len() {
			m := info.Message(k)
			m.SetAttribute("trace", "of "+m.ID())
		}
		return next(ctx)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithPublishInterceptor(trace))
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx,
		fanout.Message[string]{ID: "o-17", Body: "one"},
		fanout.Message[string]{ID: "o-18", Body: "two", Attributes: map[string]string{"trace": "mine"}})

	for range 2 {
		d, _ := billing.Receive(ctx)
		fmt.Println(d.Attribute("trace"))
		d.Ack(ctx)
	}
	// Output:
	// of o-17 true
	// mine true
}

// The cause by which an attempt ends tells failures from what only waits.
func ExampleCauseOf() {
	fmt.Println(fanout.CauseOf(nil))
	fmt.Println(fanout.CauseOf(errors.New("busy")))
	fmt.Println(fanout.CauseOf(fanout.Permanent(errors.New("no such order"))))
	fmt.Println(fanout.CauseOf(fanout.Snooze(time.Minute)))
	// Output:
	// acked
	// failed
	// permanent
	// snoozed
}

// A traceHandler adds the trace that a message carries to each line about it.
type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if m, ok := fanout.MessageFromContext(ctx); ok {
		trace, _ := m.Attribute("traceparent")
		fmt.Println("a line about", m.ID(), "of trace", trace)
	}
	return nil
}

func ExampleMessageFromContext() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(traceHandler{slog.NewTextHandler(os.Stdout, nil)})))
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{ID: "o-17", Attributes: map[string]string{"traceparent": "4711"}})

	d, _ := billing.Receive(ctx)
	d.Settle(ctx, fanout.Permanent(errors.New("no such order")))
	// Output:
	// a line about o-17 of trace 4711
}

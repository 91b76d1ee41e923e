// Hooks, interceptors, views and errors.

package fanout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A BatchError says which deliveries were not acknowledged, and why.
func ExampleBatchError() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17"}, fanout.Message[string]{Body: "o-18"})
	ds, _ := billing.ReceiveBatch(ctx, 10)
	ds[1].Ack(ctx)

	err := billing.AckBatch(ctx, ds...)
	var failed *fanout.BatchError
	if errors.As(err, &failed) {
		for k, err := range failed.Failed {
			fmt.Println(ds[k].Body, "settled already:", errors.Is(err, fanout.ErrSettled))
		}
	}
	// Output:
	// o-18 settled already: true
}

// Hooks don't mention T: one set serves all topics, here to count.
func ExampleHooks() {
	ctx := context.Background()
	failed := map[string]int{} // guard it if there is more than one worker
	hooks := fanout.WithHooks(fanout.Hooks{
		Settled: func(e fanout.Event) {
			if e.Err != nil {
				failed[e.Topic+"/"+e.Queue]++
			}
		},
	})
	orders, _ := fanout.NewTopic[string]("orders", hooks)
	prices, _ := fanout.NewTopic[int]("prices", hooks)
	billing, _ := orders.OpenQueue(ctx, "billing")
	latest, _ := prices.OpenQueue(ctx, "latest")

	orders.Publish(ctx, "o-17")
	prices.Publish(ctx, 4999)
	order, _ := billing.Receive(ctx)
	order.Settle(ctx, errors.New("busy"))
	price, _ := latest.Receive(ctx)
	price.Settle(ctx, nil)
	fmt.Println(failed)
	// Output:
	// map[orders/billing:1]
}

// The events of a queue are numbered, since calls of hooks may overtake each
// other. Publishes have numbers of their own.
func ExampleEvent() {
	ctx := context.Background()
	tell := func(e fanout.Event) {
		fmt.Printf("%q %d: %s attempt %d %v\n", e.Queue, e.Seq, e.MessageID, e.Attempt, e.Cause)
	}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{Delivered: tell, Settled: tell}))
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithBackoff(fanout.Constant(time.Millisecond)))

	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})
	d, _ := billing.Receive(ctx)
	d.Nack(ctx)
	d, _ = billing.Receive(ctx)
	d.Ack(ctx)
	// Output:
	// "billing" 1: payment-4711 attempt 1 none
	// "billing" 2: payment-4711 attempt 1 nacked
	// "billing" 3: payment-4711 attempt 2 none
	// "billing" 4: payment-4711 attempt 2 acked
}

func ExampleHooks_dropped() {
	ctx := context.Background()
	prices, _ := fanout.NewTopic[int]("prices",
		fanout.WithHooks(fanout.Hooks{
			Dropped: func(e fanout.Event) { fmt.Println(e.Queue, "lost", e.Count, "by", e.Reason) },
		}),
		fanout.WithLogger(slog.New(slog.DiscardHandler))) // else it is logged too
	latest, _ := prices.OpenQueue(ctx, "latest", fanout.WithCapacity(2), fanout.WithOverflow(fanout.DropOldest))

	for _, cents := range []int{4999, 5999, 3999} {
		prices.Publish(ctx, cents)
	}
	latest.Purge(ctx)
	// Output:
	// latest lost 1 by drop oldest
	// latest lost 2 by purge
}

func ExampleHooks_redriven() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders",
		fanout.WithHooks(fanout.Hooks{
			DeadLettered: func(e fanout.Event) { fmt.Println("dead:", e.MessageID, e.Err) },
			Parked:       func(e fanout.Event) { fmt.Println("parked:", e.MessageID) },
			Redriven:     func(e fanout.Event) { fmt.Println("redriven:", e.MessageID) },
		}),
		fanout.WithLogger(slog.New(slog.DiscardHandler))) // else parking is logged too
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(1))
	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17", ID: "payment-4711"},
		fanout.Message[string]{Body: "o-18", ID: "payment-4712"},
	)
	for range 2 {
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, errors.New("the bank is down"))
	}

	billing.Redrive(ctx) // makes room for the parked one
	// Output:
	// dead: payment-4711 the bank is down
	// parked: payment-4712
	// redriven: payment-4711
	// dead: payment-4712 the bank is down
}

// A handler that runs on past its visibility timeout keeps its worker, while
// its message goes to others.
func ExampleHooks_stuck() {
	ctx := context.Background()
	released := make(chan struct{})
	orders, _ := fanout.NewTopic[string]("orders",
		fanout.WithHooks(fanout.Hooks{
			Stuck: func(e fanout.Event) {
				fmt.Println(e.Queue, "is stuck with", e.MessageID, "attempt", e.Attempt)
				close(released)
			},
			Late: func(e fanout.Event) { fmt.Println("too late:", e.Err) },
		}),
		fanout.WithLogger(slog.New(slog.DiscardHandler))) // else it is logged too
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if d.Attempt() == 1 {
			<-released // should have been ctx.Done()
			return errors.New("no answer")
		}
		return nil
	}, fanout.WithVisibilityTimeout(10*time.Millisecond))

	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})
	orders.Shutdown(ctx)
	// Output:
	// billing is stuck with payment-4711 attempt 1
	// too late: no answer
}

// The stack says where.
func ExampleHooks_stuckStack() {
	ctx := context.Background()
	released := make(chan struct{})
	orders, _ := fanout.NewTopic[string]("orders",
		fanout.WithHooks(fanout.Hooks{
			StuckStack: func(e fanout.Event) {
				fmt.Println(e.Queue, "waits in this file:", strings.Contains(e.Stack, "example_hooks_test.go"))
				close(released)
			},
		}),
		fanout.WithLogger(slog.New(slog.DiscardHandler))) // else it is logged too
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if d.Attempt() == 1 {
			<-released // should have been ctx.Done()
		}
		return nil
	}, fanout.WithVisibilityTimeout(10*time.Millisecond))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// billing waits in this file: true
}

// A publish has stalled when it has waited ten seconds for room, so this example
// is not run.
func ExampleHooks_stalled() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{
		Stalled: func(e fanout.Event) {
			fmt.Println("for", e.Elapsed, "no room in", e.Queue,
				"which holds", e.Stats.Unsettled(), "and has", e.Stats.Workers, "workers")
		},
	}))
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1)) // and nobody who receives
	orders.Publish(ctx, "o-17")

	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	orders.Publish(ctx, "o-18")
	// for 10s no room in billing which holds 1 and has 0 workers
}

func ExampleCause() {
	ctx := context.Background()
	causes := map[fanout.Cause]int{}
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{
		Settled: func(e fanout.Event) { causes[e.Cause]++ },
	}))
	billing, _ := orders.OpenQueue(ctx, "billing")
	for range 4 {
		orders.Publish(ctx, "o-17")
	}

	for _, err := range []error{nil, nil, errors.New("busy"), fanout.Snooze(time.Hour)} {
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, err)
	}
	fmt.Println(causes[fanout.Acked], causes[fanout.Failed], causes[fanout.Snoozed])
	// Output:
	// 2 1 1
}

func ExampleCause_String() {
	for c := fanout.Acked; c <= fanout.Released; c++ {
		fmt.Println(c)
	}
	// Output:
	// acked
	// failed
	// panicked
	// exited
	// timed out
	// nacked
	// permanent
	// expired
	// snoozed
	// released
}

// A cause is a name in JSON.
func ExampleCause_MarshalText() {
	data, _ := json.Marshal(map[string]fanout.Cause{"cause": fanout.TimedOut})
	fmt.Println(string(data))
	// Output:
	// {"cause":"timed out"}
}

func ExampleCause_UnmarshalText() {
	var line struct{ Cause fanout.Cause }
	err := json.Unmarshal([]byte(`{"Cause": "panicked"}`), &line)
	fmt.Println(line.Cause == fanout.Panicked, err)
	// Output:
	// true <nil>
}

func ExampleDropReason() {
	ctx := context.Background()
	prices, _ := fanout.NewTopic[int]("prices",
		fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
			switch e.Reason {
			case fanout.DroppedOldest, fanout.DroppedNewest:
				fmt.Println("too slow:", e.Queue)
			case fanout.DroppedByClose, fanout.DroppedByPurge, fanout.DroppedByDelete:
				fmt.Println("on purpose:", e.Queue)
			}
		}}),
		fanout.WithLogger(slog.New(slog.DiscardHandler))) // else it is logged too
	prices.OpenQueue(ctx, "latest", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest))

	prices.Publish(ctx, 4999)
	prices.Publish(ctx, 5999)
	prices.Close()
	// Output:
	// too slow: latest
	// on purpose: latest
}

func ExampleDropReason_String() {
	for r := fanout.DroppedOldest; r <= fanout.DroppedByDelete; r++ {
		fmt.Println(r)
	}
	// Output:
	// drop oldest
	// drop newest
	// close
	// purge
	// delete
}

func ExampleDropReason_MarshalText() {
	data, _ := json.Marshal(fanout.DroppedOldest)
	fmt.Println(string(data))
	// Output:
	// "drop oldest"
}

func ExampleDropReason_UnmarshalText() {
	var reason fanout.DropReason
	fmt.Println(reason.UnmarshalText([]byte("rain")))
	// Output:
	// fanout: invalid option: DropReason("rain"): want one of none, drop oldest, drop newest, close, purge, delete
}

// A history as a program writes it down.
func ExampleAttempt_MarshalJSON() {
	data, _ := json.Marshal(fanout.Attempt{
		Number: 1, Cause: fanout.Failed, Queue: "billing", Start: time.Date(2026, 7, 1, 12, 30, 0, 0, time.UTC),
		Elapsed: 1500 * time.Millisecond, Err: errors.New("the bank is down"),
	})
	fmt.Println(string(data))
	// Output:
	// {"number":1,"cause":"failed","queue":"billing","start":"2026-07-01T12:30:00Z","elapsed":"1.5s","error":"the bank is down"}
}

func ExampleAttempt_UnmarshalJSON() {
	var history []fanout.Attempt
	err := json.Unmarshal([]byte(`[{"number": 1, "cause": "timed out", "elapsed": "30s"}, {"number": 2, "cause": "failed", "elapsed": "7ms", "error": "busy"}]`), &history)
	fmt.Println(err)
	for _, a := range history {
		fmt.Println(a)
	}
	// Output:
	// <nil>
	// attempt 1: timed out after 30s
	// attempt 2: failed after 7ms: busy
}

func ExampleAttempt_String() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	orders.Publish(ctx, "o-17")
	d, _ := billing.Receive(ctx)
	d.Settle(ctx, errors.New("busy"))

	d, _ = billing.Receive(ctx)
	a := d.History()[0]
	a.Elapsed = 3 * time.Millisecond // for the sake of the example
	fmt.Println(a)
	d.Ack(ctx)
	// Output:
	// attempt 1: failed after 3ms: busy
}

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

// A function that knows no T looks after topics of any type.
func ExampleTopicView() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	prices, _ := fanout.NewTopic[int]("prices")
	orders.OpenQueue(ctx, "billing")
	orders.OpenQueue(ctx, "audit")
	prices.OpenQueue(ctx, "latest", fanout.WithCapacity(1))
	orders.Publish(ctx, "o-17")
	prices.Publish(ctx, 4999)

	report := func(topics ...fanout.AnyTopic) {
		for _, t := range topics {
			for _, q := range t.View().Queues() {
				fmt.Printf("%s/%s: %d of %d\n", t.Name(), q.Name(), q.Stats().Unsettled(), q.Settings().Capacity)
			}
		}
	}
	report(orders, prices)
	// Output:
	// orders/audit: 1 of 1024
	// orders/billing: 1 of 1024
	// prices/latest: 1 of 1
}

// Dead letters are looked at page by page. Of those that were seen some are deleted, and
// the others sent back; what dies later is left alone.
func ExampleQueueView() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1))
	for _, body := range []string{"o-17", "garbage", "o-18"} {
		orders.Publish(ctx, body)
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, errors.New("no such order"))
	}

	q := billing.View()
	var poison []string
	var newest time.Time
	for look := (fanout.PeekOptions{Most: 2, Body: 100}); ; {
		page, next, err := q.DeadLetters().Peek(ctx, look)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range page {
			fmt.Println(m.Body, "-", m.History[0].Cause, "-", m.History[0].Err)
			if !strings.HasPrefix(m.Body, "o-") {
				poison = append(poison, m.ID)
			}
			if m.DiedAt.After(newest) {
				newest = m.DiedAt
			}
		}
		if look.After = next; next == "" {
			break
		}
	}
	deleted, _ := q.DeleteLetters(ctx, fanout.RedriveIDs(poison...))
	moved, _ := q.Redrive(ctx, fanout.RedriveUntil(newest))
	fmt.Println("deleted", deleted, "- sent back", moved)
	// Output:
	// o-17 - failed - no such order
	// garbage - failed - no such order
	// o-18 - failed - no such order
	// deleted 1 - sent back 2
}

// Which subscriber has a handler that doesn't return is seen by the line that subscribed.
func ExampleSubscriberView() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(context.Context, fanout.Delivery[string]) error { return nil }, fanout.WithConcurrency(8))

	for _, s := range orders.View().Queue("billing").Subscribers() {
		file, _, _ := strings.Cut(s.Subscriber, ":")
		fmt.Println(file[strings.LastIndexByte(file, '/')+1:], s.Concurrency, s.Stuck)
	}
	// Output:
	// example_hooks_test.go 8 0
}

// A topic that is in use is tapped for a while.
func ExampleTopicView_tap() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	billing, _ := orders.OpenQueue(ctx, "billing")

	stop, _ := orders.View().Tap(fanout.Hooks{DeadLettered: func(e fanout.Event) { fmt.Println(e.Queue, e.Cause, e.Err) }})
	for _, body := range []string{"o-17", "o-18"} {
		orders.Publish(ctx, body)
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, fanout.Permanent(errors.New("poison "+body)))
		stop()
	}
	// Output:
	// billing permanent poison o-17
}

func ExampleRedriveUntil() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	billing, _ := orders.OpenQueue(ctx, "billing")
	die := func(body string) {
		orders.Publish(ctx, body)
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, fanout.Permanent(errors.New("poison")))
	}
	die("o-17")
	seen, _, _ := billing.View().DeadLetters().Peek(ctx, fanout.PeekOptions{Most: 100})
	die("o-18") // nobody has looked at this one

	moved, _ := billing.Redrive(ctx, fanout.RedriveUntil(seen[len(seen)-1].DiedAt))
	fmt.Println(moved, "sent back,", billing.Stats().Dead, "left")
	// Output:
	// 1 sent back, 1 left
}

package fanout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

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
